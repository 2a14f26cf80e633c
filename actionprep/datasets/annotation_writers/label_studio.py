"""Write tasks of Label Studio with timeline labels (json). Frames count from 1; the last one is included."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from actionprep.datasets.annotation_writers.writer import AnnotatedVideo, SegmentWriter


def _write(videos: Sequence[AnnotatedVideo], labels: Sequence[str]) -> str:
    tasks = [
        {
            "id": number,
            "data": {"video": video.file_name if video.path is None else str(video.path)},
            "annotations": [{"id": number, "result": _results(video)}],
        }
        for number, video in enumerate(videos, start=1)
    ]
    return json.dumps(tasks, ensure_ascii=False, indent=1) + "\n"


def _results(video: AnnotatedVideo) -> list[dict[str, Any]]:
    results = []
    for number, segment in enumerate(video.segments, start=1):
        first, last = video.frames_of(segment)
        if first < last:
            results.append(
                {
                    "id": f"{number}",
                    "type": "timelinelabels",
                    "from_name": "timelineLabels",
                    "to_name": "video",
                    "origin": "manual",
                    "value": {"ranges": [{"start": first + 1, "end": last}], "timelinelabels": [segment.label]},
                }
            )
    return results


WRITER = SegmentWriter("labelstudio", "tasks of Label Studio with timeline labels", ".json", _write, counts="frame")
