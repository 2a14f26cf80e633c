"""Bouts from probabilities: hysteresis, gaps, and the choice of rules."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actionprep.datasets.segments import Segment
from actionprep.training.evaluation.bout_rules import PredictedBoutRules, f1_at_50, predicted_bouts, tune_rules
from actionprep.training.predicted_timeline import Timeline


def timeline(rows: list[list[float]], *, several: bool = False, recording: str = "r") -> Timeline:
    """Windows of 1 s that touch."""
    onset = np.arange(len(rows), dtype=float)
    labels = ("a", "b")[: len(rows[0])]
    return Timeline(recording, labels, onset, onset + 1, np.array(rows), several)


@given(st.lists(st.sampled_from([0.1, 0.3, 0.5, 0.7, 0.9]), min_size=1, max_size=20))
def test_hysteresis_equals_a_state_machine(values: list[float]) -> None:
    """A run of values above `leave` counts if one of them reaches `enter`."""
    expected, start = [], None
    for index, value in enumerate([*values, 0.0]):
        if value >= 0.3 and start is None:
            start = index
        if value < 0.3 and start is not None:
            if max(values[start:index]) >= 0.7:
                expected.append((start, index))
            start = None
    bouts = predicted_bouts(timeline([[value] for value in values], several=True), PredictedBoutRules(0.7, 0.3))
    assert [(bout.onset, bout.offset) for bout in bouts] == expected


def test_without_thresholds_bouts_are_the_segments() -> None:
    rows = [[0.6, 0.4], [0.7, 0.3], [0.2, 0.8], [0.5, 0.5]]
    plain = timeline(rows)
    assert predicted_bouts(plain, PredictedBoutRules()) == [segment for segment, _ in plain.segments()]


def test_the_background_gives_no_bouts() -> None:
    bouts = predicted_bouts(timeline([[0.6, 0.4], [0.1, 0.9]]), PredictedBoutRules(), background="a")
    assert [(bout.label, bout.onset, bout.offset) for bout in bouts] == [("b", 1, 2)]


def test_a_gap_is_not_closed_over_another_label() -> None:
    rows = [[0.9, 0.1], [0.1, 0.9], [0.9, 0.1]]
    assert len(predicted_bouts(timeline(rows), PredictedBoutRules(max_gap_s=5))) == 3
    assert len(predicted_bouts(timeline([[0.9], [0.1], [0.9]], several=True), PredictedBoutRules(0.5, 0.5, 5))) == 1


def test_leave_above_enter_is_refused() -> None:
    with pytest.raises(ValueError, match=r"leave 0\.8 and enter 0\.5"):
        PredictedBoutRules(0.5, 0.8)


def test_tune_rules_finds_the_rules_that_made_the_truth() -> None:
    generator = np.random.default_rng(3)
    values = np.full(200, 0.1)
    truth = []
    for start in range(10, 190, 20):
        values[start : start + 8] = 0.55
        values[start + 3] = 0.85
        truth.append(Segment(start, start + 8, "a"))
    for start in range(3, 190, 20):
        values[start] = 0.55  # never reaches the upper threshold
    values += generator.uniform(-0.02, 0.02, 200)
    predicted = timeline([[value] for value in values], several=True)
    tuned = tune_rules([predicted], {"r": truth})
    assert tuned.f1 == 1.0
    assert tuned.f1_before < 0.8
    bouts = predicted_bouts(predicted, tuned.rules)
    assert [(bout.onset, bout.offset) for bout in bouts] == [(row.onset, row.offset) for row in truth]


def test_tune_rules_needs_true_bouts() -> None:
    with pytest.raises(ValueError, match="no true bout"):
        tune_rules([timeline([[0.5]])], {})


def test_f1_at_50_counts_over_recordings() -> None:
    entry, two = [Segment(0, 1, "a")], [Segment(0, 0.4, "a")]
    assert f1_at_50({"r": entry, "s": entry}, {"r": entry, "s": two}) == pytest.approx(0.5)
    assert f1_at_50({"r": entry}, {"s": entry}) == 0.0
