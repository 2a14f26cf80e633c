"""Measure the spacing of frame times."""

from __future__ import annotations

import numpy as np


def frame_interval(times: np.ndarray, default: float = 0.0) -> float:
    """Compute the median time from one frame to the next, which is also how long the last frame is taken to last.

    Args:
        times: Frame times in seconds, ascending, shape (T,).
        default: Result for fewer than two frames, in seconds. Callers that know the nominal rate pass `1 / rate`.

    Returns:
        Seconds per frame.
    """
    return float(np.median(np.diff(times))) if len(times) > 1 else default
