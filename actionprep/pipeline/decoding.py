"""Decode a video from its beginning: a picture for every frame, whatever is damaged, and a count of the damage."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import av
import numpy as np

from actionprep.errors import InputError

DECODED, CONCEALED, MISSING = 0, 1, 2


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


class Count:
    """Counts what a pass over a video meets."""

    def __init__(self, num_frames: int, stated: int) -> None:
        self.num_frames, self.stated = num_frames, stated
        self.surplus = 0
        self.concealed = self.missing = 0
        self.first_bad: int | None = None
        self.restart()

    def restart(self) -> None:
        """Forget what the decoder refused, before it begins anew."""
        self.errors = 0
        self.reason = ""

    def refused(self, number: int, error: Exception, threads: int) -> None:
        """Note a packet that the decoder refused; raises ThreadedDecodeError where several threads decode."""
        if threads != 1:
            raise ThreadedDecodeError
        self.errors += 1
        if not self.reason:
            self.reason = f"packet {number}: {getattr(error, 'strerror', None) or error}"

    def note(self, slot: int, status: int) -> None:
        """Note the status of a frame."""
        self.concealed += status == CONCEALED
        self.missing += status == MISSING
        if status != DECODED and self.first_bad is None:
            self.first_bad = slot

    def shortfall(self) -> Shortfall | None:
        """What was not as it should be; None when all was well."""
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
            tag(packet, number)
        try:
            frames = packet.decode()
        except av.error.EOFError:
            continue
        except av.error.FFmpegError as error:
            count.refused(number, error, threads)
            continue
        for frame in frames:
            yield tag_of(frame), frame


def tag(packet: Any, number: int) -> None:
    """Let the pictures that a packet makes carry its number through the decoder, in place of their time."""
    # Every decoder hands a packet's pts on to its picture. PyAV's `opaque` would do as well, but freeing it takes
    # Python's lock, and a closing decoder that holds the lock waits for the threads that free it.
    packet.pts = packet.dts = number


def tag_of(frame: Any) -> int:
    """The number of the packet that made this picture."""
    number: int = frame.pts
    return number


# Bytes of decoded pictures that wait for the consumer, at most.
AHEAD_BYTES = 96 << 20


def decoded_ahead(pictures: Iterator[Any], picture_bytes: int) -> Iterator[Any]:
    """The same pictures, taken by a thread of their own some pictures ahead of the caller."""
    # Few, so that they are still in the processor's cache when they are used; several at a time, since each handing
    # over stops both threads for a moment.
    ahead = int(np.clip(AHEAD_BYTES // max(picture_bytes, 1), 2, 16))
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


def without_gaps(
    pictures: Iterator[tuple[int, int, Any, bool]], num_frames: int, problem: Callable[[], InputError]
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
