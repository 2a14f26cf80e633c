"""How the file of a view is read: its stream, rate, parts and crop; and the files that it consists of."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Self

from actionprep.datasets.file_states import FileState, digest_of
from actionprep.errors import InputError

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""Suffixes of still images."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How the file of a view is read where that does not follow from the file alone.

    Attributes:
        rate: Frames per second of a folder of images, or of a stream without a clock; 0 if it is not set.
        stream: Which video stream of the file is read, counted from 0; None for the one that players choose.
        parts: Paths of the further parts of a chaptered recording, in order, as in `View.path`.
        crop: Rectangle of the displayed frame that is the view: x, y, width, height in pixels; empty for all of it.
    """

    rate: float = 0.0
    stream: int | None = None
    parts: tuple[str, ...] = ()
    crop: tuple[int, ...] = ()

    def to_json(self) -> str:
        """Return what is set as a JSON object; empty if nothing is."""
        set_values = {key: value for key, value in asdict(self).items() if value != _DEFAULTS[key]}
        return json.dumps(set_values, ensure_ascii=False) if set_values else ""

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote.

        Raises:
            ValueError: If the text is damaged.
        """
        if not text:
            return cls()
        values = json.loads(text)
        if not isinstance(values, dict) or set(values) - {field.name for field in fields(cls)}:
            raise ValueError(f"{text[:80]!r} does not describe how a video is read")
        reading = cls(
            rate=float(values.get("rate", 0.0)),
            stream=None if values.get("stream") is None else int(values["stream"]),
            parts=tuple(str(part) for part in values.get("parts", ())),
            crop=tuple(int(number) for number in values.get("crop", ())),
        )
        if len(reading.crop) not in (0, 4) or reading.rate < 0:
            raise ValueError(f"{text[:80]!r} does not describe how a video is read")
        return reading

    def at(self, root: str | Path) -> Self:
        """Return the same with paths of parts that start at a folder."""
        return self if not self.parts else replace(self, parts=tuple(str(Path(root) / part) for part in self.parts))

    def facts(self) -> dict[str, object]:
        """Return what decides the content of the frames, besides the files and their times."""
        if self.stream is None and not self.crop:
            return {}
        facts = {"stream": self.stream, "crop": list(self.crop) or None}
        return {key: value for key, value in facts.items() if value is not None}


_DEFAULTS = asdict(Reading())

WHOLE_FILE = Reading()
"""Reads the full frames of one file, as players do."""


def files_of(path: Path, parts: Sequence[Path] = ()) -> list[Path]:
    """Return the files that a view consists of: its parts, or the images of a folder in the order of their numbers."""
    return [file for part in (path, *parts) for file in (numbered_images(part) if part.is_dir() else [part])]


def numbered_images(folder: Path) -> list[Path]:
    """Return the images of a folder in the order of the last number in their names.

    Raises:
        InputError: If two images have the same number.
    """
    numbers: dict[int, Path] = {}
    for file in sorted(folder.iterdir()):
        number = number_of(file)
        if number is None:
            continue
        if number in numbers:
            raise InputError(
                f"{folder}: two images have the number {number}: {numbers[number].name} and {file.name}. Keep one image "
                "per frame in the folder."
            )
        numbers[number] = file
    return [numbers[number] for number in sorted(numbers)]


def number_of(file: Path) -> int | None:
    """Return the last number in the name of an image; None for other files and for names without a number."""
    if file.suffix.lower() not in IMAGE_SUFFIXES or file.name[0] == ".":
        return None
    numbers = re.findall(r"\d{1,18}", file.stem)
    return int(numbers[-1]) if numbers else None


def state_of(path: Path, parts: Sequence[Path] = ()) -> FileState:
    """Return the state of a file, or the joint state of all files of a view."""
    if not parts and not path.is_dir():
        return FileState.of(path)
    try:
        states = [FileState.of(file) for file in files_of(path, parts)]
    except (OSError, InputError):
        return FileState.of(path)
    if not states or not all(state.exists for state in states):
        return FileState(-1, -1, -1, -1)
    return FileState(
        sum(state.size for state in states),
        max(state.mtime_ns for state in states),
        max(state.ctime_ns for state in states),
        max(state.inode for state in states),
    )


def content_digest(path: Path, parts: Sequence[Path] = ()) -> str:
    """Return the SHA-256 of a file in hex, or a hash of the names of images and the contents of all files of a view."""
    if not parts and not path.is_dir():
        return digest_of(path)
    total = hashlib.sha256()
    for file in files_of(path, parts):
        number = number_of(file) if file.parent == path else None
        total.update(f"{'' if number is None else number} {digest_of(file)}\n".encode())
    return total.hexdigest()


VIDEO_SOURCES = (
    ("file", "a video file that FFmpeg decodes, by its suffix; animated GIF and WebP", 'videos = "videos"'),
    ("raw", "a stream without a clock (.h264, .h265, .mjpeg)", "raw_rate = 50"),
    ("images", "a folder of numbered images", "image_rate = 30"),
    ("gopro", "chapters of a GoPro: GX010123, GX020123, …; GOPR0123, GP010123, …", 'chapters = "gopro"'),
    ("parts", "parts of one recording, by a pattern of their names", 'chapters = "{recording}_{part}"'),
    ("stream", "one of several video streams in a file", "stream = 1"),
    ("crop", "a rectangle of a file: x, y, width, height", "crops = { mirror = [0, 0, 640, 360] }"),
)
"""Name, description and an example under [study] for each kind of video."""
