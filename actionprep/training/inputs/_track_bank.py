"""Tracks of snippets in memory, and the moving regions that their positions are relative to."""

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
    """Windows of tracks, and for each of S snippets and V views the windows that it needs.

    Attributes:
        xy: Positions in pixels, shape (W, T, N, 2).
        velocity: Pixels per second, shape (W, T, N, 2).
        seen: Points that are visible and have a known velocity, bool (W, T, N).
        num_points: Number of slots that contain a point, shape (W,); these come first.
        time: Frame times in seconds, shape (W, T); inf where there is no frame.
        interval: Seconds from frame to frame, shape (W,).
        first: First window of each snippet and view, shape (S, V).
        count: Number of windows of each snippet and view, shape (S, V).
        center: Center of the moving region in pixels, shape (S, V, 2).
        half_height: Half the height of the moving region in pixels, shape (S, V).
        onset: Start of the snippets in seconds, shape (S,).
        offset: End of the snippets in seconds, shape (S,).
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
        sources: Sequence[dict[str, TrackSource]],
        rows: np.ndarray,
        regions: np.ndarray | None = None,
    ) -> Self:
        """Read the windows that overlap the snippets, each once.

        Args:
            store: Store to read.
            table: Table of snippets.
            views: Names of the views.
            sources: Track items of each recording by view.
            rows: Rows of the table.
            regions: Center and half height of the region that positions are relative to, shape (S, V, 3). None: the
                moving region of each snippet.

        Returns:
            The tracks.
        """
        import torch

        ranges = np.zeros((len(rows), len(views), 2), np.int64)
        needed: dict[tuple[int, str], list[int]] = {}
        for index, row in enumerate(rows):
            code = int(table.recording[row])
            for column, view in enumerate(views):
                source = sources[code].get(view)
                if source is None:
                    continue
                first, last = source.overlapping(float(table.onset[row]), float(table.offset[row]))
                ranges[index, column] = first, last
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
        """Return a copy on another device."""
        return TrackBank(**{name: getattr(self, name).to(device) for name in self.__dataclass_fields__})


Region = tuple[float, float, float]
"""x and y of the center of a moving region, and half its height, in pixels."""


def _regions(
    windows: TrackWindows, first: np.ndarray, count: np.ndarray, onset: np.ndarray, offset: np.ndarray
) -> np.ndarray:
    """Moving regions of snippets, shape (S, V, 3)."""
    regions = np.zeros((*first.shape, 3))
    for snippet, view in np.ndindex(*first.shape):
        members = slice(first[snippet, view], first[snippet, view] + count[snippet, view])
        time = windows.time[members]
        inside = (time >= onset[snippet]) & (time < offset[snippet])
        regions[snippet, view] = moving_region(windows.xy[members][windows.seen[members] & inside[..., None]])
    return regions


def moving_region(points: np.ndarray) -> Region:
    """Compute the region that contains the middle 96 % of points in x and in y.

    Args:
        points: Positions in pixels, shape (n, 2).

    Returns:
        The region; center (0, 0) and half height 1 without points.
    """
    if not len(points):
        return 0.0, 0.0, 1.0
    # A few outliers must not determine the region.
    low, high = np.percentile(points[:: max(1, len(points) // 8192)], [2, 98], axis=0)
    x, y = (low + high) / 2
    return float(x), float(y), float(max((high[1] - low[1]) / 2, (high[0] - low[0]) / 4, 4.0))
