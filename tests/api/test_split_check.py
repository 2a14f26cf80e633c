"""Leaks of stored splits: the command, and what it finds and leaves."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from moving_spots import spots, write_spots
from prep_commands import actionprep, document

from actionprep.api import Study, open_study
from actionprep.api.new_study import make_study
from actionprep.api.split_check import check_stored_split
from actionprep.errors import UserError

TIMES = np.arange(50) / 20
# Id, subject, part.
CLEAN = (("a", "anna", "train"), ("b", "ben", "train"), ("c", "carl", "test"), ("d", "dora", "test"))


def write_table(root: Path, rows: tuple[tuple[str, str, str], ...]) -> None:
    with (root / "recordings.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("recording", "subject", "split", "label"))
        writer.writerows((*row, "move") for row in rows)


def study_of(root: Path, rows: tuple[tuple[str, str, str], ...] = CLEAN) -> Study:
    write_table(root, rows)
    make_study(root, {"videos": "videos", "pattern": "{recording}.mkv", "recordings": "recordings.csv"})
    study = open_study(root)
    study.scan()
    return study


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    for seed, name in enumerate("abcd"):
        write_spots(tmp_path / "videos" / f"{name}.mkv", spots(seed, TIMES))
    return tmp_path


def test_split_check_of_clean_study(videos: Path):
    result = actionprep(study_of(videos), "split", "--by", "column", "--val", "0", "--check")
    assert result.exit_code == 0
    assert "Checked 4 recordings, 4 views for near-duplicates (similarity from 0.80): 0 leaks." in result.output


def test_split_check_finds_copy_and_respelled_subject(videos: Path):
    copy = spots(1, TIMES)[10:, 10:130, 15:175]  # of recording b
    write_spots(videos / "videos" / "e.mkv", copy, codec="mpeg4", bit_rate=400_000)
    rows = (*CLEAN, ("e", "Anna ", "test"))
    study = study_of(videos, rows)
    study.build("split", overrides={"split": {"by": "column", "val": 0.0}})
    actual = document(study, "split", "--check")
    leaks = [(leak["kind"], leak["name"], leak["part"], leak["other"], leak["other_part"]) for leak in actual["leaks"]]
    assert leaks == [("subject", "Anna", "test", "anna", "train"), ("near-duplicate", "b", "train", "e", "test")]
    assert actual["leaks"][0]["detail"] == "two spellings of one name"
    assert "shifted by 0.5 s, cropped to 8" in actual["leaks"][1]["detail"]
    printed = actionprep(study, "split", "--check")
    assert printed.exit_code == 1
    assert "b (train)" in printed.output


def test_split_check_finds_shared_file(videos: Path):
    # A split by recording keeps them together, so the table changes after the split was made.
    study = study_of(videos)
    study.build("split", overrides={"split": {"by": "column", "val": 0.0}})
    (videos / "videos" / "d.mkv").write_bytes((videos / "videos" / "a.mkv").read_bytes())
    again = open_study(videos)
    again.scan()
    [leak] = check_stored_split(again).leaks
    assert (leak.kind, leak.name, leak.other) == ("video file", "videos/a.mkv", "videos/d.mkv")


def test_split_check_of_recordings_allows_shared_subjects(videos: Path):
    rows = (("a", "anna", ""), ("b", "ben", ""), ("c", "anna", ""), ("d", "ben", ""))
    study = study_of(videos, rows)
    study.build("split", overrides={"split": {"by": "recording", "train": 0.5, "val": 0.0, "test": 0.5}})
    parts = check_stored_split(study)
    assert parts.leaks == ()
    assert all("as a split by recording allows" in note for note in parts.notes)


def test_split_check_names_still_videos(videos: Path):
    write_spots(videos / "videos" / "d.mkv", np.repeat(spots(0, TIMES[:1]), 50, axis=0))
    study = study_of(videos)
    study.build("split", overrides={"split": {"by": "column", "val": 0.0}})
    assert check_stored_split(study).not_compared == {"d/0": "no motion to compare"}
    assert "1 view could not be compared with others, such as d/0 (no motion to compare)." in actionprep(
        study, "split", "--check"
    ).output.replace("\n", " ")


def test_split_check_without_split(videos: Path):
    with pytest.raises(UserError, match=r"No split 'mine' in the store\. Splits: none\."):
        check_stored_split(study_of(videos), "mine")


def test_split_check_makes_named_split(videos: Path):
    study = study_of(videos)
    result = actionprep(study, "split", "--check", "--name", "mine", "--by", "subject", "--val", "0", "--json")
    assert json.loads(result.stdout)["split"] == "mine"
    assert [item.recording for item in open_study(videos).store.items()] == ["mine"]


def test_copies_in_one_part_hide_no_copies_in_others(videos: Path):
    clip = spots(1, TIMES).astype(np.float64)  # recording b, in train
    for seed, name in enumerate("ef"):
        noise = np.random.default_rng(seed).normal(0, 60, clip.shape)
        write_spots(videos / "videos" / f"{name}.mkv", (clip + noise).clip(0, 255).astype(np.uint8))
    study = study_of(videos, (*CLEAN, ("e", "emma", "train"), ("f", "finn", "test")))
    study.build("split", overrides={"split": {"by": "column", "val": 0.0}})
    check = check_stored_split(study)
    [note] = [note for note in check.notes if "in one part" in note]
    assert note.startswith("b and e, in one part, have a similarity of 0.")
    assert all(leak.similarity >= check.similarity for leak in check.leaks)
    reported = {leak.other for leak in check.leaks} | {"f" for name in ("b", "e") if f"{name} and f (" in note}
    assert reported == {"f"}
