"""Read videos: facts and frame times from the packets, frames in the exact order of showing or in any order."""

from __future__ import annotations

import hashlib
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import av
import numpy as np

from actionprep.errors import InputProblem, UserError
from actionprep.pipeline.packets import LOOKAHEAD, PacketIndex, Sequencer, read_packets
from actionprep.pipeline.pictures import Converter, Orientation
from actionprep.pipeline.quarantine import NO_FILE
from actionprep.pipeline.stage import Filter, FrameBlock

DECODED, CONCEALED, MISSING = 0, 1, 2

BACKEND = f"PyAV {av.__version__}"

# Demuxers that make "video" out of text or playlists, which would take a text file for a recording.
_NOT_VIDEO = {"tty", "hls", "concat", "dash", "lrc", "srt", "ass", "webvtt", "subviewer", "sdp"}

# Bytes of decoded pictures that wait for the consumer, at most; and packets tried for a first picture.
_AHEAD_BYTES = 96 << 20
_FIRST_PICTURE_PACKETS = 256
# Decoders gain little from more, and each holds a picture.
_MOST_THREADS = 8


@dataclass(frozen=True, eq=False)
class VideoFacts:
    """What a video file is, from its packets and its first picture.

    stream         index of the video stream that players would choose
    width, height  of the pictures for display, after rotation, in pixels (which are taken as square)
    rotation       degrees counterclockwise by which stored pictures are turned for display: 0, 90, 180 or -90
    pixel_aspect   width of a pixel over its height as the file states it; 1.0 when it does not
    time_base      unit of the container's clock in seconds
    start          time of the first frame in seconds, as the container counts
    times          (T,) float64 seconds from the first frame, in the order of showing, strictly increasing
    fps            median rate
    header_frames  frames that the container states, None when it does not
    duration       seconds from the first frame to the end of the last
    digest         sha256 of the file's bytes, in hex
    warnings       what is odd about the file, one phrase each
    """

    path: str
    stream: int
    codec: str
    pixel_format: str
    width: int
    height: int
    rotation: int
    mirrored: bool
    pixel_aspect: float
    time_base: Fraction
    start: float
    times: np.ndarray
    fps: float
    header_frames: int | None
    duration: float
    digest: str
    warnings: tuple[str, ...]

    @property
    def num_frames(self) -> int:
        """Frames that the packets make."""
        return len(self.times)


def probe(path: str | Path) -> VideoFacts:
    """Facts of a video file, by demuxing it once; only the first picture is decoded, for its size and rotation.

    Raises InputProblem with one reason for what is not a video that can be read.
    """
    path = str(path)
    with _opened(path) as (container, stream):
        index, look = _scan(path, container, stream)
        header_frames = int(stream.frames) or None
        codec = stream.codec_context.codec.canonical_name
        aspect = float(stream.sample_aspect_ratio or 1)
        fps = _rate(index, stream.average_rate or stream.guessed_rate)
        warnings = [*index.warnings, *look.warnings, *_shortfalls(container, index, header_frames, fps)]
        number = stream.index
    if abs(aspect - 1) > 0.02:
        warnings.append(f"pixels are not square (aspect {aspect:.4g}); sizes and coordinates are of the stored pixels")
    return VideoFacts(
        path=path,
        stream=number,
        codec=codec,
        pixel_format=look.pixel_format,
        width=look.width,
        height=look.height,
        rotation=look.orientation.rotation,
        mirrored=look.orientation.mirrored,
        pixel_aspect=aspect,
        time_base=index.time_base,
        start=index.start,
        times=index.times,
        fps=fps,
        header_frames=header_frames,
        duration=_duration(index, fps),
        digest=_digest(path),
        warnings=tuple(warnings),
    )


@dataclass(frozen=True)
class Shortfall:
    """What a pass over all frames could not decode as it should.

    num_frames      frames that the packets promise
    stated          frames that the header states where these are more than the packets promise, else 0
    concealed       frames that came with damage which the decoder covered up
    missing         frames that never came; the last good picture stands for each
    surplus         pictures that came without a place among the packets, and were left out
    first_bad       index of the first frame that is concealed or missing, None when there is none
    decoder_errors  packets that the decoder refused, and the first reason
    """

    num_frames: int
    stated: int
    concealed: int
    missing: int
    surplus: int
    first_bad: int | None
    decoder_errors: int
    reason: str

    def __str__(self) -> str:
        found = {"missing": self.missing, "concealed": self.concealed, "without a place": self.surplus}
        parts = [f"{count} {what}" for what, count in found.items() if count]
        if self.stated:
            parts.insert(0, f"{self.stated - self.num_frames} more stated by the header are not in the file")
        where = f", from frame {self.first_bad} on" if self.first_bad is not None else ""
        reason = f" ({self.reason})" if self.reason else ""
        return f"of {self.num_frames} frames: {', '.join(parts)}{where}{reason}"


class VideoBlock(FrameBlock):
    """Consecutive frames as the decoder gave them; arrays are made when they are asked for, once."""

    def __init__(
        self, frames: list[Any], converter: Converter, *, index: np.ndarray, time: np.ndarray, status: np.ndarray
    ) -> None:
        self.index, self.time, self.status = index, time, status
        self._frames, self._converter = frames, converter
        self._resized: dict[tuple[int, int, str], np.ndarray] = {}

    @cached_property
    def rgb(self) -> np.ndarray:  # noqa: D102
        return self._converter.rgb(self._frames)

    @cached_property
    def gray(self) -> np.ndarray:  # noqa: D102
        return self._converter.gray(self._frames)

    def resized(self, height: int, width: int, filter: Filter = "area") -> np.ndarray:  # noqa: D102
        if (height, width) == (self._converter.height, self._converter.width):
            return self.rgb
        key = (height, width, filter)
        if key not in self._resized:
            self._resized[key] = self._converter.rgb(self._frames, height, width, filter)
        return self._resized[key]

    def rgb_at(self, positions: np.ndarray) -> np.ndarray:  # noqa: D102
        if "rgb" in self.__dict__:
            return self.rgb[positions]
        return self._converter.rgb([self._frames[int(at)] for at in positions])

    def take(self, positions: np.ndarray) -> VideoBlock:  # noqa: D102
        return VideoBlock(
            [self._frames[int(at)] for at in positions],
            self._converter,
            index=self.index[positions],
            time=self.time[positions],
            status=self.status[positions],
        )


class VideoReader:
    """Frames of one video, block by block in the order of showing, or any frames by index.

    height, width: display size; times: (T,) float64 seconds, num_frames: T; shortfall: what the last whole pass of
    `blocks` could not decode, None when all was well.

    A broken stream gives every frame that its packets promise all the same: status 1 marks pictures that the decoder
    patched up, status 2 frames that never came, for which the last good picture stands (the first good one before it).

    Raises InputProblem when the file cannot be opened, or when no frame of it decodes.
    """

    def __init__(self, path: str | Path, *, times: np.ndarray | None = None, threads: int = 1) -> None:
        """Open a file and number its packets.

        times: frame times to hand out instead of seconds from the first frame, such as those on the recording's clock.
        threads: FFmpeg threads; 0, for when nothing else runs, takes all cores but the one that uses the frames.
        """
        self.path = str(path)
        self.shortfall: Shortfall | None = None
        self._threads = threads or max(1, min(_MOST_THREADS, (os.cpu_count() or 1) - 1))
        with _opened(self.path) as (container, stream):
            self._index, look = _scan(self.path, container, stream)
            stated = int(stream.frames)
        self._stated = stated if stated > self._index.num_packets else 0
        if times is not None and len(times) != self._index.num_frames:
            raise InputProblem(
                f"{self.path}: the catalogue has {len(times)} frames of it and the file now has "
                f"{self._index.num_frames}. It changed since it was scanned: run 'actionprep scan' again.",
                backend=BACKEND,
            )
        self.times = self._index.times if times is None else np.asarray(times, np.float64)
        self.height, self.width = look.height, look.width
        self._converter = Converter(look.height, look.width, look.orientation)
        self._cursor: _Cursor | None = None
        # Packet of each slot as far as it is known, for streams whose packets do not tell the order of showing.
        self._learned: list[int] = []

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close what `frames_at` keeps open."""
        if self._cursor is not None:
            self._cursor.close()
            self._cursor = None

    @property
    def num_frames(self) -> int:
        """Frames that the packets promise; every pass gives exactly as many."""
        return self._index.num_frames

    def blocks(self, *, size: int = 32, offset: float = 0.0) -> Iterator[VideoBlock]:
        """All frames in order, `size` at a time, decoded by a thread ahead of the caller.

        offset: seconds that are added to the times. After the last block `shortfall` is set.
        """
        frames: list[Any] = []
        statuses: list[int] = []
        first = 0
        for frame, status in self._filled():
            frames.append(frame)
            statuses.append(status)
            if len(frames) == size or first + len(frames) == self.num_frames:
                index = np.arange(first, first + len(frames))
                yield VideoBlock(
                    frames,
                    self._converter,
                    index=index,
                    time=self.times[index] + offset,
                    status=np.array(statuses, np.uint8),
                )
                first += len(frames)
                frames, statuses = [], []

    def frames_at(
        self,
        indices: Sequence[int] | np.ndarray,
        *,
        height: int | None = None,
        width: int | None = None,
        filter: Filter = "area",
    ) -> np.ndarray:
        """(len(indices), H, W, 3) uint8: these frames, in the order asked for, the same pictures as `blocks` gives.

        Decodes from the nearest keyframe before each; where the container cannot seek, or what comes after seeking is
        not whole, from the beginning. Only of a damaged stream it may have more: a decoder that lost its way may find it
        again at a later keyframe when it begins there, and not when it comes from before.
        """
        wanted = np.asarray(indices, np.int64).reshape(-1)
        size = (height or self.height, width or self.width)
        how: Filter = "bilinear" if size == (self.height, self.width) else filter
        out = np.empty((len(wanted), *size, 3), np.uint8)
        for slot, frame, _ in self._picked(self._checked(wanted)):
            out[wanted == slot] = self._converter.rgb([frame], *size, how)
        return out

    def blocks_at(
        self, indices: Sequence[int] | np.ndarray, *, size: int = 32, offset: float = 0.0
    ) -> Iterator[VideoBlock]:
        """Only these frames, sorted and each once, in blocks like those of `blocks`; found as `frames_at` does."""
        frames: list[Any] = []
        slots: list[int] = []
        statuses: list[int] = []

        def block() -> VideoBlock:
            index = np.array(slots, np.int64)
            time = self.times[index] + offset
            return VideoBlock(frames, self._converter, index=index, time=time, status=np.array(statuses, np.uint8))

        for slot, frame, status in self._picked(self._checked(np.asarray(indices, np.int64).reshape(-1))):
            frames.append(frame)
            slots.append(slot)
            statuses.append(status)
            if len(frames) == size:
                yield block()
                frames, slots, statuses = [], [], []
        if frames:
            yield block()

    def _checked(self, indices: np.ndarray) -> list[int]:
        beyond = indices[(indices < 0) | (indices >= self.num_frames)]
        if len(beyond):
            raise UserError(f"No frame {beyond[0]} in {self.path}. It has frames 0 to {self.num_frames - 1}.")
        return [int(slot) for slot in np.unique(indices)]

    def _filled(self) -> Iterator[tuple[Any, int]]:
        """Picture and status of every slot."""
        count = _Count(self.num_frames, self._stated)
        ahead = _decoded_ahead(self._pictures(count), self.height * self.width * 2)
        for slot, frame, status, _ in _without_gaps(ahead, self.num_frames, self._nothing_decodes(count)):
            count.note(slot, status)
            yield frame, status
        self.shortfall = count.shortfall()

    def _nothing_decodes(self, count: _Count) -> Callable[[], InputProblem]:
        def problem() -> InputProblem:
            reason = f" ({count.reason})" if count.reason else ""
            return InputProblem(
                f"{self.path}: none of its {self.num_frames} frames decodes{reason}. The file is damaged: replace it, "
                "or take it out of the study.",
                frame=0,
                backend=BACKEND,
            )

        return problem

    def _pictures(self, count: _Count) -> Iterator[tuple[int, int, Any, bool]]:
        """(slot, packet, picture, corrupt) of all that decodes, in order.

        A stream that turns out damaged is decoded again by one thread, so that errors fall on the same frames, whatever
        the number of threads.
        """
        delivered = -1
        if self._threads != 1:
            # Pictures wait until those that they may refer to are out: none is handed out that damage will still reach.
            held: deque[tuple[int, int, Any, bool]] = deque()
            try:
                for picture in self._decode(count, self._threads):
                    if picture[0] != delivered + len(held) + 1:
                        raise _DamagedWhileThreaded
                    held.append(picture)
                    if len(held) > LOOKAHEAD:
                        yield held.popleft()
                        delivered += 1
                if delivered + len(held) + 1 != self.num_frames:
                    raise _DamagedWhileThreaded
                yield from held
                return
            except _DamagedWhileThreaded:
                count.restart()
        for picture in self._decode(count, 1):
            if picture[0] > delivered:
                yield picture

    def _decode(self, count: _Count, threads: int) -> Iterator[tuple[int, int, Any, bool]]:
        sequence = Sequencer(self._index)
        with _opened(self.path) as (container, stream):
            for number, frame in _demux_and_decode(container, stream, threads, count):
                if threads != 1 and frame.is_corrupt:
                    raise _DamagedWhileThreaded
                for at, of, due in sequence.push(number, frame):
                    yield at, of, due, self._is_corrupt(of, due)
            for at, of, due in sequence.flush():
                yield at, of, due, self._is_corrupt(of, due)
        count.surplus = sequence.surplus

    def _is_corrupt(self, number: int, frame: Any) -> bool:
        return bool(frame.is_corrupt or self._index.is_corrupt[number])

    def _picked(self, slots: list[int]) -> Iterator[tuple[int, Any, int]]:
        """(slot, picture, status) of these slots, which are sorted."""
        done = 0
        try:
            for slot, frame in self._picked_by_seeking(slots):
                yield slot, frame, DECODED
                done += 1
        except _CannotSeek:
            self.close()
            yield from self._picked_from_start(slots[done:])

    def _picked_from_start(self, slots: list[int]) -> Iterator[tuple[int, Any, int]]:
        """The same by decoding from the beginning, which shows the order where the packets do not tell it."""
        count = _Count(self.num_frames, self._stated)
        wanted = set(slots)
        learned: list[int] = []
        pictures = self._pictures(count)
        for slot, frame, status, number in _without_gaps(pictures, self.num_frames, self._nothing_decodes(count)):
            learned.append(number)
            if slot in wanted:
                yield slot, frame, status
            if slot == slots[-1]:
                break
        if len(learned) > len(self._learned):
            self._learned = learned

    def _picked_by_seeking(self, slots: list[int]) -> Iterator[tuple[int, Any]]:
        if self._index.ordered and not (self._index.presumed and self._learned):
            order = self._index.packet_of_slot()
        else:
            order = np.full(self.num_frames, -1, np.int64)
            order[: len(self._learned)] = self._learned
        if self._cursor is None:
            self._cursor = _Cursor(self.path, self._index)
        yield from self._cursor.pick(slots, order)


def _without_gaps(
    pictures: Iterator[tuple[int, int, Any, bool]], num_frames: int, problem: Callable[[], InputProblem]
) -> Iterator[tuple[int, Any, int, int]]:
    """(slot, picture, status, packet) of every slot; packet -1 where a picture stands in for one that never came."""
    last: Any = None
    next_slot = 0
    for slot, number, frame, corrupt in pictures:
        stand_in = frame if last is None else last
        for gap in range(next_slot, slot):
            yield gap, stand_in, MISSING, -1
        yield slot, frame, CONCEALED if corrupt else DECODED, number
        last, next_slot = frame, slot + 1
    if last is None:
        raise problem()
    for gap in range(next_slot, num_frames):
        yield gap, last, MISSING, -1


class _Cursor:
    """An open decoder that goes to keyframes and reads on from there.

    Only pictures that are whole come from it: a decoder that meets damage gives what it has from before, and that
    depends on where decoding began.
    """

    def __init__(self, path: str, index: PacketIndex) -> None:
        self._index = index
        self._context = _opened(path)
        self._container, self._stream = self._context.__enter__()
        self._stream.thread_count = 1
        self._pictures: Iterator[tuple[int, int, Any]] | None = None
        self._held: tuple[int, int, Any] | None = None
        self._fed = -1
        self._numbers = _packet_names(index)
        # A Matroska file is indexed by presentation times, the others by decoding times.
        clocks = (index.pts, index.dts)
        self._clocks = clocks if "matroska" in self._container.format.name else clocks[::-1]

    def close(self) -> None:
        self._pictures = None
        self._held = None
        self._context.__exit__(None, None, None)

    def pick(self, slots: list[int], order: np.ndarray) -> Iterator[tuple[int, Any]]:
        """(slot, picture) of these slots, which are sorted; raises _CannotSeek at the first that does not come whole.

        order: (T,) packet of each slot, -1 where it is not known.
        """
        slot_of = np.full(self._index.num_packets, -1, np.int64)
        known = np.flatnonzero(order >= 0)
        slot_of[order[known]] = known
        keys = np.flatnonzero(self._index.is_key & (slot_of >= 0))
        for slot in slots:
            # Not a keyframe that is shown after the target: pictures between belong to the group before it.
            usable = keys[(keys <= order[slot]) & (slot_of[keys] <= slot)]
            if order[slot] < 0 or not len(usable):
                raise _CannotSeek
            key = int(usable[-1])
            passed = self._held is not None and self._held[0] > slot
            if self._pictures is None or passed or self._fed < key - 4:
                self._held = None
                self._pictures = self._read_from(key, slot_of)
            frame = self._advance(slot)
            if frame is None:
                raise _CannotSeek
            yield slot, frame

    def _advance(self, slot: int) -> Any:
        """The picture of this slot, None when the pictures go past it."""
        while self._held is None or self._held[0] < slot:
            assert self._pictures is not None
            self._held = next(self._pictures, None)
            if self._held is None:
                self._pictures = None
                return None
        return self._held[2] if self._held[0] == slot else None

    def _read_from(self, key: int, slot_of: np.ndarray) -> Iterator[tuple[int, int, Any]]:
        """Pictures from a keyframe on, or from one before it where the container leads there."""
        packets, packet, number = self._go_to(key)
        first = int(slot_of[number])
        sequence = Sequencer(self._index, first_slot=first, slot=slot_of)
        latest = -1
        while packet is not None:
            if packet.size:
                if self._numbers.get(_packet_name(packet)) != number or self._index.is_corrupt[number]:
                    raise _CannotSeek
                _tag(packet, number)
                self._fed = number
                number += 1
            try:
                frames = packet.decode()
                packet = next(packets, None)
            except av.error.FFmpegError:
                raise _CannotSeek from None
            for frame in frames:
                of = _tag_of(frame)
                # Pictures before the keyframe that come after it in the file refer to what was not decoded.
                if slot_of[of] >= first:
                    if frame.is_corrupt or (self._index.presumed and of < latest):
                        raise _CannotSeek
                    latest = of
                    yield from sequence.push(of, frame)
        yield from sequence.flush()

    def _go_to(self, key: int) -> tuple[Iterator[Any], Any, int]:
        """Seek to a keyframe or one before it; returns the packets after the first, the first, and its number."""
        for clock in self._clocks:
            if clock[key] == np.iinfo(np.int64).min:
                continue
            try:
                self._container.seek(int(clock[key]), stream=self._stream, backward=True)
                packets = self._container.demux(self._stream)
                first = next(packet for packet in packets if packet.size)
            except (av.error.FFmpegError, StopIteration):
                continue
            number = self._numbers.get(_packet_name(first))
            if number is not None and number <= key and self._index.is_key[number]:
                return packets, first, number
        raise _CannotSeek


class _CannotSeek(Exception):
    """The container does not lead to the packets that it has, or what follows them is damaged."""


class _DamagedWhileThreaded(Exception):
    """The stream is damaged and several threads decode it."""


class _Count:
    """Counts what a pass over a video meets."""

    def __init__(self, num_frames: int, stated: int) -> None:
        self.num_frames, self.stated = num_frames, stated
        self.surplus = 0
        self.concealed = self.missing = 0
        self.first_bad: int | None = None
        self.restart()

    def restart(self) -> None:
        self.errors = 0
        self.reason = ""

    def refused(self, number: int, error: Exception, threads: int) -> None:
        if threads != 1:
            raise _DamagedWhileThreaded
        self.errors += 1
        if not self.reason:
            self.reason = f"packet {number}: {getattr(error, 'strerror', None) or error}"

    def note(self, slot: int, status: int) -> None:
        self.concealed += status == CONCEALED
        self.missing += status == MISSING
        if status != DECODED and self.first_bad is None:
            self.first_bad = slot

    def shortfall(self) -> Shortfall | None:
        if not (self.stated or self.concealed or self.missing or self.surplus):
            return None
        return Shortfall(
            num_frames=self.num_frames,
            stated=self.stated,
            concealed=self.concealed,
            missing=self.missing,
            surplus=self.surplus,
            first_bad=self.first_bad,
            decoder_errors=self.errors,
            reason=self.reason,
        )


def _demux_and_decode(container: Any, stream: Any, threads: int, count: _Count) -> Iterator[tuple[int, Any]]:
    """(packet number, picture) of all that decodes, as the decoder hands it out."""
    if threads != 1:
        # Not slices: decoders lose the marks of damage when several threads work on one picture.
        stream.thread_type = "FRAME"
    stream.thread_count = threads
    number = -1
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.error.FFmpegError as error:
            count.refused(number + 1, error, threads)
            return
        if packet is None:
            return
        if packet.size:
            number += 1
            _tag(packet, number)
        try:
            frames = packet.decode()
        except av.error.EOFError:
            continue
        except av.error.FFmpegError as error:
            count.refused(number, error, threads)
            continue
        for frame in frames:
            yield _tag_of(frame), frame


def _tag(packet: Any, number: int) -> None:
    """Let the pictures that a packet makes carry its number through the decoder, in place of their time."""
    # Every decoder hands a packet's pts on to its picture. PyAV's `opaque` would do as well, but freeing it takes
    # Python's lock, and a closing decoder that holds the lock waits for the threads that free it.
    packet.pts = packet.dts = number


def _tag_of(frame: Any) -> int:
    number: int = frame.pts
    return number


def _decoded_ahead(pictures: Iterator[Any], picture_bytes: int) -> Iterator[Any]:
    """The same pictures, taken by a thread of their own some pictures ahead of the caller."""
    # Few, so that they are still in the processor's cache when they are used; several at a time, since each handing
    # over stops both threads for a moment.
    ahead = int(np.clip(_AHEAD_BYTES // max(picture_bytes, 1), 2, 16))
    together = max(1, ahead // 4)
    waiting: queue.Queue[tuple[list[Any], bool, BaseException | None]] = queue.Queue(ahead // together)
    stop = threading.Event()

    def put(some: list[Any], *, last: bool = False, error: BaseException | None = None) -> None:
        while not stop.is_set():
            try:
                return waiting.put((some, last, error), timeout=0.1)
            except queue.Full:
                continue

    def work() -> None:
        some: list[Any] = []
        try:
            for picture in pictures:
                some.append(picture)
                if len(some) == together:
                    put(some)
                    some = []
                    if stop.is_set():
                        break
            put(some, last=True)
        except BaseException as error:
            # Whatever stops the thread belongs to the caller, who is waiting for it.
            put(some, error=error)
        finally:
            pictures.close()  # type: ignore[attr-defined]

    thread = threading.Thread(target=work, name="decode-ahead", daemon=True)
    thread.start()
    try:
        while True:
            some, last, error = waiting.get()
            yield from some
            if error is not None:
                raise error
            if last:
                return
    finally:
        stop.set()
        thread.join()


@dataclass(frozen=True)
class _Look:
    """What the first picture shows."""

    height: int
    width: int
    pixel_format: str
    orientation: Orientation
    warnings: tuple[str, ...] = ()


def _scan(path: str, container: Any, stream: Any) -> tuple[PacketIndex, _Look]:
    """Number the packets, decoding the first of them until a picture comes out."""
    first: list[Any] = []
    tried = 0

    def look_at(packet: Any) -> None:
        nonlocal tried
        if not first and tried < _FIRST_PICTURE_PACKETS:
            tried += 1
            with suppress(av.error.FFmpegError):
                first.extend(packet.decode())

    index = read_packets(container, stream, see=look_at)
    if not index.num_frames:
        why = f" ({'; '.join(index.warnings)})" if index.warnings else ""
        raise InputProblem(f"{path}: has a video stream without a single frame{why}.", backend=BACKEND)
    if not first:
        context = stream.codec_context
        warning = f"no picture comes out of its first {tried} packets"
        return index, _Look(context.height, context.width, str(context.pix_fmt), Orientation(), (warning,))
    frame = first[0]
    orientation = Orientation.of(frame)
    size = (frame.width, frame.height) if orientation.transposed else (frame.height, frame.width)
    odd = () if orientation.exact else ("it is turned by an angle that is not a right one; the nearest was taken",)
    return index, _Look(*size, frame.format.name, orientation, odd)


@contextmanager
def _opened(path: str) -> Iterator[tuple[Any, Any]]:
    """The container and the video stream that players would choose; raises InputProblem with the reason otherwise."""
    _refuse_what_is_no_file(path)
    try:
        # The protocol is named, so that a colon in a file name is only a colon; files cannot point elsewhere.
        container = av.open(f"file:{path}", metadata_errors="replace", options={"protocol_whitelist": "file"})
    except av.error.FFmpegError as error:
        raise InputProblem(f"{path}: {_why_not_video(path, error)}", backend=BACKEND) from error
    with container:
        if set(container.format.name.split(",")) & _NOT_VIDEO:
            raise InputProblem(f"{path}: holds text or a playlist, not video.", backend=BACKEND)
        if container.format.name.endswith("_pipe") or container.format.name == "image2":
            raise InputProblem(f"{path}: holds a still picture, not video.", backend=BACKEND)
        stream = container.streams.best("video")
        if stream is None or stream.disposition & av.stream.Disposition.attached_pic:
            fault = _mp4_fault(path)
            if fault is not None and fault.cut:
                raise InputProblem(f"{path}: {fault.reason}", backend=BACKEND)
            kinds = sorted({one.type for one in container.streams}) or ["no"]
            raise InputProblem(f"{path}: has no video stream, only {' and '.join(kinds)} streams.", backend=BACKEND)
        if stream.codec_context is None:
            raise InputProblem(f"{path}: this FFmpeg has no decoder for its video.", backend=BACKEND)
        yield container, stream


def _refuse_what_is_no_file(path: str) -> None:
    if not os.path.exists(path):
        raise InputProblem(f"{path}: there is no such file.", backend=NO_FILE)
    if not os.path.isfile(path):
        raise InputProblem(f"{path}: is not a file.")
    if os.path.getsize(path) == 0:
        raise InputProblem(f"{path}: is empty (0 bytes).")


def _why_not_video(path: str, error: Any) -> str:
    fault = _mp4_fault(path)
    if fault is not None:
        return fault.reason
    with open(path, "rb") as file:
        head = file.read(4096)
    text = head[:-4].decode("utf-8", "ignore") if len(head) > 8 else ""
    if text and b"\0" not in head and len(text.encode()) > 0.95 * (len(head) - 4):
        return "holds text, not video."
    return f"is not a video that FFmpeg can read ({error.strerror}); it is damaged or of another kind."


@dataclass(frozen=True)
class _Mp4Fault:
    reason: str
    cut: bool


def _mp4_fault(path: str) -> _Mp4Fault | None:
    """What is wrong with an MP4 or MOV file that gives no video, and whether it was cut off; None for other files.

    Walks the top level boxes (ISO/IEC 14496-12, section 4.2).
    """
    end = os.path.getsize(path)
    kinds: list[bytes] = []
    at = 0
    with open(path, "rb") as file:
        while at + 8 <= end:
            file.seek(at)
            header = file.read(16)
            length, kind = int.from_bytes(header[:4], "big"), header[4:8]
            if length == 1:
                length = int.from_bytes(header[8:16], "big")
            elif length == 0:
                length = end - at
            kinds.append(kind)
            if length < 8:
                break
            at += length
    if not kinds or kinds[0] not in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        return None
    if b"moov" in kinds:
        return _Mp4Fault(
            "is an MP4 whose index is damaged. Copy it again, or repair it with a tool for that.", at > end
        )
    lost = f", by {at - end} bytes or more" if at > end else ""
    reason = (
        "is an MP4 without its index (no 'moov' box), which is written when a recording ends: it was cut off"
        f"{lost}. Copy it again, or repair it with a tool for that."
    )
    return _Mp4Fault(reason, True)


def _packet_name(packet: Any) -> tuple[int | None, int | None, int]:
    """What tells a packet from the others of its stream, before and after seeking."""
    # AVI times depend on where reading began; the byte position alone is certain there.
    return (packet.pos, None, packet.size) if packet.pos is not None else (None, packet.pts, packet.size)


def _packet_names(index: PacketIndex) -> dict[Any, int]:
    """Number of each packet by its name; empty when names are not unique."""
    names: dict[Any, int] = {}
    for number in range(index.num_packets):
        pos, pts, size = int(index.pos[number]), int(index.pts[number]), int(index.size[number])
        name = (pos, None, size) if pos >= 0 else (None, pts, size)
        if name in names:
            return {}
        names[name] = number
    return names


def _rate(index: PacketIndex, stated: Fraction | None) -> float:
    """Frames per second at the median interval; where all times fit one rate up to the clock's rounding, that rate."""
    gaps = np.diff(index.ticks)
    if not len(gaps):
        return float(stated) if stated else 1.0
    if stated:
        even = np.arange(index.num_frames) * float(1 / (stated * index.time_base))
        if np.abs(index.ticks - index.ticks[0] - even).max() <= 1:
            return float(stated)
    gap = gaps.mean() if np.abs(gaps - gaps.mean()).max() <= 1 else np.median(gaps)
    return float(1 / (float(gap) * float(index.time_base)))


def _duration(index: PacketIndex, fps: float) -> float:
    return float(index.times[-1]) + (index.last_duration * float(index.time_base) or 1 / fps)


def _shortfalls(container: Any, index: PacketIndex, header_frames: int | None, fps: float) -> list[str]:
    """Where the container states more than its packets hold."""
    if header_frames is not None:
        if header_frames > index.num_packets:
            return [
                f"the header states {header_frames} frames and the file holds {index.num_packets}: "
                f"{header_frames - index.num_packets} are lost, the file seems to be cut off"
            ]
        return []
    stated = container.duration / 1e6 if container.duration else 0.0
    held = _duration(index, fps)
    if stated > held + max(1.0, 0.05 * stated) and len(container.streams) == 1:
        return [f"the header states {stated:.2f} s and the frames end after {held:.2f} s: the file seems to be cut off"]
    return []


def _digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
