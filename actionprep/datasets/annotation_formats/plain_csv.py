"""Plain csv or tsv: a row a segment, with columns recording, onset, offset, label and perhaps layer and annotator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from actionprep.datasets.annotations import AnnotatedRow, RowError, SegmentFormat, parse_time
from actionprep.datasets.tables import csv_columns, read_csv

# Columns with a time, the unit of their numbers, and what one unit is in seconds or frames.
_TIMES: dict[str, tuple[Literal["s", "frame"], float]] = {
    "": ("s", 1.0),
    "_s": ("s", 1.0),
    "_ms": ("s", 1e-3),
    "_frame": ("frame", 1.0),
}


def segment_times(columns: Mapping[str, str], there: list[str]) -> tuple[str, str, Literal["s", "frame"], float] | None:
    """The columns with onset and offset, their unit and scale; None when there are none.

    columns: names that differ from the usual ones: onset and offset (s or HH:MM:SS.mmm), onset_s, onset_ms,
             onset_frame.
    """
    for suffix, (unit, scale) in _TIMES.items():
        onset = columns.get(f"onset{suffix}", f"onset{suffix}")
        offset = columns.get(f"offset{suffix}", f"offset{suffix}")
        if onset in there and offset in there:
            return onset, offset, unit, scale
    return None


def _recognizes(path: Path, head: str) -> bool:
    return path.suffix.lower() in (".csv", ".tsv", ".txt") and not head.lstrip().startswith(("{", "[", "<"))


def _read(path: Path, columns: Mapping[str, str]) -> Iterator[AnnotatedRow | RowError]:
    there, rows = read_csv(path)
    times = segment_times(columns, there)
    label = columns.get("label", "label")
    if times is None or label not in there:
        raise ValueError(
            "it needs the columns onset and offset (or onset_ms and offset_ms, onset_frame and offset_frame) and "
            f"{label}; it has {csv_columns(there)}. Name others in study.segment_columns"
        )
    onset, offset, unit, scale = times
    recording, layer, annotator = (columns.get(name, name) for name in ("recording", "layer", "annotator"))
    for line, row in rows:
        try:
            yield AnnotatedRow(
                recording=row.get(recording) or None,
                onset=parse_time(row[onset]) * scale,
                offset=parse_time(row[offset]) * scale,
                label=row[label],
                layer=row.get(layer, ""),
                annotator=row.get(annotator, ""),
                unit=unit,
                line=line,
            )
        except ValueError as error:
            yield RowError(str(error), line)


FORMAT = SegmentFormat(
    "csv",
    "csv or tsv with columns recording, onset, offset, label, layer, annotator",
    (".csv", ".tsv"),
    _recognizes,
    _read,
)
