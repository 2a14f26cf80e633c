"""The index of a store: keys and attributes of all items in one file, so that a command need not open every item.

The index is derived data. It records how the file system described each folder and each item's zarr.json (inode, size
and time stamps), so that a reader sees by itself what is out of date: after a crash, during a build and after changes by
other programs. A missing, damaged or outdated index is rebuilt by one walk that opens only what has changed.

Format of `.index`: a line with the SHA-256 of everything after it, a line of JSON with folders and keys, and one line of
JSON with the attributes of each item, in the order of the keys.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from actionprep.datasets.paths import name_problem
from actionprep.datasets.store.keys import ItemKey
from actionprep.errors import discard

FILE = ".index"
_FORMAT = 1

# Files that change again within one tick of the file system's clock keep their time stamps, so entries that are this
# young when they are read are read again the next time. Kernels count in steps of 1 to 10 ms, some file systems in 2 s.
_TICK_NS = 30_000_000
_COARSE_TICK_NS = 2_100_000_000
_SECOND_NS = 1_000_000_000


class Signature(NamedTuple):
    """State of a file or folder, as the file system describes it. A change of the content changes it."""

    inode: int
    size: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, path: str) -> Signature | None:
        """Signature of a file or folder, through symbolic links; None where there is none."""
        try:
            status = os.stat(path)
        except OSError:
            return None
        return cls(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    def is_settled(self, taken_ns: int) -> bool:
        """Whether a later change than `taken_ns` would show."""
        coarse = self.changed_ns % _SECOND_NS == 0
        return self.changed_ns < taken_ns - (_COARSE_TICK_NS if coarse else _TICK_NS)


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder above items.

    Attributes:
        signature: Its signature; None where it is not known.
        names: Sorted names in it, without its zarr.json and those that begin with a dot.
        metadata: Signature of its zarr.json.
    """

    signature: Signature | None
    names: tuple[str, ...]
    metadata: Signature | None


@dataclass(slots=True)
class Record:
    """What the index has about one item.

    Attributes:
        key: Product, recording and view.
        signature: Signature of the item's zarr.json; None where it is missing or its content is damaged.
        attributes: Its attributes, or their JSON before they are asked for; None for a damaged item.
    """

    key: ItemKey
    signature: Signature | None
    attributes: dict[str, Any] | bytes | None

    def parsed(self) -> dict[str, Any] | None:
        """Attributes of the item; None for a damaged item."""
        if isinstance(self.attributes, bytes):
            self.attributes = _with_shared_facts(json.loads(self.attributes))
        return self.attributes

    def text(self) -> bytes:
        """Attributes as one line of JSON."""
        if isinstance(self.attributes, bytes):
            return self.attributes
        return json.dumps(self.attributes, separators=(",", ":")).encode()


@dataclass
class Index:
    """Folders and items of a store at one time.

    Attributes:
        taken_ns: When the walk began, in nanoseconds since 1970.
        folders: Folders above items, by their path in the store; "" is the store itself.
        records: Items by their path in the store.
    """

    taken_ns: int
    folders: dict[str, Folder] = field(default_factory=dict)
    records: dict[str, Record] = field(default_factory=dict)

    @classmethod
    def read(cls, root: Path) -> Index | None:
        """Read the index of a store; None where it is missing or not what was written."""
        try:
            content = (root / FILE).read_bytes()
        except OSError:
            return None
        return cls.parse(content)

    @classmethod
    def parse(cls, content: bytes) -> Index | None:
        """Read an index from the content of its file; None if it is not what was written."""
        checksum, _, body = content.partition(b"\n")
        if checksum != hashlib.sha256(body).hexdigest().encode():
            return None
        first, *lines = body.split(b"\n")
        try:
            return cls._parse(json.loads(first), lines)
        except (ValueError, TypeError, KeyError, RecursionError):
            return None

    @classmethod
    def _parse(cls, head: dict[str, Any], lines: list[bytes]) -> Index | None:
        if head["format"] != _FORMAT or len(head["items"]) != len(lines):
            return None
        index = cls(int(head["taken_ns"]))
        for path, signature, names, metadata in head["folders"]:
            if path and name_problem(path):
                return None
            index.folders[path] = Folder(_signature(signature), tuple(map(str, names)), _signature(metadata))
        for (path, product, recording, view, signature), line in zip(head["items"], lines, strict=True):
            if name_problem(path) or path != "/".join(filter(None, (product, recording, view))):
                return None
            index.records[path] = Record(ItemKey(product, recording, view), _signature(signature), line)
            if line == b"null":
                index.records[path].attributes = None
        return index

    def content(self) -> bytes:
        """Content of the file of the index."""
        head = {
            "format": _FORMAT,
            "taken_ns": self.taken_ns,
            "folders": [
                [path, folder.signature, folder.names, folder.metadata] for path, folder in self.folders.items()
            ],
            "items": [[path, *record.key, record.signature] for path, record in self.records.items()],
        }
        parts = [json.dumps(head, separators=(",", ":")).encode(), *(record.text() for record in self.records.values())]
        body = b"\n".join(parts)
        return hashlib.sha256(body).hexdigest().encode() + b"\n" + body

    def write(self, root: Path) -> None:
        """Write the index of a store at once. Where the disk refuses, there is none, and the next reader walks again."""
        draft = root / f"{FILE}.{uuid.uuid4().hex}"
        with suppress(OSError):
            try:
                draft.write_bytes(self.content())
                draft.replace(root / FILE)
            finally:
                discard(draft)

    def is_current(self, root: Path) -> bool:
        """Whether the store still is as the index describes it. Opens no file."""
        for path, folder in self.folders.items():
            place = f"{root}/{path}"
            # The store's own folder changes with its lock and its index.
            settled = path and folder.signature is not None and folder.signature.is_settled(self.taken_ns)
            if not (settled and Signature.of(place) == folder.signature) and _names(place) != folder.names:
                return False
        return all(self._is_current(root, path, record) for path, record in self.records.items())

    def current(self, root: Path, path: str) -> Record | None:
        """Record of the item at a path, if its zarr.json did not change since."""
        record = self.records.get(path)
        return record if record is not None and self._is_current(root, path, record) else None

    def is_folder(self, path: str, metadata: Signature | None) -> bool:
        """Whether a path whose zarr.json has this signature is known as a folder above items."""
        known = self.folders.get(path)
        return known is not None and known.metadata == metadata is not None and metadata.is_settled(self.taken_ns)

    def _is_current(self, root: Path, path: str, record: Record) -> bool:
        return (
            record.signature is not None
            and record.signature.is_settled(self.taken_ns)
            and Signature.of(f"{root}/{path}/zarr.json") == record.signature
        )


_shared: dict[str, Any] = {}


def _with_shared_facts(attributes: Any) -> dict[str, Any]:
    """Replace facts that most items of a product have in common by one object, so that a large store fits into memory."""
    assert isinstance(attributes, dict)
    provenance = attributes.get("provenance")
    if isinstance(provenance, dict):
        for name in ("settings", "identity", "software"):
            if name in provenance:
                provenance[name] = _shared.setdefault(repr(provenance[name]), provenance[name])
    return attributes


def drafts(root: Path) -> Iterator[Path]:
    """Files that interrupted writers of an index left."""
    return root.glob(f"{FILE}.*")


def _signature(values: Any) -> Signature | None:
    return None if values is None else Signature(*map(int, values))


def _names(folder: str) -> tuple[str, ...] | None:
    try:
        return tuple(sorted(name for name in os.listdir(folder) if name[0] != "." and name != "zarr.json"))
    except OSError:
        return None
