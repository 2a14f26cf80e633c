"""Suffixes by which video files are recognized."""

from __future__ import annotations

VIDEO_SUFFIXES = (
    *(".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg"),
    *(".mts", ".ogv", ".ts", ".webm", ".wmv"),
)
"""Suffixes of videos, in lower case."""


def without_video_suffix(name: str) -> str:
    """Return a name or path without its suffix if that is a video's; `P01.2` stays as it is."""
    stem, dot, suffix = name.rpartition(".")
    return stem if stem and f"{dot}{suffix.lower()}" in VIDEO_SUFFIXES else name
