"""Checks before a training: learning rate range test and overfitting of one batch."""

import numpy as np
import pytest
import torch
from frame_store_fakes import make_frame_store, motion_recipe
from pose_fakes import make_pose_store
from training_fakes import make_store, tiny_recipe
from typer.testing import CliRunner

from actionprep.cli.train import app
from actionprep.datasets.split_choice import SplitChoice
from actionprep.errors import UserError
from actionprep.training.recipes import find_recipe
from actionprep.training.sanity_checks import OneBatch, _repeats, _search, find_learning_rate, overfit_one_batch

SPLIT = SplitChoice(train=("1", "2", "3"), test=("4",))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("checks") / "store", subjects=4, repeats=2)


def test_find_learning_rate_suggests_a_tenth_of_the_turn():
    rates = np.geomspace(1e-6, 1, 61)
    # Constant slope from 1e-4 to 1e-1, then up again.
    losses = 1.7 - 0.2 * np.clip(np.log10(rates) + 4, 0, 3) + np.where(rates > 0.1, 5 * rates, 0)
    result = _search(rates, losses)
    assert result.highest == pytest.approx(0.1, rel=0.5)
    assert result.suggestion == pytest.approx(result.highest / 10)


@pytest.mark.parametrize("seed", range(20))
def test_noise_before_the_fall_does_not_choose_the_rate(seed):
    rates = np.geomspace(1e-6, 1, 100)
    noise = np.random.default_rng(seed).normal(0, 0.02, 100)
    # A sharp random dip at rates that are too low to matter; the fall itself is slow.
    noise[12:] -= 0.08
    noise[20:] += 0.08
    result = _search(rates, 2 - 1 / (1 + 1e-3 / rates) + noise + np.where(rates > 0.1, 5 * rates, 0))
    assert 1e-4 <= result.suggestion <= 0.1


@pytest.mark.parametrize("seed", range(10))
def test_find_learning_rate_ignores_the_minimum_of_a_flat_curve(seed):
    rates = np.geomspace(1e-6, 1, 100)
    noise = np.random.default_rng(seed).normal(0, 0.01, 100)
    # A small fall, flat over two decades, then up, as with a few augmented snippets.
    losses = 2.2 - 0.05 * np.clip(np.log10(rates) + 5, 0, 1.5) + np.where(rates > 0.02, 2 * rates, 0) + noise
    assert 0.01 <= _search(rates, losses).highest <= 0.06


def test_learning_rate_test_ignores_a_single_low_loss():
    rates = np.geomspace(1e-6, 1, 100)
    losses = 1.7 - 0.2 * np.clip(np.log10(rates) + 4, 0, 3) + np.where(rates > 0.1, 5 * rates, 0)
    dipped = losses.copy()
    dipped[60] = 1.0  # at 4e-3, below all others
    assert _search(rates, dipped).highest == pytest.approx(_search(rates, losses).highest, rel=0.3)


@pytest.mark.parametrize(("num_snippets", "batch", "repeats"), [(8, 16, 4), (12, 16, 3), (200, 16, 2), (200, 32, 1)])
def test_find_learning_rate_averages_searches_of_few_snippets(num_snippets, batch, repeats):
    assert _repeats(num_snippets, batch) == repeats


def test_a_rate_that_is_found_is_between_those_tried_and_trains(store, tmp_path):
    result = find_learning_rate(store, tiny_recipe(batch=6), split=SPLIT, lowest=1e-5, steps=60)
    assert 1e-5 <= result.suggestion <= result.highest <= 1
    assert len(result.rates) == len(result.losses) <= 60
    np.testing.assert_allclose(np.diff(np.log(result.rates)), np.log(1e5) / 59)
    paths = result.write(tmp_path)
    assert paths[0].read_text().startswith("learning_rate,loss\n1e-05,")
    assert paths[1].read_bytes().startswith(b"\x89PNG")


def test_learning_rate_test_of_a_falling_loss_reports_no_rise():
    rates = np.geomspace(1e-6, 1e-2, 60)
    falling = 2 - 1 / (1 + 1e-3 / rates)
    result = _search(rates, falling)
    assert (result.turned, result.highest) == (False, pytest.approx(1e-2))
    assert _search(rates, falling, broke_off=True).turned
    assert _search(rates, falling + np.where(rates > 4e-3, 1.0, 0.0)).turned


def test_a_small_fall_ends_too():
    rates = np.geomspace(1e-6, 1, 100)
    losses = 2 - 0.04 / (1 + 1e-3 / rates) + np.where(rates > 0.05, 0.05, 0)
    result = _search(rates, losses)
    assert result.turned
    assert result.highest == pytest.approx(0.05, rel=0.8)


@pytest.mark.parametrize("check", [find_learning_rate, overfit_one_batch])
def test_a_check_refuses_what_a_fit_refuses(check, tmp_path):
    store = make_pose_store(tmp_path / "store")
    recipe = find_recipe("skeleton-tcn").changed({"sizes.dims": 3})
    with pytest.raises(UserError, match=r"Leave sizes\.dims out"):
        check(store, recipe, split=SplitChoice(train=("1", "2"), test=("3",)))


def test_a_search_gives_the_same_curve_again(store):
    curves = [find_learning_rate(store, tiny_recipe(), split=SPLIT, steps=20, lowest=1e-3).losses for _ in range(2)]
    assert np.array_equal(*curves)


def test_a_loss_that_never_falls_points_to_the_other_check():
    with pytest.raises(UserError, match=r"falls at no learning rate from 1e-06 to 1: it stays at 2.*fit --overfit"):
        _search(np.geomspace(1e-6, 1, 30), np.full(30, 2.0))
    with pytest.raises(UserError, match=r"after 3 steps up to a rate of 1\. The cause is the input or the loss"):
        _search(np.geomspace(1e-6, 1, 3), np.ones(3))


def test_rates_in_the_wrong_order_are_refused(store):
    with pytest.raises(UserError, match="from a lower to a higher one"):
        find_learning_rate(store, tiny_recipe(), lowest=1.0, highest=0.1)


def test_overfit_check_passes_for_a_suitable_model(store):
    recipe = tiny_recipe(
        batch=6, mixup=0.5, sizes__dropout=0.4, loss__label_smoothing=0.2, optimizer__learning_rate=0.01
    )
    result = overfit_one_batch(store, recipe, split=SPLIT)
    assert result.learnt
    assert result.accuracy == 1.0
    assert result.samples == 6


def test_overfit_check_uses_one_fixed_batch_of_frames_or_volumes(tmp_path):
    result = overfit_one_batch(make_frame_store(tmp_path / "frames"), motion_recipe(cutmix=1.0), split=SPLIT, steps=10)
    # The loss falls to a tenth, and with volumes to two fifths.
    assert result.losses[-1] < 0.7 * result.losses[0]
    sizes = {"sizes.widths": [4, 4, 8, 8], "sizes.dropout": 0.0, "input.frames": 8, "input.size": [16, 16], "batch": 3}
    volumes = find_recipe("poseconv3d-small").changed({**sizes, "optimizer.learning_rate": 0.01})
    split = SplitChoice(train=("1", "2"), test=("3",))
    result = overfit_one_batch(make_pose_store(tmp_path / "poses"), volumes, split=split, steps=10)
    assert result.losses[-1] < 0.7 * result.losses[0]


def test_the_batch_holds_every_class(store, monkeypatch):
    from actionprep.training import sanity_checks

    seen = []
    rows = sanity_checks._mixed_rows

    def noted(dataset, size):
        result = rows(dataset, size)
        seen.append([dataset.table.labels[dataset.table.label[row]] for row in result])
        return result

    monkeypatch.setattr(sanity_checks, "_mixed_rows", noted)
    overfit_one_batch(store, tiny_recipe(batch=3), split=SPLIT, steps=1)
    assert [sorted(labels) for labels in seen] == [["left", "right", "up"]]


def test_overfit_check_reports_a_model_that_cannot_learn(store):
    result = overfit_one_batch(store, tiny_recipe(optimizer__learning_rate=1e-9), split=SPLIT, steps=20)
    assert not result.learnt
    assert len(result.losses) == 20


def test_a_loss_that_is_no_number_is_not_learnt():
    assert not OneBatch(np.array([1.0, np.nan]), 1.0, 4).learnt


def test_check_commands_print_results_and_leave_no_run(store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.toml").write_text(tiny_recipe(batch=6, optimizer__learning_rate=0.01).to_toml(), encoding="utf-8")
    words = ["fit", str(store.path), "--recipe", "tiny.toml", "--threads", "1"]
    done = CliRunner().invoke(app, [*words, "--overfit"])
    assert done.exit_code == 0, done.output
    assert "The model overfits this batch" in done.output
    assert not (tmp_path / "runs").exists()
    done = CliRunner().invoke(app, [*words, "--overfit", "--set", "optimizer.learning_rate=1e-9"])
    assert done.exit_code == 1
    assert "cannot overfit one batch" in done.output
    done = CliRunner().invoke(app, [*words, "--find-lr"])
    assert done.exit_code == 0, done.output
    assert f"fit {store.path} --recipe tiny.toml --threads 1 --set optimizer.learning_rate=" in done.output
    assert sorted(path.name for path in (tmp_path / "runs").rglob("*.*")) == ["learning_rate.csv", "learning_rate.png"]


def test_out_of_memory_error_names_the_batch_and_a_remedy(store, tmp_path, monkeypatch):
    from actionprep.training.fit import fit
    from actionprep.training.loop.task import ClassifierTask

    def full(self, batch, batch_idx):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")

    monkeypatch.setattr(ClassifierTask, "training_step", full)
    with pytest.raises(UserError) as caught:
        fit(store, tiny_recipe(batch=6), tmp_path / "run", split=SPLIT, device="cpu", tensorboard=False)
    assert str(caught.value) == (
        "Out of memory on cpu with batch 6, 8 frames per snippet, precision 32-true (CUDA out of memory. Tried to allocate "
        "2.00 GiB.).\nTry one of: --set batch=3 accumulate=2, which gives the same steps; --set precision=bf16-mixed; "
        "--set input.frames=4."
    )
