"""What `actionprep` prints, and the exit codes it ends with."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recordings import moving_square, write_video
from typer.testing import CliRunner, Result

from actionprep.api import Study, make_study, open_study
from actionprep.cli.prep import app


def actionprep(study: Study | Path, *words: str) -> Result:
    root = study if isinstance(study, Path) else study.root
    return CliRunner().invoke(app, [*words, "--study", str(root)], catch_exceptions=False, env={"COLUMNS": "200"})


def document(study: Study | Path, *words: str) -> Any:
    result = actionprep(study, *words, "--json")
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two recordings of 48 frames seen by two cameras, scanned; in the second nothing moves before camera 1."""
    root = tmp_path_factory.mktemp("made")
    for number, name in enumerate(("first", "second")):
        for view in range(2):
            clip = moving_square(48, height=48, width=64, speed=1 + view, seed=number)
            if (name, view) == ("second", 1):
                clip = np.repeat(clip[:1], 48, axis=0)
            write_video(root / f"videos/{name}/cam{view}.mp4", clip)
    (root / "segments.csv").write_text("recording,onset,offset,label\nfirst,0.0,0.6,wave\n")
    given = {"pattern": "{recording}/cam{view}.mp4", "segments": ("segments.csv",)}
    study, _ = make_study(root, given, force=True)
    for key, value in {"tracker": "lk", "grid": 4, "window": 8, "stride": 8}.items():
        study.folder.change("tracks", key, value)
    study.folder.change("lowres", "sizes", (16,))
    study.scan()
    return root


@pytest.fixture
def study(made: Path, tmp_path: Path) -> Study:
    shutil.copytree(made, tmp_path / "study")
    return open_study(tmp_path / "study")


def test_snippets_say_what_they_leave_out(study: Study) -> None:
    result = actionprep(study, "snippets", "--length", "400", "--iou", "0.5")
    assert result.exit_code == 0
    table = result.stdout[result.stdout.index("Left out") :]
    assert [line.split() for line in table.splitlines()[2:4]] == [
        ["snippets", "recordings", "without", "label", "1"],
        ["snippets", "windows", "without", "label", "2"],
    ]
    # Also when the table is there already, and for machines.
    again = document(study, "snippets", "--length", "400", "--iou", "0.5")
    assert again["built"] == []
    assert again["events"] == {"snippets": {"recordings without label": 1, "windows without label": 2}}


def test_a_view_without_foreground_is_quarantined_and_its_neighbours_are_tracked(study: Study) -> None:
    result = actionprep(study, "track", "--workers", "0")
    assert result.exit_code == 1
    assert (
        "tracks/second/1  The masks of view '1' of recording 'second' are empty in the seed frame of every window"
        in (result.stdout)
    )
    assert re.search(r"masks +frames without foreground +48 *\n", result.stdout)
    assert len(study.store.items("tracks")) == 3
    found = document(study, "status")
    assert [one["item"] for one in found["quarantined"]] == ["tracks/second/1"]


def test_items_of_one_product_that_are_not_made_alike_are_named_wherever_one_looks(study: Study) -> None:
    assert actionprep(study, "track", "--views", "0", "--workers", "0").exit_code == 0
    options = ("--grid", "6", "--empty", "whole-frame", "--workers", "0")
    result = actionprep(study, "track", "--views", "1", *options)
    assert (
        "Items of 'tracks' are not all made alike: empty nothing, grid 4 (2 items); "
        "empty whole-frame, grid 6 (2 items: first/1, second/1).\nTraining takes them for alike. Run the same command "
    ) in result.stderr
    assert document(study, "plan", "tracks", "--views", "1")["mixed"] != []
    [tracks] = [one for one in document(study, "status")["products"] if one["product"] == "tracks"]
    assert tracks["made_with"].startswith("not all alike: empty nothing, grid 4 (2 items); empty")
    assert "alike" not in actionprep(study, "track", "--views", "0", *options).stderr
    assert document(study, "plan", "tracks", "--views", "1")["mixed"] == []
