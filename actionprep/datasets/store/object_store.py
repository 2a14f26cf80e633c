"""A store in an S3 bucket. Its items become visible, complete, when one object is written last."""

from __future__ import annotations

import hashlib
import re
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from actionprep.datasets.store.index import FILE, Index, Signature
from actionprep.datasets.store.keys import Damage, ItemKey
from actionprep.datasets.store.lock import Lock
from actionprep.datasets.store.metadata import (
    group_text,
    group_text_with_checksum,
    item_attributes,
    looks_like_item,
    parse_metadata,
    root_text,
)
from actionprep.datasets.store.object_files import ObjectFiles
from actionprep.datasets.store.object_lock import NAME as LOCK
from actionprep.datasets.store.object_lock import ObjectLock
from actionprep.datasets.store.reader import DATA, DamagedItemError
from actionprep.datasets.store.writer import ItemWriter
from actionprep.datasets.store.zarr_store import Group, Mark, Snapshot, Store
from actionprep.errors import SetupError, UserError, discard, explained_disk_errors
from actionprep.settings import canonical_json

_MARKS = ".partial"
_FOLDER = group_text({}).encode()
_METADATA = "zarr.json"


class ObjectMark:
    """An object that exists while a task runs, and stays if its process dies.

    A traceback cannot be uploaded by a process that ends, so it is in a temporary file. The builder finds it if the task ran
    on its machine.
    """

    def __init__(self, files: ObjectFiles, name: str) -> None:
        self._files, self.name = files, name
        self._traceback = Path(tempfile.gettempdir()) / f"actionprep-{uuid.uuid4().hex}"

    def __fspath__(self) -> str:
        """Path of the temporary file."""
        return str(self._traceback)

    def exists(self) -> bool:
        """Whether it exists."""
        return self._files.exists(f"{_MARKS}/{self.name}")

    def touch(self) -> None:
        """Create it."""
        self._files.write(f"{_MARKS}/{self.name}", b"")

    def unlink(self, missing_ok: bool = False) -> None:
        """Delete it."""
        discard(self._traceback)
        self._files.delete([f"{_MARKS}/{self.name}"])


class ObjectStore(Store):
    """A store at s3://BUCKET/FOLDER.

    An object store cannot move an item into place, so the arrays of an item are written under a name that is used once,
    `.data/ID`. The item's zarr.json names this place and is written last: a reader sees the old item or the new one. Arrays
    that no item names are left from an interrupted writer. The next owner of the lock deletes them.

    A store that was copied to the bucket from a disk has its arrays below its items and is read as well.
    """

    _files: ObjectFiles

    def __init__(self, url: str | Path, *, create: bool = False, check_root: bool = True) -> None:
        """Open a store; see `Store`."""
        self._folders: set[str] = set()
        super().__init__(url, create=create, check_root=check_root)

    def _files_at(self, url: str) -> ObjectFiles:
        return ObjectFiles(url)

    def _create_root(self) -> None:
        if not self._files.exists(_METADATA):
            self._files.write(_METADATA, root_text().encode())

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_folders": set()}

    def require_writable(self) -> None:
        """Do nothing: items can be written."""

    def lock(self) -> Lock:
        """Return the lock of the store, for `hold`."""
        return ObjectLock(self._files)

    def mark(self, name: str) -> Mark:
        """Return a mark with this name, which shows that a task is running."""
        return ObjectMark(self._files, name)

    def snapshot(self) -> Snapshot:
        """Read keys and attributes of all items at once; see `Store.snapshot`.

        The bucket is listed, and metadata that the index does not have in this state are read.
        """
        before = self._index
        if before is None:
            content = self._files.read(FILE)
            before = None if content is None else Index.parse(content)
        index = self._walked(before)
        if before is None or (before.records, before.folders) != (index.records, index.folders):
            # Like on a disk that refuses the index, the next reader only has more to read.
            with suppress(SetupError):
                self._files.write(FILE, index.content())
        self._index = index
        return Snapshot(self, index)

    @contextmanager
    def write(
        self, product: str, recording: str, view: str = "", *, fingerprint: str, provenance: dict[str, Any]
    ) -> Iterator[ItemWriter]:
        """Write an item. It appears complete when the block ends without an error, and replaces an older one.

        The item is written to a temporary folder of this machine and uploaded. Its metadata is uploaded last.

        Raises:
            LockLostError: If another builder took over the lock of `claimed`.
            SetupError: If the storage or the temporary folder reports an error, or if the store was removed.
        """
        key = ItemKey(product, recording, view)
        self._check_path(key.path)
        with (
            explained_disk_errors(Path(tempfile.gettempdir())),
            tempfile.TemporaryDirectory("", "actionprep-") as folder,
        ):
            draft = Path(folder)
            item = ItemWriter(draft)
            yield item
            digest = item.close()
            data = f"{DATA}/{uuid.uuid4().hex}"
            attributes = {
                **self._attributes_of(item, key, digest=digest, fingerprint=fingerprint, provenance=provenance),
                "data": data,
            }
            (draft / _METADATA).write_bytes(_FOLDER)
            self._files.upload(draft, data)
            self._commit_object(key, data, group_text_with_checksum(attributes).encode())

    def _commit_object(self, key: ItemKey, data: str, metadata: bytes) -> None:
        path = f"{key.path}/{_METADATA}"
        replaced = self._data_of(self._files.read(path))
        self._make_folders(key.path)
        if self._claim is not None:
            self._claim.require_held()
        if not self._files.exists(_METADATA):
            raise SetupError(
                f"The store {self.url} was removed during the build: its zarr.json no longer exists.\n"
                "Restore it, or run the same command again to build a new store."
            )
        if not self._files.exists(f"{data}/{_METADATA}"):
            raise SetupError(
                f"Another program deleted {self.url}/{data} while it was written.\n"
                f"Do not touch {self.url}/{DATA} during a build. Committed items are complete; run the same command again."
            )
        self._files.write(path, metadata)
        # What an item of another place or form has left below this one is hidden by it.
        self._files.delete_below(key.path, keep=path)
        if replaced is not None and replaced != data:
            self._files.delete_below(replaced)
        self._readers.pop(key, None)

    def _make_folders(self, path: str) -> None:
        """Write the metadata of every folder above an item, so that plain Zarr sees the full hierarchy.

        An item at the path of a folder, from a catalog in which a recording had another id, is replaced by the folder.
        """
        parts = path.split("/")[:-1]
        for count in range(len(parts), 0, -1):
            folder = "/".join(parts[:count])
            if folder not in self._folders:
                self._files.write(f"{folder}/{_METADATA}", _FOLDER)
                self._folders.add(folder)

    def remove(self, key: ItemKey) -> None:
        """Delete an item; raises UserError if the store has no such item."""
        self._readers.pop(key, None)
        if self.metadata(key) is None:
            raise UserError(self._no_item(key))
        path = f"{key.path}/{_METADATA}"
        data = self._data_of(self._files.read(path))
        # First what makes it an item, so that an interruption leaves no part of one.
        self._files.delete([path])
        self._files.delete_below(key.path)
        if data is not None:
            self._files.delete_below(data)

    def clear_partial(self) -> None:
        """Delete data that no item names, and marks of dead tasks; only the holder of the build lock may call this."""
        snapshot = self.snapshot()
        used = set()
        for key in snapshot.items():
            with suppress(DamagedItemError):
                used.add((snapshot.metadata(key) or {}).get("data"))
        for name in self._files.all_folders(DATA):
            if f"{DATA}/{name}" not in used:
                self._files.delete_below(f"{DATA}/{name}")
        self._files.delete_below(_MARKS)
        self._files.delete(name for name in self._files.names("") if name.startswith(f"{LOCK}."))

    def digest(self) -> str:
        """Return one hash of all content, which equals that of a local build; see `Store.digest`."""
        digests = sorted(
            [group.path, str(item_attributes(group.raw, group.path)["digest"])]
            for group in self._walk()
            if group.is_item
        )
        return hashlib.sha256(canonical_json(digests).encode()).hexdigest()

    def repair_folders(self, damage: Iterable[Damage]) -> None:
        """Rewrite the metadata of damaged folders and of the root. The caller must hold the build lock."""
        for each in damage:
            if each.is_folder:
                text = group_text({}) if each.key.path else root_text()
                self._files.write(each.place, text.encode())

    def _walk(self, path: str = "", *, known: Index | None = None) -> Iterator[Group]:
        """Yield the group at a path and those below it, down to items; metadata is read by several requests at a time.

        Args:
            path: Path to start at.
            known: An index. Metadata that has not changed since is not read.
        """
        listed = self._listed(path)
        children: dict[str, list[str]] = {path: []}
        others: dict[str, set[str]] = {}
        for name in listed:
            folder, _, file = name.rpartition("/")
            if file != _METADATA:
                others.setdefault(folder, set()).add(file)
            while folder not in children:
                children[folder] = []
                folder = folder.rpartition("/")[0]
        for folder in sorted(children):
            if folder != path:
                children[folder.rpartition("/")[0]].append(folder)
        pending = [path]
        while pending:
            batch, pending = pending, []
            yield from self._level(batch, children, others, listed, known, pending)

    def _listed(self, path: str) -> dict[str, Signature]:
        if path:
            return self._files.signatures(path)
        # By product, because the arrays in .data are many more objects.
        listed = {}
        root = self._files.signature(_METADATA)
        if root is not None:
            listed[_METADATA] = root
        for product in self._files.folders(""):
            listed.update(self._files.signatures(product))
        return listed

    def _level(
        self,
        batch: list[str],
        children: dict[str, list[str]],
        others: dict[str, set[str]],
        listed: dict[str, Signature],
        known: Index | None,
        pending: list[str],
    ) -> Iterator[Group]:
        """Yield the groups of one depth, and add the folders below those that are no items to `pending`."""
        known = known or Index(0)
        states = {folder: listed.get(_below(folder, _METADATA)) for folder in batch}
        contents: dict[str, bytes | None] = {}
        unread, unchanged = [], []
        for folder, state in states.items():
            record, parent = known.records.get(folder), known.folders.get(folder)
            if state is not None and record is not None and record.signature == state:
                unchanged.append(record)
            elif state is not None and parent is not None and parent.metadata == state:
                contents[folder] = _FOLDER
            elif state is None:
                contents[folder] = None
            else:
                unread.append(folder)
        for record in unchanged:
            yield Group("/".join(filter(None, record.key)), None, None, True, record=record)
        paths = [_below(folder, _METADATA) for folder in unread]
        contents.update(zip(unread, self._files.read_many(paths), strict=True))
        for folder, raw in sorted(contents.items()):
            document, state = parse_metadata(raw), states[folder]
            if "/" in folder and self._is_item(raw, document, children[folder]):
                yield Group(folder, raw, document, True, signature=state)
                continue
            names = {child.rpartition("/")[2] for child in children[folder]} | others.get(folder, set())
            shown = tuple(sorted(name for name in names if name[0] != "."))
            yield Group(folder, raw, document, False, shown, state)
            pending += [child for child in children[folder] if child.rpartition("/")[2][0] != "."]

    def _is_item(self, raw: bytes | None, document: dict[str, Any] | None, children: list[str]) -> bool:
        """Whether a group is an item, also one with damaged metadata: it is no folder, and nothing is below it."""
        if raw == _FOLDER:
            return False
        if looks_like_item(document) or (raw is not None and not children):
            return True
        return any(self._is_array(child, self._files.read(_below(child, _METADATA))) for child in children)

    def _holds_arrays(self, path: str) -> bool:
        raw = self._files.read(_below(path, _METADATA))
        return (raw is not None and raw != _FOLDER and not self._files.folders(path)) or super()._holds_arrays(path)

    def _data_of(self, raw: bytes | None) -> str | None:
        """Place of the arrays that the metadata of an item names."""
        document = parse_metadata(raw)
        data = None if document is None else document["attributes"].get("data")
        return data if isinstance(data, str) and re.fullmatch(rf"{re.escape(DATA)}/[0-9a-f]{{32}}", data) else None


def _below(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name
