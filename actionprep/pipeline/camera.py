"""Read frames from a camera, a stream or a file while they arrive."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from actionprep.errors import InputError, SetupError

BLOCK_SIZE = 4
"""Frames per block. Smaller blocks reduce latency; larger blocks reduce overhead."""


class CameraSource:
    """Read frames of a camera, a stream or a file in blocks, ahead of the consumer, in a thread.

    Args:
        name: Number of a camera ("0"), a device (/dev/video0), the address of a stream, or a video file.
        keep_up: Drop the oldest waiting frame instead of waiting when the consumer is slower than the source.

    Raises:
        SetupError: If the source cannot be opened.
    """

    def __init__(self, name: str, *, keep_up: bool) -> None:
        import av

        self.name = name
        self.num_dropped = 0
        device = f"/dev/video{name}" if name.isdecimal() else name
        try:
            self._container = av.open(device, format="v4l2") if device.startswith("/dev/") else av.open(device)
            stream = self._container.streams.video[0]
        except (av.FFmpegError, OSError, IndexError) as error:
            raise SetupError(
                f"Cannot open '{name}' as a camera, a stream or a video: {error}. A camera is named by its number (0) or "
                "device (/dev/video0), a stream by its address (rtsp://…); is it plugged in, and not "
                "in use by another program?"
            ) from None
        self.height, self.width = stream.height, stream.width
        self.fps = float(stream.average_rate or stream.guessed_rate or 25)
        self._keep_up = keep_up
        # Up to about one second of frames is buffered.
        self._waiting: queue.Queue[Any] = queue.Queue(maxsize=max(int(self.fps), 2 * BLOCK_SIZE))
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._read, name="live-source", daemon=True)

    def blocks(self, size: int) -> Iterator[Any]:
        """Yield blocks of up to `size` frames as soon as they are available.

        Raises:
            InputError: If reading fails after the source was opened.
        """
        from actionprep.pipeline.frame_conversion import Converter, Orientation
        from actionprep.pipeline.video import VideoBlock

        self._thread.start()
        converter: Converter | None = None
        index, ended, first = 0, False, 0.0
        while not ended:
            frames: list[Any] = []
            while len(frames) < size and not ended:
                frame = self._waiting.get()
                ended = frame is None
                if not ended:
                    frames.append(frame)
            if not frames:
                break
            if converter is None:
                orientation = Orientation.of(frames[0][0])
                first_frame = frames[0][0]
                size_hw = (first_frame.height, first_frame.width)
                self.height, self.width = size_hw[::-1] if orientation.transposed else size_hw
                converter = Converter(self.height, self.width, orientation)
                first = frames[0][1]
            yield VideoBlock(
                [frame for frame, _ in frames],
                converter,
                index=np.arange(index, index + len(frames)),
                time=np.array([seconds for _, seconds in frames]) - first,
                status=np.zeros(len(frames), np.uint8),
            )
            index += len(frames)
        if self._error is not None:
            raise InputError(f"Reading '{self.name}' failed: {self._error}")

    def close(self) -> None:
        """Stop reading."""
        self._stop.set()
        while self._thread.is_alive():
            try:
                self._waiting.get(timeout=0.05)
            except queue.Empty:
                self._thread.join(timeout=0.05)
        self._container.close()

    def _read(self) -> None:
        import av

        try:
            for count, frame in enumerate(self._container.decode(video=0)):
                if self._stop.is_set():
                    break
                seconds = float(frame.time) if frame.time is not None else count / self.fps
                self._put((frame, seconds))
        except (av.FFmpegError, OSError) as error:
            self._error = error
        finally:
            self._put(None)

    def _put(self, entry: Any) -> None:
        while not self._stop.is_set():
            try:
                self._waiting.put(entry, timeout=0.1)
                return
            except queue.Full:
                if self._keep_up:
                    try:
                        self._waiting.get_nowait()
                        self.num_dropped += 1
                    except queue.Empty:
                        continue
