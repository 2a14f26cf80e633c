"""Heatmap volumes that the store holds ready: frames of a snippet, as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from actionprep.datasets.poses.skeletons import skeleton_of_item
from actionprep.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from actionprep.datasets.products.snippets import SnippetTable
    from actionprep.datasets.store.zarr_store import Store


@dataclass(frozen=True)
class _Kind:
    """What all items of a batch must have in common: axes of one frame, channels, sizes, and what a 1 is stored as."""

    shape: tuple[int, ...]
    channels: tuple[str, ...]
    skeleton: str
    kind: str


class StoredVolumes:
    """Volumes of the product `heatmaps`, side by side as those that are rendered.

    shape: of one frame of one view, ([M,] C, H, W). kind: joint or limb; skeleton: name of the layout; channels: names
    of the joints or limbs (C).
    """

    def __init__(self, store: Store, table: SnippetTable, views: Sequence[str]) -> None:
        self.store, self.table, self.views = store, table, tuple(views)
        self._times: dict[tuple[int, str], np.ndarray] = {}
        found: _Kind | None = None
        first = ""
        for code in np.unique(table.recording).tolist():
            for view in self.views:
                if not store.has("heatmaps", table.recordings[code], view):
                    continue
                item = store.item("heatmaps", table.recordings[code], view)
                attributes = item.attributes
                this = _Kind(
                    tuple(item["volume"].shape[1:]),
                    tuple(attributes["channels"]),
                    skeleton_of_item(attributes),
                    str(attributes["kind"]),
                )
                where = f"heatmaps/{table.recordings[code]}/{view}"
                if found is not None and this != found:
                    raise UserError(
                        f"The stored heatmaps are not of one kind: {where} has {this.kind}s of {this.skeleton} in the "
                        f"shape {this.shape}, and {first} has {found.kind}s of {found.skeleton} in {found.shape}. Make "
                        'all with the same settings, or have volumes rendered: source = "pose".'
                    )
                found, first = found or this, first or where
                self._times[code, view] = np.asarray(item["time"][:], np.float64)
        if found is None:
            raise UserError(
                f"The store {store.url} has heatmaps, but of none of the recordings that the snippets are of."
            )
        self.shape, self.kind, self.skeleton, self.channels = found.shape, found.kind, found.skeleton, found.channels

    @property
    def sees_persons(self) -> bool:
        """Whether each person has a volume of its own."""
        return len(self.shape) == 4

    def frames(self, row: int) -> list[tuple[int, int]]:
        """For each view the first frame of a snippet and how many there are."""
        code = int(self.table.recording[row])
        found = []
        for view in self.views:
            times = self._times.get((code, view), np.zeros(0))
            first, last = np.searchsorted(times, [self.table.onset[row] - 1e-9, self.table.offset[row] - 1e-9])
            found.append((int(first), int(last - first)))
        return found

    def read(self, row: int, share: np.ndarray) -> Tensor:
        """(1, V · C, T, H, W), or (1, V · M, C, T, H, W): frames at these shares (T) of a snippet, in 0..1.

        A view without frames then is zeros.
        """
        import torch

        code = int(self.table.recording[row])
        parts = []
        for view, (first, count) in zip(self.views, self.frames(row), strict=True):
            volume = np.zeros((len(share), *self.shape), np.float32)
            if count:
                item = self.store.item("heatmaps", self.table.recordings[code], view)
                frames = first + np.minimum((share * count).astype(np.int64), count - 1)
                low, high = int(frames.min()), int(frames.max()) + 1
                volume = item["volume"][low:high][frames - low].astype(np.float32) * float(item.attributes["scale"])
            parts.append(torch.from_numpy(np.ascontiguousarray(volume)).movedim(0, -3))
        return torch.cat(parts)[None]
