"""Read annotated segments from files of many formats and hold them against the recordings that they are about."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from actionprep.datasets.findings import Finding
from actionprep.datasets.recording_names import RecordingNames
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
    split:         the split that the file gives the recording, in the file's own words; None if it gives none.
    """

    recording: str | None
    onset: float
    offset: float
    label: str
    layer: str = ""
    annotator: str = ""
    unit: Literal["s", "frame"] = "s"
    line: int | None = None
    split: str | None = None


class RowError(ValueError):
    """A row that a format cannot read, with the line that it stands on."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason)
        self.line = line


class UnknownFormatError(UserError):
    """A file is of no annotation format."""


class UnmappedColumnsError(UserError):
    """A csv lacks the columns that a segment needs, or has them under names that are not known.

    Attributes:
        path: The file.
        columns: Its columns.
        missing: Names of the fields that no column was found for: onset, offset and label.
    """

    def __init__(self, path: Path, columns: Sequence[str], missing: Sequence[str]) -> None:
        from actionprep.datasets.tables import csv_columns

        super().__init__(
            f"{path} has no column for {', '.join(missing)}. A csv with segments needs the columns onset and offset (or "
            "onset_ms and offset_ms, onset_frame and offset_frame) and label; it has "
            f"{csv_columns(columns)}. Name others with study.segment_columns in actionprep.toml, or with 'actionprep "
            "init --segment-columns onset=COLUMN offset=COLUMN label=COLUMN'."
        )
        self.path = path
        self.columns = tuple(columns)
        self.missing = tuple(missing)


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
            raise UnknownFormatError(
                f"Cannot detect the annotation format of {path}. Formats: "
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
    """Segments that can be used, by recording in the order of time, and findings about the others.

    splits: for each recording the splits that the rows give it, each with the line of its first row.
    """

    segments: dict[str, tuple[Segment, ...]] = field(default_factory=dict)
    splits: dict[str, dict[str, int | None]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    num_unusable: int = 0


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
    first_line: dict[str, int | None] = {}
    resolved = names.resolve(
        row.recording for row in rows if isinstance(row, AnnotatedRow) and row.recording is not None
    )

    def unusable(line: int | None, message: str) -> None:
        checked.num_unusable += 1
        checked.findings.append(Finding("unusable segment", _place(source, line), message))

    for row in rows:
        if isinstance(row, RowError):
            unusable(row.line, str(row))
            continue
        found = resolved.found.get(row.recording) if row.recording is not None else ((only, None) if only else None)
        if found is None:
            name = row.recording if row.recording is not None else "(the file names no recording)"
            absent[name] = absent.get(name, 0) + 1
            first_line.setdefault(name, row.line)
            continue
        recording, view_id = found
        if row.split:
            checked.splits.setdefault(recording, {}).setdefault(row.split, row.line)
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
        segment = Segment(onset, offset, normalize_label(row.label), row.layer, row.annotator)
        kept.setdefault(recording, []).append(segment)
    for name, count in absent.items():
        checked.num_unusable += count
        checked.findings.append(
            Finding(
                "labels for an absent video",
                _place(source, first_line[name]),
                f"{count} segment{'s'[: count != 1]} of '{name}', "
                f"{resolved.problems.get(name, 'which is no recording of this study')}",
            )
        )
    checked.segments = {recording: tuple(sorted(of_one, key=_order)) for recording, of_one in kept.items()}
    return checked


def normalize_label(label: str) -> str:
    """Return a label without surrounding spaces, in the composed Unicode form (NFC).

    macOS writes file names in the decomposed form; without this, one class would be two that look alike.
    """
    return unicodedata.normalize("NFC", label.strip())


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
