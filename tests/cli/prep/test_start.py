"""What short commands import, read and describe before they print."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from study_fakes import FakeProbe, fake_video

from actionprep.api import Study
from actionprep.cli.prep import app
from actionprep.cli.program import program_of
from actionprep.datasets import catalog as catalog_module
from actionprep.datasets.scan import scan
from actionprep.datasets.store.index import Index
from actionprep.datasets.study import StudySettings, init_study

CODE = """
import sys
from actionprep.cli import prep
try:
    prep()
except SystemExit as end:
    assert not end.code, end.code
print("imported", *sorted({"pandas", "torch", "zarr", "dask", "av", "scipy"} & set(sys.modules)), file=sys.stderr)
"""


@pytest.fixture
def study(tmp_path: Path) -> Study:
    for name in ("wave/a.mp4", "clap/b.mp4"):
        fake_video(tmp_path / "videos" / name)
    folder = init_study(tmp_path, StudySettings(), force=True)
    scan(folder, probe=FakeProbe())
    made = Study(folder)
    made.build("snippets")
    return made


@pytest.mark.parametrize("command", [["status"], ["plan", "tracks"], ["snippets"]])
def test_short_command_imports_nothing_heavy(study: Study, command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE, *command], cwd=study.root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "imported"


def test_commands_read_catalog_once(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []
    read_tables = catalog_module.read_tables
    monkeypatch.setattr(catalog_module, "read_tables", lambda folder: (reads.append(folder), read_tables(folder))[1])
    Study(study.folder).status()
    assert reads == [study.folder.catalog]


def test_build_with_nothing_to_do_checks_index_once(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh, checks = Study(study.folder), []
    is_current = Index.is_current
    monkeypatch.setattr(Index, "is_current", lambda index, root: (checks.append(root), is_current(index, root))[1])
    report = fresh.build("snippets")
    assert (report.built, report.done) == ([], 1)
    assert len(checks) == 1  # for the plan


def test_program_of_describes_only_its_command() -> None:
    assert [info.callback.__name__ for info in program_of(app, ["status", "--json"]).registered_commands] == ["status"]
    groups = program_of(app, ["export", "npz"])
    assert ([info.name for info in groups.registered_groups], groups.registered_commands) == (["export"], [])
    assert program_of(app, ["track"], others={"track"}).registered_commands == []
    for words in ([], ["--help"], ["statuz"]):
        assert program_of(app, words) is app
    assert len(app.registered_commands) > 10


def test_unknown_command_still_names_nearest(study: Study) -> None:
    code = "from actionprep.cli import prep; prep()"
    done = subprocess.run([sys.executable, "-c", code, "statuz"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Did you mean 'status'?" in done.stderr
