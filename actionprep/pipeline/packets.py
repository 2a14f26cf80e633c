"""Number the packets of a video: which frames they make, in which order those are shown, and when."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import av
import numpy as np

from actionprep.pipeline.clock_jumps import UNKNOWN, Jump, join_parts

LOOKAHEAD = 20
"""Decoded frames that are held back, at most, before a gap in front of them counts as a frame that never decodes.
H.264 and HEVC reorder over at most 16 frames."""

# Containers whose times follow the order of storage, not the order of display. If such a stream has B-frames, only the
# decoder knows the order of display.
_STORAGE_TIMES = {"avi"}

# Containers whose time stamps are counters of 33 bits (ISO/IEC 13818-1, section 2.4.3.7).
_WRAP_BITS = {"mpegts": 33, "mpeg": 33}

# Containers without decode times: FFmpeg derives them from the presentation times.
_NO_DECODE_TIMES = {"matroska,webm"}

# Jumps of the clock that are listed one by one.
_MOST_JUMPS = 5


@dataclass(frozen=True, eq=False)
class PacketIndex:
    """Packets of one video stream in the order of storage, and the frames that they make.

    A frame's slot is its position in the order of display, from 0. A packet that makes no frame (cut by an edit list, an
    invisible reference frame) has slot -1. P packets make T frames.

    Attributes:
        pts: Presentation times in units of `time_base`, int64 of shape (P,); the smallest int64 where there is none.
        dts: Decode times, likewise.
        pos: Byte position in the file, int64 of shape (P,); -1 where unknown.
        size: Bytes of each packet, int64 of shape (P,).
        is_key: Whether decoding can start at the packet, bool of shape (P,).
        is_corrupt: Whether the container reports missing bytes, bool of shape (P,).
        shown: Whether the packet makes a frame, bool of shape (P,).
        slot: Slot of each packet, int64 of shape (P,); in the order of storage if `ordered` is False.
        ticks: Time of each slot in units of `time_base`, float64 of shape (T,), strictly increasing, without jumps of
            the clock.
        ordered: Whether `slot` follows from the packets alone, because their times give the order of display.
        presumed: Whether `ordered` rests on the header, which states no B-frames.
        time_base: Seconds per tick.
        last_duration: Duration of the last frame in units of `time_base`; 0 where unknown.
        warnings: Findings about the time stamps, one sentence each.
        part_starts: Slots at which the times continue after a jump of the clock, int64.
    """

    pts: np.ndarray
    dts: np.ndarray
    pos: np.ndarray
    size: np.ndarray
    is_key: np.ndarray
    is_corrupt: np.ndarray
    shown: np.ndarray
    slot: np.ndarray
    ticks: np.ndarray
    ordered: bool
    presumed: bool
    time_base: Fraction
    last_duration: float
    warnings: tuple[str, ...]
    part_starts: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))

    @property
    def num_packets(self) -> int:
        """Number of packets with data."""
        return len(self.pts)

    @property
    def num_frames(self) -> int:
        """Number of frames that the packets make."""
        return len(self.ticks)

    @property
    def times(self) -> np.ndarray:
        """Times in seconds from the first frame, float64 of shape (T,)."""
        times: np.ndarray = (self.ticks - self.ticks[0]) * self.time_base.numerator / self.time_base.denominator
        return times

    def packet_of_slot(self) -> np.ndarray:
        """Return the packet that makes each frame, int64 of shape (T,)."""
        packets = np.flatnonzero(self.shown)
        order = np.empty(self.num_frames, np.int64)
        order[self.slot[packets]] = packets
        return order

    @property
    def start(self) -> float:
        """Time stamp of the first frame in the container, in seconds."""
        return float(self.ticks[0]) * self.time_base.numerator / self.time_base.denominator


def read_packets(container: Any, stream: Any, *, see: Callable[[Any], None]) -> PacketIndex:
    """Number the packets of a stream by demuxing it once, without decoding.

    Args:
        container: Opened PyAV container.
        stream: Video stream of it.
        see: Called with every packet, and with the empty packet at the end.

    Returns:
        The packets. If reading breaks off, those before the break, with a warning. Without packets, an empty index.
    """
    rows: list[tuple[int, int, int, int, bool, bool, bool, int]] = []
    warnings: list[str] = []
    is_vp8 = stream.codec_context.codec.canonical_name == "vp8"
    try:
        for packet in container.demux(stream):
            see(packet)
            if not packet.size:
                continue
            is_shown = not packet.is_discard and not (is_vp8 and _is_invisible_vp8(packet))
            rows.append(
                (
                    UNKNOWN if packet.pts is None else packet.pts,
                    UNKNOWN if packet.dts is None else packet.dts,
                    -1 if packet.pos is None else packet.pos,
                    packet.size,
                    packet.is_keyframe,
                    packet.is_corrupt,
                    is_shown,
                    packet.duration or 0,
                )
            )
    except av.error.FFmpegError as error:
        warnings.append(f"reading broke off after {len(rows)} packets: {error.strerror}")
    columns = np.array(rows, np.int64).reshape(-1, 8)
    pts, dts, pos, size, is_key, is_corrupt, shown, duration = columns.T
    shown = shown.astype(bool)
    visible = np.flatnonzero(shown)
    time, decode_time = pts[shown], dts[shown]
    jumps: tuple[Jump, ...] = ()
    storage_times = container.format.name in _STORAGE_TIMES
    if storage_times:
        ordered = not stream.codec_context.has_b_frames
    else:
        joined = join_parts(
            time,
            decode_time,
            duration[shown],
            is_key[shown].astype(bool),
            time_base=stream.time_base,
            wrap_bits=_WRAP_BITS.get(container.format.name, 0),
            reordered=bool(stream.codec_context.has_b_frames),
            dts_stored=container.format.name not in _NO_DECODE_TIMES,
        )
        time, decode_time, jumps = joined.pts, joined.dts, joined.jumps
        ordered = _gives_order(time)
    slot = np.full(len(columns), -1, np.int64)
    ticks: np.ndarray
    if ordered and not storage_times:
        slot[visible[np.argsort(time, kind="stable")]] = np.arange(len(visible))
        ticks = np.sort(time).astype(np.float64)
    else:
        slot[visible] = np.arange(len(visible))
        ticks, repairs = _repaired_ticks(time, decode_time, _frame_ticks(stream, duration[shown]), stream.time_base)
        warnings.extend(repairs)
    at = slot[visible[[jump.packet for jump in jumps]]] if jumps else np.empty(0, np.int64)
    warnings.extend(_about_jumps(jumps, at, ticks, stream.time_base))
    return PacketIndex(
        pts=pts,
        dts=dts,
        pos=pos,
        size=size,
        is_key=is_key.astype(bool),
        is_corrupt=is_corrupt.astype(bool),
        shown=shown,
        slot=slot,
        ticks=ticks,
        ordered=ordered,
        presumed=ordered and storage_times,
        time_base=stream.time_base,
        last_duration=_last_duration(duration[shown], slot[shown]),
        warnings=tuple(warnings),
        part_starts=np.sort(at[[jump.kind == "joined" for jump in jumps]]) if jumps else at,
    )


def lost_frames(container: Any, index: PacketIndex, header_frames: int | None) -> int:
    """Count the frames that the header states and that the file does not hold.

    AVI files have empty chunks for frames that the camera or the encoder dropped: those are no loss, because the
    frame before them is shown longer.
    """
    held = index.num_packets
    if container.format.name in _STORAGE_TIMES and index.num_frames:
        held = max(held, round(float(index.ticks[-1])) + 1)
    return max(0, (header_frames or 0) - held)


def _about_jumps(jumps: Sequence[Jump], slots: np.ndarray, ticks: np.ndarray, time_base: Fraction) -> list[str]:
    """Describe jumps of the clock, with frame and second."""
    warnings = []
    for jump, slot in list(zip(jumps, slots.tolist(), strict=True))[:_MOST_JUMPS]:
        seconds = float((ticks[slot] - ticks[0]) * time_base)
        by = float(jump.jump * time_base)
        if jump.kind == "joined":
            warnings.append(
                f"the clock jumps by {by:+.3f} s at frame {slot} ({seconds:.3f} s): the frames from there on continue "
                "one frame period after the previous frame"
            )
        elif jump.kind == "still":
            warnings.append(
                f"no frame comes for {by:.3f} s before frame {slot} ({seconds:.3f} s): the container states that the "
                "previous frame is shown so long, and the times are kept"
            )
        else:
            warnings.append(f"decode times fall at frame {slot} ({seconds:.3f} s): the frame times are kept")
    if len(jumps) > _MOST_JUMPS:
        warnings.append(f"the clock jumps {len(jumps) - _MOST_JUMPS} more times")
    return warnings


class Sequencer:
    """Give each decoded frame its slot, and return frames in the order of display.

    A decoder returns frames in the order of display, each with the number of its packet. If the times of the packets
    give the order, a frame's slot is known at once. Otherwise the k-th frame has slot k, and a packet that makes no
    frame takes its slot in the order of storage, which is right up to the reordering around it. In both cases frames
    after a gap are held back until it is clear that the gap stays.

    Attributes:
        surplus: Number of frames that had no slot.
    """

    def __init__(self, index: PacketIndex, *, first_slot: int = 0, slot: np.ndarray | None = None) -> None:
        """Begin at `first_slot`; `slot` replaces that of the index if the order was learned by decoding."""
        self.surplus = 0
        certain = index.ordered and not index.presumed
        self._slot = slot if slot is not None else index.slot if certain else None
        self._num_slots = index.num_frames
        self._next = first_slot
        self._early: list[tuple[int, int, Any]] = []
        self._queue: deque[tuple[int, Any]] = deque()
        self._open = deque(np.flatnonzero(index.shown).tolist()) if self._slot is None else deque()
        self._arrived: set[int] = set()

    def push(self, number: int, frame: Any) -> Iterator[tuple[int, int, Any]]:
        """Take the frame of packet `number`; yield each (slot, number, frame) that is due."""
        if self._slot is not None:
            slot = int(self._slot[number])
            if slot < self._next:
                self.surplus += 1
            else:
                heapq.heappush(self._early, (slot, number, _Uncompared(frame)))
            yield from self._take_early(LOOKAHEAD)
        else:
            self._queue.append((number, frame))
            self._arrived.add(number)
            yield from self._take_queue(LOOKAHEAD)

    def flush(self) -> Iterator[tuple[int, int, Any]]:
        """Yield the frames that were held back; no more frames come."""
        yield from self._take_early(0)
        yield from self._take_queue(0)

    def _take_early(self, held: int) -> Iterator[tuple[int, int, Any]]:
        while self._early and (self._early[0][0] == self._next or len(self._early) > held):
            slot, number, frame = heapq.heappop(self._early)
            if slot < self._next:
                self.surplus += 1
                continue
            self._next = slot + 1
            yield slot, number, frame.value

    def _take_queue(self, held: int) -> Iterator[tuple[int, int, Any]]:
        while self._queue:
            number, frame = self._queue[0]
            while self._open and self._open[0] < number and self._open[0] in self._arrived:
                self._arrived.discard(self._open.popleft())
            before = [other for other in self._before(number) if other not in self._arrived]
            if before and len(self._queue) <= held:
                return
            for lost in before:
                self._open.remove(lost)
            self._queue.popleft()
            slot = self._next + len(before)
            if slot >= self._num_slots:
                self.surplus += 1
                continue
            self._next = slot + 1
            yield slot, number, frame

    def _before(self, number: int) -> Iterator[int]:
        for other in self._open:
            if other >= number:
                return
            yield other


@dataclass(order=True, frozen=True)
class _Uncompared:
    """Keep the heap from comparing frames."""

    value: Any = field(compare=False)


def _is_invisible_vp8(packet: Any) -> bool:
    """Return whether a VP8 packet is a reference frame that is never shown (bit 4 of the tag, RFC 6386 section 9.1)."""
    return not memoryview(packet)[0] & 0x10


def _gives_order(pts: np.ndarray) -> bool:
    """Return whether all presentation times are known and different."""
    return bool((pts != UNKNOWN).all()) and len(np.unique(pts)) == len(pts)


def _frame_ticks(stream: Any, duration: np.ndarray) -> float:
    """Return the frame period in units of time_base that the container states, for frames without a time."""
    rate = stream.average_rate or stream.guessed_rate
    if rate:
        return float(1 / (rate * stream.time_base))
    stated = duration[duration > 0]
    # FFmpeg's own demuxers assume 25 frames per second for streams without a clock.
    return float(np.median(stated)) if len(stated) else float(1 / (25 * stream.time_base))


def _repaired_ticks(
    pts: np.ndarray, dts: np.ndarray, frame_ticks: float, time_base: Fraction
) -> tuple[np.ndarray, list[str]]:
    """Return strictly increasing times for packets that do not give the order of display, and warnings.

    Storage times that increase are the times of the slots: the k-th frame shown takes the k-th time.
    """
    if (dts != UNKNOWN).all() and (np.diff(dts) > 0).all():
        return dts.astype(np.float64), []
    best = np.where(pts != UNKNOWN, pts, dts)
    known = np.sort(best[best != UNKNOWN]).astype(np.float64)
    missing = len(best) - len(known)
    warnings = []
    if missing == len(best):
        rate = 1 / (frame_ticks * float(time_base))
        warnings.append(f"the container has no frame times: frames are placed evenly at {rate:.6g} per second")
        return np.arange(len(best)) * frame_ticks, warnings
    if missing:
        warnings.append(f"{missing} packets have no time: they are placed evenly between their neighbors")
        at = np.flatnonzero(best != UNKNOWN)
        spread = np.interp(np.arange(len(best)), at, known)
        after = np.maximum(np.arange(len(best)) - at[-1], 0) - np.maximum(at[0] - np.arange(len(best)), 0)
        known = np.sort(spread + after * frame_ticks)
    equal = int((np.diff(known) <= 0).sum())
    if equal:
        warnings.append(f"{equal} frames have the time of another frame: they are placed evenly up to the next time")
        values, first = np.unique(known, return_index=True)
        ends = np.append(values, values[-1] + frame_ticks)
        known = np.interp(np.arange(len(known)), np.append(first, len(known)), ends)
    return known, warnings


def _last_duration(duration: np.ndarray, slot: np.ndarray) -> float:
    return float(duration[np.argmax(slot)]) if len(slot) else 0.0
