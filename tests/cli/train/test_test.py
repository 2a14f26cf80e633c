"""`actiontrain test` with a run that predicts frame labels."""

import json

import numpy as np
import pytest
import torch
from frame_fakes import frame_recipe, make_changing_store
from pose_fakes import make_pose_store
from training_fakes import MOTIONS, make_store, table_of, tiny_recipe, write_snippets, write_tracks
from typer.testing import CliRunner

from actionprep.cli.train import app
from actionprep.datasets.split_choice import SplitChoice
from actionprep.datasets.store.zarr_store import Store
from actionprep.training.checkpoints import load_checkpoint
from actionprep.training.fit import fit
from actionprep.training.recipes import find_recipe

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
    assert "Per frame, on 60 frames" in done.output
    assert "segment F1 25" in done.output
    assert (run.folder / "frames.csv").read_text().startswith("recording,time,actual,predicted,probability\n")


@pytest.mark.parametrize("carry", [True, False])
def test_state_is_carried_when_it_is_asked_for(run, carry):
    done = runner.invoke(app, ["test", str(run.folder), "--carry" if carry else "--no-carry", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["frames"]["carry"] is carry


def test_test_epochs_prints_one_row_per_kept_epoch(tmp_path):
    store = make_store(tmp_path / "store", subjects=4)
    split = SplitChoice(train=("1", "2"), val=("3",), test=("4",))
    kept = fit(store, tiny_recipe(epochs=3, keep_epochs=True), tmp_path / "run", split=split, tensorboard=False)
    words = ["test", str(kept.folder), "--epochs", "1-3:2"]
    done = runner.invoke(app, [*words, "--part", "val", "--json"])
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)["epochs"]
    assert [row["epoch"] for row in rows] == [1, 3]
    assert (kept.folder / "epochs/val.csv").read_text().splitlines()[0].startswith("epoch,accuracy,")
    shown = runner.invoke(app, words, env={"COLUMNS": "200"})
    assert shown.exit_code == 0, shown.output
    assert "Epochs on test" in shown.output
    assert "Do not choose an epoch by these metrics" in shown.output
    refused = runner.invoke(app, ["test", str(kept.folder), "--epochs", "4"])
    assert refused.exit_code == 2
    assert "has no checkpoint of epoch 4. Available epochs: 1 to 3." in " ".join(refused.output.split())


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


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    """A run on tracks, with its store."""
    folder = tmp_path_factory.mktemp("tracked")
    store = make_store(folder / "store", subjects=4)
    split = SplitChoice(train=("1", "2", "3"), test=("4",), val_share=0.0)
    return fit(store, tiny_recipe(epochs=2), folder / "runs/run", split=split, tensorboard=False, device="cpu")


def other_store(folder, labels=("up", "left")) -> Store:
    """A newly labeled store of two recordings, with these labels in this order."""
    store = Store(folder / "new/store", create=True)
    for number, label in enumerate(labels):
        write_tracks(store, f"take_{number}", "0", direction=MOTIONS.get(label, (1, 1)), seed=50 + number)
    names = [f"take_{number}" for number in range(len(labels))]
    write_snippets(store, table_of(names, list(labels), ["9"] * len(labels), seconds=1.2, names=tuple(labels)))
    return store


def test_test_on_another_store_scores_all_its_snippets(tracked, tmp_path):
    store = other_store(tmp_path)
    done = runner.invoke(app, ["test", str(tracked.folder), "--store", str(store.path), "--device", "cpu", "--json"])
    assert done.exit_code == 0, done.output
    tested = json.loads(done.stdout)
    assert (tested["num_samples"], tested["num_recordings"], tested["seen_in_training"]) == (2, 2, 0)
    assert [row["label"] for row in tested["classes"]] == list(MOTIONS)
    assert [row["support"] for row in tested["classes"]] == [1, 0, 1]
    actual = np.load(f"{tested['run']}/actuals.npy")
    assert [list(MOTIONS)[code] for code in actual] == ["up", "left"]
    predicted = np.load(f"{tested['run']}/predictions.npy")
    assert tested["metrics"]["accuracy"] == pytest.approx(np.mean(actual == predicted))
    assert not (tracked.folder / "test.json").exists()
    text = runner.invoke(app, ["test", str(tracked.folder), "--store", str(store.path), "--device", "cpu"]).output
    assert f"Tested all labeled snippets of {store.path}" in " ".join(text.split()).replace("store. ", "store ")


def test_test_on_another_store_refuses_unknown_labels(tracked, tmp_path):
    store = other_store(tmp_path, ("up", "jump"))
    done = runner.invoke(app, ["test", str(tracked.folder), "--store", str(store.path), "--device", "cpu"])
    assert done.exit_code == 2
    assert "has labels that the model does not know: jump." in " ".join(done.stderr.split())


def test_test_on_a_copy_of_the_videos_reports_training_videos(tracked, tmp_path):
    other = make_store(tmp_path / "copy/store", subjects=5)  # the recordings of the training, and those of subject 5
    done = runner.invoke(app, ["test", str(tracked.folder), "--store", str(other.path), "--device", "cpu", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["seen_in_training"] == 9


def test_test_and_predict_with_published_weights(tracked, tmp_path, monkeypatch):
    checkpoint = load_checkpoint(tracked.best)
    weights = tmp_path / "published.pth"
    torch.save(checkpoint.model.state_dict(), weights)
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(tiny_recipe().to_toml(), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    given = ["--weights", str(weights), "--recipe", str(recipe), "--store", tracked.store, "--device", "cpu"]
    done = runner.invoke(app, ["test", *given, "--json"])
    assert done.exit_code == 0, done.output
    tested = json.loads(done.stdout)
    assert tested["num_samples"] == 12
    own = runner.invoke(app, ["test", str(tracked.folder), "--device", "cpu", "--json"])
    last = tested["num_samples"] - json.loads(own.stdout)["num_samples"]
    expected = np.load(tracked.folder / "probabilities.npy")
    np.testing.assert_allclose(np.load(f"{tested['run']}/probabilities.npy")[last:], expected, rtol=1e-4, atol=1e-5)
    done = runner.invoke(app, ["predict", *given, "--recording", "s1_left_0", "--json"])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "prediction/weights-published/s1_left_0/timeline.csv").exists()
    state = {name: values for name, values in checkpoint.model.state_dict().items() if not name.startswith("head")}
    torch.save(state, weights)
    done = runner.invoke(app, ["test", *given])
    assert done.exit_code == 2
    assert "has no classification head for the 3 classes" in " ".join(done.stderr.split())
    done = runner.invoke(app, ["test", "--weights", str(weights), "--store", tracked.store])
    assert done.exit_code == 2
    assert "--weights needs --recipe" in done.stderr
