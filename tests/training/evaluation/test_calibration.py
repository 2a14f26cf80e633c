"""Calibration: reliability by counting, recovery of known temperatures, thresholds by exhaustive search."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actionprep.training.evaluation import metrics
from actionprep.training.evaluation.calibration import (
    choose_thresholds,
    fit_temperature,
    negative_log_likelihood,
    reliability,
    scaled_probabilities,
)


def drawn(seed: int, size: int = 4000, classes: int = 4, *, multi_label: bool = False):
    """Return logits, and labels drawn from the probabilities of these logits."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(size, classes)) * 2
    if multi_label:
        return logits, (rng.random((size, classes)) < metrics.sigmoid(logits)).astype(np.uint8)
    cumulative = metrics.softmax(logits).cumsum(axis=1)
    return logits, (rng.random((size, 1)) > cumulative).sum(axis=1).clip(max=classes - 1)


def test_a_model_that_is_half_right_and_quite_sure_is_off_by_one_half():
    probabilities = np.tile([1.0, 0.0], (10, 1))
    result = reliability(np.array([0, 1] * 5), probabilities)
    assert result.error == pytest.approx(0.5)
    assert result.rows() == [{"confidence": 1.0, "accuracy": 0.5, "count": 10}]


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10**6), bins=st.integers(1, 20))
def test_the_calibration_error_equals_counting_bin_by_bin(seed, bins):
    logits, actual = drawn(seed, size=80)
    probabilities = metrics.softmax(logits)
    gap = 0.0
    for at in range(bins):
        rows = [row for row in range(80) if at / bins < probabilities[row].max() <= (at + 1) / bins]
        if rows:
            right = np.mean([probabilities[row].argmax() == actual[row] for row in rows])
            gap += len(rows) / 80 * abs(right - np.mean([probabilities[row].max() for row in rows]))
    assert reliability(actual, probabilities, bins=bins).error == pytest.approx(gap)


@pytest.mark.parametrize("multi_label", [False, True])
def test_probabilities_by_which_labels_were_drawn_are_calibrated(multi_label):
    logits, actual = drawn(0, multi_label=multi_label)
    squash = metrics.sigmoid if multi_label else metrics.softmax
    assert reliability(actual, squash(logits)).error < 0.03
    assert reliability(actual, squash(3 * logits)).error > 0.05


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_temperature_that_logits_were_multiplied_by_is_found(multi_label, temperature):
    logits, actual = drawn(1, multi_label=multi_label)
    assert fit_temperature(logits[None] * temperature, actual) == pytest.approx(temperature, rel=0.08)


def test_temperature_keeps_predictions_and_lowers_the_loss():
    logits, actual = drawn(2, size=500)
    each = 5 * logits[None]
    scaled = scaled_probabilities(each, fit_temperature(each, actual), multi_label=False)
    assert np.array_equal(scaled.argmax(axis=1), logits.argmax(axis=1))
    assert negative_log_likelihood(actual, scaled) < negative_log_likelihood(actual, metrics.softmax(each[0]))


def test_few_samples_limit_the_fitted_temperature():
    logits = np.array([[4.0, 0.0]] * 39 + [[0.5, 0.0]])[None]
    actual = np.array([0] * 39 + [1])
    assert 0.2 < fit_temperature(logits, actual) < 1
    assert fit_temperature(logits, actual) > fit_temperature(logits, actual, spread=10.0)


def test_without_a_mistake_the_temperature_stays_one():
    logits = np.array([[[2.0, 0.0], [0.0, 2.0]]])
    assert fit_temperature(logits, np.array([0, 1])) == 1.0
    assert fit_temperature(logits - 1, np.array([[1, 0], [0, 1]])) == 1.0


def test_the_likelihood_equals_scikit_learns():
    log_loss = pytest.importorskip("sklearn.metrics").log_loss
    logits, actual = drawn(3, size=60)
    expected = log_loss(actual, metrics.softmax(logits), labels=range(4))
    assert negative_log_likelihood(actual, metrics.softmax(logits)) == pytest.approx(expected)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10**6))
def test_no_other_threshold_gives_a_better_f1(seed):
    rng = np.random.default_rng(seed)
    actual, score = (rng.random((25, 3)) < 0.4).astype(np.uint8), rng.random((25, 3))
    score[:5] = np.round(score[:5], 1)
    thresholds = choose_thresholds(actual, score)

    def f1(label, threshold):
        predicts = score[:, label] >= threshold
        return 2 * (predicts & (actual[:, label] == 1)).sum() / max(predicts.sum() + actual[:, label].sum(), 1)

    for label in range(3):
        best = max(f1(label, entry) for entry in np.linspace(0, 1, 501))
        assert f1(label, thresholds[label]) >= best - 1e-9 or not actual[:, label].any()


def test_a_label_that_never_occurs_keeps_one_half():
    assert choose_thresholds(np.zeros((4, 1)), np.array([[0.1], [0.2], [0.8], [0.9]])).tolist() == [0.5]
