"""Read FERAL json: class names, and the number of a class, or 0 and 1 for each class, per frame of each video.

Frames count from 0, and time 0 is the first frame. Runs of frames with one class are segments. Class 0 is the background
where it is named `other` or `background`; such frames give no segment.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from actionprep.datasets.annotations import AnnotatedRow, RowError, SegmentFormat
from actionprep.datasets.frame_runs import runs_of_columns
from actionprep.datasets.tables import read_text

_BACKGROUND = ("other", "background")


def _recognizes(path: Path, head: str) -> bool:
    return head.lstrip().startswith("{") and '"class_names"' in head and '"labels"' in head


def _read(path: Path, columns: Mapping[str, str]) -> Iterator[AnnotatedRow | RowError]:
    document = json.loads(read_text(path))
    if not isinstance(document, dict):
        raise ValueError("it must be an object with 'class_names' and 'labels'")
    classes, labels = document.get("class_names"), document.get("labels")
    if not (isinstance(classes, dict) and classes and isinstance(labels, dict)):
        raise ValueError("it needs the objects 'class_names' and 'labels'")
    names = {_number(key): str(name) for key, name in classes.items()}
    splits = _splits(document.get("splits"))
    for video, frames in labels.items():
        try:
            active = _active(frames, names)
        except ValueError as error:
            yield RowError(f"labels of '{video}': {error}")
            continue
        for start, end, column in runs_of_columns(active):
            name = names[sorted(names)[column]]
            if column or name.casefold() not in _BACKGROUND:
                yield AnnotatedRow(str(video), start, end, name, unit="frame", split=splits.get(str(video)))


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"its 'class_names' must have numbers as keys, not '{text}'") from None


def _active(frames: Any, names: Mapping[int, str]) -> np.ndarray:
    """Whether each frame has each class, (T, C) bool; raises ValueError for values that are no classes."""
    try:
        values = np.asarray(frames, np.float64)
    except (ValueError, TypeError):
        raise ValueError("they are not numbers, or lists of equal length") from None
    numbers = sorted(names)
    if values.ndim == 2 and values.shape[1] == len(numbers) and np.isin(values, (0, 1)).all():
        return np.asarray(values == 1)
    if values.ndim != 1:
        raise ValueError(f"each frame must have one number, or {len(numbers)} numbers of 0 and 1")
    unknown = np.flatnonzero(~np.isin(values, numbers))
    if len(unknown):
        raise ValueError(f"frame {unknown[0]} has class {values[unknown[0]]:g}, which 'class_names' lacks")
    return np.asarray(values[:, None] == np.asarray(numbers))


def _splits(splits: Any) -> dict[str, str]:
    """Split of each video; "inference" is none."""
    if not isinstance(splits, dict):
        return {}
    named = {name: videos for name, videos in splits.items() if isinstance(videos, list) and name != "inference"}
    return {str(video): str(name) for name, videos in named.items() for video in videos}


FORMAT = SegmentFormat(
    "feral",
    "FERAL json: a class per frame of each video",
    (".json",),
    _recognizes,
    _read,
    times="one value per frame, from frame 0; time 0 is the first frame",
)
