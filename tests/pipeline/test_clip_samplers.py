"""Frame indices by the formulas of published systems, and rules for short clips."""

from __future__ import annotations

import numpy as np
import pytest

from actionprep.pipeline.clip_samplers import filled, pyskl_frames, scene_frames, timesformer_frames


def test_timesformer_frames_of_short_gesture():
    # 32 x 8 frames at 30 per second are 128 frames at 15 per second; a gesture of 45 frames has the first three.
    assert timesformer_frames(45, 15.0, 8, 32).tolist() == [0, 18, 36]
    assert timesformer_frames(128, 15.0, 8, 32).tolist() == [0, 18, 36, 54, 72, 90, 108, 127]


def test_timesformer_frames_repeated_equal_the_original():
    index, _ = filled(timesformer_frames(45, 15.0, 8, 32), 8, "repeat", 45)
    assert index.tolist() == np.linspace(0, 127, 8).clip(0, 44).astype(int).tolist()


@pytest.mark.parametrize("num_frames", [20, 21, 57])
def test_pyskl_frames_take_one_of_each_part(num_frames):
    index = pyskl_frames(num_frames, 10, np.random.default_rng(0))
    for part, frame in enumerate(index.tolist()):
        assert part * num_frames // 10 <= frame < (part + 1) * num_frames // 10


@pytest.mark.parametrize("num_frames", [10, 13, 19])
def test_pyskl_frames_skip_at_most_one(num_frames):
    for seed in range(20):
        index = pyskl_frames(num_frames, 10, np.random.default_rng(seed))
        assert set(np.diff(index).tolist()) <= {1, 2}
        assert index[0] in (0, 1)
        assert index[-1] < num_frames


def test_pyskl_frames_of_short_clip_start_again():
    index = pyskl_frames(4, 10, np.random.default_rng(1))
    assert np.unique((np.diff(index)) % 4).tolist() == [1]
    assert set(index.tolist()) == {0, 1, 2, 3}


def test_scene_frames_are_cuts_and_not_fast_motion():
    change = np.full(40, 1.0)
    change[0] = 0
    change[10] = 40.0  # a cut
    change[20:24] = 30.0  # fast motion
    change[30] = 5.0  # too little
    assert scene_frames(change).tolist() == [0, 10]


@pytest.mark.parametrize(
    ("rule", "index", "valid"),
    [
        ("fewer", [3, 5], [True, True]),
        ("repeat", [3, 5, 9, 9, 9], [True] * 5),
        ("loop", [3, 5, 3, 5, 3], [True] * 5),
        ("mask", [3, 5, 9, 9, 9], [True, True, False, False, False]),
    ],
)
def test_filled_by_rule(rule, index, valid):
    frames, is_valid = filled(np.array([3, 5]), 5, rule, 10)
    assert frames.tolist() == index
    assert is_valid.tolist() == valid
    assert filled(np.arange(5), 5, rule, 10)[0].tolist() == [0, 1, 2, 3, 4]
