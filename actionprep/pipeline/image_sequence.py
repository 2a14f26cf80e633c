"""Read a folder of numbered images, or an animated WebP, as a video."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from actionprep.datasets.frame_times import frame_interval
from actionprep.datasets.video_suffixes import is_animated_webp
from actionprep.datasets.view_reading import Reading, content_digest, number_of, numbered_images
from actionprep.errors import InputError, explained_read_errors
from actionprep.pipeline.decoding import DECODED, LETTERBOXED, MISSING, Count, without_gaps
from actionprep.pipeline.frame_conversion import Orientation
from actionprep.pipeline.opening import BACKEND, InputFile, container_of
from actionprep.pipeline.probe import VideoFacts
from actionprep.pipeline.video import FrameReader


def is_stills(path: str | Path) -> bool:
    """Return whether a path is a folder of images, or an animated WebP by its content."""
    path = Path(path)
    if path.is_dir():
        return True
    try:
        with open(path, "rb") as file:
            return is_animated_webp(file.read(32))
    except OSError:
        return False  # opening it as a video reports why


class _Images(ABC):
    """Images by index, with their times in seconds from the first."""

    times: np.ndarray
    time_base: Fraction
    warnings: tuple[str, ...] = ()
    end: float
    """Seconds from the first frame to the end of the last."""

    @abstractmethod
    def frame(self, index: int) -> Any:
        """Return a decoded frame; raises InputError if it is damaged."""

    def close(self) -> None:  # noqa: B027 - a folder has nothing open
        """Close the file."""


class _Folder(_Images):
    """The images of a folder in the order of their numbers; a gap in the numbers is a gap in time."""

    def __init__(self, path: Path, rate: float) -> None:
        with explained_read_errors(path):
            self._files = numbered_images(path)
        if not self._files:
            raise InputError(f"{path}: is a folder without numbered images.", backend=BACKEND)
        if not rate > 0:
            raise InputError(
                f"{path}: is a folder of images, which have no times. Set image_rate, in frames per second, under [study].",
                backend=BACKEND,
            )
        numbers = np.array([number_of(file) or 0 for file in self._files], np.float64)
        steps = np.diff(numbers)
        step = float(np.median(steps)) if len(steps) else 1.0
        missing = int(numbers[-1] - numbers[0]) + 1 - len(numbers)
        if missing:
            at = int(np.argmax(steps > 1))
            self.warnings = (
                f"{missing} of the numbers {numbers[0]:.0f} to {numbers[-1]:.0f} have no image, the first after "
                f"{self._files[at].name}: times follow the numbers",
            )
        self.times = (numbers - numbers[0]) / rate
        self.end = float(self.times[-1]) + step / rate
        self.time_base = 1 / Fraction(rate).limit_denominator(100_000)

    def frame(self, index: int) -> Any:
        path = str(self._files[index])
        with InputFile(path) as file, container_of(file) as container:
            try:
                return next(container.decode(video=0))
            except (av.error.FFmpegError, StopIteration, IndexError) as error:
                raise InputError(f"{path}: cannot be decoded ({error}).", frame=index, backend=BACKEND) from None


class _AnimatedWebp(_Images):
    """The frames of an animated WebP, which FFmpeg does not decode, by Pillow."""

    def __init__(self, path: Path) -> None:
        from PIL import Image

        self._path = path
        try:
            with explained_read_errors(path):
                self._image = Image.open(path)
            durations = []
            for index in range(int(getattr(self._image, "n_frames", 1))):
                self._image.seek(index)
                self._image.load()
                durations.append(max(float(self._image.info.get("duration", 0)), 1.0))
        except (OSError, ValueError, EOFError, SyntaxError, Image.DecompressionBombError) as error:
            raise InputError(f"{path}: is a damaged animated WebP ({error}).", backend="Pillow") from None
        ends = np.cumsum(durations) / 1000
        self.times = np.concatenate([[0.0], ends[:-1]])
        self.end = float(ends[-1])
        self.time_base = Fraction(1, 1000)

    def frame(self, index: int) -> Any:
        try:
            with explained_read_errors(self._path):
                self._image.seek(index)
                return av.VideoFrame.from_ndarray(np.asarray(self._image.convert("RGB")), format="rgb24")
        except (OSError, ValueError, EOFError, SyntaxError) as error:
            raise InputError(f"{self._path}: {error}.", frame=index, backend="Pillow") from None

    def close(self) -> None:
        self._image.close()


def _images(path: str | Path, reading: Reading) -> _Images:
    path = Path(path)
    return _Folder(path, reading.rate) if path.is_dir() else _AnimatedWebp(path)


def _first_frame(images: _Images, path: str | Path) -> Any:
    """Return the first frame that decodes; it states the size."""
    reason = ""
    for index in range(len(images.times)):
        try:
            return images.frame(index)
        except InputError as problem:
            reason = reason or f" ({problem.reason})"
    raise InputError(f"{path}: none of its {len(images.times)} images decodes{reason}.", frame=0, backend=BACKEND)


class StillsReader(FrameReader):
    """Read the frames of a folder of images or of an animated WebP; see `FrameReader`."""

    def __init__(self, path: str | Path, reading: Reading, *, times: np.ndarray | None = None) -> None:
        """Open the images.

        Args:
            path: Folder or file.
            reading: Rate and crop.
            times: Frame times to use instead of seconds from the first frame.

        Raises:
            InputError: If no image decodes, or there are other images than `times`.
        """
        self.path = str(path)
        self._images = _images(path, reading)
        self.times = self._images.times if times is None else self._check_number(times, len(self._images.times))
        frame = _first_frame(self._images, path)
        orientation = Orientation.of(frame)
        size = (frame.width, frame.height) if orientation.transposed else (frame.height, frame.width)
        self._convert(*size, orientation, reading.crop)

    def close(self) -> None:
        """Close the file."""
        self._images.close()

    def frames_with_status(self) -> Iterator[tuple[Any, int]]:  # noqa: D102
        count = Count(self.num_frames, 0)
        for slot, frame, status, _ in without_gaps(self._decoded(count), self.num_frames, self._problem):
            count.note(slot, status)
            yield frame, self._flagged(frame, status)
        self.shortfall = count.shortfall()

    def _decoded(self, count: Count) -> Iterator[tuple[int, int, Any, bool]]:
        for slot in range(self.num_frames):
            try:
                frame = self._images.frame(slot)
            except InputError as problem:
                count.refused(slot, problem, 1)
                continue
            yield slot, slot, frame, False

    def _problem(self) -> InputError:
        return InputError(f"{self.path}: none of its {self.num_frames} images decodes.", frame=0, backend=BACKEND)

    def _flagged(self, frame: Any, status: int) -> int:
        return LETTERBOXED if status == DECODED and not self._converter.is_native(frame) else status

    def picked_frames(self, slots: list[int]) -> Iterator[tuple[int, Any, int]]:  # noqa: D102
        for slot in slots:
            # As in a pass over all frames: a damaged image repeats the one before it, or at the start the first good one.
            for other in (*range(slot, -1, -1), *range(slot + 1, self.num_frames)):
                try:
                    frame = self._images.frame(other)
                except InputError:
                    continue
                yield slot, frame, self._flagged(frame, DECODED if other == slot else MISSING)
                break
            else:
                raise self._problem()


def probe_stills(path: str, reading: Reading) -> VideoFacts:
    """Return the facts of a folder of images or an animated WebP; see `actionprep.pipeline.probe.probe`."""
    images = _images(path, reading)
    try:
        frame = _first_frame(images, path)
    finally:
        images.close()
    orientation = Orientation.of(frame)
    width, height = (frame.height, frame.width) if orientation.transposed else (frame.width, frame.height)
    times = images.times
    gap = frame_interval(times, default=images.end)
    with explained_read_errors(path):
        digest = content_digest(Path(path))
    return VideoFacts(
        path=path,
        stream=0,
        codec="webp" if not Path(path).is_dir() else "images",
        pixel_format=frame.format.name,
        width=width,
        height=height,
        rotation=orientation.rotation,
        mirrored=orientation.mirrored,
        pixel_aspect=1.0,
        time_base=images.time_base,
        start=0.0,
        file_start=0.0,
        times=times,
        fps=1 / gap,
        header_frames=None,
        duration=images.end,
        digest=digest,
        warnings=images.warnings,
    )
