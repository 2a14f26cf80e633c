"""Seek to keyframes of a video and decode from there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import av
import numpy as np

from actionprep.pipeline.decoding import tag, tag_of
from actionprep.pipeline.opening import opened
from actionprep.pipeline.packets import PacketIndex, Sequencer


class Cursor:
    """An open decoder that seeks to keyframes and decodes from there.

    It returns undamaged frames only. What a decoder returns for damaged ones depends on where decoding began.
    """

    def __init__(self, path: str, index: PacketIndex, number: int | None = None) -> None:
        """Open a video.

        Args:
            path: Path of the file.
            index: Its packets.
            number: Number of the video stream, from 0; None chooses as players do.
        """
        self._index = index
        self._context = opened(path, number)
        self._container, self._stream = self._context.__enter__()
        self._stream.thread_count = 1
        self._frames: Iterator[tuple[int, int, Any]] | None = None
        self._held: tuple[int, int, Any] | None = None
        self._fed = -1
        self._numbers = _numbers_by_key(index)
        # A Matroska file is indexed by presentation times, the others by decoding times.
        clocks = (index.pts, index.dts)
        self._clocks = clocks if "matroska" in self._container.format.name else clocks[::-1]

    def close(self) -> None:
        """Close the file."""
        self._frames = None
        self._held = None
        self._context.__exit__(None, None, None)

    def pick(self, slots: list[int], order: np.ndarray) -> Iterator[tuple[int, Any]]:
        """Yield (slot, frame) of these slots.

        Args:
            slots: Slots in ascending order.
            order: Packet of each slot, int64 of shape (T,); -1 where it is unknown.

        Raises:
            SeekError: At the first frame that cannot be decoded without damage.
        """
        slot_of = np.full(self._index.num_packets, -1, np.int64)
        known = np.flatnonzero(order >= 0)
        slot_of[order[known]] = known
        keys = np.flatnonzero(self._index.is_key & (slot_of >= 0))
        for slot in slots:
            # Not a keyframe that is shown after the target: the frames between belong to the group before it.
            usable = keys[(keys <= order[slot]) & (slot_of[keys] <= slot)]
            if order[slot] < 0 or not len(usable):
                raise SeekError
            key = int(usable[-1])
            passed = self._held is not None and self._held[0] > slot
            if self._frames is None or passed or self._fed < key - 4:
                self._held = None
                self._frames = self._read_from(key, slot_of)
            frame = self._advance(slot)
            if frame is None:
                raise SeekError
            yield slot, frame

    def _advance(self, slot: int) -> Any:
        """Return the frame of this slot; None if decoding passes it."""
        while self._held is None or self._held[0] < slot:
            assert self._frames is not None
            self._held = next(self._frames, None)
            if self._held is None:
                self._frames = None
                return None
        return self._held[2] if self._held[0] == slot else None

    def _read_from(self, key: int, slot_of: np.ndarray) -> Iterator[tuple[int, int, Any]]:
        """Yield frames from a keyframe on, or from an earlier one if the container leads there."""
        packets, packet, number = self._go_to(key)
        first = int(slot_of[number])
        sequence = Sequencer(self._index, first_slot=first, slot=slot_of)
        latest = -1
        while packet is not None:
            if packet.size:
                if self._numbers.get(_packet_key(packet)) != number or self._index.is_corrupt[number]:
                    raise SeekError
                tag(packet, number)
                self._fed = number
                number += 1
            try:
                frames = packet.decode()
                packet = next(packets, None)
            except av.error.FFmpegError:
                raise SeekError from None
            for frame in frames:
                source = tag_of(frame)
                # Frames that are shown before the keyframe and stored after it refer to frames that were not decoded.
                if slot_of[source] >= first:
                    if frame.is_corrupt or (self._index.presumed and source < latest):
                        raise SeekError
                    latest = source
                    yield from sequence.push(source, frame)
        yield from sequence.flush()

    def _go_to(self, key: int) -> tuple[Iterator[Any], Any, int]:
        """Seek to a keyframe or one before it; return the packets after the first, the first, and its number."""
        for clock in self._clocks:
            if clock[key] == np.iinfo(np.int64).min:
                continue
            try:
                self._container.seek(int(clock[key]), stream=self._stream, backward=True)
                packets = self._container.demux(self._stream)
                first = next(packet for packet in packets if packet.size)
            except (av.error.FFmpegError, StopIteration):
                continue
            number = self._numbers.get(_packet_key(first))
            if number is not None and number <= key and self._index.is_key[number]:
                return packets, first, number
        raise SeekError


class SeekError(Exception):
    """Raised when the container does not lead to its packets, or when the frames after them are damaged."""


def _packet_key(packet: Any) -> tuple[int | None, int | None, int]:
    """Return a key that identifies a packet within its stream, before and after seeking."""
    # AVI times depend on where reading began; the byte position alone is certain there.
    return (packet.pos, None, packet.size) if packet.pos is not None else (None, packet.pts, packet.size)


def _numbers_by_key(index: PacketIndex) -> dict[Any, int]:
    """Return the number of each packet by its key; empty if keys are not unique."""
    names: dict[Any, int] = {}
    for number in range(index.num_packets):
        pos, pts, size = int(index.pos[number]), int(index.pts[number]), int(index.size[number])
        name = (pos, None, size) if pos >= 0 else (None, pts, size)
        if name in names:
            return {}
        names[name] = number
    return names
