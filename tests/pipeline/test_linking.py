"""People linked over frames, numbered, filled and smoothed."""

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
    """Two people who cross each other and a small one who stands still: places (T, 3, 17, 2)."""
    rng = np.random.default_rng(seed)
    t = np.arange(frames)[:, None, None]
    right = SHAPE + np.concatenate([50 + 8.0 * t, 0 * t + 20], -1)
    left = SHAPE * 1.2 + np.concatenate([300 - 7.0 * t, 0 * t + 45], -1)
    still = np.broadcast_to(SHAPE * 0.4 + [400, 80], (frames, 17, 2))
    return np.stack([right, left, still], 1) + rng.normal(0, 0.5, (frames, 3, 17, 2))


def shuffled(places, seed=0):
    """The same people in random slots of every frame, and the slot of each."""
    rng = np.random.default_rng(seed)
    order = np.array([rng.permutation(places.shape[1]) for _ in places])
    return np.take_along_axis(places, order[..., None, None], 1), order


def poses_of(places, score=None, **more):
    score = np.ones(places.shape[:3]) if score is None else score
    return PoseSequence.of(places, score, skeleton="coco17", **more)


def test_people_in_changing_slots_become_persons_in_order_of_importance():
    places = walkers()
    mixed, _ = shuffled(places)
    done = link(poses_of(mixed))
    assert (done.found, done.dropped) == (3, 0)
    # The tallest is person 0, the small one in the background the last.
    assert np.allclose(done.poses.keypoints, places[:, [1, 0, 2]], atol=1e-4)
    assert (done.poses.track_id == [0, 1, 2]).all()


def test_numbers_do_not_depend_on_the_order_of_slots():
    places = walkers()
    first, second = (link(poses_of(shuffled(places, seed)[0])).poses for seed in (1, 2))
    assert np.array_equal(first.keypoints, second.keypoints)


def test_only_the_most_important_are_kept():
    done = link(poses_of(walkers()), LinkingSettings(persons=1))
    assert done.dropped == 2
    assert np.allclose(done.poses.keypoints[:, 0], walkers()[:, 1], atol=1e-4)


def test_a_person_who_is_lost_for_a_while_keeps_the_number():
    places, score = walkers(), np.ones((30, 3, 17))
    score[10:15, 0] = 0
    poses = link(poses_of(places, score)).poses
    assert poses.num_persons == 3
    assert poses.present[:, 1].tolist() == [True] * 10 + [False] * 5 + [True] * 15


def test_a_person_who_is_lost_for_too_long_is_a_new_one():
    places, score = walkers(), np.ones((30, 3, 17))
    score[10:15, 0] = 0
    assert link(poses_of(places, score), LinkingSettings(memory=3)).found == 4


def test_people_seen_in_too_few_frames_are_dropped_except_in_views_as_short():
    places, score = walkers(), np.ones((30, 3, 17))
    score[2:, 2] = 0
    done = link(poses_of(places, score))
    assert (done.found, done.dropped) == (3, 1)
    short = link(poses_of(places[:2], score[:2]))
    assert (short.found, short.dropped) == (3, 0)


def test_a_person_seen_in_halves_for_one_frame_stays_one_person():
    places = np.concatenate([walkers()[:, 1:2], np.zeros((30, 1, 17, 2))], 1)
    score = np.ones((30, 2, 17))
    score[:, 1] = 0
    # In frame 12 the detector makes two people of one: legs first, then all above the hips.
    places[12, 1] = places[12, 0]
    score[12] = 0
    score[12, 0, 11:], score[12, 1, :11] = 1, 1
    done = link(poses_of(places, score))
    assert done.poses.num_persons == 1
    assert done.poses.present.all()


def test_views_without_anybody_have_one_empty_slot():
    done = link(poses_of(np.zeros((5, 2, 17, 2)), np.zeros((5, 2, 17))))
    assert (done.found, done.poses.num_persons) == (0, 1)
    assert not done.poses.present.any()
    assert link(poses_of(np.zeros((0, 2, 17, 2)), np.zeros((0, 2, 17)))).poses.num_frames == 0


def test_the_assignment_is_the_best_of_all():
    # Two people so close that the nearest first would take the wrong partner.
    one, two = SHAPE + [100, 100], SHAPE + [112, 100]
    places = np.stack([np.stack([one, two]), np.stack([two + [10, 0], one + [10, 0]])])
    poses = poses_of(places)
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

    found = box_iou(np.array(a, float), np.array(b, float))
    for i, one in enumerate(a):
        for j, two in enumerate(b):
            union = cells(one) | cells(two)
            # Boxes that run backwards are empty; counting sees them so by itself.
            assert found[i, j] == pytest.approx(len(cells(one) & cells(two)) / len(union) if union else 0)


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
    places, score = walkers(10)[:, :1], np.full((10, 1, 17), 0.8)
    score[3:6] = 0
    score[2] = 0.5
    done = link(poses_of(places, score), LinkingSettings(fill=3))
    poses = done.poses
    assert done.filled_frames == 3
    assert done.filled_joints == 3 * 17
    assert poses.filled[:, 0].all(-1).tolist() == [False] * 3 + [True] * 3 + [False] * 4
    assert poses.filled.sum() == 3 * 17
    assert poses.track_id[:, 0].tolist() == [0] * 10
    for step, t in enumerate(range(3, 6), 1):
        line = places[2, 0] + (places[6, 0] - places[2, 0]) * step / 4
        assert np.allclose(poses.keypoints[t, 0], line, atol=1e-4)
    assert np.allclose(poses.score[3:6], 0.5)
    assert (poses.bbox[4, 0, 2:] > poses.bbox[4, 0, :2]).all()


def test_gaps_longer_than_the_limit_and_at_the_ends_stay():
    places, score = walkers(10)[:, :1], np.ones((10, 1, 17))
    score[[0, 3, 4, 5, 9]] = 0
    poses = fill_gaps(poses_of(places, score), 2)
    assert poses.present[:, 0].tolist() == [False, True, True, False, False, False, True, True, True, False]


def test_gaps_count_frame_numbers_not_rows():
    places = walkers(4)[:, :1]
    score = np.ones((4, 1, 17))
    score[1] = 0
    near, far = (poses_of(places, score, frame_index=index) for index in ([0, 1, 2, 3], [0, 1, 9, 10]))
    assert fill_gaps(near, 3).present.all()
    assert not fill_gaps(far, 3).present.all()


def test_one_joint_that_is_filled_is_flagged_and_the_others_of_the_person_are_not():
    places, score = walkers(5)[:, :1], np.ones((5, 1, 17))
    score[2, 0, 9] = 0
    done = link(poses_of(places, score), LinkingSettings(fill=1))
    assert done.poses.score[2, 0, 9] == 1
    assert np.argwhere(done.poses.filled).tolist() == [[2, 0, 9]]
    assert (done.filled_frames, done.filled_joints) == (0, 1)


def test_what_is_made_of_filled_joints_is_filled_in_too():
    places, score = walkers(5)[:, :1], np.ones((5, 1, 17))
    score[2, 0, 5] = 0  # the left shoulder, of which the neck is made
    poses, _ = fill_gaps(poses_of(places, score), 1).with_skeleton("coco18")
    layout = skeleton("coco18")
    assert np.argwhere(poses.filled).tolist() == [[2, 0, layout.index("neck")], [2, 0, layout.index("left_shoulder")]]


def test_savitzky_golay_leaves_a_parabola_and_calms_noise():
    t = np.arange(20.0)
    path = np.stack([t**2, 3 * t + 5], -1)[:, None, None] + SHAPE
    how = LinkingSettings(smooth="savgol")
    assert np.allclose(smooth(poses_of(path), how).keypoints, path, atol=1e-2)
    noisy = path + np.random.default_rng(0).normal(0, 2, path.shape)
    calm = smooth(poses_of(noisy), how).keypoints
    assert np.abs(calm - path).mean() < 0.75 * np.abs(noisy - path).mean()


def test_smoothing_does_not_reach_across_gaps():
    places, score = walkers(20)[:, :1], np.ones((20, 1, 17))
    score[10] = 0
    moved = places.copy()
    moved[11:] += 500
    first, second = (smooth(poses_of(p, score), LinkingSettings(smooth="one-euro")).keypoints for p in (places, moved))
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


def test_real_people_of_four_cameras_are_linked_and_the_bystander_kept_apart(shared_data):
    cameras = {item.recording: item.poses for item in read_poses(shared_data / "multiview_pose2sim" / "openpose_json")}
    linked = {name: link(poses).poses for name, poses in cameras.items()}
    # cam01 sees one person in two halves in frame 37, and a bystander at the left edge throughout.
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
