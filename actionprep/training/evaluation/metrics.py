"""Metrics of a classifier from its labels and probabilities (NumPy only, one function per formula).

S is the number of samples and C the number of classes. True and predicted labels are codes of shape (S,) or, if a
sample can have several labels, zeros and ones of shape (S, C).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


def softmax(logits: np.ndarray) -> np.ndarray:
    """Compute probabilities over the last axis, float64."""
    shifted = np.asarray(logits, np.float64) - np.max(logits, axis=-1, keepdims=True)
    powers = np.exp(shifted)
    return powers / powers.sum(axis=-1, keepdims=True)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Compute the probability of each label independently, float64."""
    return 0.5 * (1 + np.tanh(np.asarray(logits, np.float64) / 2))


def confusion_matrix(actual: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Count samples by actual class (row) and predicted class (column), int64 of shape (C, C).

    Samples without a predicted class (code -1) are left out.
    """
    labeled = np.asarray(predicted) >= 0
    actual, predicted = np.asarray(actual)[labeled], np.asarray(predicted)[labeled]
    pairs = np.asarray(actual, np.int64) * num_classes + np.asarray(predicted, np.int64)
    return np.bincount(pairs, minlength=num_classes * num_classes).reshape(num_classes, num_classes)


def multilabel_confusion(actual: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Count, per label, [[true negatives, false positives], [false negatives, true positives]], int64 of shape (C, 2, 2)."""
    actual, predicted = np.asarray(actual, bool), np.asarray(predicted, bool)
    table = [[~actual & ~predicted, ~actual & predicted], [actual & ~predicted, actual & predicted]]
    return np.array([[cell.sum(axis=0) for cell in row] for row in table], np.int64).transpose(2, 0, 1)


@dataclass(frozen=True)
class PerClass:
    """Metrics of each class, shape (C,); NaN where the denominator is 0.

    Attributes:
        precision: Share of the predictions of a class that are correct.
        recall: Share of the samples of a class that are predicted as such.
        f1: Harmonic mean of both; 0 if the class occurs or is predicted but is never correct.
        support: Number of samples of the class.
        average_precision: See `average_precision`.
    """

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    support: np.ndarray
    average_precision: np.ndarray


def per_class(actual: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray) -> PerClass:
    """Compute the metrics of each class.

    Args:
        actual: True labels, (S,) codes or (S, C) zeros and ones.
        predicted: Predicted labels in the same form.
        probabilities: Predicted probabilities, shape (S, C).

    Returns:
        One value per class and metric.
    """
    num_classes = probabilities.shape[1]
    if actual.ndim == 1:
        actual, predicted = one_hot(actual, num_classes), one_hot(predicted, num_classes)
    is_actual, is_predicted = actual.astype(bool), predicted.astype(bool)
    correct = (is_actual & is_predicted).sum(axis=0)
    num_predicted, support = is_predicted.sum(axis=0), is_actual.sum(axis=0)
    return PerClass(
        precision=ratio(correct, num_predicted),
        recall=ratio(correct, support),
        f1=ratio(2 * correct, num_predicted + support),
        support=support,
        average_precision=np.array(
            [average_precision(is_actual[:, code], probabilities[:, code]) for code in range(num_classes)]
        ),
    )


def average_precision(actual: np.ndarray, score: np.ndarray) -> float:
    """Compute the area under the precision-recall curve as the sum of precision times the step in recall.

    Samples with equal scores form one step.

    Args:
        actual: Whether each sample has the class, shape (S,).
        score: Predicted probability of the class, shape (S,).

    Returns:
        Average precision in [0, 1]; NaN without a positive sample.
    """
    num_positives = int(np.count_nonzero(actual))
    if not num_positives:
        return float("nan")
    order = np.argsort(-score, kind="stable")
    true_positives = np.cumsum(np.asarray(actual, bool)[order])
    last_of_score = np.append(np.flatnonzero(np.diff(score[order])), len(order) - 1)
    true_positives = true_positives[last_of_score]
    precision = true_positives / (last_of_score + 1)
    return float(np.sum(precision * np.diff(true_positives, prepend=0)) / num_positives)


def mean_average_precision(actual: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Compute the mean average precision over the classes that occur, under several weightings of the samples.

    An integer weight counts a sample that many times, as in a resampled test set.

    Args:
        actual: True labels, (S,) codes or (S, C) zeros and ones.
        probabilities: Predicted probabilities, shape (S, C).
        weights: Weights of the samples, shape (R, S).

    Returns:
        One value per weighting, shape (R,); NaN where no class has a sample with positive weight.
    """
    if actual.ndim == 1:
        actual = one_hot(actual, probabilities.shape[1])
    repeats, num_samples = weights.shape
    total, num_classes = np.zeros(repeats), np.zeros(repeats, np.int64)
    if not num_samples:
        return np.full(repeats, np.nan)
    for code in range(probabilities.shape[1]):
        is_actual, score = actual[:, code].astype(bool), probabilities[:, code]
        if not is_actual.any():
            continue
        order = np.argsort(-score, kind="stable")
        last_of_score = np.append(np.flatnonzero(np.diff(score[order])), num_samples - 1)
        ordered = weights[:, order].astype(np.float64)
        num_predicted = np.cumsum(ordered, axis=1)[:, last_of_score]
        true_positives = np.cumsum(ordered * is_actual[order], axis=1)[:, last_of_score]
        precision = np.divide(true_positives, num_predicted, out=np.zeros_like(true_positives), where=num_predicted > 0)
        area = precision * np.diff(true_positives, axis=1, prepend=0)
        positives = true_positives[:, -1]
        total += np.divide(area.sum(axis=1), positives, out=np.zeros(repeats), where=positives > 0)
        num_classes += positives > 0
    return np.asarray(ratio(total, num_classes))


def accuracy(actual: np.ndarray, predicted: np.ndarray) -> float:
    """Compute the share of correct samples; with several labels all labels must be correct (exact match)."""
    correct = np.asarray(actual) == np.asarray(predicted)
    return _mean(correct.all(axis=1) if correct.ndim == 2 else correct)


def top_k(actual: np.ndarray, probabilities: np.ndarray, k: int) -> float:
    """Compute the share of samples with their class among the k most probable ones; the smaller code wins ties."""
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    return _mean((order == np.asarray(actual)[:, None]).any(axis=1))


def f1_scores(actual: np.ndarray, predicted: np.ndarray, num_classes: int) -> dict[str, float]:
    """Compute macro, micro and weighted F1, and samples F1 if a sample can have several labels.

    A class that neither occurs nor is predicted has no F1 and is left out of the macro mean.

    Args:
        actual: True labels, (S,) codes or (S, C) zeros and ones.
        predicted: Predicted labels in the same form.
        num_classes: Number of classes C.

    Returns:
        `macro_f1` (mean over classes), `micro_f1` (over all labels), `weighted_f1` (mean over classes weighted by
        support) and, with several labels, `samples_f1` (mean over samples).
    """
    multi_label = np.ndim(actual) == 2
    is_actual = np.asarray(actual, bool) if multi_label else one_hot(actual, num_classes).astype(bool)
    is_predicted = np.asarray(predicted, bool) if multi_label else one_hot(predicted, num_classes).astype(bool)
    true_positives, num_predicted, support = (
        (is_actual & is_predicted).sum(axis=0),
        is_predicted.sum(axis=0),
        is_actual.sum(axis=0),
    )
    f1 = ratio(2 * true_positives, num_predicted + support)
    defined = ~np.isnan(f1)
    scores = {
        "macro_f1": _mean(f1[defined]),
        "micro_f1": float(ratio(2 * true_positives.sum(), num_predicted.sum() + support.sum())),
        "weighted_f1": float(ratio((f1[defined] * support[defined]).sum(), support.sum())),
    }
    if multi_label:
        both = (is_actual & is_predicted).sum(axis=1)
        either = is_actual.sum(axis=1) + is_predicted.sum(axis=1)
        scores["samples_f1"] = _mean(np.where(either > 0, 2 * both / np.maximum(either, 1), 0.0))
    return scores


def label_counts(actual: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Count true positives, predictions and occurrences of each class, int64 of shape (3, C).

    Args:
        actual: True labels as zeros and ones, shape (S, C).
        predicted: Predicted labels as zeros and ones, shape (S, C).
    """
    actual, predicted = np.asarray(actual, bool), np.asarray(predicted, bool)
    return np.stack([(actual & predicted).sum(axis=0), predicted.sum(axis=0), actual.sum(axis=0)]).astype(np.int64)


def macro_f1(counts: np.ndarray) -> float:
    """Compute the mean F1 of the classes that occur or are predicted, from `label_counts`; NaN if there is none."""
    f1 = ratio(2 * counts[0], counts[1] + counts[2])
    return _mean(f1[~np.isnan(f1)])


def summary(actual: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Compute the metrics that every table shows, by name.

    Args:
        actual: True labels, (S,) codes or (S, C) zeros and ones.
        predicted: Predicted labels in the same form.
        probabilities: Predicted probabilities, shape (S, C).

    Returns:
        `accuracy`, those of `f1_scores` and `map` (mean average precision); with one label per sample also
        `balanced_accuracy` (mean recall) and, with more than 5 classes, `top5`; with several labels `exact_match`.
    """
    num_classes = probabilities.shape[1]
    values = {"accuracy": accuracy(actual, predicted), **f1_scores(actual, predicted, num_classes)}
    of_class = per_class(actual, predicted, probabilities)
    defined = ~np.isnan(of_class.average_precision)
    values["map"] = _mean(of_class.average_precision[defined])
    if np.ndim(actual) == 2:
        values["exact_match"] = values["accuracy"]
    else:
        if num_classes > 5:
            values["top5"] = top_k(actual, probabilities, 5)
        recall = of_class.recall[~np.isnan(of_class.recall)]
        values["balanced_accuracy"] = _mean(recall)
    return values


def weighted_summary(
    actual: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Compute the metrics of `summary`, except balanced accuracy, under several weightings of the samples.

    Args:
        actual: True labels, (S,) codes or (S, C) zeros and ones.
        predicted: Predicted labels in the same form.
        probabilities: Predicted probabilities, shape (S, C).
        weights: Weights of the samples, shape (R, S). An integer weight counts a sample that many times.

    Returns:
        Metrics by name, each of shape (R,); NaN where the denominator is 0.
    """
    num_classes = probabilities.shape[1]
    multi_label = np.ndim(actual) == 2
    weights = np.asarray(weights, np.float64)
    total = weights.sum(axis=1)
    is_actual = np.asarray(actual, bool) if multi_label else one_hot(actual, num_classes).astype(bool)
    is_predicted = np.asarray(predicted, bool) if multi_label else one_hot(predicted, num_classes).astype(bool)
    true_positives = weights @ (is_actual & is_predicted)
    support = weights @ is_actual
    positives = weights @ is_predicted + support
    f1 = ratio(2 * true_positives, positives)
    values = {
        "accuracy": ratio(weights @ (is_actual == is_predicted).all(axis=1), total),
        "macro_f1": ratio(np.nansum(f1, axis=1), (~np.isnan(f1)).sum(axis=1)),
        "micro_f1": ratio(2 * true_positives.sum(axis=1), positives.sum(axis=1)),
        "weighted_f1": ratio(np.nansum(f1 * support, axis=1), support.sum(axis=1)),
        "map": mean_average_precision(actual, probabilities, weights),
    }
    if multi_label:
        common = (is_actual & is_predicted).sum(axis=1)
        either = is_actual.sum(axis=1) + is_predicted.sum(axis=1)
        values["samples_f1"] = ratio(weights @ np.where(either > 0, 2 * common / np.maximum(either, 1), 0.0), total)
        values["exact_match"] = values["accuracy"]
    elif num_classes > 5:
        order = np.argsort(-probabilities, axis=1, kind="stable")[:, :5]
        values["top5"] = ratio(weights @ (order == np.asarray(actual)[:, None]).any(axis=1), total)
    return values


def metric_name(name: str) -> str:
    """Return the display name of a metric of `summary`."""
    return _NAMES.get(name, name.replace("_", " ").replace(" f1", " F1"))


_NAMES = {"map": "mean average precision", "top5": "top 5"}


def one_hot(codes: np.ndarray, num_classes: int) -> np.ndarray:
    """Encode codes (S,) as zeros and ones, uint8 of shape (S, C); negative codes give rows of zeros."""
    codes = np.asarray(codes, np.int64)
    encoded = np.zeros((len(codes), num_classes), np.uint8)
    rows = np.flatnonzero(codes >= 0)
    encoded[rows, codes[rows]] = 1
    return encoded


def class_weights(target: np.ndarray) -> np.ndarray:
    """Compute balanced weights n / (C · n_c) over the classes that occur; 1 for the others.

    Args:
        target: True labels as zeros and ones, shape (S, C).

    Returns:
        Weights of the classes, shape (C,); their mean over the samples is 1.
    """
    counts = target.sum(axis=0, dtype=np.float64)
    occurs = counts > 0
    weights = np.ones(len(counts))
    weights[occurs] = counts.sum() / (occurs.sum() * counts[occurs])
    return weights


def positive_weights(target: np.ndarray, *, maximum: float = 100.0) -> np.ndarray:
    """Compute the ratio of negatives to positives of each label, shape (C,); 1 for labels without a positive.

    Args:
        target: True labels as zeros and ones, shape (S, C).
        maximum: Largest ratio; its inverse is the smallest.
    """
    positives = target.sum(axis=0, dtype=np.float64)
    ratio = np.divide(len(target) - positives, positives, out=np.ones_like(positives), where=positives > 0)
    return np.clip(ratio, 1 / maximum, maximum)


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Compute mean and standard deviation (n - 1 in the denominator; 0 for a single value)."""
    array = np.asarray(values, np.float64)
    return float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else 0.0


def ratio(above: np.ndarray | float, below: np.ndarray | float) -> np.ndarray:
    """Divide elementwise in float64; NaN where the denominator is not positive."""
    above, below = np.asarray(above, np.float64), np.asarray(below, np.float64)
    return np.divide(above, below, out=np.full(np.broadcast(above, below).shape, np.nan), where=below > 0)


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
