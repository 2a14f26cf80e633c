"""Windows of tracks as arrays, against plain loops."""

from __future__ import annotations

import numpy as np
import pytest

from actionprep.training.inputs._track_windows import TrackWindows, _intervals, velocities


def windows(num_windows: int, num_frames: int, num_points: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions, visibility and times with gaps, of windows that end early."""
    generator = np.random.default_rng(seed)
    is_visible = generator.random((num_windows, num_frames, num_points)) < 0.7
    xy = generator.random((num_windows, num_frames, num_points, 2), np.float32) * 300
    xy[~is_visible] = 0
    time = np.cumsum(generator.choice([0.04, 0.08], (num_windows, num_frames)), axis=1)
    time[0, num_frames // 2 :] = np.inf
    is_visible &= np.isfinite(time)[..., None]
    return xy, is_visible, time


def test_velocities_equal_loop() -> None:
    xy, is_visible, time = windows(3, 7, 5, seed=0)
    velocity, known = velocities(xy, is_visible, time)
    for window, frame, point in np.ndindex(is_visible.shape):
        steps = []
        for first in (frame - 1, frame):
            if 0 <= first < 6 and is_visible[window, [first, first + 1], point].all():
                seconds = time[window, first + 1] - time[window, first]
                steps.append((xy[window, first + 1, point] - xy[window, first, point]) / seconds)
        assert known[window, frame, point] == bool(steps)
        expected = np.mean(steps, axis=0) if steps else (0.0, 0.0)
        assert velocity[window, frame, point] == pytest.approx(expected, rel=1e-4, abs=1e-3)
    assert velocity.dtype == np.float32


def test_intervals_equal_loop() -> None:
    _, _, time = windows(4, 9, 1, seed=1)
    time[1, 1:] = np.inf
    expected = []
    for row in time:
        frames = [value for value in row if np.isfinite(value)]
        expected.append(np.median(np.diff(frames)) if len(frames) > 1 else 0.0)
    assert _intervals(time) == pytest.approx(expected)
    assert _intervals(time[2:]) == pytest.approx(expected[2:])
    assert _intervals(time[:, :1]).tolist() == [0.0] * 4


def test_joined_windows_are_padded() -> None:
    parts = []
    for sizes in ((2, 3, 4), (1, 5, 2)):
        xy, seen, time = windows(*sizes, seed=sizes[0])
        num_points = np.full(sizes[0], sizes[2])
        parts.append(TrackWindows(xy, xy + 1, seen, num_points, time, np.full(sizes[0], 0.04)))
    joined = TrackWindows.joined(parts)
    assert joined.xy.shape == joined.velocity.shape == (3, 5, 4, 2)
    assert joined.num_points.tolist() == [4, 4, 2]
    for part, rows in zip(parts, (slice(0, 2), slice(2, 3)), strict=True):
        frames, points = part.seen.shape[1:]
        assert np.array_equal(joined.xy[rows, :frames, :points], part.xy)
        assert np.array_equal(joined.velocity[rows, :frames, :points], part.velocity)
        assert np.array_equal(joined.seen[rows, :frames, :points], part.seen)
        assert np.array_equal(joined.time[rows, :frames], part.time)
        assert not joined.seen[rows, frames:].any()
        assert not joined.seen[rows, :, points:].any()
        assert np.isinf(joined.time[rows, frames:]).all()
