"""Find changes of the frame size within a stream while its packets are read."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import av

# NAL unit types (ITU-T H.264 table 7-1, H.265 table 7-1): sequence parameter set, and the first and last type of slices.
_H264 = {"sps": 7, "slices": range(1, 6)}
_HEVC = {"sps": 33, "slices": range(32)}

# Keyframes of codecs without such units are decoded, one per second at most.
_SECONDS_BETWEEN = 1.0


class FrameSizes:
    """Decode keyframes at which the frame size may change: where parameter sets differ, or once per second.

    Attributes:
        changes: (packet, width, height) of each keyframe with another size than the keyframe before it. Sizes are in
            pixels as stored, without rotation. Packets are numbered in the order of storage.
    """

    def __init__(self, stream: Any) -> None:
        """Prepare a decoder for the keyframes.

        Args:
            stream: Video stream; its own decoder is not used.
        """
        self.changes: list[tuple[int, int, int]] = []
        context = stream.codec_context
        self._name = context.codec.canonical_name
        self._time_base = float(stream.time_base)
        self._lengths = bytes(context.extradata or b"")[:1] == b"\x01"  # avcC, hvcC: lengths instead of start codes
        self._decoder = av.CodecContext.create(context.codec.name, "r")
        self._decoder.extradata = context.extradata
        self._decoder.thread_count = 1
        self._packet = -1
        self._sets: bytes | None = None
        self._decoded_at: float | None = None
        self._size: tuple[int, int] | None = None

    def see(self, packet: Any) -> None:
        """Take the next packet of the stream."""
        if not packet.size:
            return
        self._packet += 1
        if packet.is_keyframe and self._may_change(packet):
            self._look_at(packet)

    def _may_change(self, packet: Any) -> bool:
        if self._name in ("h264", "hevc"):
            sets = _parameter_sets(bytes(packet), _HEVC if self._name == "hevc" else _H264, lengths=self._lengths)
            if packet.has_sidedata("new_extradata"):
                sets = sets or bytes([self._packet % 256])
            changed = self._size is None or (bool(sets) and sets != self._sets)
            self._sets = sets or self._sets
            return changed
        seconds = None if packet.dts is None else packet.dts * self._time_base
        if seconds is not None and self._decoded_at is not None and 0 <= seconds - self._decoded_at < _SECONDS_BETWEEN:
            return False
        self._decoded_at = seconds
        return True

    def _look_at(self, packet: Any) -> None:
        frames: list[Any] = []
        # A damaged keyframe gives no size; decoding the video counts it.
        with suppress(av.error.FFmpegError):
            frames += self._decoder.decode(packet)
            frames += self._decoder.decode(None)
        self._decoder.flush_buffers()
        if not frames:
            return
        size = (frames[0].width, frames[0].height)
        if self._size is not None and size != self._size:
            self.changes.append((self._packet, *size))
        self._size = size


def _parameter_sets(data: bytes, types: dict[str, Any], *, lengths: bool) -> bytes:
    """Return the sequence parameter sets before the first slice of a packet; empty if there are none."""
    sets = []
    position = 0
    while True:
        if lengths:
            start, end = position + 4, position + 4 + int.from_bytes(data[position : position + 4], "big")
            position = end
        else:
            start = data.find(b"\0\0\1", position) + 3
            if start < 3:
                break
            end = data.find(b"\0\0\1", start)
            position = end = len(data) if end < 0 else end
        if start >= len(data):
            break
        kind = data[start] & 0x1F if types is _H264 else (data[start] >> 1) & 0x3F
        if kind in types["slices"]:
            break
        if kind == types["sps"]:
            sets.append(data[start:end].rstrip(b"\0"))
    return b"".join(sets)
