"""Plain csv or tsv: a row a segment, with columns recording, onset, offset, label and perhaps layer and annotator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from actionprep.datasets.annotations import AnnotatedRow, RowError, SegmentFormat, UnmappedColumnsError, parse_time
from actionprep.datasets.tables import read_csv

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
        onset, offset = (_column(f"{name}{suffix}", columns, there) for name in ("onset", "offset"))
        if onset in there and offset in there:
            return onset, offset, unit, scale
    return None


def _column(name: str, columns: Mapping[str, str], there: list[str]) -> str:
    """The column of a field: the one that the settings name if the table has it, else the usual one."""
    given = columns.get(name, name)
    return given if given in there else name


def _recognizes(path: Path, head: str) -> bool:
    return path.suffix.lower() in (".csv", ".tsv", ".txt") and not head.lstrip().startswith(("{", "[", "<"))


def _read(path: Path, columns: Mapping[str, str]) -> Iterator[AnnotatedRow | RowError]:
    there, rows = read_csv(path)
    times = segment_times(columns, there)
    label = _column("label", columns, there)
    missing = [] if times is not None else ["onset and offset"]
    if label not in there:
        missing.append("label")
    if times is None or missing:
        raise UnmappedColumnsError(path, there, missing)
    onset, offset, unit, scale = times
    recording, layer, annotator, split = (
        _column(name, columns, there) for name in ("recording", "layer", "annotator", "split")
    )
    for line, row in rows:
        if not (row[onset] or row[offset] or row[label]):
            continue  # a row of a template that nobody has filled in
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
                split=row.get(split) or None,
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
