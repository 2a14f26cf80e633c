"""Cutting time into windows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actionprep.datasets.windows import frames_in, windows


def test_windows_touch_when_no_stride_is_given():
    onset, offset = windows((0.0, 3.5), length_s=1.0)
    assert onset.tolist() == [0.0, 1.0, 2.0]
    assert offset.tolist() == [1.0, 2.0, 3.0]


def test_the_last_whole_window_is_not_lost_to_rounding():
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
def test_time_after_the_last_whole_window(tail, onsets, offsets):
    onset, offset = windows((0.0, 2.4), length_s=1.0, tail=tail)
    assert onset == pytest.approx(onsets)
    assert offset == pytest.approx(offsets)


@pytest.mark.parametrize(("tail", "count"), [("drop", 0), ("shift", 0), ("keep", 1)])
def test_a_span_shorter_than_the_length(tail, count):
    assert len(windows((5.0, 5.4), length_s=1.0, tail=tail)[0]) == count


@given(
    total=st.integers(1, 500), length=st.integers(1, 200), stride=st.integers(1, 200), start=st.integers(-1000, 10**6)
)
def test_windows_equal_counting_milliseconds(total, length, stride, start):
    onset, offset = windows((start / 1000, (start + total) / 1000), length_s=length / 1000, stride_s=stride / 1000)
    expected = list(range(start, start + total - length + 1, stride))
    assert np.rint(onset * 1000).tolist() == expected
    assert np.rint(offset * 1000).tolist() == [first + length for first in expected]


def test_a_window_without_length_is_refused():
    with pytest.raises(ValueError, match=r"Length and stride of windows must be above 0, not 0.0 and 1.0 s"):
        windows((0.0, 1.0), length_s=0.0, stride_s=1.0)


@given(
    frames=st.lists(st.integers(0, 100), max_size=30).map(sorted),
    edges=st.lists(st.tuples(st.integers(0, 100), st.integers(1, 50)), max_size=5),
)
def test_frames_are_counted_half_open(frames, edges):
    onset = np.array([first for first, _ in edges], np.float64) / 10
    offset = np.array([first + length for first, length in edges], np.float64) / 10
    expected = [sum(first <= frame < first + length for frame in frames) for first, length in edges]
    assert frames_in(np.array(frames) / 10, onset, offset).tolist() == expected
