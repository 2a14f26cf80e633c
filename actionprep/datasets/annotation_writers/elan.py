"""Write documents of ELAN (.eaf, format 3.0): one tier per layer and annotator, milliseconds on the video's clock.

Annotations of a tier cannot overlap in ELAN. Where segments of a layer do, each label gets its own tier.
"""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from collections.abc import Sequence

from actionprep.datasets.annotation_writers.writer import AnnotatedVideo, SegmentWriter, check_no_overlap
from actionprep.datasets.segments import Segment
from actionprep.errors import UserError

_UNNAMED = "actions"


def _write(videos: Sequence[AnnotatedVideo], labels: Sequence[str]) -> str:
    (video,) = videos
    root = ElementTree.Element(
        "ANNOTATION_DOCUMENT",
        {
            "AUTHOR": "actionprep",
            "DATE": "1970-01-01T00:00:00+00:00",
            "FORMAT": "3.0",
            "VERSION": "3.0",
            "xmlns:xsi": "http://www.w3.org/2001/XMLSchema-instance",
            "xsi:noNamespaceSchemaLocation": "http://www.mpi.nl/tools/elan/EAFv3.0.xsd",
        },
    )
    header = ElementTree.SubElement(root, "HEADER", {"MEDIA_FILE": "", "TIME_UNITS": "milliseconds"})
    url = video.file_name if video.path is None else video.path.as_uri()
    ElementTree.SubElement(
        header,
        "MEDIA_DESCRIPTOR",
        {"MEDIA_URL": url, "MIME_TYPE": "video/mp4", "RELATIVE_MEDIA_URL": f"./{video.file_name}"},
    )
    order = ElementTree.SubElement(root, "TIME_ORDER")
    tiers = _tiers(video)
    times = sorted(
        {_milliseconds(time) for own in tiers.values() for segment in own for time in (segment.onset, segment.offset)}
    )
    slot_of = {time: f"ts{number}" for number, time in enumerate(times, start=1)}
    for time, slot in slot_of.items():
        if time < 0:
            raise UserError(
                f"ELAN has no times before the video: recording '{video.recording}' has a segment at {time} ms of "
                f"{video.file_name}. Export to csv, or export another view with --views."
            )
        ElementTree.SubElement(order, "TIME_SLOT", {"TIME_SLOT_ID": slot, "TIME_VALUE": str(time)})
    numbers = itertools.count(1)
    for (name, annotator), own in tiers.items():
        attributes = {"LINGUISTIC_TYPE_REF": "default-lt", "TIER_ID": name}
        tier = ElementTree.SubElement(root, "TIER", attributes | ({"ANNOTATOR": annotator} if annotator else {}))
        for segment in own:
            begin, end = _milliseconds(segment.onset), _milliseconds(segment.offset)
            annotation = ElementTree.SubElement(
                ElementTree.SubElement(tier, "ANNOTATION"),
                "ALIGNABLE_ANNOTATION",
                {
                    "ANNOTATION_ID": f"a{next(numbers)}",
                    "TIME_SLOT_REF1": slot_of[begin],
                    "TIME_SLOT_REF2": slot_of[end],
                },
            )
            ElementTree.SubElement(annotation, "ANNOTATION_VALUE").text = segment.label
    ElementTree.SubElement(
        root,
        "LINGUISTIC_TYPE",
        {"GRAPHIC_REFERENCES": "false", "LINGUISTIC_TYPE_ID": "default-lt", "TIME_ALIGNABLE": "true"},
    )
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _tiers(video: AnnotatedVideo) -> dict[tuple[str, str], list[Segment]]:
    """Segments on the video's clock by name of the tier and annotator."""
    layers: dict[tuple[str, str], list[Segment]] = defaultdict(list)
    for segment in video.on_video_clock():
        layers[segment.layer or _UNNAMED, segment.annotator].append(segment)
    shared = {layer for layer, _ in layers if sum(other == layer for other, _ in layers) > 1}
    tiers: dict[tuple[str, str], list[Segment]] = {}
    for (layer, annotator), own in sorted(layers.items()):
        name = f"{layer}@{annotator}" if layer in shared else layer
        own.sort(key=lambda segment: segment.onset)
        overlap = any(
            _milliseconds(after.onset) < _milliseconds(before.offset) for before, after in itertools.pairwise(own)
        )
        if not overlap:
            tiers[name, annotator] = own
            continue
        check_no_overlap(video, tool="ELAN", per_label=True)
        for label in sorted({segment.label for segment in own}):
            tiers[f"{name}: {label}", annotator] = [segment for segment in own if segment.label == label]
    return tiers


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


WRITER = SegmentWriter("eaf", "document of ELAN, one per recording", ".eaf", _write, one_file=False)
