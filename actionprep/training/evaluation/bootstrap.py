"""Confidence intervals of metrics from resampled test sets.

Resampling draws whole groups of samples (recordings) with replacement, because the snippets of one recording resemble each
other. A drawn test set is a vector of integer weights, so that every metric of all test sets is a few matrix products.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from actionprep.datasets.natural_order import natural_key
from actionprep.training.evaluation import metrics

LEVEL = 0.95
"""Probability that an interval covers."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A metric with the bounds that contain 95 % of its values over resampled test sets; NaN bounds if unknown."""

    value: float
    low: float
    high: float

    def as_json(self) -> dict[str, float]:
        """Return the interval as plain values."""
        return {"value": self.value, "low": self.low, "high": self.high}


def bootstrap(
    values: Mapping[str, float],
    resample: Callable[[np.ndarray], Mapping[str, np.ndarray]],
    groups: np.ndarray,
    *,
    shares: Collection[str] = (),
    repeats: int = 1000,
    seed: int = 0,
) -> dict[str, Interval]:
    """Compute percentile intervals of metrics over test sets drawn with replacement.

    Args:
        values: Metrics of the real test set by name.
        resample: Function from weights of the samples, shape (R, S), to the metrics of those R test sets, each (R,).
        groups: Group code of each sample, shape (S,). Groups are drawn whole. Pass `np.arange(S)` to draw single samples.
        shares: Names of metrics that are shares of correct samples; see `interval_of`.
        repeats: Number of resampled test sets.
        seed: Seed of the draws.

    Returns:
        One interval per name in `values`.
    """
    drawn: dict[str, list[np.ndarray]] = {name: [] for name in values}
    for weights in bootstrap_weights(groups, repeats=repeats, seed=seed):
        resampled = resample(weights)
        for name, parts in drawn.items():
            parts.append(resampled[name])
    num_groups = len(np.unique(groups))
    return {
        name: interval_of(
            value,
            np.concatenate(drawn[name]) if drawn[name] else np.empty(0),
            num_groups=num_groups,
            is_share=name in shares,
        )
        for name, value in values.items()
    }


def bootstrap_weights(
    groups: np.ndarray, *, repeats: int = 1000, seed: int = 0, batch: int = 100
) -> Iterator[np.ndarray]:
    """Draw test sets and yield how often each of them contains each sample.

    Args:
        groups: Group code of each sample, shape (S,).
        repeats: Number of test sets.
        seed: Seed of the draws. Equal seeds give equal test sets, whatever `batch` is.
        batch: Maximum number of test sets per array, which limits memory.

    Yields:
        Integer weights of shape (at most `batch`, S).
    """
    rng = np.random.default_rng(seed)
    _, code = np.unique(groups, return_inverse=True)
    num_groups = int(code.max()) + 1 if len(code) else 0
    draws = rng.integers(0, max(num_groups, 1), (repeats, num_groups))
    for first in range(0, repeats, batch):
        counts = np.stack([np.bincount(draw, minlength=num_groups) for draw in draws[first : first + batch]])
        yield counts[:, code]


def interval_of(value: float, resampled: np.ndarray, *, num_groups: int, is_share: bool) -> Interval:
    """Build the interval of a metric from its values over resampled test sets.

    If all resampled values are equal, for example because every sample is correct, their percentiles carry no
    information. A share of correct samples then gets the score interval of `num_groups` independent trials (see
    `wilson`), any other metric NaN bounds.

    Args:
        value: Metric of the real test set.
        resampled: Metric of each resampled test set, shape (R,). NaN values are ignored.
        num_groups: Number of groups that were drawn from.
        is_share: Whether the metric is a share of correct samples.

    Returns:
        The interval, with NaN bounds if there is no finite resampled value or only one group, which does not vary.
    """
    finite = resampled[~np.isnan(resampled)]
    if not len(finite) or num_groups < 2:
        return Interval(value, float("nan"), float("nan"))
    low, high = np.quantile(finite, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    if low != high:
        return Interval(value, low, high)
    if not is_share or not num_groups:
        return Interval(value, float("nan"), float("nan"))
    return Interval(value, *wilson(value, num_groups))


def wilson(share: float, num_trials: int, *, z: float = 1.959963984540054) -> tuple[float, float]:
    """Compute the score interval of a share observed in independent trials.

    Args:
        share: Observed share in [0, 1].
        num_trials: Number of independent trials.
        z: Quantile of the normal distribution; the default gives a 95 % interval.

    Returns:
        Lower and upper bound.

    References:
        Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 1927.
    """
    center = (share + z * z / (2 * num_trials)) / (1 + z * z / num_trials)
    spread = z / (1 + z * z / num_trials) * math.sqrt(share * (1 - share) / num_trials + (z / (2 * num_trials)) ** 2)
    return max(0.0, center - spread), min(1.0, center + spread)


@dataclass(frozen=True)
class SeedAnswers:
    """Answers of one seed on one split for the test snippets of all folds together.

    Attributes:
        actual: True labels as zeros and ones, shape (S, C).
        predicted: Predicted labels as zeros and ones, shape (S, C).
        recording: Recording name of each snippet, shape (S,).
        probabilities: Predicted probabilities, shape (S, C).
        split: Name of the stored split; None without one.
    """

    actual: np.ndarray
    predicted: np.ndarray
    recording: np.ndarray
    probabilities: np.ndarray
    split: str | None = None

    @classmethod
    def of(cls, tests: Sequence[Mapping[str, np.ndarray]], split: str | None = None) -> SeedAnswers:
        """Join the saved arrays of the tests of all folds (see `result_files.saved_arrays`)."""
        num_classes = tests[0]["probabilities"].shape[1]
        multi_label = tests[0]["actuals"].ndim == 2

        def joined(name: str) -> np.ndarray:
            values = np.concatenate([test[name] for test in tests])
            return values.astype(np.int64) if multi_label else metrics.one_hot(values, num_classes).astype(np.int64)

        return cls(
            joined("actuals"),
            joined("predictions"),
            np.concatenate([test["recording"] for test in tests]),
            np.concatenate([test["probabilities"] for test in tests]),
            split,
        )

    def metrics(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Compute accuracy, macro F1 and mean average precision under weights of the snippets.

        Args:
            weights: Weights of shape (R, S).

        Returns:
            `accuracy`, `macro_f1` and `map`, each of shape (R,); NaN where all weights are 0.
        """
        under_weights = metrics.weighted_summary(self.actual, self.predicted, self.probabilities, weights)
        return {name: under_weights[name] for name in COMPARED}


COMPARED = ("accuracy", "macro_f1", "map")
"""Metrics of which runs are compared."""


def intervals(seeds: Sequence[SeedAnswers], *, repeats: int, seed: int = 0) -> tuple[Interval, Interval, Interval]:
    """Compute accuracy, macro F1 and mean average precision with 95 % intervals over seeds and recordings.

    Each metric is the mean over splits of the mean over the seeds of a split. Seeds and recordings are resampled. A
    recording is drawn for all seeds and splits together, because several of them are tested on the same recordings.
    Splits are not resampled, because they belong to the data set.

    Args:
        seeds: Answers of each seed on each split.
        repeats: Number of resampled test sets.
        seed: Seed of the draws.

    Returns:
        The intervals of accuracy, macro F1 and mean average precision.
    """
    rng = np.random.default_rng([seed, 1])
    # In the order of snippet tables, so that the interval of a single run equals that of its test.
    names = sorted(
        set(np.concatenate([answers.recording for answers in seeds]).tolist()), key=lambda name: natural_key(str(name))
    )
    column = {name: index for index, name in enumerate(names)}
    weights = np.concatenate(list(bootstrap_weights(np.arange(len(names)), repeats=repeats, seed=seed)))
    actual = [answers.metrics(np.ones((1, len(answers.actual)))) for answers in seeds]
    resampled = [
        answers.metrics(weights[:, [column[name] for name in answers.recording.tolist()]]) for answers in seeds
    ]
    members_of_split = [
        np.flatnonzero([answers.split == split for answers in seeds])
        for split in dict.fromkeys(answers.split for answers in seeds)
    ]
    drawn_members = [members[rng.integers(0, len(members), (repeats, len(members)))] for members in members_of_split]
    results = []
    for name in COMPARED:
        of_seed = np.stack([values[name] for values in resampled])
        of_split = [_mean(of_seed[drawn, np.arange(repeats)[:, None]], axis=1) for drawn in drawn_members]
        value = np.mean([np.mean([actual[member][name][0] for member in members]) for members in members_of_split])
        over_splits = _mean(np.stack(of_split), axis=0)
        results.append(interval_of(float(value), over_splits, num_groups=len(names), is_share=name == "accuracy"))
    return results[0], results[1], results[2]


def _mean(values: np.ndarray, *, axis: int) -> np.ndarray:
    """Mean of the values that are not NaN; NaN where all are, as when no recording of a small split was drawn."""
    finite = ~np.isnan(values)
    count = finite.sum(axis=axis)
    total = np.where(finite, values, 0.0).sum(axis=axis)
    return np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)
