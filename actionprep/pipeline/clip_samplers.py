"""Frame indices of a clip, by the formulas of published systems. Clips that are too short follow a stated rule."""

from __future__ import annotations

from typing import Literal

import numpy as np

ShortRule = Literal["fewer", "repeat", "loop", "mask"]

_SCENE_RATIO = 3.0
_SCENE_CHANGE = 12.0  # gray levels


def timesformer_frames(num_frames: int, fps: float, count: int, step: int) -> np.ndarray:
    """Choose frames as the test of TimeSformer does, from the start of the clip.

    The clip is `step * count` frames at 30 per second long; `count` indices divide it evenly and are rounded down. The
    original sets indices behind the end to the last frame. Here they are left out, see `filled`.

    Args:
        num_frames: Number of frames T.
        fps: Frames per second of the video.
        count: Number of frames to choose.
        step: Sampling rate: distance of the frames in a video of 30 frames per second.

    Returns:
        Frame indices, int64 of shape (K,), with K <= count.
    """
    length = step * count / 30 * fps
    index = np.linspace(0, length - 1, count).astype(np.int64) if length > 1 else np.zeros(count, np.int64)
    return index[index < num_frames]


def pyskl_frames(num_frames: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Choose frames as UniformSampleFrames of PySKL does.

    - At least 2 * count frames: one random frame of each of `count` parts.
    - At least `count`: consecutive frames from 0, with an offset that grows by 0 or 1 at random steps.
    - Fewer: consecutive frames from a random start; after the last frame comes the first.

    Returns:
        Frame indices, int64 of shape (count,). They decrease where a short clip starts again.

    References:
        Duan et al., "Revisiting Skeleton-based Action Recognition", CVPR 2022.
    """
    if num_frames < count:
        return (rng.integers(num_frames) + np.arange(count)) % num_frames
    if num_frames < 2 * count:
        jumps = np.zeros(count + 1, np.int64)
        jumps[rng.choice(count + 1, num_frames - count, replace=False)] = 1
        offset = np.cumsum(jumps)
        return np.arange(count) + offset[:-1]
    bounds = np.arange(count + 1) * num_frames // count
    return rng.integers(bounds[:-1], bounds[1:])


def scene_frames(change: np.ndarray) -> np.ndarray:
    """Choose the first frame of each scene.

    A scene starts where the mean change of luma is at least 12 gray levels, and three times the mean change at the two
    frames before and after. Fast motion changes several frames in a row and starts no scene.

    Args:
        change: Change of each frame from the one before it in gray levels, shape (T,); 0 for the first.

    Returns:
        Increasing frame indices, int64 of shape (K,); the first is 0.
    """
    padded = np.pad(change.astype(np.float64), 2)
    around = (padded[:-4] + padded[1:-3] + padded[3:-1] + padded[4:]) / 4
    starts = (change >= _SCENE_CHANGE) & (change >= _SCENE_RATIO * around)
    starts[:1] = True
    return np.flatnonzero(starts)


def filled(index: np.ndarray, count: int, rule: ShortRule, num_frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Fill the choice of a clip that is too short.

    Args:
        index: Chosen frames, shape (K,), at least one.
        count: Number of frames that were asked for.
        rule: "fewer" leaves them as they are; "repeat" adds the last frame of the clip; "loop" starts with the first
            chosen one again; "mask" adds the last frame of the clip and marks it as not valid.
        num_frames: Number of frames of the clip.

    Returns:
        The frames, and whether each is valid: (max(K, count),) int64 and bool, or (K,) for "fewer".
    """
    missing = count - len(index)
    if rule == "fewer" or missing <= 0:
        return index, np.ones(len(index), bool)
    if rule == "loop":
        return np.resize(index, count), np.ones(count, bool)
    return np.concatenate([index, np.full(missing, num_frames - 1)]), (np.arange(count) < len(index)) | (
        rule == "repeat"
    )
