"""Figures of a classifier from its probabilities: numpy only, a formula each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities over the last axis, float64."""
    shifted = np.asarray(logits, np.float64) - np.max(logits, axis=-1, keepdims=True)
    powers = np.exp(shifted)
    return powers / powers.sum(axis=-1, keepdims=True)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Probability of each label by itself, float64."""
    return 0.5 * (1 + np.tanh(np.asarray(logits, np.float64) / 2))


def confusion_matrix(actual: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """(C, C) int64: row the actual class, column the predicted one."""
    pairs = np.asarray(actual, np.int64) * num_classes + np.asarray(predicted, np.int64)
    return np.bincount(pairs, minlength=num_classes * num_classes).reshape(num_classes, num_classes)


def multilabel_confusion(actual: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """(C, 2, 2) int64 from (S, C) zeros and ones: [[true negatives, false positives], [false negatives, true ones]]."""
    actual, predicted = np.asarray(actual, bool), np.asarray(predicted, bool)
    table = [[~actual & ~predicted, ~actual & predicted], [actual & ~predicted, actual & predicted]]
    return np.array([[cell.sum(axis=0) for cell in row] for row in table], np.int64).transpose(2, 0, 1)


@dataclass(frozen=True)
class PerClass:
    """Figures of each class, (C,): nan where a figure divides by nothing.

    support: samples that have the class; f1 is 0 where the class is never right but occurs or is predicted.
    """

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    support: np.ndarray
    average_precision: np.ndarray


def per_class(actual: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray) -> PerClass:
    """Figures of each class, one label (actual, predicted (S,) codes) or several ((S, C) zeros and ones) a sample."""
    num_classes = probabilities.shape[1]
    if actual.ndim == 1:
        actual, predicted = one_hot(actual, num_classes), one_hot(predicted, num_classes)
    is_one, says_one = actual.astype(bool), predicted.astype(bool)
    right = (is_one & says_one).sum(axis=0)
    num_said, support = says_one.sum(axis=0), is_one.sum(axis=0)
    return PerClass(
        precision=_ratio(right, num_said),
        recall=_ratio(right, support),
        f1=_ratio(2 * right, num_said + support),
        support=support,
        average_precision=np.array(
            [average_precision(is_one[:, code], probabilities[:, code]) for code in range(num_classes)]
        ),
    )


def average_precision(actual: np.ndarray, score: np.ndarray) -> float:
    """Area under precision over recall, as the sum of precision times the step in recall; nan without a positive.

    Samples of equal score are taken in at once.
    """
    num_positives = int(np.count_nonzero(actual))
    if not num_positives:
        return float("nan")
    order = np.argsort(-score, kind="stable")
    hits = np.cumsum(np.asarray(actual, bool)[order])
    last_of_score = np.append(np.flatnonzero(np.diff(score[order])), len(order) - 1)
    hits = hits[last_of_score]
    precision = hits / (last_of_score + 1)
    return float(np.sum(precision * np.diff(hits, prepend=0)) / num_positives)


def mean_average_precision(actual: np.ndarray, probabilities: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Mean average precision (R) of the classes that occur, under R weights (R, S) of the samples; nan where none does.

    actual (S) codes or (S, C) zeros and ones, probabilities (S, C). A whole weight counts a sample so many times, as a
    resampled test set does.
    """
    if actual.ndim == 1:
        actual = one_hot(actual, probabilities.shape[1])
    repeats, num_samples = weight.shape
    total, there = np.zeros(repeats), np.zeros(repeats, np.int64)
    if not num_samples:
        return np.full(repeats, np.nan)
    for code in range(probabilities.shape[1]):
        is_one, score = actual[:, code].astype(bool), probabilities[:, code]
        if not is_one.any():
            continue
        order = np.argsort(-score, kind="stable")
        last_of_score = np.append(np.flatnonzero(np.diff(score[order])), num_samples - 1)
        ordered = weight[:, order].astype(np.float64)
        said = np.cumsum(ordered, axis=1)[:, last_of_score]
        hits = np.cumsum(ordered * is_one[order], axis=1)[:, last_of_score]
        precision = np.divide(hits, said, out=np.zeros_like(hits), where=said > 0)
        area = precision * np.diff(hits, axis=1, prepend=0)
        positives = hits[:, -1]
        total += np.divide(area.sum(axis=1), positives, out=np.zeros(repeats), where=positives > 0)
        there += positives > 0
    return np.asarray(_ratio(total, there))


def accuracy(actual: np.ndarray, predicted: np.ndarray) -> float:
    """Share of samples that are right; with several labels, right in all of them (exact match)."""
    right = np.asarray(actual) == np.asarray(predicted)
    return _mean(right.all(axis=1) if right.ndim == 2 else right)


def top_k(actual: np.ndarray, probabilities: np.ndarray, k: int) -> float:
    """Share of samples (S,) whose class is among the k most probable; ties go to the smaller code."""
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    return _mean((order == np.asarray(actual)[:, None]).any(axis=1))


def f1_scores(actual: np.ndarray, predicted: np.ndarray, num_classes: int) -> dict[str, float]:
    """Macro (mean of classes that occur or are predicted), micro, weighted (by support), and samples (several labels).

    A class without any true, predicted or missed sample has no F1 and is left out of the macro mean.
    """
    several = np.ndim(actual) == 2
    is_one = np.asarray(actual, bool) if several else one_hot(actual, num_classes).astype(bool)
    says_one = np.asarray(predicted, bool) if several else one_hot(predicted, num_classes).astype(bool)
    right, said, support = (is_one & says_one).sum(axis=0), says_one.sum(axis=0), is_one.sum(axis=0)
    f1 = _ratio(2 * right, said + support)
    there = ~np.isnan(f1)
    scores = {
        "macro_f1": _mean(f1[there]),
        "micro_f1": float(_ratio(2 * right.sum(), said.sum() + support.sum())),
        "weighted_f1": float(_ratio((f1[there] * support[there]).sum(), support.sum())),
    }
    if several:
        both = (is_one & says_one).sum(axis=1)
        either = is_one.sum(axis=1) + says_one.sum(axis=1)
        scores["samples_f1"] = _mean(np.where(either > 0, 2 * both / np.maximum(either, 1), 0.0))
    return scores


def hits(actual: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """(3, C) int64 from (n, C) zeros and ones: of each class how often it is rightly said, said, and there."""
    actual, predicted = np.asarray(actual, bool), np.asarray(predicted, bool)
    return np.stack([(actual & predicted).sum(axis=0), predicted.sum(axis=0), actual.sum(axis=0)]).astype(np.int64)


def macro_f1(hits: np.ndarray) -> float:
    """Mean F1 of the classes that are there or said, from `hits`; nan where none is."""
    f1 = _ratio(2 * hits[0], hits[1] + hits[2])
    return _mean(f1[~np.isnan(f1)])


def summary(actual: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """The figures that every table shows, by name."""
    num_classes = probabilities.shape[1]
    found = {"accuracy": accuracy(actual, predicted), **f1_scores(actual, predicted, num_classes)}
    figures = per_class(actual, predicted, probabilities)
    there = ~np.isnan(figures.average_precision)
    found["map"] = _mean(figures.average_precision[there])
    if np.ndim(actual) == 2:
        found["exact_match"] = found["accuracy"]
    else:
        if num_classes > 5:
            found["top5"] = top_k(actual, probabilities, 5)
        recall = figures.recall[~np.isnan(figures.recall)]
        found["balanced_accuracy"] = _mean(recall)
    return found


def metric_name(name: str) -> str:
    """What a figure of `summary` is called in a table."""
    return _NAMES.get(name, name.replace("_", " ").replace(" f1", " F1"))


_NAMES = {"map": "mean average precision", "top5": "top 5"}


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with the bounds between which it lies in 95 % of resampled test sets."""

    value: float
    low: float
    high: float

    def as_json(self) -> dict[str, float]:
        """Plain values."""
        return {"value": self.value, "low": self.low, "high": self.high}


def bootstrap(
    figure: Callable[[np.ndarray], float],
    num_samples: int,
    *,
    groups: np.ndarray | None = None,
    repeats: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile interval of a figure over test sets drawn with replacement.

    figure: from an index array into the samples to the figure.
    groups: (S,) codes; whole groups (recordings, subjects) are drawn, because their samples are alike. None: samples.
    """
    everything = np.arange(num_samples)
    value = figure(everything)
    if not num_samples:
        return Interval(value, float("nan"), float("nan"))
    rng = np.random.default_rng(seed)
    if groups is None:
        found = [figure(rng.integers(0, num_samples, num_samples)) for _ in range(repeats)]
    else:
        _, code = np.unique(groups, return_inverse=True)
        order = np.argsort(code, kind="stable")
        members = np.split(order, np.cumsum(np.bincount(code))[:-1])
        draws = rng.integers(0, len(members), (repeats, len(members)))
        found = [figure(np.concatenate([members[one] for one in draw])) for draw in draws]
    return interval_of(value, found, level=level)


def bootstrap_weights(
    num_samples: int, *, groups: np.ndarray, repeats: int = 1000, seed: int = 0, at_a_time: int = 100
) -> Iterator[np.ndarray]:
    """How often each sample is in the test sets that `bootstrap` draws of these groups: (at most at_a_time, S) each."""
    rng = np.random.default_rng(seed)
    _, code = np.unique(groups, return_inverse=True)
    num_groups = int(code.max()) + 1 if num_samples else 0
    draws = rng.integers(0, max(num_groups, 1), (repeats, num_groups))
    for first in range(0, repeats, at_a_time):
        part = draws[first : first + at_a_time]
        times = np.stack([np.bincount(draw, minlength=num_groups) for draw in part])
        yield times[:, code]


def interval_of(value: float, resampled: Sequence[float], *, level: float = 0.95) -> Interval:
    """A figure between the percentiles of its values over resampled test sets; nan bounds where there are none."""
    known = [one for one in resampled if one == one]
    if not known:
        return Interval(value, float("nan"), float("nan"))
    tail = (1 - level) / 2
    low, high = np.quantile(known, [tail, 1 - tail])
    return Interval(value, float(low), float(high))


def where_it_varies(interval: Interval, num_groups: int, *, is_share: bool) -> Interval:
    """The interval, unless all resampled test sets gave one value, as when every sample is right: that says nothing.

    is_share: of samples that are right; such a figure then has the score interval of a share of `num_groups` independent
              trials (Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 1927, at 95 %).
              Others have none: their bounds are nan.
    """
    if interval.low != interval.high:
        return interval
    if not is_share or not num_groups:
        return Interval(interval.value, float("nan"), float("nan"))
    return Interval(interval.value, *wilson(interval.value, num_groups))


def wilson(share: float, num_trials: int, *, z: float = 1.959963984540054) -> tuple[float, float]:
    """Bounds of a share that was seen in so many independent trials."""
    middle = (share + z * z / (2 * num_trials)) / (1 + z * z / num_trials)
    spread = z / (1 + z * z / num_trials) * math.sqrt(share * (1 - share) / num_trials + (z / (2 * num_trials)) ** 2)
    return max(0.0, middle - spread), min(1.0, middle + spread)


def one_hot(codes: np.ndarray, num_classes: int) -> np.ndarray:
    """(S, C) uint8; rows of negative codes are all zeros."""
    codes = np.asarray(codes, np.int64)
    found = np.zeros((len(codes), num_classes), np.uint8)
    at = np.flatnonzero(codes >= 0)
    found[at, codes[at]] = 1
    return found


def class_weights(target: np.ndarray) -> np.ndarray:
    """(C,) n / (C · n_c) over the classes that occur; 1 for those that do not. target (S, C)."""
    counts = target.sum(axis=0, dtype=np.float64)
    there = counts > 0
    weights = np.ones(len(counts))
    weights[there] = counts.sum() / (there.sum() * counts[there])
    return weights


def positive_weights(target: np.ndarray, *, most: float = 100.0) -> np.ndarray:
    """(C,) negatives over positives of each label, at most `most`; 1 for labels without a positive."""
    positives = target.sum(axis=0, dtype=np.float64)
    ratio = np.divide(len(target) - positives, positives, out=np.ones_like(positives), where=positives > 0)
    return np.clip(ratio, 1 / most, most)


def majority(votes: np.ndarray) -> int:
    """The most frequent non-negative code; the smaller of equal ones; -1 without votes."""
    votes = votes[votes >= 0]
    return int(np.bincount(votes).argmax()) if len(votes) else -1


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation (n - 1; 0 of a single value)."""
    array = np.asarray(values, np.float64)
    return float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else 0.0


def _ratio(above: np.ndarray | float, below: np.ndarray | float) -> np.ndarray:
    above, below = np.asarray(above, np.float64), np.asarray(below, np.float64)
    return np.divide(above, below, out=np.full(np.broadcast(above, below).shape, np.nan), where=below > 0)


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
