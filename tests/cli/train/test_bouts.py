"""`actiontrain bouts`: predictions of a run as bouts, beside the annotations."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from study_fakes import new_study
from training_fakes import make_store, tiny_recipe
from typer.testing import CliRunner

from actionprep.cli.train import app
from actionprep.datasets.catalog import Catalog
from actionprep.datasets.split_choice import SplitChoice
from actionprep.datasets.store.zarr_store import Store
from actionprep.training.fit import fit

SPLIT = SplitChoice(train=("1", "2"), val=("3",), test=("4",))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with a run whose split has one test subject."""
    root = tmp_path_factory.mktemp("bouts") / "study"
    folder = new_study(root)
    Catalog((), (), {}).write(folder.catalog)
    make_store(Path(folder.store), subjects=4)
    fit(Store(folder.store), tiny_recipe(epochs=1), root / "runs/one", split=SPLIT, tensorboard=False)
    return root


@pytest.fixture
def study(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(trained)
    return trained


def bouts(*words: str) -> tuple[str, str]:
    result = CliRunner().invoke(app, ["bouts", "one", *words])
    assert result.exit_code == 0, result.output
    return result.stdout, result.stderr


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_bouts_of_each_part_have_their_folder(study: Path) -> None:
    bouts()
    before = (study / "bouts/one/test/bouts.csv").read_bytes()
    bouts("--part", "all")
    bouts("--recording", "s1_left_0")
    assert (study / "bouts/one/test/bouts.csv").read_bytes() == before
    parts = {row["recording"]: row["part"] for row in rows_of(study / "bouts/one/all/bouts.csv")}
    assert parts == {name: {"1": "train", "2": "train", "3": "val", "4": "test"}[name[1]] for name in parts}
    assert {name[1] for name in parts} == {"1", "2", "3", "4"}
    assert {row["recording"] for row in rows_of(study / "bouts/one/recordings/bouts.csv")} == {"s1_left_0"}


def test_bouts_are_compared_with_the_annotations(study: Path) -> None:
    stdout, _ = bouts("--json")
    document = json.loads(stdout)
    rows = document["bouts"]
    annotated = {(row["recording"], row["label"]) for row in rows if row["source"] == "annotated"}
    assert annotated == {(row["recording"], row["recording"].split("_")[1]) for row in rows}
    predicted = {row["recording"]: row["label"] for row in rows if row["source"] == "predicted"}
    # Every recording is one snippet, so a predicted bout is right where its label is.
    right = [name for name, label in predicted.items() if label == name.split("_")[1]]
    expected = 2 * len(right) / (len(predicted) + len(annotated))
    assert document["score"] == {
        "f1": pytest.approx(expected), "f1_before": pytest.approx(expected), "recordings": len(annotated)
    }  # fmt: skip
    labels = {row["label"] for row in document["statistics"] if row["source"] == "predicted"}
    assert labels == {label for _, label in annotated}, "labels that were never predicted have rows"
    assert document["recordings"] == sorted({name for name, _ in annotated})


def test_bouts_print_the_score_and_whether_rules_helped(study: Path) -> None:
    stdout, stderr = bouts()
    text = " ".join((stdout + stderr).split())
    assert "None of" in text
    assert "rules improves F1@50 on val" in text
    assert "F1@50 of the predicted bouts" in text
    assert "without rules" in text
