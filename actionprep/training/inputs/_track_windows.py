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

        num_windows = sum(len(part.xy) for part in parts)

        def padded(name: str, fill: float, *axes: int) -> np.ndarray:
            first: np.ndarray = getattr(parts[0], name)
            sizes = {0: num_windows, 1: num_frames, 2: num_slots}
            shape = [sizes[axis] if axis in (0, *axes) else size for axis, size in enumerate(first.shape)]
            joined, start = np.full(shape, fill, first.dtype), 0
            for part in parts:
                values = getattr(part, name)
                inside = tuple(slice(size) for size in values.shape[1:])
                joined[(slice(start, start + len(values)), *inside)] = values
                start += len(values)
            return joined

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
    is_known = np.isfinite(xy)
    is_visible &= valid[:, None, :] & is_known[..., 0] & is_known[..., 1] & np.isfinite(time)[..., None]
    if not (np.diff(valid.astype(np.int8), axis=1) <= 0).all():
        # Points must come first, because they are selected by index.
        order = np.argsort(~valid, axis=1, kind="stable")
        xy = np.take_along_axis(xy, order[:, None, :, None], 2)
        is_visible = np.take_along_axis(is_visible, order[:, None, :], 2)
    xy[~is_visible] = 0
    velocity, known = velocities(xy, is_visible, time)
    return TrackWindows(xy, velocity, is_visible & known, valid.sum(axis=1).astype(np.int64), time, _intervals(time))


def _intervals(time: np.ndarray) -> np.ndarray:
    """Median time between frames of each window in seconds, shape (W,); 0 for a window with fewer than two frames."""
    with np.errstate(invalid="ignore"):
        steps = np.diff(time, axis=1)
    is_finite = np.isfinite(steps)
    if steps.size and is_finite.all():
        medians: np.ndarray = np.median(steps, axis=1)
        return medians
    rows = zip(steps, is_finite, strict=True)
    return np.array([np.median(row[finite]) if finite.any() else 0.0 for row, finite in rows])


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
    before, after = np.zeros_like(is_visible), np.zeros_like(is_visible)
    before[:, 1:], after[:, :-1] = both, both
    weight = rate[:, :, None] * both
    mean = np.where(before & after, np.float32(0.5), np.float32(1))
    velocity = np.zeros_like(xy)
    for axis in range(2):  # operations on pairs of values are slow
        step = (xy[:, 1:, :, axis] - xy[:, :-1, :, axis]) * weight
        velocity[:, 1:, :, axis] = step
        velocity[:, :-1, :, axis] += step
        velocity[..., axis] *= mean
    return velocity, before | after
