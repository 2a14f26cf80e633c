"""Read the frame labels of MS-TCN and its successors: a text file per video with one label per line.

Lines are frames from 0, and time 0 is the first frame. Runs of equal labels are segments, those of the background
(`background`, `SIL`) too, because the data sets count it as a class.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from actionprep.datasets.annotations import AnnotatedRow, RowError, SegmentFormat
from actionprep.datasets.frame_runs import runs_of_labels
from actionprep.datasets.tables import read_text


def _recognizes(path: Path, head: str) -> bool:
    # A list of words could be anything: only the folder of the data sets decides.
    return path.suffix.lower() == ".txt" and path.parent.name.casefold() == "groundtruth"


def _resembles(path: Path, head: str) -> bool:
    """Whether lines of one word repeat, as labels of frames do."""
    labels = [line.strip() for line in head.splitlines()[:-1]]
    is_words = len(labels) > 20 and all(label and len(label.split()) == 1 and not label.isdigit() for label in labels)
    return path.suffix.lower() == ".txt" and is_words and len(runs_of_labels(labels)) < len(labels) / 4


def _read(path: Path, columns: Mapping[str, str]) -> Iterator[AnnotatedRow | RowError]:
    labels = [line.strip() for line in read_text(path).splitlines()]
    while labels and not labels[-1]:
        labels.pop()
    if not labels:
        raise ValueError("it is empty")
    if "" in labels:
        raise ValueError(f"line {labels.index('') + 1} is blank, and each line is the label of a frame")
    for start, end, label in runs_of_labels(labels):
        yield AnnotatedRow(None, start, end, label, unit="frame", line=start + 1)


FORMAT = SegmentFormat(
    "ms-tcn",
    "MS-TCN text: one label per line and frame",
    (".txt",),
    _recognizes,
    _read,
    resembles=_resembles,
    times="one line per frame, from frame 0; time 0 is the first frame",
)
