"""Write CVAT for video 1.1 (xml): one track per segment, with a box of the full frame from its first to its last frame.

CVAT has no intervals without a shape. Frames count from 0; the shape of the last frame is kept, and the next frame has
`outside="1"`.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence

from actionprep.datasets.annotation_writers.writer import AnnotatedVideo, SegmentWriter


def _write(videos: Sequence[AnnotatedVideo], labels: Sequence[str]) -> str:
    (video,) = videos
    width, height = video.size
    count = len(video.frame_times)
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    task = ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task")
    facts = {
        "name": video.recording,
        "size": count,
        "mode": "interpolation",
        "overlap": 0,
        "start_frame": 0,
        "stop_frame": max(count - 1, 0),
        "source": video.relative,
    }
    for name, value in facts.items():
        ElementTree.SubElement(task, name).text = str(value)
    names = ElementTree.SubElement(task, "labels")
    for label in labels:
        entry = ElementTree.SubElement(names, "label")
        ElementTree.SubElement(entry, "name").text = label
        ElementTree.SubElement(entry, "attributes")
    size = ElementTree.SubElement(task, "original_size")
    ElementTree.SubElement(size, "width").text = str(width)
    ElementTree.SubElement(size, "height").text = str(height)
    number = 0
    for segment in video.segments:
        first, last = video.frames_of(segment)
        if first == last:
            continue  # no frame begins in it
        track = ElementTree.SubElement(root, "track", {"id": str(number), "label": segment.label, "source": "manual"})
        number += 1
        frames = [first] if last - first == 1 else [first, last - 1]
        for frame in frames:
            _box(track, frame, width, height, outside=False)
        if last < count:
            _box(track, last, width, height, outside=True)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _box(track: ElementTree.Element, frame: int, width: int, height: int, *, outside: bool) -> None:
    attributes = {
        "frame": str(frame),
        "outside": str(int(outside)),
        "occluded": "0",
        "keyframe": "1",
        "xtl": "0.00",
        "ytl": "0.00",
        "xbr": f"{width:.2f}",
        "ybr": f"{height:.2f}",
        "z_order": "0",
    }
    ElementTree.SubElement(track, "box", attributes)


WRITER = SegmentWriter(
    "cvat", "CVAT for video 1.1, one file per recording", ".xml", _write, one_file=False, counts="frame"
)
