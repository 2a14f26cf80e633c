"""Choose the frames of a clip: from even segments or as a dense run, random or from the middle."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from actionprep.datasets.frame_times import frame_interval

Short = Literal["loop", "hold"]


def even_shares(
    size: int, *, position: np.ndarray | float = 0.5, trim: tuple[float, float] = (0.0, 0.0), warp: float = 0.0
) -> np.ndarray:
    """Compute one position in each of T equal parts of a snippet.

    Args:
        size: Number of parts T.
        position: Position inside each part, in [0, 1), shape (T,) or a single number; 0.5 is the middle.
        trim: Shares that are cut off at the start and at the end.
        warp: Strength of a smooth time warp, between -1 and 1.

    Returns:
        Positions as shares of the snippet in [0, 1), increasing, float64 of shape (T,).
    """
    share = (np.arange(size) + np.clip(position, 0.0, 1 - 1e-9)) / size
    share = share + warp * np.sin(2 * math.pi * share) / (2 * math.pi)
    start, end = trim[0], 1 - trim[1]
    return start + (end - start) * share


def even_frames(times: np.ndarray, onset: float, offset: float, shares: np.ndarray) -> np.ndarray:
    """Find the frames at given shares of a snippet.

    A frame is valid until the next one, so that n frames at an even rate get equal parts of the snippet.

    Args:
        times: Frame times of the snippet in seconds, shape (n,), increasing.
        onset: Start of the snippet in seconds.
        offset: End of the snippet in seconds.
        shares: Positions as shares of [onset, offset), shape (T,).

    Returns:
        Indices into `times`, int64 of shape (T,).

    Raises:
        ValueError: If there are no frames.
    """
    if not len(times):
        raise ValueError("The snippet has no frames.")
    wanted = onset + shares * (offset - onset)
    return np.clip(np.searchsorted(times, wanted + 1e-9, side="right") - 1, 0, len(times) - 1)


def dense_frames(
    times: np.ndarray, size: int, *, start: float, rate: float | None = None, short: Short = "loop"
) -> np.ndarray:
    """Find a run of frames.

    Args:
        times: Frame times of the snippet in seconds, shape (n,), increasing.
        size: Number of frames T.
        start: Start of the run in [0, 1], among all possible starts; 1 is the last one.
        rate: Frames per second; None: consecutive frames.
        short: A snippet shorter than the run starts over ("loop"), or its last frame is repeated ("hold").

    Returns:
        Indices into `times`, int64 of shape (T,).

    Raises:
        ValueError: If there are no frames.
    """
    count = len(times)
    if not count:
        raise ValueError("The snippet has no frames.")
    if rate is None:
        first = min(int(start * (max(count - size, 0) + 1)), max(count - size, 0))
        return _wrap(first + np.arange(size), count, short)
    step = frame_interval(times, default=1.0 / rate)
    length = count * step
    run = (size - 1) / rate
    start_time = start * max(length - step - run, 0.0)
    time = start_time + np.arange(size) / rate
    time = (time + 1e-9) % length if short == "loop" else np.minimum(time, length - step)
    return np.clip(np.searchsorted(times - times[0], time + 0.5 * step, side="right") - 1, 0, count - 1)


def _wrap(positions: np.ndarray, count: int, short: Short) -> np.ndarray:
    return positions % count if short == "loop" else np.minimum(positions, count - 1)


def middle_first(count: int) -> list[int]:
    """Return 0 … count - 1, those nearest to the middle first; the earlier one in a tie."""
    return sorted(range(count), key=lambda index: (abs(2 * index - (count - 1)), index))
