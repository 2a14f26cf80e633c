"""The store: a Zarr v3 hierarchy of items, each all there or not there."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actionprep.datasets.paths import below, check_link, name_problem, walk
from actionprep.datasets.store.digest import ContentHash
from actionprep.datasets.store.lock import LockClaim
from actionprep.datasets.store.reader import DamagedItemError, ItemReader
from actionprep.datasets.store.writer import ItemWriter, array_digest
from actionprep.errors import SetupError, UserError, explained_disk_errors
from actionprep.settings import canonical_json

SCHEMA = 1
_PARTIAL = ".partial"
_DRAFT = re.compile(r"\d+-[0-9a-f]{32}")


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

    An item is known by its path in the store; attributes that name another place are damage. Symbolic links to folders
    above the items are followed by everything: a product may lie on another disk. Links inside an item are damage, and
    nothing is written to or deleted from another store that a link leads to.

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
            draft = self._aside(self._own_place(key))
            draft.mkdir()
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
        """Delete one item; raises UserError where the store has no item of this key.

        Of an item that is a link, the link is deleted and what it leads to stays.
        """
        path = self.require_local()
        self._readers.pop(key, None)
        with explained_disk_errors(path):
            place = self._own_place(key)
            if self.metadata(key) is None:
                raise UserError(self._no_item(key))
            grave = self._aside(place)
            place.rename(grave)
            _delete(grave)

    def clear_partial(self) -> None:
        """Delete what dead writers left; only the holder of the build lock may call this."""
        if self.path is None:
            return
        for folder, names, _ in walk(self.path):
            if _PARTIAL in names and folder == self.path:
                _delete(folder / _PARTIAL)
            elif _PARTIAL in names:
                _clear_drafts(folder / _PARTIAL)
            names[:] = [] if _is_item(_attributes(folder / "zarr.json") or {}) else _visible(names)

    def digest(self) -> str:
        """One hash of all content: equal for equal builds, whatever the workers, the order and the interruptions."""
        lost = next(self.lost(), None)
        if lost is not None:
            raise DamagedItemError(f"{lost.reason} 'actionprep verify --repair' rebuilds it.")
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

        Without `keys`, places whose metadata is lost or names another place are damage too.
        """
        if keys is None:
            for lost in self.lost():
                yield lost.key, lost
        for key in self.items() if keys is None else keys:
            try:
                self._refuse_links(key)
                _prove(self._open(key))
            except DamagedItemError as error:
                yield key, Damage(key, str(error))
            else:
                yield key, None

    def lost(self) -> Iterator[Damage]:
        """Places that hold arrays but no item, because their metadata is lost, cannot be read or names another place."""
        if self.path is None:
            return
        places: dict[Path, str] = {}
        for folder, names, files in walk(self.path):
            names[:] = _visible(names)
            relative = folder.relative_to(self.path)
            if "zarr.json" not in files:
                continue
            found = _read_metadata(folder / "zarr.json")
            if found is not None and _is_item(found["attributes"]):
                names.clear()
                if not _is_item(found["attributes"], relative.as_posix()) or len(relative.parts) < 2:
                    stated = "/".join(str(part) for part in found["attributes"]["item"].values())
                    places[relative] = f"its metadata names another item, {stated!r:.200}."
            # A view may be called "c", as the folder of an array's chunks is.
            elif len(relative.parts) > 2 and ("c" in names if found is None else found.get("node_type") == "array"):
                names.clear()
                places[relative.parent] = "its metadata is lost or cannot be read."
        for place, reason in sorted(places.items()):
            product, *rest = place.parts or ("",)
            key = ItemKey(product, "/".join(rest[:-1] or rest), rest[-1] if len(rest) > 1 else "")
            yield Damage(key, f"Damaged item {key}: {reason}")

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
            return ItemReader(key.path, self._place(key))
        import zarr

        return ItemReader(key.path, zarr.open_group(self.url, path=key.path, mode="r"))

    def metadata(self, key: ItemKey) -> dict[str, Any] | None:
        """Attributes of a committed item (fingerprint, digest, nbytes, provenance, stage), else None.

        Raises UserError for a key that cannot name an item.
        """
        if self.path is not None:
            attributes = _attributes(self._place(key) / "zarr.json")
        else:
            import zarr

            if problem := name_problem(key.path):
                raise UserError(f"{key.path!r:.80} cannot name an item of the store {self.url}: {problem}.")
            try:
                attributes = dict(zarr.open_group(self.url, path=key.path, mode="r").attrs)
            except FileNotFoundError:
                return None
        return attributes if attributes is not None and _is_item(attributes, key.path) else None

    def _place(self, key: ItemKey) -> Path:
        """Folder of an item of a local store; raises UserError for a key that leads out of it."""
        assert self.path is not None
        return below(self.path, key.path, follow_links=True)

    def _own_place(self, key: ItemKey) -> Path:
        """Folder of an item that will be written or deleted.

        Raises UserError where a link on the way leads into another store or to another place of this one, and
        SetupError where it leads nowhere.
        """
        place, root = self._place(key), Path(os.path.realpath(self.require_local()))
        for folder in reversed(place.parents):
            check_link(folder)
        real = Path(os.path.realpath(place.parent))
        if real == root / Path(key.path).parent:
            return place
        if real.is_relative_to(root):
            raise UserError(
                f"The place of {key} in {self.url} is, through a symbolic link, that of "
                f"{(real / place.name).relative_to(root)}. Delete the link: each item has a folder of its own."
            )
        for folder in (real, *real.parents):
            if "actionprep_schema" in (_attributes(folder / "zarr.json") or {}):
                raise UserError(
                    f"The place of {key} in {self.url} is, through a symbolic link, in another store, {folder}. Nothing is "
                    "written or deleted there: work in that store's own study, or replace the link by a folder."
                )
        if os.path.lexists(place) and not (place.is_symlink() or _is_like_an_item(place)):
            raise UserError(
                f"The place of {key} in {self.url} is, through a symbolic link, {real / place.name}, which is not an item "
                "of the store. It is not replaced: move it away, or delete the link."
            )
        return place

    def _aside(self, place: Path) -> Path:
        """A new path for an item on its way to or from `place`, on the disk that `place` is on."""
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

    def _walk(self, product: str | None = None) -> Iterator[tuple[ItemKey, dict[str, Any]]]:
        """All committed items, or those below the folder of one product, with their attributes."""
        if self.path is None:
            yield from self._walk_remote()
            return
        for folder, names, files in walk(
            self.path if product is None else below(self.path, product, follow_links=True)
        ):
            names[:] = _visible(names)
            relative = folder.relative_to(self.path)
            if "zarr.json" not in files or len(relative.parts) < 2:
                continue
            attributes = _attributes(folder / "zarr.json") or {}
            if _is_item(attributes):
                names.clear()
                if _is_item(attributes, relative.as_posix()):
                    yield ItemKey(**attributes["item"]), attributes

    def _refuse_links(self, key: ItemKey) -> None:
        """Raise DamagedItemError for an item with a link inside: what is read through it is not what was committed."""
        if self.path is None:
            return
        for folder, names, files in os.walk(self._place(key)):
            for name in (*names, *files):
                if os.path.islink(os.path.join(folder, name)):
                    raise DamagedItemError(f"Damaged item {key}: {os.path.join(folder, name)} is a symbolic link.")

    def _walk_remote(self) -> Iterator[tuple[ItemKey, dict[str, Any]]]:
        import zarr

        for path, node in zarr.open_group(self.url, mode="r").members(max_depth=None):
            attributes = dict(node.attrs)
            if _is_item(attributes, path):
                yield ItemKey(**attributes["item"]), attributes

    def _commit(self, draft: Path, key: ItemKey) -> None:
        assert self.path is not None
        place = self._own_place(key)
        self._clear_way(place.parent)
        self._make_groups(place.parent)
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
        _sync(place.parent)
        _delete(replaced)
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
            stale.rename(self._aside(stale))
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
            except OSError as error:
                raise UserError(f"The store {self.path} cannot be read: {error.strerror or error}.") from None
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


def _is_item(attributes: dict[str, Any], path: str | None = None) -> bool:
    """Whether a group's attributes are those of a committed item, with all that the program reads of one.

    path: where the group lies in the store, which the attributes must name.
    """
    key = attributes.get("item")
    complete = (
        {"digest", "fingerprint", "nbytes"} <= attributes.keys()
        and isinstance(attributes.get("provenance"), dict)
        and isinstance(key, dict)
        and key.keys() == {"product", "recording", "view"}
    )
    if path is None or not complete:
        return complete
    assert isinstance(key, dict)
    product, *rest = path.split("/")
    # A recording may span folders, so that its view cannot be known from the path alone.
    with_view = [product, "/".join(rest[:-1]), rest[-1]] if len(rest) > 1 else None
    return [key["product"], key["recording"], key["view"]] in ([product, "/".join(rest), ""], with_view)


def _visible(names: list[str]) -> list[str]:
    return [name for name in names if not name.startswith(".")]


def _is_like_an_item(folder: Path) -> bool:
    """Whether a folder is an item, also one whose metadata is damaged or lost, or is empty."""
    return folder.is_dir() and (
        (folder / "zarr.json").exists() or any(folder.glob("*/zarr.json")) or not any(folder.iterdir())
    )


def _clear_drafts(partial: Path) -> None:
    """Delete the drafts in a folder that a link may lead to, and the folder if nothing else is in it."""
    if partial.is_symlink():
        return
    for draft in partial.iterdir():
        if _DRAFT.fullmatch(draft.name):
            _delete(draft)
    with suppress(OSError):
        partial.rmdir()


def _delete(path: Path) -> None:
    """Delete a folder and what is in it, or a link or file; never what a link leads to."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


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
