"""Calibration of probabilities: reliability, temperature scaling and per-label thresholds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from actionprep.training.evaluation import metrics

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0
"""Range in which `fit_temperature` searches."""


@dataclass(frozen=True)
class Reliability:
    """Confidence and accuracy in bins of equal width.

    Attributes:
        confidence: Mean probability of each bin, float64; NaN for an empty bin.
        accuracy: Share of correct samples of each bin, float64; NaN for an empty bin.
        count: Number of samples of each bin, int64.
    """

    confidence: np.ndarray
    accuracy: np.ndarray
    count: np.ndarray

    @property
    def error(self) -> float:
        """Expected calibration error: mean gap between confidence and accuracy, weighted by the samples of each bin.

        References:
            Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equation 3.
        """
        filled = self.count > 0
        gap = np.abs(self.confidence[filled] - self.accuracy[filled])
        return float((gap * self.count[filled]).sum() / max(self.count.sum(), 1))

    def rows(self) -> list[dict[str, float]]:
        """Return plain values, one row per bin with samples."""
        return [
            {
                "confidence": float(self.confidence[index]),
                "accuracy": float(self.accuracy[index]),
                "count": int(self.count[index]),
            }
            for index in np.flatnonzero(self.count)
        ]


def reliability(actual: np.ndarray, probabilities: np.ndarray, *, bins: int = 15) -> Reliability:
    """Compare probabilities with how often they are correct.

    Args:
        actual: (S,) codes: the most probable class of each sample is evaluated. (S, C) zeros and ones: every label of
            every sample is evaluated independently.
        probabilities: Predicted probabilities, shape (S, C).
        bins: Number of bins.

    Returns:
        Confidence, accuracy and count of each bin.
    """
    if actual.ndim == 1:
        confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == actual
    else:
        confidence, correct = probabilities.ravel(), actual.ravel().astype(bool)
    index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    count = np.bincount(index, minlength=bins)
    sums = (np.bincount(index, values, bins) for values in (confidence, correct))
    means = [np.divide(total, count, out=np.full(bins, np.nan), where=count > 0) for total in sums]
    return Reliability(means[0], means[1], count)


def scaled_probabilities(logits: np.ndarray, temperature: float, *, multi_label: bool) -> np.ndarray:
    """Compute probabilities at a temperature, averaged over variants.

    Args:
        logits: Logits of V variants of each sample, shape (V, S, C).
        temperature: Divisor of the logits.
        multi_label: Use a sigmoid per label instead of a softmax over classes.

    Returns:
        Probabilities of shape (S, C), float64.
    """
    squash = metrics.sigmoid if multi_label else metrics.softmax
    return squash(np.asarray(logits, np.float64) / temperature).mean(axis=0)


def negative_log_likelihood(actual: np.ndarray, probabilities: np.ndarray) -> float:
    """Compute the mean -log p of the true class of each sample or, with several labels, of the state of every label.

    Args:
        actual: (S,) codes, or (S, C) zeros and ones.
        probabilities: Predicted probabilities, shape (S, C).
    """
    p = np.clip(probabilities, 1e-12, 1 - 1e-12)
    if actual.ndim == 1:
        return float(-np.log(p[np.arange(len(actual)), actual]).mean())
    return float(-np.where(actual.astype(bool), np.log(p), np.log1p(-p)).mean())


def fit_temperature(logits: np.ndarray, actual: np.ndarray, *, spread: float = 0.5) -> float:
    """Fit the temperature that makes the true labels most likely.

    The search is a golden-section search over the logarithm of the temperature. Without a wrong prediction the
    likelihood has no maximum above temperature 0, so 1 is returned.

    Args:
        logits: Logits of V variants of each sample, shape (V, S, C), averaged as in `scaled_probabilities`.
        actual: (S,) codes, or (S, C) zeros and ones.
        spread: Standard deviation of a normal prior on the logarithm of the temperature, centered at 0. It prevents
            near-certain probabilities after a fit to a few samples with hardly a mistake.

    Returns:
        The temperature; 1 if every prediction is correct.

    References:
        Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 4.2. The prior is an addition.
    """
    from scipy.optimize import minimize_scalar

    multi_label = actual.ndim == 2
    unscaled = scaled_probabilities(logits, 1.0, multi_label=multi_label)
    wrong = (unscaled >= 0.5) != actual.astype(bool) if multi_label else unscaled.argmax(axis=1) != actual
    if not wrong.any():
        return 1.0

    def cost(log_temperature: float) -> float:
        probabilities = scaled_probabilities(logits, float(np.exp(log_temperature)), multi_label=multi_label)
        prior = (log_temperature / spread) ** 2 / (2 * actual.size)
        return negative_log_likelihood(actual, probabilities) + prior

    bounds = (np.log(MIN_TEMPERATURE), np.log(MAX_TEMPERATURE))
    result = minimize_scalar(cost, bounds=bounds, method="bounded", options={"xatol": 1e-4})
    return float(np.exp(result.x))


def choose_thresholds(actual: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Choose the threshold of each label that gives its best F1.

    A threshold lies half-way between two neighboring probabilities. Of equally good ones the nearest to 0.5 is chosen.
    Labels that never occur keep 0.5.

    Args:
        actual: True labels as zeros and ones, shape (S, C).
        probabilities: Predicted probabilities, shape (S, C).

    Returns:
        Thresholds of the labels, shape (C,).
    """
    thresholds = np.full(probabilities.shape[1], 0.5)
    for label in range(probabilities.shape[1]):
        is_actual, score = actual[:, label].astype(bool), probabilities[:, label]
        if not is_actual.any():
            continue
        edges = np.unique(np.concatenate([[0.0], score, [1.0]]))
        candidates = np.unique(np.concatenate([[0.0, 0.5], (edges[:-1] + edges[1:]) / 2]))
        is_predicted = score[None] >= candidates[:, None]
        true_positives = (is_predicted & is_actual).sum(axis=1)
        f1 = 2 * true_positives / np.maximum(is_predicted.sum(axis=1) + is_actual.sum(), 1)
        best = candidates[f1 >= f1.max() - 1e-12]
        thresholds[label] = best[np.abs(best - 0.5).argmin()]
    return thresholds
