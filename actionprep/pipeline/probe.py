"""Facts of a video file, from its packets and its first picture."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from actionprep.errors import explained_read_errors
from actionprep.pipeline.opening import number_packets, opened
from actionprep.pipeline.packets import PacketIndex


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

    Raises InputError with one reason for what is not a video that can be read.
    """
    path = str(path)
    with opened(path) as (container, stream):
        index, look = number_packets(path, container, stream)
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
    with explained_read_errors(path), open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
