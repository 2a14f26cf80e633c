"""Clips that show the same event, drawn as bright spots that move over a fixed background."""

from __future__ import annotations

import numpy as np
import pytest
from moving_spots import BACKGROUND, spots

from actionprep.pipeline.near_duplicates import ClipPrint, CropSearch, NearDuplicate, better, shrunk, threshold
from actionprep.pipeline.stage import ArrayBlock


def print_of(frames: np.ndarray, times: np.ndarray) -> ClipPrint:
    rgb = np.repeat(frames[..., None], 3, axis=-1)
    return ClipPrint.of_frames(shrunk(ArrayBlock(rgb, time=times)), times)


TIMES = np.arange(60) / 20
ORIGINAL = print_of(spots(1, TIMES), TIMES)


def test_crop_search_finds_noisy_copy():
    noise = np.random.default_rng(2).normal(0, 4, (60, 144, 192))
    copy = (spots(1, TIMES) * 0.8 + 20 + noise).clip(0, 255).astype(np.uint8)
    match = CropSearch(ORIGINAL).find(print_of(copy, TIMES), similarity=0.9)
    assert match is not None
    assert match.shift == pytest.approx(0, abs=0.02)
    assert match.crop == pytest.approx((0, 0, 1, 1), abs=0.02)
    assert match.overlap == pytest.approx(3.0, abs=0.1)


@pytest.mark.parametrize("start", [0.4, 1.0])
def test_crop_search_finds_shift(start):
    # At other frame times than the original.
    times = np.arange(start, 3.0, 1 / 25)
    match = CropSearch(ORIGINAL).find(print_of(spots(1, times), times - start), similarity=0.9)
    assert match is not None
    assert match.shift == pytest.approx(start, abs=0.04)


@pytest.mark.parametrize("crop", [(0.1, 0.1, 0.9, 0.9), (0.0, 0.0, 0.8, 0.8), (0.2, 0.1, 0.9, 0.85)])
def test_crop_search_finds_crop(crop):
    left, top, right, bottom = (round(edge * size) for edge, size in zip(crop, (192, 144, 192, 144), strict=True))
    match = CropSearch(ORIGINAL).find(print_of(spots(1, TIMES)[:, top:bottom, left:right], TIMES), similarity=0.9)
    assert match is not None
    assert match.crop == pytest.approx(crop, abs=0.03)


def test_crop_search_keeps_other_events_apart():
    search = CropSearch(ORIGINAL)
    for seed in range(2, 8):
        assert search.find(print_of(spots(seed, TIMES), TIMES), similarity=0.8) is None


def test_crop_search_compares_long_clips_in_part():
    times = np.arange(0, 40, 1 / 15)
    frames = spots(1, times)
    match = CropSearch(print_of(frames, times)).find(print_of(frames[75:], times[75:] - 5), similarity=0.95)
    assert match is not None
    assert match.shift == pytest.approx(5, abs=0.04)
    assert match.overlap == pytest.approx(35, abs=0.2)


def test_clip_print_of_still_video_does_not_move():
    still = print_of(np.repeat(BACKGROUND[None], 60, axis=0), TIMES)
    assert not still.moves
    assert ORIGINAL.moves


def test_better_match_of_both_directions():
    match = NearDuplicate(0.9, 0.5, 1.0, (0.0, 0.0, 1.0, 1.0))
    reverse = NearDuplicate(0.95, -0.4, 1.0, (0.1, 0.1, 0.9, 0.9))
    assert better(match, None) == match
    assert better(match, reverse) == NearDuplicate(0.95, 0.4, 1.0, (0.1, 0.1, 0.9, 0.9), is_reversed=True)


@pytest.mark.parametrize(("different", "similarity"), [(0.0, 0.8), (0.7, 0.8), (0.8, 0.86), (0.99, 0.965)])
def test_threshold_lies_above_different_clips(different, similarity):
    assert threshold(different) == pytest.approx(similarity)
