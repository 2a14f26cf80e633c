"""Read the json lists of Something-Something V2: clips by number, each with the template that is its class.

The label is the template without square brackets and holds for the full clip. The name of the file gives the split.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from actionprep.datasets.annotations import AnnotatedRow, RowError, SegmentFormat
from actionprep.datasets.tables import read_text


def _recognizes(path: Path, head: str) -> bool:
    return head.lstrip().startswith("[") and '"template"' in head and '"placeholders"' in head


def _read(path: Path, columns: Mapping[str, str]) -> Iterator[AnnotatedRow | RowError]:
    clips = json.loads(read_text(path))
    if not isinstance(clips, list):
        raise ValueError("it must be a list of clips with 'id' and 'template'")
    match = re.search(r"(train|val|test)", path.stem)
    split = match[1] if match is not None else None
    for index, clip in enumerate(clips):
        id, template = (clip.get("id"), clip.get("template")) if isinstance(clip, dict) else (None, None)
        if not isinstance(id, str | int) or not isinstance(template, str) or not template.strip():
            yield RowError(f"clip {index} needs 'id' and 'template'")
            continue
        label = template.replace("[", "").replace("]", "")
        yield AnnotatedRow(str(id), 0.0, 0.0, label, split=split, is_full_clip=True)


FORMAT = SegmentFormat(
    "something-something",
    "Something-Something V2 json: clips with a template",
    (".json",),
    _recognizes,
    _read,
    times="full clips",
)
