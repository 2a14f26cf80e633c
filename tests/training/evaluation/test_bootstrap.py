import numpy as np
import pytest

from actionprep.training.evaluation.bootstrap import SeedAnswers, intervals, wilson


def test_the_interval_of_one_seed_is_that_of_drawing_recordings_with_replacement():
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


def test_the_figure_over_splits_is_the_mean_of_those_of_each_whatever_their_sizes():
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


def test_splits_themselves_are_not_drawn_anew():
    actual = np.eye(2, dtype=np.int64)[np.zeros(200, int)]
    recording = np.array([f"r{one}" for one in range(200)])
    never, always = (
        SeedAnswers(actual, one, recording, one * 0.5, name) for one, name in ((1 - actual, "a"), (actual, "b"))
    )
    accuracy, *_ = intervals([never, always], repeats=200)
    # Every draw of recordings gives the same mean, so that the bound of so many trials stands in: not 0 to 1.
    assert accuracy.value == 0.5
    assert (accuracy.low, accuracy.high) == pytest.approx(wilson(0.5, 200))


def test_all_right_has_the_score_interval_and_no_interval_of_f1():
    one = SeedAnswers(
        np.eye(2, dtype=int)[[0, 1, 0]], np.eye(2, dtype=int)[[0, 1, 0]], np.arange(3), np.eye(2)[[0, 1, 0]]
    )
    accuracy, macro_f1, precision = intervals([one], repeats=50)
    assert (precision.value, np.isnan(precision.low)) == (1.0, True)
    # Wilson's lower bound of n out of n is n / (n + z^2).
    assert (accuracy.low, accuracy.high) == pytest.approx((3 / (3 + 1.959964**2), 1.0))
    assert np.isnan(macro_f1.low)
