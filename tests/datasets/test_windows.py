"""Cutting time into windows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actionprep.datasets.frame_times import frame_interval
from actionprep.datasets.windows import frames_in, num_windows, windows


def test_windows_touch_without_a_stride():
    onset, offset = windows((0.0, 3.5), length_s=1.0)
    assert onset.tolist() == [0.0, 1.0, 2.0]
    assert offset.tolist() == [1.0, 2.0, 3.0]


def test_windows_last_one_is_not_lost_to_rounding():
    end = float(np.cumsum(np.full(10, 0.1))[-1])
    assert end < 1.0
    assert len(windows((0.0, end), length_s=0.5)[0]) == 2


@pytest.mark.parametrize(
    ("tail", "onsets", "offsets"),
    [
        ("drop", [0.0, 1.0], [1.0, 2.0]),
        ("shift", [0.0, 1.0, 1.4], [1.0, 2.0, 2.4]),
        ("keep", [0.0, 1.0, 2.0], [1.0, 2.0, 2.4]),
    ],
)
def test_windows_tail(tail, onsets, offsets):
    onset, offset = windows((0.0, 2.4), length_s=1.0, tail=tail)
    assert onset == pytest.approx(onsets)
    assert offset == pytest.approx(offsets)


@pytest.mark.parametrize(("tail", "count"), [("drop", 0), ("shift", 0), ("keep", 1)])
def test_windows_of_span_shorter_than_length(tail, count):
    assert len(windows((5.0, 5.4), length_s=1.0, tail=tail)[0]) == count


@given(
    total=st.integers(1, 5 * 10**8),
    length=st.integers(10**6, 2 * 10**8),
    stride=st.integers(10**6, 2 * 10**8),
    start=st.integers(-(10**9), 10**12),
)
def test_windows_match_integer_microseconds(total, length, stride, start):
    span = start / 1e6, (start + total) / 1e6
    onset, offset = windows(span, length_s=length / 1e6, stride_s=stride / 1e6)
    expected = list(range(start, start + total - length + 1, stride))
    assert np.rint(onset * 1e6).tolist() == expected
    assert np.rint(offset * 1e6).tolist() == [first + length for first in expected]
    assert num_windows(span, length_s=length / 1e6, stride_s=stride / 1e6) == len(expected)


@given(
    frames=st.lists(st.integers(0, 400), max_size=30).map(sorted),
    length=st.integers(1, 50),
    stride=st.integers(1, 80),
    end=st.integers(1, 400),
    tail=st.sampled_from(["drop", "shift", "keep"]),
)
def test_windows_with_frames_equal_filtered_windows(frames, length, stride, end, tail):
    settings = {"length_s": length / 100, "stride_s": stride / 100, "tail": tail}
    times = np.array(frames, np.float64) / 100
    onset, offset = windows((0.0, end / 100), **settings)
    seen = [any(first <= time < last for time in times.round(6)) for first, last in _rounded(onset, offset)]
    some = windows((0.0, end / 100), **settings, times=times)
    assert some[0].tolist() == onset[seen].tolist()
    assert some[1].tolist() == offset[seen].tolist()
    assert num_windows((0.0, end / 100), **settings) == len(onset)
    assert len(some[0]) <= num_windows((0.0, end / 100), **settings, times=times) <= len(onset)


def test_windows_with_frames_skip_a_gap_of_decades():
    times = np.concatenate([np.arange(25) / 25, 1e9 + np.arange(25) / 25])
    onset, _ = windows((0.0, 1e9 + 1.0), length_s=0.5, times=times)
    assert onset.tolist() == [0.0, 0.5, 1e9, 1e9 + 0.5]


def test_windows_without_length_are_refused():
    with pytest.raises(ValueError, match=r"Length and stride of windows must be above 0, not 0.0 and 1.0 s"):
        windows((0.0, 1.0), length_s=0.0, stride_s=1.0)


@given(
    frames=st.lists(st.integers(0, 100), max_size=30).map(sorted),
    edges=st.lists(st.tuples(st.integers(0, 100), st.integers(1, 50)), max_size=5),
)
def test_frames_in_counts_half_open(frames, edges):
    onset = np.array([first for first, _ in edges], np.float64) / 10
    offset = np.array([first + length for first, length in edges], np.float64) / 10
    expected = [sum(first <= frame < first + length for frame in frames) for first, length in edges]
    assert frames_in(np.array(frames) / 10, onset, offset).tolist() == expected


def test_frame_interval_ignores_a_gap():
    assert frame_interval(np.array([0.0, 0.5, 1.0, 9.0])) == 0.5
    assert frame_interval(np.array([3.0]), default=0.04) == 0.04
    assert frame_interval(np.zeros(0)) == 0.0


def _rounded(onset, offset):
    return zip(onset.round(6).tolist(), offset.round(6).tolist(), strict=True)
