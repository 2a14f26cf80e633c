"""The store: a Zarr v3 hierarchy of items, each all there or not there."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actionprep.datasets.store.digest import ContentHash
from actionprep.datasets.store.lock import LockClaim
from actionprep.datasets.store.reader import DamagedItemError, ItemReader
from actionprep.datasets.store.writer import ItemWriter, array_digest
from actionprep.errors import SetupError, UserError, explained_disk_errors
from actionprep.settings import canonical_json

SCHEMA = 1
_PARTIAL = ".partial"


@dataclass(frozen=True, order=True, slots=True)
class ItemKey:
    """Names one item: a product of one view of a recording, or (view "") of the whole study."""

    product: str
    recording: str
    view: str = ""

    @property
    def path(self) -> str:
        """Path in the store."""
        return "/".join(part for part in (self.product, self.recording, self.view) if part)

    def __str__(self) -> str:
        return self.path


@dataclass(frozen=True)
class Damage:
    """One thing that `Store.verify` found wrong."""

    key: ItemKey
    reason: str


class Store:
    """A store on a local disk, or read from any fsspec URL ("s3://…").

    Raises UserError when there is no store at that place or when it was written by a newer schema.
    """

    def __init__(self, url: str | Path, *, create: bool = False) -> None:
        self.url = str(url)
        self.path = None if "://" in self.url else Path(url)
        self._readers: dict[ItemKey, ItemReader] = {}
        self._claim: LockClaim | None = None
        if create and self.path is not None and not (self.path / "zarr.json").exists():
            with explained_disk_errors(self.path):
                self.path.mkdir(parents=True, exist_ok=True)
                _write_atomically(self.path / "zarr.json", _group_metadata({"actionprep_schema": SCHEMA}))
        self._check_schema()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_readers": {}}

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    def items(self, product: str | None = None) -> list[ItemKey]:
        """Keys of all committed items, sorted; product: of this one alone, or of several joined by "+"."""
        if product is not None and "+" in product:
            return sorted(key for one in product.split("+") for key in self.items(one))
        return sorted(key for key, _ in self._walk(product) if product is None or key.product == product)

    def products(self) -> list[str]:
        """Names of the products that have items."""
        return sorted({key.product for key in self.items()})

    def has(self, product: str, recording: str, view: str = "") -> bool:
        """Whether the item is committed."""
        return self.metadata(ItemKey(product, recording, view)) is not None

    def fingerprint(self, key: ItemKey) -> str | None:
        """What the committed item was made from; None when it is not there."""
        attributes = self.metadata(key)
        return None if attributes is None else str(attributes["fingerprint"])

    def item(self, product: str, recording: str, view: str = "") -> ItemReader:
        """Open one item; readers are kept, so asking again is cheap.

        Raises UserError that lists what there is when the item is not.
        """
        key = ItemKey(product, recording, view)
        reader = self._readers.get(key)
        if reader is None:
            if self.metadata(key) is None:
                raise UserError(self._no_item(key))
            while len(self._readers) >= 256:  # a bound for the files that maps hold open
                self._readers.pop(next(iter(self._readers)))
            reader = self._readers[key] = self._open(key)
        return reader

    def require_local(self) -> Path:
        """The store's folder; raises UserError for one behind a URL, which can only be read."""
        if self.path is None:
            raise UserError(
                f"The store {self.url} can only be read: an object store cannot move an item into place.\n"
                "Set 'store' under [study] in actionprep.toml to a folder of this machine, build there, then copy that "
                "folder to the URL with your storage's own tool."
            )
        return self.path

    def forget_readers(self) -> None:
        """Open items anew when they are asked for next, since somebody else may have replaced them."""
        self._readers.clear()

    @contextmanager
    def claimed(self, claim: LockClaim | None) -> Iterator[None]:
        """Within the block, commit items only while this lock is held."""
        before, self._claim = self._claim, claim
        try:
            yield
        finally:
            self._claim = before

    @contextmanager
    def write(
        self, product: str, recording: str, view: str = "", *, fingerprint: str, provenance: dict[str, Any]
    ) -> Iterator[ItemWriter]:
        """Make one item: it appears, whole, when the block ends without an error, and replaces what was there.

        The item is written under a temporary name, synced and moved into place.

        Raises:
            LockLostError: If another builder took over the lock of `claimed`.
            SetupError: If the disk refuses, or if somebody removed the store.
        """
        key = ItemKey(product, recording, view)
        path = self.require_local()
        with explained_disk_errors(path), self._explained_removal():
            draft = path / _PARTIAL / f"{os.getpid()}-{uuid.uuid4().hex}"
            draft.mkdir(parents=True)
            try:
                item = ItemWriter(draft)
                yield item
                attributes = {
                    "digest": item.close(),
                    "fingerprint": fingerprint,
                    "item": {"product": product, "recording": recording, "view": view},
                    "nbytes": item.nbytes,
                    "provenance": provenance,
                    "stage": item.attributes,
                }
                (draft / "zarr.json").write_text(_group_metadata(attributes))
                _sync_tree(draft)
                if self._claim is not None:
                    self._claim.require_held()
                self._commit(draft, key)
            finally:
                shutil.rmtree(draft, ignore_errors=True)

    @contextmanager
    def _explained_removal(self) -> Iterator[None]:
        """Explain files that vanish while an item is written: a new owner of the lock clears the drafts of others."""
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
                    f"Leave {self.path / _PARTIAL} alone during a build. Every committed item is whole; run the same "
                    "command again."
                ) from error
            raise

    def _require_root(self) -> None:
        assert self.path is not None
        if not (self.path / "zarr.json").exists():
            raise SetupError(
                f"The store {self.path} was removed during the build: its zarr.json does not exist any more.\n"
                "Bring it back, or run the same command again to build a new store."
            )

    def remove(self, key: ItemKey) -> None:
        """Take one item out."""
        path = self.require_local()
        self._readers.pop(key, None)
        place = path / key.path
        grave = path / _PARTIAL / f"{os.getpid()}-{uuid.uuid4().hex}"
        with explained_disk_errors(path):
            grave.parent.mkdir(exist_ok=True)
            if place.exists():
                place.rename(grave)
            shutil.rmtree(grave, ignore_errors=True)

    def clear_partial(self) -> None:
        """Delete what dead writers left; only the holder of the build lock may call this."""
        if self.path is not None:
            shutil.rmtree(self.path / _PARTIAL, ignore_errors=True)

    def digest(self) -> str:
        """One hash of all content: equal for equal builds, whatever the workers, the order and the interruptions."""
        lost = next(self._headless(), None)
        if lost is not None:
            raise DamagedItemError(
                f"Damaged item {lost}: its metadata is lost. 'actionprep verify --repair' makes it anew."
            )
        found = sorted([key.path, str(attributes["digest"])] for key, attributes in self._walk())
        return hashlib.sha256(canonical_json(found).encode()).hexdigest()

    def nbytes(self) -> dict[str, int]:
        """Bytes of array content by product."""
        sizes: dict[str, int] = {}
        for key, attributes in self._walk():
            sizes[key.product] = sizes.get(key.product, 0) + int(attributes["nbytes"])
        return dict(sorted(sizes.items()))

    def verify(self, keys: list[ItemKey] | None = None) -> Iterator[tuple[ItemKey, Damage | None]]:
        """Read every item (or those of `keys`) whole and hold it against its checksums and digest.

        Without `keys`, places whose metadata is lost are damage too.
        """
        if keys is None:
            for lost in self._headless():
                yield lost, Damage(lost, f"Damaged item {lost}: its metadata is lost or cannot be read.")
        for key in self.items() if keys is None else keys:
            try:
                _prove(self._open(key))
            except DamagedItemError as error:
                yield key, Damage(key, str(error))
            else:
                yield key, None

    def _no_item(self, key: ItemKey) -> str:
        there = self.items(key.product)
        if not there:
            return (
                f"The store {self.url} has no product '{key.product}'. It has {', '.join(self.products()) or 'nothing yet'}."
                f"\nMake it with 'actionprep build {key.product}' in the study folder."
            )
        views = [other.view for other in there if other.recording == key.recording]
        if views:
            there_are = ", ".join(views)
            return f"No '{key.product}' of view '{key.view}' of recording '{key.recording}'. It has views {there_are}."
        some = ", ".join(sorted({other.recording for other in there})[:5])
        return f"No '{key.product}' of recording '{key.recording}' in {self.url}. There are {some} …"

    def _open(self, key: ItemKey) -> ItemReader:
        if self.path is not None:
            return ItemReader(key.path, self.path / key.path)
        import zarr

        return ItemReader(key.path, zarr.open_group(self.url, path=key.path, mode="r"))

    def metadata(self, key: ItemKey) -> dict[str, Any] | None:
        """Attributes of a committed item (fingerprint, digest, nbytes, provenance, stage), else None."""
        if self.path is not None:
            attributes = _attributes(self.path / key.path / "zarr.json")
        else:
            import zarr

            try:
                attributes = dict(zarr.open_group(self.url, path=key.path, mode="r").attrs)
            except FileNotFoundError:
                return None
        return attributes if attributes is not None and _is_item(attributes) else None

    def _walk(self, product: str | None = None) -> Iterator[tuple[ItemKey, dict[str, Any]]]:
        """All committed items, or those below the folder of one product, with their attributes."""
        if self.path is None:
            yield from self._walk_remote()
            return
        for folder, below, files in os.walk(self.path if product is None else self.path / product):
            below[:] = sorted(name for name in below if not name.startswith("."))
            relative = Path(folder).relative_to(self.path)
            if "zarr.json" not in files or len(relative.parts) < 2:
                continue
            attributes = _attributes(Path(folder) / "zarr.json") or {}
            if _is_item(attributes):
                below.clear()
                yield ItemKey(**attributes["item"]), attributes

    def _headless(self) -> Iterator[ItemKey]:
        """Places that hold arrays but no item: their group metadata is lost or cannot be read."""
        if self.path is None:
            return
        items = {key.path for key, _ in self._walk()}
        places = set()
        for folder, below, files in os.walk(self.path):
            below[:] = sorted(name for name in below if not name.startswith("."))
            relative = Path(folder).relative_to(self.path)
            if relative.as_posix() in items:
                below.clear()
            elif len(relative.parts) > 2 and "zarr.json" in files:
                found = _read_metadata(Path(folder) / "zarr.json")
                # A view may be called "c", as the folder of an array's chunks is.
                if "c" in below if found is None else found.get("node_type") == "array":
                    below.clear()
                    places.add(relative.parent)
        for place in sorted(places):
            product, *rest = place.parts
            yield ItemKey(product, "/".join(rest[:-1]) or rest[-1], rest[-1] if len(rest) > 1 else "")

    def _walk_remote(self) -> Iterator[tuple[ItemKey, dict[str, Any]]]:
        import zarr

        for _, node in zarr.open_group(self.url, mode="r").members(max_depth=None):
            attributes = dict(node.attrs)
            if _is_item(attributes):
                yield ItemKey(**attributes["item"]), attributes

    def _commit(self, draft: Path, key: ItemKey) -> None:
        assert self.path is not None
        place = self.path / key.path
        self._clear_way(place.parent)
        self._make_groups(place.parent)
        replaced = self.path / _PARTIAL / f"{os.getpid()}-{uuid.uuid4().hex}"
        while True:
            try:
                draft.rename(place)
                break
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                place.rename(replaced)
        _sync(place.parent)
        shutil.rmtree(replaced, ignore_errors=True)
        self._readers.pop(key, None)

    def _clear_way(self, folder: Path) -> None:
        """Take out an item that lies where a folder is needed: of a catalog in which a recording had another id.

        A new item is never hidden inside of an old one. Items below the new one's place go when it is moved there.
        """
        assert self.path is not None
        stale = None
        while folder != self.path:
            found = _read_metadata(folder / "zarr.json")
            if found is not None and (found.get("node_type") == "array" or "digest" in found.get("attributes", {})):
                stale = folder
            folder = folder.parent
        if stale is not None:
            stale.rename(self.path / _PARTIAL / f"{os.getpid()}-{uuid.uuid4().hex}")
            self._readers.clear()

    def _make_groups(self, folder: Path) -> None:
        """Give every folder down to this one its group metadata, so that plain Zarr sees the whole hierarchy."""
        assert self.path is not None
        folder.mkdir(parents=True, exist_ok=True)
        while folder != self.path:
            if not (folder / "zarr.json").exists():
                _write_atomically(folder / "zarr.json", _group_metadata({}))
            folder = folder.parent

    def _check_schema(self) -> None:
        if self.path is not None:
            try:
                found = json.loads((self.path / "zarr.json").read_bytes())["attributes"].get("actionprep_schema")
            except (FileNotFoundError, NotADirectoryError):
                raise UserError(
                    f"No store at {self.path}. Make one with 'actionprep build' in a study folder."
                ) from None
            except (ValueError, KeyError, TypeError, AttributeError):
                raise UserError(f"{self.path}/zarr.json cannot be read: the store's root is damaged.") from None
        else:
            import zarr

            try:
                found = zarr.open_group(self.url, mode="r").attrs.get("actionprep_schema")
            except FileNotFoundError:
                raise UserError(f"No store at {self.url}.") from None
        if not isinstance(found, int):
            raise UserError(f"{self.url} is a Zarr hierarchy, but not a store of actionprep (no 'actionprep_schema').")
        if found > SCHEMA:
            raise UserError(
                f"The store {self.url} was written with schema {found}; this actionprep knows schemas up to {SCHEMA}.\n"
                "Update with: pip install --upgrade actionprep"
            )


def _prove(item: ItemReader) -> None:
    """Raise DamagedItemError unless every array, and the list of arrays, is what was written."""
    digests = {}
    for name in item:
        array = item[name]
        values = ContentHash()
        step = max(1, (64 << 20) // max(1, array.nbytes // max(1, len(array))))
        for start in range(0, len(array), step):
            values.update(array[start : start + step])
        digests[name] = array_digest(values.hexdigest(), array.shape, array.dtype, array.axes, array.unit)
    found = hashlib.sha256(canonical_json([digests, item.attributes]).encode()).hexdigest()
    if found != item.digest:
        raise DamagedItemError(f"Damaged item {item.where}: its content is not what was written.")


def _attributes(path: Path) -> dict[str, Any] | None:
    """Attributes of a group; None when there is no group, or its metadata is no metadata."""
    found = _read_metadata(path)
    return None if found is None else found["attributes"]


def _read_metadata(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("attributes"), dict) else None


def _is_item(attributes: dict[str, Any]) -> bool:
    """Whether a group's attributes are those of a committed item, with all that the program reads of one."""
    key = attributes.get("item")
    return (
        {"digest", "fingerprint", "nbytes"} <= attributes.keys()
        and isinstance(attributes.get("provenance"), dict)
        and isinstance(key, dict)
        and key.keys() == {"product", "recording", "view"}
    )


def _group_metadata(attributes: dict[str, Any]) -> str:
    return json.dumps({"zarr_format": 3, "node_type": "group", "attributes": attributes}, indent=1, sort_keys=True)


def _write_atomically(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    draft.write_text(text)
    draft.replace(path)


def _sync_tree(folder: Path) -> None:
    places = [Path(place) for place, _, _ in os.walk(folder)]
    files = [path for place in places for path in place.iterdir() if path.is_file()]
    # Side by side, since a file system settles many syncs in one go.
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(_sync, [*files, *places]))


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
