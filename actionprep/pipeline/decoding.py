"""Decode a video from its beginning: an image for every frame, even of damaged files, and a count of the damage."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import av
import numpy as np

from actionprep.errors import InputError

DECODED, CONCEALED, MISSING, LETTERBOXED, JOINED = range(5)
"""Status of a frame: undamaged, damage covered by the decoder, repeats the last good frame, of another size than the
first frame, first frame after a jump of the clock."""


@dataclass(frozen=True)
class Shortfall:
    """What a pass over all frames could not decode.

    Attributes:
        num_frames: Frames that the packets promise.
        stated: Frames that the header states if these are more than the packets promise, else 0.
        concealed: Frames with damage that the decoder covered.
        missing: Frames that did not decode; each repeats the last good frame.
        surplus: Decoded frames that fit no packet and were left out.
        first_bad: Index of the first frame that is concealed or missing; None if there is none.
        decoder_errors: Packets that the decoder refused.
        reason: First error of the decoder.
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
        counts = {"missing": self.missing, "concealed": self.concealed, "without a packet": self.surplus}
        parts = [f"{count} {what}" for what, count in counts.items() if count]
        if self.stated:
            parts.insert(0, f"{self.stated - self.num_frames} more stated by the header are not in the file")
        where = f", from frame {self.first_bad} on" if self.first_bad is not None else ""
        reason = f" ({self.reason})" if self.reason else ""
        return f"of {self.num_frames} frames: {', '.join(parts)}{where}{reason}"


class Count:
    """Count the damage that a pass over a video meets."""

    def __init__(self, num_frames: int, stated: int) -> None:
        self.num_frames, self.stated = num_frames, stated
        self.seconds = 0.0
        self.surplus = 0
        self.concealed = self.missing = 0
        self.first_bad: int | None = None
        self.restart()

    def restart(self) -> None:
        """Forget the decoder's errors before decoding starts again."""
        self.errors = 0
        self.reason = ""

    def refused(self, number: int, error: Exception, threads: int) -> None:
        """Count a packet that the decoder refused.

        Raises:
            ThreadedDecodeError: If several threads decode.
        """
        if threads != 1:
            raise ThreadedDecodeError
        self.errors += 1
        if not self.reason:
            self.reason = f"packet {number}: {getattr(error, 'strerror', None) or error}"

    def note(self, slot: int, status: int) -> None:
        """Count the status of a frame."""
        self.concealed += status == CONCEALED
        self.missing += status == MISSING
        if status != DECODED and self.first_bad is None:
            self.first_bad = slot

    def shortfall(self) -> Shortfall | None:
        """Return the damage; None if there is none."""
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


class ThreadedDecodeError(Exception):
    """The stream is damaged and several threads decode it."""


def demux_and_decode(container: Any, stream: Any, threads: int, count: Count) -> Iterator[tuple[int, Any]]:
    """Yield (packet number, frame) of everything that decodes, in the order of the decoder, and time it in `count`."""
    # With one thread, the processor's time, because this thread may wait for the lock of Python. Other threads of FFmpeg
    # do not count in it.
    clock = time.thread_time if threads == 1 else time.perf_counter
    if threads != 1:
        # Not slices: decoders lose the marks of damage when several threads work on one frame.
        stream.thread_type = "FRAME"
    stream.thread_count = threads
    number = -1
    packets = container.demux(stream)
    while True:
        begun = clock()
        try:
            packet = next(packets, None)
        except av.error.FFmpegError as error:
            count.refused(number + 1, error, threads)
            return
        if packet is None:
            return
        if packet.size:
            number += 1
            tag(packet, number)
        try:
            frames = packet.decode()
        except av.error.EOFError:
            continue
        except av.error.FFmpegError as error:
            count.refused(number, error, threads)
            continue
        count.seconds += clock() - begun
        for frame in frames:
            yield tag_of(frame), frame


def tag(packet: Any, number: int) -> None:
    """Give a packet its number in place of its time; decoders pass it on to the frames of the packet."""
    # Every decoder passes the pts of a packet on to its frame. PyAV's `opaque` would work as well, but freeing it takes
    # Python's lock, and a closing decoder that has the lock waits for the threads that free it.
    packet.pts = packet.dts = number


def tag_of(frame: Any) -> int:
    """Return the number of the packet that made a frame."""
    number: int = frame.pts
    return number


AHEAD_BYTES = 96 << 20
"""Bytes of decoded frames that wait for the consumer, at most."""


def decoded_ahead(frames: Iterator[Any], frame_bytes: int) -> Iterator[Any]:
    """Yield the same frames, decoded by a thread that runs ahead of the caller.

    Args:
        frames: Generator of decoded frames; it is closed at the end.
        frame_bytes: Bytes of one frame.
    """
    # Few, so that they are still in the processor's cache when they are used. Several at a time, because each transfer
    # stops both threads for a moment.
    ahead = int(np.clip(AHEAD_BYTES // max(frame_bytes, 1), 2, 16))
    together = max(1, ahead // 4)
    waiting: queue.Queue[tuple[list[Any], bool, BaseException | None]] = queue.Queue(ahead // together)
    stop = threading.Event()

    def put(batch: list[Any], *, last: bool = False, error: BaseException | None = None) -> None:
        while not stop.is_set():
            try:
                return waiting.put((batch, last, error), timeout=0.1)
            except queue.Full:
                continue

    def work() -> None:
        batch: list[Any] = []
        try:
            for frame in frames:
                batch.append(frame)
                if len(batch) == together:
                    put(batch)
                    batch = []
                    if stop.is_set():
                        break
            put(batch, last=True)
        except BaseException as error:
            # Every exception of the thread is raised in the caller, who waits for the frames.
            put(batch, error=error)
        finally:
            frames.close()  # type: ignore[attr-defined]

    thread = threading.Thread(target=work, name="decode-ahead", daemon=True)
    thread.start()
    try:
        while True:
            batch, last, error = waiting.get()
            yield from batch
            if error is not None:
                raise error
            if last:
                return
    finally:
        stop.set()
        thread.join()


def without_gaps(
    frames: Iterator[tuple[int, int, Any, bool]], num_frames: int, problem: Callable[[], InputError]
) -> Iterator[tuple[int, Any, int, int]]:
    """Fill the slots that did not decode with their neighbors.

    Args:
        frames: (slot, packet, frame, corrupt) of everything that decodes, in order.
        num_frames: Number of slots.
        problem: Makes the error to raise if nothing decodes.

    Yields:
        (slot, frame, status, packet) of every slot; packet -1 for a frame that repeats another.

    Raises:
        InputError: If nothing decodes.
    """
    last: Any = None
    next_slot = 0
    for slot, number, frame, corrupt in frames:
        stand_in = frame if last is None else last
        for gap in range(next_slot, slot):
            yield gap, stand_in, MISSING, -1
        yield slot, frame, CONCEALED if corrupt else DECODED, number
        last, next_slot = frame, slot + 1
    if last is None:
        raise problem()
    for gap in range(next_slot, num_frames):
        yield gap, last, MISSING, -1
