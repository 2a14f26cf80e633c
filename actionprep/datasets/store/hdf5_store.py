"""HDF5 files with the items of a store: write them, and read them as a store.

The groups, arrays and data types are those of the Zarr store. Attributes of an item that are tables (`arrays`, `item`,
`provenance`, `stage`) are JSON text. `metadata_sha256` covers all other attributes of the item, and `arrays` has a SHA-256
over shape, data type, axes, unit and description of each array. Chunks have the Fletcher-32 checksum of HDF5.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from actionprep.datasets.atomic_files import atomic_file
from actionprep.datasets.hdf5_loops import check_for_loops
from actionprep.datasets.store.keys import ItemKey
from actionprep.datasets.store.metadata import CHECKSUM, SCHEMA, names_path
from actionprep.datasets.store.read_only import ReadOnlyStore
from actionprep.datasets.store.reader import ArrayReader, DamagedItemError, ItemReader
from actionprep.datasets.store.zarr_store import Store
from actionprep.errors import InputError, UserError, explained_disk_errors
from actionprep.settings import canonical_json

if TYPE_CHECKING:
    import h5py

SIGNATURE = b"\x89HDF\r\n\x1a\n"

_CHUNK_BYTES = 256 << 10
_CACHE_BYTES = 16 << 20
_MAX_DEPTH = 64
# Deflate packs at most so tightly. An array that declares more is damaged or forged.
_MAX_RATIO = 1032
_SMALL_BYTES = 64 << 20

_TABLES = ("arrays", "item", "provenance", "stage")
_TEXTS = ("digest", "fingerprint", CHECKSUM)

# What h5py raises for damaged files, and for files that are not what they should be.
_DAMAGE = (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError, RecursionError, MemoryError)


def write_hdf5(
    path: str | Path,
    store: Store,
    keys: Sequence[ItemKey],
    *,
    compress: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write items of a store to an HDF5 file. It appears, complete, at the end, and replaces an older file.

    Args:
        path: File to write.
        store: Store to read.
        keys: Items to write.
        compress: Compress the arrays with gzip, without loss.
        progress: Function that is called with the numbers of written and of all items.

    Returns:
        Size of the file in bytes.

    Raises:
        DamagedItemError: If an item of the store is damaged. No file is written.
    """
    import h5py

    path = Path(path)
    with explained_disk_errors(path):
        # Attributes of more than 64 KiB need the file format of HDF5 1.8 or newer.
        with (
            atomic_file(path, sync=True, fixed=True) as draft,
            h5py.File(draft, "w", libver=("v108", "latest")) as file,
        ):
            file.attrs["actionprep_schema"] = SCHEMA
            for number, key in enumerate(keys, start=1):
                _write_item(file, store.item(key.product, key.recording, key.view), key, compress=compress)
                if progress is not None:
                    progress(number, len(keys))
        return path.stat().st_size


def _write_item(file: h5py.File, item: ItemReader, key: ItemKey, *, compress: bool) -> None:
    group = file.create_group(key.path)
    arrays, num_bytes = {}, 0
    for name in item.recorded:
        array = item[name]
        row_bytes = max(1, array.nbytes // max(1, len(array)))
        # Chunks of equal size, since HDF5 fills up the last one.
        count = -(-len(array) // max(1, _CHUNK_BYTES // row_bytes))
        rows = -(-len(array) // max(1, count)) or 1
        # An array without values cannot have chunks.
        filters: dict[str, Any] = {}
        if array.nbytes:
            filters = {"chunks": (rows, *array.shape[1:]), "fletcher32": True}
            if compress:
                filters |= {"compression": "gzip", "compression_opts": 4, "shuffle": True}
        stored = group.create_dataset(name, shape=array.shape, dtype=array.dtype, **filters)
        step = rows * max(1, _CACHE_BYTES // (rows * row_bytes))
        for start in range(0, len(array) if array.nbytes else 0, step):
            stored[start : start + step] = array[start : start + step]
        stored.attrs["dimension_names"] = list(array.axes)
        for attribute, text in (("unit", array.unit), ("description", array.description)):
            if text:
                stored.attrs[attribute] = text
        arrays[name] = _array_hash(array.shape, array.dtype, array.axes, array.unit, array.description)
        num_bytes += array.nbytes
    attributes: dict[str, Any] = {
        "arrays": arrays,
        "digest": item.digest,
        "fingerprint": item.fingerprint,
        "item": {"product": key.product, "recording": key.recording, "view": key.view},
        "nbytes": num_bytes,
        "provenance": item.provenance,
        "stage": item.attributes,
    }
    attributes[CHECKSUM] = _attributes_hash(attributes)
    for name, value in attributes.items():
        group.attrs[name] = json.dumps(value) if name in _TABLES else value


def _array_hash(
    shape: tuple[int, ...], dtype: np.dtype[Any], axes: tuple[str, ...], unit: str | None, description: str
) -> str:
    facts = [list(shape), np.dtype(dtype).newbyteorder("<").str, list(axes), unit, description]
    return hashlib.sha256(canonical_json(facts).encode()).hexdigest()


def _attributes_hash(attributes: Mapping[str, Any]) -> str:
    rest = {name: value for name, value in attributes.items() if name != CHECKSUM}
    return hashlib.sha256(canonical_json(rest).encode()).hexdigest()


class Hdf5Store(ReadOnlyStore):
    """The items of an HDF5 file that `write_hdf5` wrote.

    The file is opened once per process, also after a fork. Links to other files are never followed.

    Raises:
        UserError: If there is no such file, or if it is not an export of actionprep.
        InputError: If the file is damaged.
    """

    form = "an HDF5 file"

    def __init__(self, path: str | Path) -> None:
        path = Path(path).absolute()
        if not path.is_file():
            raise UserError(f"No HDF5 file at {path}. Write one with 'actionprep export hdf5 {path.name}'.")
        self._file = _OpenFile(path)
        check_for_loops(path)
        try:
            root = self._file.handle()
            schema = root.attrs.get("actionprep_schema")
            if schema is None:
                raise UserError(
                    f"{path} is an HDF5 file, but not a store of actionprep (no attribute 'actionprep_schema'). "
                    "'actionprep export hdf5 FILE' writes one."
                )
            if int(schema) > SCHEMA:
                raise UserError(
                    f"The store {path} was written with schema {schema}; this actionprep knows schemas up to {SCHEMA}.\n"
                    "Update with: pip install --upgrade actionprep"
                )
            super().__init__(path, dict(_items_below(root)))
        except UserError:
            raise
        except _DAMAGE as error:
            raise InputError(
                f"{path} is not a sound HDF5 file: {error}.\nExport it again: actionprep export hdf5 {path.name} --overwrite"
            ) from error

    def __repr__(self) -> str:
        return f"Hdf5Store({self.url!r})"

    def _open_item(self, key: ItemKey, attributes: dict[str, Any]) -> ItemReader:
        return _Hdf5Item(key.path, self._file, attributes)


class _OpenFile:
    """A file that each process opens for itself: a handle of HDF5 does not survive a fork."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: tuple[int, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_handle": None}

    def handle(self) -> h5py.File:
        import h5py

        if self._handle is None or self._handle[0] != os.getpid():
            self._handle = os.getpid(), h5py.File(self.path, "r", locking=False, rdcc_nbytes=_CACHE_BYTES)
        return self._handle[1]


def _items_below(root: h5py.File) -> Iterator[tuple[ItemKey, dict[str, Any] | DamagedItemError]]:
    """The items of a file with their attributes, or what is wrong with them."""
    waiting = [("", root)]
    while waiting:
        path, group = waiting.pop()
        if path.count("/") > _MAX_DEPTH:
            raise ValueError(f"groups are nested more than {_MAX_DEPTH} deep at {path[:80]}")
        if _TABLES[0] in group.attrs or "digest" in group.attrs:
            yield _read_attributes(path, group)
            continue
        for name in group:
            child = _child(group, name)
            if type(child).__name__ == "Group":
                waiting.append((f"{path}/{name}" if path else name, child))


def _child(group: Any, name: str) -> Any:
    """A member of a group; raises ValueError for a link, which can lead to another file."""
    kind = type(group.get(name, getlink=True)).__name__
    if kind != "HardLink":
        raise ValueError(f"'{name}' in {group.name} is a link ({kind}), and links are not followed")
    return group[name]


def _read_attributes(path: str, group: Any) -> tuple[ItemKey, dict[str, Any] | DamagedItemError]:
    product, _, rest = path.partition("/")
    recording, _, view = rest.rpartition("/")
    key = ItemKey(product, recording, view) if recording else ItemKey(product, rest)
    try:
        attributes: dict[str, Any] = {name: json.loads(group.attrs[name]) for name in _TABLES}
        attributes |= {name: str(group.attrs[name]) for name in _TEXTS}
        attributes["nbytes"] = int(group.attrs["nbytes"])
        if not names_path(attributes["item"], path):
            raise ValueError("it names another item")
        key = ItemKey(**attributes["item"])
        if _attributes_hash(attributes) != attributes[CHECKSUM]:
            raise ValueError("they are not what was written")
    except _DAMAGE as error:
        return key, DamagedItemError(
            f"Damaged item {path} in {group.file.filename}: its attributes cannot be used ({error}). Export the file again."
        )
    return key, attributes


class _Hdf5Item(ItemReader):
    """One item of an HDF5 file."""

    def __init__(self, where: str, file: _OpenFile, attributes: Mapping[str, Any]) -> None:
        self.where = where
        self._file = file
        self._attributes = attributes
        self._recorded = attributes["arrays"]
        self._names = sorted(self._recorded)
        self._arrays: dict[str, ArrayReader] = {}

    def _open(self, name: str) -> ArrayReader:
        return _Hdf5Array(self._file, self.where, name, self._recorded[name])


class _Hdf5Array(ArrayReader):
    """One array of an HDF5 file."""

    def __init__(self, file: _OpenFile, item: str, name: str, recorded: str) -> None:
        self.where = f"{item}/{name}"
        self._file = file
        self._opened: tuple[int, Any] | None = None
        try:
            array = self._dataset()
            self.shape, self.dtype = tuple(array.shape), np.dtype(array.dtype)
            self.axes = tuple(str(axis) for axis in array.attrs["dimension_names"])
            self.unit = str(array.attrs["unit"]) if "unit" in array.attrs else None
            self.description = str(array.attrs.get("description", ""))
            if _array_hash(self.shape, self.dtype, self.axes, self.unit, self.description) != recorded:
                raise ValueError("its shape, data type or attributes are not what was written")
            if array.is_virtual or array.external:
                raise ValueError("its values are in another file, which is not read")
            if self.nbytes > max(_SMALL_BYTES, _MAX_RATIO * array.id.get_storage_size()):
                raise ValueError(f"it declares {self.nbytes} bytes, and far fewer are stored")
        except _DAMAGE as error:
            raise self._damage(error) from error

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    def _rows(self, start: int, stop: int) -> np.ndarray:
        try:
            return np.asarray(self._dataset()[start:stop])
        except _DAMAGE as error:
            raise self._damage(error) from error

    def _dataset(self) -> Any:
        if self._opened is None or self._opened[0] != os.getpid():
            group: Any = self._file.handle()
            for part in self.where.split("/"):
                group = _child(group, part)
            self._opened = os.getpid(), group
        return self._opened[1]

    def _damage(self, error: BaseException) -> DamagedItemError:
        return DamagedItemError(f"Damaged array {self.where} in {self._file.path}: {error}. Export the file again.")
