"""Read the parts of a chaptered recording as one video."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from actionprep.datasets.view_reading import Reading, content_digest
from actionprep.errors import explained_read_errors
from actionprep.pipeline.decoding import DECODED, JOINED, LETTERBOXED, Shortfall
from actionprep.pipeline.probe import VideoFacts, probe
from actionprep.pipeline.video import FrameReader, VideoReader


def probe_parts(path: str, reading: Reading) -> VideoFacts:
    """Return the facts of all parts as one video. Each part continues one frame period after the previous one.

    Raises:
        InputError: If a part cannot be read as video.
    """
    own = replace(reading, parts=(), crop=())
    facts = [probe(part, own) for part in (path, *reading.parts)]
    first = facts[0]
    times = first.times
    for previous, part in pairwise(facts):
        times = np.concatenate([times, times[-1] + 1 / previous.fps + part.times])
    warnings = [f"{os.path.basename(part.path)}: {warning}" for part in facts for warning in part.warnings]
    warnings += [
        f"{os.path.basename(part.path)} has frames of {part.width} x {part.height} px, and the first part has "
        f"{first.width} x {first.height}: they are scaled to that, with black margins where the shape differs"
        for part in facts[1:]
        if (part.width, part.height) != (first.width, first.height)
    ]
    headers = [part.header_frames for part in facts]
    last = facts[-1]
    with explained_read_errors(path):
        digest = content_digest(Path(path), [Path(part) for part in reading.parts])
    return replace(
        first,
        times=times,
        header_frames=None if None in headers else sum(number or 0 for number in headers),
        duration=float(times[-1] - last.times[-1]) + last.duration,
        digest=digest,
        warnings=tuple(warnings),
    )


class JoinedReader(FrameReader):
    """Read the frames of several video files as one; see `FrameReader`."""

    def __init__(
        self, path: str | Path, reading: Reading, *, times: np.ndarray | None = None, threads: int = 1
    ) -> None:
        """Open all parts.

        Args:
            path: Path of the first part.
            reading: Further parts, stream, rate and crop.
            times: Frame times to use instead of seconds from the first frame.
            threads: FFmpeg threads; 0 uses all cores but one.

        Raises:
            InputError: If a part cannot be opened, or they have another number of frames than `times`.
        """
        self.path = str(path)
        own = replace(reading, parts=(), crop=())
        self._parts = [VideoReader(part, threads=threads, reading=own) for part in (self.path, *reading.parts)]
        self._starts = np.cumsum([0, *(part.num_frames for part in self._parts)])
        if times is None:
            times = probe_parts(self.path, reading).times
        self.times = self._check_number(times, int(self._starts[-1]))
        first = self._parts[0]
        self._convert(first.height, first.width, first.orientation, reading.crop)

    def close(self) -> None:
        """Close the decoders that `frames_at` keeps open."""
        for part in self._parts:
            part.close()

    def frames_with_status(self) -> Iterator[tuple[Any, int]]:  # noqa: D102
        for number, part in enumerate(self._parts):
            for slot, (frame, status) in enumerate(part.frames_with_status()):
                yield frame, self._flagged(number, slot, frame, status)
        self.decode_seconds = sum(part.decode_seconds for part in self._parts)
        shortfalls = [(start, part.shortfall) for start, part in zip(self._starts, self._parts, strict=False)]
        self.shortfall = _sum([(int(start), each) for start, each in shortfalls if each is not None], self.num_frames)

    def picked_frames(self, slots: list[int]) -> Iterator[tuple[int, Any, int]]:  # noqa: D102
        wanted = np.array(slots, np.int64)
        for number, part in enumerate(self._parts):
            start = int(self._starts[number])
            inside = wanted[(wanted >= start) & (wanted < self._starts[number + 1])] - start
            if len(inside):
                for slot, frame, status in part.picked_frames(inside.tolist()):
                    yield start + slot, frame, self._flagged(number, slot, frame, status)

    def _flagged(self, number: int, slot: int, frame: Any, status: int) -> int:
        if status != DECODED:
            return status
        if not self._converter.is_native(frame):
            return LETTERBOXED
        return JOINED if number and slot == 0 else DECODED


def _sum(shortfalls: list[tuple[int, Shortfall]], num_frames: int) -> Shortfall | None:
    """Return the joint shortfall of parts, each with the number of frames before it; None if there is none."""
    if not shortfalls:
        return None
    each = [shortfall for _, shortfall in shortfalls]
    bad = [start + shortfall.first_bad for start, shortfall in shortfalls if shortfall.first_bad is not None]
    lost = sum(max(shortfall.stated - shortfall.num_frames, 0) for shortfall in each)
    return Shortfall(
        num_frames=num_frames,
        stated=num_frames + lost if lost else 0,
        concealed=sum(shortfall.concealed for shortfall in each),
        missing=sum(shortfall.missing for shortfall in each),
        surplus=sum(shortfall.surplus for shortfall in each),
        first_bad=min(bad, default=None),
        decoder_errors=sum(shortfall.decoder_errors for shortfall in each),
        reason=next((shortfall.reason for shortfall in each if shortfall.reason), ""),
    )
