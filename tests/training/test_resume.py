"""Resumed trainings equal uninterrupted ones, for any kind and point of interruption."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from training_fakes import InterruptedRunError, make_store, tiny_recipe

from actionprep.datasets.split_choice import SplitChoice
from actionprep.errors import UserError
from actionprep.training.checkpoints import read_safely
from actionprep.training.fit import fit
from actionprep.training.run import Run

SPLIT = SplitChoice(train=("1", "2", "3"), test=("4",))
QUIET = {"tensorboard": False}
ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import sys
import torch
torch.set_num_threads(1)
from actionprep.training.fit import fit
from actionprep.datasets.split_choice import SplitChoice

split = SplitChoice(train=("1", "2", "3"), test=("4",))
fit(sys.argv[1], sys.argv[2], sys.argv[3], split=split, device="cpu", tensorboard=False, resume=True)
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("resume") / "store", subjects=4, repeats=2)


@pytest.fixture(scope="module")
def finished(store, tmp_path_factory):
    return fit(store, tiny_recipe(epochs=1), tmp_path_factory.mktemp("resume") / "run", split=SPLIT, **QUIET)


def same_weights(one: Run, other: Run, name: str = "last") -> bool:
    states = [read_safely(getattr(run, name))["state_dict"] for run in (one, other)]
    return states[0].keys() == states[1].keys() and all(
        torch.equal(states[0][key], states[1][key]) for key in states[0]
    )


@pytest.mark.slow
def test_run_killed_at_random_steps_equals_an_uninterrupted_one(store, tmp_path):
    # 12 snippets in batches of 2 are 6 steps per epoch; a checkpoint after every few steps.
    recipe = tiny_recipe(epochs=34, ema=0.9, batch=2, checkpoint_minutes=5e-4, mixup=0.4, sizes__dropout=0.3)
    (tmp_path / "recipe.toml").write_text(recipe.to_toml(), encoding="utf-8")
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    uninterrupted = fit(store, recipe, tmp_path / "whole", split=SPLIT, device="cpu", **QUIET)
    assert read_safely(uninterrupted.last)["global_step"] >= 200

    cut = Run(tmp_path / "cut")
    command = [sys.executable, str(tmp_path / "script.py"), str(store.path), str(tmp_path / "recipe.toml")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def start() -> subprocess.Popen:
        return subprocess.Popen([*command, str(cut.folder)], env=environment, stderr=subprocess.PIPE, text=True)

    process = start()
    until = time.monotonic() + 600
    while time.monotonic() < until and process.poll() is None and len(cut.metrics) < 12:
        time.sleep(0.005)
    time.sleep(random.uniform(0, 0.2))  # at any step in or between epochs, the result is the same
    process.send_signal(signal.SIGKILL)
    _, errors = process.communicate()
    assert process.returncode == -signal.SIGKILL, errors
    assert 12 <= len(cut.metrics) < 34
    assert not cut.is_complete
    process = start()
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    assert cut.is_complete
    assert same_weights(uninterrupted, cut)
    assert same_weights(uninterrupted, cut, "best")
    without_time = [[{**row, "seconds": 0} for row in run.metrics] for run in (uninterrupted, cut)]
    assert without_time[0] == without_time[1]


@pytest.mark.parametrize("where", ["keep_file", "change", "unlink"])
def test_a_kill_at_any_point_between_the_phases_changes_nothing(store, tmp_path, monkeypatch, where):
    recipe = tiny_recipe(epochs=2, refit=True)
    uninterrupted = fit(store, recipe, tmp_path / "whole", split=SPLIT, **QUIET)

    from actionprep.training import fit as module

    def killed(*_, **__):
        raise InterruptedRunError

    with monkeypatch.context() as patch:
        if where == "keep_file":
            patch.setattr(module, "keep_file", killed)
        elif where == "change":
            change = Run.change
            to_refit = {"phase": "refit", "complete": False}
            patch.setattr(
                Run, "change", lambda run, **facts: killed() if facts["state"] == to_refit else change(run, **facts)
            )
        else:
            unlink = Path.unlink
            patch.setattr(
                Path,
                "unlink",
                lambda path, missing_ok=False: killed() if path.name == "last.ckpt" else unlink(path, missing_ok),
            )
        with pytest.raises(InterruptedRunError):
            fit(store, recipe, tmp_path / "cut", split=SPLIT, **QUIET)
    resumed = fit(store, recipe, tmp_path / "cut", split=SPLIT, resume=True, **QUIET)
    assert resumed.is_complete
    assert same_weights(uninterrupted, resumed, "best")
    assert (
        read_safely(tmp_path / "cut/validated.ckpt")["epoch"] == read_safely(tmp_path / "whole/validated.ckpt")["epoch"]
    )
    assert [row["phase"] for row in resumed.metrics] == [row["phase"] for row in uninterrupted.metrics]


def test_a_run_that_patience_ended_is_not_trained_on(store, tmp_path, monkeypatch):
    recipe = tiny_recipe(epochs=30, patience=2, optimizer__learning_rate=1e-9, refit=True, min_steps=0)

    from actionprep.training import fit as module

    def killed(*_):
        raise InterruptedRunError

    with monkeypatch.context() as patch:
        patch.setattr(module, "keep_file", killed)
        with pytest.raises(InterruptedRunError):
            fit(store, recipe, tmp_path / "run", split=SPLIT, **QUIET)
    before = len(Run(tmp_path / "run").metrics)
    assert before < 30
    run = fit(store, recipe, tmp_path / "run", split=SPLIT, resume=True, **QUIET)
    assert len([row for row in run.metrics if row["phase"] == "validate"]) == before


def test_phases_and_resumed_runs_start_from_published_weights(store, tmp_path, monkeypatch):
    recipe = tiny_recipe(epochs=1, refit=True)
    asked = []

    def weights(model):
        asked.append(model)
        with torch.no_grad():
            for values in model.parameters():
                values.fill_(0.01)

    uninterrupted = fit(store, recipe, tmp_path / "whole", split=SPLIT, weights=weights, **QUIET)
    assert len(asked) == 1
    assert not (uninterrupted.folder / "start.ckpt").exists()

    from actionprep.training import fit as module

    phase = module.train_phase

    def killed(*arguments, **options):
        if arguments[3] == kill_in:
            raise InterruptedRunError
        return phase(*arguments, **options)

    for kill_in in ("validate", "refit"):
        folder = tmp_path / kill_in
        with monkeypatch.context() as patch:
            patch.setattr(module, "train_phase", killed)
            with pytest.raises(InterruptedRunError):
                fit(store, recipe, folder, split=SPLIT, weights=weights, **QUIET)
        with pytest.raises(UserError, match="it started from other weights"):
            fit(store, recipe, folder, resume=True, weights=lambda model: None, **QUIET)
        resumed = fit(store, recipe, folder, resume=True, weights=weights, **QUIET)
        assert same_weights(uninterrupted, resumed, "best")


def test_kill_before_the_first_step_leaves_a_resumable_folder(store, tmp_path, monkeypatch):
    def killed(*_, **__):
        raise InterruptedRunError

    with monkeypatch.context() as patch:
        patch.setattr(Run, "change", killed)
        with pytest.raises(InterruptedRunError):
            fit(store, tiny_recipe(epochs=1), tmp_path / "run", split=SPLIT, **QUIET)
    assert fit(store, tiny_recipe(epochs=1), tmp_path / "run", split=SPLIT, resume=True, **QUIET).is_complete


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"recipe": tiny_recipe(epochs=1, batch=8)}, "batch is 4, not 8"),
        ({"recipe": tiny_recipe(epochs=1, input__rotation=0.5)}, r"input\.rotation is 0\.15, not 0\.5"),
        ({"recipe": tiny_recipe(epochs=1, ema=0.5)}, r"ema is not set, not 0\.5"),
        ({"snippets": "other"}, "snippets are 'default', not 'other'"),
        (
            {"split": SplitChoice(train=("1", "2"), test=("3",))},
            "the split differs: train, .*test contain other snippets",
        ),
        ({"weights": lambda model: None}, "it did not start from published weights"),
    ],
)
def test_resuming_with_other_options_is_refused_naming_them(store, finished, asked, message):
    with pytest.raises(UserError, match=f"can only be resumed with the options.*{message}") as caught:
        fit(store, asked.pop("recipe", "auto"), finished.folder, resume=True, **asked, **QUIET)
    assert "Remove these options, or start another run (--run NAME)." in str(caught.value)


def test_resuming_with_other_views_is_refused(tmp_path):
    store = make_store(tmp_path / "store", subjects=4, views=("0", "1"))
    run = fit(store, tiny_recipe(epochs=1), tmp_path / "run", split=SPLIT, **QUIET)
    with pytest.raises(UserError, match="views are 0 1, not 1"):
        fit(store, "auto", run.folder, resume=True, views=["1"], **QUIET)
    assert fit(store, "auto", run.folder, resume=True, views=["0", "1"], **QUIET).is_complete


def test_resuming_with_the_same_options_is_accepted(store, finished):
    again = fit(
        store,
        tiny_recipe(epochs=1),
        finished.folder,
        split=SPLIT,
        snippets="default",
        views=["0"],
        resume=True,
        **QUIET,
    )
    assert again.is_complete
