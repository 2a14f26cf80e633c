"""The pictures of all snippets side by side in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass
class FrameBank:
    """The pictures of all snippets in memory: (F, 3, H, W) uint8, and where each view's frame 0 would stand."""

    pictures: Tensor
    start: dict[tuple[int, int], int]

    @classmethod
    def load(
        cls,
        needed: Mapping[tuple[int, int], tuple[int, int]],
        read: Callable[[int, int, np.ndarray], np.ndarray],
        height: int,
        width: int,
    ) -> Self:
        """Read what is needed, some pictures at a time, into the upper left of height x width px.

        needed: for each recording's code and view's number its first and last + 1 frame.
        read:   gives the pictures (n, 3, H, W) of a code and a view with these numbers (n).
        """
        import torch

        total = sum(last - first for first, last in needed.values())
        pictures = torch.zeros((max(total, 1), 3, height, width), dtype=torch.uint8)
        start, at = {}, 0
        for (code, column), (first, last) in needed.items():
            start[code, column] = at - first
            for begin in range(first, last, 64):
                part = torch.from_numpy(read(code, column, np.arange(begin, min(begin + 64, last))))
                pictures[at : at + len(part), :, : part.shape[2], : part.shape[3]] = part
                at += len(part)
        return cls(pictures, start)

    def gather(self, index: np.ndarray) -> Tensor:
        """(*index.shape, 3, H, W); zeros where the index is negative."""
        import torch

        at = torch.from_numpy(index).to(self.pictures.device)
        found = self.pictures[at.clamp(min=0)]
        if bool((at < 0).any()):
            found[at < 0] = 0
        return found

    def to(self, device: torch.device) -> None:
        """Move to a device that has room to spare for it."""
        import torch

        if device.type == "cuda" and self.pictures.nbytes > 0.4 * torch.cuda.mem_get_info(device)[0]:
            return
        self.pictures = self.pictures.to(device)
