"""Suffixes by which video files are recognized, and animations by their content."""

from __future__ import annotations

from pathlib import Path

VIDEO_SUFFIXES = (
    *(".3gp", ".asf", ".avi", ".flv", ".h264", ".h265", ".hevc", ".m2ts", ".m4v", ".mjpeg", ".mjpg", ".mkv", ".mov"),
    *(".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".ts", ".vob", ".webm", ".wmv"),
)
"""Suffixes of videos, in lower case."""

RAW_SUFFIXES = (".h264", ".h265", ".hevc", ".mjpeg", ".mjpg")
"""Suffixes of streams without a container, which have no clock."""

ANIMATION_SUFFIXES = (".gif", ".webp")
"""Suffixes of images that may be animations; see `is_animation`."""


def without_video_suffix(name: str) -> str:
    """Return a name or path without its suffix if that is a video's; `P01.2` stays as it is."""
    stem, dot, suffix = name.rpartition(".")
    return stem if stem and f"{dot}{suffix.lower()}" in (*VIDEO_SUFFIXES, *ANIMATION_SUFFIXES) else name


def is_video_file(path: Path) -> bool:
    """Return whether a file is listed as a video: by its suffix, or as an animation by its content."""
    suffix = path.suffix.lower()
    return suffix in VIDEO_SUFFIXES or (suffix in ANIMATION_SUFFIXES and is_animation(path))


def is_animation(path: Path) -> bool:
    """Return whether a file is a GIF with several frames, or an animated WebP, by its content."""
    try:
        with open(path, "rb") as file:
            head = file.read(1 << 20)
    except OSError:
        return False
    if is_animated_webp(head):
        return True
    return head[:6] in (b"GIF87a", b"GIF89a") and _gif_frames(head) != 1


def is_animated_webp(head: bytes) -> bool:
    """Return whether a file begins as an animated WebP: a VP8X chunk with the animation flag (WebP container, 2.7)."""
    return head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X" and len(head) > 20 and bool(head[20] & 2)


def _gif_frames(data: bytes) -> int:
    """Count the images in a GIF, up to two (GIF89a, sections 18 to 27); 0 if none is complete in these bytes."""
    at = 13 + (3 << ((data[10] & 7) + 1) if len(data) > 10 and data[10] & 0x80 else 0)
    count = 0
    while at < len(data) and count < 2:
        kind = data[at]
        if kind == 0x2C and at + 9 < len(data):
            flags = data[at + 9]
            at += 11 + (3 << ((flags & 7) + 1) if flags & 0x80 else 0)
            count += 1
        elif kind == 0x21:
            at += 2
        else:
            return count
        while at < len(data) and data[at]:
            at += data[at] + 1
        if at >= len(data):  # the image is longer than these bytes: as large as no single small image is
            return count
        at += 1
    return count
