"""Heatmap volumes that were rendered in advance and stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from actionprep.datasets.poses.skeletons import skeleton_of_item
from actionprep.datasets.windows import frame_range
from actionprep.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from actionprep.datasets.products.snippets import SnippetTable
    from actionprep.datasets.store.zarr_store import Store


@dataclass(frozen=True)
class _Kind:
    """What all items of a batch must have in common: shape of one frame, channels, skeleton and kind."""

    shape: tuple[int, ...]
    channels: tuple[str, ...]
    skeleton: str
    kind: str


class StoredVolumes:
    """Volumes of the product `heatmaps`.

    Attributes:
        shape: Shape of one frame of one view, ([M,] C, H, W).
        kind: "joint" or "limb".
        skeleton: Name of the joint layout.
        channels: Names of the joints or limbs, length C.
    """

    def __init__(self, store: Store, table: SnippetTable, views: Sequence[str]) -> None:
        self.store, self.table, self.views = store, table, tuple(views)
        self._times: dict[tuple[int, str], np.ndarray] = {}
        common: _Kind | None = None
        first_name = ""
        for code in np.unique(table.recording).tolist():
            for view in self.views:
                if not store.has("heatmaps", table.recordings[code], view):
                    continue
                item = store.item("heatmaps", table.recordings[code], view)
                attributes = item.attributes
                kind = _Kind(
                    tuple(item["volume"].shape[1:]),
                    tuple(attributes["channels"]),
                    skeleton_of_item(attributes),
                    str(attributes["kind"]),
                )
                item_name = f"heatmaps/{table.recordings[code]}/{view}"
                if common is not None and kind != common:
                    raise UserError(
                        f"The stored heatmaps differ in kind: {item_name} has {kind.kind}s of {kind.skeleton} with shape "
                        f"{kind.shape}, and {first_name} has {common.kind}s of {common.skeleton} with shape {common.shape}. "
                        'Create all with the same settings, or render volumes from poses: source = "pose".'
                    )
                common, first_name = common or kind, first_name or item_name
                self._times[code, view] = np.asarray(item["time"][:], np.float64)
        if common is None:
            raise UserError(f"The store {store.url} has heatmaps, but none of the recordings of these snippets.")
        self.shape, self.kind, self.skeleton, self.channels = (
            common.shape,
            common.kind,
            common.skeleton,
            common.channels,
        )

    @property
    def sees_persons(self) -> bool:
        """Whether each person has a separate volume."""
        return len(self.shape) == 4

    def frames(self, row: int) -> list[tuple[int, int]]:
        """Return the first frame and the number of frames of a snippet, per view."""
        code = int(self.table.recording[row])
        ranges = []
        for view in self.views:
            times = self._times.get((code, view), np.zeros(0))
            first, last = frame_range(times, float(self.table.onset[row]), float(self.table.offset[row]))
            ranges.append((first, last - first))
        return ranges

    def read(self, row: int, share: np.ndarray) -> Tensor:
        """Read frames of a snippet.

        Args:
            row: Row of the table.
            share: Positions as shares of the snippet in [0, 1], shape (T,).

        Returns:
            Volumes of shape (1, V · C, T, H, W) or (1, V · M, C, T, H, W); zeros for a view without frames.
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
