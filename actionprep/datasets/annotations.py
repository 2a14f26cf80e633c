"""Read annotated segments from files of many formats and hold them against the recordings that they are about."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from actionprep.datasets.findings import Finding
from actionprep.datasets.recordings import View
from actionprep.datasets.segments import Segment
from actionprep.errors import UserError
from actionprep.registry import Entry, Registry


@dataclass(frozen=True, slots=True)
class AnnotatedRow:
    """One segment as a file has it.

    recording:     what the file calls it: an id, a path or a file name of one of its videos; None when the file is
                   about one recording that it does not name.
    onset, offset: in `unit`; frames count from 0 and the offset is the first frame that is no longer part.
    line:          where in the file it stands, where there are lines.
    """

    recording: str | None
    onset: float
    offset: float
    label: str
    layer: str = ""
    annotator: str = ""
    unit: Literal["s", "frame"] = "s"
    line: int | None = None


class RowError(ValueError):
    """A row that a format cannot read, with the line that it stands on."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason)
        self.line = line


@dataclass(frozen=True)
class SegmentFormat:
    """A format of annotation files.

    recognizes: from the path and the first 64 KiB of text, whether a file is of this format.
    read:       rows of a file, given names of columns that differ from the usual ones. A row that cannot be read is
                given as an RowError, so that the others are used.
    """

    name: str
    description: str
    suffixes: tuple[str, ...]
    recognizes: Callable[[Path, str], bool]
    read: Callable[[Path, Mapping[str, str]], Iterator[AnnotatedRow | RowError]]


_FOLDER = "actionprep.datasets.annotation_formats"

SEGMENT_FORMATS: Registry[SegmentFormat] = Registry(
    "annotation format",
    "actionprep.annotation_formats",
    (
        Entry("activitynet", f"{_FOLDER}.activitynet:FORMAT"),
        Entry("csv", f"{_FOLDER}.plain_csv:FORMAT"),
        Entry("elan", f"{_FOLDER}.elan:DOCUMENT"),
        Entry("elan-export", f"{_FOLDER}.elan:EXPORT"),
        Entry("via", f"{_FOLDER}.via:FORMAT"),
    ),
    plural="Formats",
    instance_of="actionprep.datasets.annotations:SegmentFormat",
)
"""Annotation formats by the name that `study.segment_format` takes."""


def segment_formats() -> dict[str, SegmentFormat]:
    """All formats that can be used, by name. Plain csv is last, because it recognizes what is left."""
    return dict(sorted(SEGMENT_FORMATS.working().items(), key=lambda item: (item[0] == "csv", item[0])))


def read_annotations(
    path: Path, *, format: str = "auto", columns: Mapping[str, str] | None = None
) -> list[AnnotatedRow | RowError]:
    """All rows of an annotation file.

    Raises UserError for a file that cannot be read, a format that does not exist, or one that the file is not of.
    """
    SEGMENT_FORMATS.check(format, also=("auto",))
    try:
        with open(path, "rb") as file:
            head = file.read(1 << 16).decode("utf-8-sig", errors="replace")
    except OSError as error:
        raise UserError(f"Cannot read annotations {path}: {error.strerror or error}.") from None
    if format == "auto":
        formats = segment_formats()
        found = [one for one in formats.values() if one.recognizes(path, head)]
        if not found:
            broken = "".join(f"\n{error}" for error in SEGMENT_FORMATS.broken().values())
            raise UserError(
                f"Cannot tell the annotation format of {path}. Formats: "
                f"{'; '.join(f'{one.name} ({one.description})' for one in formats.values())}. Name one with "
                f"study.segment_format, or name the columns of a csv with study.segment_columns.{broken}"
            )
        format = found[0].name
    reader = SEGMENT_FORMATS.find(format)
    try:
        return list(reader.read(path, columns or {}))
    except OSError as error:
        raise UserError(f"Cannot read annotations {path}: {error.strerror or error}.") from None
    except (ValueError, LookupError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} is not a proper '{format}' annotation file: {error}.") from None


@dataclass
class CheckedSegments:
    """Segments that can be used, by recording in the order of time, and what was found about the others."""

    segments: dict[str, tuple[Segment, ...]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    num_unusable: int = 0


@dataclass(frozen=True)
class RecordingNames:
    """Finds the recording, and the view, that a name in a table or an annotation file means.

    A name may be a recording's id, the path of one of its videos (as found, or without its extension), or the bare file
    name of one, as long as only one recording has it.
    """

    by_name: Mapping[str, frozenset[tuple[str, str | None]]]

    @classmethod
    def of(cls, recordings: Iterable[str], views: Iterable[View]) -> RecordingNames:
        """Names of these recordings and the files of these views."""
        exact: dict[str, set[tuple[str, str | None]]] = {id: {(id, None)} for id in recordings}
        loose: dict[str, set[tuple[str, str | None]]] = {}
        for id in list(exact):
            loose.setdefault(PurePosixPath(id).name, set()).add((id, None))
        for view in views:
            path = PurePosixPath(view.path)
            for name in (str(path), str(path.with_suffix("")), path.name, path.stem):
                loose.setdefault(name, set()).add((view.recording, view.id))
        return cls({name: frozenset(found) for name, found in {**loose, **exact}.items()})

    def find(self, name: str) -> tuple[str, str | None] | None:
        """The recording and, when the name is that of a video, its view; None when no or several recordings match."""
        wanted = PurePosixPath(name.strip().replace("\\", "/"))
        parts = [part for part in wanted.parts if part not in (".", "/")]
        # The whole path first, then with fewer leading folders: annotation tools write paths of the annotator's
        # machine.
        for start in range(len(parts)):
            tail = PurePosixPath(*parts[start:])
            for key in (str(tail), str(tail.with_suffix("")) if tail.suffix else None):
                found = self.by_name.get(key) if key else None
                if found:
                    recordings = {recording for recording, _ in found}
                    if len(recordings) > 1:
                        return None
                    views = {view for _, view in found}
                    return recordings.pop(), views.pop() if len(views) == 1 else None
        return None


def check_segments(
    rows: Sequence[AnnotatedRow | RowError],
    *,
    source: str,
    names: RecordingNames,
    views: Mapping[str, Sequence[View]],
    only: str | None = None,
) -> CheckedSegments:
    """Keep the rows that make sense; report the others with their file and line.

    source: name of the file, for reports. names, views: of the recordings. only: the recording of rows that name none.

    Times of a row that names a video are on that view's clock and are brought to the recording's. A segment that ends
    before it starts, has no label, or lies wholly outside of the recording is left out; one that begins or ends outside
    is kept as it is and reported.
    """
    checked = CheckedSegments()
    kept: dict[str, list[Segment]] = {}
    absent: dict[str, int] = {}

    def unusable(line: int | None, message: str) -> None:
        checked.num_unusable += 1
        checked.findings.append(Finding("unusable segment", _place(source, line), message))

    for row in rows:
        if isinstance(row, RowError):
            unusable(row.line, str(row))
            continue
        found = names.find(row.recording) if row.recording is not None else ((only, None) if only else None)
        if found is None:
            name = row.recording if row.recording is not None else "(the file names no recording)"
            absent[name] = absent.get(name, 0) + 1
            continue
        recording, view_id = found
        there = [view for view in views.get(recording, ()) if view.status == "ok" and view.num_frames]
        view = next((one for one in there if one.id == view_id), there[0] if there else None)
        onset, offset = row.onset, row.offset
        if not (math.isfinite(onset) and math.isfinite(offset)):
            unusable(row.line, f"times {onset} to {offset} are no numbers")
            continue
        if not offset > onset:
            unusable(
                row.line, f"it ends at {offset:g} {row.unit} before it starts, or as it starts, at {onset:g} {row.unit}"
            )
            continue
        if not row.label.strip():
            unusable(row.line, "it has no label")
            continue
        if row.unit == "frame":
            if view is None:
                unusable(row.line, f"its frame numbers need a readable video of recording '{recording}'")
                continue
            if onset >= view.num_frames or offset <= 0:
                unusable(
                    row.line,
                    f"frames {onset:g} to {offset:g} lie outside of {view.path}, which has {view.num_frames} frames",
                )
                continue
            onset, offset = _frame_time(view, onset), _frame_time(view, offset)
        elif view is not None and view_id is not None:
            onset, offset = ((view.offset + time * (1 + view.drift * 1e-6)) for time in (onset, offset))
        if there:
            first, last = min(view.span[0] for view in there), max(view.span[1] for view in there)
            slack = max(view.frame_duration for view in there)
            if onset >= last or offset <= first:
                unusable(
                    row.line,
                    f"{onset:.3f} to {offset:.3f} s lies outside of recording '{recording}', which runs from "
                    f"{first:.3f} to {last:.3f} s",
                )
                continue
            if onset < first - slack or offset > last + slack:
                checked.findings.append(
                    Finding(
                        "segment past the end",
                        _place(source, row.line),
                        f"{onset:.3f} to {offset:.3f} s goes beyond recording '{recording}', which runs from "
                        f"{first:.3f} to {last:.3f} s; it is kept as it is",
                    )
                )
        segment = Segment(onset, offset, row.label.strip(), row.layer, row.annotator)
        kept.setdefault(recording, []).append(segment)
    for name, count in absent.items():
        checked.num_unusable += count
        checked.findings.append(
            Finding(
                "labels for an absent video",
                source,
                f"{count} segments of '{name}', which is no recording of this study",
            )
        )
    checked.segments = {recording: tuple(sorted(of_one, key=_order)) for recording, of_one in kept.items()}
    return checked


def parse_time(text: str) -> float:
    """Seconds from "83.5", "1:23.5", "00:01:23.500" or "00:01:23,500"; raises ValueError for anything else."""
    parts = text.strip().replace(",", ".").split(":")
    if not 1 <= len(parts) <= 3 or not all(parts):
        raise ValueError(f"'{text}' is no time: give seconds or HH:MM:SS.mmm")
    negative = parts[0].startswith("-")
    try:
        *larger, seconds = parts
        total = float(seconds.lstrip("-") if not larger else seconds)
        for power, part in enumerate(reversed(larger), start=1):
            total += int(part.lstrip("-")) * 60**power
    except ValueError:
        raise ValueError(f"'{text}' is no time: give seconds or HH:MM:SS.mmm") from None
    return -total if negative else total


def _frame_time(view: View, frame: float) -> float:
    """When a frame begins, on the recording's clock; frames outside of the video are as long as its others."""
    limits = np.append(view.times, view.span[1])
    inside = min(max(frame, 0), view.num_frames)
    return float(np.interp(inside, np.arange(len(limits)), limits)) + (frame - inside) * view.frame_duration


def _order(segment: Segment) -> tuple[float, float, str, str, str]:
    return segment.onset, segment.offset, segment.layer, segment.label, segment.annotator


def _place(source: str, line: int | None) -> str:
    return source if line is None else f"{source}:{line}"
