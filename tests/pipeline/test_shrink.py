"""Tests of shrinking images: size, mean, position, and no aliasing."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from stage_runs import texture

from actionprep.pipeline.shrink import shrink


@pytest.mark.parametrize("size", [(160, 120), (113, 85), (320, 240), (300, 200), (40, 30), (7, 5)])
@pytest.mark.parametrize("color", [False, True])
def test_it_is_near_the_mean_over_each_pixel(size, color):
    image = np.rint(texture(240, 320, grain=6)).astype(np.uint8)
    if color:
        image = np.stack([image, 255 - image, image // 2], axis=-1)
    small = shrink(image, size)
    assert small.shape == (size[1], size[0], 3)[: image.ndim]
    assert small.dtype == np.uint8
    area = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    assert np.abs(small.astype(int) - area).mean() < 2


def test_powers_of_two_are_means_of_blocks():
    image = np.random.default_rng(0).integers(0, 255, (64, 96), np.uint8)
    means = image.reshape(16, 4, 24, 4).mean(axis=(1, 3))
    assert np.abs(shrink(image, (24, 16)) - means).max() <= 1


def test_a_fine_pattern_turns_gray():
    stripes = np.zeros((480, 640), np.uint8)
    stripes[:, ::2] = 255
    assert np.abs(shrink(stripes, (213, 160)).astype(int) - 128).max() < 4


def test_a_picture_of_the_right_size_is_copied():
    image = np.zeros((6, 8), np.uint8)
    same = shrink(image, (8, 6))
    same[:] = 1
    assert not image.any()
