"""Read TinyVIRAT json: tubes, each a clip with one or several labels that hold for the full clip.

`classes.txt` beside the file, or study.segment_classes, lists the labels that exist. The name of the file gives the split.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from actionprep.datasets.annotation_formats.class_names import ClassNames, find_class_names
from actionprep.datasets.annotations import AnnotatedRow, RowError, SegmentFormat
from actionprep.datasets.tables import read_text

_CLASSES = "classes.txt"


def _recognizes(path: Path, head: str) -> bool:
    return re.match(r'\s*\{\s*"tubes"\s*:', head) is not None


def _read(classes: Path | None, path: Path, columns: Mapping[str, str]) -> Iterator[AnnotatedRow | RowError]:
    document = json.loads(read_text(path))
    tubes = document.get("tubes") if isinstance(document, dict) else None
    if not isinstance(tubes, list):
        raise ValueError("it must be an object with a list 'tubes'")
    names = ClassNames.read(classes) if classes is not None else find_class_names(path, (_CLASSES,))
    known = None if names is None else set(names.by_number.values())
    match = re.search(r"(?:^|_)(train|val|test)(?:_|$)", path.stem)
    split = match[1] if match is not None else None
    for index, tube in enumerate(tubes):
        name = tube.get("path") if isinstance(tube, dict) else None
        labels = tube.get("label") if isinstance(tube, dict) else None
        labels = [labels] if isinstance(labels, str) else labels
        if (
            not isinstance(name, str)
            or not isinstance(labels, list)
            or not all(isinstance(item, str) for item in labels)
        ):
            yield RowError(f"tube {index} needs 'path' and 'label'")
            continue
        unknown = [label for label in labels if known is not None and label not in known]
        if unknown:
            yield RowError(f"tube {index} ({name}): label '{unknown[0]}' is not in the file of class names")
            continue
        others = () if split is None else ((f"{split}/{name}", 0.0), (f"videos/{split}/{name}", 0.0))
        for label in labels:
            yield AnnotatedRow(name, 0.0, 0.0, label, split=split, is_full_clip=True, alternatives=others)


FORMAT = SegmentFormat(
    "tinyvirat",
    "TinyVIRAT json: clips with one or several labels",
    (".json",),
    _recognizes,
    functools.partial(_read, None),
    times="full clips",
)
FORMAT = replace(
    FORMAT, class_files=(_CLASSES,), with_classes=lambda path: replace(FORMAT, read=functools.partial(_read, path))
)
