"""Tests of linking people over frames, filling gaps and smoothing."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actionprep.datasets.poses.formats import read_poses
from actionprep.datasets.poses.sequence import PoseSequence
from actionprep.datasets.poses.skeletons import joint_positions, skeleton
from actionprep.errors import UserError
from actionprep.pipeline.linking import (
    LinkingSettings,
    box_iou,
    fill_gaps,
    joint_sigmas,
    keypoint_similarity,
    link,
    one_euro,
    smooth,
)

SHAPE = np.array([joint_positions()[joint] for joint in skeleton("coco17").joints]) * 100


def walkers(frames=30, seed=0):
    """Return joints (T, 3, 17, 2) of two people who cross each other, and a small one who stands still."""
    rng = np.random.default_rng(seed)
    t = np.arange(frames)[:, None, None]
    right = SHAPE + np.concatenate([50 + 8.0 * t, 0 * t + 20], -1)
    left = SHAPE * 1.2 + np.concatenate([300 - 7.0 * t, 0 * t + 45], -1)
    still = np.broadcast_to(SHAPE * 0.4 + [400, 80], (frames, 17, 2))
    return np.stack([right, left, still], 1) + rng.normal(0, 0.5, (frames, 3, 17, 2))


def shuffled(joints, seed=0):
    """Return the same people in random slots of every frame, and their slots."""
    rng = np.random.default_rng(seed)
    order = np.array([rng.permutation(joints.shape[1]) for _ in joints])
    return np.take_along_axis(joints, order[..., None, None], 1), order


def poses_of(joints, score=None, **more):
    score = np.ones(joints.shape[:3]) if score is None else score
    return PoseSequence.of(joints, score, skeleton="coco17", **more)


def test_link_orders_persons_by_importance():
    joints = walkers()
    mixed, _ = shuffled(joints)
    linking = link(poses_of(mixed))
    assert (linking.num_found, linking.num_dropped) == (3, 0)
    # The tallest is person 0, and the small one in the background is the last.
    assert np.allclose(linking.poses.keypoints, joints[:, [1, 0, 2]], atol=1e-4)
    assert (linking.poses.track_id == [0, 1, 2]).all()


def test_numbers_do_not_depend_on_the_order_of_slots():
    joints = walkers()
    first, second = (link(poses_of(shuffled(joints, seed)[0])).poses for seed in (1, 2))
    assert np.array_equal(first.keypoints, second.keypoints)


def test_only_the_most_important_are_kept():
    linking = link(poses_of(walkers()), LinkingSettings(persons=1))
    assert linking.num_dropped == 2
    assert np.allclose(linking.poses.keypoints[:, 0], walkers()[:, 1], atol=1e-4)


def test_a_person_who_is_lost_for_a_while_keeps_the_number():
    joints, score = walkers(), np.ones((30, 3, 17))
    score[10:15, 0] = 0
    poses = link(poses_of(joints, score)).poses
    assert poses.num_persons == 3
    assert poses.present[:, 1].tolist() == [True] * 10 + [False] * 5 + [True] * 15


def test_a_person_who_is_lost_for_too_long_is_a_new_one():
    joints, score = walkers(), np.ones((30, 3, 17))
    score[10:15, 0] = 0
    assert link(poses_of(joints, score), LinkingSettings(memory=3)).num_found == 4


def test_people_in_too_few_frames_are_dropped_unless_the_view_is_short():
    joints, score = walkers(), np.ones((30, 3, 17))
    score[2:, 2] = 0
    linking = link(poses_of(joints, score))
    assert (linking.num_found, linking.num_dropped) == (3, 1)
    short = link(poses_of(joints[:2], score[:2]))
    assert (short.num_found, short.num_dropped) == (3, 0)


def test_a_person_seen_in_halves_for_one_frame_stays_one_person():
    joints = np.concatenate([walkers()[:, 1:2], np.zeros((30, 1, 17, 2))], 1)
    score = np.ones((30, 2, 17))
    score[:, 1] = 0
    # In frame 12, the detector splits the person in two: the legs, and everything above the hips.
    joints[12, 1] = joints[12, 0]
    score[12] = 0
    score[12, 0, 11:], score[12, 1, :11] = 1, 1
    linking = link(poses_of(joints, score))
    assert linking.poses.num_persons == 1
    assert linking.poses.present.all()


def test_views_without_anybody_have_one_empty_slot():
    linking = link(poses_of(np.zeros((5, 2, 17, 2)), np.zeros((5, 2, 17))))
    assert (linking.num_found, linking.poses.num_persons) == (0, 1)
    assert not linking.poses.present.any()
    assert link(poses_of(np.zeros((0, 2, 17, 2)), np.zeros((0, 2, 17)))).poses.num_frames == 0


def test_the_assignment_is_the_best_of_all():
    # Two people so close that a greedy assignment would swap them.
    left, right = SHAPE + [100, 100], SHAPE + [112, 100]
    joints = np.stack([np.stack([left, right]), np.stack([right + [10, 0], left + [10, 0]])])
    poses = poses_of(joints)
    best = max(
        itertools.permutations(range(2)),
        key=lambda order: sum(
            box_iou(poses.bbox[0].astype(float), poses.bbox[1].astype(float))[i, j]
            + keypoint_similarity(
                *(poses.keypoints[0], poses.score[0], poses.keypoints[1], poses.score[1]), joint_sigmas(poses)
            )[i, j]
            for i, j in enumerate(order)
        ),
    )
    linked = link(poses, LinkingSettings(least_likeness=0)).poses
    assert np.array_equal(linked.keypoints[1], poses.keypoints[1][list(best)])


boxes = st.lists(st.tuples(*[st.integers(0, 12)] * 4), min_size=1, max_size=4)


@settings(max_examples=100, deadline=None)
@given(boxes, boxes)
def test_iou_equals_counting_cells(a, b):
    def cells(box):
        return {(x, y) for x in range(box[0], box[2]) for y in range(box[1], box[3])}

    iou = box_iou(np.array(a, float), np.array(b, float))
    for i, first in enumerate(a):
        for j, second in enumerate(b):
            union = cells(first) | cells(second)
            # Boxes with right < left are empty; counting cells gives none.
            assert iou[i, j] == pytest.approx(len(cells(first) & cells(second)) / len(union) if union else 0)


def test_keypoint_similarity_is_the_formula_of_coco():
    a, b = SHAPE[None] + 50, SHAPE[None] * 1.1 + 53
    seen_a, seen_b = np.ones((1, 17)), np.ones((1, 17))
    seen_b[0, :5] = 0
    sigmas = joint_sigmas(poses_of(a[None], seen_a[None]))
    area = np.mean([np.prod(np.ptp(points[0][seen[0] > 0], axis=0)) for points, seen in ((a, seen_a), (b, seen_b))])
    distance = ((a - b) ** 2).sum(-1)[0, 5:]
    truth = np.mean(np.exp(-distance / (2 * area * (2 * sigmas[5:]) ** 2)))
    assert keypoint_similarity(a, seen_a, b, seen_b, sigmas)[0, 0] == pytest.approx(truth)
    assert keypoint_similarity(a, seen_a, b, seen_b * 0, sigmas)[0, 0] == 0
    assert sigmas[0] == 0.026


def test_short_gaps_are_filled_on_a_line_and_flagged():
    joints, score = walkers(10)[:, :1], np.full((10, 1, 17), 0.8)
    score[3:6] = 0
    score[2] = 0.5
    linking = link(poses_of(joints, score), LinkingSettings(fill=3))
    poses = linking.poses
    assert linking.num_filled_frames == 3
    assert linking.num_filled_joints == 3 * 17
    assert poses.filled[:, 0].all(-1).tolist() == [False] * 3 + [True] * 3 + [False] * 4
    assert poses.filled.sum() == 3 * 17
    assert poses.track_id[:, 0].tolist() == [0] * 10
    for step, t in enumerate(range(3, 6), 1):
        line = joints[2, 0] + (joints[6, 0] - joints[2, 0]) * step / 4
        assert np.allclose(poses.keypoints[t, 0], line, atol=1e-4)
    assert np.allclose(poses.score[3:6], 0.5)
    assert (poses.bbox[4, 0, 2:] > poses.bbox[4, 0, :2]).all()


def test_gaps_longer_than_the_limit_and_at_the_ends_stay():
    joints, score = walkers(10)[:, :1], np.ones((10, 1, 17))
    score[[0, 3, 4, 5, 9]] = 0
    poses = fill_gaps(poses_of(joints, score), 2)
    assert poses.present[:, 0].tolist() == [False, True, True, False, False, False, True, True, True, False]


def test_gaps_count_frame_numbers_not_rows():
    joints = walkers(4)[:, :1]
    score = np.ones((4, 1, 17))
    score[1] = 0
    near, far = (poses_of(joints, score, frame_index=index) for index in ([0, 1, 2, 3], [0, 1, 9, 10]))
    assert fill_gaps(near, 3).present.all()
    assert not fill_gaps(far, 3).present.all()


def test_only_interpolated_joints_are_flagged_as_filled():
    joints, score = walkers(5)[:, :1], np.ones((5, 1, 17))
    score[2, 0, 9] = 0
    linking = link(poses_of(joints, score), LinkingSettings(fill=1))
    assert linking.poses.score[2, 0, 9] == 1
    assert np.argwhere(linking.poses.filled).tolist() == [[2, 0, 9]]
    assert (linking.num_filled_frames, linking.num_filled_joints) == (0, 1)


def test_joints_derived_from_filled_ones_are_filled():
    joints, score = walkers(5)[:, :1], np.ones((5, 1, 17))
    score[2, 0, 5] = 0  # the left shoulder, which the neck is derived from
    poses, _ = fill_gaps(poses_of(joints, score), 1).with_skeleton("coco18")
    layout = skeleton("coco18")
    assert np.argwhere(poses.filled).tolist() == [[2, 0, layout.index("neck")], [2, 0, layout.index("left_shoulder")]]


def test_savitzky_golay_leaves_a_parabola_and_calms_noise():
    t = np.arange(20.0)
    path = np.stack([t**2, 3 * t + 5], -1)[:, None, None] + SHAPE
    savgol = LinkingSettings(smooth="savgol")
    assert np.allclose(smooth(poses_of(path), savgol).keypoints, path, atol=1e-2)
    noisy = path + np.random.default_rng(0).normal(0, 2, path.shape)
    calm = smooth(poses_of(noisy), savgol).keypoints
    assert np.abs(calm - path).mean() < 0.75 * np.abs(noisy - path).mean()


def test_smoothing_does_not_reach_across_gaps():
    joints, score = walkers(20)[:, :1], np.ones((20, 1, 17))
    score[10] = 0
    moved = joints.copy()
    moved[11:] += 500
    first, second = (smooth(poses_of(p, score), LinkingSettings(smooth="one-euro")).keypoints for p in (joints, moved))
    assert np.allclose(first[:10], second[:10], atol=1e-3)
    assert np.allclose(second[11:] - first[11:], 500, atol=1e-2)


def test_the_one_euro_filter_keeps_rest_still_and_follows_speed():
    time = np.arange(60) / 30
    jitter = np.random.default_rng(0).normal(0, 1, (60, 1))
    assert one_euro(jitter, time, 1.0, 0.0).std() < 0.5 * jitter.std()
    ramp = time[:, None] * 300
    lazy, quick = (one_euro(ramp, time, 1.0, beta) for beta in (0.0, 0.1))
    assert np.abs(quick - ramp)[-1] < 0.3 * np.abs(lazy - ramp)[-1]
    assert np.allclose(one_euro(np.full((9, 2), 7.0), time[:9], 1.0, 0.1), 7)


def test_an_even_window_is_refused():
    with pytest.raises(UserError, match="an odd window longer than its order, got window 6 and order 2"):
        smooth(poses_of(walkers(5)), LinkingSettings(smooth="savgol", savgol_window=6))


def test_link_separates_a_bystander_in_real_recordings(shared_data):
    cameras = {item.recording: item.poses for item in read_poses(shared_data / "multiview_pose2sim" / "openpose_json")}
    linked = {name: link(poses).poses for name, poses in cameras.items()}
    # In cam01, one person is detected in two halves in frame 37, and a bystander stands at the left edge.
    assert {name: poses.present.sum(0).tolist() for name, poses in linked.items()} == {
        "cam01": [100, 100],
        "cam02": [100, 100],
        "cam03": [100],
        "cam04": [100],
    }
    for poses in linked.values():
        both = (poses.score[1:] > 0) & (poses.score[:-1] > 0)
        step = np.linalg.norm(np.diff(poses.keypoints, axis=0), axis=-1)
        assert np.nanmax(np.nanmedian(np.where(both, step, np.nan), -1)) < 15
    for name in ("cam01", "cam02"):
        area = np.prod(linked[name].bbox[..., 2:] - linked[name].bbox[..., :2], -1)
        assert (np.delete(area[:, 0] / area[:, 1], 37) > 2).all()
