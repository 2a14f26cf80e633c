"""Figures over seeds, splits and folds of one recipe, with intervals from drawing seeds and recordings anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from actionprep.datasets.natural_order import natural_key
from actionprep.training.evaluation import metrics
from actionprep.training.evaluation.metrics import Interval

_DRAWS = 100
"""Resampled tests whose precision is counted at once, so that large tests fit into memory."""


@dataclass(frozen=True)
class SeedAnswers:
    """What one seed's runs on one split said of their test snippets, all folds together, as zeros and ones (S, C)."""

    actual: np.ndarray
    predicted: np.ndarray
    recording: np.ndarray
    probabilities: np.ndarray
    split: str | None = None

    @classmethod
    def of(cls, tests: Sequence[Mapping[str, np.ndarray]], split: str | None = None) -> SeedAnswers:
        """Those of the arrays that the tests of its folds left (see `tested.saved_arrays`)."""
        num_classes = tests[0]["probabilities"].shape[1]
        several = tests[0]["actuals"].ndim == 2

        def joined(name: str) -> np.ndarray:
            values = np.concatenate([one[name] for one in tests])
            return values.astype(np.int64) if several else metrics.one_hot(values, num_classes).astype(np.int64)

        return cls(
            joined("actuals"),
            joined("predictions"),
            np.concatenate([one["recording"] for one in tests]),
            np.concatenate([one["probabilities"] for one in tests]),
            split,
        )

    def figures(self, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Accuracy, macro F1 and mean average precision (R) under R weights (R, S) of the snippets.

        nan where no snippet has any weight.
        """
        right = (self.actual == self.predicted).all(axis=1)
        total = weight.sum(axis=1)
        accuracy = np.divide(weight @ right, total, out=np.full(len(weight), np.nan), where=total > 0)
        hits = weight @ (self.actual & self.predicted)
        both = weight @ self.actual + weight @ self.predicted
        f1 = np.divide(2 * hits, both, out=np.full(hits.shape, np.nan), where=both > 0)
        there = (~np.isnan(f1)).sum(axis=1)
        macro = np.divide(np.nansum(f1, axis=1), there, out=np.full(len(weight), np.nan), where=there > 0)
        precision = np.concatenate(
            [
                metrics.mean_average_precision(self.actual, self.probabilities, weight[first : first + _DRAWS])
                for first in range(0, len(weight), _DRAWS)
            ]
        )
        return accuracy, macro, precision


def intervals(tested: Sequence[SeedAnswers], *, repeats: int, seed: int = 0) -> tuple[Interval, Interval, Interval]:
    """Accuracy, macro F1 and mean average precision, with 95 % of draws of seeds and recordings.

    Each is the mean over splits of the mean over seeds.

    A recording is drawn for all seeds and splits alike, since several are tested on the same ones. Splits are not drawn:
    they are those of the data set.
    """
    rng = np.random.default_rng([seed, 1])
    # In the order of the tables of snippets, so that one run has the interval of its test.
    names = sorted(
        set(np.concatenate([one.recording for one in tested]).tolist()), key=lambda one: natural_key(str(one))
    )
    place = {name: at for at, name in enumerate(names)}
    groups = np.arange(len(names))
    drawn = np.concatenate(list(metrics.bootstrap_weights(len(names), groups=groups, repeats=repeats, seed=seed)))
    plain = [one.figures(np.ones((1, len(one.actual)))) for one in tested]
    resampled = [one.figures(drawn[:, [place[name] for name in one.recording.tolist()]]) for one in tested]
    seeds_of = [
        np.flatnonzero([one.split == split for one in tested]) for split in dict.fromkeys(one.split for one in tested)
    ]
    drawn_seeds = [seeds[rng.integers(0, len(seeds), (repeats, len(seeds)))] for seeds in seeds_of]
    found = []
    for figure in range(3):
        of_run = np.stack([one[figure] for one in resampled])
        of_split = [_mean(of_run[which, np.arange(repeats)[:, None]], axis=1) for which in drawn_seeds]
        low, high = np.nanquantile(_mean(np.stack(of_split), axis=0), [0.025, 0.975])
        value = np.mean([np.mean([plain[at][figure][0] for at in seeds]) for seeds in seeds_of])
        drawn_interval = Interval(float(value), float(low), float(high))
        found.append(metrics.where_it_varies(drawn_interval, len(names), is_share=figure == 0))
    return found[0], found[1], found[2]


def _mean(values: np.ndarray, *, axis: int) -> np.ndarray:
    """The mean of those that are numbers; nan where none is, as when no recording of a small split was drawn."""
    there = ~np.isnan(values)
    count = there.sum(axis=axis)
    total = np.where(there, values, 0.0).sum(axis=axis)
    return np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)
