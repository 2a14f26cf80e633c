"""VGG Image Annotator: csv with comment lines, JSON in its fields, temporal segments in seconds of one video.

Two forms: columns file_list, temporal_segment_start, temporal_segment_end, metadata; and version 3's
           temporal_coordinates
with both times in one list, whose column names stand in a comment (CSV_HEADER).
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from actionprep.datasets.annotations import AnnotatedRow, RowError, SegmentFormat


def _recognizes(path: Path, head: str) -> bool:
    return path.suffix.lower() == ".csv" and "file_list" in head and "temporal_" in head


def _read(path: Path, columns: Mapping[str, str]) -> Iterator[AnnotatedRow | RowError]:
    header: list[str] | None = None
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        for cells in reader:
            line = reader.line_num
            if not cells or not any(cells):
                continue
            if cells[0].lstrip().startswith("#"):
                cells[0] = cells[0].lstrip("# ")
                if cells[0].startswith("CSV_HEADER"):
                    header = [cells[0].split("=", 1)[-1].strip(), *(cell.strip() for cell in cells[1:])]
                continue
            if "file_list" in cells:
                header = [cell.strip() for cell in cells]
                continue
            if header is None:
                # The first line of the older form is a comment without a mark.
                if line == 1:
                    continue
                raise ValueError("no line names the columns (file_list, temporal_…, metadata)")
            yield from _segments(dict(zip(header, cells, strict=False)), line)


def _segments(row: Mapping[str, str], line: int) -> Iterator[AnnotatedRow | RowError]:
    try:
        if "temporal_coordinates" in row:
            times = json.loads(row["temporal_coordinates"])
        else:
            times = [row["temporal_segment_start"], row["temporal_segment_end"]]
        if len(times) != 2:
            return  # spatial regions and single instants are no segments
        files = json.loads(row["file_list"])
        metadata = json.loads(row["metadata"])
        if not isinstance(files, list) or len(files) != 1 or not isinstance(metadata, dict):
            raise ValueError("file_list must be a list with one file and metadata an object")
        onset, offset = (float(time) for time in times)
    except (ValueError, KeyError, TypeError) as error:
        yield RowError(f"not a VIA row: {error}", line)
        return
    for layer, label in metadata.items():
        yield AnnotatedRow(str(files[0]), onset, offset, str(label), layer=str(layer), line=line)


FORMAT = SegmentFormat("via", "VGG Image Annotator csv with temporal segments", (".csv",), _recognizes, _read)
