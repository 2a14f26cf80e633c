"""Combine the probabilities of several models, with weights fitted to the val snippets."""

from __future__ import annotations

from typing import Literal

import numpy as np

from actionprep.training.evaluation import metrics

Pool = Literal["log", "mean"]

_MIN_PROBABILITY = 1e-6
"""Lower probabilities are raised to this, so that a single model cannot veto what all others predict."""


def pooled(probabilities: np.ndarray, weights: np.ndarray, pool: Pool, *, multi_label: bool) -> np.ndarray:
    """Pool the probabilities of R models.

    Args:
        probabilities: Predicted probabilities of each model, shape (R, S, C).
        weights: Weights of the models, shape (R,); they sum to 1.
        pool: "log" multiplies the probabilities, each raised to the power of its weight, so that a confident model
            counts more than an undecided one. "mean" is the weighted mean.
        multi_label: Pool each label independently.

    Returns:
        Pooled probabilities of shape (S, C).

    References:
        Genest and Zidek, "Combining Probability Distributions", Statistical Science 1986, section 2 (logarithmic pool).
    """
    if pool == "mean":
        return np.einsum("r,rsc->sc", weights, probabilities)
    logits = np.einsum("r,rsc->sc", weights, _log_odds(probabilities, multi_label=multi_label))
    return metrics.sigmoid(logits) if multi_label else metrics.softmax(logits)


def pool_weights(probabilities: np.ndarray, actual: np.ndarray, *, prior: float = 60.0) -> np.ndarray:
    """Fit the weights of the logarithmic pool that make the true labels most likely.

    The likelihood is concave in the weights, so the optimum does not depend on the optimizer.

    Args:
        probabilities: Predicted probabilities of R models, shape (R, S, C).
        actual: (S,) codes, or (S, C) zeros and ones if labels are independent.
        prior: Strength of the pull towards equal weights, in samples. Some tens of snippets carry little information
            about how much better one model is, and the best one is rarely that much better on other snippets.

    Returns:
        Weights of the models, shape (R,), non-negative, with sum 1.
    """
    from scipy.optimize import minimize

    from actionprep.training.evaluation.calibration import negative_log_likelihood

    num_models, multi_label = len(probabilities), actual.ndim == 2
    odds = _log_odds(probabilities, multi_label=multi_label)
    equal = np.full(num_models, 1 / num_models)

    def cost(weights: np.ndarray) -> float:
        logits = np.einsum("r,rsc->sc", weights, odds)
        pooled_probabilities = metrics.sigmoid(logits) if multi_label else metrics.softmax(logits)
        distance = num_models * float(np.square(weights - equal).sum())
        return negative_log_likelihood(actual, pooled_probabilities) + prior * distance / len(actual)

    solution = minimize(
        cost,
        equal,
        method="SLSQP",
        bounds=[(0, 1)] * num_models,
        constraints={"type": "eq", "fun": lambda weights: weights.sum() - 1},
        options={"ftol": 1e-10, "maxiter": 500},
    ).x.clip(0)
    weights: np.ndarray = solution / solution.sum()
    return weights


def _log_odds(probabilities: np.ndarray, *, multi_label: bool) -> np.ndarray:
    """Return logits with these probabilities: log p per class, or log p / (1 - p) per label."""
    p = np.clip(np.asarray(probabilities, np.float64), _MIN_PROBABILITY, 1 - _MIN_PROBABILITY if multi_label else 1)
    return np.log(p) - np.log1p(-p) if multi_label else np.log(p)
