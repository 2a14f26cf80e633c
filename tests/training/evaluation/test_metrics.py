import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actionprep.training.evaluation import metrics


@pytest.fixture(scope="module")
def sklearn():
    """scikit-learn's metrics, imported when a test asks for them."""
    return pytest.importorskip("sklearn.metrics")


def draw(seed: int, num_classes: int = 4, size: int = 60, several: bool = False):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(size, num_classes))
    if several:
        return (rng.random((size, num_classes)) < 0.4).astype(np.uint8), metrics.sigmoid(logits)
    return rng.integers(0, num_classes, size), metrics.softmax(logits)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10**6))
def test_figures_of_one_label_equal_scikit_learn(sklearn, seed):
    actual, probabilities = draw(seed)
    predicted = probabilities.argmax(axis=1)
    found = metrics.f1_scores(actual, predicted, 4)
    for name in ("macro", "micro", "weighted"):
        assert found[f"{name}_f1"] == pytest.approx(sklearn.f1_score(actual, predicted, average=name))
    assert metrics.accuracy(actual, predicted) == pytest.approx(sklearn.accuracy_score(actual, predicted))
    assert np.array_equal(
        metrics.confusion_matrix(actual, predicted, 4), sklearn.confusion_matrix(actual, predicted, labels=range(4))
    )
    expected = sklearn.top_k_accuracy_score(actual, probabilities, k=2, labels=range(4))
    assert metrics.top_k(actual, probabilities, 2) == pytest.approx(expected)
    each = metrics.per_class(actual, predicted, probabilities)
    precision, recall, f1, support = sklearn.precision_recall_fscore_support(
        actual, predicted, labels=range(4), zero_division=np.nan
    )
    for mine, theirs in ((each.precision, precision), (each.recall, recall), (each.f1, f1), (each.support, support)):
        np.testing.assert_allclose(mine, theirs)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10**6))
def test_figures_of_several_labels_equal_scikit_learn(sklearn, seed):
    actual, probabilities = draw(seed, several=True)
    predicted = (probabilities >= 0.5).astype(np.uint8)
    found = metrics.f1_scores(actual, predicted, 4)
    for name in ("macro", "micro", "weighted"):
        assert found[f"{name}_f1"] == pytest.approx(sklearn.f1_score(actual, predicted, average=name, zero_division=0))
    expected = sklearn.f1_score(actual, predicted, average="samples", zero_division=0)
    assert found["samples_f1"] == pytest.approx(expected)
    assert metrics.accuracy(actual, predicted) == pytest.approx(sklearn.accuracy_score(actual, predicted))
    assert np.array_equal(
        metrics.multilabel_confusion(actual, predicted), sklearn.multilabel_confusion_matrix(actual, predicted)
    )
    assert metrics.summary(actual, predicted, probabilities)["map"] == pytest.approx(
        sklearn.average_precision_score(actual, probabilities, average="macro")
    )


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=1, max_size=40))
def test_average_precision_with_equal_scores_equals_scikit_learn(sklearn, pairs):
    actual, score = np.array([one for one, _ in pairs]), np.array([value for _, value in pairs], float)
    found = metrics.average_precision(actual, score)
    if not actual.any():
        assert np.isnan(found)
    else:
        assert found == pytest.approx(sklearn.average_precision_score(actual, score))


def test_a_class_that_neither_occurs_nor_is_predicted_does_not_lower_macro_f1():
    assert metrics.f1_scores(np.array([0, 1]), np.array([0, 1]), 5)["macro_f1"] == 1.0


def test_balanced_weights_equal_scikit_learns():
    from sklearn.utils.class_weight import compute_class_weight

    codes = np.array([0, 0, 0, 1, 2, 2])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=codes)
    np.testing.assert_allclose(metrics.class_weights(metrics.one_hot(codes, 3)), expected)


def test_weights_are_one_on_average_over_the_samples():
    codes = np.array([0] * 9 + [2])
    weights = metrics.class_weights(metrics.one_hot(codes, 3))
    assert weights[codes].mean() == pytest.approx(1.0)
    assert weights[1] == 1.0


def test_the_bootstrap_interval_covers_the_spread_of_a_mean():
    values = np.random.default_rng(0).normal(size=400)
    found = metrics.bootstrap(lambda at: float(values[at].mean()), 400, repeats=2000)
    error = values.std() / 20
    assert found.low == pytest.approx(values.mean() - 1.96 * error, abs=0.25 * error)
    assert found.high == pytest.approx(values.mean() + 1.96 * error, abs=0.25 * error)


def test_alike_samples_of_a_recording_widen_the_interval():
    right = np.repeat(np.random.default_rng(0).random(20) < 0.7, 25).astype(float)
    groups = np.repeat(np.arange(20), 25)
    alone = metrics.bootstrap(lambda at: float(right[at].mean()), 500)
    grouped = metrics.bootstrap(lambda at: float(right[at].mean()), 500, groups=groups)
    assert grouped.high - grouped.low > 3 * (alone.high - alone.low)


def test_majority_ignores_missing_votes_and_takes_the_smaller_of_equal_ones():
    assert metrics.majority(np.array([2, 1, -1, 2, 1, -1, -1])) == 1
    assert metrics.majority(np.array([-1, -1])) == -1


@pytest.mark.parametrize("right", [0, 3, 8])
def test_wilson_bounds_are_where_the_score_test_of_a_share_turns(right):
    bounds = metrics.wilson(right / 8, 8)
    for bound in bounds:
        if 0 < bound < 1:
            assert abs(right / 8 - bound) / math.sqrt(bound * (1 - bound) / 8) == pytest.approx(1.959964, abs=1e-5)
    assert bounds[0] <= right / 8 <= bounds[1]


def test_an_interval_that_cannot_vary_is_replaced_or_left_out():
    one = metrics.Interval(1.0, 1.0, 1.0)
    assert metrics.where_it_varies(one, 8, is_share=True).low == pytest.approx(8 / (8 + 1.959964**2))
    assert math.isnan(metrics.where_it_varies(one, 8, is_share=False).low)
    other = metrics.Interval(0.5, 0.25, 0.75)
    assert metrics.where_it_varies(other, 8, is_share=True) is other


def test_figures_are_called_what_readers_call_them():
    assert [metrics.metric_name(name) for name in ("map", "top5", "macro_f1", "accuracy")] == [
        "mean average precision", "top 5", "macro F1", "accuracy",
    ]  # fmt: skip


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10**6), several=st.booleans())
def test_precision_under_weights_is_that_of_a_test_set_with_samples_so_many_times(sklearn, seed, several):
    rng = np.random.default_rng(seed)
    actual, probabilities = draw(seed, size=15, several=several)
    probabilities = probabilities.round(1)  # so that some are equal
    weight = rng.integers(0, 3, (4, 15))
    found = metrics.mean_average_precision(actual, probabilities, weight)
    for mine, times in zip(found, weight, strict=True):
        at = np.repeat(np.arange(15), times)
        is_one = actual[at].astype(bool) if several else actual[at][:, None] == np.arange(4)
        each = [
            sklearn.average_precision_score(is_one[:, code], probabilities[at, code])
            for code in range(4)
            if is_one[:, code].any()
        ]
        assert mine == pytest.approx(np.mean(each), nan_ok=True)


def test_precision_without_any_weight_or_any_label_is_no_number():
    actual, probabilities = draw(0, size=3)
    assert np.isnan(metrics.mean_average_precision(actual, probabilities, np.zeros((2, 3)))).all()
    assert np.isnan(metrics.mean_average_precision(np.zeros((3, 4)), probabilities, np.ones((1, 3)))).all()


@pytest.mark.parametrize("at_a_time", [3, 100])
def test_weights_are_those_of_the_test_sets_that_the_bootstrap_draws(at_a_time):
    groups = np.array([5, 5, 2, 7, 7, 7])
    seen: list[np.ndarray] = []

    def figure(at: np.ndarray) -> float:
        seen.append(np.bincount(at, minlength=6))
        return 0.0

    metrics.bootstrap(figure, 6, groups=groups, repeats=10, seed=3)
    weights = np.concatenate(list(metrics.bootstrap_weights(6, groups=groups, repeats=10, seed=3, at_a_time=at_a_time)))
    np.testing.assert_array_equal(weights, seen[1:])
