import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from actionprep.training.inputs.rng import Draws, epoch_order, step_seed


@given(seed=st.integers(0, 2**32 - 1), epoch=st.integers(0, 1000), row=st.integers(0, 10**6))
def test_a_sample_draws_the_same_in_any_batch(seed, epoch, row):
    alone = Draws(seed, epoch, [row])
    among = Draws(seed, epoch, [row + 1, row, row + 7])
    assert torch.equal(alone.uniform(-1, 2, shape=(3, 2))[0], among.uniform(-1, 2, shape=(3, 2))[1])
    assert torch.equal(alone.order(9)[0], among.order(9)[1])


def test_other_epochs_seeds_and_samples_draw_other_numbers():
    drawn = {float(Draws(*given).uniform()[0]) for given in ((0, 0, [0]), (1, 0, [0]), (0, 1, [0]), (0, 0, [1]))} | {
        float(Draws(0, 0, [0], variant=1).uniform()[0])
    }
    assert len(drawn) == 5


def test_numbers_stay_within_their_range_and_fill_it():
    drawn = Draws(3, 0, range(200)).uniform(2.0, 5.0, shape=(50,))
    assert 2.0 <= float(drawn.min()) < 2.05
    assert 4.95 < float(drawn.max()) <= 5.0
    assert abs(float(drawn.mean()) - 3.5) < 0.05


def test_epoch_order_has_every_sample_once_and_varies_by_epoch():
    first, second = epoch_order(0, 0, 50), epoch_order(0, 1, 50)
    assert sorted(first.tolist()) == list(range(50))
    assert not np.array_equal(first, second)
    assert np.array_equal(first, epoch_order(0, 0, 50))


def test_steps_have_different_seeds():
    assert len({step_seed(0, step) for step in range(1000)} | {step_seed(1, 0)}) == 1001
