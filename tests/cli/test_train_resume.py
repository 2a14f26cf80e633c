"""`actiontrain fit --resume` takes no option that contradicts the run."""

import json
from pathlib import Path

import pytest
from training_fakes import make_store, tiny_recipe
from typer.testing import CliRunner

from actionprep.cli.train import app

runner = CliRunner()


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a store, a recipe and a finished run."""
    folder = tmp_path_factory.mktemp("resume")
    make_store(folder / "store", subjects=4)
    (folder / "tiny.toml").write_text(tiny_recipe(epochs=1).to_toml(), encoding="utf-8")
    return folder


@pytest.fixture
def fit(place, monkeypatch):
    monkeypatch.chdir(place)

    def run(*words: str):
        return runner.invoke(app, ["fit", "store", "--threads", "1", *words])

    if not Path("runs/one").exists():
        made = run("--recipe", "tiny.toml", "--run", "one", "--by", "subject", "--test-groups", "4", "--seed", "3")
        assert made.exit_code == 0, made.output
    return run


def test_a_run_goes_on_without_its_options(fit):
    found = fit("--run", "one", "--resume", "--json")
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["seed"] == 3


def test_the_same_command_with_resume_is_accepted(fit):
    words = ["--recipe", "tiny.toml", "--run", "one", "--by", "subject", "--test-groups", "4", "--seed", "3"]
    found = fit(*words, "--resume")
    assert found.exit_code == 0, found.output
    assert "is complete" in found.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--epochs", "8"], "epochs is 1, not 8"),
        (["--seed", "4"], "seed is 3, not 4"),
        (["--set", "optimizer.weight_decay=0.5"], "optimizer.weight_decay is 0.05, not 0.5"),
        (["--recipe", "track-lstm"], "name is tiny, not track-lstm"),
        (["--test-groups", "2"], "the split is another"),
        (["--by", "recording"], "the split is another"),
        (["--snippets", "short"], "snippets are 'default', not 'short'"),
    ],
)
def test_contradicting_options_are_named(fit, words, said):
    found = fit("--run", "one", "--resume", *words)
    assert found.exit_code == 2
    assert said in found.output
    assert "Leave these options out beside --resume" in found.output


def test_resuming_without_a_run_says_how_to_train_one(place, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    found = runner.invoke(app, ["fit", str(place / "store"), "--resume"])
    assert found.exit_code == 2
    assert "No runs in runs. Train one with 'actiontrain fit'." in found.output
