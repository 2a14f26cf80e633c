"""Count how often the metadata files of a store are opened."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_counts: Counter[str] | None = None


def _note_open(event: str, arguments: tuple[Any, ...]) -> None:
    if _counts is not None and event == "open" and str(arguments[0]).endswith("zarr.json"):
        _counts[str(arguments[0])] += 1


# An audit hook cannot be removed, so there is one for all tests.
sys.addaudithook(_note_open)


@contextmanager
def metadata_reads(store: str | Path) -> Iterator[Counter[str]]:
    """How often each zarr.json of a store is opened in the block, by its path in the store."""
    global _counts
    counts: Counter[str] = Counter()
    _counts = Counter()
    try:
        yield counts
    finally:
        opened, _counts = _counts, None
        root = Path(store).resolve()
        for name, count in opened.items():
            if Path(name).resolve().is_relative_to(root):
                counts[Path(name).resolve().relative_to(root).as_posix()] += count
