"""Write labels of FERAL (json): the class of every frame, or with overlapping labels a 0 or 1 per class and frame.

Class 0, `other`, is that of frames without a label. Given parts become the splits.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from actionprep.datasets.annotation_writers.frame_rows import labels_by_frame
from actionprep.datasets.annotation_writers.writer import AnnotatedVideo, SegmentWriter
from actionprep.errors import UserError

_OTHER = "other"


def _write(videos: Sequence[AnnotatedVideo], labels: Sequence[str]) -> str:
    classes = [_OTHER, *(label for label in labels if label != _OTHER)]
    rows = {}
    for video in videos:
        if video.file_name in rows:
            raise UserError(
                f"FERAL names videos by their file names, and two are called '{video.file_name}'. Export the recordings one "
                "by one with --recording, or rename a file."
            )
        rows[video.file_name] = labels_by_frame(video, classes)
    several = any((applies[:, 1:].sum(axis=1) > 1).any() for applies in rows.values())
    document: dict[str, Any] = {
        "class_names": {str(code): label for code, label in enumerate(classes)},
        "is_multilabel": several,
        "labels": {},
    }
    for name, applies in rows.items():
        if several:
            applies[:, 0] = ~applies[:, 1:].any(axis=1)
            document["labels"][name] = applies.astype(int).tolist()
        else:
            document["labels"][name] = (applies[:, 1:] @ np.arange(1, len(classes))).tolist()
    parts = {part: [video.file_name for video in videos if video.split == part] for part in ("train", "val", "test")}
    if any(parts.values()):
        document["splits"] = parts
    return json.dumps(document, ensure_ascii=False) + "\n"


WRITER = SegmentWriter("feral", "FERAL json, a class per frame", ".json", _write, counts="frame")
