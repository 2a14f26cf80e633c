"""The registry of annotation writers. Nothing is imported until a writer is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actionprep.registry import Entry, Registry

if TYPE_CHECKING:
    from actionprep.datasets.annotation_writers.writer import SegmentWriter

_FOLDER = "actionprep.datasets.annotation_writers"

SEGMENT_WRITERS: Registry[SegmentWriter] = Registry(
    "annotation writer",
    "actionprep.annotation_writers",
    (
        Entry("activitynet", f"{_FOLDER}.activitynet:WRITER", "ActivityNet json, one file"),
        Entry("boris", f"{_FOLDER}.boris:WRITER", "project of BORIS, one file"),
        Entry("csv", f"{_FOLDER}.plain_csv:WRITER", "table of segments in seconds, one file"),
        Entry("cvat", f"{_FOLDER}.cvat:WRITER", "CVAT for video 1.1, a file per recording"),
        Entry("eaf", f"{_FOLDER}.elan:WRITER", "document of ELAN, a file per recording"),
        Entry("feral", f"{_FOLDER}.feral:WRITER", "FERAL json with a class per frame, one file"),
        Entry("frames", f"{_FOLDER}.frame_table:WRITER", "DeepEthogram table, a row per frame, a file per recording"),
        Entry("labelstudio", f"{_FOLDER}.label_studio:WRITER", "tasks of Label Studio with timeline labels, one file"),
        Entry("via", f"{_FOLDER}.via:WRITER", "project of VIA 3, one file"),
        Entry("vtrace", f"{_FOLDER}.vtrace:WRITER", "table of V-TRACE, a file per recording"),
    ),
    plural="Formats",
    instance_of="actionprep.datasets.annotation_writers.writer:SegmentWriter",
)
"""Annotation writers by the word of `actionprep export`."""
