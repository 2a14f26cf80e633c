"""Read JSON lines: one object with video, start, stop (seconds) and action per line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from actionprep.datasets.annotations import AnnotatedRow, RowError, SegmentFormat


def _recognizes(path: Path, head: str) -> bool:
    return path.suffix == ".jsonl" and '"action"' in head.split("\n", 1)[0]


def _read(path: Path, columns: Mapping[str, str]) -> Iterator[AnnotatedRow | RowError]:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
            yield AnnotatedRow(row["video"], float(row["start"]), float(row["stop"]), row["action"], line=number)
        except (ValueError, KeyError, TypeError) as error:
            yield RowError(f"expected an object with video, start, stop and action: {error!r}", number)


FORMAT = SegmentFormat("json-lines", "one JSON object per line", (".jsonl",), _recognizes, _read)
