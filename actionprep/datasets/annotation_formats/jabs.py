"""Read labels of JABS (json): blocks of frames per animal and behavior.

Frames count from 0 and the last one is included. An animal is a layer. Blocks in which the behavior is marked as absent
have the label "not " and its name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from actionprep.datasets.annotations import AnnotatedRow, RowError, SegmentFormat
from actionprep.datasets.tables import read_text


def _recognizes(path: Path, head: str) -> bool:
    return head.lstrip().startswith("{") and '"num_frames"' in head and '"labels"' in head


def _read(path: Path, columns: Mapping[str, str]) -> Iterator[AnnotatedRow | RowError]:
    document = json.loads(read_text(path))
    tracks = document.get("unfragmented_labels") or document.get("labels") if isinstance(document, dict) else None
    if not isinstance(tracks, dict):
        raise ValueError("it has no 'labels' by animal, as label files of JABS have")
    name = str(document.get("file", path.stem))
    for animal, behaviors in tracks.items():
        try:
            for behavior, blocks in behaviors.items():
                for block in blocks:
                    label = str(behavior) if block["present"] else f"not {behavior}"
                    yield AnnotatedRow(
                        name, int(block["start"]), int(block["end"]) + 1, label, layer=str(animal), unit="frame"
                    )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            yield RowError(f"labels of animal '{animal}' are damaged: {error!r}")


FORMAT = SegmentFormat(
    "jabs", "labels of JABS (json)", (".json",), _recognizes, _read, times="frames from 0, end inclusive"
)
