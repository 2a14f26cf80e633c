from __future__ import annotations

import numpy as np
import pytest

from actionprep.datasets.poses.raster import pose_raster, poses_in_frames
from actionprep.datasets.poses.sequence import PoseSequence
from actionprep.errors import UserError


def poses(x: float, y: float, size: tuple[int, int] = (100, 200)) -> PoseSequence:
    """One frame with one joint; the others are missing."""
    keypoints, score = np.zeros((1, 1, 17, 2), np.float32), np.zeros((1, 1, 17), np.float32)
    keypoints[0, 0, 0], score[0, 0, 0] = (x, y), 1
    return PoseSequence.of(keypoints, score, skeleton="coco17", time=[0.0], image_size=size)


def pixels(sequence: PoseSequence, frames: dict, size: tuple[int, int]) -> list[list[int]]:
    raster = pose_raster(poses_in_frames(sequence, frames, "lowres/a/0"), np.zeros(1), size=size)
    return np.argwhere(raster[0]).tolist()


def test_joints_in_whole_frames():
    assert pixels(poses(150, 40), {"source_height": 100, "source_width": 200}, (50, 100)) == [[20, 75]]


def test_joints_in_crop_are_where_frames_show_them():
    video = np.zeros((100, 200), np.uint8)
    video[44:48, 132:136] = 1  # the joint is in the middle of this block, which is one pixel of the small frame
    left, top, side = 100, 20, 80
    small = video[top : top + side, left : left + side].reshape(20, 4, 20, 4).max(axis=(1, 3))
    frames = {"source_height": 100, "source_width": 200, "crop": [left, top, side]}
    assert pixels(poses(133.5, 45.5), frames, (20, 20)) == np.argwhere(small).tolist()
    halved = poses((133.5 + 0.5) / 2 - 0.5, (45.5 + 0.5) / 2 - 0.5, size=(50, 100))
    assert pixels(halved, frames, (20, 20)) == np.argwhere(small).tolist()


@pytest.mark.parametrize(("x", "y"), [(90, 50), (181, 50), (150, 10), (150, 100)])
def test_joints_outside_crop_are_left_out(x: float, y: float):
    frames = {"source_height": 100, "source_width": 200, "crop": [100, 20, 80]}
    assert pixels(poses(x, y), frames, (20, 20)) == []


def test_letterboxed_frames_are_refused():
    with pytest.raises(UserError, match=r"lowres/a/0 has 2 letterboxed frames, because its video changes size\."):
        poses_in_frames(poses(1, 1), {"num_letterboxed": 2}, "lowres/a/0")
