"""Files of other tools are read as the table of real samples says; the documentation is made from the same table."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from actionprep.datasets.annotations import AnnotatedRow, read_annotations, segment_formats
from actionprep.datasets.poses.formats import FORMATS, detect_format, read_poses
from actionprep.datasets.poses.skeletons import skeleton

TABLES: dict[str, list[dict[str, Any]]] = tomllib.loads(
    (Path(__file__).parents[1] / "fixtures/real_samples.toml").read_text(encoding="utf-8")
)
SAMPLES, POSES = TABLES["segments"], TABLES["poses"]


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample["format"])
def test_real_sample_is_read(shared_data: Path, sample: dict[str, Any]) -> None:
    path = shared_data / sample["file"]
    rows = read_annotations(path, format=sample["format"])
    read = [row for row in rows if isinstance(row, AnnotatedRow)]
    if sample.get("detected", True):
        assert [row for row in read_annotations(path) if isinstance(row, AnnotatedRow)] == read
    assert (len(read), len(rows) - len(read)) == (sample["rows"], sample.get("refused", 0))
    if "unit" in sample:
        assert {row.unit for row in read} == {sample["unit"]}
        assert min(row.onset for row in read) == pytest.approx(sample["first_onset"], abs=6e-4)
        assert max(row.offset for row in read) == pytest.approx(sample["last_offset"], abs=6e-4)


@pytest.mark.parametrize("sample", POSES, ids=lambda sample: sample["format"])
def test_real_pose_sample_is_read(shared_data: Path, sample: dict[str, Any]) -> None:
    path = shared_data / sample["file"]
    assert detect_format(path) == sample["format"]
    items = list(read_poses(path, **sample.get("options", {})))
    assert items
    poses = items[0].poses
    read = {
        "recordings": len(items),
        "frames": poses.num_frames,
        "joints": poses.num_joints,
    }
    assert {name: value for name, value in read.items() if name in sample} == {
        name: sample[name] for name in read if name in sample
    }
    if "joint" in sample:
        joint = skeleton(poses.skeleton).joints.index(sample["joint"])
        assert poses.keypoints[0, 0, joint, :2] == pytest.approx(sample["xy"], abs=1e-3)


def test_all_pose_formats_state_coordinates_and_times() -> None:
    formats = {name: FORMATS[name] for name in FORMATS}
    assert not [name for name, format in formats.items() if not (format.coordinates and format.times)]


def test_all_formats_state_their_times() -> None:
    words = ("frame", "second", "clips", "step")
    assert not [name for name, format in segment_formats().items() if not any(word in format.times for word in words)]


def test_times_of_list_presets_follow_the_preset() -> None:
    formats = segment_formats()
    assert formats["ipn-hand"].times == "frames from 1, end inclusive; time 0 is the start of the video"
    assert formats["kinetics"].times == "seconds from the start of the full video on YouTube"
    assert formats["jester"].times == "full clips"
