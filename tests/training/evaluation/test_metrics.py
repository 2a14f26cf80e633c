import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actionprep.training.evaluation import metrics


@pytest.fixture(scope="module")
def sklearn():
    """Import the metrics of scikit-learn when a test needs them."""
    return pytest.importorskip("sklearn.metrics")


def draw(seed: int, num_classes: int = 4, size: int = 60, multi_label: bool = False):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(size, num_classes))
    if multi_label:
        return (rng.random((size, num_classes)) < 0.4).astype(np.uint8), metrics.sigmoid(logits)
    return rng.integers(0, num_classes, size), metrics.softmax(logits)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10**6))
def test_metrics_of_one_label_equal_scikit_learn(sklearn, seed):
    actual, probabilities = draw(seed)
    predicted = probabilities.argmax(axis=1)
    result = metrics.f1_scores(actual, predicted, 4)
    for name in ("macro", "micro", "weighted"):
        assert result[f"{name}_f1"] == pytest.approx(sklearn.f1_score(actual, predicted, average=name))
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
def test_metrics_of_several_labels_equal_scikit_learn(sklearn, seed):
    actual, probabilities = draw(seed, multi_label=True)
    predicted = (probabilities >= 0.5).astype(np.uint8)
    result = metrics.f1_scores(actual, predicted, 4)
    for name in ("macro", "micro", "weighted"):
        assert result[f"{name}_f1"] == pytest.approx(sklearn.f1_score(actual, predicted, average=name, zero_division=0))
    expected = sklearn.f1_score(actual, predicted, average="samples", zero_division=0)
    assert result["samples_f1"] == pytest.approx(expected)
    assert metrics.accuracy(actual, predicted) == pytest.approx(sklearn.accuracy_score(actual, predicted))
    assert np.array_equal(
        metrics.multilabel_confusion(actual, predicted), sklearn.multilabel_confusion_matrix(actual, predicted)
    )
    assert metrics.summary(actual, predicted, probabilities)["map"] == pytest.approx(
        sklearn.average_precision_score(actual, probabilities, average="macro")
    )


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=1, max_size=40))
def test_average_precision_with_equal_scores_equals_scikit_learn(sklearn, pairs):
    actual, score = np.array([entry for entry, _ in pairs]), np.array([value for _, value in pairs], float)
    result = metrics.average_precision(actual, score)
    if not actual.any():
        assert np.isnan(result)
    else:
        assert result == pytest.approx(sklearn.average_precision_score(actual, score))


def test_macro_f1_ignores_absent_classes():
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


def test_metric_name_is_the_display_name():
    assert [metrics.metric_name(name) for name in ("map", "top5", "macro_f1", "accuracy")] == [
        "mean average precision", "top 5", "macro F1", "accuracy",
    ]  # fmt: skip


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10**6), multi_label=st.booleans())
def test_mean_average_precision_under_weights_repeats_samples(sklearn, seed, multi_label):
    rng = np.random.default_rng(seed)
    actual, probabilities = draw(seed, size=15, multi_label=multi_label)
    probabilities = probabilities.round(1)  # so that some are equal
    weight = rng.integers(0, 3, (4, 15))
    result = metrics.mean_average_precision(actual, probabilities, weight)
    for mine, times in zip(result, weight, strict=True):
        at = np.repeat(np.arange(15), times)
        is_one = actual[at].astype(bool) if multi_label else actual[at][:, None] == np.arange(4)
        each = [
            sklearn.average_precision_score(is_one[:, code], probabilities[at, code])
            for code in range(4)
            if is_one[:, code].any()
        ]
        assert mine == pytest.approx(np.mean(each), nan_ok=True)


def test_mean_average_precision_without_weight_or_label_is_nan():
    actual, probabilities = draw(0, size=3)
    assert np.isnan(metrics.mean_average_precision(actual, probabilities, np.zeros((2, 3)))).all()
    assert np.isnan(metrics.mean_average_precision(np.zeros((3, 4)), probabilities, np.ones((1, 3)))).all()


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10**6), multi_label=st.booleans())
def test_weighted_summary_repeats_samples_by_their_weight(seed, multi_label):
    rng = np.random.default_rng(seed)
    actual, probabilities = draw(seed, num_classes=7, size=15, multi_label=multi_label)
    predicted = (probabilities >= 0.5).astype(np.uint8) if multi_label else probabilities.argmax(axis=1)
    weights = rng.integers(0, 3, (4, 15))
    weights[:, 0] = 1
    under_weights = metrics.weighted_summary(actual, predicted, probabilities, weights)
    for row, times in enumerate(weights):
        samples = np.repeat(np.arange(15), times)
        repeated = metrics.summary(actual[samples], predicted[samples], probabilities[samples])
        assert set(under_weights) == set(repeated) - {"balanced_accuracy"}
        for name, values in under_weights.items():
            assert values[row] == pytest.approx(repeated[name], nan_ok=True)
