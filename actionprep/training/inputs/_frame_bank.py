"""The frames of all snippets in memory."""

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
    """The frames of all snippets in memory.

    Attributes:
        images: Frames of all views one after the other, uint8 of shape (F, C, H, W).
        start: Position of frame 0 of each (recording code, view index). It can be negative, because only needed frames
            are in memory.
    """

    images: Tensor
    start: dict[tuple[int, int], int]

    @classmethod
    def load(
        cls,
        needed: Mapping[tuple[int, int], tuple[int, int]],
        read: Callable[[int, int, np.ndarray], np.ndarray],
        shape: tuple[int, int, int],
    ) -> Self:
        """Read frames in chunks, each into the upper left corner of an image of this shape.

        Args:
            needed: First frame and frame after the last, by (recording code, view index).
            read: Function that returns frames (n, C, H, W) for a recording code, a view index and frame numbers (n,).
            shape: Channels, and the largest height and width of a frame.
        """
        import torch

        total = sum(last - first for first, last in needed.values())
        images = torch.zeros((max(total, 1), *shape), dtype=torch.uint8)
        start, position = {}, 0
        for (code, column), (first, last) in needed.items():
            start[code, column] = position - first
            for chunk in range(first, last, 64):
                part = torch.from_numpy(read(code, column, np.arange(chunk, min(chunk + 64, last))))
                images[position : position + len(part), :, : part.shape[2], : part.shape[3]] = part
                position += len(part)
        return cls(images, start)

    def gather(self, index: np.ndarray) -> Tensor:
        """Return frames of shape (*index.shape, C, H, W); zeros where the index is negative."""
        import torch

        position = torch.from_numpy(index).to(self.images.device)
        images = self.images[position.clamp(min=0)]
        if bool((position < 0).any()):
            images[position < 0] = 0
        return images

    def to(self, device: torch.device) -> None:
        """Move to a device with enough free memory."""
        import torch

        if device.type == "cuda" and self.images.nbytes > 0.4 * torch.cuda.mem_get_info(device)[0]:
            return
        self.images = self.images.to(device)
