"""Write ActivityNet json: seconds on the recording's clock, with the given split as subset."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from actionprep.datasets.annotation_writers.writer import AnnotatedVideo, SegmentWriter

_SUBSETS = {"train": "training", "val": "validation", "test": "testing"}


def _write(videos: Sequence[AnnotatedVideo], labels: Sequence[str]) -> str:
    database: dict[str, Any] = {}
    for video in videos:
        entry: dict[str, Any] = {"duration": round(video.duration_s, 6)}
        if video.split:
            entry["subset"] = _SUBSETS[video.split]
        entry["annotations"] = [
            {"segment": [round(segment.onset, 6), round(segment.offset, 6)], "label": segment.label}
            for segment in video.segments
        ]
        database[video.recording] = entry
    return json.dumps({"version": "actionprep", "database": database}, ensure_ascii=False, indent=1) + "\n"


WRITER = SegmentWriter("activitynet", "ActivityNet json in seconds", ".json", _write)
