"""Stored windows of tracks as arrays: where they are in time, and their points with what moves them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from actionprep.datasets.products.tracks import read_tracks

if TYPE_CHECKING:
    from actionprep.datasets.store.zarr_store import Store


@dataclass(frozen=True)
class TrackSource:
    """One stored item of tracks: frame times of its windows and their sizes."""

    time: np.ndarray  # (W, T), NaN after the end
    num_slots: int

    @property
    def num_windows(self) -> int:
        """W."""
        return len(self.time)

    @property
    def num_frames(self) -> int:
        """T."""
        return int(self.time.shape[1])

    def touching(self, onset: float, offset: float) -> tuple[int, int]:
        """First and last + 1 of the windows with a frame in [onset, offset)."""
        with np.errstate(invalid="ignore"):
            inside = ((self.time >= onset) & (self.time < offset)).any(axis=1)
        found = np.flatnonzero(inside)
        return (int(found[0]), int(found[-1]) + 1) if len(found) else (0, 0)


def track_sources(store: Store, recording: str, views: Sequence[str]) -> dict[str, TrackSource]:
    """The items of a recording that there are, by view."""
    found = {}
    for view in views:
        if store.has("tracks", recording, view):
            item = store.item("tracks", recording, view)
            found[view] = TrackSource(item["time"][:], item["xy"].shape[2])
    return found


@dataclass(frozen=True)
class TrackWindows:
    """Windows of one item or of several: see `TrackBank`, which holds them as tensors."""

    xy: np.ndarray
    velocity: np.ndarray
    seen: np.ndarray
    num_points: np.ndarray
    time: np.ndarray
    interval: np.ndarray

    @classmethod
    def empty(cls) -> Self:
        """One window without a frame."""
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
        """One after the other, padded to the longest and the most points."""
        num_frames = max(part.xy.shape[1] for part in parts)
        num_slots = max(part.xy.shape[2] for part in parts)

        def padded(name: str, fill: float, *axes: int) -> np.ndarray:
            sizes = {1: num_frames, 2: num_slots}
            found = []
            for part in parts:
                values = getattr(part, name)
                room = [(0, sizes[axis] - values.shape[axis] if axis in axes else 0) for axis in range(values.ndim)]
                found.append(np.pad(values, room, constant_values=fill) if any(after for _, after in room) else values)
            return np.concatenate(found)

        return cls(
            padded("xy", 0, 1, 2),
            padded("velocity", 0, 1, 2),
            padded("seen", False, 1, 2),
            np.concatenate([part.num_points for part in parts]),
            padded("time", np.inf, 1),
            np.concatenate([part.interval for part in parts]),
        )


def read_windows(item: Any, first: int, last: int) -> TrackWindows:
    """Windows of an item, from the first to before the last."""
    tracks = read_tracks(item, slice(first, last))
    xy, valid, time = tracks.xy, tracks.valid, tracks.time.copy()
    time[~tracks.frame_valid] = np.inf
    is_visible = tracks.visible & valid[:, None, :] & np.isfinite(xy).all(axis=-1) & np.isfinite(time)[..., None]
    if not (np.diff(valid.astype(np.int8), axis=1) <= 0).all():
        # Points must stand first: seats of a window are asked for by number.
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
    """How points move, from the frames before and after, where they are visible in both.

    xy (W, T, N, 2), is_visible (W, T, N), time (W, T) s, inf where there is no frame.
    Returns the velocity (W, T, N, 2) float32 per second, the mean of the step from the frame before and the step to the
    frame after (one alone where the other is not known), and whether one is known (W, T, N).
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
