"""ELAN: .eaf documents, and the tab-delimited or csv tables that ELAN exports.

A tier is a layer. Times in .eaf are milliseconds of the first linked video, less its time origin. Annotations that
refer to others have their times; subdivisions of one share its time evenly.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from actionprep.datasets.annotations import AnnotatedRow, RowError, SegmentFormat, parse_time
from actionprep.datasets.tables import csv_columns, read_csv

_EXPORT_TIMES = (
    ("Begin Time - msec", "End Time - msec", 1e-3),
    ("Begin Time - ss.msec", "End Time - ss.msec", 1.0),
    ("Begin Time - hh:mm:ss.ms", "End Time - hh:mm:ss.ms", 1.0),
)
_EXPORT_MEDIA = ("File Name", "File Path", "Media", "Clip_name")


def _is_eaf(path: Path, head: str) -> bool:
    return "<ANNOTATION_DOCUMENT" in head


def _read_eaf(path: Path, columns: Mapping[str, str]) -> Iterator[AnnotatedRow | RowError]:
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise ValueError(f"its XML is broken: {error}") from None
    media = root.find("./HEADER/MEDIA_DESCRIPTOR")
    url, origin_s = path.stem, 0.0
    if media is not None:
        url = unquote(media.get("RELATIVE_MEDIA_URL") or media.get("MEDIA_URL") or path.stem)
        origin_s = int(media.get("TIME_ORIGIN") or 0) / 1000
    recording = str(PurePosixPath(url.removeprefix("file://")))
    slots = {
        slot.get("TIME_SLOT_ID"): int(value) / 1000 + origin_s
        for slot in root.iterfind("./TIME_ORDER/TIME_SLOT")
        if (value := slot.get("TIME_VALUE")) is not None
    }
    times = _annotation_times(root, slots)
    for tier in root.iterfind("./TIER"):
        for annotation in tier.iterfind("./ANNOTATION/*"):
            id = annotation.get("ANNOTATION_ID", "")
            label = (annotation.findtext("ANNOTATION_VALUE") or "").strip()
            layer = tier.get("TIER_ID", "")
            if id not in times:
                yield RowError(f"annotation '{id}' ({label}) of tier '{layer}' has no time")
                continue
            onset, offset = times[id]
            yield AnnotatedRow(recording, onset, offset, label, layer=layer, annotator=tier.get("ANNOTATOR", ""))


def _annotation_times(root: ElementTree.Element, slots: Mapping[str | None, float]) -> dict[str, tuple[float, float]]:
    """Onset and offset of every annotation that has them, by id."""
    times: dict[str, tuple[float, float]] = {}
    refers: dict[str, tuple[str, str | None]] = {}
    for annotation in root.iterfind("./TIER/ANNOTATION/*"):
        id = annotation.get("ANNOTATION_ID", "")
        if annotation.tag == "ALIGNABLE_ANNOTATION":
            onset, offset = slots.get(annotation.get("TIME_SLOT_REF1")), slots.get(annotation.get("TIME_SLOT_REF2"))
            if onset is not None and offset is not None:
                times[id] = (onset, offset)
        else:
            refers[id] = (annotation.get("ANNOTATION_REF", ""), annotation.get("PREVIOUS_ANNOTATION"))
    # Those without a predecessor begin a chain: alone it is an association, with followers a subdivision.
    followers = {previous: id for id, (_, previous) in refers.items() if previous is not None}
    waiting = [id for id, (_, previous) in refers.items() if previous is None]
    while waiting:
        ready = [id for id in waiting if refers[id][0] in times]
        if not ready:
            break
        for id in ready:
            chain = [id]
            while chain[-1] in followers and followers[chain[-1]] not in chain:
                chain.append(followers[chain[-1]])
            onset, offset = times[refers[id][0]]
            step = (offset - onset) / len(chain)
            for place, part in enumerate(chain):
                times[part] = (onset + place * step, onset + (place + 1) * step)
        waiting = [id for id in waiting if id not in times]
    return times


def _is_export(path: Path, head: str) -> bool:
    first = head.split("\n", 1)[0]
    return any(onset in first and offset in first for onset, offset, _ in _EXPORT_TIMES)


def _read_export(path: Path, columns: Mapping[str, str]) -> Iterator[AnnotatedRow | RowError]:
    there, rows = read_csv(path)
    found = [times for times in _EXPORT_TIMES if times[0] in there and times[1] in there]
    if not found:
        raise ValueError(f"it needs ELAN's columns of begin and end time; it has {csv_columns(there)}")
    onset, offset, scale = found[0]
    media = columns.get("recording") or next((name for name in _EXPORT_MEDIA if name in there), None)
    layer, label = columns.get("layer", "Tier"), columns.get("label", "Annotation")
    one_a_row = label in there
    tiers = [name for name in there if name and "Time - " not in name and "Duration - " not in name and name != media]
    for line, row in rows:
        try:
            first, last = parse_time(row[onset]) * scale, parse_time(row[offset]) * scale
        except ValueError as error:
            yield RowError(str(error), line)
            continue
        recording = (row.get(media, "") if media else "") or path.stem
        if one_a_row:
            yield AnnotatedRow(recording, first, last, row[label], layer=row.get(layer, ""), line=line)
            continue
        for tier in tiers:
            if row.get(tier, "").strip():
                yield AnnotatedRow(recording, first, last, row[tier], layer=tier, line=line)


DOCUMENT = SegmentFormat("elan", "ELAN document .eaf", (".eaf",), _is_eaf, _read_eaf)
EXPORT = SegmentFormat(
    "elan-export", "ELAN's table export, a column a tier", (".txt", ".csv", ".tsv"), _is_export, _read_export
)
