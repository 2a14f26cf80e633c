"""ActivityNet json: videos by name, each with annotations of a segment in seconds and a label."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from actionprep.datasets.annotations import AnnotatedRow, RowError, SegmentFormat


def _recognizes(path: Path, head: str) -> bool:
    return head.lstrip().startswith("{") and '"annotations"' in head and '"segment"' in head


def _read(path: Path, columns: Mapping[str, str]) -> Iterator[AnnotatedRow | RowError]:
    document = json.loads(path.read_text(encoding="utf-8-sig"))
    videos = document.get("database", document) if isinstance(document, dict) else None
    if not isinstance(videos, dict):
        raise ValueError("it must be an object with a video's name for each key")
    for name, video in videos.items():
        annotations = video.get("annotations", []) if isinstance(video, dict) else []
        split = video.get("subset") if isinstance(video, dict) else None
        for number, annotation in enumerate(annotations):
            try:
                onset, offset = (float(time) for time in annotation["segment"])
                yield AnnotatedRow(
                    str(name), onset, offset, str(annotation["label"]), split=str(split) if split else None
                )
            except (ValueError, KeyError, TypeError) as error:
                yield RowError(f"annotation {number} of '{name}' is not a segment with a label: {error!r}")


FORMAT = SegmentFormat("activitynet", "ActivityNet json", (".json",), _recognizes, _read)
