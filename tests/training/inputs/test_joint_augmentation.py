"""Augmentation of joints: each change has its documented effect and range."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from actionprep.datasets.poses.skeletons import skeleton
from actionprep.training.inputs.joint_augmentation import (
    JointAugmentation,
    augment_joints,
    body_frame,
    mirror,
    scale_bones,
    shift_in_time,
)
from actionprep.training.inputs.rng import Draws

COCO, KINECT = skeleton("coco17"), skeleton("kinect20")
OFF = dict.fromkeys(("rotation", "turn", "scale", "noise", "bones", "joint_dropout", "view_dropout"), 0.0)


def joints(layout=COCO, batch=1, views=1, persons=2, frames=6, dims=2):
    rng = np.random.default_rng(0)
    shape = (1, views, persons, frames, layout.num_joints)
    score = rng.uniform(0.2, 1, shape).astype(np.float32)
    score[:, :, 0, 2, 3] = 0
    points = rng.normal(50, 20, (*shape, dims)).astype(np.float32) * (score[..., None] > 0)
    return torch.from_numpy(points).repeat(batch, *[1] * 5), torch.from_numpy(score).repeat(batch, *[1] * 4)


def augmented(points, score, layout=COCO, epoch=0, seed=0, mirrored=False, **settings):
    draws = Draws(seed, epoch, range(len(points)))
    how = JointAugmentation(**{**OFF, **settings})
    return augment_joints(points, score, layout, how, draws, torch.full((len(points),), mirrored))


def spread(values):
    return np.array([np.min(values), np.max(values)])


def changes(layout, dims, **setting):
    """Return the linear maps about the body center and the shifts in body sizes that a setting draws, for many samples."""
    points, score = joints(layout, batch=300, dims=dims)
    center, size = body_frame(points, score)
    new, _ = augmented(points, score, layout, **setting)
    seen = (score[0, 0] > 0).numpy()
    maps, offsets = [], []
    for sample in range(len(points)):
        middle = center[sample, 0].numpy()
        left = points[sample, 0].numpy()[seen] - middle
        right = new[sample, 0].numpy()[seen] - middle
        solved = np.linalg.lstsq(np.concatenate([left, np.ones((len(left), 1))], 1), right, rcond=None)[0]
        maps.append(solved[:dims].T)
        offsets.append(solved[dims] / float(size[sample, 0]))
    return np.array(maps), np.array(offsets)


def test_everything_turned_off_changes_nothing():
    points, score = joints(batch=2)
    new, seen = augmented(points, score)
    torch.testing.assert_close(new, points, atol=1e-4, rtol=1e-5)
    assert torch.equal(seen, score)


def test_the_same_seed_epoch_and_row_give_the_same_change_in_any_batch():
    points, score = joints(batch=3)
    how = JointAugmentation(joint_dropout=0.2, temporal_shift=2, shift=0.1)
    nobody = torch.zeros(3, dtype=torch.bool)
    together = augment_joints(points, score, COCO, how, Draws(1, 2, [5, 6, 7]), nobody)
    alone = augment_joints(points[:1], score[:1], COCO, how, Draws(1, 2, [6]), nobody[:1])
    other = augment_joints(points[:1], score[:1], COCO, how, Draws(1, 3, [6]), nobody[:1])
    torch.testing.assert_close(together[0][1:2], alone[0])
    assert torch.equal(together[1][1:2], alone[1])
    assert not torch.allclose(alone[0], other[0])


def test_rotation_covers_its_range_and_keeps_shapes():
    maps, offsets = changes(COCO, 2, rotation=0.3)
    assert spread(np.arctan2(maps[:, 1, 0], maps[:, 0, 0])) == pytest.approx([-0.3, 0.3], abs=0.01)
    np.testing.assert_allclose(np.linalg.det(maps), 1, atol=1e-4)
    assert np.abs(offsets).max() < 1e-4


def test_a_turn_in_space_fills_the_range_about_the_vertical_only():
    maps, _ = changes(KINECT, 3, turn=0.3)
    assert spread(np.arctan2(maps[:, 2, 0], maps[:, 0, 0])) == pytest.approx([-0.3, 0.3], abs=0.01)
    np.testing.assert_allclose(maps[:, 1], np.tile([0, 1, 0], (300, 1)), atol=1e-4)
    upright, _ = changes(KINECT, 3, turn=0.3, up="z")
    np.testing.assert_allclose(upright[:, 2], np.tile([0, 0, 1], (300, 1)), atol=1e-4)


def test_a_tilt_moves_the_vertical():
    maps, _ = changes(KINECT, 3, tilt=0.2)
    assert np.abs(maps[:, 1, 1] - 1).max() > 0.01
    np.testing.assert_allclose(maps @ maps.transpose(0, 2, 1), np.tile(np.eye(3), (300, 1, 1)), atol=1e-4)


def test_scale_covers_its_range_for_every_axis_separately():
    maps, _ = changes(COCO, 2, scale=0.15)
    for axis in range(2):
        assert spread(maps[:, axis, axis]) == pytest.approx([0.85, 1.15], abs=0.01)
    assert not np.allclose(maps[:, 0, 0], maps[:, 1, 1])


def test_shift_covers_its_range_in_body_sizes():
    maps, offsets = changes(COCO, 2, shift=0.2)
    np.testing.assert_allclose(maps, np.tile(np.eye(2), (300, 1, 1)), atol=1e-3)
    for axis in range(2):
        assert spread(offsets[:, axis]) == pytest.approx([-0.2, 0.2], abs=0.01)


def test_noise_is_normal_with_its_deviation_in_body_sizes():
    points, score = joints(frames=400)
    _, size = body_frame(points, score)
    new, _ = augmented(points, score, noise=0.05)
    off = ((new - points)[score > 0] / size[0, 0]).flatten().numpy()
    assert off.std() == pytest.approx(0.05, rel=0.03)
    assert (np.abs(off) < 0.05).mean() == pytest.approx(0.683, abs=0.01)


def test_a_mirrored_sample_has_sides_exchanged_about_its_center():
    points, score = joints(batch=2)
    new, seen = mirror(points, score, COCO, torch.tensor([True, False]))
    left, right = COCO.index("left_wrist"), COCO.index("right_wrist")
    middle = body_frame(points, score)[0][0, 0, 0]
    torch.testing.assert_close(new[0, ..., left, 0], 2 * middle - points[0, ..., right, 0])
    torch.testing.assert_close(new[0, ..., left, 1], points[0, ..., right, 1])
    assert torch.equal(seen[0, ..., left], score[0, ..., right])
    assert torch.equal(new[1], points[1])


def test_mirroring_twice_gives_the_sample_back():
    points, score = joints()
    both = torch.tensor([True])
    torch.testing.assert_close(mirror(*mirror(points, score, COCO, both), COCO, both)[0], points, atol=1e-4, rtol=1e-5)


def test_bones_change_their_length_and_joints_below_move_along():
    points, _ = joints(KINECT, dims=3)
    score = torch.ones(points.shape[:-1])
    factors = torch.linspace(0.5, 1.5, 20)[None]
    longer = scale_bones(points, score, KINECT, factors)
    torch.testing.assert_close(longer[..., KINECT.root, :], points[..., KINECT.root, :])
    for joint, parent in KINECT.bones:
        old, new = (entry[..., joint, :] - entry[..., parent, :] for entry in (points, longer))
        torch.testing.assert_close(new, old * factors[0, joint], atol=1e-3, rtol=1e-4)


def test_bones_beside_a_missing_joint_keep_their_length():
    points, _ = joints(KINECT, dims=3)
    elbow, wrist, hand = (KINECT.index(f"left_{name}") for name in ("elbow", "wrist", "hand"))
    score = torch.ones(points.shape[:-1])
    score[..., wrist] = 0
    longer = scale_bones(points, score, KINECT, torch.full((1, 20), 2.0))
    before, after = (entry[..., hand, :] - entry[..., elbow, :] for entry in (points, longer))
    torch.testing.assert_close(after, before, atol=1e-3, rtol=1e-4)


@given(st.integers(-9, 9))
def test_a_temporal_shift_moves_time_and_nothing_else(by):
    points, score = joints()
    moved, seen = shift_in_time(points, score, torch.tensor([by]))
    for t in range(6):
        origin = min(max(t - by, 0), 5)
        assert torch.equal(moved[:, :, :, t], points[:, :, :, origin])
        assert torch.equal(seen[:, :, :, t], score[:, :, :, origin])


def test_every_shift_of_the_range_is_drawn():
    points, score = joints(batch=200, persons=1)
    moved, _ = augmented(points, score, temporal_shift=2)
    result = {
        by for by in range(-3, 4) for entry in range(200)
        if torch.allclose(moved[entry], shift_in_time(points[:1], score[:1], torch.tensor([by]))[0][0], atol=1e-3)
    }  # fmt: skip
    assert result == {-2, -1, 0, 1, 2}


def test_joint_dropout_has_its_rate_and_covers_the_full_sample():
    points, score = joints(batch=600)
    _, seen = augmented(points, score, joint_dropout=0.1)
    gone = (seen == 0).all(3)
    assert float(gone.float().mean()) == pytest.approx(0.1, abs=0.01)
    assert bool((gone | (seen == score).all(3)).all())
    _, seen = augmented(points, score, point_dropout=0.2)
    assert float((seen == 0)[score > 0].float().mean()) == pytest.approx(0.2, abs=0.01)


def test_one_person_and_one_view_always_stay():
    points, score = joints(batch=200, views=3)
    score[:, :, 1] = 0
    score[:, 0] = 0
    points = points * (score > 0)[..., None]
    _, seen = augmented(points, score, person_dropout=0.9)
    assert bool((seen > 0).flatten(1).any(1).all())
    _, seen = augmented(points, score, view_dropout=0.9)
    views = (seen > 0).flatten(2).any(-1)
    assert bool(views.any(1).all())
    assert float(views[:, 1:].float().sum(1).mean()) < 1.3


def test_missing_joints_stay_missing_and_at_zero():
    points, score = joints(batch=4)
    new, seen = augmented(points, score, mirrored=True, shift=0.3, noise=0.1, bones=0.2)
    assert not new[seen == 0].any()
    assert int((seen > 0).sum()) == int((score > 0).sum())


def test_a_sample_without_anybody_stays_finite_and_empty():
    points, score = joints(batch=2)
    new, seen = augmented(points * 0, score * 0, rotation=0.3, noise=0.1, bones=0.2, joint_dropout=0.5, shift=0.2)
    assert bool(torch.isfinite(new).all())
    assert not new.any()
    assert not seen.any()
