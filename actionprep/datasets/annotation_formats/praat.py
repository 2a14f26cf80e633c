"""Read TextGrid files of Praat, long or short form. Tiers are layers; seconds from the start of the sound or video.

Intervals without text are no segments. The points of a point tier are point events.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path

from actionprep.datasets.annotations import AnnotatedRow, RowError, SegmentFormat
from actionprep.datasets.tables import read_text

_TOKEN = re.compile(r'"((?:[^"]|"")*)"|([-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)')
_INDEX = re.compile(r"\[\d*\]")


def _recognizes(path: Path, head: str) -> bool:
    return 'File type = "ooTextFile"' in head and "TextGrid" in head


def _read(path: Path, columns: Mapping[str, str]) -> Iterator[AnnotatedRow | RowError]:
    text = read_text(path)
    if "TextGrid" not in text[:200]:
        raise ValueError("it does not begin with 'File type = \"ooTextFile\"' and '\"TextGrid\"'")
    tokens = deque(_tokens(text))
    try:
        for _ in range(2):  # file type and object class
            tokens.popleft()
        for _ in range(2):  # start and end
            _number(tokens.popleft())
        for _ in range(int(_number(tokens.popleft()))):
            kind, layer = str(tokens.popleft()), str(tokens.popleft())
            _number(tokens.popleft()), _number(tokens.popleft())
            for _ in range(int(_number(tokens.popleft()))):
                yield from _entry(tokens, kind, layer, path.stem)
    except IndexError:
        yield RowError("the file ends before its last tier is complete")


def _entry(tokens: deque[str | float], kind: str, layer: str, name: str) -> Iterator[AnnotatedRow]:
    onset = _number(tokens.popleft())
    offset = _number(tokens.popleft()) if kind == "IntervalTier" else onset
    label = str(tokens.popleft()).strip()
    if label:
        yield AnnotatedRow(name, onset, offset, label, layer=layer, is_point=kind != "IntervalTier")


def _tokens(text: str) -> Iterator[str | float]:
    """Texts and numbers in the order of the file; numbers in brackets count tiers and are left out."""
    outside = re.split(r'("(?:[^"]|"")*")', text)
    for part in outside:
        for match in _TOKEN.finditer(part if part.startswith('"') else _INDEX.sub("", part)):
            yield match[1].replace('""', '"') if match[1] is not None else float(match[2])


def _number(token: str | float) -> float:
    if not isinstance(token, float):
        raise ValueError(f"expected a number, got the text '{token[:40]}'")
    return token


FORMAT = SegmentFormat(
    "praat",
    "TextGrid of Praat",
    (".textgrid",),
    _recognizes,
    _read,
    times="seconds from the start of the sound or video",
)
