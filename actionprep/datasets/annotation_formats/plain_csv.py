"""Read plain csv or tsv: one segment per row, with recording, onset, offset, label and optionally layer and annotator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from actionprep.datasets.annotations import AnnotatedRow, RowError, SegmentFormat, UnmappedColumnsError, parse_interval
from actionprep.datasets.tables import header_of, read_csv, usual_names

# Suffix of a time column, the unit of its numbers, and the factor to seconds or frames.
_TIMES: dict[str, tuple[Literal["s", "frame"], float]] = {
    "": ("s", 1.0),
    "_s": ("s", 1.0),
    "_ms": ("s", 1e-3),
    "_frame": ("frame", 1.0),
}

_USUAL = (
    *(f"{edge}{suffix}" for edge in ("onset", "offset") for suffix in _TIMES),
    *("label", "recording", "layer", "annotator", "split"),
)


def segment_times(
    columns: Mapping[str, str], header: Sequence[str]
) -> tuple[str, str, Literal["s", "frame"], float] | None:
    """Find the columns with onsets and offsets in a table.

    Columns that the user named come first: `{"onset_frame": "onset", "offset_frame": "offset"}` makes the column
    `onset` a frame number. A table without the named columns is read by the usual names.

    Args:
        columns: Column names by `onset` (s or HH:MM:SS.mmm), `onset_s`, `onset_ms` or `onset_frame`, and likewise
            `offset`.
        header: Column names of the table.

    Returns:
        Names of the two columns, their unit, and the factor to it; None without such columns.
    """
    named = [suffix for suffix in _TIMES if _is_named(suffix, columns, header)]
    for suffix in [*named, *_TIMES]:
        onset, offset = (_column(f"{edge}{suffix}", columns, header) for edge in ("onset", "offset"))
        if onset in header and offset in header:
            return onset, offset, *_TIMES[suffix]
    return None


def has_segments(head: str) -> bool:
    """Whether a table has columns for onset, offset and label, given its first lines."""
    header = header_of(head)
    names = usual_names(header, _USUAL)
    columns = [names.get(name, name) for name in header]
    return segment_times({}, columns) is not None and "label" in columns


def is_mapped(columns: Mapping[str, str], header: Sequence[str]) -> bool:
    """Whether the user named columns of this table for the times."""
    return any(_is_named(suffix, columns, header) for suffix in _TIMES)


def _is_named(suffix: str, columns: Mapping[str, str], header: Sequence[str]) -> bool:
    return any(columns.get(f"{edge}{suffix}") in header for edge in ("onset", "offset"))


def _column(name: str, columns: Mapping[str, str], header: Sequence[str]) -> str:
    """Return the column that the user named, or the usual name where the table does not have that column."""
    named = columns.get(name, name)
    return named if named in header else name


def _recognizes(path: Path, head: str) -> bool:
    return path.suffix.lower() in (".csv", ".tsv", ".txt") and not head.lstrip().startswith(("{", "[", "<"))


def _read(path: Path, columns: Mapping[str, str]) -> Iterator[AnnotatedRow | RowError]:
    header, rows = read_csv(path, usual=() if columns else _USUAL)
    times = segment_times(columns, header)
    label, recording, layer, annotator, split = (
        _column(name, columns, header) for name in ("label", "recording", "layer", "annotator", "split")
    )
    missing = [] if times is not None else ["onset and offset"]
    if label not in header:
        missing.append("label")
    if times is None or missing:
        raise UnmappedColumnsError(path, header, missing)
    onset, offset, unit, scale = times
    for line, row in rows:
        if not (row[onset] or row[offset] or row[label]):
            continue  # a row of a template that nobody has filled in
        try:
            yield AnnotatedRow(
                recording=row.get(recording) or None,
                **parse_interval(row[onset], row[offset], scale),
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
    times="seconds, milliseconds or frames from 0, end exclusive; the names of the columns decide",
)
