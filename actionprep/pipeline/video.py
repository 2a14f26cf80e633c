"""Read frames of a video: all in the exact order of showing, or any of them by index."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from actionprep.errors import InputError, UserError
from actionprep.pipeline.decoding import (
    DECODED,
    Count,
    Shortfall,
    ThreadedDecodeError,
    decoded_ahead,
    demux_and_decode,
    without_gaps,
)
from actionprep.pipeline.frame_conversion import Converter
from actionprep.pipeline.opening import BACKEND, number_packets, opened
from actionprep.pipeline.packets import LOOKAHEAD, Sequencer
from actionprep.pipeline.seeking import Cursor, SeekError
from actionprep.pipeline.stage import Filter, FrameBlock

# Decoders gain little from more, and each holds a picture.
_MOST_THREADS = 8


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

    Raises InputError when the file cannot be opened, or when no frame of it decodes.
    """

    def __init__(self, path: str | Path, *, times: np.ndarray | None = None, threads: int = 1) -> None:
        """Open a file and number its packets.

        times: frame times to hand out instead of seconds from the first frame, such as those on the recording's clock.
        threads: FFmpeg threads; 0, for when nothing else runs, takes all cores but the one that uses the frames.
        """
        self.path = str(path)
        self.shortfall: Shortfall | None = None
        self._threads = threads or max(1, min(_MOST_THREADS, (os.cpu_count() or 1) - 1))
        with opened(self.path) as (container, stream):
            self._index, look = number_packets(self.path, container, stream)
            stated = int(stream.frames)
        self._stated = stated if stated > self._index.num_packets else 0
        if times is not None and len(times) != self._index.num_frames:
            raise InputError(
                f"{self.path}: the catalog has {len(times)} frames of it and the file now has "
                f"{self._index.num_frames}. It changed since it was scanned: run 'actionprep scan' again.",
                backend=BACKEND,
            )
        self.times = self._index.times if times is None else np.asarray(times, np.float64)
        self.height, self.width = look.height, look.width
        self._converter = Converter(look.height, look.width, look.orientation)
        self._cursor: Cursor | None = None
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
        count = Count(self.num_frames, self._stated)
        ahead = decoded_ahead(self._pictures(count), self.height * self.width * 2)
        for slot, frame, status, _ in without_gaps(ahead, self.num_frames, self._nothing_decodes(count)):
            count.note(slot, status)
            yield frame, status
        self.shortfall = count.shortfall()

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

    def _pictures(self, count: Count) -> Iterator[tuple[int, int, Any, bool]]:
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
                        raise ThreadedDecodeError
                    held.append(picture)
                    if len(held) > LOOKAHEAD:
                        yield held.popleft()
                        delivered += 1
                if delivered + len(held) + 1 != self.num_frames:
                    raise ThreadedDecodeError
                yield from held
                return
            except ThreadedDecodeError:
                count.restart()
        for picture in self._decode(count, 1):
            if picture[0] > delivered:
                yield picture

    def _decode(self, count: Count, threads: int) -> Iterator[tuple[int, int, Any, bool]]:
        sequence = Sequencer(self._index)
        with opened(self.path) as (container, stream):
            for number, frame in demux_and_decode(container, stream, threads, count):
                if threads != 1 and frame.is_corrupt:
                    raise ThreadedDecodeError
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
        except SeekError:
            self.close()
            yield from self._picked_from_start(slots[done:])

    def _picked_from_start(self, slots: list[int]) -> Iterator[tuple[int, Any, int]]:
        """The same by decoding from the beginning, which shows the order where the packets do not tell it."""
        count = Count(self.num_frames, self._stated)
        wanted = set(slots)
        learned: list[int] = []
        pictures = self._pictures(count)
        for slot, frame, status, number in without_gaps(pictures, self.num_frames, self._nothing_decodes(count)):
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
            self._cursor = Cursor(self.path, self._index)
        yield from self._cursor.pick(slots, order)
