"""What the packets of a video say: which frames there are, in which order they are shown, and when."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import av
import numpy as np

# How many decoded pictures are held back, at most, until a gap before them counts as a picture that never decodes.
# H.264 and HEVC reorder over at most 16 pictures.
LOOKAHEAD = 20

_NONE = np.iinfo(np.int64).min

# Containers whose times follow the order of storage, not the order of showing. Where such a stream has B-frames, only
# the decoder knows the order of showing.
_STORAGE_TIMES = {"avi"}


@dataclass(frozen=True, eq=False)
class PacketIndex:
    """The packets of one video stream, numbered in the order of storage, and the frames that they make.

    Frames have a slot: their position in the order of showing, from 0. A packet that makes no picture of its own
    (cut away by an edit list, an invisible reference picture) has slot -1.

    pts, dts      (P,) int64 in units of time_base, smallest int64 where the container gives none
    pos, size     (P,) int64 byte position in the file (-1: unknown) and bytes
    is_key        (P,) bool  decoding can start here
    is_corrupt    (P,) bool  the container knows that bytes are missing
    shown         (P,) bool  whether the packet makes a frame
    slot          (P,) int64 slot of each packet; in storage order where `ordered` is false
    ticks         (T,) float64 time of each slot in units of time_base, strictly increasing
    ordered       whether `slot` is known from the packets alone, because their times tell the order of showing
    presumed      whether that rests on the header's word that there are no B-frames
    last_duration duration of the last frame in units of time_base, 0 where unknown
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

    @property
    def num_packets(self) -> int:
        """Packets that hold data."""
        return len(self.pts)

    @property
    def num_frames(self) -> int:
        """Frames that the packets make."""
        return len(self.ticks)

    @property
    def times(self) -> np.ndarray:
        """(T,) seconds from the first frame."""
        return (self.ticks - self.ticks[0]) * self.time_base.numerator / self.time_base.denominator

    def packet_of_slot(self) -> np.ndarray:
        """(T,) int64 packet that makes each frame."""
        packets = np.flatnonzero(self.shown)
        order = np.empty(self.num_frames, np.int64)
        order[self.slot[packets]] = packets
        return order

    @property
    def start(self) -> float:
        """Time of the first frame in seconds, as the container counts."""
        return float(self.ticks[0]) * self.time_base.numerator / self.time_base.denominator


def read_packets(container: Any, stream: Any, *, see: Callable[[Any], None]) -> PacketIndex:
    """Number the packets of a stream by demuxing it once, without decoding.

    see: is shown every packet, and the empty one at the end, as they come.

    Reading that breaks off in the middle leaves the packets before it and a warning. The index is empty when there are
    no packets.
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
                    _NONE if packet.pts is None else packet.pts,
                    _NONE if packet.dts is None else packet.dts,
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
    storage_times = container.format.name in _STORAGE_TIMES
    if storage_times:
        ordered = not stream.codec_context.has_b_frames
    else:
        ordered = _tell_order(pts[shown])
    slot = np.full(len(columns), -1, np.int64)
    ticks: np.ndarray
    if ordered and not storage_times:
        slot[np.flatnonzero(shown)[np.argsort(pts[shown], kind="stable")]] = np.arange(shown.sum())
        ticks = np.sort(pts[shown]).astype(np.float64)
    else:
        slot[shown] = np.arange(shown.sum())
        ticks, repairs = _repaired_ticks(
            pts[shown], dts[shown], _frame_ticks(stream, duration[shown]), stream.time_base
        )
        warnings.extend(repairs)
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
    )


class Sequencer:
    """Give each decoded picture its slot, and hand pictures out in the order of showing.

    A decoder hands pictures out in the order of showing, each with the number of its packet. Where the packets' times
    tell the order, a picture's slot is known at once. Where they do not, the k-th picture has slot k, and a packet
    that makes no picture takes its slot in the order of storage, which is right up to the reordering around it. Either
    way pictures after a gap are held back until it is clear that the gap stays.

    surplus: pictures for which there was no slot.
    """

    def __init__(self, index: PacketIndex, *, first_slot: int = 0, slot: np.ndarray | None = None) -> None:
        """Begin at a slot; `slot` replaces the index's own when the order was learned by decoding."""
        self.surplus = 0
        certain = index.ordered and not index.presumed
        self._slot = slot if slot is not None else index.slot if certain else None
        self._num_slots = index.num_frames
        self._next = first_slot
        self._early: list[tuple[int, int, Any]] = []
        self._queue: deque[tuple[int, Any]] = deque()
        self._open = deque(np.flatnonzero(index.shown).tolist()) if self._slot is None else deque()
        self._came: set[int] = set()

    def push(self, number: int, picture: Any) -> Iterator[tuple[int, int, Any]]:
        """Take the picture that packet `number` made; yields (slot, number, picture) that are due."""
        if self._slot is not None:
            slot = int(self._slot[number])
            if slot < self._next:
                self.surplus += 1
            else:
                heapq.heappush(self._early, (slot, number, _Uncompared(picture)))
            yield from self._take_early(LOOKAHEAD)
        else:
            self._queue.append((number, picture))
            self._came.add(number)
            yield from self._take_queue(LOOKAHEAD)

    def flush(self) -> Iterator[tuple[int, int, Any]]:
        """Hand out what was held back; no more pictures come."""
        yield from self._take_early(0)
        yield from self._take_queue(0)

    def _take_early(self, held: int) -> Iterator[tuple[int, int, Any]]:
        while self._early and (self._early[0][0] == self._next or len(self._early) > held):
            slot, number, picture = heapq.heappop(self._early)
            if slot < self._next:
                self.surplus += 1
                continue
            self._next = slot + 1
            yield slot, number, picture.value

    def _take_queue(self, held: int) -> Iterator[tuple[int, int, Any]]:
        while self._queue:
            number, picture = self._queue[0]
            while self._open and self._open[0] < number and self._open[0] in self._came:
                self._came.discard(self._open.popleft())
            before = [other for other in self._before(number) if other not in self._came]
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
            yield slot, number, picture

    def _before(self, number: int) -> Iterator[int]:
        for other in self._open:
            if other >= number:
                return
            yield other


@dataclass(order=True, frozen=True)
class _Uncompared:
    """Keeps the heap from comparing pictures."""

    value: Any = field(compare=False)


def _is_invisible_vp8(packet: Any) -> bool:
    """Whether a VP8 packet is a reference picture that is never shown: bit 4 of the frame tag, RFC 6386 section 9.1."""
    return not memoryview(packet)[0] & 0x10


def _tell_order(pts: np.ndarray) -> bool:
    """Whether presentation times are all there and all different."""
    return bool((pts != _NONE).all()) and len(np.unique(pts)) == len(pts)


def _frame_ticks(stream: Any, duration: np.ndarray) -> float:
    """Length of a frame in units of time_base, from what the container states, for frames without a time."""
    rate = stream.average_rate or stream.guessed_rate
    if rate:
        return float(1 / (rate * stream.time_base))
    stated = duration[duration > 0]
    # 25 frames a second is what FFmpeg's own demuxers assume of streams without a clock.
    return float(np.median(stated)) if len(stated) else float(1 / (25 * stream.time_base))


def _repaired_ticks(
    pts: np.ndarray, dts: np.ndarray, frame_ticks: float, time_base: Fraction
) -> tuple[np.ndarray, list[str]]:
    """Strictly increasing times for a stream whose packets do not tell the order of showing, and what was wrong.

    Storage times that increase are those of the slots: the k-th frame shown takes the k-th time.
    """
    if (dts != _NONE).all() and (np.diff(dts) > 0).all():
        return dts.astype(np.float64), []
    best = np.where(pts != _NONE, pts, dts)
    known = np.sort(best[best != _NONE]).astype(np.float64)
    missing = len(best) - len(known)
    warnings = []
    if missing == len(best):
        rate = 1 / (frame_ticks * float(time_base))
        warnings.append(f"the container has no frame times: frames are placed evenly at {rate:.6g} per second")
        return np.arange(len(best)) * frame_ticks, warnings
    if missing:
        warnings.append(f"{missing} packets have no time: they are placed evenly between their neighbors")
        at = np.flatnonzero(best != _NONE)
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
