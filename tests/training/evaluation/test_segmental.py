"""Detected segments and their order."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actionprep.training.evaluation.segmental import FrameSegment, edit_score, f1_of, frame_segments, matches

codes = st.lists(st.integers(0, 3), min_size=1, max_size=14)


def test_runs_of_one_label_are_segments_and_the_background_is_none():
    assert frame_segments(np.array([1, 1, 0, 2, 2, 2]), leave_out=0) == [FrameSegment(1, 0, 2), FrameSegment(2, 3, 6)]
    assert frame_segments(np.array([])) == []


def test_a_missing_frame_ends_a_segment():
    result = frame_segments(np.array([1, 1, 1]), np.array([4, 5, 9]))
    assert result == [FrameSegment(1, 4, 6), FrameSegment(1, 9, 10)]


def test_a_segment_that_is_cut_up_is_found_once():
    actual = [FrameSegment(1, 0, 10)]
    predicted = [FrameSegment(1, 0, 6), FrameSegment(2, 6, 7), FrameSegment(1, 7, 10)]
    assert matches(actual, predicted, 0.25) == (1, 2, 0)
    assert f1_of(*matches(actual, predicted, 0.25)) == pytest.approx(2 / (2 + 2))
    # The largest share is 6 of 10 frames, which is too small here.
    assert matches(actual, predicted, 0.75) == (0, 3, 1)


def test_of_two_true_segments_the_one_that_is_overlapped_most_is_found():
    actual = [FrameSegment(1, 0, 4), FrameSegment(1, 5, 15)]
    assert matches(actual, [FrameSegment(1, 2, 14)], 0.5) == (1, 0, 1)
    assert matches(actual, [FrameSegment(2, 0, 15)], 0.1) == (0, 1, 2)


def test_an_overlap_just_at_the_bound_counts():
    assert matches([FrameSegment(1, 0, 4)], [FrameSegment(1, 0, 2)], 0.5) == (1, 0, 0)
    assert matches([FrameSegment(1, 0, 4)], [FrameSegment(1, 0, 1)], 0.5) == (0, 1, 1)


def test_without_any_segment_the_order_is_right_and_there_is_no_f1():
    assert edit_score([], []) == 1.0
    assert np.isnan(f1_of(*matches([], [], 0.1)))
    assert edit_score([FrameSegment(1, 0, 4)], []) == 0.0


@settings(deadline=None)
@given(codes, codes)
def test_the_edit_score_equals_the_recursive_distance(one, other):
    a, b = (frame_segments(np.array(result)) for result in (one, other))
    left, right = tuple(result.label for result in a), tuple(result.label for result in b)

    @functools.cache
    def distance(i: int, j: int) -> int:
        if i == 0 or j == 0:
            return i + j
        return min(
            distance(i - 1, j) + 1, distance(i, j - 1) + 1, distance(i - 1, j - 1) + (left[i - 1] != right[j - 1])
        )

    expected = 1 - distance(len(left), len(right)) / max(len(left), len(right))
    assert edit_score(a, b) == pytest.approx(expected)


@settings(deadline=None)
@given(codes, st.sampled_from([0.1, 0.25, 0.5]))
def test_what_is_predicted_exactly_is_found_wholly(result, overlap):
    segments = frame_segments(np.array(result))
    assert matches(segments, segments, overlap) == (len(segments), 0, 0)


@settings(deadline=None)
@given(codes, codes, st.sampled_from([0.1, 0.5]))
def test_above_one_half_segments_pair_up_as_sets_of_frames_do(one, other, overlap):
    size = min(len(one), len(other))
    a, b = frame_segments(np.array(one[:size])), frame_segments(np.array(other[:size]))
    result, wrong, missed = matches(a, b, overlap)
    assert result + missed == len(a)
    assert result + wrong == len(b)
    if overlap == 0.5:
        # No two segments can share more than half of their union with the same third segment, so pairs are unique.
        frames = (
            [{(x.label, at) for at in range(x.first, x.last)} for x in a],
            [{(x.label, at) for at in range(x.first, x.last)} for x in b],
        )
        certain = sum(len(x & y) / len(x | y) > 0.5 for x in frames[0] for y in frames[1])
        possible = sum(len(x & y) / len(x | y) >= 0.5 for x in frames[0] for y in frames[1])
        assert certain <= result <= possible
