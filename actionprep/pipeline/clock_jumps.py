"""Find jumps of a video's clock in the time stamps of its packets, and join the parts between them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np

UNKNOWN = np.iinfo(np.int64).min
"""Time stamp of a packet that has none."""

_GAP_S, _GAP_PERIODS = 10, 100
"""A gap is a jump of the clock if it is longer than both: seconds, and frame periods."""

_LONGEST_STILL_S = 3600
"""A frame may be shown this long, in seconds, where the container states its duration."""

_MOST_REORDERED = 20
"""Frames by which the order of storage may differ from the order of display; H.264 and HEVC allow 16."""


@dataclass(frozen=True)
class Jump:
    """A place where time stamps do not continue as they should.

    Attributes:
        packet: First frame after the jump, as a row of the arrays given to `join_parts`.
        jump: Ticks by which the time stamps jump, compared with one frame period.
        kind: "joined" if the frames after it were moved to continue one frame period after the previous frame. The
            times are kept where the container states that the frame before a gap is shown so long ("still"), and where
            decode times fall and presentation times do not ("decode").
    """

    packet: int
    jump: int
    kind: Literal["joined", "still", "decode"]


@dataclass(frozen=True, eq=False)
class Joined:
    """Time stamps without jumps.

    Attributes:
        pts: Presentation times, int64 of shape (P,).
        dts: Decode times, int64 of shape (P,).
        jumps: Jumps in the order of storage.
    """

    pts: np.ndarray
    dts: np.ndarray
    jumps: tuple[Jump, ...]


def join_parts(
    pts: np.ndarray,
    dts: np.ndarray,
    duration: np.ndarray,
    is_key: np.ndarray,
    *,
    time_base: Fraction,
    wrap_bits: int = 0,
    reordered: bool = True,
    dts_stored: bool = True,
) -> Joined:
    """Join the parts of a stream whose clock jumps, for example of files that were concatenated byte by byte.

    A part ends where decode times fall, and at a gap longer than both 10 s and 100 frame periods. The next part
    continues one frame period after it. Some streams have unsteady decode times: small falls between keyframes are
    reported and change nothing. Gaps of up to one hour are kept where the container states that a frame is shown so
    long, as in screen recordings. A counter that overflows is continued and is no jump.

    Args:
        pts: Presentation times in the order of storage, int64 of shape (P,); `UNKNOWN` where there is none.
        dts: Decode times, likewise.
        duration: Stated durations of the frames, shape (P,); 0 where unknown.
        is_key: Whether decoding can start at the packet, bool of shape (P,).
        time_base: Seconds per tick.
        wrap_bits: Bits of the container's counter, 0 for one that does not overflow.
        reordered: Whether frames may be stored in another order than they are shown in.
        dts_stored: Whether the container stores decode times; FFmpeg derives them otherwise.

    Returns:
        Time stamps and jumps. Without a jump, they are those given.
    """
    known = np.flatnonzero((pts != UNKNOWN) | (dts != UNKNOWN))
    period = _period(pts, dts)
    if len(known) < 2 or period <= 0:
        return Joined(pts, dts, ())
    limit = max(int(_GAP_S / time_base), round(_GAP_PERIODS * period))
    if wrap_bits:
        pts, dts = _unwrapped(pts, dts, 1 << wrap_bits, limit)
    time = np.where(pts != UNKNOWN, pts, dts)
    reordering = round(_MOST_REORDERED * period) if reordered else 0
    jumps: list[Jump] = []
    if dts_stored:
        timed = known[dts[known] != UNKNOWN]
        falls = np.maximum(-np.diff(dts[timed]), 0)
        starts_part = (falls > 0) & (is_key[timed[1:]] | (falls > reordering))
        jumps += [Jump(int(row), 0, "decode") for row in timed[1:][(falls > 0) & ~starts_part]]
        starts = timed[1:][starts_part]
    else:
        starts = _falls_of_presentation_time(known, time, is_key if reordered else np.ones(len(time), bool))
    runs = np.split(known, np.searchsorted(known, starts))
    shift = np.zeros(len(pts), np.int64)
    previous: np.ndarray | None = None
    for run in runs:
        stated = int(duration[run].max()) if len(run) else 0
        stills = min(stated + 2 * round(period), int(_LONGEST_STILL_S / time_base))
        for part, begins_run in _parts(run, time, limit):
            if previous is not None:
                gap = int(time[part[0]] - time[previous[-1]])
                own = round(_period_within(time[previous], period))
                jump = _shortest(gap - own, wrap_bits)
                shift[part] = shift[previous[-1]]
                if begins_run and 0 < gap <= limit:
                    jumps.append(Jump(int(part[0]), jump, "decode"))
                elif not begins_run and gap <= stills:
                    jumps.append(Jump(int(part[0]), jump, "still"))
                else:
                    shift[part] += time[previous[-1]] + own - time[part[0]]
                    jumps.append(Jump(int(part[0]), jump, "joined"))
            previous = part
    if not jumps:
        return Joined(pts, dts, ())
    jumps.sort(key=lambda jump: jump.packet)
    return Joined(_moved(pts, shift), _moved(dts, shift), tuple(jumps))


def _moved(times: np.ndarray, shift: np.ndarray) -> np.ndarray:
    return np.where(times != UNKNOWN, times + shift, UNKNOWN)


def _period(pts: np.ndarray, dts: np.ndarray) -> float:
    """Median frame period in ticks; 0 where it is unknown."""
    for times in (dts[dts != UNKNOWN], np.sort(pts[pts != UNKNOWN])):
        steps = np.diff(times)
        if (steps > 0).any():
            return float(np.median(steps[steps > 0]))
    return 0.0


def _period_within(times: np.ndarray, otherwise: float) -> float:
    steps = np.diff(times)
    return float(np.median(steps[steps > 0])) if (steps > 0).any() else otherwise


def _unwrapped(pts: np.ndarray, dts: np.ndarray, overflow: int, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Continue a counter that overflows: its decode times fall by `overflow`, up to a gap that is no jump."""
    known = np.flatnonzero(dts != UNKNOWN)
    steps = np.diff(dts[known])
    wraps = np.zeros(len(dts), np.int64)
    wraps[known[1:]] = (steps < 0) & (steps + overflow >= 0) & (steps + overflow <= limit)
    if not wraps.any():
        return pts, dts
    shift = np.cumsum(wraps) * overflow
    dts, pts = _moved(dts, shift), _moved(pts, shift)
    # A frame that is stored before the overflow may be shown after it.
    early = (pts != UNKNOWN) & (dts != UNKNOWN) & (pts < dts - overflow // 2)
    return np.where(early, pts + overflow, pts), dts


def _falls_of_presentation_time(known: np.ndarray, time: np.ndarray, in_order: np.ndarray) -> np.ndarray:
    """Return the rows of frames that are stored in order, as keyframes are, and shown before an earlier one."""
    rows = []
    latest = time[known[0]]
    for row, value, ordered in zip(known.tolist(), time[known].tolist(), in_order[known].tolist(), strict=True):
        if ordered and value < latest:
            rows.append(row)
            latest = value
        latest = max(latest, value)
    return np.array(rows, np.int64)


def _parts(run: np.ndarray, time: np.ndarray, limit: int) -> Iterator[tuple[np.ndarray, bool]]:
    """Yield the rows between gaps in the order of display, and whether they are the first of the run."""
    in_order = run[np.argsort(time[run], kind="stable")]
    for number, part in enumerate(np.split(in_order, np.flatnonzero(np.diff(time[in_order]) > limit) + 1)):
        yield part, number == 0


def _shortest(jump: int, wrap_bits: int) -> int:
    """Return the jump as the counter made it: FFmpeg adds an overflow to counters that were set back."""
    if not wrap_bits:
        return jump
    half = 1 << (wrap_bits - 1)
    return (jump + half) % (2 * half) - half
