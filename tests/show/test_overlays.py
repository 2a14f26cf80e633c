"""Tracks, masks and skeletons are drawn at their positions and in their colors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actionprep.datasets.poses.skeletons import skeleton
from actionprep.show.colors import LOST, person_color
from actionprep.show.overlays import draw_mask, draw_skeletons, draw_tracks, draw_volume, quieted, scaled

GRAY = 90
RED = (250, 20, 20)


def plain(height: int = 100, width: int = 160) -> np.ndarray:
    return np.full((height, width, 3), GRAY, np.uint8)


def is_color(pixel: np.ndarray, color: tuple[int, int, int], within: int = 3) -> bool:
    return bool(np.abs(pixel.astype(int) - color).max() <= within)


def tracks(*places: tuple[float, float], seen: bool = True) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A point that moved through these positions."""
    xy = np.array(places, np.float32)[:, None]
    return xy, np.full(xy.shape[:2], seen), np.array([RED], np.uint8)


def test_a_visible_point_is_a_dot_of_its_color_at_its_place() -> None:
    drawn = draw_tracks(plain(), *tracks((40, 30)))
    assert is_color(drawn[30, 40], RED)
    assert is_color(drawn[30, 50], (GRAY,) * 3)
    changed = np.argwhere((drawn != GRAY).any(axis=2))
    assert np.allclose(changed.mean(axis=0), (30, 40), atol=0.1)


def test_a_dot_between_pixels_has_its_weight_there() -> None:
    drawn = draw_tracks(plain(), *tracks((40.5, 30.25))).astype(float)
    weight = np.abs(drawn - GRAY).sum(axis=2)
    y, x = np.indices(weight.shape)
    assert (weight * x).sum() / weight.sum() == pytest.approx(40.5, abs=0.15)
    assert (weight * y).sum() / weight.sum() == pytest.approx(30.25, abs=0.15)


def test_a_lost_point_is_a_gray_ring() -> None:
    drawn = draw_tracks(plain(), *tracks((40, 30), seen=False))
    assert is_color(drawn[30, 40], (GRAY,) * 3, within=40)
    ring = drawn[26:35, 36:45].reshape(-1, 3)
    assert any(is_color(pixel, LOST, within=30) for pixel in ring)
    assert not any(is_color(pixel, RED, within=60) for pixel in ring)


def test_a_trail_has_the_color_while_seen_and_is_gray_while_lost() -> None:
    xy = np.array([(20, 50), (60, 50), (100, 50), (140, 50)], np.float32)[:, None]
    seen = np.array([True, True, False, False])[:, None]
    drawn = draw_tracks(plain(), xy, seen, np.array([RED], np.uint8)).astype(int)
    red_over_blue = drawn[50, :, 0] - drawn[50, :, 2]
    assert red_over_blue[30:55].min() > 40
    assert np.abs(red_over_blue[65:135]).max() <= 10
    assert (drawn[50, 105:130, 0] > GRAY + 20).all()


def test_a_trail_fades_with_age() -> None:
    places = [(20 + 30 * step, 50) for step in range(5)]
    drawn = draw_tracks(plain(), *tracks(*places)).astype(int)
    strength = [drawn[50, 35 + 30 * step, 0] - GRAY for step in range(4)]
    assert strength == sorted(strength)
    assert strength[0] > 0
    assert strength[3] > 2 * strength[0]


def test_overlays_do_not_change_the_input_image() -> None:
    image = plain()
    draw_tracks(image, *tracks((40, 30), (60, 30)))
    draw_mask(image, np.ones((100, 160), bool))
    quieted(image)
    assert (image == GRAY).all()


def test_points_without_a_place_or_far_outside_are_no_harm() -> None:
    xy = np.array([[[np.nan, np.nan], [1e9, -1e9], [-50, 20], [40, 30]]], np.float32).repeat(3, axis=0)
    seen = np.ones(xy.shape[:2], bool)
    drawn = draw_tracks(plain(), xy, seen, np.tile(np.uint8(RED), (4, 1)))
    assert is_color(drawn[30, 40], RED)
    assert (drawn[:, 60:] == GRAY).all()


@given(x=st.floats(0, 640), y=st.floats(0, 480), across=st.sampled_from([0.25, 0.5, 1.0, 2.0]), down=st.floats(0.1, 3))
def test_scaling_keeps_the_place_as_a_share_of_the_image(x: float, y: float, across: float, down: float) -> None:
    placed = scaled(np.array([x, y]), (across, down))
    assert (placed[0] + 0.5) / (640 * across) == pytest.approx((x + 0.5) / 640, abs=1e-5)
    assert (placed[1] + 0.5) / (480 * down) == pytest.approx((y + 0.5) / 480, abs=1e-5)


def test_foreground_is_tinted_and_outlined_and_the_rest_is_darker() -> None:
    foreground = np.zeros((100, 160), bool)
    foreground[20:80, 40:120] = True
    drawn = draw_mask(plain(), foreground, color=(0, 200, 100)).astype(int)
    assert drawn[50, 80, 1] > GRAY
    assert drawn[50, 80, 0] < GRAY
    assert (drawn[5, 5] < GRAY).all()
    assert drawn[20, 80].sum() > drawn[50, 80].sum() + 100


def test_a_mask_of_another_size_lies_in_the_same_place() -> None:
    small = np.zeros((50, 80), bool)
    small[10:40, 20:60] = True
    drawn = draw_mask(plain(), small).astype(int)
    darker = (drawn < GRAY).all(axis=2)
    assert not darker[24:76, 44:116].any()
    assert darker[:17].all()
    assert darker[:, :37].all()


def standing(place: float = 80.0) -> tuple[np.ndarray, np.ndarray]:
    """A person of skeleton coco17 with all joints on a separate lattice, and the scores."""
    rng = np.random.default_rng(0)
    keypoints = np.stack([place + rng.uniform(-30, 30, 17), np.linspace(30, 90, 17)], axis=1)[None]
    return keypoints.astype(np.float32), np.ones((1, 17), np.float32)


def test_limbs_and_joints_have_the_colors_of_their_side() -> None:
    layout = skeleton("coco17")
    keypoints, score = np.zeros((1, 17, 2), np.float32), np.zeros((1, 17), np.float32)
    left, right = layout.index("left_shoulder"), layout.index("left_elbow")
    keypoints[0, left], keypoints[0, right] = (40, 200), (320, 200)
    score[0, [left, right]] = 0.9
    drawn = draw_skeletons(plain(400, 400), keypoints, score, layout)
    assert is_color(drawn[200, 160], layout.joint_colors[left])
    assert is_color(drawn[200, 40], layout.joint_colors[left])
    assert is_color(drawn[200, 350], (GRAY,) * 3)


def test_joints_with_a_low_score_are_rings_and_missing_ones_are_left_out() -> None:
    layout = skeleton("coco17")
    keypoints, score = np.zeros((1, 17, 2), np.float32), np.zeros((1, 17), np.float32)
    keypoints[0, 0], keypoints[0, 1], keypoints[0, 2] = (40, 60), (80, 60), (120, 60)
    score[0, :3] = 0.9, 0.2, 0.0
    lone = layout.__class__(layout.name, layout.joints, (), layout.symmetric, layout.root)
    drawn = draw_skeletons(plain(), keypoints, score, lone)
    assert is_color(drawn[60, 40], lone.joint_colors[0])
    assert is_color(drawn[60, 80], (GRAY,) * 3, within=10)
    assert (drawn[57:64, 77:84] != GRAY).any()
    assert (drawn[50:70, 110:130] == GRAY).all()


def test_overlays_tag_each_person_in_a_different_color() -> None:
    keypoints, score = standing()
    both, scores = np.concatenate([keypoints - (40, 0), keypoints + (40, 0)]), np.concatenate([score, score])
    drawn = draw_skeletons(plain(), both, scores, skeleton("coco17"), track_id=[3, 8])
    for number in (3, 8):
        assert (np.abs(drawn.astype(int) - person_color(number)).max(axis=2) <= 2).sum() > 50
    assert person_color(3) != person_color(8)


def test_a_person_that_was_filled_in_is_hollow() -> None:
    keypoints, score = standing()
    layout, nose = skeleton("coco17"), keypoints[0, 0] * 4
    score[0, 1:] = 0
    x, y = nose.round().astype(int)
    for filled in (False, True):
        drawn = draw_skeletons(plain(400, 640), keypoints * 4, score, layout, filled=np.full((1, 17), filled))
        assert is_color(drawn[y, x], layout.joint_colors[0], within=10) != filled


def test_joints_far_outside_and_not_finite_are_no_harm() -> None:
    keypoints, score = standing()
    keypoints[0, 3], keypoints[0, 4] = (1e12, -1e12), (np.nan, np.nan)
    drawn = draw_skeletons(plain(), keypoints, score, skeleton("coco17"), track_id=[0], bbox=np.full((1, 4), np.inf))
    assert drawn.shape == (100, 160, 3)


def test_a_volume_shows_the_strongest_channel_in_its_color() -> None:
    frame = np.zeros((2, 4, 5), np.float32)
    frame[0, 1, 1], frame[1, 1, 1], frame[1, 3, 4] = 0.9, 0.2, 0.5
    drawn = draw_volume(frame, np.array([(200, 0, 0), (0, 0, 200)]), (40, 50)).astype(int)
    assert drawn[15, 15, 0] > drawn[15, 15, 2] + 40
    assert drawn[35, 45, 2] > drawn[35, 45, 0] + 40
    assert (drawn[5, 5] == drawn[25, 25]).all()
    assert (drawn[10:20, 10:20] == drawn[15, 15]).all()
