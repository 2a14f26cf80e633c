"""Read csv exports of Datavyu: the wide one of Datavyu itself, and the long one of the R package datavyur.

Times are milliseconds from the start of the video. The codes of a cell are layers, called `column.code`. A cell without
codes has the name of its column as label. A cell with equal onset and offset is a point event.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from actionprep.datasets.annotations import AnnotatedRow, RowError, SegmentFormat
from actionprep.datasets.tables import header_of, read_csv

_LONG = ("column", "ordinal", "onset", "offset")
_WIDE = re.compile(r"(.+)\.ordinal")


def _recognizes(path: Path, head: str) -> bool:
    header = header_of(head)
    return set(_LONG) <= set(header) or bool(_wide_columns(header))


def _wide_columns(header: Sequence[str]) -> list[str]:
    """Names of Datavyu's columns in its own export."""
    matches = [match[1] for name in header if (match := _WIDE.fullmatch(name))]
    return [name for name in matches if f"{name}.onset" in header and f"{name}.offset" in header]


def _read(path: Path, columns: Mapping[str, str]) -> Iterator[AnnotatedRow | RowError]:
    header, rows = read_csv(path)
    wide = _wide_columns(header)
    if not wide and not set(_LONG) <= set(header):
        raise ValueError(f"it has no columns {', '.join(_LONG)}, nor NAME.ordinal, NAME.onset and NAME.offset")
    for line, row in rows:
        if wide:
            for name in wide:
                codes = {key: row[key] for key in header if key.startswith(f"{name}.")}
                times = codes.pop(f"{name}.onset"), codes.pop(f"{name}.offset")
                codes.pop(f"{name}.ordinal", None)
                if any(times):
                    yield from _cell(None, name, times, codes, line)
        else:
            codes = {f"{row['column']}.{key}": row[key] for key in header if key not in (*_LONG, "file")}
            yield from _cell(row.get("file") or None, row["column"], (row["onset"], row["offset"]), codes, line)


def _cell(
    recording: str | None, name: str, times: tuple[str, str], codes: Mapping[str, str], line: int
) -> Iterator[AnnotatedRow | RowError]:
    try:
        onset, offset = (float(text) / 1000 for text in times)
    except ValueError:
        yield RowError(f"its times '{times[0]}' and '{times[1]}' are not milliseconds", line)
        return
    labels = [(layer, value) for layer, value in codes.items() if value and value != "."] or [(name, name)]
    for layer, label in labels:
        yield AnnotatedRow(recording, onset, offset, label, layer=layer, line=line, is_point=onset == offset)


FORMAT = SegmentFormat(
    "datavyu",
    "csv of Datavyu, milliseconds",
    (".csv",),
    _recognizes,
    _read,
    times="milliseconds from the start of the video",
)
