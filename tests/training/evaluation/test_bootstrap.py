import math

import numpy as np
import pytest

from actionprep.training.evaluation.bootstrap import (
    Interval,
    SeedAnswers,
    bootstrap,
    bootstrap_weights,
    interval_of,
    intervals,
    wilson,
)


def test_intervals_of_one_seed_resample_recordings():
    rng = np.random.default_rng(3)
    right = rng.random(40) < 0.7
    actual = np.eye(2, dtype=np.int64)[rng.integers(0, 2, 40)]
    predicted = np.where(right[:, None], actual, 1 - actual)
    recording = np.repeat(np.array([f"r{one}" for one in range(10)]), 4)
    accuracy, *_ = intervals([SeedAnswers(actual, predicted, recording, actual * 0.5)], repeats=4000)
    means = [
        np.concatenate([right[recording == name] for name in rng.choice(np.unique(recording), 10)]).mean()
        for _ in range(4000)
    ]
    assert accuracy.value == pytest.approx(right.mean())
    assert accuracy.low == pytest.approx(np.quantile(means, 0.025), abs=0.03)
    assert accuracy.high == pytest.approx(np.quantile(means, 0.975), abs=0.03)


def test_seeds_that_differ_widen_the_interval():
    actual = np.eye(2, dtype=np.int64)[np.zeros(50, int)]
    recording = np.array([f"r{one}" for one in range(50)])
    right = [np.arange(50) < 25, np.arange(50) < 45]
    tested = [SeedAnswers(actual, np.where(one[:, None], actual, 1 - actual), recording, actual * 0.5) for one in right]
    both, *_ = intervals(tested, repeats=2000)
    alone, *_ = intervals(tested[1:], repeats=2000)
    assert both.value == pytest.approx(0.7)
    assert both.high - both.low > alone.high - alone.low


def test_intervals_over_splits_are_of_the_mean_over_splits():
    def one(right, total, split, of):
        actual = np.eye(2, dtype=np.int64)[np.zeros(total, int)]
        recording = np.array([f"{of}{number}" for number in range(total)])
        return SeedAnswers(
            actual, np.where((np.arange(total) < right)[:, None], actual, 1 - actual), recording, actual * 0.5, split
        )

    tested = [one(5, 10, "a", "x"), one(7, 10, "a", "x"), one(36, 40, "b", "y")]
    accuracy, *_ = intervals(tested, repeats=500)
    assert accuracy.value == pytest.approx(((0.5 + 0.7) / 2 + 0.9) / 2)
    assert accuracy.low < accuracy.value < accuracy.high


def test_intervals_do_not_resample_splits():
    actual = np.eye(2, dtype=np.int64)[np.zeros(200, int)]
    recording = np.array([f"r{one}" for one in range(200)])
    never, always = (
        SeedAnswers(actual, one, recording, one * 0.5, name) for one, name in ((1 - actual, "a"), (actual, "b"))
    )
    accuracy, *_ = intervals([never, always], repeats=200)
    # Every draw of recordings has the same mean, so the binomial bound is used instead.
    assert accuracy.value == 0.5
    assert (accuracy.low, accuracy.high) == pytest.approx(wilson(0.5, 200))


def test_all_right_has_the_score_interval_and_no_interval_of_f1():
    entry = SeedAnswers(
        np.eye(2, dtype=int)[[0, 1, 0]], np.eye(2, dtype=int)[[0, 1, 0]], np.arange(3), np.eye(2)[[0, 1, 0]]
    )
    accuracy, macro_f1, precision = intervals([entry], repeats=50)
    assert (precision.value, np.isnan(precision.low)) == (1.0, True)
    # Wilson's lower bound of n out of n is n / (n + z^2).
    assert (accuracy.low, accuracy.high) == pytest.approx((3 / (3 + 1.959964**2), 1.0))
    assert np.isnan(macro_f1.low)


def mean_interval(values: np.ndarray, groups: np.ndarray, repeats: int = 1000) -> Interval:
    [interval] = bootstrap(
        {"mean": values.mean()},
        lambda weights: {"mean": weights @ values / weights.sum(axis=1)},
        groups,
        repeats=repeats,
    ).values()
    return interval


def test_bootstrap_interval_covers_the_spread_of_a_mean():
    values = np.random.default_rng(0).normal(size=400)
    interval = mean_interval(values, np.arange(400), repeats=2000)
    error = values.std() / 20
    assert interval.low == pytest.approx(values.mean() - 1.96 * error, abs=0.25 * error)
    assert interval.high == pytest.approx(values.mean() + 1.96 * error, abs=0.25 * error)


def test_bootstrap_interval_is_wider_for_similar_samples_of_a_recording():
    correct = np.repeat(np.random.default_rng(0).random(20) < 0.7, 25).astype(float)
    single = mean_interval(correct, np.arange(500))
    grouped = mean_interval(correct, np.repeat(np.arange(20), 25))
    assert grouped.high - grouped.low > 3 * (single.high - single.low)


@pytest.mark.parametrize("right", [0, 3, 8])
def test_wilson_bounds_are_where_the_score_test_of_a_share_turns(right):
    bounds = wilson(right / 8, 8)
    for bound in bounds:
        if 0 < bound < 1:
            assert abs(right / 8 - bound) / math.sqrt(bound * (1 - bound) / 8) == pytest.approx(1.959964, abs=1e-5)
    assert bounds[0] <= right / 8 <= bounds[1]


def test_interval_of_equal_values_is_replaced_or_unknown():
    equal = np.ones(20)
    assert interval_of(1.0, equal, num_groups=8, is_share=True).low == pytest.approx(8 / (8 + 1.959964**2))
    assert math.isnan(interval_of(1.0, equal, num_groups=8, is_share=False).low)
    varied = interval_of(0.5, np.linspace(0, 1, 41), num_groups=8, is_share=True)
    assert (varied.low, varied.high) == pytest.approx((0.025, 0.975))
    assert math.isnan(interval_of(0.5, np.full(3, np.nan), num_groups=8, is_share=True).low)


@pytest.mark.parametrize("batch", [3, 100])
def test_bootstrap_weights_draw_whole_groups_with_replacement(batch):
    groups = np.array([5, 5, 2, 7, 7, 7])
    weights = np.concatenate(list(bootstrap_weights(groups, repeats=300, seed=3, batch=batch)))
    assert weights.shape == (300, 6)
    np.testing.assert_array_equal(weights, np.concatenate(list(bootstrap_weights(groups, repeats=300, seed=3))))
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 3:] == weights[:, 3:4]).all()
    # As many draws as groups, with equal probabilities.
    by_group = weights[:, [2, 0, 3]]
    assert (by_group.sum(axis=1) == 3).all()
    assert by_group.mean(axis=0) == pytest.approx([1, 1, 1], abs=0.15)


def test_bootstrap_weights_without_samples_are_empty():
    [weights] = bootstrap_weights(np.zeros(0, np.int64), repeats=4)
    assert weights.shape == (4, 0)


def test_interval_of_a_single_group_is_unknown():
    for is_share in (True, False):
        interval = interval_of(0.211, np.full(100, 0.211), num_groups=1, is_share=is_share)
        assert interval.value == 0.211
        assert np.isnan([interval.low, interval.high]).all()
