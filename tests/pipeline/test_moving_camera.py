"""Tests of motion masks with a moving camera."""

from __future__ import annotations

import cv2
import numpy as np
from stage_runs import run_masks, texture

from actionprep.datasets.products.masks import unpack_masks
from actionprep.pipeline.mask_sources.motion import MovingCameraFinder, homography
from actionprep.pipeline.mask_sources.settings import MasksSettings


def hand_held(num_frames: int = 30, height: int = 160, width: int = 220) -> tuple[np.ndarray, np.ndarray]:
    """Return frames of a shaking and panning camera with a moving square, and the masks of the square."""
    noise = np.random.default_rng(0)
    world, square = texture(400, 500, seed=1, grain=3.0), texture(40, 40, seed=5, grain=3.0)
    frames, truth = np.empty((num_frames, height, width), np.uint8), np.zeros((num_frames, height, width), bool)
    for t in range(num_frames):
        x, y = 100 + 2.0 * t + 3 * np.sin(0.7 * t), 100 + 3 * np.cos(0.5 * t)
        turn = cv2.getRotationMatrix2D((x + width / 2, y + height / 2), 2 * np.sin(0.3 * t), 1 + 0.02 * np.sin(0.2 * t))
        turn[:, 2] -= (x, y)
        image = cv2.warpAffine(world, turn, (width, height))
        image[60:100, 30 + 3 * t : 70 + 3 * t] = square
        truth[t, 60:100, 30 + 3 * t : 70 + 3 * t] = True
        frames[t] = np.clip(np.rint(image + noise.normal(0, 1.5, image.shape)), 0, 255)
    return frames, truth


def test_moving_camera_is_compensated():
    frames, truth = hand_held()
    item = run_masks(frames, MasksSettings(camera="moving"))
    foreground = unpack_masks(item["foreground"], frames.shape[2])
    assert foreground[truth].mean() > 0.9
    assert foreground[~truth].mean() < 0.1
    assert "num_mostly_foreground" not in item.attributes
    assert "num_uncompensated" not in item.attributes


def test_static_setting_counts_frames_that_are_mostly_foreground():
    frames, truth = hand_held()
    item = run_masks(frames, MasksSettings())
    assert unpack_masks(item["foreground"], frames.shape[2])[~truth].mean() > 0.6
    assert item.attributes["num_mostly_foreground"] > 20


def test_masks_of_a_moving_camera_do_not_depend_on_blocks():
    frames, _ = hand_held(14)
    expected = run_masks(frames, MasksSettings(camera="moving", window=0.3))
    masks = run_masks(frames, MasksSettings(camera="moving", window=0.3), cuts=[1, 6, 7])
    assert np.array_equal(expected["foreground"], masks["foreground"])


def test_images_without_features_are_counted_as_uncompensated():
    noise = np.random.default_rng(0).normal(100, 1, (10, 64, 96))
    flat = np.clip(noise, 0, 255).astype(np.uint8)
    flat[:] = cv2.GaussianBlur(flat[0], (0, 0), 20)
    item = run_masks(flat, MasksSettings(camera="moving"))
    assert item.attributes["num_uncompensated"] == 9
    assert item.attributes["is_empty"] is True


def test_a_cut_is_not_compared_with_the_scene_before():
    first, second = np.rint(texture(96, 128, seed=1)), np.rint(texture(96, 128, seed=9))
    frames = np.stack([first] * 8 + [second] * 8).astype(np.uint8)
    item = run_masks(frames, MasksSettings(camera="moving"))
    assert not item["foreground"].any()
    assert item.attributes["num_uncompensated"] == 1


def test_homography_is_that_of_a_known_warp():
    image = np.rint(texture(160, 220, seed=1, grain=3.0)).astype(np.uint8)
    truth = np.array([[1.02, 0.03, -4.0], [-0.02, 0.99, 3.0], [0.0001, -0.00005, 1.0]])
    warped = cv2.warpPerspective(image, truth, (220, 160))
    points = np.array([[[20, 20]], [[200, 20]], [[200, 140]], [[20, 140]]], np.float32)
    estimated = cv2.perspectiveTransform(points, homography(image, warped))
    assert np.abs(estimated - cv2.perspectiveTransform(points, truth)).max() < 0.5


def test_memory_of_a_moving_camera_does_not_grow():
    finder = MovingCameraFinder(reach=4, threshold=16, background_frames=300, min_area=0.0005, grow=0.01)
    image = np.rint(texture(40, 60)).astype(np.uint8)
    ready = sum(len(finder.push(np.roll(image, t, axis=1))) for t in range(40))
    assert finder.num_held <= 9
    assert len(finder._steps) == finder.num_held
    assert ready + len(finder.finish()) == 40
