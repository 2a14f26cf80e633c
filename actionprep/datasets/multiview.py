"""Bring point tracks of several views to common time steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from actionprep.datasets.frame_times import frame_interval
from actionprep.datasets.products.tracks import Tracks

_NEAREST = 0.75
"""A time step uses a frame at most this many frame intervals away; in a longer gap it has none."""


@dataclass(frozen=True, slots=True)
class MultiviewTracks:
    """Point tracks of V views at T common time steps.

    Attributes:
        time: Time steps in seconds on the recording's clock, shape (T,).
        views: Ids of the views.
        xy: Positions in pixels of each view, shape (T, V, N, 2), float32; 0 where not valid.
        valid: Points that exist and are visible, bool of shape (T, V, N).
        frame: Frame of each view at each time step, shape (T, V); -1 in gaps, outside of the view and in missing views.
        lag: Time of that frame minus the time step in seconds, shape (T, V); NaN without a frame.
        window: Window of the tracks that each time step uses, shape (T, V); -1 without a frame. Point n is the same point
            at all time steps with the same window.
        missing: Views without tracks.
    """

    time: np.ndarray
    views: tuple[str, ...]
    xy: np.ndarray
    valid: np.ndarray
    frame: np.ndarray
    lag: np.ndarray
    window: np.ndarray
    missing: tuple[str, ...]


def sample_views(
    tracks: Mapping[str, Tracks | None], time: np.ndarray, *, points: int | None = None
) -> MultiviewTracks:
    """Sample the tracks of several views at common times. Nothing is interpolated.

    Views may differ in rate, offset and length, and may lack frames. Each view uses its frame nearest to each time step,
    at most 0.75 of its frame interval away. Windows that have that frame equally near are chosen so that the time step is
    as close as possible to the middle of the window.

    Args:
        tracks: Tracks of each view with times on the recording's clock; None for a missing view.
        time: Time steps in seconds, shape (T,).
        points: Number of points N, spread evenly over those of each window. Default: the largest number of a window.

    Returns:
        The samples.
    """
    time = np.asarray(time, np.float64)
    known = {
        view: view_tracks
        for view, view_tracks in tracks.items()
        if view_tracks is not None and view_tracks.frame_valid.any()
    }
    largest = max((int(view_tracks.valid.sum(axis=1).max()) for view_tracks in known.values()), default=0)
    shape = (len(time), len(tracks), largest if points is None else points)
    xy, valid = np.zeros((*shape, 2), np.float32), np.zeros(shape, bool)
    frame, window = np.full(shape[:2], -1), np.full(shape[:2], -1)
    lag = np.full(shape[:2], np.nan)
    for column, view in enumerate(tracks):
        if view not in known:
            continue
        view_tracks = known[view]
        chosen, position, distance = _nearest(view_tracks, time)
        steps = np.flatnonzero(np.abs(distance) <= _NEAREST * _interval(view_tracks) + 1e-6)
        rows, at = chosen[steps], position[steps]
        frame[steps, column], window[steps, column] = view_tracks.frame[rows, at], rows
        lag[steps, column] = distance[steps]
        for row in np.unique(rows):
            slots = _spread(np.flatnonzero(view_tracks.valid[row]), shape[2])
            here, place = steps[rows == row], at[rows == row]
            seen = view_tracks.visible[row, place][:, slots]
            valid[here, column, : len(slots)] = seen
            xy[here, column, : len(slots)] = np.where(seen[..., None], view_tracks.xy[row, place][:, slots], 0)
    return MultiviewTracks(
        time, tuple(tracks), xy, valid, frame, lag, window, tuple(v for v in tracks if v not in known)
    )


def _nearest(tracks: Tracks, time: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Window, position in it and signed distance in s of the frame nearest to each time."""
    exists = tracks.frame_valid
    starts = np.where(exists, tracks.time, np.inf).min(axis=1)
    ends = np.where(exists, tracks.time, -np.inf).max(axis=1)
    frames = np.where(exists, tracks.time, np.inf)
    windows, positions, distances = (np.zeros(len(time), int), np.zeros(len(time), int), np.zeros(len(time)))
    middle = np.where(np.isfinite(starts), (starts + ends) / 2, np.inf)
    for step, at in enumerate(time):
        away = np.abs(frames - at)
        nearest = away.min(axis=1)
        equal = np.flatnonzero(nearest <= nearest.min() + 1e-9)
        row = equal[np.abs(middle[equal] - at).argmin()]
        windows[step], positions[step] = row, away[row].argmin()
        distances[step] = frames[row, positions[step]] - at
    return windows, positions, distances


def _interval(tracks: Tracks) -> float:
    return frame_interval(np.unique(tracks.time[tracks.frame_valid]))


def _spread(slots: np.ndarray, count: int) -> np.ndarray:
    """At most `count` slots, evenly over all."""
    if len(slots) <= count:
        return slots
    return np.asarray(slots[((np.arange(count) + 0.5) * len(slots) / count).astype(int)])
