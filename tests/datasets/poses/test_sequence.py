"""Pose sequences: defaults, and errors for wrong arrays."""

from __future__ import annotations

import math

import numpy as np
import pytest

from actionprep.datasets.poses.sequence import PoseSequence, joint_boxes, pack_persons, score_of_seen
from actionprep.errors import InputError


def joints(frames=4, persons=2):
    return np.random.default_rng(0).uniform(1, 90, (frames, persons, 17, 2))


def test_what_is_not_given_is_filled_in():
    points = joints()
    points[1, 0, 3] = 0
    points[2, 1, 5] = np.nan
    poses = PoseSequence.of(points, skeleton="coco17")
    assert (poses.num_frames, poses.num_persons, poses.num_joints, poses.dimensions) == (4, 2, 17, 2)
    assert poses.score[1, 0, 3] == poses.score[2, 1, 5] == 0
    assert poses.score.sum() == 4 * 2 * 17 - 2
    assert poses.keypoints[2, 1, 5].tolist() == [0, 0]
    assert (poses.track_id == -1).all()
    assert not poses.filled.any()
    assert poses.frame_index.tolist() == [0, 1, 2, 3]


def test_boxes_surround_the_joints_seen():
    points, score = joints(1, 1), np.ones((1, 1, 17))
    score[0, 0, :10] = 0
    box = joint_boxes(points, score)[0, 0]
    assert box == pytest.approx([*points[0, 0, 10:].min(0), *points[0, 0, 10:].max(0)])
    assert joint_boxes(points, score * 0)[0, 0].tolist() == [0, 0, 0, 0]


def test_npz_of_one_person_needs_no_person_axis():
    assert PoseSequence.of(joints()[:, 0], skeleton="coco17").num_persons == 1


def test_empty_frames_are_frames_without_a_person():
    points = joints()
    points[2] = 0
    assert PoseSequence.of(points, skeleton="coco17").present.tolist() == [[True] * 2] * 2 + [[False] * 2, [True] * 2]
    assert PoseSequence.of(np.zeros((0, 1, 17, 2)), skeleton="coco17").num_frames == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keypoints": np.zeros((4, 17))}, r"must have the shape \(frames, persons, joints, 2 or 3\), got \(4, 17\)"),
        ({"keypoints": np.zeros((4, 1, 18, 2))}, "have 18 joints, but skeleton 'coco17' has 17"),
        ({"keypoints": [[1, 2], [3]]}, "is ragged"),
        ({"keypoints": np.full((1, 1, 17, 2), "x")}, "must hold numbers"),
        ({"score": np.ones((4, 2, 16))}, r"score of these poses must have the shape \(4, 2, 17\), got \(4, 2, 16\)"),
        ({"score": -np.ones((4, 2, 17))}, "must be finite and at least 0; frame 0 has -1"),
        ({"bbox": np.ones((4, 2, 3))}, r"'bbox' of these poses must have the shape \(4, 2, 4\)"),
        ({"track_id": np.zeros((4, 2))}, r"Frame 0 of these poses has the same track id twice: \[0, 0\]"),
        ({"frame_index": [0, 1, 1, 2]}, "must rise from frame to frame"),
        ({"time": [0.0, 1.0]}, r"'time' of these poses must have the shape \(4,\)"),
        ({"image_size": (480,)}, r"must be \(height, width\) in pixels"),
    ],
)
def test_wrong_arrays_are_refused_by_name(change, message):
    with pytest.raises(InputError, match=message):
        PoseSequence.of(**{"keypoints": joints(), "skeleton": "coco17", **change})


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_sequence_joint_that_is_not_finite_is_missing(value):
    points = joints().astype(float)
    points[3, 1, 9, 0] = value
    poses = PoseSequence.of(points, np.ones((4, 2, 17)), bbox=np.full((4, 2, 4), value), skeleton="coco17")
    assert np.argwhere(poses.score == 0).tolist() == [[3, 1, 9]]
    assert poses.keypoints[3, 1, 9].tolist() == [0, 0]
    assert np.array_equal(poses.bbox, joint_boxes(poses.keypoints, poses.score))


def test_score_of_seen_agrees_with_a_loop():
    rng = np.random.default_rng(0)
    points = rng.choice([0.0, 1.0, np.nan, np.inf], (50, 3, 2), p=[0.3, 0.5, 0.1, 0.1])
    score = rng.choice([0.0, 0.2, 0.9, np.nan, np.inf, -1.0], (50, 3))
    for given in (None, score):
        seen = score_of_seen(points, given, least=0.3 if given is not None else 0.0)
        for at in np.ndindex(50, 3):
            x, y = points[at]
            value = float(x != 0 or y != 0) if given is None else score[at]
            sound = (
                math.isfinite(x)
                and math.isfinite(y)
                and math.isfinite(value)
                and value >= (0.3 if given is not None else 0)
            )
            assert seen[at] == pytest.approx(value if sound else 0)


def test_nan_without_a_score_is_a_missing_joint():
    points, score = joints(), np.ones((4, 2, 17))
    points[0, 0, 0], score[0, 0, 0] = np.nan, np.nan
    assert PoseSequence.of(points, score, skeleton="coco17").score[0, 0, 0] == 0


def test_frames_are_taken_with_all_their_arrays():
    poses = PoseSequence.of(joints(), skeleton="coco17", time=[0.0, 0.1, 0.25, 0.3])
    part = poses.take([1, 3])
    assert part.frame_index.tolist() == [1, 3]
    assert part.time.tolist() == [0.1, 0.3]
    assert np.array_equal(part.keypoints, poses.keypoints[[1, 3]])


def test_poses_change_their_layout():
    poses, done = PoseSequence.of(joints(), skeleton="coco17").with_skeleton("body25")
    assert poses.num_joints == 25
    assert poses.skeleton == "body25"
    assert "left_heel" in done.missing


def test_people_are_packed_into_as_many_slots_as_the_fullest_frame_needs():
    entry, two = np.full((17, 3), 1.0), np.full((17, 3), 2.0)
    keypoints, score = pack_persons([[entry], [], [entry, two]], 17)
    assert keypoints.shape == (3, 2, 17, 2)
    assert score[:, :, 0].tolist() == [[1, 0], [0, 0], [1, 2]]
