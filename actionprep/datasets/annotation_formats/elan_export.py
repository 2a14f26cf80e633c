"""Read the tables that ELAN exports as tab-delimited text, with a header line or without one.

With a header, each tier has a column, or the columns Tier and Annotation give one annotation per row. Without a header
(the default of the export), the cells are tier, participant, begin, end and duration in each of the chosen forms, the
value, and the name or path of the file if chosen (ELAN manual, "Exporting a document to tab-delimited text").
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from actionprep.datasets.annotations import AnnotatedRow, RowError, SegmentFormat, parse_time
from actionprep.datasets.tables import csv_columns, header_of, read_csv, read_list, read_text

_EXPORT_TIMES = (
    ("Begin Time - msec", "End Time - msec", 1e-3),
    ("Begin Time - ss.msec", "End Time - ss.msec", 1.0),
    ("Begin Time - hh:mm:ss.ms", "End Time - hh:mm:ss.ms", 1.0),
)
_EXPORT_MEDIA = ("File Name", "File Path", "Media", "Clip_name")

# Forms of a time without a header: text that matches, and the factor to seconds.
_HEADINGS = {heading for times in _EXPORT_TIMES for heading in times[:2]}
_FORMS = ((re.compile(r"\d+:\d\d:\d\d\.\d{1,3}"), 1.0), (re.compile(r"\d+\.\d+"), 1.0), (re.compile(r"\d+"), 1e-3))
_ROUNDING_S = 0.0015
_SAMPLE_ROWS = 20


def _is_export(path: Path, head: str) -> bool:
    header = header_of(head)
    if any(onset in header and offset in header for onset, offset, _ in _EXPORT_TIMES):
        return True
    lines = head.splitlines()[: _SAMPLE_ROWS + 1][:-1] or head.splitlines()
    return (
        "\t" in head
        and bool(lines)
        and all(_layout_of([cell.strip() for cell in line.split("\t")]) is not None for line in lines if line.strip())
    )


def _layout_of(cells: Sequence[str]) -> tuple[int, int] | None:
    """Edges of a row (3 with the duration, 2 without) and forms of each; None if it is not of an export without header."""
    layouts = ((edges, forms) for edges in (3, 2) for forms in (len(_FORMS), 2, 1))
    return next((layout for layout in layouts if _parsed(cells, layout) is not None), None)


def _parsed(cells: Sequence[str], layout: tuple[int, int]) -> tuple[float, float, list[str]] | None:
    """Onset and offset in s, and the cells after the times; None if the cells have another layout."""
    edges, num_forms = layout
    rest = list(cells[2 + edges * num_forms :])
    if not rest:
        return None
    times: list[float] = []
    forms: list[int] = []
    for cell in cells[2 : 2 + edges * num_forms]:
        form = next((number for number, (text, _) in enumerate(_FORMS) if text.fullmatch(cell)), None)
        if form is None:
            return None
        forms.append(form)
        times.append(parse_time(cell) * _FORMS[form][1])
    if forms != forms[:num_forms] * edges or len(set(forms)) != num_forms:
        return None
    of_edges = [times[edge * num_forms : (edge + 1) * num_forms] for edge in range(edges)]
    onset, offset = of_edges[0][0], of_edges[1][0]
    expected = (onset, offset, offset - onset)
    agree = all(abs(time - edge) <= _ROUNDING_S for own, edge in zip(of_edges, expected, strict=False) for time in own)
    return (onset, offset, rest) if agree and onset <= offset else None


def _read_without_header(path: Path) -> Iterator[AnnotatedRow | RowError]:
    rows = read_list(path, "tab")
    layout = next((layout for _, cells in rows if (layout := _layout_of(cells)) is not None), (3, 1))
    for line, cells in rows:
        parsed = _parsed(cells, layout)
        if parsed is None:
            yield RowError("expected tier, participant, begin, end, duration and value, separated by tabs", line)
            continue
        onset, offset, (value, *places) = parsed
        file = next((place for place in places if PurePosixPath(place.replace("\\", "/")).suffix), "")
        recording = PurePosixPath(file.replace("\\", "/").removeprefix("file://"))
        name = str(recording.with_suffix("")) if recording.suffix in (".eaf", ".pfsx") else str(recording)
        yield AnnotatedRow(
            name if file else path.stem,
            onset,
            offset,
            value or cells[0],
            layer=cells[0],
            line=line,
            label_from_layer=not value,
        )


def _read_export(path: Path, columns: Mapping[str, str]) -> Iterator[AnnotatedRow | RowError]:
    if not any(cell in _HEADINGS for cell in header_of(read_text(path))):
        yield from _read_without_header(path)
        return
    header, rows = read_csv(path)
    times = next((times for times in _EXPORT_TIMES if times[0] in header and times[1] in header), None)
    if times is None:
        raise ValueError(f"it needs ELAN's columns of begin and end time; it has {csv_columns(header)}")
    onset, offset, scale = times
    media = columns.get("recording") or next((name for name in _EXPORT_MEDIA if name in header), None)
    layer, label = columns.get("layer", "Tier"), columns.get("label", "Annotation")
    tiers = [name for name in header if name and "Time - " not in name and "Duration - " not in name and name != media]
    for line, row in rows:
        try:
            first, last = parse_time(row[onset]) * scale, parse_time(row[offset]) * scale
        except ValueError as error:
            yield RowError(str(error), line)
            continue
        recording = (row.get(media, "") if media else "") or path.stem
        if label in header:  # one annotation per row
            yield AnnotatedRow(recording, first, last, row[label], layer=row.get(layer, ""), line=line)
            continue
        for tier in tiers:
            if row.get(tier, "").strip():
                yield AnnotatedRow(recording, first, last, row[tier], layer=tier, line=line)


EXPORT = SegmentFormat(
    "elan-export",
    "ELAN's table export, a column a tier or a row per annotation",
    (".txt", ".csv", ".tsv"),
    _is_export,
    _read_export,
    times="milliseconds or seconds from the start of the linked file",
)
