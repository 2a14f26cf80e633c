"""Cut a recording's time into windows."""

from __future__ import annotations

from typing import Literal

import numpy as np

# Times are sums and products of decimal fractions: differences below a nanosecond are rounding.
EPSILON_S = 1e-9

Tail = Literal["drop", "shift", "keep"]


def windows(
    span_s: tuple[float, float], *, length_s: float, stride_s: float | None = None, tail: Tail = "drop"
) -> tuple[np.ndarray, np.ndarray]:
    """Onsets and offsets of windows over a span of time: two arrays (S,) float64 in seconds.

    span_s:   first instant and end of the recording, half open.
    stride_s: from one onset to the next; the length when None, so that windows touch and do not overlap.
    tail:     what becomes of the time after the last whole window. drop: nothing. shift: one more window that ends with
        the span and overlaps the last one more than usual. keep: one more window that is shorter. A span shorter than
        the length gives no window with drop and shift, and one short window with keep.

    Raises ValueError for a length or stride that is not positive.
    """
    stride_s = length_s if stride_s is None else stride_s
    if not length_s > 0 or not stride_s > 0:
        raise ValueError(f"Length and stride of windows must be above 0, not {length_s} and {stride_s} s.")
    start, end = span_s
    room = end - start - length_s
    count = int(np.floor((room + EPSILON_S) / stride_s)) + 1 if room >= -EPSILON_S else 0
    onset = start + np.arange(count) * stride_s
    offset = np.minimum(onset + length_s, end) if count else onset
    left = end - (offset[-1] if count else start)
    if left <= EPSILON_S or tail == "drop" or (tail == "shift" and not count):
        return onset, offset
    first = end - length_s if tail == "shift" else start + count * stride_s
    if first >= end - EPSILON_S:  # a stride beyond the length may step over what is left
        return onset, offset
    return np.append(onset, first), np.append(offset, end)


def frames_in(times: np.ndarray, onset: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """How many of the frame times lie in each window: (S,) int64.

    times (T,) float64 s, ascending; onset, offset (S,) float64 s, half open.
    """
    first = np.searchsorted(times, np.asarray(onset) - EPSILON_S, "left")
    last = np.searchsorted(times, np.asarray(offset) - EPSILON_S, "left")
    return np.maximum(last - first, 0)


def frame_range(times: np.ndarray, onset: float, offset: float) -> tuple[int, int]:
    """Find the frames in a window.

    Args:
        times: Frame times in seconds, shape (T,), ascending.
        onset: Start of the window in seconds.
        offset: End of the window in seconds, exclusive.

    Returns:
        Index of the first frame in the window, and the index after the last one; equal if there is none.
    """
    first, last = np.searchsorted(times, [onset - EPSILON_S, offset - EPSILON_S]).tolist()
    return first, max(first, last)


def frame_interval(times: np.ndarray, *, default: float = 1 / 25) -> float:
    """Compute the median time from frame to frame in seconds; `default` for fewer than two frames."""
    return float(np.median(np.diff(times))) if len(times) > 1 else default
