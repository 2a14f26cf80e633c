"""Read projects of VIA 3 (json): segments of videos in seconds. An attribute is a layer; options have their names."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from actionprep.datasets.annotation_formats.via import labels_of
from actionprep.datasets.annotations import AnnotatedRow, RowError, SegmentFormat
from actionprep.datasets.tables import read_text


def _recognizes(path: Path, head: str) -> bool:
    return head.lstrip().startswith("{") and '"vid_list"' in head


def _read(path: Path, columns: Mapping[str, str]) -> Iterator[AnnotatedRow | RowError]:
    project = json.loads(read_text(path))
    parts = {
        key: project.get(key) if isinstance(project, dict) else None
        for key in ("attribute", "file", "view", "metadata")
    }
    missing = [key for key, part in parts.items() if not isinstance(part, dict)]
    if missing:
        raise ValueError(f"it has no {' and '.join(map(repr, missing))}, as projects of VIA 3 have")
    for id, entry in (parts["metadata"] or {}).items():
        try:
            if len(entry["z"]) == 2:  # regions in space and single time points are not segments
                yield from _entry(entry, parts)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
            yield RowError(f"segment '{id}' is damaged: {error!r}")


def _entry(entry: Mapping[str, Any], parts: Mapping[str, Any]) -> Iterator[AnnotatedRow | RowError]:
    onset, offset = (float(time) for time in entry["z"])
    files = [parts["file"][str(file)] for file in parts["view"][str(entry["vid"])]["fid_list"]]
    names = [str(name) for file in files for name in (file.get("fname"), file.get("src")) if name]
    for id, value in entry["av"].items():
        attribute = parts["attribute"].get(id)
        layer = str(id) if attribute is None else str(attribute.get("aname", id))
        try:
            labels = labels_of(str(value), attribute)
        except KeyError as error:
            yield RowError(f"attribute '{layer}' has no option {error}")
            continue
        for label in labels:
            yield AnnotatedRow(
                names[0], onset, offset, label, layer=layer, alternatives=tuple((name, 0.0) for name in names[1:])
            )


FORMAT = SegmentFormat(
    "via-project",
    "project of VIA 3 (json)",
    (".json",),
    _recognizes,
    _read,
    times="seconds from the start of the video",
)
