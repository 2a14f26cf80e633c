"""Cut a span of time into windows."""

from __future__ import annotations

from typing import Literal

import numpy as np

# Times are sums and products of decimal fractions: differences below a nanosecond are rounding.
EPSILON_S = 1e-9

Tail = Literal["drop", "shift", "keep"]


def microseconds(times_s: np.ndarray | float) -> np.ndarray:
    """Round times in seconds to whole microseconds, int64: the unit in which times are compared."""
    return np.rint(np.asarray(times_s, np.float64) * 1e6).astype(np.int64)


def windows(
    span_s: tuple[float, float],
    *,
    length_s: float,
    stride_s: float | None = None,
    tail: Tail = "drop",
    times: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Cut a span of time into windows of one length.

    Whether a window fits is decided in whole microseconds.

    Args:
        span_s: Start and end of the recording in seconds, half open.
        length_s: Length of a window.
        stride_s: Time from one onset to the next; the length when None, so that windows touch and do not overlap.
        tail: What happens to the time after the last full window. `drop`: it gets no window. `shift`: one more window
            ends with the span and overlaps the previous one. `keep`: one more window is shorter. A span shorter than
            the length gives no window with `drop` and `shift`, and one short window with `keep`.
        times: Frame times in seconds, ascending, shape (T,). Only windows with at least one of them are returned. The
            memory used depends on the number of frames and not on the length of the span.

    Returns:
        Onsets and offsets in seconds, two float64 arrays of shape (S,).

    Raises:
        ValueError: If the length or the stride is not positive.
    """
    start, end = span_s
    stride_s = _stride(length_s, stride_s)
    count = _num_full(span_s, length_s, stride_s)
    index = np.arange(count) if times is None else _near_frames(np.asarray(times) - start, length_s, stride_s, count)
    onset = start + index * stride_s
    offset = np.minimum(onset + length_s, end) if count else onset
    rest = _tail_window(span_s, length_s, stride_s, tail, count)
    if rest is not None:
        onset, offset = np.append(onset, rest[0]), np.append(offset, rest[1])
    if times is not None:
        has_frame = frames_in(times, onset, offset) > 0
        onset, offset = onset[has_frame], offset[has_frame]
    return onset, offset


def num_windows(
    span_s: tuple[float, float],
    *,
    length_s: float,
    stride_s: float | None = None,
    tail: Tail = "drop",
    times: np.ndarray | None = None,
) -> int:
    """Count the windows that `windows` returns, without making them.

    With `times` the count can be too high by a few windows per gap between frames.
    """
    stride_s = _stride(length_s, stride_s)
    count = _num_full(span_s, length_s, stride_s)
    has_rest = _tail_window(span_s, length_s, stride_s, tail, count) is not None
    if times is not None:
        _, new = _new_windows(np.asarray(times) - span_s[0], length_s, stride_s, count)
        count = int(new.sum())
    return count + has_rest


def frames_in(times: np.ndarray, onset: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Count the frames in each window, in whole microseconds.

    Args:
        times: Frame times in seconds, ascending, shape (T,).
        onset: Onsets of the windows in seconds, shape (S,).
        offset: Offsets in seconds, shape (S,); windows are half open.

    Returns:
        Number of frames, shape (S,), int64.
    """
    times = microseconds(times)
    first = np.searchsorted(times, microseconds(onset), "left")
    last = np.searchsorted(times, microseconds(offset), "left")
    counts: np.ndarray = np.maximum(last - first, 0)
    return counts


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


def _stride(length_s: float, stride_s: float | None) -> float:
    stride_s = length_s if stride_s is None else stride_s
    if not length_s > 0 or not stride_s > 0:
        raise ValueError(f"Length and stride of windows must be above 0, not {length_s} and {stride_s} s.")
    return stride_s


def _num_full(span_s: tuple[float, float], length_s: float, stride_s: float) -> int:
    """Count the windows of full length that fit into a span."""
    start, end = span_s
    # The division can be off by one either way; whole microseconds decide.
    count = max(int(np.floor((end - start - length_s) / stride_s)) + 2, 0)
    while count > 0 and microseconds(start + (count - 1) * stride_s + length_s) > microseconds(end):
        count -= 1
    return count


def _tail_window(
    span_s: tuple[float, float], length_s: float, stride_s: float, tail: Tail, count: int
) -> tuple[float, float] | None:
    """Return the window for the time after the last of `count` full windows; None where there is none."""
    start, end = span_s
    covered = min(start + (count - 1) * stride_s + length_s, end) if count else start
    if tail == "drop" or (tail == "shift" and not count) or microseconds(covered) >= microseconds(end):
        return None
    first = end - length_s if tail == "shift" else start + count * stride_s
    # A stride longer than the windows can step over the rest.
    return (first, end) if microseconds(first) < microseconds(end) else None


def _near_frames(elapsed: np.ndarray, length_s: float, stride_s: float, count: int) -> np.ndarray:
    """Return the indices below `count` of all windows that can contain a frame.

    Args:
        elapsed: Frame times in seconds since the start of the span, ascending, shape (T,).
        length_s: Length of a window.
        stride_s: Time from one onset to the next.
        count: Number of windows in the span.
    """
    first, new = _new_windows(elapsed, length_s, stride_s, count)
    starts = np.repeat(first - (np.cumsum(new) - new), new)
    rows: np.ndarray = np.arange(len(starts)) + starts
    return rows


def _new_windows(elapsed: np.ndarray, length_s: float, stride_s: float, count: int) -> tuple[np.ndarray, np.ndarray]:
    """For each frame the first window and the number of windows that it can be in and no earlier frame is in."""
    first = np.clip(np.floor((elapsed - length_s) / stride_s), 0, count).astype(np.int64)
    last = np.clip(np.floor(elapsed / stride_s) + 2, 0, count).astype(np.int64)
    reached = np.maximum.accumulate(np.concatenate([[0], last]))[:-1]
    first = np.maximum(first, reached)
    return first, np.maximum(last - first, 0)
