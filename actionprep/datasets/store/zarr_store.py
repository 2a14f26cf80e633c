"""The store: a Zarr v3 hierarchy of items, each complete or absent."""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from actionprep.datasets.atomic_files import write_text
from actionprep.datasets.paths import below, name_problem
from actionprep.datasets.store.digest import ContentHash
from actionprep.datasets.store.files import LocalFiles, RemoteFiles, StoreFiles
from actionprep.datasets.store.index import Folder, Index, Record, Signature, drafts
from actionprep.datasets.store.keys import Damage, ItemKey, join_path
from actionprep.datasets.store.local_folders import (
    check_links,
    clear_drafts,
    delete,
    is_like_an_item,
    sync,
    sync_tree,
)
from actionprep.datasets.store.lock import BuildLock, Claim, Lock
from actionprep.datasets.store.metadata import (
    CHECKSUM,
    SCHEMA,
    DamagedStore,
    group_text,
    group_text_with_checksum,
    item_attributes,
    looks_like_item,
    names_path,
    parse_metadata,
    root_schema,
    root_text,
)
from actionprep.datasets.store.reader import DamagedItemError, ItemReader
from actionprep.datasets.store.writer import ItemWriter, array_digest
from actionprep.errors import SetupError, UserError, explained_disk_errors, name_list
from actionprep.settings import canonical_json

_PARTIAL = ".partial"
_FOLDER = group_text({}).encode()


@dataclass(frozen=True)
class Group:
    """An item or a folder, with the bytes of its zarr.json (None where it has none) and their content.

    Attributes:
        path: Path in the store.
        raw: Bytes of its zarr.json; None where it has none, or for an item that the index knows.
        document: Content of its zarr.json.
        is_item: Whether it is an item, sound or damaged.
        names: Sorted names in a folder, without its zarr.json.
        signature: Signature of its zarr.json before it was read.
        record: What an earlier index has about an item that did not change since.
    """

    path: str
    raw: bytes | None
    document: dict[str, Any] | None
    is_item: bool
    names: tuple[str, ...] = ()
    signature: Signature | None = None
    record: Record | None = None

    @property
    def key(self) -> ItemKey:
        """Key of an item; the path of a folder in its parts."""
        if self.record is not None:
            return self.record.key
        named: Any = (self.document or {"attributes": {}})["attributes"].get("item")
        if names_path(named, self.path):
            return ItemKey(**named)
        product, _, rest = self.path.partition("/")
        recording, _, view = rest.rpartition("/")
        return ItemKey(product, recording, view) if recording else ItemKey(product, rest)


class Mark(Protocol):
    """A file that exists while a task runs, and stays if its process dies."""

    @property
    def name(self) -> str:
        """Its name."""

    def __fspath__(self) -> str:
        """Path of a file of this machine, which receives the traceback if the task hangs."""

    def exists(self) -> bool:
        """Whether it exists."""

    def touch(self) -> None:
        """Create it."""

    def unlink(self, missing_ok: bool = False) -> None:
        """Delete it."""


class Store:
    """A store on a local disk, or a read-only store at an fsspec URL; `ObjectStore` writes to s3:// as well.

    An item is identified by its path in the store; metadata that names another path is damage. Symbolic links to folders
    above the items are followed, so a product may be on another disk. Links inside an item are damage. Nothing is written
    to or deleted from another store through a link.

    Raises:
        UserError: If there is no store at this path, or if a newer version wrote it.
        DamagedStore: If the metadata of its root is damaged.
    """

    def __init__(self, url: str | Path, *, create: bool = False, check_root: bool = True) -> None:
        """Open a store.

        Args:
            url: Folder, file:// URL, or another URL that zarr-python opens (gs://…, zip::FILE).
            create: Whether to create a store if the folder has none.
            check_root: Whether to raise DamagedStore; False opens a store with a damaged root, for `verify`.
        """
        self.url = without_file_scheme(str(url))
        self.path = None if "://" in self.url or "::" in self.url else Path(self.url)
        self._files = self._files_at(self.url)
        self._readers: dict[ItemKey, ItemReader] = {}
        self._claim: Claim | None = None
        self._index: Index | None = None
        if create:
            self._create_root()
        try:
            self._schema = self._read_schema()
        except DamagedStore:
            if check_root:
                raise
            self._schema = SCHEMA

    def _files_at(self, url: str) -> StoreFiles:
        return RemoteFiles(url) if self.path is None else LocalFiles(self.path)

    def _create_root(self) -> None:
        if self.path is not None and not (self.path / "zarr.json").exists():
            with explained_disk_errors(self.path):
                self.path.mkdir(parents=True, exist_ok=True)
                write_text(self.path / "zarr.json", root_text())

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_readers": {}, "_index": None}

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    def items(self, product: str | None = None) -> list[ItemKey]:
        """List the keys of all committed items, sorted, including damaged ones.

        Args:
            product: Only items of this product, or of several joined by "+".
        """
        return self.snapshot().items(product)

    def snapshot(self) -> Snapshot:
        """Read keys and attributes of all items at once, from the index.

        A command takes one snapshot and works on it, so that it sees one state of the store and opens no file twice. An
        index that is missing or out of date is rebuilt first; only files that have changed are opened.
        """
        if self.path is None:
            return Snapshot(self, self._walked(None))
        before = Index.read(self.path) if self._index is None else self._index
        if before is None or not before.is_current(self.path):
            before = self._walked(before)
            before.write(self.path)
        self._index = before
        return Snapshot(self, before)

    def _walked(self, before: Index | None) -> Index:
        """Walk the store and describe it.

        Args:
            before: An earlier index. Items that did not change since are not opened.
        """
        index, root = Index(time.time_ns()), self.path
        for group in self._walk(known=before or Index(0)):
            if not group.is_item:
                folder = None if root is None else Signature.of(f"{root}/{group.path}")
                index.folders[group.path] = Folder(folder, group.names, group.signature)
            elif group.record is not None:
                index.records[group.path] = group.record
            else:
                key, signature = group.key, group.signature
                attributes = None
                with suppress(DamagedItemError):
                    attributes = item_attributes(group.raw, group.path)
                index.records[group.path] = Record(key, None if attributes is None else signature, attributes)
        return index

    def _walked_items(self) -> list[ItemKey]:
        """List the keys of all committed items from the items themselves, sorted; `verify` does not trust the index."""
        return sorted(group.key for group in self._walk() if group.is_item)

    def intact(self, keys: Iterable[ItemKey]) -> list[ItemKey]:
        """Select the committed items with intact metadata; only metadata is read."""
        snapshot, intact = self.snapshot(), []
        for key in keys:
            with suppress(DamagedItemError):
                if snapshot.metadata(key) is not None:
                    intact.append(key)
        return intact

    def without_checksum(self) -> list[ItemKey]:
        """List items of schema 1. Their metadata has no checksum, so its damage cannot be detected."""
        snapshot = self.snapshot()
        return [key for key in snapshot.intact(snapshot.items()) if CHECKSUM not in (snapshot.metadata(key) or {})]

    def products(self) -> list[str]:
        """List the products that have items."""
        return sorted({key.product for key in self.items()})

    def has(self, product: str, recording: str, view: str = "") -> bool:
        """Return whether an item is committed; raises DamagedItemError if its metadata is damaged."""
        return self.metadata(ItemKey(product, recording, view)) is not None

    def fingerprint(self, key: ItemKey) -> str | None:
        """Return the fingerprint of a committed item, else None. Raises DamagedItemError like `metadata`."""
        attributes = self.metadata(key)
        return None if attributes is None else str(attributes["fingerprint"])

    def item(self, product: str, recording: str, view: str = "") -> ItemReader:
        """Open an item. Readers are cached.

        Raises:
            UserError: If the item is not committed; the message lists the available items.
            DamagedItemError: If its metadata is damaged.
        """
        key = ItemKey(product, recording, view)
        reader = self._readers.get(key)
        if reader is None:
            attributes = self._current_metadata(key)
            if attributes is None:
                raise UserError(self._no_item(key))
            while len(self._readers) >= 256:  # limits the number of open mapped files
                self._readers.pop(next(iter(self._readers)))
            reader = self._readers[key] = ItemReader(key.path, self._files, attributes)
        return reader

    def require_local(self) -> Path:
        """Return the folder of the store; raises UserError for a URL, which is read-only."""
        if self.path is None:
            raise UserError(
                f"The store {self.url} is read-only. Set 'store' under [study] in actionprep.toml to a folder of this "
                "machine or to s3://BUCKET/FOLDER, or build in a folder and copy it to the URL."
            )
        return self.path

    def require_writable(self) -> None:
        """Raise UserError for a store that is read-only."""
        self.require_local()

    def lock(self) -> Lock:
        """Return the lock of the store, for `hold`; raises UserError for a store that is read-only."""
        return BuildLock(self.require_local() / ".lock")

    def mark(self, name: str) -> Mark:
        """Return a mark with this name, which shows that a task is running."""
        return self.require_local().resolve() / _PARTIAL / name

    def forget_readers(self) -> None:
        """Reopen items on their next use, because another process may have replaced them."""
        self._readers.clear()

    @contextmanager
    def claimed(self, claim: Claim | None) -> Iterator[None]:
        """Commit items within the block only while this lock is held."""
        before, self._claim = self._claim, claim
        try:
            yield
        finally:
            self._claim = before

    @contextmanager
    def write(
        self, product: str, recording: str, view: str = "", *, fingerprint: str, provenance: dict[str, Any]
    ) -> Iterator[ItemWriter]:
        """Write an item. It appears complete when the block ends without an error, and replaces an older one.

        The item is written under a temporary name, synced and moved into place.

        Raises:
            LockLostError: If another builder took over the lock of `claimed`.
            SetupError: If the disk reports an error, or if the store was removed.
        """
        key = ItemKey(product, recording, view)
        path = self.require_local()
        with explained_disk_errors(path), self._explained_removal():
            draft = self._aside(self._own_place(key))
            draft.mkdir()
            try:
                item = ItemWriter(draft)
                yield item
                digest = item.close()
                attributes = self._attributes_of(
                    item, key, digest=digest, fingerprint=fingerprint, provenance=provenance
                )
                (draft / "zarr.json").write_text(group_text_with_checksum(attributes))
                sync_tree(draft)
                if self._claim is not None:
                    self._claim.require_held()
                self._commit(draft, key)
            finally:
                shutil.rmtree(draft, ignore_errors=True)

    @staticmethod
    def _attributes_of(
        item: ItemWriter, key: ItemKey, *, digest: str, fingerprint: str, provenance: dict[str, Any]
    ) -> dict[str, Any]:
        """Attributes of an item that has been written."""
        return {
            "arrays": item.array_metadata,
            "digest": digest,
            "fingerprint": fingerprint,
            "item": {"product": key.product, "recording": key.recording, "view": key.view},
            "nbytes": item.nbytes,
            "provenance": provenance,
            "stage": item.attributes,
        }

    @contextmanager
    def _explained_removal(self) -> Iterator[None]:
        """Explain files that disappear during a write: a new owner of the lock deletes the drafts of others."""
        assert self.path is not None
        self._require_root()
        try:
            yield
        except FileNotFoundError as error:
            if self._claim is not None:
                self._claim.require_held()
            self._require_root()
            if error.filename is not None and str(self.path / _PARTIAL) in os.fsdecode(error.filename):
                raise SetupError(
                    f"Another program deleted {os.fsdecode(error.filename)} while it was written.\n"
                    f"Do not touch {self.path / _PARTIAL} during a build. Committed items are complete; run the same "
                    "command again."
                ) from error
            raise

    def _require_root(self) -> None:
        assert self.path is not None
        if not (self.path / "zarr.json").exists():
            raise SetupError(
                f"The store {self.path} was removed during the build: its zarr.json no longer exists.\n"
                "Restore it, or run the same command again to build a new store."
            )

    def remove(self, key: ItemKey) -> None:
        """Delete an item. If the item is a link, only the link is deleted.

        Raises:
            UserError: If the store has no such item.
        """
        path = self.require_local()
        self._readers.pop(key, None)
        with explained_disk_errors(path):
            place = self._own_place(key)
            if self.metadata(key) is None:
                raise UserError(self._no_item(key))
            grave = self._aside(place)
            place.rename(grave)
            delete(grave)

    def clear_partial(self) -> None:
        """Delete the drafts of dead writers; only the holder of the build lock may call this.

        Drafts on other disks are found below the folders of the last snapshot of this store.
        """
        if self.path is None:
            return
        partial = self.path / _PARTIAL
        if partial.is_dir() or partial.is_symlink():  # the next write reports a file in its place
            delete(partial)
        for draft in drafts(self.path):
            draft.unlink(missing_ok=True)
        for folder in self.snapshot().folders() if self._index is None else self._index.folders:
            partial = self.path / folder / _PARTIAL
            if partial.is_dir():
                clear_drafts(partial)

    def digest(self) -> str:
        """Return one hash of all content. Equal builds have equal hashes, for any workers, order and interruptions.

        Raises:
            DamagedItemError: If the metadata of an item is damaged.
        """
        digests = sorted([key.path, str((self.metadata(key) or {})["digest"])] for key in self._walked_items())
        return hashlib.sha256(canonical_json(digests).encode()).hexdigest()

    def nbytes(self) -> dict[str, int]:
        """Return the bytes of array content by product; items with damaged metadata do not count."""
        sizes: dict[str, int] = {}
        snapshot = self.snapshot()
        for key in snapshot.intact(snapshot.items()):
            sizes[key.product] = sizes.get(key.product, 0) + int((snapshot.metadata(key) or {})["nbytes"])
        return dict(sorted(sizes.items()))

    def verify(self, keys: list[ItemKey] | None = None) -> Iterator[tuple[ItemKey, Damage | None]]:
        """Read every item (or those of `keys`) in full and compare it with its checksums and digest.

        Without `keys`, the metadata of the root and of folders is checked as well.

        Yields:
            Every item with its damage or None, and every damaged folder.
        """
        if keys is None:
            for damage in self._folder_damage():
                yield damage.key, damage
        for key in Store._walked_items(self) if keys is None else keys:
            try:
                attributes = self._checked_attributes(key)
                self._refuse_links(key)
                prove_item(ItemReader(key.path, self._files, attributes))
            except DamagedItemError as error:
                yield key, Damage(key, str(error))
            else:
                yield key, None

    def lost(self) -> Iterator[Damage]:
        """Yield items with damaged metadata."""
        for key in Store._walked_items(self):
            try:
                self._checked_attributes(key)
            except DamagedItemError as error:
                yield Damage(key, str(error))

    def repair_folders(self, damage: Iterable[Damage]) -> None:
        """Rewrite the metadata of damaged folders and of the root. The caller must hold the build lock.

        Raises:
            UserError: If a link leads into another store or to another path of this one.
        """
        path = self.require_local()
        with explained_disk_errors(path):
            for each in damage:
                if each.is_folder:
                    text = group_text({}) if each.key.path else root_text()
                    write_text(self._own_path(each.place), text)

    def _no_item(self, key: ItemKey) -> str:
        others = self.items(key.product)
        if not others:
            return (
                f"The store {self.url} has no product '{key.product}'. It has {', '.join(self.products()) or 'nothing yet'}."
                f"\nBuild it with 'actionprep build {key.product}' in the study folder."
            )
        views = [other.view for other in others if other.recording == key.recording]
        if views:
            listed = ", ".join(views)
            return f"No '{key.product}' of view '{key.view}' of recording '{key.recording}'. It has views {listed}."
        available = name_list(sorted({other.recording for other in others}))
        return f"No '{key.product}' of recording '{key.recording}' in {self.url}. Available: {available}."

    def metadata(self, key: ItemKey) -> dict[str, Any] | None:
        """Return the attributes of a committed item (fingerprint, digest, nbytes, provenance, stage), else None.

        Raises:
            DamagedItemError: If they differ from what was written.
            UserError: If the key is not a valid name of an item.
            SetupError: If a symbolic link on the path is broken.
        """
        try:
            return self._checked_attributes(key)
        except DamagedItemError as error:
            if self._is_alias(key.path):
                return None
            document = parse_metadata(self._files.read(f"{key.path}/zarr.json"))
            if not looks_like_item(document) and not self._holds_arrays(key.path):
                return None  # nothing, or a folder on the way to items
            raise DamagedItemError(f"{error} Run 'actionprep verify --repair' to rebuild it.") from None

    def _current_metadata(self, key: ItemKey) -> dict[str, Any] | None:
        """Return the current attributes of a committed item, to open it."""
        return self.metadata(key)

    def _checked_attributes(self, key: ItemKey) -> dict[str, Any]:
        self._check_path(key.path)
        raw = self._files.read(f"{key.path}/zarr.json")
        if raw is None and self.path is not None:
            check_links(self.path, self.path / key.path)
        return item_attributes(raw, key.path)

    def _check_path(self, path: str) -> None:
        """Raise UserError for a path that leads out of the store."""
        if self.path is not None:
            below(self.path, path, follow_links=True)
        elif problem := name_problem(path):
            raise UserError(f"{path!r:.80} cannot name an item below the store {self.url}: {problem}.")

    def _is_alias(self, path: str) -> bool:
        """Whether a path is a symbolic link to another path of this store, which owns the content."""
        if self.path is None:
            return False
        root, real = Path(os.path.realpath(self.path)), Path(os.path.realpath(self.path / path))
        return real.is_relative_to(root) and real != root / path

    def _is_inside(self, path: str) -> bool:
        """Whether no symbolic link on a path leads out of the store."""
        return self.path is None or Path(os.path.realpath(self.path / path)).is_relative_to(os.path.realpath(self.path))

    def _own_place(self, key: ItemKey) -> Path:
        """Return the folder of an item that will be written or deleted.

        Raises:
            UserError: If a link on the path leads into another store or to another path of this one.
            SetupError: If a link on the path is broken.
        """
        place = self._own_path(key.path)
        is_other = os.path.lexists(place) and not (place.is_symlink() or is_like_an_item(place))
        if is_other and not self._is_inside(key.path):
            raise UserError(
                f"The place of {key} in {self.url} is, through a symbolic link, {os.path.realpath(place)}, which is not an "
                "item of the store. It is not replaced: move it away, or delete the link."
            )
        return place

    def _own_path(self, name: str) -> Path:
        """Return the path of a file or folder that will be written or deleted, from its path in the store.

        Raises:
            UserError: If a link on the path leads into another store or to another path of this one.
            SetupError: If a link on the path is broken.
        """
        self._check_path(name)
        root = self.require_local()
        place, real_root = root / name, Path(os.path.realpath(root))
        check_links(root, place.parent)
        real = Path(os.path.realpath(place.parent))
        if real == real_root / Path(name).parent:
            return place
        if self._is_inside(Path(name).parent.as_posix()):
            raise UserError(
                f"The place of {name} in {self.url} is, through a symbolic link, that of "
                f"{(real / place.name).relative_to(real_root)}. Delete the link: each item needs a separate folder."
            )
        for folder in (real, *real.parents):
            if b'"actionprep_schema"' in (LocalFiles(folder).read("zarr.json") or b""):
                raise UserError(
                    f"The place of {name} in {self.url} is, through a symbolic link, in another store, {folder}. Nothing is "
                    "written or deleted there: work in that store's own study, or replace the link by a folder."
                )
        return place

    def _aside(self, place: Path) -> Path:
        """Return a new temporary path for an item, on the same disk as `place`."""
        assert self.path is not None
        base = folder = self.path
        device = folder.stat().st_dev
        for name in place.parent.relative_to(self.path).parts:
            folder = folder / name
            if not folder.is_dir():
                break
            if folder.is_symlink() or folder.stat().st_dev != device:
                base, device = folder, folder.stat().st_dev
        partial = base / _PARTIAL
        if partial.is_symlink():
            partial.unlink()
        partial.mkdir(exist_ok=True)
        return partial / f"{os.getpid()}-{uuid.uuid4().hex}"

    def _refuse_links(self, key: ItemKey) -> None:
        """Raise DamagedItemError if an item contains a link, because its content may differ from what was committed."""
        if self.path is None:
            return
        for folder, names, files in os.walk(self.path / key.path):
            for name in (*names, *files):
                if os.path.islink(os.path.join(folder, name)):
                    raise DamagedItemError(f"Damaged item {key}: {os.path.join(folder, name)} is a symbolic link.")

    def _walk(self, path: str = "", *, known: Index | None = None) -> Iterator[Group]:
        """Yield the group at a path and those below it, down to items, through symbolic links to folders.

        Args:
            path: Path to start at.
            known: An index. Items and folders that have not changed since are not opened.
        """
        root = self.path
        if path:
            self._check_path(path)
            if self._is_alias(path):
                yield from (group for group in self._walk() if f"{group.path}/".startswith(f"{path}/"))
                return

        def read(folder: str) -> tuple[Signature | None, bytes | None]:
            name = join_path(folder, "zarr.json")
            # Read before the content, so that a file replaced in between counts as changed.
            signature = None if known is None or root is None else Signature.of(f"{root}/{name}")
            is_known = known is not None and known.is_folder(folder, signature)
            return signature, _FOLDER if is_known else self._files.read(name)

        ahead: dict[str, tuple[Signature | None, bytes | None]] = {}
        for folder, names, files in self._files.walk(path):
            shown = tuple(sorted([*names, *(name for name in files if name[0] != "." and name != "zarr.json")]))
            signature, raw = ahead.pop(folder) if folder in ahead else read(folder)
            document = parse_metadata(raw)
            is_item = "/" in folder and looks_like_item(document)
            records = {}
            if known is not None and root is not None and folder and not is_item:
                children = [join_path(folder, name) for name in names]
                current = ((child, known.current(root, child)) for child in children)
                records = {child: record for child, record in current if record and not self._is_link(child)}
                names[:] = [name for name in names if join_path(folder, name) not in records]
            if "/" in folder and not is_item:
                content = {join_path(folder, name): read(join_path(folder, name)) for name in names}
                # An item that lost its metadata.
                is_item = any(self._is_array(at, raw) and not self._is_link(at) for at, (_, raw) in content.items())
                ahead.update({} if is_item else content)
            if is_item:
                names.clear()
                files.clear()
                yield Group(folder, raw, document, True, signature=signature)
            else:
                yield Group(folder, raw, document, False, shown, signature)
                for child, record in records.items():
                    yield Group(child, None, None, True, record=record)

    def _holds_arrays(self, path: str) -> bool:
        below_it = [join_path(path, name) for name in self._files.folders(path)]
        return any(
            self._is_array(place, self._files.read(f"{place}/zarr.json")) and not self._is_link(place)
            for place in below_it
        )

    def _is_array(self, path: str, raw: bytes | None) -> bool:
        document = parse_metadata(raw)
        if raw is None or document is not None:
            return document is not None and document.get("node_type") == "array"
        # The folder of an array's chunks has no metadata; a view may be called "c".
        return "c" in self._files.folders(path) and self._files.read(f"{path}/c/zarr.json") is None

    def _is_link(self, path: str) -> bool:
        return self.path is not None and (self.path / path).is_symlink()

    def _folder_damage(self) -> list[Damage]:
        """Damaged metadata of the root and of folders.

        Folders without items are not the store's if they have no metadata, or if they are behind a link out of it.
        """
        damaged: dict[str, Damage] = {}
        used = {""}
        for group in self._walk():
            if group.is_item:
                used.update(parent.as_posix() for parent in PurePosixPath(group.path).parents)
            elif not self._is_sound(group):
                reason = f"Damaged folder: {join_path(group.path, 'zarr.json')} is not what was written."
                damaged[group.path] = Damage(group.key, reason, is_folder=True)
                if group.raw is not None and self._is_inside(group.path):
                    used.add(group.path)
        return [damage for path, damage in damaged.items() if path in used]

    def _is_sound(self, folder: Group) -> bool:
        if folder.path:
            return folder.raw == group_text({}).encode()
        try:
            schema = root_schema(folder.raw or b"", self.url)
        except DamagedStore:
            return False
        return folder.raw == root_text(schema).encode()

    def _commit(self, draft: Path, key: ItemKey) -> None:
        assert self.path is not None
        place = self._own_place(key)
        self._clear_way(place.parent)
        self._make_groups(place.parent)
        if self._schema < SCHEMA:
            write_text(self.path / "zarr.json", root_text())
            self._schema = SCHEMA
        replaced = self._aside(place)
        while True:
            try:
                draft.rename(place)
                break
            except OSError as error:
                # ENOTDIR: a link or a file lies where the item belongs.
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                    raise
                place.rename(replaced)
        sync(place.parent)
        delete(replaced)
        self._readers.pop(key, None)

    def _clear_way(self, folder: Path) -> None:
        """Remove an item at the path of a folder, from a catalog in which a recording had another id.

        A new item is never hidden inside an old one. Items below the path of the new one are removed with its commit.
        """
        assert self.path is not None
        stale = None
        while folder != self.path:
            metadata = parse_metadata(self._files.read((folder / "zarr.json").relative_to(self.path).as_posix()))
            if metadata is not None and (
                metadata.get("node_type") == "array" or "digest" in metadata.get("attributes", {})
            ):
                stale = folder
            folder = folder.parent
        if stale is not None:
            stale.rename(self._aside(stale))
            self._readers.clear()

    def _make_groups(self, folder: Path) -> None:
        """Write group metadata for every folder down to this one, so that plain Zarr sees the full hierarchy."""
        assert self.path is not None
        folder.mkdir(parents=True, exist_ok=True)
        while folder != self.path:
            if not (folder / "zarr.json").exists():
                write_text(folder / "zarr.json", group_text({}))
            folder = folder.parent

    def _read_schema(self) -> int:
        raw = self._files.read("zarr.json")
        if raw is None:
            advice = "" if self.path is None else " Make one with 'actionprep build' in a study folder."
            raise UserError(f"No store at {self.url}.{advice}")
        schema = root_schema(raw, self.url)
        if schema > SCHEMA:
            raise UserError(
                f"The store {self.url} was written with schema {schema}; this actionprep knows schemas up to {SCHEMA}.\n"
                "Update with: pip install --upgrade actionprep"
            )
        return schema


class Snapshot(Store):
    """A store at one time, for reading: keys and attributes come from memory, arrays from the disk.

    `Store.snapshot` makes it. An item that was replaced since is opened as it is now.
    """

    def __init__(self, store: Store, index: Index) -> None:
        """Describe a store by an index that is current."""
        self.url, self.path, self._files = store.url, store.path, store._files
        self._schema, self._claim, self._index = store._schema, None, index
        self._readers = store._readers
        self._keys = {record.key: path for path, record in index.records.items()}

    def __reduce__(self) -> tuple[Callable[[str], Store], tuple[str]]:
        from actionprep.datasets.store.opening import open_zarr_store

        return open_zarr_store, (self.url,)

    def snapshot(self) -> Snapshot:
        """Return this snapshot."""
        return self

    def folders(self) -> list[str]:
        """Paths of the folders above items; "" is the store itself."""
        assert self._index is not None
        return list(self._index.folders)

    def items(self, product: str | None = None) -> list[ItemKey]:
        """Keys of all items, sorted, damaged ones included; see `Store.items`."""
        if product is None:
            return [key for keys in self._by_product.values() for key in keys]
        if "+" in product:
            return sorted(key for part in product.split("+") for key in self.items(part))
        if product not in self._by_product:
            self._check_path(product)
        return list(self._by_product.get(product, ()))

    @functools.cached_property
    def _by_product(self) -> dict[str, list[ItemKey]]:
        """Keys of each product, products and keys sorted."""
        by_product: dict[str, list[ItemKey]] = {}
        for key in sorted(self._keys):
            by_product.setdefault(key.product, []).append(key)
        return by_product

    def products(self) -> list[str]:
        """List the products that have items."""
        return list(self._by_product)

    def metadata(self, key: ItemKey) -> dict[str, Any] | None:
        """Attributes of an item, else None; see `Store.metadata`."""
        assert self._index is not None
        path = self._keys.get(key)
        if path is None:
            self._check_path(key.path)
            return None
        attributes = self._index.records[path].parsed()
        return super().metadata(key) if attributes is None else attributes

    def _current_metadata(self, key: ItemKey) -> dict[str, Any] | None:
        assert self._index is not None
        path = self._keys.get(key)
        record = None if path is None else self._index.records[path]
        if record is None or self._files.signature(f"{key.path}/zarr.json") != record.signature:
            return super().metadata(key)
        return self.metadata(key)

    def _walked_items(self) -> list[ItemKey]:
        return self.items()

    def _own_path(self, name: str) -> Path:
        raise RuntimeError(f"A snapshot of a store is read-only; write {name} through the Store.")


def without_file_scheme(url: str) -> str:
    """Return the path of a file:// URL; other URLs and paths unchanged."""
    from urllib.parse import unquote, urlsplit

    if not url.startswith("file://"):
        return url
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise UserError(f"The store {url} names the host '{parts.netloc}'. Write file:///PATH, with three slashes.")
    return unquote(parts.path)


def prove_item(item: ItemReader) -> None:
    """Raise DamagedItemError if an array or the list of arrays differs from what was written."""
    digests = {}
    for name in item:
        array = item[name]
        values = ContentHash()
        step = max(1, (64 << 20) // max(1, array.nbytes // max(1, len(array))))
        for start in range(0, len(array), step):
            values.update(array[start : start + step])
        digests[name] = array_digest(values.hexdigest(), array.shape, array.dtype, array.axes, array.unit)
    digest = hashlib.sha256(canonical_json([digests, item.attributes]).encode()).hexdigest()
    if digest != item.digest:
        raise DamagedItemError(f"Damaged item {item.where}: its content is not what was written.")
