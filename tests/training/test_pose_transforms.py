"""Sampling of frames and augmentation of joints: each does what it says, in the range that it says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actionprep.datasets.poses import PoseSequence
from actionprep.datasets.skeletons import skeleton
from actionprep.errors import UserError
from actionprep.training.pose_transforms import (
    PoseAugmentation,
    body_frame,
    centre_frames,
    flip,
    random_box,
    resample,
    rotate,
    sample_arrays,
    sample_rng,
    scale_bones,
    spread_clips,
    temporal_shift,
    uniform_frames,
    warped_times,
)

COCO, KINECT = skeleton("coco17"), skeleton("kinect20")
OFF = {
    "rotate": 0, "scale": 0, "noise": 0, "bones": 0, "flip": 0, "joint_dropout": 0, "shift": 0, "tilt": 0
}  # fmt: skip


def joints(layout=COCO, persons=2, frames=6, dims=2, seed=0):
    rng = np.random.default_rng(seed)
    score = rng.uniform(0.2, 1, (persons, frames, layout.num_joints)).astype(np.float32)
    score[0, 2, 3] = 0
    keypoints = rng.normal(50, 20, (*score.shape, dims)).astype(np.float32)
    return np.where(score[..., None] > 0, keypoints, 0).astype(np.float32), score


lengths = st.integers(1, 60), st.integers(1, 30), st.integers(0, 2**31)


@settings(max_examples=200, deadline=None)
@given(*lengths)
def test_uniform_frames_follow_the_published_rules(num_frames, clip_len, seed):
    frames = uniform_frames(num_frames, clip_len, np.random.default_rng(seed))
    assert frames.shape == (clip_len,)
    assert frames.min() >= 0
    assert frames.max() < num_frames
    steps = np.diff(frames)
    if num_frames < clip_len:
        assert set(steps) <= {1, 1 - num_frames}
    elif num_frames < 2 * clip_len:
        assert set(steps) <= {1, 2}
    else:
        for segment, frame in enumerate(frames):
            assert segment * num_frames // clip_len <= frame < (segment + 1) * num_frames // clip_len


def test_uniform_frames_reach_every_frame():
    rng = np.random.default_rng(0)
    for num_frames in (5, 10, 15, 23):
        drawn = {int(frame) for _ in range(300) for frame in uniform_frames(num_frames, 10, rng)}
        assert drawn == set(range(num_frames))


@settings(max_examples=100, deadline=None)
@given(*lengths)
def test_the_centre_of_every_segment_is_taken_without_chance(num_frames, clip_len, seed):
    frames = centre_frames(num_frames, clip_len)
    for segment, frame in enumerate(frames.tolist()):
        middle = (2 * segment + 1) * num_frames / (2 * clip_len)
        assert frame == int(middle)


def test_test_clips_differ_and_stay_in_their_segments():
    clips = spread_clips(100, 10, 5)
    assert clips.shape == (5, 10)
    assert clips[:, 0].tolist() == [1, 3, 5, 7, 9]
    assert (clips // 10 == np.arange(10)).all()


def test_clips_of_nothing_are_refused():
    with pytest.raises(UserError, match="got 0 frames and a clip length of 8"):
        centre_frames(0, 8)
    with pytest.raises(UserError, match="number of test clips must be at least 1, got 0"):
        spread_clips(5, 8, 0)


@settings(max_examples=100, deadline=None)
@given(*lengths, st.floats(0, 0.95))
def test_warped_times_rise_and_keep_to_the_crop(num_frames, clip_len, seed, warp):
    times = warped_times(num_frames, clip_len, np.random.default_rng(seed), crop=(0.5, 0.8), warp=warp)
    assert times.min() >= 0
    assert times.max() <= num_frames - 1
    assert (np.diff(times) >= 0).all()
    if clip_len > 1:
        assert times[-1] - times[0] <= 0.8 * (num_frames - 1) + 1e-9


def test_resampling_is_linear_and_passes_over_missing_joints():
    keypoints = np.arange(4, dtype=np.float32).reshape(1, 4, 1, 1) * 10
    score = np.array([1, 1, 0, 1], np.float32).reshape(1, 4, 1)
    new, seen = resample(keypoints, score, np.array([0, 0.25, 1.5, 2.0, 2.5, 3.0]))
    assert new.ravel().tolist() == [0, 2.5, 10, 20, 30, 30]
    assert seen.ravel().tolist() == [1, 1, 1, 0, 1, 1]


def test_whole_times_give_the_frames_themselves():
    keypoints, score = joints()
    new, seen = resample(keypoints, score, np.arange(6.0))
    assert np.array_equal(new, keypoints)
    assert np.array_equal(seen, score)


@given(st.integers(-9, 9))
def test_a_temporal_shift_moves_time_and_nothing_else(frames):
    keypoints, score = joints()
    moved, seen = temporal_shift(keypoints, score, frames)
    for t in range(6):
        origin = min(max(t - frames, 0), 5)
        assert np.array_equal(moved[:, t], keypoints[:, origin])
        assert np.array_equal(seen[:, t], score[:, origin])


def test_rotation_keeps_distances_to_the_body_centre_and_turns_by_the_angle():
    keypoints, score = joints()
    centre, _ = body_frame(keypoints, score)
    turned = rotate(keypoints, 0.3, centre)
    before = (keypoints - centre) @ np.array([1, 1j])
    after = (turned - centre) @ np.array([1, 1j])
    assert np.allclose(after / before, np.exp(0.3j), atol=1e-4)


def test_rotation_in_space_keeps_heights():
    keypoints, score = joints(KINECT, dims=3)
    centre, _ = body_frame(keypoints, score)
    turned = rotate(keypoints, 0.7, centre)
    assert np.allclose(turned[..., 1], keypoints[..., 1], atol=1e-3)
    assert np.allclose(np.linalg.norm(turned - centre, axis=-1), np.linalg.norm(keypoints - centre, axis=-1), atol=1e-3)
    assert not np.allclose(turned[..., 0], keypoints[..., 0])


def test_a_flip_exchanges_sides_about_the_line():
    keypoints, score = joints()
    mirrored, seen = flip(keypoints, score, COCO, 50)
    left, right = COCO.index("left_wrist"), COCO.index("right_wrist")
    assert np.allclose(mirrored[..., left, 0], 100 - keypoints[..., right, 0])
    assert np.allclose(mirrored[..., left, 1], keypoints[..., right, 1])
    assert np.array_equal(seen[..., left], score[..., right])


def test_bones_change_their_length_and_joints_below_move_along():
    keypoints, score = joints(KINECT, dims=3)
    score[:] = 1
    factors = np.random.default_rng(1).uniform(0.5, 1.5, 20).astype(np.float32)
    longer = scale_bones(keypoints, score, KINECT, factors)
    assert np.array_equal(longer[..., KINECT.root, :], keypoints[..., KINECT.root, :])
    for joint, parent in KINECT.bones:
        old, new = (points[..., joint, :] - points[..., parent, :] for points in (keypoints, longer))
        assert np.allclose(new, old * factors[joint], atol=1e-3)


def test_bones_beside_a_missing_joint_keep_their_length():
    keypoints, score = joints(KINECT, dims=3)
    elbow, wrist, hand = (KINECT.index(f"left_{name}") for name in ("elbow", "wrist", "hand"))
    score[:, :, wrist] = 0
    longer = scale_bones(keypoints, score, KINECT, np.full(20, 2, np.float32))
    assert np.allclose(
        longer[..., hand, :] - longer[..., elbow, :], keypoints[..., hand, :] - keypoints[..., elbow, :], atol=1e-3
    )


def test_the_same_seed_epoch_and_sample_give_the_same_change():
    keypoints, score = joints()
    augment = PoseAugmentation(joint_dropout=0.2, temporal_shift=2, shift=0.1)
    first, again, other = (augment(keypoints, score, COCO, sample_rng(1, 2, sample)) for sample in (3, 3, 4))
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])


def test_everything_turned_off_changes_nothing():
    keypoints, score = joints()
    new, seen = PoseAugmentation(**OFF)(keypoints, score, COCO, sample_rng(0, 0, 0))
    assert np.allclose(new, keypoints, atol=1e-4)
    assert np.array_equal(seen, score)


def spread(values):
    return np.array([np.min(values), np.max(values)])


def changes(layout, dims, **setting):
    """Linear maps about the body centre and shifts that one setting draws, over many samples."""
    keypoints, score = joints(layout, dims=dims)
    centre, size = body_frame(keypoints, score)
    seen = score > 0
    augment = PoseAugmentation(**{**OFF, **setting})
    maps, offsets = [], []
    for sample in range(300):
        new, _ = augment(keypoints, score, layout, sample_rng(0, 0, sample))
        left = np.concatenate([keypoints[seen] - centre, np.ones((seen.sum(), 1))], 1)
        solved = np.linalg.lstsq(left, new[seen] - centre, rcond=None)[0]
        maps.append(solved[:dims].T)
        offsets.append(solved[dims] / size)
    return np.array(maps), np.array(offsets)


def test_rotation_fills_the_range_that_it_says():
    maps, offsets = changes(COCO, 2, rotate=0.3)
    angles = np.arctan2(maps[:, 1, 0], maps[:, 0, 0])
    assert spread(angles) == pytest.approx([-0.3, 0.3], abs=0.01)
    assert np.allclose(np.linalg.det(maps), 1, atol=1e-4)
    assert np.abs(offsets).max() < 1e-4


def test_rotation_in_space_fills_the_range_about_the_vertical_only():
    maps, _ = changes(KINECT, 3, rotate=0.3)
    assert spread(np.arctan2(maps[:, 2, 0], maps[:, 0, 0])) == pytest.approx([-0.3, 0.3], abs=0.01)
    assert np.allclose(maps[:, 1], [0, 1, 0], atol=1e-4)


def test_scale_fills_the_range_that_it_says_for_every_axis():
    maps, _ = changes(COCO, 2, scale=0.15)
    for axis in range(2):
        assert spread(maps[:, axis, axis]) == pytest.approx([0.85, 1.15], abs=0.01)
    assert not np.allclose(maps[:, 0, 0], maps[:, 1, 1])
    together, _ = changes(COCO, 2, scale=0.15, scale_axes=False)
    assert np.allclose(together[:, 0, 0], together[:, 1, 1], atol=1e-4)


def test_shift_fills_the_range_that_it_says_in_body_sizes():
    maps, offsets = changes(COCO, 2, shift=0.2)
    assert np.allclose(maps, np.eye(2), atol=1e-3)
    for axis in range(2):
        assert spread(offsets[:, axis]) == pytest.approx([-0.2, 0.2], abs=0.01)


def test_noise_has_the_deviation_that_it_says_in_body_sizes():
    keypoints, score = joints(frames=200)
    _, size = body_frame(keypoints, score)
    new, _ = PoseAugmentation(**{**OFF, "noise": 0.05})(keypoints, score, COCO, sample_rng(0, 0, 0))
    assert (new - keypoints)[score > 0].std() / size == pytest.approx(0.05, rel=0.03)


def test_flips_and_drop_outs_come_as_often_as_they_say():
    keypoints, score = joints(frames=3)
    flips, missing, points = 0, [], []
    for sample in range(600):
        new, _ = PoseAugmentation(**{**OFF, "flip": 0.25})(keypoints, score, COCO, sample_rng(0, 0, sample))
        flips += not np.allclose(new, keypoints, atol=1e-3)
        _, seen = PoseAugmentation(**{**OFF, "joint_dropout": 0.1})(keypoints, score, COCO, sample_rng(0, 1, sample))
        missing.append((seen == 0).all(1))
        assert ((seen == 0).all(1) | (seen == score).all(1)).all()
        _, seen = PoseAugmentation(**{**OFF, "point_dropout": 0.2})(keypoints, score, COCO, sample_rng(0, 2, sample))
        points.append((seen == 0)[score > 0])
    assert flips / 600 == pytest.approx(0.25, abs=0.05)
    assert np.mean(missing) == pytest.approx(0.1, abs=0.01)
    assert np.mean(points) == pytest.approx(0.2, abs=0.01)


def test_one_person_always_stays():
    keypoints, score = joints()
    score[1] = 0
    for sample in range(50):
        _, seen = PoseAugmentation(**{**OFF, "person_dropout": 0.9})(keypoints, score, COCO, sample_rng(0, 0, sample))
        assert seen[0].any()


def test_missing_joints_stay_missing_and_at_zero():
    keypoints, score = joints()
    new, seen = PoseAugmentation(flip=0, shift=0.3)(keypoints, score, COCO, sample_rng(0, 0, 5))
    assert (new[seen == 0] == 0).all()
    assert (seen[score == 0] == 0).all()


def test_random_boxes_lie_inside_and_fill_the_range_of_areas():
    rng = np.random.default_rng(0)
    boxes = np.array([random_box(np.array([10.0, 20.0, 110.0, 120.0]), rng) for _ in range(500)])
    assert boxes[:, 0].min() >= 10
    assert boxes[:, 3].max() <= 120
    sides = boxes[:, 2:] - boxes[:, :2]
    assert spread(sides.prod(1) / 1e4) == pytest.approx([0.56, 1.0], abs=0.06)
    assert (sides[:, 0] / sides[:, 1]).min() >= 0.75 - 1e-9


def test_linked_persons_become_rows_of_their_own():
    score = np.ones((3, 2, 17))
    score[1, 1] = 0
    points = np.zeros((3, 2, 17, 2))
    points[..., 0] = np.array([[1, 2], [2, 9], [2, 1]])[..., None]
    poses = PoseSequence.of(points, score, skeleton="coco17", track_id=[[4, 7], [7, -1], [7, 4]])
    keypoints, seen = sample_arrays(poses)
    assert keypoints[:, :, 0, 0].tolist() == [[1, 0, 1], [2, 2, 2]]
    assert seen[:, :, 0].tolist() == [[1, 0, 1], [1, 1, 1]]
    kept, _ = sample_arrays(poses, persons=1)
    assert kept[:, :, 0, 0].tolist() == [[2, 2, 2]]
    assert sample_arrays(poses, persons=3)[0].shape == (3, 3, 17, 2)


def test_frames_without_anybody_are_left_out_unless_there_are_no_others():
    score = np.ones((4, 1, 17))
    score[[0, 2]] = 0
    points = np.ones((4, 1, 17, 2))
    assert sample_arrays(PoseSequence.of(points, score, skeleton="coco17"))[0].shape[1] == 2
    assert sample_arrays(PoseSequence.of(points, score, skeleton="coco17"), drop_empty=False)[0].shape[1] == 4
    assert sample_arrays(PoseSequence.of(points, score * 0, skeleton="coco17"))[0].shape[1] == 4
