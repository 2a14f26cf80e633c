"""Read ActivityNet json: videos by name, each with annotations of a segment in seconds and a label."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from actionprep.datasets.annotations import AnnotatedRow, RowError, SegmentFormat
from actionprep.datasets.tables import read_text
from actionprep.errors import name_list


def _recognizes(path: Path, head: str) -> bool:
    return head.lstrip().startswith("{") and '"annotations"' in head and '"segment"' in head


def _read(path: Path, columns: Mapping[str, str]) -> Iterator[AnnotatedRow | RowError]:
    document = json.loads(read_text(path))
    videos = document.get("database", document) if isinstance(document, dict) else None
    if not isinstance(videos, dict):
        raise ValueError("it must be an object with the name of a video as each key")
    if videos and not any(isinstance(video, dict) and "annotations" in video for video in videos.values()):
        keys = name_list([f"'{key}'" for key in videos])
        raise ValueError(
            f"none of its entries has 'annotations', as the videos of ActivityNet have; its keys are {keys}"
        )
    for name, video in videos.items():
        annotations = video.get("annotations") if isinstance(video, dict) else None
        if not isinstance(annotations, list):
            yield RowError(f"'{name}' has no list 'annotations'")
            continue
        split = video.get("subset")
        for number, annotation in enumerate(annotations):
            try:
                onset, offset = (float(time) for time in annotation["segment"])
                yield AnnotatedRow(
                    str(name), onset, offset, str(annotation["label"]), split=str(split) if split else None
                )
            except (ValueError, KeyError, TypeError, OverflowError) as error:
                yield RowError(f"annotation {number} of '{name}' is not a segment with a label: {error!r}")


FORMAT = SegmentFormat(
    "activitynet", "ActivityNet json", (".json",), _recognizes, _read, times="seconds from the start of the video"
)
