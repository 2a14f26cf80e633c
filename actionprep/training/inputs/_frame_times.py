"""Which frames of a snippet a clip is made of: even segments or a dense run, at random or in the middle."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

Short = Literal["loop", "hold"]


def even_shares(
    size: int, *, place: np.ndarray | float = 0.5, trim: tuple[float, float] = (0.0, 0.0), warp: float = 0.0
) -> np.ndarray:
    """(T,) float64 places in [0, 1) of a snippet, one in each of T equal parts, rising.

    place: (T,) or one number in [0, 1): where in its part each lies; 0.5 is the middle.
    trim:  shares cut off at the start and at the end. warp: strength of a smooth warp of time, under 1 in size.
    """
    share = (np.arange(size) + np.clip(place, 0.0, 1 - 1e-9)) / size
    share = share + warp * np.sin(2 * math.pi * share) / (2 * math.pi)
    start, end = trim[0], 1 - trim[1]
    return start + (end - start) * share


def even_frames(times: np.ndarray, onset: float, offset: float, shares: np.ndarray) -> np.ndarray:
    """(T,) int64 positions in `times` of the frames nearest to these shares of [onset, offset).

    times: (n,) s, rising, the frames of the snippet. A frame stands for the time until the next one: of n frames at an
    even rate each gets an equal part of the snippet.
    """
    if not len(times):
        raise ValueError("A snippet without frames.")
    wanted = onset + shares * (offset - onset)
    return np.clip(np.searchsorted(times, wanted + 1e-9, side="right") - 1, 0, len(times) - 1)


def dense_frames(
    times: np.ndarray, size: int, *, start: float, rate: float | None = None, short: Short = "loop"
) -> np.ndarray:
    """(T,) int64 positions in `times` of a run of T frames.

    rate:  frames a second; None: consecutive frames. start: in [0, 1], where among all possible starts the run begins; 1
           is the last one that fits.
    short: a snippet with less than the run begins anew (loop), or its last frame stays (hold).
    """
    count = len(times)
    if not count:
        raise ValueError("A snippet without frames.")
    if rate is None:
        first = min(int(start * (max(count - size, 0) + 1)), max(count - size, 0))
        return _fitted(first + np.arange(size), count, short)
    step = float(np.median(np.diff(times))) if count > 1 else 1.0 / rate
    length = count * step
    run = (size - 1) / rate
    begin = start * max(length - step - run, 0.0)
    at = begin + np.arange(size) / rate
    at = (at + 1e-9) % length if short == "loop" else np.minimum(at, length - step)
    return np.clip(np.searchsorted(times - times[0], at + 0.5 * step, side="right") - 1, 0, count - 1)


def _fitted(positions: np.ndarray, count: int, short: Short) -> np.ndarray:
    return positions % count if short == "loop" else np.minimum(positions, count - 1)


def from_the_middle(count: int) -> list[int]:
    """0 … count - 1, those nearest to the middle first, the earlier of equal ones first."""
    return sorted(range(count), key=lambda one: (abs(2 * one - (count - 1)), one))
