"""Overlap of windows and segments, compared with exact counts of milliseconds."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actionprep.datasets.overlap import overlap_arrays, overlaps
from actionprep.datasets.segments import Segment


@st.composite
def intervals_ms(draw, limit: int = 60) -> tuple[int, int]:
    onset = draw(st.integers(0, limit - 1))
    return onset, draw(st.integers(onset + 1, limit))


segment_lists = st.lists(st.tuples(intervals_ms(), st.sampled_from("abc")), max_size=6)


def by_counting(
    window: tuple[int, int], segments: list[tuple[tuple[int, int], str]], label: str
) -> tuple[Fraction, ...]:
    """Coverage, iou and share of one label by listing every millisecond."""
    inside = set(range(*window))
    own = [set(range(*interval)) for interval, name in segments if name == label]
    coverage = Fraction(len(inside & set().union(*own)), len(inside))
    iou = max((Fraction(len(inside & entry), len(inside | entry)) for entry in own), default=Fraction(0))
    share = max((Fraction(len(inside & entry), len(entry)) for entry in own), default=Fraction(0))
    return coverage, iou, share


def test_window_inside_a_long_action_is_positive():
    [result] = overlaps((2.0, 3.0), [Segment(0.0, 10.0, "wave")])
    assert result.coverage == 1.0
    assert result.iou == pytest.approx(0.1)
    assert result.segment_share == pytest.approx(0.1)


def test_touching_is_not_overlapping():
    assert overlaps((1.0, 2.0), [Segment(0.0, 1.0, "wave"), Segment(2.0, 3.0, "clap")]) == []


def test_an_instant_that_two_annotators_marked_counts_once():
    [result] = overlaps(
        (0.0, 1.0), [Segment(0.0, 0.4, "wave", annotator="x"), Segment(0.0, 0.4, "wave", annotator="y")]
    )
    assert result.coverage == pytest.approx(0.4)


def test_the_label_with_most_coverage_comes_first():
    result = overlaps((0.0, 1.0), [Segment(0.0, 0.3, "a"), Segment(0.3, 1.0, "b"), Segment(0.0, 0.3, "c")])
    assert [entry.label for entry in result] == ["b", "a", "c"]


@given(window=intervals_ms(), segments=segment_lists)
def test_one_window_equals_counting_instants(window, segments):
    result = overlaps(
        (window[0] / 1000, window[1] / 1000), [Segment(a / 1000, b / 1000, label) for (a, b), label in segments]
    )
    by_label = {entry.label: (entry.coverage, entry.iou, entry.segment_share) for entry in result}
    for label in "abc":
        expected = by_counting(window, segments, label)
        assert by_label.get(label, (0, 0, 0)) == pytest.approx([float(value) for value in expected], abs=1e-9)
        assert (label in by_label) == (expected[0] > 0)


@given(windows=st.lists(intervals_ms(), min_size=1, max_size=6), segments=segment_lists)
def test_many_windows_of_any_order_and_length_equal_counting_instants(windows, segments):
    arrays = overlap_arrays(
        np.array([onset for onset, _ in windows]) / 1000,
        np.array([offset for _, offset in windows]) / 1000,
        np.array([interval[0] for interval, _ in segments]) / 1000,
        np.array([interval[1] for interval, _ in segments]) / 1000,
        np.array(["abc".index(label) for _, label in segments], np.int64),
        num_labels=3,
    )
    expected = [[by_counting(window, segments, label) for label in "abc"] for window in windows]
    np.testing.assert_allclose(np.stack(arrays, axis=-1), np.array(expected, np.float64), atol=1e-9)


@pytest.mark.parametrize("window", [(1.0, 1.0), (2.0, 1.0), (float("nan"), 1.0)])
def test_a_window_that_does_not_run_forward_is_refused(window):
    with pytest.raises(ValueError, match="A window must end after it starts, not run from"):
        overlaps(window, [])
