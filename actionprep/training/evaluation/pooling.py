"""What several models say, as one: pools of probabilities, and the weights under which val is most probable."""

from __future__ import annotations

from typing import Literal

import numpy as np

from actionprep.training.evaluation import metrics

Pool = Literal["log", "mean"]

_LEAST = 1e-6
"""Probabilities below it count as this much: no model rules out alone what all others see."""


def pooled(probabilities: np.ndarray, weights: np.ndarray, pool: Pool, *, several: bool) -> np.ndarray:
    """Probabilities (S, C) of R models' (R, S, C), with weights (R) that sum to 1.

    log:  proportional to the product of what each model says, to the power of its weight: who is sure counts more than
          who does not know. With several labels each label by itself, there or not.
    mean: the weighted mean.

    The logarithmic pool is in Genest and Zidek, "Combining Probability Distributions", Statistical Science 1986, section 2.
    """
    if pool == "mean":
        return np.einsum("r,rsc->sc", weights, probabilities)
    logits = np.einsum("r,rsc->sc", weights, _log_odds(probabilities, several=several))
    return metrics.sigmoid(logits) if several else metrics.softmax(logits)


def pool_weights(probabilities: np.ndarray, actual: np.ndarray, *, prior: float = 60.0) -> np.ndarray:
    """(R,) weights of the logarithmic pool of R models under which what was there is most probable.

    probabilities (R, S, C); actual (S) codes, or (S, C) zeros and ones where labels are independent.
    prior: how strongly weights are held at equal ones, in samples: some tens of snippets say little of how much better
        one model is, and the best of them is rarely that much better on other snippets.

    The likelihood is concave in the weights, so that the way there does not matter.
    """
    from scipy.optimize import minimize

    from actionprep.training.evaluation.calibration import negative_log_likelihood

    count, several = len(probabilities), actual.ndim == 2
    odds = _log_odds(probabilities, several=several)
    equal = np.full(count, 1 / count)

    def cost(weights: np.ndarray) -> float:
        logits = np.einsum("r,rsc->sc", weights, odds)
        said = metrics.sigmoid(logits) if several else metrics.softmax(logits)
        apart = count * float(np.square(weights - equal).sum())
        return negative_log_likelihood(actual, said) + prior * apart / len(actual)

    found = minimize(
        cost,
        equal,
        method="SLSQP",
        bounds=[(0, 1)] * count,
        constraints={"type": "eq", "fun": lambda weights: weights.sum() - 1},
        options={"ftol": 1e-10, "maxiter": 500},
    ).x.clip(0)
    weights: np.ndarray = found / found.sum()
    return weights


def _log_odds(probabilities: np.ndarray, *, several: bool) -> np.ndarray:
    """Logits that give these probabilities: log p of each class, or log p / (1 - p) of each label."""
    p = np.clip(np.asarray(probabilities, np.float64), _LEAST, 1 - _LEAST if several else 1)
    return np.log(p) - np.log1p(-p) if several else np.log(p)
