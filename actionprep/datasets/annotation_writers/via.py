"""Write a project of VIA 3 (json, format 3.1.1): one attribute per layer with the labels as options, seconds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from actionprep.datasets.annotation_writers.writer import AnnotatedVideo, SegmentWriter

_SELECT, _VIDEO, _LOCAL, _URI = 4, 4, 1, 2


def _write(videos: Sequence[AnnotatedVideo], labels: Sequence[str]) -> str:
    layers = sorted({segment.layer for video in videos for segment in video.segments})
    options = {label: str(number) for number, label in enumerate(labels, start=1)}
    attributes = {
        str(number): {
            "aname": layer or "action",
            "anchor_id": "FILE1_Z2_XY0",
            "type": _SELECT,
            "desc": "",
            "options": {option: label for label, option in options.items()},
            "default_option_id": "",
        }
        for number, layer in enumerate(layers, start=1)
    }
    number_of = {layer: str(number) for number, layer in enumerate(layers, start=1)}
    files: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    for number, video in enumerate(videos, start=1):
        source = video.file_name if video.path is None else video.path.as_uri()
        place = _LOCAL if video.path is None else _URI
        files[str(number)] = {"fid": str(number), "fname": video.file_name, "type": _VIDEO, "loc": place, "src": source}
        for index, segment in enumerate(video.on_video_clock(), start=1):
            metadata[f"{number}_{index}"] = {
                "vid": str(number),
                "flg": 0,
                "z": [round(segment.onset, 6), round(segment.offset, 6)],
                "xy": [],
                "av": {number_of[segment.layer]: options[segment.label]},
            }
    document = {
        "project": {
            "pid": "__VIA_PROJECT_ID__",
            "rev": "__VIA_PROJECT_REV_ID__",
            "rev_timestamp": "__VIA_PROJECT_REV_TIMESTAMP__",
            "pname": "actionprep",
            "data_format_version": "3.1.1",
            "creator": "actionprep",
            "created": 0,
            "vid_list": list(files),
        },
        "config": {
            "file": {"loc_prefix": {str(place): "" for place in range(1, 5)}},
            "ui": {"file_content_align": "center"},
        },
        "attribute": attributes,
        "file": files,
        "metadata": metadata,
        "view": {number: {"fid_list": [number]} for number in files},
    }
    return json.dumps(document, ensure_ascii=False) + "\n"


WRITER = SegmentWriter("via", "project of VIA 3", ".json", _write)
