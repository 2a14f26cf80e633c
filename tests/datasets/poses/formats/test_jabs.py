"""Pose files of JABS."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from pose_h5_files import jabs_file

from actionprep.datasets.poses.formats import detect_format, read_poses
from actionprep.datasets.poses.skeletons import skeleton
from actionprep.errors import InputError


def test_jabs_version_2_has_one_animal(tmp_path: Path) -> None:
    path = jabs_file(tmp_path / "cage_4_pose_est_v2.h5")
    assert detect_format(path) == "jabs"
    [item] = read_poses(path)
    poses = item.poses
    assert item.recording == "cage_4"
    assert poses.keypoints.shape == (3, 1, 12, 2)
    assert poses.keypoints[2, 0, 3] == pytest.approx([30, 102])
    assert skeleton(poses.skeleton).joints[3] == "base_neck"
    assert poses.score[:, 0, 3] == pytest.approx([0.5] * 3)
    assert (poses.score[:, 0, 11] == 0).all()


@pytest.mark.parametrize(
    ("version", "expected"), [(3, [{4, 7}, {4}, {4, 7}]), (4, [{0, 1}, {0}, {0, 1}]), (5, [{0, 1}, {0}, {0, 1}])]
)
def test_jabs_animals_keep_their_number(tmp_path: Path, version: int, expected: list[set[int]]) -> None:
    [item] = read_poses(jabs_file(tmp_path / f"a_pose_est_v{version}.h5", version))
    track = item.poses.track_id
    assert [set(row[row >= 0].tolist()) for row in track] == expected
    # The first instance of the last frame is the second animal.
    second = max(expected[0])
    [place] = np.flatnonzero(track[2] == second)
    assert item.poses.keypoints[2, place, 5, 0] == pytest.approx(50)


def test_jabs_damaged_file_names_the_shapes(tmp_path: Path) -> None:
    path = jabs_file(tmp_path / "a_pose_est_v2.h5")
    with h5py.File(path, "r+") as file:
        del file["poseest/confidence"]
        file["poseest/confidence"] = np.zeros((3, 11))
    with pytest.raises(InputError) as caught:
        list(read_poses(path))
    assert str(caught.value) == (
        f"'poseest/points' and 'poseest/confidence' in {path} have the shapes (3, 1, 12, 2) and (3, 1, 11); expected "
        "(frames, animals, 12, 2) and (frames, animals, 12)."
    )


def test_real_jabs_file(shared_data: Path) -> None:
    path = shared_data / "foreign/jabs/sample_pose_est_v2.h5"
    [item] = read_poses(path)
    assert item.poses.num_frames == 1800
    assert item.poses.keypoints[0, 0, 0] == pytest.approx([125, 93])  # stored as [93, 125]
    assert item.poses.score[0, 0, 0] == pytest.approx(0.975244)
