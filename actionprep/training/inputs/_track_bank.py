"""Tracks of snippets side by side in memory, and the moving regions that their positions are relative to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from actionprep.training.inputs._track_windows import TrackSource, TrackWindows, read_windows

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from actionprep.datasets.products.snippets import SnippetTable
    from actionprep.datasets.store.zarr_store import Store


@dataclass(frozen=True)
class TrackBank:
    """Windows of tracks side by side, and for each snippet and view which of them it needs.

    xy, velocity (ΣW, T, N, 2), seen (ΣW, T, N) bool: visible and with a known velocity; num_points (ΣW): slots that
    hold a point, which stand first. time (ΣW, T) s, inf where there is no frame; interval (ΣW) s between frames.
    first, count (S, V): windows of each snippet; center (S, V, 2) px, half_height (S, V) px; onset, offset (S) s.
    """

    xy: Tensor
    velocity: Tensor
    seen: Tensor
    num_points: Tensor
    time: Tensor
    interval: Tensor
    first: Tensor
    count: Tensor
    center: Tensor
    half_height: Tensor
    onset: Tensor
    offset: Tensor

    @classmethod
    def load(
        cls,
        store: Store,
        table: SnippetTable,
        views: Sequence[str],
        places: Sequence[dict[str, TrackSource]],
        rows: np.ndarray,
        regions: np.ndarray | None = None,
    ) -> Self:
        """Read the windows that these snippets touch, each once.

        regions (S, V, 3): middle and half height that positions are relative to; None: of each snippet its own.
        """
        import torch

        ranges = np.zeros((len(rows), len(views), 2), np.int64)
        needed: dict[tuple[int, str], list[int]] = {}
        for at, row in enumerate(rows):
            code = int(table.recording[row])
            for column, view in enumerate(views):
                place = places[code].get(view)
                if place is None:
                    continue
                first, last = place.touching(float(table.onset[row]), float(table.offset[row]))
                ranges[at, column] = first, last
                if last > first:
                    span = needed.setdefault((code, view), [first, last])
                    span[0], span[1] = min(span[0], first), max(span[1], last)
        parts = []
        start: dict[tuple[int, str], int] = {}
        total = 0
        for (code, view), (first, last) in needed.items():
            start[code, view] = total - first
            total += last - first
            parts.append(read_windows(store.item("tracks", table.recordings[code], view), first, last))
        if not parts:
            parts = [TrackWindows.empty()]
        windows = TrackWindows.joined(parts)
        offsets = np.array(
            [[start.get((int(table.recording[row]), view), 0) for view in views] for row in rows], np.int64
        ).reshape(len(rows), len(views))
        counts = ranges[..., 1] - ranges[..., 0]
        firsts = np.where(counts > 0, ranges[..., 0] + offsets, 0)
        if regions is None:
            regions = _regions(windows, firsts, counts, table.onset[rows], table.offset[rows])
        arrays = {
            "xy": windows.xy,
            "velocity": windows.velocity,
            "seen": windows.seen,
            "num_points": windows.num_points,
            "time": windows.time,
            "interval": windows.interval,
            "first": firsts,
            "count": counts,
            "center": regions[..., :2].astype(np.float32),
            "half_height": regions[..., 2].astype(np.float32),
            "onset": table.onset[rows],
            "offset": table.offset[rows],
        }
        return cls(**{name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in arrays.items()})

    def to(self, device: torch.device) -> TrackBank:
        """The same on another device."""
        return TrackBank(**{name: getattr(self, name).to(device) for name in self.__dataclass_fields__})


Region = tuple[float, float, float]
"""x and y of the middle of a moving region, and its half height, in px."""


def _regions(
    windows: TrackWindows, first: np.ndarray, count: np.ndarray, onset: np.ndarray, offset: np.ndarray
) -> np.ndarray:
    """(S, V, 3) where the visible points of each snippet are."""
    found = np.zeros((*first.shape, 3))
    for snippet, view in np.ndindex(*first.shape):
        some = slice(first[snippet, view], first[snippet, view] + count[snippet, view])
        time = windows.time[some]
        inside = (time >= onset[snippet]) & (time < offset[snippet])
        found[snippet, view] = moving_region(windows.xy[some][windows.seen[some] & inside[..., None]])
    return found


def moving_region(points: np.ndarray) -> Region:
    """The middle 96 % of points (n, 2); without any a region of half height 1 about the origin."""
    if not len(points):
        return 0.0, 0.0, 1.0
    # The ends are cut off so that a few stray points do not decide.
    low, high = np.percentile(points[:: max(1, len(points) // 8192)], [2, 98], axis=0)
    x, y = (low + high) / 2
    return float(x), float(y), float(max((high[1] - low[1]) / 2, (high[0] - low[0]) / 4, 4.0))
