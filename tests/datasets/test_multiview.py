"""Tracks of views with different clocks at common time steps."""

from __future__ import annotations

import numpy as np
import pytest

from actionprep.datasets.multiview import sample_views
from actionprep.datasets.products.tracks import Tracks


def tracks(times: np.ndarray, *, length: int = 8, stride: int = 4, points: int = 3) -> Tracks:
    """Windows of tracks in which x of every point is the true time in s times 100, and y its number."""
    starts = np.arange(0, max(len(times) - stride, 1), stride)
    shape = (len(starts), length)
    frame = np.full(shape, -1, np.int32)
    time = np.full(shape, np.nan)
    for row, start in enumerate(starts):
        part = np.arange(start, min(start + length, len(times)))
        frame[row, : len(part)], time[row, : len(part)] = part, times[part]
    xy = np.zeros((*shape, points, 2), np.float32)
    xy[..., 0] = np.nan_to_num(time)[..., None] * 100
    xy[..., 1] = np.arange(points)
    ones = np.ones((*shape, points), np.float32)
    return Tracks(
        xy=xy,
        visible=ones.astype(bool) & (frame >= 0)[..., None],
        visibility=ones,
        confidence=ones,
        valid=np.ones((len(starts), points), bool),
        frame=frame,
        frame_valid=frame >= 0,
        time=time,
        region=np.zeros((len(starts), 4), np.float32),
        attributes={},
    )


def test_sample_views_with_other_rates_and_offsets():
    rng = np.random.default_rng(0)
    slow = 0.013 + np.arange(40) / 10
    fast = -0.31 + np.arange(150) / 30 * (1 + 150e-6)
    dropped = np.delete(0.2 + np.arange(100) / 25, rng.choice(np.arange(1, 99), 10, replace=False))
    time = np.linspace(0.5, 3.0, 41)
    sample = sample_views({"slow": tracks(slow), "fast": tracks(fast), "dropped": tracks(dropped)}, time)
    assert sample.xy.shape == (41, 3, 3, 2)
    assert sample.valid[:, :2].all()
    for column, times in enumerate((slow, fast, dropped)):
        used = sample.frame[:, column] >= 0
        nearest = np.abs(times[None] - time[used, None]).min(axis=1)
        assert np.abs(sample.lag[used, column]) == pytest.approx(nearest)
        assert sample.xy[used, column, 0, 0] == pytest.approx(100 * (time + sample.lag[:, column])[used], abs=1e-3)


def test_sample_views_gap_and_missing_view():
    times = np.concatenate([np.arange(10) / 10, 2 + np.arange(10) / 10])
    sample = sample_views({"gap": tracks(times), "none": None}, np.array([0.5, 1.5, 2.5, 9.0]))
    assert sample.missing == ("none",)
    assert sample.frame[:, 0].tolist() == [5, -1, 15, -1]
    assert not sample.valid[:, 1].any()
    assert (sample.xy[~sample.valid] == 0).all()


def test_sample_views_same_window_keeps_points():
    sample = sample_views({"a": tracks(np.arange(30) / 10, points=10)}, np.arange(5, 25) / 10, points=4)
    assert sample.xy.shape == (20, 1, 4, 2)
    assert len(np.unique(sample.window[:, 0])) > 1
    assert (sample.xy[:, 0, :, 1] == [1, 3, 6, 8]).all()
