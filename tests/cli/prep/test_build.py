"""What a build reports of items that it cannot make, and what it leaves unchanged."""

from __future__ import annotations

import re
from pathlib import Path

from prep_commands import actionprep, document

from actionprep.api import Study


def test_items_with_different_settings_are_reported_by_commands(study: Study) -> None:
    assert actionprep(study, "track", "--views", "0", "--workers", "0").exit_code == 0
    options = ("--grid", "6", "--empty", "whole-frame", "--workers", "0")
    result = actionprep(study, "track", "--views", "1", *options)
    assert (
        "Items of 'tracks' were made with different settings: empty nothing, grid 4 (2 items); "
        "empty whole-frame, grid 6 (2 items: first/1, second/1).\nTraining treats them alike. Run the same command "
    ) in result.stderr
    assert len(document(study, "plan", "tracks", "--views", "0")["mixed"]) == 1
    [tracks] = [entry for entry in document(study, "status")["products"] if entry["product"] == "tracks"]
    assert tracks["made_with"].startswith("not all alike: empty nothing, grid 4 (2 items); empty")
    assert "alike" not in actionprep(study, "track", "--views", "0", *options).stderr
    [tracks] = [entry for entry in document(study, "status")["products"] if entry["product"] == "tracks"]
    assert "alike" not in tracks["made_with"]


def test_build_quarantines_a_view_without_foreground(study: Study) -> None:
    result = actionprep(study, "track", "--workers", "0")
    assert result.exit_code == 1
    assert (
        "tracks/second/1  The masks of view '1' of recording 'second' are empty in the seed frame of every window"
        in (result.stdout)
    )
    assert re.search(r"masks +frames without foreground +48 *\n", result.stdout)
    assert len(study.store.items("tracks")) == 3
    actual = document(study, "status")
    assert [entry["item"] for entry in actual["quarantined"]] == ["tracks/second/1"]


def test_build_quarantines_a_video_truncated_after_the_scan(study: Study) -> None:
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


def test_a_view_that_does_not_exist_is_named_with_those_that_do(study: Study) -> None:
    for command in ("track", "plan", "build"):
        result = actionprep(study, command, "--views", "9")
        assert result.exit_code == 2
        assert result.stderr.startswith(
            "No view '9' in recording 'first' or any other. Available views: 0, 1 (cam0.mp4, cam1.mp4).\n"
        )


def test_a_recording_that_lacks_a_view_is_named_or_left_out(study: Study) -> None:
    (study.root / "videos/second/cam1.mp4").unlink()
    study.scan()
    result = actionprep(study, "lowres", "--views", "0", "1", "--workers", "0")
    assert result.exit_code == 2
    assert "No view '1' in recording 'second'. Available views: 0" in result.stderr
    assert "--skip-incomplete" in result.stderr
    result = actionprep(study, "lowres", "--views", "0", "1", "--skip-incomplete", "--workers", "0")
    assert result.exit_code == 0
    assert "Skipped 1 recording without all selected views: second." in result.stderr


def test_a_study_that_is_moved_keeps_its_items(study: Study, tmp_path: Path) -> None:
    assert actionprep(study, "lowres", "--workers", "0").exit_code == 0
    moved = study.root.rename(tmp_path / "moved")
    assert document(moved, "lowres")["built"] == []
