"""What writers of annotation files receive."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from actionprep.datasets.segments import Segment
from actionprep.datasets.windows import microseconds
from actionprep.errors import UserError


@dataclass(frozen=True)
class AnnotatedVideo:
    """Segments of one recording, and the video file that a tool shows them on.

    Attributes:
        recording: Id of the recording.
        path: Absolute path of the video; None for a recording without a video.
        relative: Path of the video below the folder of the study, with slashes; the recording's id if there is no video,
            and the file name of a video elsewhere.
        segments: Segments in seconds on the recording's clock, ordered by onset.
        duration_s: Length of the recording in seconds.
        size: Width and height of the video in pixels; (0, 0) if unknown.
        fps: Frames per second; 0 if unknown.
        frame_times: Start of each frame of the video on the recording's clock in seconds, shape (T,); empty if unknown.
        offset: Recording's clock = offset (s) + video's time * (1 + drift * 1e-6).
        drift: See `offset`; in parts per million.
        subject: Person or animal; "" if unknown.
        split: Given part, train, val or test; "" without one.
    """

    recording: str
    path: Path | None
    relative: str
    segments: tuple[Segment, ...]
    duration_s: float
    size: tuple[int, int] = (0, 0)
    fps: float = 0.0
    frame_times: np.ndarray = field(default_factory=lambda: np.zeros(0))
    offset: float = 0.0
    drift: float = 0.0
    subject: str = ""
    split: str = ""

    @property
    def file_name(self) -> str:
        """Last part of `relative`."""
        return PurePosixPath(self.relative).name

    def on_video_clock(self) -> tuple[Segment, ...]:
        """Return the segments in seconds on the video's own clock, which players show."""
        rate = 1 + self.drift * 1e-6
        return tuple(
            replace(segment, onset=(segment.onset - self.offset) / rate, offset=(segment.offset - self.offset) / rate)
            for segment in self.segments
        )

    def frames_of(self, segment: Segment) -> tuple[int, int]:
        """Return the first frame of a segment, and the frame after its last one.

        A frame belongs to the segment if it begins in it.

        Raises:
            UserError: If the frame times are unknown.
        """
        if not len(self.frame_times):
            raise UserError(
                f"Recording '{self.recording}' has no readable video, so its segments have no frame numbers. Export to a "
                "format with times in seconds, such as csv, boris or eaf."
            )
        times = microseconds(self.frame_times)
        edges = microseconds(np.array([segment.onset, segment.offset]))
        first, last = np.searchsorted(times, edges).tolist()
        return first, last


@dataclass(frozen=True)
class SegmentWriter:
    """A format in which annotations are written.

    Attributes:
        name: Word of `actionprep export`, and the format that reads the files back.
        description: One line for lists of formats.
        suffix: Suffix of the files.
        write: Returns the text of a file for videos and labels. Labels are all labels in natural order.
        one_file: Whether all recordings are in one file; otherwise each recording has its own.
        name_of: What a recording's own file is named after; `recording`, or `video` with its folders.
        counts: Unit of times in the file: `second` or `frame`.
    """

    name: str
    description: str
    suffix: str
    write: Callable[[Sequence[AnnotatedVideo], Sequence[str]], str]
    one_file: bool = True
    name_of: Literal["recording", "video"] = "recording"
    counts: Literal["second", "frame"] = "second"


def check_no_overlap(video: AnnotatedVideo, *, tool: str, per_label: bool) -> None:
    """Refuse segments that a format cannot express because they overlap.

    Args:
        video: A recording with its segments.
        tool: Name of the tool, for the message.
        per_label: Whether only segments of the same label, layer and annotator must not overlap; otherwise any two.

    Raises:
        UserError: If two segments overlap, with both.
    """
    last: dict[tuple[str, ...], Segment] = {}
    for segment in sorted(video.segments, key=lambda item: item.onset):
        key = (segment.label, segment.layer, segment.annotator) if per_label else ()
        before = last.get(key)
        if before is not None and microseconds(segment.onset) < microseconds(before.offset):
            raise UserError(
                f"{tool} cannot express segments that overlap{' and have the same label' if per_label else ''}: "
                f"'{before.label}' {before.onset:.3f} to {before.offset:.3f} s and '{segment.label}' {segment.onset:.3f} to "
                f"{segment.offset:.3f} s of recording '{video.recording}'. Export one layer or annotator with --layers or "
                "--annotators, or use another format, such as csv."
            )
        if before is None or segment.offset > before.offset:
            last[key] = segment
