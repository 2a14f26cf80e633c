"""Read the csv of Charades, with the segments of a video in the column `actions`: "c092 11.90 21.20;c147 0.00 12.60".

Times are seconds from the start of the video, with the offset not included. The name of the file gives the split.
`Charades_v1_classes.txt` beside the table, or study.segment_classes, has the names of the classes ("c092 Opening …").
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from actionprep.datasets.annotations import AnnotatedRow, RowError, SegmentFormat
from actionprep.datasets.tables import header_of, read_csv, read_text

_CLASSES = "Charades_v1_classes.txt"
_CODE = re.compile(r"c\d{3}")


def _recognizes(path: Path, head: str) -> bool:
    return path.suffix.lower() == ".csv" and {"id", "actions", "length", "scene"} <= set(header_of(head))


def _read(classes: Path | None, path: Path, columns: Mapping[str, str]) -> Iterator[AnnotatedRow | RowError]:
    if classes is None and (path.parent / _CLASSES).is_file():
        classes = path.parent / _CLASSES
    names = {} if classes is None else _names(classes)
    header, rows = read_csv(path)
    if "id" not in header or "actions" not in header:
        raise ValueError("it needs the columns 'id' and 'actions'")
    split = re.search(r"(?:^|_)(train|test)(?:_|$)", path.stem, re.IGNORECASE)
    for line, row in rows:
        for action in filter(None, row["actions"].split(";")):
            try:
                code, onset, offset = action.split()
                if names and code not in names:
                    raise ValueError(f"class '{code}' is not in {classes}")
                label = names.get(code, code)
                times = float(onset), float(offset)
                yield AnnotatedRow(row["id"], *times, label, line=line, split=split and split[1].lower())
            except ValueError as error:
                reason = str(error) if "is not in" in str(error) else "it must be a class, an onset and an offset"
                yield RowError(f"action '{action}': {reason}", line)


def _names(path: Path) -> dict[str, str]:
    pairs = [line.strip().split(maxsplit=1) for line in read_text(path).splitlines() if line.strip()]
    wrong = [pair for pair in pairs if len(pair) != 2 or not _CODE.fullmatch(pair[0])]
    if wrong or not pairs:
        raise ValueError(f"{path} must have lines such as 'c000 Holding some clothes'")
    return {pair[0]: pair[1] for pair in pairs}


FORMAT = SegmentFormat(
    "charades",
    "Charades csv with a column actions",
    (".csv",),
    _recognizes,
    functools.partial(_read, None),
    times="seconds from the start of the video",
)
FORMAT = replace(
    FORMAT, class_files=(_CLASSES,), with_classes=lambda path: replace(FORMAT, read=functools.partial(_read, path))
)
