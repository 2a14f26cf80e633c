"""Read .eaf documents of ELAN.

A tier is a layer. Times in .eaf are milliseconds that begin where the linked file begins, or TIME_ORIGIN before that.
Annotations that refer to another one have its times; several that refer to one share its time evenly. Time slots
without a value lie evenly between their neighbors on the tier, as ELAN shows them. An annotation without a value has
the name of its tier as label.
"""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from actionprep.datasets.annotation_formats.safe_xml import parse_xml
from actionprep.datasets.annotations import AnnotatedRow, RowError, SegmentFormat

_SOUND = (".wav", ".mp3", ".m4a", ".aac", ".flac", ".ogg", ".aif", ".aiff", ".wma")


def _is_eaf(path: Path, head: str) -> bool:
    return "<ANNOTATION_DOCUMENT" in head


def _read_eaf(path: Path, columns: Mapping[str, str]) -> Iterator[AnnotatedRow | RowError]:
    root = parse_xml(path)
    header = root.find("./HEADER")
    unit = "milliseconds" if header is None else header.get("TIME_UNITS") or "milliseconds"
    if unit != "milliseconds":
        raise ValueError(f"its times are in {unit}; set milliseconds in ELAN and save it again")
    (recording, origin_s), *others = _linked_files(root) or [(path.stem, 0.0)]
    times = _annotation_times(root)
    for tier in root.iterfind("./TIER"):
        layer = tier.get("TIER_ID", "")
        for annotation in tier.iterfind("./ANNOTATION/*"):
            id = annotation.get("ANNOTATION_ID", "")
            label = (annotation.findtext("ANNOTATION_VALUE") or "").strip()
            if id not in times:
                yield RowError(f"annotation '{id}' ({label}) of tier '{layer}' has no time")
                continue
            onset, offset = times[id]
            yield AnnotatedRow(
                recording,
                onset + origin_s,
                offset + origin_s,
                label or layer,
                layer=layer,
                annotator=tier.get("ANNOTATOR", ""),
                label_from_layer=not label,
                alternatives=tuple((name, origin - origin_s) for name, origin in others),
            )


def _linked_files(root: ElementTree.Element) -> list[tuple[str, float]]:
    """Names of the linked files, each with the time in it at which the document begins, in s: videos before sound.

    A file may have two names: relative to the document, and the full path on the annotator's machine.
    """
    names: list[tuple[bool, str, float]] = []
    for medium in root.iterfind("./HEADER/MEDIA_DESCRIPTOR"):
        origin_s = int(medium.get("TIME_ORIGIN") or 0) / 1000
        for key in ("RELATIVE_MEDIA_URL", "MEDIA_URL"):
            if url := medium.get(key):
                name = str(PurePosixPath(unquote(url).removeprefix("file://")))
                is_sound = medium.get("MIME_TYPE", "").startswith("audio/") or name.lower().endswith(_SOUND)
                names.append((is_sound, name, origin_s))
    return [(name, origin_s) for _, name, origin_s in sorted(names, key=lambda entry: entry[0])]


def _slot_times(root: ElementTree.Element) -> dict[str, float]:
    """Times of the time slots in s; those without a value lie evenly between the neighbors that their tier uses."""
    order: dict[str, int] = {}
    times: dict[str, float] = {}
    for slot in root.iterfind("./TIME_ORDER/TIME_SLOT"):
        id = slot.get("TIME_SLOT_ID", "")
        order[id] = len(order)
        if (value := slot.get("TIME_VALUE")) is not None:
            times[id] = int(value) / 1000
    for tier in _parents_first(root):
        used = {
            annotation.get(key, "")
            for annotation in tier.iterfind("./ANNOTATION/ALIGNABLE_ANNOTATION")
            for key in ("TIME_SLOT_REF1", "TIME_SLOT_REF2")
        }
        slots = sorted(used.intersection(order), key=lambda id: order[id])
        timed = [index for index, id in enumerate(slots) if id in times]
        for first, last in itertools.pairwise(timed):
            onset, offset = times[slots[first]], times[slots[last]]
            for index in range(first + 1, last):
                times[slots[index]] = onset + (offset - onset) * (index - first) / (last - first)
    return times


def _parents_first(root: ElementTree.Element) -> list[ElementTree.Element]:
    """Tiers with each parent before its children, because a subdivision takes its ends from the parent."""
    tiers = root.findall("./TIER")
    parents = {tier.get("TIER_ID"): tier.get("PARENT_REF") for tier in tiers}

    def depth(tier: ElementTree.Element) -> int:
        above: set[str] = set()
        name = parents[tier.get("TIER_ID")]
        while name is not None and name not in above:
            above.add(name)
            name = parents.get(name)
        return len(above)

    return sorted(tiers, key=depth)


def _annotation_times(root: ElementTree.Element) -> dict[str, tuple[float, float]]:
    """Onset and offset in s of every annotation that has them, by id."""
    slots = _slot_times(root)
    times: dict[str, tuple[float, float]] = {}
    refers: dict[str, tuple[str, str | None]] = {}
    for annotation in root.iterfind("./TIER/ANNOTATION/*"):
        id = annotation.get("ANNOTATION_ID", "")
        if annotation.tag == "ALIGNABLE_ANNOTATION":
            ends = annotation.get("TIME_SLOT_REF1", ""), annotation.get("TIME_SLOT_REF2", "")
            if ends[0] in slots and ends[1] in slots:
                times[id] = (slots[ends[0]], slots[ends[1]])
        else:
            refers[id] = (annotation.get("ANNOTATION_REF", ""), annotation.get("PREVIOUS_ANNOTATION"))
    # An annotation without a predecessor begins a chain: alone it is an association, with followers a subdivision.
    followers = {previous: id for id, (_, previous) in refers.items() if previous is not None}
    waiting = [id for id, (_, previous) in refers.items() if previous is None]
    while waiting:
        ready = [id for id in waiting if refers[id][0] in times]
        if not ready:
            break
        for id in ready:
            chain = {id: None}
            while (follower := followers.get(next(reversed(chain)))) is not None and follower not in chain:
                chain[follower] = None
            onset, offset = times[refers[id][0]]
            step = (offset - onset) / len(chain)
            for index, part in enumerate(chain):
                times[part] = (onset + index * step, onset + (index + 1) * step)
        waiting = [id for id in waiting if id not in times]
    return times


DOCUMENT = SegmentFormat(
    "elan",
    "ELAN document .eaf",
    (".eaf",),
    _is_eaf,
    _read_eaf,
    times="milliseconds from the start of the linked file, or TIME_ORIGIN before it",
)
