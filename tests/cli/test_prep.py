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
    assert len(document(study, "plan", "tracks", "--views", "0")["mixed"]) == 1
    [tracks] = [one for one in document(study, "status")["products"] if one["product"] == "tracks"]
    assert tracks["made_with"].startswith("not all alike: empty nothing, grid 4 (2 items); empty")
    assert "alike" not in actionprep(study, "track", "--views", "0", *options).stderr
    [tracks] = [one for one in document(study, "status")["products"] if one["product"] == "tracks"]
    assert "alike" not in tracks["made_with"]


def test_status_says_which_options_of_a_command_a_build_would_not_keep(study: Study) -> None:
    study.folder.change("study", "stages", ("lowres",))
    assert actionprep(study, "lowres", "--workers", "0").exit_code == 0
    assert "a build would make" not in actionprep(study, "status").stderr
    assert actionprep(study, "lowres", "--sizes", "24", "--filter", "bicubic", "--workers", "0").exit_code == 0
    assert actionprep(study, "status").stderr == (
        '\'lowres\' was made with filter = "bicubic", sizes = [24], and actionprep.toml says filter = "area", sizes = '
        "[16]: a build would make 4 item(s) of it anew. To keep what is there, write its settings under [lowres].\n"
    )
    [lowres] = [one for one in document(study, "status")["products"] if one["product"] == "lowres"]
    assert lowres["made_otherwise"][1] == {"setting": "sizes", "stored": [[24]], "file": [16], "items": 4}


def test_what_has_changed_since_the_scan_is_scanned_again_by_itself(study: Study) -> None:
    command = ("snippets", "--length", "400", "--iou", "0.5")
    assert "scanning" not in actionprep(study, *command).stderr
    (study.root / "segments.csv").write_text("recording,onset,offset,label\nsecond,0.4,1.2,clap\n")
    result = actionprep(study, *command)
    assert result.stderr.startswith("segments.csv is newer than the catalogue: scanning.")
    assert set(open_study(study.root).snippets.query("not ignored").label) == {"clap"}
    assert "scanning" not in actionprep(study, *command).stderr


def test_a_video_that_is_cut_off_after_the_scan_is_quarantined_and_its_neighbours_are_made(study: Study) -> None:
    path = study.root / "videos/first/cam1.mp4"
    path.write_bytes(path.read_bytes()[:2000])
    result = actionprep(study, "lowres", "--workers", "0")
    assert result.exit_code == 1
    assert result.stderr.startswith("videos/first/cam1.mp4 has changed since the last scan: scanning.")
    assert "lowres/first/1" in result.stdout
    assert "it was cut off" in result.stdout
    assert len(study.store.items("lowres")) == 3


def test_an_empty_file_that_is_filled_later_is_found_by_itself(study: Study) -> None:
    path = study.root / "videos/first/cam1.mp4"
    content = path.read_bytes()
    path.write_bytes(b"")
    assert "is empty (0 bytes)" in actionprep(study, "lowres", "--workers", "0").stdout
    path.write_bytes(content)
    assert actionprep(study, "lowres", "--workers", "0").exit_code == 0
    assert len(study.store.items("lowres")) == 4


def test_views_that_drift_apart_are_shown_by_scan_and_status(study: Study) -> None:
    (study.root / "offsets.csv").write_text("view,offset,drift\n1,0.0,1500\n")
    study.folder.change("study", "offsets", "offsets.csv")
    study.folder.change("study", "tolerance", 0.002)
    shown = actionprep(study, "scan").stdout
    assert re.search(r"views drift apart +first ", shown)
    assert "frames of view '1' come +1500 ppm later each than those of view '0': 0.002 s over the 1.6 s" in shown
    assert "Views that do not lie together" in actionprep(study, "status").stdout
    assert "views drift apart" in {one["kind"] for one in document(study, "status")["alignment"]}


def test_the_status_tells_what_keeps_a_build_from_going_on(study: Study) -> None:
    assert actionprep(study, "lowres", "--workers", "0").exit_code == 0
    (study.root / "offsets.csv").write_text("view,offset\n1,99\n")
    study.folder.change("study", "offsets", "offsets.csv")
    found = document(study, "status")
    assert found["problem"].startswith(
        "The views of recording 'first' are not aligned to 0.05 s: no instant is seen by"
    )
    assert [one["items"] for one in found["products"]] == [4]
    result = actionprep(study, "track", "--workers", "0")
    assert result.exit_code == 2
    assert "name a table with each view's clock (offsets)" in result.stderr


@pytest.mark.parametrize(("name", "command"), [("tracks", "track"), ("frames", "decode"), ("masks", "masks")])
def test_the_name_of_a_product_means_its_stage_too(study: Study, name: str, command: str) -> None:
    result = actionprep(study, name, "--views", "0", "--workers", "0")
    assert result.exit_code == 0
    assert study.store.items(name)
    listed = CliRunner().invoke(app, ["--help"]).output
    assert f"│ {command} " in listed
    assert name == command or f"│ {name} " not in listed


def test_init_without_videos_says_what_it_looked_for_and_writes_nothing(tmp_path: Path) -> None:
    def init(*words: str) -> Result:
        return CliRunner().invoke(app, ["init", str(tmp_path), *words], env={"ACTIONPREP_OFFLINE": "1"})

    nothing = init()
    assert nothing.exit_code == 2
    assert nothing.stderr == (
        f"No videos: there is no folder {tmp_path}/videos.\n"
        "Put them there, or say where they are with --videos, --pattern or --csv.\n"
        "Nothing was written; --force writes the settings without videos.\n"
    )
    write_video(tmp_path / "wave/one.mp4", moving_square(4))
    elsewhere = init()
    assert "There are 1 videos elsewhere in " in elsewhere.stderr
    assert (
        "such as 'wave/one.mp4'. Say where with --videos (--videos . for <class>/<clip> right here)" in elsewhere.stderr
    )
    unmatched = init("--videos", ".", "--pattern", "{recording}/cam{view}.mp4")
    assert unmatched.stderr.startswith(f"No videos match the pattern '{{recording}}/cam{{view}}.mp4' below {tmp_path}.")
    assert not (tmp_path / "actionprep.toml").exists()
    assert "The settings are written all the same" in init("--force").stdout
    good = init("--videos", ".", "--force")
    assert "Found 1 video of 1 recording.\n" in good.stdout
    for name in ("two", "three"):
        (tmp_path / f"wave/{name}.mp4").write_text("oid sha256:4d7a")
    pointers = init("--videos", ".", "--force")
    assert (
        "Found 1 video of 1 recording. 2 more files are named like them but are empty or text, such as "
        "'wave/three.mp4'.\n" in pointers.stdout
    )
    again = init("--videos", ".")
    assert again.exit_code == 2
    assert "is a study already" in again.stderr


def test_verify_and_repair_make_only_what_is_damaged_anew(study: Study) -> None:
    assert actionprep(study, "lowres", "--workers", "0").exit_code == 0
    actionprep(study, "snippets", "--length", "400", "--name", "short")
    actionprep(study, "snippets", "--length", "800", "--name", "long")
    before = study.store.digest()
    assert document(study, "verify") == {"items": 6, "damaged": [], "repaired": [], "not_repaired": {}}
    whole = {key: (study.store.path / key.path / "zarr.json").stat().st_ino for key in study.store.items()}
    (study.store.path / "lowres/first/0/zarr.json").unlink()
    (study.store.path / "lowres/second/1/rgb_16/zarr.json").write_text("{")
    for name in ("short", "long"):
        chunk = next(path for path in (study.store.path / "snippets" / name / "onset").rglob("c/*") if path.is_file())
        chunk.write_bytes(bytes(len(chunk.read_bytes())))
    damaged = {"lowres/first/0", "lowres/second/1", "snippets/short", "snippets/long"}
    assert actionprep(study, "verify").exit_code == 1
    assert actionprep(study, "digest").exit_code == 1
    found = document(study, "verify", "--repair")
    assert {one["item"] for one in found["damaged"]} == set(found["repaired"]) == damaged
    assert found["not_repaired"] == {}
    assert Study(study.folder).store.digest() == before
    kept = {key for key in whole if str(key) not in damaged}
    assert all((study.store.path / key.path / "zarr.json").stat().st_ino == whole[key] for key in kept)


def test_a_repair_that_cannot_be_done_leaves_the_good_items_and_says_why(study: Study) -> None:
    assert actionprep(study, "lowres", "--workers", "0").exit_code == 0
    shutil.rmtree(study.root / "videos/second")
    study.scan()
    for place in ("first/0", "second/0"):
        (study.store.path / f"lowres/{place}/time/zarr.json").unlink()
    result = actionprep(study, "verify", "--repair")
    assert result.exit_code == 1
    assert "1 items made anew." in result.stdout
    assert "lowres/second/0  nothing in the catalogue makes it any more: 'actionprep gc' deletes it" in result.stdout
    assert len(study.store.items("lowres")) == 4


def test_a_view_that_does_not_exist_is_named_with_those_that_do(study: Study) -> None:
    for command in ("track", "plan", "build"):
        result = actionprep(study, command, "--views", "9")
        assert result.exit_code == 2
        assert result.stderr.startswith("No view '9' in recording 'first' or any other. There are views 0, 1.\n")


def test_a_recording_that_lacks_a_view_is_named_or_left_out(study: Study) -> None:
    (study.root / "videos/second/cam1.mp4").unlink()
    study.scan()
    result = actionprep(study, "lowres", "--views", "0", "1", "--workers", "0")
    assert result.exit_code == 2
    assert "No view '1' in recording 'second'. It has view" in result.stderr
    assert "--skip-incomplete" in result.stderr
    result = actionprep(study, "lowres", "--views", "0", "1", "--skip-incomplete", "--workers", "0")
    assert result.exit_code == 0
    assert "1 recordings lack a wanted view and are left out: second" in result.stderr


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("[tracks]\ngird = 5\n", "Unknown setting 'gird' in [tracks] in "),
        ("[tracks]\ngird = 5\n", "Did you mean 'grid'?"),
        ("[trakcs]\ngrid = 5\n", "Did you mean 'tracks'?"),
        ("[tracks]\ngrid = 0\n", "Wrong value for 'grid' in [tracks] in "),
        ("[tracks]\ntracker = 'lkk'\n", "Did you mean 'lk'?"),
        ("[tracks\n", "is not valid TOML"),
    ],
)
def test_wrong_settings_are_one_paragraph_and_exit_code_2(study: Study, setting: str, said: str) -> None:
    text = (study.root / "actionprep.toml").read_text()
    (study.root / "actionprep.toml").write_text(text[: text.index("[tracks]")] + setting)
    result = actionprep(study, "track", "--workers", "0")
    assert result.exit_code == 2
    assert said in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("track", "--grid", "many"), "Wrong value for --grid: got 'many'. Give a whole number."),
        (("track", "--grid", "0"), "Wrong value for --grid: got 0. Give 1 or more. (Grid size G"),
        (("snippets", "--rule", "best"), "Wrong value for --rule: got 'best'. Give one of 'coverage'"),
        (("snippets", "--iou", "2"), "Wrong value for --iou: got 2.0. Give 1 or less. (A window gets a label"),
        (("track", "--gird", "5"), "track has no option --gird. Did you mean '--grid'?"),
    ],
)
def test_a_wrong_option_is_refused_with_exit_code_2(study: Study, words: tuple[str, ...], said: str) -> None:
    result = actionprep(study, *words)
    assert result.exit_code == 2
    assert said in result.stderr


def test_a_store_of_a_newer_schema_is_refused_by_every_command(study: Study) -> None:
    assert study.store.items() == []
    path = study.store.path / "zarr.json"
    path.write_text(path.read_text().replace('"actionprep_schema": 1', '"actionprep_schema": 99'))
    for command in ("status", "plan", "verify", "digest", "track"):
        result = actionprep(study, command)
        assert result.exit_code == 2
        assert "was written with schema 99" in result.stderr


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


def test_a_study_that_is_moved_keeps_its_items(study: Study, tmp_path: Path) -> None:
    assert actionprep(study, "lowres", "--workers", "0").exit_code == 0
    moved = study.root.rename(tmp_path / "moved")
    assert document(moved, "lowres")["built"] == []


def test_a_picture_of_no_layout_is_not_promised(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["skeletons", "--to", "coco17", "--out", str(tmp_path / "x.png")])
    assert done.exit_code == 2
    done = CliRunner().invoke(app, ["skeletons", "coco17", "--to", "coc18", "--out", str(tmp_path / "x.png")])
    assert done.exit_code == 2
    assert not (tmp_path / "x.png").exists()
