"""Read the tables of V-TRACE: one csv per video with labelId, timestamp and endTimestamp in s on the video's clock."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from actionprep.datasets.annotations import AnnotatedRow, RowError, SegmentFormat, parse_time
from actionprep.datasets.tables import header_of, read_csv

_COLUMNS = ("labelId", "timestamp", "endTimestamp")


def _recognizes(path: Path, head: str) -> bool:
    return set(_COLUMNS) <= set(header_of(head))


def _read(path: Path, columns: Mapping[str, str]) -> Iterator[AnnotatedRow | RowError]:
    name = f"{path.absolute().parent.name}/{path.stem}"
    _, rows = read_csv(path)
    for line, row in rows:
        try:
            onset, offset = parse_time(row["timestamp"]), parse_time(row["endTimestamp"])
        except ValueError as error:
            yield RowError(str(error), line)
            continue
        yield AnnotatedRow(name, onset, offset, row["labelId"], line=line, alternatives=((path.stem, 0.0),))


FORMAT = SegmentFormat(
    "vtrace", "V-TRACE csv, one per video", (".csv",), _recognizes, _read, times="seconds from the start of the video"
)
