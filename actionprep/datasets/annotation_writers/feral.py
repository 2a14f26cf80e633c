"""Write labels of FERAL (json): the class of every frame, or with overlapping labels a 0 or 1 per class and frame.

Videos have their path below the study. Class 0, `other`, is that of frames without a label. Given parts become the splits.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from actionprep.datasets.annotation_writers.frame_rows import labels_by_frame
from actionprep.datasets.annotation_writers.writer import AnnotatedVideo, SegmentWriter

_OTHER = "other"


def _write(videos: Sequence[AnnotatedVideo], labels: Sequence[str]) -> str:
    classes = [_OTHER, *(label for label in labels if label != _OTHER)]
    rows = {}
    for video in videos:
        rows[video.relative] = labels_by_frame(video, classes)
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
    parts = {part: [video.relative for video in videos if video.split == part] for part in ("train", "val", "test")}
    if any(parts.values()):
        document["splits"] = parts
    return json.dumps(document, ensure_ascii=False) + "\n"


WRITER = SegmentWriter("feral", "FERAL json, a class per frame", ".json", _write, counts="frame")
