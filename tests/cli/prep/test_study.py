"""The commands about the study itself."""

from __future__ import annotations

import csv
import os
import re
import shutil
from pathlib import Path

import pytest
from prep_commands import actionprep, document
from recordings import moving_square, write_video
from typer.testing import CliRunner, Result

from actionprep.api import Study, open_study
from actionprep.cli.prep import app
from actionprep.datasets.catalog import Catalog


def test_init_without_videos_names_the_search_and_writes_nothing(tmp_path: Path) -> None:
    def init(*words: str) -> Result:
        return CliRunner().invoke(app, ["init", str(tmp_path), *words], env={"ACTIONPREP_OFFLINE": "1"})

    nothing = init()
    assert nothing.exit_code == 2
    assert nothing.stderr == (
        f"No videos: the folder {tmp_path}/videos does not exist.\n"
        "Put them there, or name their place with --videos, --pattern or --csv.\n"
        "Nothing was written; --force writes the settings without videos.\n"
    )
    write_video(tmp_path / "wave/one.mp4", moving_square(4))
    elsewhere = init()
    assert "There is 1 video elsewhere in " in elsewhere.stderr
    assert (
        "such as 'wave/one.mp4'. Name the place with --videos (--videos . for <class>/<clip> in this folder)"
        in elsewhere.stderr
    )
    unmatched = init("--videos", ".", "--pattern", "{recording}/cam{view}.mp4")
    assert unmatched.stderr.startswith(f"No videos match the pattern '{{recording}}/cam{{view}}.mp4' below {tmp_path}.")
    assert not (tmp_path / "actionprep.toml").exists()
    assert "The settings are written anyway" in init("--force").stdout
    settings = tmp_path / "actionprep.toml"
    settings.write_text(settings.read_text().replace('layout = "folder-per-class"', 'layout = "folder-per-recording"'))
    good = init("--videos", ".", "--force")  # also a file that exists but is unreadable
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
    assert "is already a study" in again.stderr


def test_what_has_changed_since_the_scan_is_scanned_again_by_itself(study: Study) -> None:
    command = ("snippets", "--length", "400", "--iou", "0.5")
    assert "scanning" not in actionprep(study, *command).stderr
    (study.root / "segments.csv").write_text("recording,onset,offset,label\nsecond,0.4,1.2,clap\n")
    result = actionprep(study, *command)
    assert result.stderr.startswith("segments.csv has changed since the last scan: scanning.")
    assert set(open_study(study.root).snippets.query("not ignored").label) == {"clap"}
    assert "scanning" not in actionprep(study, *command).stderr


def test_views_that_drift_apart_are_shown_by_scan_and_status(study: Study) -> None:
    (study.root / "offsets.csv").write_text("view,offset,drift\n1,0.0,1500\n")
    study.folder.change("study", "offsets", "offsets.csv")
    study.folder.change("study", "tolerance", 0.002)
    shown = actionprep(study, "scan").stdout
    assert re.search(r"views drift apart +2 +first, second ", shown)
    assert "frames of view '1' come +1500 ppm later each than those of view '0': 0.002 s over the 1.6 s" in shown
    assert "Misaligned views" in actionprep(study, "status").stdout
    assert "views drift apart" in {entry["kind"] for entry in document(study, "status")["alignment"]}


def test_tables_with_older_times_and_removed_ones_are_noticed(study: Study) -> None:
    command = ("snippets", "--length", "400", "--iou", "0.5")
    assert actionprep(study, *command).exit_code == 0
    table = study.root / "segments.csv"
    table.write_text("recording,onset,offset,label\nsecond,0.4,1.2,clap\n")
    os.utime(table, (10**9, 10**9))
    assert actionprep(study, *command).stderr.startswith("segments.csv has changed since the last scan: scanning.")
    assert set(open_study(study.root).snippets.query("not ignored").label) == {"clap"}
    table.touch()
    assert "scanning" not in actionprep(study, *command).stderr
    study.folder.change("study", "segments", ["*.csv"])
    assert actionprep(study, *command).stderr.startswith("actionprep.toml has changed since the last scan: scanning.")
    (study.root / "more.csv").write_text("recording,onset,offset,label\nfirst,0.4,1.2,wave\n")
    assert actionprep(study, *command).stderr.startswith("more.csv is new since the last scan: scanning.")
    assert set(open_study(study.root).snippets.query("not ignored").label) == {"clap", "wave"}
    (study.root / "more.csv").unlink()
    assert actionprep(study, *command).stderr.startswith("more.csv was removed since the last scan: scanning.")
    assert set(open_study(study.root).snippets.query("not ignored").label) == {"clap"}


def test_videos_with_restored_times_and_removed_ones_are_noticed(study: Study) -> None:
    path = study.root / "videos/first/cam1.mp4"
    before = path.stat()
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert actionprep(study, "plan").stderr.startswith(
        "videos/first/cam1.mp4 has changed since the last scan: scanning."
    )
    path.unlink()
    result = actionprep(study, "plan", "lowres", "--views", "0")
    assert result.stderr.startswith("videos/first/cam1.mp4 was removed since the last scan: scanning.")
    assert [view.id for view in open_study(study.root).catalog.views_of("first")] == ["0"]


def test_a_copied_study_is_not_scanned_again(study: Study, tmp_path: Path) -> None:
    assert actionprep(study, "scan").exit_code == 0
    copy = Path(shutil.copytree(study.root, tmp_path / "copy"))
    for path in (copy / "videos").rglob("*.mp4"):
        path.touch()
    assert actionprep(copy, "plan").stderr == ""
    inodes = {view.path: view.inode for view in Catalog.read(copy / "catalog").views}
    assert inodes == {path: (copy / path).stat().st_ino for path in inodes}


def init(folder: Path, *words: str) -> Result:
    result = CliRunner().invoke(app, ["init", str(folder), *words], env={"ACTIONPREP_OFFLINE": "1"})
    assert result.exit_code == 0, result.output
    return result


def fake_cameras(folder: Path) -> None:
    folder.mkdir(parents=True)
    for camera in (1, 2, 3, 4):
        (folder / f"cam0{camera}.mp4").write_bytes(bytes(100))


def test_init_proposes_a_pattern_for_cameras(tmp_path: Path) -> None:
    fake_cameras(tmp_path / "videos")
    result = init(tmp_path, "--videos", "videos")
    assert "Found 4 videos of 4 recordings." in result.stdout
    assert "To make them views: actionprep init --force --videos videos --layout views --pattern 'cam{view}.mp4'" in (
        result.stdout
    )
    result = init(tmp_path, "--videos", "videos", "--layout", "views", "--force")
    assert "Found 4 videos of 1 recording." in result.stdout
    assert open_study(tmp_path).folder.study.pattern == "cam{view}.mp4"


def test_init_asks_at_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cameras(tmp_path / "day1")
    (tmp_path / "day1/seg.csv").write_text("Media,Start,Stop,Kind,Behavior\nday1,0,1,state,wave\n")
    monkeypatch.setattr("actionprep.cli.output.can_ask", lambda: True)
    words = ["init", str(tmp_path), "--videos", "day1", "--segments", "day1/seg.csv"]
    answers = "yes\nmedia\nMedia\n\n\n\n"
    result = CliRunner().invoke(app, words, env={"ACTIONPREP_OFFLINE": "1"}, input=answers)
    assert result.exit_code == 0, result.output
    assert "Use the pattern 'cam{view}.mp4'? (yes, no) [yes]" in result.stdout
    settings = open_study(tmp_path).folder.study
    assert (settings.layout, settings.pattern) == ("views", "cam{view}.mp4")
    assert settings.segment_columns == {
        "recording": "Media", "onset": "Start", "offset": "Stop", "label": "Behavior",
    }  # fmt: skip


def test_init_writes_a_study_with_segments_that_cannot_be_mapped(tmp_path: Path) -> None:
    fake_cameras(tmp_path / "videos")
    (tmp_path / "seg.csv").write_text("clip,begin,finish,behavior\nvideos,0,1,wave\n")
    words = ("--layout", "views", "--segments", "seg.csv")
    result = init(tmp_path, *words)
    assert (
        f"The segments of {tmp_path}/seg.csv cannot be read yet: no column for onset and offset, label; it has 'clip', "
        f"'begin', 'finish', 'behavior'.\nSet segment_columns under [study] in {tmp_path}/actionprep.toml, or run the "
        "same command again with\n  --force --segment-columns recording=clip onset=begin offset=COLUMN label=behavior\n"
    ) in result.stdout
    assert open_study(tmp_path).folder.study.segments == ("seg.csv",)
    columns = ("recording=clip", "onset=begin", "offset=finish", "label=behavior")
    assert "cannot be read" not in init(tmp_path, *words, "--force", "--segment-columns", *columns).stdout
    assert open_study(tmp_path).folder.study.segment_columns["offset"] == "finish"
    wrong = CliRunner().invoke(app, ["init", str(tmp_path), "--segment-columns", "onste=begin"])
    assert wrong.exit_code == 2
    assert "got 'onste=begin'. Did you mean 'onset'? Fields: recording, onset," in wrong.stderr


def test_init_proposes_milliseconds_for_large_whole_numbers(tmp_path: Path) -> None:
    fake_cameras(tmp_path / "videos")
    (tmp_path / "seg.csv").write_text("file,onset,offset,hand\ncam01.mp4,96019,148073,left\n")
    result = init(tmp_path, "--segments", "seg.csv")
    assert (
        "  --force --segment-columns recording=file onset_ms=onset offset_ms=offset label=COLUMN\nThe times are large whole "
        "numbers: milliseconds, or frames (onset_frame and offset_frame).\n"
    ) in result.stdout


def test_init_asks_for_the_unit_of_large_whole_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cameras(tmp_path / "videos")
    (tmp_path / "seg.csv").write_text("file,onset,offset,hand\ncam01.mp4,96019,148073,left\n")
    monkeypatch.setattr("actionprep.cli.output.can_ask", lambda: True)
    words = ["init", str(tmp_path), "--layout", "views", "--pattern", "{recording}.mp4", "--segments", "seg.csv"]
    result = CliRunner().invoke(app, words, env={"ACTIONPREP_OFFLINE": "1"}, input="\n\n\nhand\n\n")
    assert result.exit_code == 0, result.output
    assert "seg.csv: the times are large whole numbers. What is their unit? (ms, frame, s) [ms]" in result.stdout
    assert open_study(tmp_path).folder.study.segment_columns == {
        "recording": "file", "onset_ms": "onset", "offset_ms": "offset", "label": "hand",
    }  # fmt: skip


def test_init_with_a_list_without_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cameras(tmp_path / "videos")
    (tmp_path / "list.txt").write_text("cam01.mp4 0\ncam02.mp4 1\n")
    (tmp_path / "names.txt").write_text("wave\nclap\n")
    words = ("--pattern", "{recording}.mp4", "--segments", "list.txt")
    result = init(tmp_path, *words)
    assert "The segments cannot be read yet: " in result.stdout
    assert "It resembles the preset mmaction2-video. Name the right one with study.segment_format" in result.stdout
    chosen = (
        "--force",
        "--segment-format",
        "mmaction2-video",
        "--segment-classes",
        "names.txt",
        "--encoding",
        "cp1252",
    )
    assert "cannot be read" not in init(tmp_path, *words, *chosen).stdout
    settings = open_study(tmp_path).folder.study
    assert (settings.segment_format, settings.segment_classes, settings.encoding) == (
        "mmaction2-video", "names.txt", "cp1252",
    )  # fmt: skip
    monkeypatch.setattr("actionprep.cli.output.can_ask", lambda: True)
    asked = ["init", str(tmp_path), *words, "--force"]
    result = CliRunner().invoke(app, asked, env={"ACTIONPREP_OFFLINE": "1"}, input="mmaction2-video\n")
    assert "list.txt is a list without a header. Which format does it have? (mmaction2-video)" in result.stdout
    assert open_study(tmp_path).folder.study.segment_format == "mmaction2-video"


def test_init_with_a_list_as_table(tmp_path: Path) -> None:
    fake_cameras(tmp_path / "videos")
    (tmp_path / "train_list.txt").write_text("cam01.mp4 0\ncam02.mp4 1\n")
    result = CliRunner().invoke(
        app, ["init", str(tmp_path), "--csv", "train_list.txt"], env={"ACTIONPREP_OFFLINE": "1"}
    )
    assert result.exit_code == 2
    assert (
        f"{tmp_path}/train_list.txt is a list without a header, and layout csv needs a table with the column 'path'. It "
        "resembles mmaction2-video. Read it as annotations, and find the videos by a pattern:\n  actionprep init --pattern "
        "'{recording}.*' --segments train_list.txt --segment-format mmaction2-video\n"
    ) in result.stderr


def test_formats_prints_a_preset() -> None:
    result = CliRunner().invoke(app, ["formats", "ipn-hand"])
    assert 'columns = ["recording", "class", "onset_frame", "offset_frame"]\nfirst_number = 1\n' in result.stdout
    wrong = CliRunner().invoke(app, ["formats", "ipnhand"])
    assert wrong.exit_code == 2
    assert "No list preset 'ipnhand'. Did you mean 'ipn-hand'? Presets: ava, egogesture," in wrong.stderr


def test_init_reports_files_that_are_not_used(tmp_path: Path) -> None:
    fake_cameras(tmp_path / "videos/walk")
    (tmp_path / "videos/walk/a.r3d").touch()
    assert (
        "file not used: videos/walk/a.r3d: 1 file with the suffix .r3d, which is not read as a video"
        in init(tmp_path).stdout
    )


def test_scan_writes_a_template_to_annotate(study: Study) -> None:
    path = study.root / "new.csv"
    assert f"Wrote {path}." in actionprep(study, "scan", "--template", str(path)).stdout
    rows = list(csv.reader(path.read_text().splitlines()))
    assert rows[0] == ["recording", "onset", "offset", "label", "length"]
    assert [row[:4] for row in rows[1:]] == [["first", "", "", ""], ["second", "", "", ""]]
    lengths = [max(view.span[1] for view in study.catalog.views_of(row[0])) for row in rows[1:]]
    assert [float(row[4]) for row in rows[1:]] == pytest.approx(lengths, abs=1e-3)
    again = actionprep(study, "scan", "--template", str(path))
    assert again.exit_code == 2
    assert "exists and may have annotations" in again.stderr
    path.write_text(path.read_text().replace("first,,,", "first,0.2,0.6,wave"))
    study.folder.change("study", "segments", ["new.csv"])
    assert [(entry.onset, entry.label) for entry in open_study(study.root).catalog.segments_of("first")] == [
        (0.2, "wave")
    ]


def test_scan_groups_findings_and_lists_all_in_a_file(study: Study) -> None:
    rows = "".join(f"first,{number + 5},{number},wave\n" for number in range(40))
    (study.root / "segments.csv").write_text(f"recording,onset,offset,label\n{rows}")
    result = actionprep(study, "scan")
    assert re.search(
        r"unusable segment +40 +segments.csv:2, 3, 4 and 37 more +it ends at 0 s, before it starts.* \(first of 40\)",
        result.stdout,
    )
    [path] = re.findall(r"42 findings, each with its line, in (.*)", result.stdout)
    assert path == str(study.root / "catalog/findings.csv")
    assert Path(path).read_text().count("unusable segment,segments.csv,") == 40
    assert document(study, "scan")["findings_file"] == path


def test_commands_print_their_views_and_files(study: Study) -> None:
    line = "View 1 (cam1.mp4) of 2 recordings, such as first."
    assert line in actionprep(study, "plan", "lowres", "--views", "1").stdout
    assert line in actionprep(study, "lowres", "--views", "1", "--workers", "0").stdout
    views = document(study, "plan", "lowres", "--views", "1")["views"]
    assert views[0] == {"recording": "first", "view": "1", "path": "videos/first/cam1.mp4"}


def test_init_point_length_makes_segments_of_events(tmp_path: Path) -> None:
    fake_cameras(tmp_path / "videos")
    result = CliRunner().invoke(app, ["init", str(tmp_path), "--point-length", "500"], env={"ACTIONPREP_OFFLINE": "1"})
    assert result.exit_code == 0, result.output
    assert "point_length = 500" in (tmp_path / "actionprep.toml").read_text()


def test_next_step_without_labels_is_to_label(tmp_path: Path) -> None:
    write_video(tmp_path / "videos/a/cam0.mp4", moving_square(8))
    runner = CliRunner()
    done = runner.invoke(app, ["init", str(tmp_path), "--pattern", "{recording}/cam{view}.mp4"])
    assert done.exit_code == 0, done.output
    scanned = runner.invoke(app, ["scan", "--study", str(tmp_path)], env={"COLUMNS": "200"})
    assert "actionprep scan --template segments.csv" in scanned.stdout
    assert "nothing is labeled yet" in scanned.stdout
    assert "actionprep plan" not in scanned.stdout
