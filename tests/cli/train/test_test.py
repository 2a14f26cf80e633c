"""`actiontrain test` with a run that predicts frame labels."""

import json

import pytest
from frame_fakes import frame_recipe, make_changing_store
from pose_fakes import make_pose_store
from typer.testing import CliRunner

from actionprep.cli.train import app
from actionprep.training.fit import fit
from actionprep.training.recipes import find_recipe
from actionprep.training.split_choice import SplitChoice

runner = CliRunner()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("frames")
    split = SplitChoice(train=("0", "1", "2", "3"), val=("4",), test=("5",))
    store = make_changing_store(folder / "store")
    return fit(store, frame_recipe(epochs=1), folder / "run", split=split, tensorboard=False, device="cpu")


def test_test_command_prints_frame_metrics_below_snippet_metrics(run):
    done = runner.invoke(app, ["test", str(run.folder)])
    assert done.exit_code == 0, done.output
    assert "And on their 60 frames" in done.output
    assert "segment f1 25" in done.output
    assert (run.folder / "frames.csv").read_text().startswith("recording,time,actual,predicted,probability\n")


@pytest.mark.parametrize("carry", [True, False])
def test_state_is_carried_when_it_is_asked_for(run, carry):
    done = runner.invoke(app, ["test", str(run.folder), "--carry" if carry else "--no-carry", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["frames"]["carry"] is carry


def test_test_command_rewrites_a_damaged_test(run):
    (run.folder / "test.json").write_text("{", encoding="utf-8")
    done = runner.invoke(app, ["test", str(run.folder)])
    assert done.exit_code == 0, done.output
    assert run.tested["num_samples"] > 0


def test_a_run_that_takes_videos_names_predict_next(run):
    assert "next  actiontrain predict VIDEO …" in runner.invoke(app, ["test", str(run.folder)]).stdout


def test_a_run_on_imported_poses_names_no_command_that_it_refuses(tmp_path):
    store = make_pose_store(tmp_path / "store", subjects=3, made={"backend": "import"})
    recipe = find_recipe("skeleton-tcn").changed({"epochs": 1, "min_steps": 0, "refit": False, "sizes.width": 48})
    split = SplitChoice(by="subject", train=("1",), val=("2",), test=("3",))
    run = fit(store, recipe, tmp_path / "run", split=split, device="cpu", tensorboard=False)
    done = runner.invoke(app, ["test", str(run.folder)])
    assert done.exit_code == 0, done.output
    assert "next" not in done.stdout
