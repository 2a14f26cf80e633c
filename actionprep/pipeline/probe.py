"""Read the properties of a video file from its packets and its first frame."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from actionprep.datasets.view_reading import WHOLE_FILE, Reading
from actionprep.errors import InputError, explained_read_errors
from actionprep.pipeline.frame_sizes import FrameSizes
from actionprep.pipeline.opening import Look, number_packets, opened, video_streams
from actionprep.pipeline.packets import PacketIndex, lost_frames

# Containers that FFmpeg reads only up to the end of the first file, if several files were joined byte by byte.
_ENDS_AT_FIRST_PART = {"flv", "matroska,webm"}
# Share of a file that is too large for an index at its end.
_LARGE_REST = 0.2


@dataclass(frozen=True, eq=False)
class VideoFacts:
    """Properties of a video file.

    Attributes:
        path: Path of the file.
        stream: Index of the video stream that players would choose.
        codec: Name of the codec in FFmpeg.
        pixel_format: Name of the pixel format in FFmpeg.
        width: Display width after rotation, in pixels, which are taken as square.
        height: Display height, likewise.
        rotation: Degrees counterclockwise by which stored frames are turned for display: 0, 90, 180 or -90.
        mirrored: Whether frames are mirrored for display.
        pixel_aspect: Width of a pixel over its height as stated by the file; 1.0 if it is not stated.
        time_base: Unit of the container's clock in seconds.
        start: Time stamp of the first frame in the container, in seconds.
        file_start: Time stamp of the earliest video or audio stream of the container, in seconds. Players count from
            there.
        times: Seconds from the first frame in the order of display, float64 of shape (T,), strictly increasing.
        fps: Median frame rate.
        header_frames: Number of frames stated by the container; None if it is not stated.
        duration: Seconds from the first frame to the end of the last.
        digest: SHA-256 of the file's bytes, in hex.
        warnings: Findings about the file, one sentence each.
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
    file_start: float
    times: np.ndarray
    fps: float
    header_frames: int | None
    duration: float
    digest: str
    warnings: tuple[str, ...]

    @property
    def num_frames(self) -> int:
        """Number of frames that the packets make."""
        return len(self.times)


def probe(path: str | Path, reading: Reading = WHOLE_FILE) -> VideoFacts:
    """Read the properties of a video by demuxing it once.

    Only the first frame is decoded, and keyframes at which the frame size may change.

    Args:
        path: A video file, a folder of numbered images, or an animated WebP.
        reading: Further parts, stream, rate and crop.

    Returns:
        The facts. Width and height are those of the crop.

    Raises:
        InputError: If it cannot be read as video; the error has one reason.
    """
    from actionprep.pipeline.chapters import probe_parts
    from actionprep.pipeline.image_sequence import is_stills, probe_stills

    path = str(path)
    if reading.parts:
        facts = probe_parts(path, reading)
    else:
        facts = probe_stills(path, reading) if is_stills(path) else _probe_file(path, reading)
    _, _, width, height = checked_crop(reading.crop, facts.width, facts.height, path)
    return replace(facts, width=width, height=height)


def checked_crop(crop: tuple[int, ...], width: int, height: int, path: str) -> tuple[int, int, int, int]:
    """Return a rectangle x, y, width, height; all of the frame if `crop` is empty.

    Raises:
        InputError: If the rectangle reaches beyond the frame.
    """
    if not crop:
        return 0, 0, width, height
    left, top, wide, high = crop
    if left + wide > width or top + high > height:
        raise InputError(
            f"{path}: the box {list(crop)} (x, y, width, height) in study.crops reaches beyond the frame of {width} x "
            f"{height} px. Correct the box."
        )
    return left, top, wide, high


def _probe_file(path: str, reading: Reading) -> VideoFacts:
    with opened(path, reading.stream) as (container, stream):
        sizes = FrameSizes(stream)
        index, look = number_packets(path, container, stream, see=sizes.see, rate=reading.rate)
        header_frames = int(stream.frames) or None
        codec = stream.codec_context.codec.canonical_name
        aspect = float(stream.sample_aspect_ratio or 1)
        stated_rate = None if reading.rate else stream.average_rate or stream.guessed_rate
        fps = _rate(index, stated_rate)
        warnings = [*index.warnings, *look.warnings, *_shortfalls(path, container, index, header_frames, fps)]
        warnings += [*_size_changes(sizes, index, look), *_unread_rest(path, container, index)]
        number = stream.index
        if reading.stream is None:
            warnings += _about_streams(video_streams(container), number)
        file_start = _file_start(container, number, index)
    if look.hdr:
        warnings.append(
            f"its colors are HDR ({look.hdr}) and are stored without tone mapping: they look flat and gray beside SDR "
            "videos. Convert it to SDR if the study has other videos in SDR"
        )
    if abs(aspect - 1) > 0.02:
        warnings.append(f"its pixels are not square (aspect {aspect:.4g}); sizes and coordinates are in stored pixels")
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
        file_start=file_start,
        times=index.times,
        fps=fps,
        header_frames=header_frames,
        duration=_duration(index, fps),
        digest=_digest(path),
        warnings=tuple(warnings),
    )


def _about_streams(streams: Sequence[Any], chosen: int) -> list[str]:
    """Report a file with several video streams, because players show one of them."""
    if len(streams) < 2:
        return []
    sizes = [f"{at}: {each.codec_context.width} x {each.codec_context.height}" for at, each in enumerate(streams)]
    position = next((at for at, each in enumerate(streams) if each.index == chosen), 0)
    return [
        f"has {len(streams)} video streams ({', '.join(sizes)}); stream {position} is read. Choose with stream under "
        "[study], or make each a view with study.crops"
    ]


def _rate(index: PacketIndex, stated: Fraction | None) -> float:
    """Return the stated rate if all times fit it up to the clock's rounding, else that of the median interval."""
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


def _file_start(container: Any, number: int, index: PacketIndex) -> float:
    """Return where the container's timeline begins: its earliest video or audio stream, edit lists applied."""
    starts = [index.start]
    for stream in container.streams:
        is_cover = bool(stream.disposition & av.stream.Disposition.attached_pic)
        if stream.index != number and stream.type in ("video", "audio") and not is_cover:
            starts += [] if stream.start_time is None else [float(stream.start_time * stream.time_base)]
    return min(starts)


def _size_changes(sizes: FrameSizes, index: PacketIndex, look: Look) -> list[str]:
    """Describe the first change of the frame size; further ones are counted."""
    if not sizes.changes:
        return []
    packet, width, height = sizes.changes[0]
    slot = max(int(index.slot[packet]), 0)
    after = (height, width) if look.orientation.transposed else (width, height)
    again = f" and {len(sizes.changes) - 1} more times" if len(sizes.changes) > 1 else ""
    return [
        f"the frame size changes from {look.width} x {look.height} to {after[0]} x {after[1]} at frame {slot} "
        f"({index.times[slot]:.3f} s){again}: all frames are scaled to the first size, with black margins where the "
        "shape differs"
    ]


def _shortfalls(path: str, container: Any, index: PacketIndex, header_frames: int | None, fps: float) -> list[str]:
    """Describe where the container states more than its packets contain."""
    if header_frames is not None:
        lost = lost_frames(container, index, header_frames)
        if lost and container.format.name == "avi" and avi_is_complete(path):
            return [
                f"the header states {header_frames} frames and the last packet is that of frame {header_frames - lost}: "
                "the rest is empty (dropped by the camera) or damaged"
            ]
        if lost:
            return [
                f"the header states {header_frames} frames and the file contains {header_frames - lost}: "
                f"{lost} are lost, the file seems to be cut off"
            ]
        return []
    if len(index.part_starts):
        return []  # the stated duration spans the jumps of the clock
    stated = container.duration / 1e6 if container.duration else 0.0
    # Some containers state the end of the last frame, others its distance from the first.
    duration = _duration(index, fps)
    if stated > max(index.start, 0) + duration + max(1.0, 0.05 * stated) and len(container.streams) == 1:
        return [
            f"the header states {stated:.2f} s and the frames end after {duration:.2f} s: the file seems to be cut off"
        ]
    return []


def _unread_rest(path: str, container: Any, index: PacketIndex) -> list[str]:
    """Report a large rest after the last packet: FFmpeg stops at the end of the first of several joined files."""
    if container.format.name not in _ENDS_AT_FIRST_PART or index.pos[-1] < 0:
        return []
    with explained_read_errors(path):
        size = os.path.getsize(path)
    rest = 1 - float(index.pos[-1] + index.size[-1]) / size
    if rest < _LARGE_REST:
        return []
    return [
        f"{rest:.0%} of the file comes after its last video packet: if files were joined to it, their frames are missing. "
        "Join them with the concat demuxer of ffmpeg instead"
    ]


def avi_is_complete(path: str) -> bool:
    """Return whether the RIFF chunks of an AVI file end with the file or before it, as their headers state."""
    position = 0
    with explained_read_errors(path), open(path, "rb") as file:
        size = os.path.getsize(path)
        while position + 8 <= size:
            file.seek(position)
            header = file.read(8)
            if header[:4] != b"RIFF":
                break
            length = int.from_bytes(header[4:], "little")
            position += 8 + length + length % 2
    return 0 < position <= size + 1


def _digest(path: str) -> str:
    with explained_read_errors(path), open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
