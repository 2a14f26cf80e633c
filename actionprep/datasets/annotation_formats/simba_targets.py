"""Read SimBA targets_inserted csv: a row per frame with poses, features and, last, 0 or 1 for each classifier.

The classifiers are the columns after the last feature, `Low_prob_detections_0.75`. Frames count from 0, and time 0 is the
first frame.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from actionprep.datasets.annotation_formats.one_hot import rows_of_columns
from actionprep.datasets.annotations import AnnotatedRow, RowError, SegmentFormat
from actionprep.datasets.tables import header_of, read_text

_LAST_FEATURE = "Low_prob_detections_"


def _first_target(header: list[str]) -> int | None:
    features = [index for index, name in enumerate(header) if name.startswith(_LAST_FEATURE)]
    return features[-1] + 1 if features and features[-1] + 1 < len(header) else None


def _recognizes(path: Path, head: str) -> bool:
    return path.suffix.lower() == ".csv" and _first_target(header_of(head)) is not None


def _read(path: Path, columns: Mapping[str, str]) -> Iterator[AnnotatedRow | RowError]:
    reader = csv.reader(io.StringIO(read_text(path), newline=""))
    try:
        header = [cell.strip() for cell in next(reader, [])]
        first = _first_target(header)
        if first is None:
            raise ValueError(f"it needs columns of classifiers after '{_LAST_FEATURE}0.75'")
        targets = []
        for cells in reader:
            if len(cells) != len(header):
                raise ValueError(f"line {reader.line_num} has {len(cells)} cells, and there are {len(header)} columns")
            values = [float(cell or "nan") for cell in cells[first:]]
            if any(value not in (0, 1) for value in values):
                raise ValueError(f"line {reader.line_num} has a value other than 0 and 1 for a classifier")
            targets.append(values)
    except csv.Error as error:
        raise ValueError(f"it is not valid csv: {error}") from None
    active = np.asarray(targets, np.float64).reshape(-1, len(header) - first) == 1
    yield from rows_of_columns(active, header[first:], recording=None)


FORMAT = SegmentFormat(
    "simba-targets",
    "SimBA targets_inserted csv: features and classifiers per frame",
    (".csv",),
    _recognizes,
    _read,
    times="one row per frame, from frame 0; time 0 is the first frame",
)
