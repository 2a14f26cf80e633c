"""How far a model's probabilities can be believed, and what validation snippets can mend: temperature and thresholds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from actionprep.training.evaluation import metrics

COOLEST, HOTTEST = 0.05, 20.0
"""Between these a temperature is looked for."""


@dataclass(frozen=True)
class Reliability:
    """Confidence and accuracy over bins of equal width.

    confidence, accuracy (bins) float64: means of the samples of each bin, nan where there is none; count (bins) int64.
    """

    confidence: np.ndarray
    accuracy: np.ndarray
    count: np.ndarray

    @property
    def error(self) -> float:
        """Expected calibration error: mean gap between the two, weighed by the samples of each bin.

        Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equation 3.
        """
        there = self.count > 0
        gap = np.abs(self.confidence[there] - self.accuracy[there])
        return float((gap * self.count[there]).sum() / max(self.count.sum(), 1))

    def rows(self) -> list[dict[str, float]]:
        """Plain values, a row for each bin that holds samples."""
        return [
            {
                "confidence": float(self.confidence[at]),
                "accuracy": float(self.accuracy[at]),
                "count": int(self.count[at]),
            }
            for at in np.flatnonzero(self.count)
        ]


def reliability(actual: np.ndarray, probabilities: np.ndarray, *, bins: int = 15) -> Reliability:
    """Reliability of probabilities (S, C).

    actual (S) codes: the most probable class of each sample, right or not. actual (S, C) zeros and ones: every label of
    every sample by itself, there or not.
    """
    if actual.ndim == 1:
        confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == actual
    else:
        confidence, right = probabilities.ravel(), actual.ravel().astype(bool)
    at = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    count = np.bincount(at, minlength=bins)
    sums = (np.bincount(at, values, bins) for values in (confidence, right))
    means = [np.divide(one, count, out=np.full(bins, np.nan), where=count > 0) for one in sums]
    return Reliability(means[0], means[1], count)


def scaled_probabilities(logits: np.ndarray, temperature: float, *, several: bool) -> np.ndarray:
    """Probabilities (S, C) of logits (V, S, C) over a temperature, averaged over the V variants of each sample."""
    squash = metrics.sigmoid if several else metrics.softmax
    return squash(np.asarray(logits, np.float64) / temperature).mean(axis=0)


def negative_log_likelihood(actual: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean -log p of what was there: of the class of each sample, or, with several labels, of every label's state."""
    p = np.clip(probabilities, 1e-12, 1 - 1e-12)
    if actual.ndim == 1:
        return float(-np.log(p[np.arange(len(actual)), actual]).mean())
    return float(-np.where(actual.astype(bool), np.log(p), np.log1p(-p)).mean())


def fit_temperature(logits: np.ndarray, actual: np.ndarray, *, spread: float = 0.5) -> float:
    """The temperature under which what was there is most likely; 1 where the samples make no mistake.

    logits (V, S, C), averaged as in `scaled_probabilities`; actual (S) codes or (S, C) zeros and ones. Without a mistake
    the best temperature is 0, which says nothing of other samples.
    spread: standard deviation of a normal prior of the temperature's logarithm around 0, so that few samples with hardly
        a mistake do not make a model all but certain.

    Guo et al., section 4.2; the prior is ours. Found by golden-section search over its logarithm.
    """
    from scipy.optimize import minimize_scalar

    several = actual.ndim == 2
    plain = scaled_probabilities(logits, 1.0, several=several)
    wrong = (plain >= 0.5) != actual.astype(bool) if several else plain.argmax(axis=1) != actual
    if not wrong.any():
        return 1.0

    def cost(log_temperature: float) -> float:
        probabilities = scaled_probabilities(logits, float(np.exp(log_temperature)), several=several)
        prior = (log_temperature / spread) ** 2 / (2 * actual.size)
        return negative_log_likelihood(actual, probabilities) + prior

    found = minimize_scalar(cost, bounds=(np.log(COOLEST), np.log(HOTTEST)), method="bounded", options={"xatol": 1e-4})
    return float(np.exp(found.x))


def choose_thresholds(actual: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """(C) For each label the probability from which saying it gives the best F1 of these samples.

    actual (S, C) zeros and ones, probabilities (S, C). A threshold lies half-way between two neighboring
    probabilities; of equally good ones the nearest to one half is taken. Labels that never occur keep one half.
    """
    found = np.full(probabilities.shape[1], 0.5)
    for label in range(probabilities.shape[1]):
        there, score = actual[:, label].astype(bool), probabilities[:, label]
        if not there.any():
            continue
        edges = np.unique(np.concatenate([[0.0], score, [1.0]]))
        candidates = np.unique(np.concatenate([[0.0, 0.5], (edges[:-1] + edges[1:]) / 2]))
        says = score[None] >= candidates[:, None]
        hits = (says & there).sum(axis=1)
        f1 = 2 * hits / np.maximum(says.sum(axis=1) + there.sum(), 1)
        best = candidates[f1 >= f1.max() - 1e-12]
        found[label] = best[np.abs(best - 0.5).argmin()]
    return found
