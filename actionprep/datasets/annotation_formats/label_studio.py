"""Read Label Studio json: timeline labels of videos, and labels of audio.

Frames of timeline labels count from 1 and the last one is included. A frame rate in the labeling configuration decides
how long they are; without it they are frames of the video. Regions of audio are in seconds. The names of the
annotators are kept; cancelled annotations are left out. The short form (JSON-MIN) is read as well.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from actionprep.datasets.annotations import AnnotatedRow, RowError, SegmentFormat
from actionprep.datasets.tables import read_text

_RATE = re.compile(r"""<Video\b[^>]*\bframe[rR]ate\s*=\s*["'](\d+(?:\.\d+)?)["']""")


def _recognizes(path: Path, head: str) -> bool:
    return head.lstrip()[:1] in ("[", "{") and ('"timelinelabels"' in head or '"to_name"' in head)


def _read(path: Path, columns: Mapping[str, str]) -> Iterator[AnnotatedRow | RowError]:
    document = json.loads(read_text(path))
    tasks = document if isinstance(document, list) else [document]
    kinds: set[str] = set()
    count = 0
    for number, task in enumerate(tasks, start=1):
        try:
            for row in _task(task, kinds):
                count += 1
                yield _at_rate(row, _frame_rate(task))
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
            count += 1
            yield RowError(f"task {number} is damaged: {error!r}")
    if not count:
        other = f"; it has {', '.join(sorted(kinds))}" if kinds else ""
        raise ValueError(f"it has no timeline labels{other}")


def _frame_rate(task: Mapping[str, Any]) -> float | None:
    """Frame rate in the labeling configuration, which decides what a frame is; None if the file does not have it."""
    config = task.get("project", {}).get("label_config", "") if isinstance(task.get("project"), dict) else ""
    match = _RATE.search(str(config))
    return float(match[1]) if match else None


def _at_rate(row: AnnotatedRow | RowError, rate: float | None) -> AnnotatedRow | RowError:
    """Return a row with frames of another rate than the video's converted to seconds."""
    if isinstance(row, RowError) or row.unit != "frame" or not rate:
        return row
    return replace(row, onset=row.onset / rate, offset=row.offset / rate, unit="s")


def _task(task: Mapping[str, Any], kinds: set[str]) -> Iterator[AnnotatedRow | RowError]:
    data = task.get("data") or task.get("task", {}).get("data") or task
    name = _file_name(data)
    annotations = (
        task.get("annotations") or task.get("completions") or ([task["annotation"]] if "annotation" in task else [])
    )
    if not annotations and "result" in task:
        annotations = [task]
    for annotation in annotations:
        if annotation.get("was_cancelled"):
            continue
        annotator = annotation.get("completed_by", "")
        who = annotator.get("email", annotator.get("id", "")) if isinstance(annotator, dict) else annotator
        for result in annotation.get("result", []):
            kinds.add(str(result.get("type")))
            yield from _result(name, result.get("value", {}), str(result.get("from_name", "")), str(who or ""))
    if annotations:
        return
    for key, values in task.items():
        if isinstance(values, list) and all(isinstance(value, dict) for value in values):
            for value in values:
                yield from _result(name, value, key, str(task.get("annotator") or ""))


def _result(name: str | None, value: Mapping[str, Any], layer: str, annotator: str) -> Iterator[AnnotatedRow]:
    for label in value.get("timelinelabels", ()):
        for span in value["ranges"]:
            yield AnnotatedRow(
                name,
                int(span["start"]) - 1,
                int(span["end"]),
                str(label),
                layer=layer,
                annotator=annotator,
                unit="frame",
            )
    if "start" in value and "end" in value:
        for label in value.get("labels", ()):
            yield AnnotatedRow(
                name, float(value["start"]), float(value["end"]), str(label), layer=layer, annotator=annotator
            )


def _file_name(data: Mapping[str, Any]) -> str | None:
    """Name of the task's video: the value of `video`, or of the first key with a path."""
    values = [data.get("video"), data.get("video_url"), data.get("audio"), *data.values()]
    for value in values:
        if isinstance(value, str) and "." in value.rpartition("/")[2]:
            url = urlsplit(value)
            # Files of a local storage are called /data/local-files/?d=folder/video.mp4.
            local = parse_qs(url.query).get("d")
            name = local[0] if local else unquote(url.path) if url.scheme else value
            stem, _, rest = name.rpartition("/")
            # Uploads get eight hexadecimal digits and a hyphen in front.
            head, hyphen, tail = rest.partition("-")
            is_upload = hyphen and len(head) == 8 and all(letter in "0123456789abcdef" for letter in head)
            return f"{stem}/{tail}" if is_upload and "upload" in stem else name
    return None


FORMAT = SegmentFormat(
    "label-studio",
    "Label Studio json with timeline labels",
    (".json",),
    _recognizes,
    _read,
    times="frames from 1, end inclusive; audio: seconds from its start",
)
