"""Write a project of BORIS (format 7.0): one observation per recording, a state event per segment.

Times are seconds from the start of the video. Layers become subjects, as annotations of several animals have one layer
for each. The annotator is in the comment of the events, and the subject of the recording in its description.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from actionprep.datasets.annotation_writers.writer import AnnotatedVideo, SegmentWriter, check_no_overlap

_DATE = "1970-01-01T00:00:00"


def _write(videos: Sequence[AnnotatedVideo], labels: Sequence[str]) -> str:
    subjects = sorted({segment.layer for video in videos for segment in video.segments} - {""})
    document = {
        "time_format": "hh:mm:ss",
        "project_date": _DATE,
        "project_name": "",
        "project_description": "",
        "project_format_version": "7.0",
        "subjects_conf": {
            str(index): {"key": "", "name": name, "description": ""} for index, name in enumerate(subjects)
        },
        "behaviors_conf": {
            str(index): {
                "type": "State event",
                "key": "",
                "code": label,
                "description": "",
                "category": "",
                "modifiers": {},
                "excluded": "",
                "coding map": "",
            }
            for index, label in enumerate(labels)
        },
        "behavioral_categories": [],
        "independent_variables": {},
        "coding_map": {},
        "behaviors_coding_map": [],
        "converters": {},
        "observations": {video.recording: _observation(video) for video in videos},
    }
    return json.dumps(document, ensure_ascii=False, indent=1) + "\n"


def _observation(video: AnnotatedVideo) -> dict[str, Any]:
    check_no_overlap(video, tool="BORIS", per_label=True)
    name = video.file_name if video.path is None else str(video.path)
    media = {str(player): [] if player > 1 else [name] for player in range(1, 9)}
    events: list[list[Any]] = [
        [round(time, 6), segment.layer, segment.label, "", segment.annotator]
        for segment in video.on_video_clock()
        for time in (segment.onset, segment.offset)
    ]
    ordered = sorted(events, key=lambda event: event[0])
    return {
        "file": media,
        "type": "MEDIA",
        "date": _DATE,
        "description": video.subject,
        "time offset": 0.0,
        "events": ordered,
        "independent_variables": {},
        "visualize_spectrogram": False,
        "close_behaviors_between_videos": False,
        "media_info": {
            "length": {name: round(video.duration_s, 6)},
            "fps": {name: video.fps},
            "hasVideo": {name: True},
            "hasAudio": {name: False},
            "offset": {"1": 0.0},
        },
    }


WRITER = SegmentWriter("boris", "project of BORIS", ".boris", _write)
