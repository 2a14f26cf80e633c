"""Combine estimates of pairs of views into one clock per view, by least squares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from actionprep.pipeline.synchronization.pairs import PairEstimate


@dataclass(frozen=True, slots=True)
class ViewClock:
    """Clock of a view: time of the reference = offset + time of the view * (1 + drift * 1e-6).

    Attributes:
        view: Id of the view.
        offset: Offset in s; 0 for the reference.
        drift: Drift in parts per million; None if it is unknown.
        confidence: 0 to 1; of the weakest pair on the best path to the reference.
        reason: Why the clock is unsure; "" if it is sure.
    """

    view: str
    offset: float
    drift: float | None
    confidence: float
    reason: str

    @property
    def sure(self) -> bool:
        """Whether the clock is known."""
        return not self.reason


def join_pairs(
    views: Sequence[str], pairs: Mapping[tuple[str, str], PairEstimate], *, reference: str, tolerance: float
) -> tuple[dict[str, ViewClock], list[tuple[str, str]]]:
    """Solve for the clock of every view from sure estimates of pairs.

    Lags at a common time and drifts are solved by weighted least squares. A pair that differs from the solution by more
    than the tolerance is left out, the worst first, as long as its views stay connected without it.

    Args:
        views: Ids of the views.
        pairs: Estimates by views (a, b): the clock of b relative to that of a.
        reference: View with offset and drift 0.
        tolerance: Largest difference of a pair from the joint solution, in s.

    Returns:
        The clock of each view and the pairs that were left out because they contradict the others. Views that no sure
        pair connects with the reference are unsure; so are those of pairs that contradict each other otherwise.
    """
    used = {pair: estimate for pair, estimate in pairs.items() if estimate.sure}
    rejected: list[tuple[str, str]] = []
    while True:
        reached = _confidences(used, reference)
        level, drift, known, time = _solve(views, used, reached)
        misfit = {
            (a, b): abs(level[b] - level[a] - _lag_at(estimate, time))
            for (a, b), estimate in used.items()
            if a in reached
        }
        worst = max(misfit, key=lambda pair: misfit[pair], default=None)
        if worst is None or misfit[worst] <= tolerance:
            doubtful: set[str] = set()
            break
        without = {pair: estimate for pair, estimate in used.items() if pair != worst}
        loops = [
            pair for pair in misfit
            if set(_confidences({p: e for p, e in used.items() if p != pair}, reference)) == set(reached)
        ]  # fmt: skip
        if len(loops) <= 3:
            # A single loop shows that a pair is wrong, not which one.
            doubtful = {view for pair in loops for view in pair} - {reference}
            break
        rejected.append(worst)
        used = without
    clocks = {}
    for view in views:
        if view == reference:
            clocks[view] = ViewClock(view, 0.0, 0.0, 1.0, "")
            continue
        reason = ""
        if view not in reached:
            reason = _why(view, reference, pairs)
        elif view in doubtful:
            reason = "pairs of views contradict each other"
        rate = drift[view] if view in known else 0.0
        clocks[view] = ViewClock(
            view, level[view] - rate * time, rate * 1e6 if view in known else None, reached.get(view, 0.0), reason
        )
    return clocks, rejected


def _solve(
    views: Sequence[str], used: Mapping[tuple[str, str], PairEstimate], reached: Mapping[str, float]
) -> tuple[dict[str, float], dict[str, float], set[str], float]:
    """Lag of each view at a common time, drift, the views with a known drift, and that time."""
    edges = {pair: estimate for pair, estimate in used.items() if pair[0] in reached}
    time = float(np.mean([estimate.center for estimate in edges.values()])) if edges else 0.0
    reference = next(iter(reached))
    steady = {pair: estimate for pair, estimate in edges.items() if estimate.drift is not None}
    known = set(_confidences(steady, reference))
    drift = _potential(
        views, reference,
        {pair: ((e.drift or 0.0) * 1e-6, max(e.drift_error * 1e-6, 1e-8)) for pair, e in steady.items()},
    )  # fmt: skip
    level = dict.fromkeys(views, 0.0)
    for _ in range(3):
        # Composition of clocks: offset_b = offset_a + offset_ab * (1 + drift_a).
        level = _potential(
            views, reference,
            {
                (a, b): (_lag_at(e, time) + drift[a] * (_lag_at(e, time) + 0.0), max(e.lag_error, 1e-5))
                for (a, b), e in edges.items()
            },
        )  # fmt: skip
    return level, drift, known, time


def _potential(
    views: Sequence[str], reference: str, edges: Mapping[tuple[str, str], tuple[float, float]]
) -> dict[str, float]:
    """Values of the views with value[b] - value[a] = difference, by weighted least squares; 0 for the reference."""
    column = {view: at for at, view in enumerate(views)}
    rows, right = [], []
    for (a, b), (difference, error) in edges.items():
        row = np.zeros(len(views))
        row[column[b]], row[column[a]] = 1 / error, -1 / error
        rows.append(row)
        right.append(difference / error)
    if not rows:
        return dict.fromkeys(views, 0.0)
    matrix = np.delete(np.array(rows), column[reference], axis=1)
    solution = np.linalg.lstsq(matrix, np.array(right), rcond=None)[0]
    values = np.insert(solution, column[reference], 0.0)
    return {view: float(values[column[view]]) for view in views}


def _lag_at(estimate: PairEstimate, time: float) -> float:
    return estimate.offset + (estimate.drift or 0.0) * 1e-6 * time


def _confidences(pairs: Mapping[tuple[str, str], PairEstimate], reference: str) -> dict[str, float]:
    """Views that pairs connect with the reference, each with the confidence of its best path."""
    reached = {reference: 1.0}
    while True:
        steps = [
            (min(reached[near], estimate.confidence), far)
            for (a, b), estimate in pairs.items()
            for near, far in ((a, b), (b, a))
            if near in reached and far not in reached
        ]
        if not steps:
            return reached
        confidence, view = max(steps)
        reached[view] = confidence


def _why(view: str, reference: str, pairs: Mapping[tuple[str, str], PairEstimate]) -> str:
    for pair in ((reference, view), (view, reference)):
        if pair in pairs:
            return pairs[pair].reason or "no pair of views connects it with the reference"
    return "it was not compared with another view"
