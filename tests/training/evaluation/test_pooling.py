"""Pooling of probabilities, and weights chosen on val."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actionprep.training.evaluation.pooling import pool_weights, pooled


def some(seed, *, multi_label, models=2, samples=12, classes=3):
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.ones(classes), (models, samples)) * 0.98 + 0.02 / classes
    shape = (samples, classes) if multi_label else samples
    return probabilities, rng.integers(0, 2 if multi_label else classes, shape)


def log_likelihood(probabilities, actual, weights):
    """Compute the pool as a product of powers, without logits."""
    powers = np.prod(probabilities ** np.asarray(weights)[:, None, None], axis=0)
    if actual.ndim == 2:
        others = np.prod((1 - probabilities) ** np.asarray(weights)[:, None, None], axis=0)
        return np.log(np.where(actual, powers, others) / (powers + others)).mean()
    return np.log(powers[np.arange(len(actual)), actual] / powers.sum(axis=1)).mean()


@given(seed=st.integers(0, 10_000), first=st.floats(0, 1), multi_label=st.booleans())
def test_the_logarithmic_pool_is_the_product_of_powers(seed, first, multi_label):
    probabilities, _ = some(seed, multi_label=multi_label)
    entry, other = probabilities
    product = entry**first * other ** (1 - first)
    total = (
        product + (1 - entry) ** first * (1 - other) ** (1 - first) if multi_label else product.sum(1, keepdims=True)
    )
    result = pooled(probabilities, np.array([first, 1 - first]), "log", multi_label=multi_label)
    np.testing.assert_allclose(result, product / total, rtol=1e-6)


def test_uniform_model_does_not_change_the_logarithmic_pool():
    probabilities, _ = some(0, multi_label=False)
    probabilities[1] = 1 / 3
    result = pooled(probabilities, np.array([0.2, 0.8]), "log", multi_label=False)
    assert (result.argmax(1) == probabilities[0].argmax(1)).all()


def test_no_model_alone_rules_out_what_the_others_see():
    probabilities = np.array([[[0.0, 1.0]], [[0.99999, 0.00001]], [[0.99999, 0.00001]]])
    assert pooled(probabilities, np.full(3, 1 / 3), "log", multi_label=False)[0].argmax() == 0


def test_the_mean_is_the_weighted_mean():
    probabilities, _ = some(0, multi_label=False)
    result = pooled(probabilities, np.array([0.25, 0.75]), "mean", multi_label=False)
    np.testing.assert_allclose(result, 0.25 * probabilities[0] + 0.75 * probabilities[1])


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000), multi_label=st.booleans())
def test_no_other_weights_make_the_labels_more_probable(seed, multi_label):
    probabilities, actual = some(seed, multi_label=multi_label)
    result = pool_weights(probabilities, actual, prior=0)
    assert result.sum() == pytest.approx(1)
    best = max(log_likelihood(probabilities, actual, (w, 1 - w)) for w in np.linspace(0, 1, 101))
    assert log_likelihood(probabilities, actual, result) >= best - 1e-4


@pytest.mark.parametrize("multi_label", [False, True])
def test_val_weights_depend_on_the_number_of_snippets(multi_label):
    labels = np.eye(2, dtype=np.int64)[[0, 1] * 300]
    right, wrong = 0.2 + 0.6 * labels, 0.8 - 0.6 * labels
    actual = labels if multi_label else labels.argmax(1)
    few = pool_weights(np.stack([right[:6], wrong[:6]]), actual[:6])
    many = pool_weights(np.stack([right, wrong]), actual)
    assert 0.5 < few[0] < 0.6
    assert many[0] > 0.9
