"""Read annotation files of Bento (.annot). Channels are layers.

MATLAB's Bento numbers frames from 1, includes the last one, and writes them as they are or divided by the frame rate.
Others write plain seconds. The column of durations decides which one it is: it counts the last frame or it does not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from actionprep.datasets.annotations import AnnotatedRow, RowError, SegmentFormat
from actionprep.datasets.tables import read_text

_CHANNEL = re.compile(r"(.+?)-{5,}\s*")
_HEAD = "Bento annotation file"


def _recognizes(path: Path, head: str) -> bool:
    return head.lstrip().startswith(_HEAD)


def _read(path: Path, columns: Mapping[str, str]) -> Iterator[AnnotatedRow | RowError]:
    lines = read_text(path).splitlines()
    if not any(line.strip() == _HEAD for line in lines[:3]):
        raise ValueError(f"its first line is not '{_HEAD}'")
    rate = _frame_rate(lines)
    movies = _movies(lines)
    channel = label = ""
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if match := _CHANNEL.fullmatch(text):
            channel, label = match[1], ""
        elif text.startswith(">"):
            label = text[1:].strip()
        elif label and text and not text.lower().startswith("start"):
            try:
                start, stop, duration = (float(part) for part in text.split()[:3])
            except ValueError:
                yield RowError(f"'{text[:60]}' is not a start, a stop and a duration", number)
                continue
            names = movies or [path.stem]
            yield AnnotatedRow(
                names[0],
                *_times(start, stop, duration, rate),
                label,
                layer=channel,
                line=number,
                alternatives=tuple((name, 0.0) for name in [*names[1:], path.stem]),
            )


def _times(start: float, stop: float, duration: float, rate: float) -> tuple[float, float]:
    """Onset and offset in seconds; the offset is not included."""
    is_frame = start.is_integer() and stop.is_integer() and abs(duration - (stop - start + 1)) < 1e-6
    if is_frame:
        return (start - 1) / rate, stop / rate
    if abs(duration - (stop - start + 1 / rate)) < 0.25 / rate:
        return start - 1 / rate, stop
    return start, stop


def _frame_rate(lines: list[str]) -> float:
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == "Annotation framerate":
            try:
                rate = float(value)
            except ValueError:
                break
            if rate > 0:
                return rate
    raise ValueError("it has no line 'Annotation framerate: 30'")


def _movies(lines: list[str]) -> list[str]:
    """Names of the movies: what follows 'Movie file(s):', on the same line or the next one."""
    for index, line in enumerate(lines):
        if line.startswith("Movie file(s):"):
            text = line.partition(":")[2].strip() or (lines[index + 1].strip() if index + 1 < len(lines) else "")
            # Paths may contain spaces; each ends with a suffix.
            return [name.strip() for name in re.findall(r"\S.*?\.\w{2,4}(?=\s|$)", text)]
    return []


FORMAT = SegmentFormat(
    "bento",
    "annotation file of Bento",
    (".annot",),
    _recognizes,
    _read,
    times="frames from 1, end inclusive, or seconds from the start of the video",
)
