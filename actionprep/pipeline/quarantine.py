"""Quarantine: items that failed because of their input, one small JSON file with the reason per item."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from actionprep.datasets.atomic_files import write_text
from actionprep.datasets.paths import below
from actionprep.datasets.store.keys import ItemKey
from actionprep.errors import InputError, explained_disk_errors

NO_FILE = "no file"
"""Backend of the entries of missing files, which are retried when the disk is available again."""


@dataclass(frozen=True)
class QuarantineEntry:
    """Reason why an item failed. The item is retried when its fingerprint changes, or on request."""

    product: str
    recording: str
    view: str
    reason: str
    frame: int | None
    backend: str | None
    fingerprint: str
    since: float


class Quarantine:
    """Folder with the quarantine entries of a study."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, key: ItemKey) -> QuarantineEntry | None:
        """Return the entry of an item; None if it has none, or if the entry is damaged, so that the item is retried."""
        return _read(self._path(key))

    def add(self, key: ItemKey, problem: InputError, *, fingerprint: str) -> None:
        """Record that an item failed."""
        entry = QuarantineEntry(
            key.product,
            key.recording,
            key.view,
            problem.reason,
            problem.frame,
            problem.backend,
            fingerprint,
            time.time(),
        )
        path = self._path(key)
        with explained_disk_errors(self._folder):
            write_text(path, json.dumps(asdict(entry), indent=1))

    def clear(self, key: ItemKey) -> None:
        """Remove the entry of an item that was built."""
        with explained_disk_errors(self._folder):
            self._path(key).unlink(missing_ok=True)

    def __iter__(self) -> Iterator[QuarantineEntry]:
        for path in sorted(self._folder.rglob("[!.]*.json")):
            entry = _read(path)
            if entry is not None:
                yield entry

    def _path(self, key: ItemKey) -> Path:
        return below(self._folder, f"{key.path}.json")


def _read(path: Path) -> QuarantineEntry | None:
    try:
        values = json.loads(path.read_bytes())
        entry = QuarantineEntry(**values)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError, TypeError, RecursionError):
        return None
    texts = (entry.product, entry.recording, entry.view, entry.reason, entry.fingerprint)
    is_valid = (
        all(isinstance(value, str) for value in texts)
        and (entry.backend is None or isinstance(entry.backend, str))
        and (entry.frame is None or (type(entry.frame) is int and entry.frame >= 0))
        and type(entry.since) in (int, float)
        and abs(entry.since) < 1e12
    )
    return entry if is_valid else None
