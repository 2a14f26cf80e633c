"""From probabilities over time to bouts: hysteresis thresholds, gaps, and their choice on validation data."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from actionprep.datasets.bouts import BoutRules, join_bouts
from actionprep.datasets.segments import Segment
from actionprep.datasets.windows import EPSILON_S, microseconds
from actionprep.training.evaluation.segmental import FrameSegment, f1_of, matches

if TYPE_CHECKING:
    from actionprep.training.predicted_timeline import Timeline


_ROUNDING = 1e-9


@dataclass(frozen=True)
class PredictedBoutRules:
    """How probabilities become bouts.

    Attributes:
        enter: A bout needs a probability of at least this at some time.
        leave: It lasts while the probability is at least this; at most `enter`.
        max_gap_s: Join bouts of one label that are at most this far apart, in seconds. With one label per window, only if
            no other label is between them.
        min_length_s: Drop bouts that are shorter, in seconds.
    """

    enter: float = 0.0
    leave: float = 0.0
    max_gap_s: float = 0.0
    min_length_s: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.leave <= self.enter <= 1:
            raise ValueError(f"expected 0 <= leave <= enter <= 1, got leave {self.leave} and enter {self.enter}")

    def document(self) -> dict[str, Any]:
        """Return the rules as plain values."""
        return asdict(self)


@dataclass(frozen=True)
class TunedRules:
    """Rules that were chosen on validation data.

    Attributes:
        rules: The rules with the highest F1@50.
        f1: Their F1@50 on these recordings.
        f1_before: F1@50 of the segments that `predict` writes, without thresholds.
        tried: Number of combinations.
    """

    rules: PredictedBoutRules
    f1: float
    f1_before: float
    tried: int


def predicted_bouts(timeline: Timeline, rules: PredictedBoutRules, *, background: str | None = None) -> list[Segment]:
    """Find the bouts of a predicted timeline.

    With one label per window, a bout begins where its label is the most probable one and reaches `enter`. It lasts while
    the probability is at least `leave`. Where several labels last, the most probable one applies.

    Args:
        timeline: Probabilities over time.
        rules: Thresholds, gap and minimum length.
        background: Label that means that nothing happens; it gives no bouts.

    Returns:
        Bouts ordered by onset.
    """
    pieces = timeline.pieces()
    active = _active(pieces, rules.enter, rules.leave, several=timeline.several)
    return _joined(_segments(pieces, active, timeline.labels, background), rules, several=timeline.several)


def tune_rules(
    timelines: Sequence[Timeline], truth: Mapping[str, Sequence[Segment]], *, background: str | None = None
) -> TunedRules:
    """Choose the rules with the highest F1@50, over all bouts of the given recordings.

    Lengths and gaps are tried as shares of the median true bout. Ties go to the more lenient rule.

    Args:
        timelines: Predictions of validation recordings.
        truth: True segments by recording.
        background: Label that means that nothing happens.

    Raises:
        ValueError: If there is no true bout.
    """
    actual = {
        timeline.recording: [segment for segment in truth.get(timeline.recording, ()) if segment.label != background]
        for timeline in timelines
    }
    lengths = [segment.offset - segment.onset for segments in actual.values() for segment in segments]
    if not lengths:
        raise ValueError("the recordings have no true bout")
    typical = statistics.median(lengths)
    several = any(timeline.several for timeline in timelines)
    enters = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9) if several else (0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    shares = (0.0, 0.1, 0.25, 0.5)
    pieces = [timeline.pieces() for timeline in timelines]
    best: tuple[float, PredictedBoutRules] | None = None
    tried = 0
    for enter, ratio in itertools.product(enters, (1.0, 0.75, 0.5)):
        if enter == 0 and ratio < 1:
            continue
        leave = enter * ratio
        segments = [
            _segments(own, _active(own, enter, leave, several=timeline.several), timeline.labels, background)
            for own, timeline in zip(pieces, timelines, strict=True)
        ]
        for gap, shortest in itertools.product(shares, shares):
            rules = PredictedBoutRules(enter, leave, gap * typical, shortest * typical)
            predicted = {
                timeline.recording: _joined(own, rules, several=timeline.several)
                for own, timeline in zip(segments, timelines, strict=True)
            }
            f1 = f1_at_50(actual, predicted)
            tried += 1
            if best is None or f1 > best[0] + 1e-12:
                best = (f1, rules)
    assert best is not None
    plain = {timeline.recording: segments_without_rules(timeline, background) for timeline in timelines}
    return TunedRules(best[1], best[0], f1_at_50(actual, plain), tried)


def segments_without_rules(timeline: Timeline, background: str | None) -> list[Segment]:
    """Return the segments that `predict` writes, without those of the background class."""
    return [segment for segment, _ in timeline.segments() if segment.label != background]


def f1_at_50(actual: Mapping[str, Iterable[Segment]], predicted: Mapping[str, Iterable[Segment]]) -> float:
    """Compute the segmental F1 with an intersection over union of at least 0.5, over all recordings and labels."""
    codes: dict[str, int] = {}
    counts = np.zeros(3, np.int64)
    for recording in dict.fromkeys([*actual, *predicted]):
        truth = _whole_microseconds(actual.get(recording, ()), codes)
        counts += np.array(matches(truth, _whole_microseconds(predicted.get(recording, ()), codes), 0.5))
    return f1_of(*counts.tolist())


def _active(
    pieces: tuple[np.ndarray, np.ndarray, np.ndarray], enter: float, leave: float, *, several: bool
) -> np.ndarray:
    """Whether each label applies in each piece, bool of shape (P, C)."""
    onset, offset, mean = pieces
    if not len(onset):
        return np.zeros(mean.shape, bool)
    # Means of windows that have the same probability differ from it by rounding.
    strong, weak = mean >= enter - _ROUNDING, mean >= leave - _ROUNDING
    if not several:
        strong &= np.arange(mean.shape[1]) == mean.argmax(axis=1)[:, None]
    new_chain = np.r_[True, onset[1:] > offset[:-1] + EPSILON_S]
    active = np.zeros(mean.shape, bool)
    for code in range(mean.shape[1]):
        begins = weak[:, code] & (new_chain | ~np.r_[False, weak[:-1, code]])
        region = np.cumsum(begins) - 1
        inside = np.flatnonzero(weak[:, code])
        if len(inside):
            reached = np.bincount(region[inside], weights=strong[inside, code], minlength=int(begins.sum())) > 0
            active[inside, code] = reached[region[inside]]
    if several:
        return active
    chosen = np.where(active, mean, -1.0).argmax(axis=1)
    return active & (np.arange(mean.shape[1]) == chosen[:, None])


def _segments(
    pieces: tuple[np.ndarray, np.ndarray, np.ndarray],
    active: np.ndarray,
    labels: Sequence[str],
    background: str | None,
) -> list[Segment]:
    """Pieces with a label, one segment each."""
    onset, offset, _ = pieces
    return [
        Segment(float(onset[piece]), float(offset[piece]), labels[code])
        for piece, code in np.argwhere(active).tolist()
        if labels[code] != background
    ]


def _joined(segments: Sequence[Segment], rules: PredictedBoutRules, *, several: bool) -> list[Segment]:
    return join_bouts(segments, BoutRules(rules.max_gap_s, rules.min_length_s, across_others=several))


def _whole_microseconds(segments: Iterable[Segment], codes: dict[str, int]) -> list[FrameSegment]:
    return sorted(
        (
            FrameSegment(
                codes.setdefault(segment.label, len(codes)),
                int(microseconds(segment.onset)),
                int(microseconds(segment.offset)),
            )
            for segment in segments
        ),
        key=lambda bout: (bout.first, bout.last),
    )
