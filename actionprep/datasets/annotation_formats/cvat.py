"""Read CVAT for video 1.1 (xml): tracks as segments.

Frames count from 0 in the video; the last visible frame belongs to the segment. A track is visible until a shape with
`outside="1"`. The label of a track has no layer. Its attributes are layers, with a segment per value.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from actionprep.datasets.annotation_formats.safe_xml import parse_xml
from actionprep.datasets.annotations import AnnotatedRow, RowError, SegmentFormat


@dataclass(frozen=True)
class _Task:
    """A task of CVAT.

    Attributes:
        source: File name of its video; its name if the file does not have one.
        name: Its name.
        step: Every n-th frame is annotated.
    """

    source: str
    name: str
    step: int


def _recognizes(path: Path, head: str) -> bool:
    return "<annotations" in head and ("<track" in head or "<mode>interpolation</mode>" in head or "<task>" in head)


def _read(path: Path, columns: Mapping[str, str]) -> Iterator[AnnotatedRow | RowError]:
    root = parse_xml(path)
    if root.tag != "annotations":
        raise ValueError(f"its root is <{root.tag}>, not <annotations>")
    if root.find("./image") is not None and root.find("./track") is None:
        raise ValueError("it is 'CVAT for images', which has no tracks; export 'CVAT for video 1.1' instead")
    parts = [*root.iterfind("./meta//task"), *root.iterfind("./meta/job")]
    # An export of one task or job has the name of the video beside it.
    source = root.findtext("./meta/source") if len(parts) == 1 else None
    tasks = {part.findtext("id", ""): _task(part, path, source) for part in parts}
    only = next(iter(tasks.values()), None) or _Task(source or path.stem, path.stem, 1)
    for track in root.iterfind("./track"):
        id = track.get("id", "?")
        try:
            yield from _track(track, tasks.get(track.get("task_id", ""), only))
        except (ValueError, KeyError) as error:
            yield RowError(f"track {id} is damaged: {error}")


def _task(task: ElementTree.Element, path: Path, source: str | None) -> _Task:
    name = task.findtext("name") or path.stem
    step = (task.findtext("frame_filter") or "").partition("step=")[2]
    return _Task(task.findtext("source") or source or name, name, max(int(step), 1) if step.isdecimal() else 1)


def _track(track: ElementTree.Element, task: _Task) -> Iterator[AnnotatedRow]:
    label = track.get("label", "")
    shapes = sorted(
        (shape for shape in track if shape.get("frame") is not None), key=lambda shape: int(shape.attrib["frame"])
    )
    frames = [int(shape.attrib["frame"]) for shape in shapes]
    visible: list[tuple[int, int, ElementTree.Element]] = []
    for index, shape in enumerate(shapes):
        if shape.get("outside") != "1":
            end = frames[index + 1] if index + 1 < len(shapes) else frames[index] + task.step
            visible.append((frames[index], end, shape))
    for first, last in _runs([(begin, end, label) for begin, end, _ in visible]):
        yield _row(task, first, last, label, "")
    names = dict.fromkeys(
        attribute.get("name", "") for _, _, shape in visible for attribute in shape.iterfind("./attribute")
    )
    fixed = {attribute.get("name", ""): (attribute.text or "").strip() for attribute in track.iterfind("./attribute")}
    for name in [*names, *(name for name in fixed if name not in names)]:
        current = fixed.get(name, "")
        values: list[tuple[int, int, str]] = []
        for begin, end, shape in visible:
            for attribute in shape.iterfind("./attribute"):
                if attribute.get("name") == name:
                    current = (attribute.text or "").strip()
            values.append((begin, end, current))
        for value in dict.fromkeys(value for _, _, value in values):
            if value:
                for first, last in _runs([attribute for attribute in values if attribute[2] == value]):
                    yield _row(task, first, last, value, name)


def _runs(intervals: list[tuple[int, int, str]]) -> Iterator[tuple[int, int]]:
    """Join intervals that touch."""
    joined: list[list[int]] = []
    for begin, end, _ in intervals:
        if joined and begin <= joined[-1][1]:
            joined[-1][1] = max(end, joined[-1][1])
        else:
            joined.append([begin, end])
    return ((begin, end) for begin, end in joined)


def _row(task: _Task, first: int, last: int, label: str, layer: str) -> AnnotatedRow:
    return AnnotatedRow(task.source, first, last, label, layer=layer, unit="frame", alternatives=((task.name, 0.0),))


FORMAT = SegmentFormat(
    "cvat",
    "CVAT for video 1.1 xml, tracks with labels and attributes",
    (".xml",),
    _recognizes,
    _read,
    times="frames from 0, end inclusive",
)
