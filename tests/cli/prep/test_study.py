"""The commands about the study itself."""

from __future__ import annotations

import re
from pathlib import Path

from prep_commands import actionprep, document
from recordings import moving_square, write_video
from typer.testing import CliRunner, Result

from actionprep.api import Study, open_study
from actionprep.cli.prep import app


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
    settings = tmp_path / "actionprep.toml"
    settings.write_text(settings.read_text().replace('layout = "folder-per-class"', 'layout = "folder-per-recording"'))
    good = init("--videos", ".", "--force")  # also what is there and cannot be read
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


def test_what_has_changed_since_the_scan_is_scanned_again_by_itself(study: Study) -> None:
    command = ("snippets", "--length", "400", "--iou", "0.5")
    assert "scanning" not in actionprep(study, *command).stderr
    (study.root / "segments.csv").write_text("recording,onset,offset,label\nsecond,0.4,1.2,clap\n")
    result = actionprep(study, *command)
    assert result.stderr.startswith("segments.csv is newer than the catalog: scanning.")
    assert set(open_study(study.root).snippets.query("not ignored").label) == {"clap"}
    assert "scanning" not in actionprep(study, *command).stderr


def test_views_that_drift_apart_are_shown_by_scan_and_status(study: Study) -> None:
    (study.root / "offsets.csv").write_text("view,offset,drift\n1,0.0,1500\n")
    study.folder.change("study", "offsets", "offsets.csv")
    study.folder.change("study", "tolerance", 0.002)
    shown = actionprep(study, "scan").stdout
    assert re.search(r"views drift apart +first ", shown)
    assert "frames of view '1' come +1500 ppm later each than those of view '0': 0.002 s over the 1.6 s" in shown
    assert "Views that do not lie together" in actionprep(study, "status").stdout
    assert "views drift apart" in {one["kind"] for one in document(study, "status")["alignment"]}
