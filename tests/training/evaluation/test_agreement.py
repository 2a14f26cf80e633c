"""Agreement of raters, compared with scikit-learn on single milliseconds and with published examples."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actionprep.datasets.segments import Segment
from actionprep.training.evaluation.agreement import agreement_of, cohen_kappa, fleiss_kappa

SPAN = {"r": (0.0, 0.2)}


@st.composite
def timelines(draw: st.DrawFn) -> list[Segment]:
    """Segments without overlap, at whole milliseconds within 200 ms."""
    edges = sorted(draw(st.sets(st.integers(0, 200), min_size=2, max_size=10)))
    labels = draw(st.lists(st.sampled_from(["", "a", "b"]), min_size=len(edges) - 1, max_size=len(edges) - 1))
    return [
        Segment(low / 1000, high / 1000, label)
        for low, high, label in zip(edges, edges[1:], labels, strict=False)
        if label
    ]


def sampled(rows: list[Segment]) -> np.ndarray:
    """Label of each millisecond, 0 without."""
    codes = np.zeros(200, int)
    for row in rows:
        codes[round(1000 * row.onset) : round(1000 * row.offset)] = 1 + "ab".index(row.label)
    return codes


@settings(max_examples=40, deadline=None)
@given(timelines(), timelines())
def test_kappa_equals_scikit_learn_on_milliseconds(one: list[Segment], two: list[Segment]) -> None:
    from sklearn.metrics import cohen_kappa_score

    if not one or not two:
        return
    result = agreement_of({"one": {"r": one}, "two": {"r": two}}, SPAN)
    first, second = sampled(one), sampled(two)
    pairs = {pair.label: pair for pair in result.pairs}
    assert pairs[""].agreement == pytest.approx((first == second).mean())
    assert pairs[""].compared_s == pytest.approx(0.2)
    for label, pair in pairs.items():
        x, y = (first, second) if not label else (first == 1 + "ab".index(label), second == 1 + "ab".index(label))
        if len(np.unique([x, y])) > 1:
            assert pair.kappa == pytest.approx(cohen_kappa_score(x, y), abs=1e-9)
        else:
            assert math.isnan(pair.kappa)


def test_cohen_kappa_of_a_known_table() -> None:
    # 50 items, two raters: 20 yes/yes, 5 yes/no, 10 no/yes, 15 no/no gives 0.4.
    assert cohen_kappa(np.array([[20, 5], [10, 15]])) == pytest.approx(0.4)
    assert math.isnan(cohen_kappa(np.array([[7, 0], [0, 0]])))


def test_fleiss_kappa_of_the_known_example() -> None:
    # The worked example of Fleiss' kappa with 10 items, 14 raters and 5 classes gives 0.210.
    counts = np.array(
        [
            [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
            [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
        ]
    )  # fmt: skip
    assert fleiss_kappa(counts, np.ones(10)) == pytest.approx(0.210, abs=5e-4)


def test_fleiss_kappa_of_two_equal_raters_is_one() -> None:
    rows = [Segment(0.0, 0.1, "a"), Segment(0.1, 0.15, "b")]
    result = agreement_of({name: {"r": rows} for name in "xyz"}, SPAN)
    assert result.fleiss == {"": 1.0, "a": 1.0, "b": 1.0}
    assert all(pair.kappa == 1 and pair.f1 == (1, 1, 1) for pair in result.pairs)


def test_bouts_match_by_overlap() -> None:
    entry = {"r": [Segment(0, 0.1, "a"), Segment(0.12, 0.18, "a")]}
    two = {"r": [Segment(0, 0.06, "a")]}
    pair = agreement_of({"one": entry, "two": two}, SPAN).pairs[1]
    assert (pair.label, pair.bouts, pair.other_bouts) == ("a", 2, 1)
    assert pair.f1 == pytest.approx((2 / 3, 2 / 3, 2 / 3))


def test_overlapping_labels_are_compared_one_by_one() -> None:
    entry = {"r": [Segment(0, 0.1, "a"), Segment(0.05, 0.1, "b")]}
    result = agreement_of({"one": entry, "two": {"r": [Segment(0, 0.1, "a")]}}, SPAN)
    assert result.overlapping == ("one",)
    assert [pair.label for pair in result.pairs] == ["a", "b"]
    assert "" not in result.fleiss


def test_only_common_recordings_are_compared() -> None:
    rows = [Segment(0, 0.1, "a")]
    spans = {"r": (0.0, 0.2), "s": (0.0, 0.2)}
    result = agreement_of({"one": {"r": rows, "s": rows}, "two": {"r": rows}}, spans)
    assert (result.recordings, result.partial) == (("r",), ("s",))
    assert agreement_of({"one": {"r": rows}, "two": {"s": rows}}, spans).pairs == ()


def test_one_rater_is_refused() -> None:
    with pytest.raises(ValueError, match="at least two raters, got 1"):
        agreement_of({"one": {}}, {})
