"""Items that failed because of their input, each a small JSON file that says why."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from actionprep.datasets.paths import below, no_link
from actionprep.datasets.store.zarr_store import ItemKey
from actionprep.errors import InputError, explained_disk_errors

NO_FILE = "no file"
"""Backend of the entries of files that were not there: a disk that comes back mends them."""


@dataclass(frozen=True)
class QuarantineEntry:
    """Why one item could not be made; it is tried again when its fingerprint changes, or on request."""

    product: str
    recording: str
    view: str
    reason: str
    frame: int | None
    backend: str | None
    fingerprint: str
    since: float


class Quarantine:
    """The folder of quarantine entries of a study."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, key: ItemKey) -> QuarantineEntry | None:
        """The entry of one item; None too for one that was cut short or damaged: the item is tried again."""
        return _read(self._path(key))

    def add(self, key: ItemKey, problem: InputError, *, fingerprint: str) -> None:
        """Note that an item failed."""
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
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = no_link(path.with_suffix(".draft"))
            draft.write_text(json.dumps(asdict(entry), indent=1), encoding="utf-8")
            draft.replace(path)

    def clear(self, key: ItemKey) -> None:
        """Forget an entry: the item was made."""
        with explained_disk_errors(self._folder):
            self._path(key).unlink(missing_ok=True)

    def __iter__(self) -> Iterator[QuarantineEntry]:
        for path in sorted(self._folder.rglob("*.json")):
            entry = _read(path)
            if entry is not None:
                yield entry

    def _path(self, key: ItemKey) -> Path:
        return below(self._folder, f"{key.path}.json")


def _read(path: Path) -> QuarantineEntry | None:
    try:
        found = json.loads(path.read_bytes())
        entry = QuarantineEntry(**found)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError, TypeError, RecursionError):
        return None
    texts = (entry.product, entry.recording, entry.view, entry.reason, entry.fingerprint)
    sound = (
        all(isinstance(value, str) for value in texts)
        and (entry.backend is None or isinstance(entry.backend, str))
        and (entry.frame is None or (type(entry.frame) is int and entry.frame >= 0))
        and type(entry.since) in (int, float)
        and abs(entry.since) < 1e12
    )
    return entry if sound else None
