"""Read VGG Image Annotator csv: comment lines, JSON in the cells, segments in seconds of one video.

Two forms: version 2 with the columns file_list, temporal_segment_start, temporal_segment_end and metadata, and version 3
with both times in temporal_coordinates. The column names of version 3 stand in a comment (CSV_HEADER). Its metadata has
ids of attributes and options; another comment (ATTRIBUTE) has their names.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actionprep.datasets.annotations import AnnotatedRow, RowError, SegmentFormat
from actionprep.datasets.tables import read_text

_TEXT, _CHECKBOX = 1, 2  # attribute types of version 3; the other types have one option as their value


@dataclass
class _Table:
    """Rows of a VIA csv by line number, and its attributes by id."""

    attributes: dict[str, Any] = field(default_factory=dict)
    rows: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    header: list[str] = field(default_factory=list)


def _recognizes(path: Path, head: str) -> bool:
    """Whether the cells are JSON as VIA writes them; a table that somebody cleaned has its columns, but plain cells."""
    if path.suffix.lower() != ".csv" or "file_list" not in head or "temporal_" not in head:
        return False
    try:
        table = _parse(head)
    except ValueError:
        return False
    if "metadata" not in table.header:
        return False
    return not table.rows or isinstance(_json(table.rows[0][1].get("file_list", "")), list)


def _read(path: Path, columns: Mapping[str, str]) -> Iterator[AnnotatedRow | RowError]:
    table = _parse(read_text(path))
    for line, row in table.rows:
        yield from _segments(row, line, table.attributes)


def _parse(text: str) -> _Table:
    table = _Table()
    lines = text.split("\n")
    for line in lines:
        if not line.startswith(("#", '"#')):
            continue
        name, _, value = _comment(line).partition("=")
        if name.strip() == "ATTRIBUTE":
            table.attributes = _attributes(value)
        elif name.strip() == "CSV_HEADER":
            table.header = [cell.strip() for cell in value.split(",")]
    reader = csv.reader("" if line.startswith(("#", '"#')) else f"{line}\n" for line in lines)
    try:
        _read_rows(reader, table)
    except csv.Error as error:
        raise ValueError(str(error)) from None
    return table


def _read_rows(reader: Any, table: _Table) -> None:
    for cells in reader:
        if not any(cells):
            continue
        if "file_list" in cells:
            table.header = [cell.strip() for cell in cells]
        elif table.header:
            table.rows.append((reader.line_num, dict(zip(table.header, cells, strict=False))))
        elif reader.line_num > 1:  # the first line of version 2 is a comment without a mark
            raise ValueError("no line has the column names (file_list, temporal_…, metadata)")


def _attributes(text: str) -> dict[str, Any]:
    attributes = json.loads(text)
    if not isinstance(attributes, dict) or not all(
        isinstance(attribute, dict) and isinstance(attribute.get("options", {}), dict)
        for attribute in attributes.values()
    ):
        raise ValueError("its ATTRIBUTE comment must be an object with one object for each attribute")
    return attributes


def _comment(line: str) -> str:
    """Return a comment line without its mark; a spreadsheet puts quotes around it when it saves the file."""
    cells = next(csv.reader([line])) if line.startswith('"') else [line]
    return ",".join(cells).lstrip("# ")


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _segments(row: Mapping[str, str], line: int, attributes: Mapping[str, Any]) -> Iterator[AnnotatedRow | RowError]:
    try:
        if "temporal_coordinates" in row:
            times = json.loads(row["temporal_coordinates"])
        else:
            times = [row["temporal_segment_start"], row["temporal_segment_end"]]
        if len(times) != 2:
            return  # regions in space and single time points are not segments
        files = json.loads(row["file_list"])
        metadata = json.loads(row["metadata"])
        if not isinstance(files, list) or len(files) != 1 or not isinstance(metadata, dict):
            raise ValueError("file_list must be a list with one file and metadata an object")
        onset, offset = (float(time) for time in times)
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        yield RowError(f"not a VIA row: {error}", line)
        return
    for id, value in metadata.items():
        attribute = attributes.get(id)
        layer = str(id) if attribute is None else str(attribute.get("aname", id))
        try:
            labels = labels_of(str(value), attribute)
        except KeyError as error:
            yield RowError(f"attribute '{layer}' has no option {error}", line)
            continue
        for label in labels:
            yield AnnotatedRow(str(files[0]), onset, offset, label, layer=layer, line=line)


def labels_of(value: str, attribute: Mapping[str, Any] | None) -> list[str]:
    """Return the texts that the value of an attribute means; raises KeyError for an option that does not exist."""
    type = _TEXT if attribute is None else attribute.get("type", _TEXT)
    if attribute is None or type == _TEXT or not value:
        return [value]
    chosen = [part.strip() for part in value.split(",")] if type == _CHECKBOX else [value]
    return [str(attribute.get("options", {})[option]) for option in chosen if option]


FORMAT = SegmentFormat(
    "via",
    "VGG Image Annotator csv with temporal segments",
    (".csv",),
    _recognizes,
    _read,
    times="seconds from the start of the video",
)
