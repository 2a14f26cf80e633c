"""Stores and runs of earlier versions stay readable."""

from __future__ import annotations

import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from actionprep.api import open_study
from actionprep.cli.prep import app as prep
from actionprep.cli.train import app as train
from actionprep.datasets.store.opening import open_store
from actionprep.training.run import Run

ARCHIVES = sorted((Path(__file__).parent / "kept").glob("*.tar.xz"))

# Digests of the stores, as `actionprep digest` printed them when the archives were made.
DIGESTS = {"version_0_1": "7848b626d9d9e9d4b0de67729c15af92310bd1d95193ccbc8593c6bcda1ad81e"}


@pytest.fixture(scope="module", params=ARCHIVES, ids=lambda path: path.name.partition(".")[0])
def unpacked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param.name.partition(".")[0], numbered=False)
    with tarfile.open(request.param) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture
def kept(unpacked: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(unpacked)
    return unpacked


def done(result: Result) -> Result:
    assert result.exit_code == 0, result.output
    return result


def test_kept_store_is_intact(kept: Path) -> None:
    runner = CliRunner()
    num_items = len(open_store(kept / "store").items())
    assert f"{num_items} items checked, none damaged." in done(runner.invoke(prep, ["verify"])).stdout
    assert DIGESTS[kept.name] in done(runner.invoke(prep, ["digest"])).stdout
    assert "tracks" in done(runner.invoke(prep, ["status"])).stdout


def test_kept_store_has_nothing_to_build(kept: Path) -> None:
    study = open_study(kept)
    store = study.store.snapshot()
    plan = study.plan(enforce=True)
    to_build = {item.key.product for item in plan.items if item.action != "done"}
    # Tracks depend on the version of OpenCV.
    made_with = {store.metadata(key)["provenance"]["identity"]["opencv"] for key in store.items("tracks")}
    assert to_build == (set() if made_with == {cv2.__version__} else {"tracks"})
    assert {item.key.product for item in plan.items} == {"keyframes", "masks", "tracks", "snippets", "split"}


def test_kept_hdf5_equals_the_kept_store(kept: Path) -> None:
    store, exported = open_store(kept / "store"), open_store(kept / "exported.h5")
    keys = exported.items("tracks")
    assert keys == store.items("tracks")
    for key in keys:
        ours, theirs = (each.item(key.product, key.recording, key.view) for each in (store, exported))
        for name in ours:
            assert np.array_equal(ours[name][:], theirs[name][:], equal_nan=ours[name].dtype.kind == "f")


def test_kept_run_gives_its_logits(kept: Path) -> None:
    run = kept / "runs" / "kept"
    before, metrics = np.load(run / "logits.npy"), Run.open(run).tested["metrics"]
    done(CliRunner().invoke(train, ["test", "kept", "--threads", "1"]))
    assert np.load(run / "logits.npy") == pytest.approx(before, abs=1e-5)
    assert Run.open(run).tested["metrics"].keys() == metrics.keys()
    done(CliRunner().invoke(train, ["predict", "--recording", "subject1_left", "--run", "kept"]))
    assert (kept / "prediction" / "kept" / "subject1_left" / "timeline.csv").read_text().startswith("recording,onset")
