"""Odd names and links in a run, with every command of `actiontrain` that writes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from odd_names import ESCAPES, ODD, snapshot
from training_fakes import make_store, tiny_recipe
from typer.testing import CliRunner

from actionprep.api.video_groups import recording_name
from actionprep.cli.train import app
from actionprep.datasets.split_choice import SplitChoice
from actionprep.datasets.store.zarr_store import Store
from actionprep.errors import UserError
from actionprep.training.evaluation.report import write_report
from actionprep.training.experiments.sweep import plan_sweep
from actionprep.training.fit import fit
from actionprep.training.run import Run, claimed_folder
from actionprep.training.test import run_test

SPLIT = SplitChoice(train=("1", "2"), val=("3",), test=("4",))
Command = Callable[..., Result]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store and a tested run."""
    folder = tmp_path_factory.mktemp("trained")
    store = make_store(folder / "store", subjects=4)
    run_test(fit(store, tiny_recipe(epochs=1), folder / "runs/one", split=SPLIT, tensorboard=False), store, repeats=10)
    return folder


@pytest.fixture
def project(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of the folder, next to a file that must not change, as the current folder."""
    shutil.copytree(trained, tmp_path / "place")
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim/chapter.txt").write_text("three years of work")
    monkeypatch.chdir(tmp_path / "place")
    return tmp_path / "place"


@pytest.fixture
def actiontrain(project: Path) -> Command:
    def run(*words: str) -> Result:
        before = {name: entry for name, entry in snapshot(project.parent).items() if not name.startswith("place/")}
        result = CliRunner().invoke(app, words, catch_exceptions=False)
        assert result.exit_code in (0, 1, 2), result.output
        assert "fault in the program" not in result.output
        assert "\x1b" not in result.output
        after = {name: entry for name, entry in snapshot(project.parent).items() if not name.startswith("place/")}
        assert after == before
        return result

    return run


@pytest.mark.parametrize("name", [*ESCAPES, *ODD])
def test_names_in_run_json(project: Path, actiontrain: Command, name: str) -> None:
    path = project / "runs/one/run.json"
    facts = json.loads(path.read_text())
    for changes in ({"snippets": name}, {"store": name, "store_from_here": name}):
        path.write_text(json.dumps({**facts, **changes}))
        for words in (("test", "runs/one"), ("export", "runs/one", "--to", "torch-export")):
            result = actiontrain(*words)
            assert result.exit_code == 2
            assert len(result.output) < 12_000


@pytest.mark.parametrize("name", [*ESCAPES, *ODD])
def test_runs_of_fusion(project: Path, actiontrain: Command, name: str) -> None:
    (project / "runs/fused").mkdir()
    document = {"runs": [name, "../one"], "weights": [0.5, 0.5], "why": "equal"}
    (project / "runs/fused/fusion.json").write_text(json.dumps(document))
    for words in (("test", "runs/fused"), ("compare", "runs/fused", "runs/one"), ("fuse", "runs/fused", "runs/one")):
        assert actiontrain(*words).exit_code == 2


@pytest.mark.parametrize("name", ["store_digest", "snippets", "started", "versions"])
def test_report_page_escapes_facts(trained: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(trained / "runs/one", tmp_path / "run")
    run, code = Run(tmp_path / "run"), "<img src=x>"
    run.change(**{name: {code: code} if name == "versions" else code})
    write_report(run)
    page = run.report.read_text(encoding="utf-8")
    assert code not in page
    assert "&lt;img src=x&gt;" in page


def test_links_where_test_writes(project: Path, actiontrain: Command) -> None:
    run, victim = project / "runs/one", project.parent / "victim/chapter.txt"
    written = {path.name for path in run.iterdir()} - {"recipe.toml", "run.json", "split.csv", "metrics.csv"}
    written = {name for name in written if not name.endswith(".ckpt")}
    assert {"predictions.npy", "test.json", "report.html"} <= written
    for name in written - {"test.json"}:
        (run / name).unlink()
        (run / name).symlink_to(victim)
    assert actiontrain("test", "runs/one").exit_code == 0
    assert not any((run / name).is_symlink() for name in written)


def test_folder_of_part_is_not_a_link(project: Path, actiontrain: Command) -> None:
    (project / "runs/one/val").symlink_to(project.parent / "victim")
    result = actiontrain("test", "runs/one", "--part", "val")
    assert result.exit_code == 2
    assert "leads through a symbolic link to" in result.stderr
    assert "Nothing is read or written there" in result.stderr


def test_links_where_export_and_compare_write(project: Path, actiontrain: Command) -> None:
    victim = project.parent / "victim/chapter.txt"
    (project / "runs/one/model.pt2").symlink_to(victim)
    (project / "table").mkdir()
    for kind in ("csv", "md", "json", "png"):
        (project / f"table/compare.{kind}").symlink_to(victim)
    actiontrain("export", "runs/one", "--to", "torch-export")
    assert actiontrain("compare", "runs/one", "--out", "table").exit_code == 0
    assert not (project / "table/compare.png").is_symlink()


def test_links_where_fit_writes(project: Path, actiontrain: Command) -> None:
    victim = project.parent / "victim"
    (project / "tiny.toml").write_text(tiny_recipe(epochs=2).to_toml(), encoding="utf-8")
    run = project / "runs/one"
    facts = json.loads((run / "run.json").read_text())
    facts["state"] = {"phase": "validate", "complete": False}
    del facts["sha256"]
    (run / "run.json").write_text(json.dumps(facts))
    (run / ".last.partial.ckpt").symlink_to(victim / "chapter.txt")
    (run / "tensorboard").symlink_to(victim)
    result = actiontrain("fit", "store", "--run", "one", "--resume", "--threads", "1")
    assert result.exit_code == 2
    assert "tensorboard" in result.output
    (run / "tensorboard").unlink()
    assert actiontrain("fit", "store", "--run", "one", "--resume", "--threads", "1").exit_code == 0


@pytest.mark.parametrize("name", ESCAPES)
def test_claimed_folder_refuses(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="below"), claimed_folder(tmp_path / "runs", name):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [*ESCAPES, *ODD])
def test_sweep_folders_stay_in_the_sweep(project: Path, name: str) -> None:
    recipe = tiny_recipe().changed({"name": name})
    [job] = plan_sweep(Store("store"), [recipe], project / "runs/sweep", seeds=(0,))
    folder = job.folder.relative_to(project / "runs/sweep")
    assert len(folder.parts) == 2
    assert ".." not in folder.parts
    assert folder.parts[0].isprintable()


@pytest.mark.parametrize("name", ESCAPES)
def test_sweep_refuses_splits(project: Path, name: str) -> None:
    with pytest.raises(UserError):
        plan_sweep(Store("store"), [tiny_recipe()], project / "runs/sweep", splits=(name,))


@pytest.mark.parametrize("name", [*ODD, "..", "...mp4", "x" * 200])
def test_recording_name_of_video(name: str) -> None:
    actual = recording_name([Path("videos", f"{name}.mp4")])
    assert actual.isprintable()
    assert not set(actual) & set('/\\<>"')
    assert not actual.startswith(".")
    assert len(actual) <= 150
