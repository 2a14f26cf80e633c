"""Agreement between annotators, between layers, or between a model and an annotator (NumPy only).

Time is compared exactly, in whole microseconds, not on a grid of frames: each microsecond is one item that every rater
labels. Kappa of Cohen (1960) and of Fleiss (1971) are computed from these times.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from actionprep.datasets.natural_order import natural_key
from actionprep.datasets.segments import Segment
from actionprep.datasets.windows import microseconds
from actionprep.training.evaluation.segmental import OVERLAPS, FrameSegment, f1_of, matches

Ratings = Mapping[str, Sequence[Segment]]
"""Segments of one rater, by recording."""

ALL_LABELS = ""
"""Stands for all labels in rows that compare full label sequences."""


@dataclass(frozen=True)
class PairAgreement:
    """Agreement of two raters about one label, or about all labels.

    Attributes:
        first: Name of the first rater, the reference of the bouts.
        second: Name of the second rater.
        label: The label; "" compares which label applies, with "no label" as one more class.
        recordings: Number of recordings that both rated.
        compared_s: Compared time in seconds.
        agreement: Share of the time in which both agree.
        kappa: Cohen's kappa over time; NaN if both use a single class throughout.
        first_s: Time with the label according to the first rater, in seconds; for all labels, with any label.
        second_s: Likewise according to the second.
        bouts: Number of bouts of the first rater.
        other_bouts: Number of bouts of the second rater.
        f1: Segmental F1 with an intersection over union of at least 0.1, 0.25 and 0.5.
    """

    first: str
    second: str
    label: str
    recordings: int
    compared_s: float
    agreement: float
    kappa: float
    first_s: float
    second_s: float
    bouts: int
    other_bouts: int
    f1: tuple[float, float, float]


@dataclass(frozen=True)
class Agreement:
    """Agreement of two or more raters.

    Attributes:
        pairs: One row per pair of raters and label, those of all labels first.
        fleiss: Fleiss' kappa of all raters by label, over the recordings that all of them rated; "" for all labels. NaN if
            only one class occurs, and without any such recording.
        recordings: Recordings that all raters rated.
        partial: Recordings that only some raters rated.
        overlapping: Raters with different labels at the same time. Comparisons of all labels leave them out.
    """

    pairs: tuple[PairAgreement, ...]
    fleiss: Mapping[str, float]
    recordings: tuple[str, ...]
    partial: tuple[str, ...]
    overlapping: tuple[str, ...]


def agreement_of(raters: Mapping[str, Ratings], spans: Mapping[str, tuple[float, float]]) -> Agreement:
    """Compare raters over the recordings that they have in common.

    A rater has rated a recording if it has at least one segment in it.

    Args:
        raters: Segments by rater and recording; at least two raters.
        spans: Start and end of the compared time of each recording, in seconds.

    Raises:
        ValueError: If there are fewer than two raters.
    """
    if len(raters) < 2:
        raise ValueError(f"agreement needs at least two raters, got {len(raters)}")
    labels = sorted(
        {segment.label for rated in raters.values() for segments in rated.values() for segment in segments},
        key=natural_key,
    )
    rated_by = {
        name: {recording for recording, segments in rated.items() if segments} for name, rated in raters.items()
    }
    common = set.intersection(*rated_by.values())
    overlapping = [name for name, rated in raters.items() if any(map(_overlap, rated.values()))]
    pairs = []
    for first, second in itertools.combinations(raters, 2):
        both = sorted(rated_by[first] & rated_by[second], key=natural_key)
        if both:
            pairs += _pair(first, second, raters, both, spans, labels, whole=not {first, second} & set(overlapping))
    ordered = sorted(common, key=natural_key)
    fleiss = {label: _fleiss_of_label(raters, ordered, spans, label) for label in labels}
    if not overlapping:
        fleiss = {ALL_LABELS: _fleiss_of_all(raters, ordered, spans, labels), **fleiss}
    partial = set.union(*rated_by.values()) - common
    return Agreement(tuple(pairs), fleiss, tuple(ordered), tuple(sorted(partial, key=natural_key)), tuple(overlapping))


def cohen_kappa(confusion: np.ndarray) -> float:
    """Compute Cohen's kappa.

    Args:
        confusion: Weight of every pair of classes, shape (C, C); rows are the first rater.

    Returns:
        (observed - expected) / (1 - expected); NaN if the expected agreement is 1.
    """
    total = confusion.sum()
    if total == 0:
        return math.nan
    observed = np.trace(confusion) / total
    expected = float((confusion.sum(axis=0) / total) @ (confusion.sum(axis=1) / total))
    return math.nan if math.isclose(expected, 1.0, abs_tol=1e-12) else float((observed - expected) / (1 - expected))


def fleiss_kappa(counts: np.ndarray, weights: np.ndarray) -> float:
    """Compute Fleiss' kappa.

    Args:
        counts: Number of raters that chose each class for each item, shape (N, C). Every row has the same sum.
        weights: Weight of each item, shape (N,).

    Returns:
        Kappa; NaN if there is no item or only one class occurs.
    """
    if not weights.sum():
        return math.nan
    raters = counts[0].sum()
    agreement = ((counts**2).sum(axis=1) - raters) / (raters * (raters - 1))
    observed = np.average(agreement, weights=weights)
    expected = float((np.average(counts / raters, axis=0, weights=weights) ** 2).sum())
    return math.nan if math.isclose(expected, 1.0, abs_tol=1e-12) else float((observed - expected) / (1 - expected))


def _pair(
    first: str,
    second: str,
    raters: Mapping[str, Ratings],
    recordings: Sequence[str],
    spans: Mapping[str, tuple[float, float]],
    labels: Sequence[str],
    *,
    whole: bool,
) -> list[PairAgreement]:
    """Compare two raters, per label and, if no segments of different labels overlap, over all labels."""
    by_label = {label: np.zeros((2, 2), np.int64) for label in labels}
    confusion = np.zeros((len(labels) + 1,) * 2, np.int64)
    matched = {label: np.zeros((len(OVERLAPS), 3), np.int64) for label in labels}
    for recording in recordings:
        first_rating, two = raters[first][recording], raters[second][recording]
        weights, (of_one, of_two) = _timelines([first_rating, two], spans[recording], labels)
        for code, label in enumerate(labels):
            for row, column in itertools.product((0, 1), repeat=2):
                same = (of_one[:, code] == bool(row)) & (of_two[:, code] == bool(column))
                by_label[label][row, column] += weights[same].sum()
            truth, predicted = _bouts(first_rating, label, code), _bouts(two, label, code)
            matched[label] += np.array([matches(truth, predicted, overlap) for overlap in OVERLAPS])
        if whole:
            np.add.at(confusion, (_codes(of_one), _codes(of_two)), weights)
    rows = []
    if whole:
        total = sum(matched.values(), np.zeros((len(OVERLAPS), 3), np.int64))
        rows.append(_row(first, second, ALL_LABELS, len(recordings), confusion, 1, total))
    rows += [
        _row(first, second, label, len(recordings), by_label[label], 1, matched[label])
        for label in labels
        if by_label[label].sum() > by_label[label][0, 0] or matched[label].any()
    ]
    return rows


def _row(
    first: str, second: str, label: str, recordings: int, confusion: np.ndarray, labeled_from: int, matched: np.ndarray
) -> PairAgreement:
    total = int(confusion.sum())
    hits, spurious, missed = matched[0].tolist()
    f1 = [f1_of(*counts) for counts in matched.tolist()]
    return PairAgreement(
        first, second, label, recordings,
        compared_s=total / 1e6,
        agreement=float(np.trace(confusion) / total) if total else math.nan,
        kappa=cohen_kappa(confusion),
        first_s=int(confusion[labeled_from:].sum()) / 1e6,
        second_s=int(confusion[:, labeled_from:].sum()) / 1e6,
        bouts=hits + missed,
        other_bouts=hits + spurious,
        f1=(f1[0], f1[1], f1[2]),
    )  # fmt: skip


def _timelines(
    raters: Sequence[Sequence[Segment]], span: tuple[float, float], labels: Sequence[str]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Cut a recording where any label begins or ends.

    Returns:
        Length of each interval in microseconds, shape (N,), and per rater whether each label applies, shape (N, C).
    """
    low, high = (int(edge) for edge in microseconds(np.array(span)))
    times = [
        microseconds(np.array([[segment.onset, segment.offset] for segment in rated]).reshape(-1, 2))
        for rated in raters
    ]
    clipped = [np.clip(each, low, high) for each in times]
    edges = np.unique(np.concatenate([[low, high], *(each.ravel() for each in clipped)]))
    code_of = {label: code for code, label in enumerate(labels)}
    states = []
    for rated, each in zip(raters, clipped, strict=True):
        change = np.zeros((len(edges), len(labels)), np.int64)
        codes = np.array([code_of[segment.label] for segment in rated], np.int64)
        np.add.at(change, (np.searchsorted(edges, each[:, 0]), codes), 1)
        np.add.at(change, (np.searchsorted(edges, each[:, 1]), codes), -1)
        states.append(np.cumsum(change, axis=0)[:-1] > 0)
    return np.diff(edges), states


def _codes(applies: np.ndarray) -> np.ndarray:
    """Class of each interval, shape (N,): 0 without a label, else the label's index + 1."""
    return np.where(applies.any(axis=1), applies.argmax(axis=1) + 1, 0)


def _overlap(segments: Sequence[Segment]) -> bool:
    """Whether segments of different labels overlap."""
    ordered = sorted(segments, key=lambda segment: segment.onset)
    for index, segment in enumerate(ordered):
        for later in ordered[index + 1 :]:
            if microseconds(later.onset) >= microseconds(segment.offset):
                break
            if later.label != segment.label:
                return True
    return False


def _bouts(segments: Sequence[Segment], label: str, code: int) -> list[FrameSegment]:
    """Segments of one label in microseconds, by onset."""
    return sorted(
        (
            FrameSegment(code, int(microseconds(segment.onset)), int(microseconds(segment.offset)))
            for segment in segments
            if segment.label == label
        ),
        key=lambda bout: (bout.first, bout.last),
    )


def _fleiss_of_label(
    raters: Mapping[str, Ratings], recordings: Sequence[str], spans: Mapping[str, tuple[float, float]], label: str
) -> float:
    counts, weights = [np.zeros((0, 2))], [np.zeros(0)]
    for recording in recordings:
        rated = [[segment for segment in ratings[recording] if segment.label == label] for ratings in raters.values()]
        weight, states = _timelines(rated, spans[recording], [label])
        yes = np.sum([state[:, 0] for state in states], axis=0)
        counts.append(np.stack([len(raters) - yes, yes], axis=1))
        weights.append(weight)
    return fleiss_kappa(np.concatenate(counts), np.concatenate(weights))


def _fleiss_of_all(
    raters: Mapping[str, Ratings],
    recordings: Sequence[str],
    spans: Mapping[str, tuple[float, float]],
    labels: Sequence[str],
) -> float:
    counts, weights = [np.zeros((0, len(labels) + 1))], [np.zeros(0)]
    for recording in recordings:
        weight, states = _timelines([ratings[recording] for ratings in raters.values()], spans[recording], labels)
        chosen = np.stack([_codes(state) for state in states], axis=1)
        counts.append(np.stack([(chosen == code).sum(axis=1) for code in range(len(labels) + 1)], axis=1))
        weights.append(weight)
    return fleiss_kappa(np.concatenate(counts), np.concatenate(weights))
