"""Stored windows of tracks as arrays: their times, and their points with velocities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from actionprep.datasets.products.tracks import visible

if TYPE_CHECKING:
    from actionprep.datasets.store.zarr_store import Store


@dataclass(frozen=True)
class TrackSource:
    """Frame times and sizes of a stored track item.

    Attributes:
        time: Frame times of the windows in seconds, shape (W, T); NaN after the end.
        num_slots: Number of point slots N.
    """

    time: np.ndarray
    num_slots: int

    @property
    def num_windows(self) -> int:
        """Number of windows W."""
        return len(self.time)

    @property
    def num_frames(self) -> int:
        """Number of frames per window T."""
        return int(self.time.shape[1])

    def overlapping(self, onset: float, offset: float) -> tuple[int, int]:
        """Return the first window with a frame in [onset, offset), and the window after the last one."""
        with np.errstate(invalid="ignore"):
            inside = ((self.time >= onset) & (self.time < offset)).any(axis=1)
        windows = np.flatnonzero(inside)
        return (int(windows[0]), int(windows[-1]) + 1) if len(windows) else (0, 0)


def track_sources(store: Store, recording: str, views: Sequence[str]) -> dict[str, TrackSource]:
    """List the track items of a recording by view."""
    sources = {}
    for view in views:
        if store.has("tracks", recording, view):
            item = store.item("tracks", recording, view)
            sources[view] = TrackSource(item["time"][:], item["xy"].shape[2])
    return sources


@dataclass(frozen=True)
class TrackWindows:
    """Windows of one or several items as arrays; see `TrackBank` for their meaning."""

    xy: np.ndarray
    velocity: np.ndarray
    seen: np.ndarray
    num_points: np.ndarray
    time: np.ndarray
    interval: np.ndarray

    @classmethod
    def empty(cls) -> Self:
        """Return one window without a frame."""
        zero = np.zeros((1, 1, 1, 2), np.float32)
        return cls(
            zero,
            zero,
            np.zeros((1, 1, 1), bool),
            np.zeros(1, np.int64),
            np.full((1, 1), np.inf),
            np.zeros(1, np.float64),
        )

    @classmethod
    def joined(cls, parts: Sequence[TrackWindows]) -> Self:
        """Concatenate windows, padded to the longest one and the largest number of points."""
        num_frames = max(part.xy.shape[1] for part in parts)
        num_slots = max(part.xy.shape[2] for part in parts)

        def padded(name: str, fill: float, *axes: int) -> np.ndarray:
            sizes = {1: num_frames, 2: num_slots}
            arrays = []
            for part in parts:
                values = getattr(part, name)
                padding = [(0, sizes[axis] - values.shape[axis] if axis in axes else 0) for axis in range(values.ndim)]
                needs_padding = any(after for _, after in padding)
                arrays.append(np.pad(values, padding, constant_values=fill) if needs_padding else values)
            return np.concatenate(arrays)

        return cls(
            padded("xy", 0, 1, 2),
            padded("velocity", 0, 1, 2),
            padded("seen", False, 1, 2),
            np.concatenate([part.num_points for part in parts]),
            padded("time", np.inf, 1),
            np.concatenate([part.interval for part in parts]),
        )


def read_windows(item: Any, first: int, last: int) -> TrackWindows:
    """Read windows `first` to `last - 1` of an item."""
    # Only the arrays that a sample needs: `read_tracks` reads all.
    attributes, windows = item.attributes, slice(first, last)
    xy, valid, time = item["xy"][windows], item["valid"][windows].astype(bool), item["time"][windows].copy()
    time[~item["frame_valid"][windows].astype(bool)] = np.inf
    is_visible = visible(
        item["visibility"][windows],
        item["confidence"][windows],
        rule=attributes.get("visible_rule", "visibility"),
        above=attributes.get("visible_above", 0.5),
    )
    is_visible &= valid[:, None, :] & np.isfinite(xy).all(axis=-1) & np.isfinite(time)[..., None]
    if not (np.diff(valid.astype(np.int8), axis=1) <= 0).all():
        # Points must come first, because they are selected by index.
        order = np.argsort(~valid, axis=1, kind="stable")
        xy = np.take_along_axis(xy, order[:, None, :, None], 2)
        is_visible = np.take_along_axis(is_visible, order[:, None, :], 2)
    xy = np.where(is_visible[..., None], xy, np.float32(0))
    velocity, known = velocities(xy, is_visible, time)
    with np.errstate(invalid="ignore"):
        steps = np.diff(time, axis=1)
    interval = np.array([np.median(row[np.isfinite(row)]) if np.isfinite(row).any() else 0.0 for row in steps])
    return TrackWindows(xy, velocity, is_visible & known, valid.sum(axis=1).astype(np.int64), time, interval)


def velocities(xy: np.ndarray, is_visible: np.ndarray, time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute velocities of points from the previous and the next frame in which they are visible.

    The velocity is the mean of the step from the previous frame and the step to the next one, or the known one of the
    two.

    Args:
        xy: Positions, shape (W, T, N, 2).
        is_visible: Whether each point is visible, bool (W, T, N).
        time: Frame times in seconds, shape (W, T); inf where there is no frame.

    Returns:
        Velocities per second, float32 of shape (W, T, N, 2), and whether they are known, bool (W, T, N).
    """
    with np.errstate(invalid="ignore"):
        seconds = np.diff(time, axis=1)
    good = np.isfinite(seconds) & (seconds > 0)
    both = is_visible[:, 1:] & is_visible[:, :-1] & good[..., None]
    rate = np.divide(1.0, seconds, out=np.zeros_like(seconds), where=good).astype(np.float32)
    step = np.where(both[..., None], np.diff(xy, axis=1) * rate[:, :, None, None], np.float32(0))
    total = np.zeros_like(xy)
    count = np.zeros(is_visible.shape, np.float32)
    total[:, 1:] += step
    total[:, :-1] += step
    count[:, 1:] += both
    count[:, :-1] += both
    return total / np.maximum(count, 1)[..., None], count > 0
