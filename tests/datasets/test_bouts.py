"""Bouts: joining, clipping and statistics, compared with counts of single milliseconds."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actionprep.datasets.bouts import (
    BoutRules,
    Observation,
    bout_statistics,
    clip_bouts,
    covered_microseconds,
    join_bouts,
    summarize_groups,
    transitions,
)
from actionprep.datasets.segments import Segment

# Times are whole milliseconds, so that every millisecond is inside or outside.
segments = st.lists(
    st.builds(
        lambda start, length, label: Segment(start / 1000, (start + length) / 1000, label),
        st.integers(0, 200),
        st.integers(1, 60),
        st.sampled_from("ab"),
    ),
    max_size=8,
)


def covered(bouts: list[Segment], label: str) -> set[int]:
    """Milliseconds in which a label applies."""
    return {
        ms for bout in bouts if bout.label == label for ms in range(round(bout.onset * 1000), round(bout.offset * 1000))
    }


@given(segments, st.integers(0, 30), st.integers(0, 30))
def test_join_bouts_equals_closing_gaps_in_milliseconds(rows: list[Segment], gap: int, shortest: int) -> None:
    bouts = join_bouts(rows, BoutRules(gap / 1000, shortest / 1000))
    for label in "ab":
        on = sorted(covered(rows, label))
        runs: list[list[int]] = []
        for ms in on:
            if runs and ms - runs[-1][1] <= gap:
                runs[-1][1] = ms + 1
            else:
                runs.append([ms, ms + 1])
        expected = [(first, last) for first, last in runs if last - first >= shortest]
        joined = [(round(1000 * bout.onset), round(1000 * bout.offset)) for bout in bouts if bout.label == label]
        assert joined == expected


def test_join_bouts_keeps_touching_segments_without_a_gap_rule() -> None:
    rows = [Segment(0.0, 0.1, "a"), Segment(0.1, 0.3, "a")]
    assert join_bouts(rows, BoutRules()) == rows
    assert join_bouts(rows, BoutRules(0.0)) == [Segment(0.0, 0.3, "a")]


def test_join_bouts_not_across_others() -> None:
    rows = [Segment(0, 1, "a"), Segment(1, 1.2, "b"), Segment(1.2, 2, "a"), Segment(2.1, 3, "a")]
    assert [
        (bout.label, bout.onset, bout.offset) for bout in join_bouts(rows, BoutRules(0.5, across_others=False))
    ] == [
        ("a", 0, 1),
        ("b", 1, 1.2),
        ("a", 1.2, 3),
    ]


def test_join_bouts_keeps_annotators_apart() -> None:
    rows = [Segment(0, 1, "a", annotator="x"), Segment(1, 2, "a", annotator="y")]
    assert len(join_bouts(rows, BoutRules(10.0))) == 2


@given(segments, st.integers(1, 120))
def test_bout_statistics_equal_counts_of_milliseconds(rows: list[Segment], bin_ms: int) -> None:
    bouts = clip_bouts(rows, (0.0, 0.25))
    observation = Observation("r", (0.0, 0.25), bouts)
    for bins in (None, bin_ms / 1000):
        result: dict[str, int] = defaultdict(int)
        for row in bout_statistics([observation], bin_s=bins):
            low, high = round(1000 * row.start), round(1000 * row.stop)
            inside = {ms for ms in covered(list(bouts), row.label) if low <= ms < high}
            begun = [bout for bout in bouts if bout.label == row.label and low <= round(1000 * bout.onset) < high]
            assert row.count == len(begun)
            assert row.total_s == pytest.approx(len(inside) / 1000)
            assert row.share == pytest.approx(len(inside) / (high - low))
            assert row.per_min == pytest.approx(60_000 * len(begun) / (high - low))
            assert math.isnan(row.latency_s) == (not begun)
            if begun:
                assert row.latency_s == pytest.approx(min(bout.onset for bout in begun) - row.start)
                assert row.mean_s == pytest.approx(np.mean([bout.offset - bout.onset for bout in begun]))
            result[row.label] += row.count
        assert dict(result) == {label: sum(b.label == label for b in bouts) for label in {b.label for b in bouts}}


def test_bout_statistics_are_zero_for_labels_of_other_recordings() -> None:
    rows = bout_statistics(
        [
            Observation("one", (0, 10), (Segment(2, 3, "dig"),)),
            Observation("two", (0, 10), (Segment(1, 2, "rear"),)),
        ]
    )
    assert [(row.recording, row.label, row.count, row.share) for row in rows] == [
        ("one", "dig", 1, 0.1),
        ("one", "rear", 0, 0.0),
        ("two", "dig", 0, 0.0),
        ("two", "rear", 1, 0.1),
    ]


def test_summarize_groups_counts_each_subject_once() -> None:
    observations = [
        Observation("one", (0, 10), (Segment(0, 2, "dig"),), "anna", "x"),
        Observation("two", (0, 10), (Segment(0, 4, "dig"), Segment(5, 7, "dig")), "anna", "x"),
        Observation("three", (0, 20), (Segment(5, 6, "dig"),), "bert", "x"),
        Observation("four", (0, 20), (), "carl", "x"),
    ]
    (row,) = summarize_groups(bout_statistics(observations))
    shares = [8 / 20, 1 / 20, 0.0]
    assert (row.subjects, row.recordings, row.count, row.never) == (3, 4, 4, 1)
    assert row.share_mean == pytest.approx(np.mean(shares))
    assert row.share_sd == pytest.approx(np.std(shares, ddof=1))
    assert row.bout_s_mean == pytest.approx(np.mean([8 / 3, 1]))
    assert row.latency_s_mean == pytest.approx(np.mean([0, 5]))


def test_transitions_count_pairs_by_onset() -> None:
    bouts = tuple(Segment(at, at + 1, label) for at, label in enumerate("abacab"))
    rows = transitions([Observation("r", (0, 6), bouts)])
    assert [(row.before, row.after, row.count, row.share) for row in rows] == [
        ("a", "b", 2, 2 / 3),
        ("a", "c", 1, 1 / 3),
        ("b", "a", 1, 1.0),
        ("c", "a", 1, 1.0),
    ]


def test_covered_microseconds_counts_overlaps_once() -> None:
    assert covered_microseconds([Segment(0, 2, "a"), Segment(1, 3, "a"), Segment(5, 9, "a")], 0.5, 6) == 3_500_000
