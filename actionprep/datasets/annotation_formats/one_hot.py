"""Read csv tables with one row per frame and one column per label, 0 or 1: DeepEthogram and lightning-action.

The first column has no name and numbers the frames from 0. Time 0 is the first frame of the video; a segment ends before
the first frame that lacks its label. The column `background` marks frames without any other label and gives no segment;
-1 marks frames that nobody annotated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from actionprep.datasets.annotations import AnnotatedRow, RowError, SegmentFormat
from actionprep.datasets.frame_runs import runs_of_columns
from actionprep.datasets.tables import read_list, split_list

_BACKGROUND = ("background",)
_ENDINGS = ("_labels", "_label", ".labels")


def _recognizes(path: Path, head: str) -> bool:
    if path.suffix.lower() not in (".csv", ".tsv"):
        return False
    rows = [cells for _, cells in split_list("\n".join(head.splitlines()[:20]))]
    if len(rows) < 2 or len(rows[0]) < 2 or rows[0][0] or not all(rows[0][1:]):
        return False
    whole = [cells for cells in rows[1:] if len(cells) == len(rows[0])]
    return len(whole) >= len(rows) - 2 > 0 and all(
        cells[0] == str(index) and set(cells[1:]) <= {"0", "1", "-1", "0.0", "1.0", "-1.0"}
        for index, cells in enumerate(whole)
    )


def _read(path: Path, columns: Mapping[str, str]) -> Iterator[AnnotatedRow | RowError]:
    (_, header), *rows = read_list(path)
    if header[0]:
        raise ValueError(f"its first column, which numbers the frames, must have no name; it is '{header[0]}'")
    values = np.empty((len(rows), len(header) - 1), np.float64)
    for index, (line, cells) in enumerate(rows):
        if len(cells) != len(header):
            raise ValueError(f"line {line} has {len(cells)} cells, and there are {len(header)} columns")
        values[index] = [float(cell or "nan") for cell in cells[1:]]
        if not np.isin(values[index], (0, 1, -1)).all():
            raise ValueError(f"line {line} has a value other than 0, 1 and -1")
        if float(cells[0]) != index:
            raise ValueError(f"line {line} has frame {cells[0]} where {index} should follow")
    yield from rows_of_columns(values == 1, header[1:], recording=recording_of(path))
    for start, end, _ in runs_of_columns((values == -1).all(axis=1, keepdims=True)):
        yield RowError(f"frames {start} to {end - 1} are not annotated (-1)", rows[start][0])


def rows_of_columns(active: np.ndarray, labels: list[str], *, recording: str | None) -> Iterator[AnnotatedRow]:
    """Yield one row per run of frames with a label.

    Args:
        active: Whether each frame has each label, (T, C).
        labels: Names of the columns; that of the background gives no rows.
        recording: Name of the recording; None for that of the file.
    """
    for start, end, column in runs_of_columns(active):
        if labels[column].casefold() not in _BACKGROUND:
            yield AnnotatedRow(recording, start, end, labels[column], unit="frame")


def recording_of(path: Path) -> str | None:
    """Name of the video that a file of labels is about, by its own name; None where that is the name of the video."""
    for ending in _ENDINGS:
        if path.stem.casefold().endswith(ending):
            return path.stem[: -len(ending)]
    return None


FORMAT = SegmentFormat(
    "one-hot",
    "DeepEthogram and lightning-action csv: a row per frame, 0 or 1 per label",
    (".csv",),
    _recognizes,
    _read,
    times="one row per frame, from frame 0; time 0 is the first frame",
)
