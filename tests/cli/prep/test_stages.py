"""The commands of stages: options, help and rejected values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from prep_commands import actionprep, document
from typer.testing import CliRunner

from actionprep.api import Study
from actionprep.cli.prep import app
from actionprep.datasets.products.snippets import SnippetTable


def test_track_prints_points_and_share_visible(study: Study) -> None:
    result = actionprep(study, "track", "--recording", "first", "--workers", "0", "--empty", "whole-frame")
    assert result.exit_code == 0
    keys = study.store.items("tracks")
    assert {key.recording for key in keys} == {"first"}
    items = [study.store.item("tracks", key.recording, key.view) for key in keys]
    points = sum(int(item["valid"][:].sum()) for item in items)
    share = np.average(
        [item.attributes["visible_share"] for item in items], weights=[item.attributes["num_points"] for item in items]
    )
    windows = sum(len(item["frame"]) for item in items)
    assert f"Tracks: {points:,} points in {windows} windows of {len(keys)} views, {share:.1%} visible." in result.stdout
    assert "No recording 'frist'. Did you mean 'first'?" in actionprep(study, "track", "--recording", "frist").stderr


def test_keyframes_prints_their_number_per_view(study: Study) -> None:
    result = actionprep(study, "keyframes", "--count", "3", "--workers", "0")
    assert result.exit_code == 0
    num_views = len(study.store.items("keyframes"))
    assert f"Keyframes: {3 * num_views} keyframes in {num_views} views: 3 each." in result.stdout
    scenes = document(study, "keyframes", "--sampler", "scenes", "--workers", "0")["keyframes"]
    counts = [len(study.store.item("keyframes", key.recording, key.view)["index"]) for key in study.store.items()]
    assert (scenes["keyframes"], scenes["smallest"], scenes["largest"]) == (sum(counts), min(counts), max(counts))
    assert scenes["sampler"] == ["scenes"]


def test_snippets_command_prints_what_it_leaves_out(study: Study) -> None:
    result = actionprep(study, "snippets", "--length", "400", "--iou", "0.5")
    assert result.exit_code == 0
    table = result.stdout[result.stdout.index("Skipped, filled in") :]
    assert [line.split() for line in table.splitlines()[2:3]] == [["snippets", "recordings", "without", "label", "1"]]
    assert "windows without label" not in table
    # Also when the table exists already, and with --json.
    again = document(study, "snippets", "--length", "400", "--iou", "0.5")
    assert again["built"] == []
    assert again["events"] == {"snippets": {"recordings without label": 1, "windows without label": 2}}


def test_snippets_prints_windows_per_label(study: Study) -> None:
    result = actionprep(study, "snippets", "--length", "400", "--iou", "0.5")
    table = SnippetTable.read(study.store.item("snippets", "default"))
    rows = {" ".join(words[:-1]): words[-1] for line in result.stdout.splitlines() if (words := line.split())}
    names = np.array(table.labels)[table.label[table.label >= 0]].tolist()
    assert {label: rows[label] for label in table.labels} == {label: str(names.count(label)) for label in table.labels}
    assert rows["(without label)"] == "2"
    assert ": 1 item to build, 0 already built." in result.stdout
    again = document(study, "snippets", "--length", "400", "--iou", "0.5")
    assert {"label": "(without label)", "snippets": 2} in again["results"]["snippets/default"]


def test_the_next_command_has_study_only_where_it_was_given(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    named = actionprep(study, "snippets", "--length", "400", "--name", "short").stdout
    assert f"next  actiontrain fit --snippets short --study {study.root}   trains" in named
    monkeypatch.chdir(study.root)
    actual = CliRunner().invoke(app, ["snippets", "--length", "400", "--name", "short"], catch_exceptions=False)
    assert "next  actiontrain fit --snippets short   trains" in actual.stdout


@pytest.mark.parametrize(("name", "command"), [("tracks", "track"), ("frames", "decode"), ("masks", "masks")])
def test_the_name_of_a_product_means_its_stage_too(study: Study, name: str, command: str) -> None:
    result = actionprep(study, name, "--views", "0", "--workers", "0")
    assert result.exit_code == 0
    assert study.store.items(name)
    listed = CliRunner().invoke(app, ["--help"]).output
    assert f"│ {command} " in listed
    assert name == command or f"│ {name} " not in listed


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("[tracks]\ngird = 5\n", "Unknown setting 'gird' in [tracks] in "),
        ("[tracks]\ngird = 5\n", "Did you mean 'grid'?"),
        ("[trakcs]\ngrid = 5\n", "Did you mean 'tracks'?"),
        ("[tracks]\ngrid = 0\n", "Wrong value for 'grid' in [tracks] in "),
        ("[tracks]\ntracker = 'lkk'\n", "Did you mean 'lk'?"),
        ("[tracks\n", "is not valid TOML"),
    ],
)
def test_wrong_settings_are_one_paragraph_and_exit_code_2(study: Study, setting: str, message: str) -> None:
    text = (study.root / "actionprep.toml").read_text()
    (study.root / "actionprep.toml").write_text(text[: text.index("[tracks]")] + setting)
    result = actionprep(study, "track", "--workers", "0")
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("track", "--grid", "many"), "Wrong value for --grid: got 'many'. Give a whole number."),
        (("track", "--grid", "0"), "Wrong value for --grid: got 0. Give 1 or more. (Grid size G"),
        (("snippets", "--rule", "best"), "Wrong value for --rule: got 'best'. Give one of 'coverage'"),
        (("snippets", "--iou", "2"), "Wrong value for --iou: got 2.0. Give 1 or less. (A window gets a label"),
        (("track", "--gird", "5"), "track has no option --gird. Did you mean '--grid'?"),
    ],
)
def test_a_wrong_option_is_refused_with_exit_code_2(study: Study, words: tuple[str, ...], message: str) -> None:
    result = actionprep(study, *words)
    assert result.exit_code == 2
    assert message in result.stderr


def test_relative_paths_in_settings_start_at_the_study_folder(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere/co-tracker").mkdir(parents=True)
    (tmp_path / "elsewhere/co-tracker/hubconf.py").touch()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for key, value in {"tracker": "cotracker3_offline", "repo": "co-tracker", "checkpoint": "w.pth"}.items():
        study.folder.change("tracks", key, value)
    missing = actionprep(study, "track", "--workers", "0")
    assert missing.exit_code == 1
    assert f"looked for   hubconf.py in {study.root}/co-tracker (tracks.repo)" in missing.stderr
    (study.root / "co-tracker").mkdir()
    (study.root / "co-tracker/hubconf.py").touch()
    assert f"looked for   {study.root}/w.pth (tracks.checkpoint)" in actionprep(study, "track", "--workers", "0").stderr


def test_the_help_of_a_stage_shows_defaults_and_no_list_of_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shown = CliRunner().invoke(app, ["track", "--help"]).output
    assert "(default: 20)" in shown
    assert "W windows of T frames with N slots for points." in shown
    assert "float32" not in shown
