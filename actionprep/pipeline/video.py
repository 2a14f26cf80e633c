"""Read the frames of a video: all in the order of display, or any of them by index."""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np

from actionprep.datasets.view_reading import WHOLE_FILE, Reading
from actionprep.errors import InputError, UserError
from actionprep.pipeline.decoding import (
    DECODED,
    JOINED,
    LETTERBOXED,
    Count,
    Shortfall,
    ThreadedDecodeError,
    decoded_ahead,
    demux_and_decode,
    without_gaps,
)
from actionprep.pipeline.frame_conversion import Converter, CroppedConverter, Orientation
from actionprep.pipeline.opening import BACKEND, number_packets, opened
from actionprep.pipeline.packets import LOOKAHEAD, Sequencer, lost_frames
from actionprep.pipeline.probe import checked_crop
from actionprep.pipeline.seeking import Cursor, SeekError
from actionprep.pipeline.stage import Filter, FrameBlock

# Decoders gain little from more threads, and each thread needs memory for a frame.
_MOST_THREADS = 8


class VideoBlock(FrameBlock):
    """Consecutive decoded frames; arrays are computed on first use and kept."""

    def __init__(
        self,
        frames: list[Any],
        converter: Converter | CroppedConverter,
        *,
        index: np.ndarray,
        time: np.ndarray,
        status: np.ndarray,
    ) -> None:
        self.index, self.time, self.status = index, time, status
        self._frames, self._converter = frames, converter
        self._resized: dict[tuple[int, int, str], np.ndarray] = {}

    @cached_property
    def rgb(self) -> np.ndarray:  # noqa: D102
        with self._timed() as converter:
            return converter.rgb(self._frames)

    @cached_property
    def gray(self) -> np.ndarray:  # noqa: D102
        with self._timed() as converter:
            return converter.gray(self._frames)

    def resized(self, height: int, width: int, filter: Filter = "area") -> np.ndarray:  # noqa: D102
        if (height, width) == (self._converter.height, self._converter.width):
            return self.rgb
        key = (height, width, filter)
        if key not in self._resized:
            with self._timed() as converter:
                self._resized[key] = converter.rgb(self._frames, height, width, filter)
        return self._resized[key]

    def rgb_at(self, positions: np.ndarray) -> np.ndarray:  # noqa: D102
        if "rgb" in self.__dict__:
            rgb: np.ndarray = self.rgb[positions]
            return rgb
        with self._timed() as converter:
            return converter.rgb([self._frames[int(row)] for row in positions])

    @contextmanager
    def _timed(self) -> Iterator[Converter | CroppedConverter]:
        begun = time.perf_counter()
        yield self._converter
        self._converter.seconds += time.perf_counter() - begun

    def take(self, positions: np.ndarray) -> VideoBlock:  # noqa: D102
        return VideoBlock(
            [self._frames[int(row)] for row in positions],
            self._converter,
            index=self.index[positions],
            time=self.time[positions],
            status=self.status[positions],
        )


class FrameReader(ABC):
    """Read the frames of one view, block by block in the order of display, or by index.

    A damaged source still gives every frame that it promises, each with a status: 0 decoded, 1 concealed (the decoder
    covered damage), 2 missing (repeats the last good frame, or at the start the first good one), 3 letterboxed (its size
    differs from that of the first frame), 4 first frame after a jump of the clock or of a further part.

    Attributes:
        path: Path of the file or folder.
        height: Display height of the view in pixels.
        width: Display width of the view in pixels.
        times: Frame times in seconds, float64 of shape (T,).
        orientation: How stored frames are turned for display.
        shortfall: What the last full pass of `blocks` could not decode; None if it decoded everything.
        decode_seconds: Time that the last full pass of `blocks` took to decode; 0 if that is not measured.
    """

    path: str
    times: np.ndarray
    shortfall: Shortfall | None = None
    decode_seconds: float = 0.0

    def _convert(self, height: int, width: int, orientation: Orientation, crop: tuple[int, ...]) -> None:
        """Set how frames are converted, from the size of the full frame for display and the rectangle of the view."""
        full = Converter(height, width, orientation)
        self.orientation = orientation
        self._converter: Converter | CroppedConverter = full
        if crop:
            self._converter = CroppedConverter(full, checked_crop(crop, width, height, self.path))
        self.height, self.width = self._converter.height, self._converter.width

    @property
    def convert_seconds(self) -> float:
        """Time that blocks of this reader took to convert frames."""
        return self._converter.seconds

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Close the files that `frames_at` keeps open."""

    @property
    def num_frames(self) -> int:
        """Number of frames that the source promises; every pass gives exactly as many."""
        return len(self.times)

    @abstractmethod
    def frames_with_status(self) -> Iterator[tuple[Any, int]]:
        """Yield the decoded frame and status of every slot, and set `shortfall` at the end."""

    @abstractmethod
    def picked_frames(self, slots: list[int]) -> Iterator[tuple[int, Any, int]]:
        """Yield (slot, frame, status) of these slots, which are sorted."""

    def _check_number(self, times: np.ndarray, num_frames: int) -> np.ndarray:
        if len(times) != num_frames:
            raise InputError(
                f"{self.path}: the catalog has {len(times)} frames of it and the file now has "
                f"{num_frames}. It changed since it was scanned: run 'actionprep scan' again.",
                backend=BACKEND,
            )
        return np.asarray(times, np.float64)

    def blocks(self, *, size: int = 32, offset: float = 0.0) -> Iterator[VideoBlock]:
        """Yield all frames in order, decoded by a thread ahead of the caller. Afterwards `shortfall` is set.

        Args:
            size: Frames per block.
            offset: Seconds added to the times.

        Raises:
            InputError: If no frame decodes.
        """
        frames: list[Any] = []
        statuses: list[int] = []
        first = 0
        for frame, status in self.frames_with_status():
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
        """Return frames by index; they equal those of `blocks`.

        Decodes from the nearest keyframe before each frame. Decodes from the beginning if the container cannot seek, or
        if frames after seeking are damaged. In a damaged stream, more frames may decode here than in `blocks`: a decoder
        that starts at a later keyframe may succeed where one that comes from before fails.

        Args:
            indices: Frame indices in any order.
            height: Height of the result; None uses the native height.
            width: Width of the result; None uses the native width.
            filter: How to scale.

        Returns:
            RGB frames in the order of `indices`, uint8 of shape (len(indices), H, W, 3).

        Raises:
            UserError: If there is no frame of an index.
            InputError: If no frame decodes.
        """
        wanted = np.asarray(indices, np.int64).reshape(-1)
        size = (height or self.height, width or self.width)
        scaling: Filter = "bilinear" if size == (self.height, self.width) else filter
        out = np.empty((len(wanted), *size, 3), np.uint8)
        for slot, frame, _ in self.picked_frames(self._checked(wanted)):
            out[wanted == slot] = self._converter.rgb([frame], *size, scaling)
        return out

    def blocks_at(
        self, indices: Sequence[int] | np.ndarray, *, size: int = 32, offset: float = 0.0
    ) -> Iterator[VideoBlock]:
        """Yield only these frames, sorted and each once, in blocks; they are decoded as in `frames_at`."""
        frames: list[Any] = []
        slots: list[int] = []
        statuses: list[int] = []

        def block() -> VideoBlock:
            index = np.array(slots, np.int64)
            time = self.times[index] + offset
            return VideoBlock(frames, self._converter, index=index, time=time, status=np.array(statuses, np.uint8))

        for slot, frame, status in self.picked_frames(self._checked(np.asarray(indices, np.int64).reshape(-1))):
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


class VideoReader(FrameReader):
    """Read the frames of one video file; see `FrameReader`.

    `actionprep.pipeline.readers.open_reader` also opens folders of images and recordings in parts.
    """

    def __init__(
        self, path: str | Path, *, times: np.ndarray | None = None, threads: int = 1, reading: Reading = WHOLE_FILE
    ) -> None:
        """Open a file and number its packets.

        Args:
            path: Path of the file.
            times: Frame times to use instead of seconds from the first frame, such as those on the recording's clock.
            threads: FFmpeg threads; 0 uses all cores but one, for when nothing else runs.
            reading: Stream, rate and crop.

        Raises:
            InputError: If the file cannot be opened, or has another number of frames than `times`.
        """
        self.path = str(path)
        self._threads = threads or max(1, min(_MOST_THREADS, (os.cpu_count() or 1) - 1))
        self._stream = reading.stream
        with opened(self.path, self._stream) as (container, stream):
            self._index, look = number_packets(self.path, container, stream, rate=reading.rate)
            lost = lost_frames(container, self._index, int(stream.frames))
        self._stated = self._index.num_frames + lost if lost else 0
        self.times = self._index.times if times is None else self._check_number(times, self._index.num_frames)
        self._convert(look.height, look.width, look.orientation, reading.crop)
        self._frame_bytes = look.height * look.width * 2
        self._cursor: Cursor | None = None
        # Packet of each slot as far as it is known, for streams whose packets do not give the order of display.
        self._learned: list[int] = []
        self._part_starts = frozenset(self._index.part_starts.tolist())

    def close(self) -> None:
        """Close the decoder that `frames_at` keeps open."""
        if self._cursor is not None:
            self._cursor.close()
            self._cursor = None

    def frames_with_status(self) -> Iterator[tuple[Any, int]]:  # noqa: D102
        count = Count(self.num_frames, self._stated)
        ahead = decoded_ahead(self._decoded(count), self._frame_bytes)
        for slot, frame, status, _ in without_gaps(ahead, self.num_frames, self._nothing_decodes(count)):
            count.note(slot, status)
            yield frame, self._flagged(slot, frame, status)
        self.shortfall, self.decode_seconds = count.shortfall(), count.seconds

    def _flagged(self, slot: int, frame: Any, status: int) -> int:
        """Return the status of a frame, with that of its size and of the clock if the frame is undamaged."""
        if status != DECODED:
            return status
        if not self._converter.is_native(frame):
            return LETTERBOXED
        return JOINED if slot in self._part_starts else DECODED

    def _nothing_decodes(self, count: Count) -> Callable[[], InputError]:
        def problem() -> InputError:
            reason = f" ({count.reason})" if count.reason else ""
            return InputError(
                f"{self.path}: none of its {self.num_frames} frames decodes{reason}. The file is damaged: replace it, "
                "or take it out of the study.",
                frame=0,
                backend=BACKEND,
            )

        return problem

    def _decoded(self, count: Count) -> Iterator[tuple[int, int, Any, bool]]:
        """Yield (slot, packet, frame, corrupt) of everything that decodes, in order.

        A damaged stream is decoded again by one thread, so that the same frames have errors with any number of threads.
        """
        delivered = -1
        if self._threads != 1:
            # Frames wait for those that they may refer to, so that no frame is yielded before its damage is known.
            held: deque[tuple[int, int, Any, bool]] = deque()
            try:
                for decoded in self._decode(count, self._threads):
                    if decoded[0] != delivered + len(held) + 1:
                        raise ThreadedDecodeError
                    held.append(decoded)
                    if len(held) > LOOKAHEAD:
                        yield held.popleft()
                        delivered += 1
                if delivered + len(held) + 1 != self.num_frames:
                    raise ThreadedDecodeError
                yield from held
                return
            except ThreadedDecodeError:
                count.restart()
        for decoded in self._decode(count, 1):
            if decoded[0] > delivered:
                yield decoded

    def _decode(self, count: Count, threads: int) -> Iterator[tuple[int, int, Any, bool]]:
        sequence = Sequencer(self._index)
        with opened(self.path, self._stream) as (container, stream):
            for number, frame in demux_and_decode(container, stream, threads, count):
                if threads != 1 and frame.is_corrupt:
                    raise ThreadedDecodeError
                for slot, packet, due in sequence.push(number, frame):
                    yield slot, packet, due, self._is_corrupt(packet, due)
            for slot, packet, due in sequence.flush():
                yield slot, packet, due, self._is_corrupt(packet, due)
        count.surplus = sequence.surplus

    def _is_corrupt(self, number: int, frame: Any) -> bool:
        return bool(frame.is_corrupt or self._index.is_corrupt[number])

    def picked_frames(self, slots: list[int]) -> Iterator[tuple[int, Any, int]]:  # noqa: D102
        done = 0
        try:
            for slot, frame in self._picked_by_seeking(slots):
                yield slot, frame, self._flagged(slot, frame, DECODED)
                done += 1
        except SeekError:
            self.close()
            yield from self._picked_from_start(slots[done:])

    def _picked_from_start(self, slots: list[int]) -> Iterator[tuple[int, Any, int]]:
        """Do the same by decoding from the beginning, which gives the order of display for any stream."""
        count = Count(self.num_frames, self._stated)
        wanted = set(slots)
        learned: list[int] = []
        decoded = self._decoded(count)
        for slot, frame, status, number in without_gaps(decoded, self.num_frames, self._nothing_decodes(count)):
            learned.append(number)
            if slot in wanted:
                yield slot, frame, self._flagged(slot, frame, status)
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
            self._cursor = Cursor(self.path, self._index, self._stream)
        yield from self._cursor.pick(slots, order)
