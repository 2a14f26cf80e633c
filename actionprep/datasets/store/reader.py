"""Read the arrays of one item: memory-mapped shards for local stores, zarr-python otherwise."""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import mmap
import os
import re
import resource
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from actionprep.datasets.store.files import LocalFiles, RemoteFiles, StoreFiles
from actionprep.errors import ActionprepError

_MISSING = 2**64 - 1

DATA = ".data"
"""Folder of the arrays of items that were written to a bucket."""

# A mapped file stays open, and the number of open files per process is limited (often 1024, on some systems 256). So small
# files are read, and at most a quarter of the limit is used for maps.
SMALL_FILE_BYTES = 2 << 20
_ALLOWED_FILES = resource.getrlimit(resource.RLIMIT_NOFILE)[0]  # -1: unlimited
MAX_OPEN_FILES = 1024 if _ALLOWED_FILES < 0 else max(32, min(_ALLOWED_FILES, 4096) // 4)


class DamagedItemError(ActionprepError):
    """Stored bytes differ from what was written: a checksum does not match, a chunk is missing, or a file is truncated."""


class ItemReader:
    """One committed item: `reader["xy"][10:20]` is a NumPy array, `reader.attributes` the attributes of the group.

    Files are mapped once and stay open. The checksum of each chunk is verified on its first access. A reader can be sent
    to another process or forked, because only read-only maps are shared.
    """

    def __init__(self, where: str, files: StoreFiles, attributes: Mapping[str, Any]) -> None:
        """Open an item.

        Args:
            where: Path of the item in the store.
            files: Files of the store.
            attributes: Checked attributes of the item's group.
        """
        self.where = where
        self._files = files
        self._attributes = attributes
        # Arrays that another program added can be read, but are not part of the item.
        self._recorded: dict[str, str] = attributes.get("arrays", {})
        self._place = where
        added: list[str] = []
        if "data" in attributes:
            # An item that was written to a bucket, where nothing is moved into place.
            self._place = str(attributes["data"])
            if not re.fullmatch(rf"{re.escape(DATA)}/[0-9a-f]{{32}}", self._place):
                raise DamagedItemError(f"Damaged item {where}: its arrays are outside {DATA}, at {self._place!r:.80}.")
        else:
            added = [name for name in files.folders(where) if name not in self._recorded]
        self._names = sorted(
            [*self._recorded, *(name for name in added if files.read(f"{where}/{name}/zarr.json") is not None)]
        )
        self._arrays: dict[str, ArrayReader] = {}

    @property
    def attributes(self) -> dict[str, Any]:
        """Attributes that the stage wrote."""
        attributes: dict[str, Any] = self._attributes.get("stage", {})
        return attributes

    @property
    def fingerprint(self) -> str:
        """Hash of the inputs and settings of the item."""
        return str(self._attributes["fingerprint"])

    @property
    def digest(self) -> str:
        """Hash of the content of all arrays."""
        return str(self._attributes["digest"])

    @property
    def provenance(self) -> dict[str, Any]:
        """Stage, version, settings, inputs, backend and software versions of the item."""
        provenance: dict[str, Any] = self._attributes.get("provenance", {})
        return provenance

    @property
    def recorded(self) -> list[str]:
        """Names of the arrays that were committed with the item, sorted; all arrays for items of schema 1."""
        return sorted(self._recorded) if self._recorded else self._names

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __getitem__(self, name: str) -> ArrayReader:
        if name not in self._arrays:
            if name not in self._names:
                raise KeyError(f"No array '{name}' in {self.where}. It has {', '.join(self._names)}.")
            self._arrays[name] = self._open(name)
        return self._arrays[name]

    def __repr__(self) -> str:
        lines = (f"  {name:<14} {self[name].shape} {self[name].dtype}" for name in self)
        return "\n".join([f"Item {self.where}", *lines])

    def _open(self, name: str) -> ArrayReader:
        where, place = f"{self.where}/{name}", f"{self._place}/{name}"
        raw = self._files.read(f"{place}/zarr.json")
        if raw is None:
            raise DamagedItemError(f"Damaged array {where}: its metadata (zarr.json) is missing.")
        if name in self._recorded and hashlib.sha256(raw).hexdigest() != self._recorded[name]:
            raise DamagedItemError(f"Damaged array {where}: its metadata (zarr.json) is not what was written.")
        if isinstance(self._files, LocalFiles):
            mapped = _open_mapped(where, self._files.root / place, raw)
            if mapped is not None:
                return mapped
        elif not isinstance(self._files, RemoteFiles):
            from actionprep.datasets.store.object_reader import open_object_array

            reader = open_object_array(where, self._files, place, raw)
            if reader is not None:
                return reader
        try:
            return ZarrArrayReader(where, self._files.open_array(place))
        except Exception as error:  # zarr-python has no common error for metadata that it cannot read
            raise DamagedItemError(f"Damaged array {where}: zarr cannot open it ({error}).") from error


class ArrayReader(ABC):
    """One stored array, indexed as in NumPy. The first index is an int, a slice, or an array of integers or bools."""

    where: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    axes: tuple[str, ...]
    unit: str | None
    description: str = ""

    @property
    def nbytes(self) -> int:
        """Size of the array in memory."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype=dtype)

    def __getitem__(self, key: Any) -> np.ndarray:
        first, rest = (key[0], key[1:]) if isinstance(key, tuple) else (key, ())
        if first is Ellipsis or first is None:
            rows: np.ndarray = self._rows(0, len(self))[key]
            return rows
        if isinstance(first, slice):
            start, stop, step = first.indices(len(self))
            if step == 1:
                rows = self._rows(start, max(start, stop))
                return rows[(slice(None), *rest)] if rest else rows
            first = np.arange(start, stop, step)
        if isinstance(first, (int, np.integer)):
            row = int(first)
            if not -len(self) <= row < len(self):
                raise IndexError(f"Row {row} of {self.where}, which has {len(self)} rows.")
            row %= len(self)
            values: np.ndarray = self._rows(row, row + 1)[(0, *rest)]
            return values
        rows = self._gather(np.asarray(first))
        return rows[(slice(None), *rest)] if rest else rows

    def _gather(self, rows: np.ndarray) -> np.ndarray:
        if rows.dtype == bool:
            rows = np.flatnonzero(rows)
        if len(rows) and (rows.min() < -len(self) or rows.max() >= len(self)):
            raise IndexError(f"Rows {rows.min()} to {rows.max()} of {self.where}, which has {len(self)} rows.")
        rows = rows % max(len(self), 1)
        gathered = np.empty((len(rows), *self.shape[1:]), self.dtype)
        # Runs of consecutive rows are read together: sampled clips are mostly such runs.
        breaks = np.flatnonzero(np.diff(rows) != 1) + 1
        for run in np.split(np.arange(len(rows)), breaks):
            if len(run):
                gathered[run[0] : run[-1] + 1] = self._rows(int(rows[run[0]]), int(rows[run[-1]]) + 1)
        return gathered

    @abstractmethod
    def _rows(self, start: int, stop: int) -> np.ndarray:
        """Return rows start to stop as a new array; raises DamagedItemError if a checksum does not match."""


class ZarrArrayReader(ArrayReader):
    """Read with zarr-python: for remote stores, and for codecs that the mapped reader does not support."""

    def __init__(self, where: str, array: Any) -> None:
        self.where = where
        self._array = array
        self.shape, self.dtype = tuple(array.shape), np.dtype(array.dtype)
        self.axes = tuple(array.metadata.dimension_names or ())
        self.unit = array.attrs.get("unit")
        self.description = str(array.attrs.get("description", ""))

    def _rows(self, start: int, stop: int) -> np.ndarray:
        try:
            return np.asarray(self._array[start:stop])
        except Exception as error:  # the codecs have no common error for bytes that they cannot decode
            raise DamagedItemError(f"Damaged array {self.where}, rows {start} to {stop}: {error}") from error


class MappedArrayReader(ArrayReader):
    """Read Zarr v3 chunks along the first axis, raw or zstd, with crc32c, directly from mapped files.

    The file format is the Zarr v3 core specification: regular grid, `sharding_indexed` with the index at the end (pairs of
    little-endian offset and length, then crc32c), inner codecs `bytes`, optionally `zstd`, `crc32c`.
    """

    def __init__(self, where: str, folder: Path, metadata: dict[str, Any], layout: Layout) -> None:
        self.where = where
        self._folder = folder
        self.shape = tuple(metadata["shape"])
        self.dtype = np.dtype(metadata["data_type"]).newbyteorder("<")
        self.axes = tuple(metadata.get("dimension_names") or ())
        self.unit = metadata.get("attributes", {}).get("unit")
        self.description = str(metadata.get("attributes", {}).get("description", ""))
        self._layout = layout
        self._row_bytes = int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize
        self._tail = "/0" * (len(self.shape) - 1)
        self._files: dict[int, ChunkFile] = {}
        self._ready: dict[int, np.ndarray] = {}  # views of mapped chunks with verified checksums

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": {}, "_ready": {}}

    def _rows(self, start: int, stop: int) -> np.ndarray:
        shape = (stop - start, *self.shape[1:])
        rows_per_chunk, row_bytes = self._layout.rows_per_chunk, self._row_bytes
        chunk, first = divmod(start, rows_per_chunk)
        if start < stop <= start + rows_per_chunk - first and row_bytes:
            # Most reads of small arrays need a single chunk.
            payload = self._chunk(chunk)[first * row_bytes : (first + stop - start) * row_bytes]
            return payload.copy().view(self.dtype).reshape(shape)
        values = np.empty(shape, self.dtype)
        if not values.size:
            return values
        target = values.reshape(-1).view(np.uint8)
        at, row = 0, start
        while row < stop:
            chunk, first = divmod(row, rows_per_chunk)
            count = min(rows_per_chunk - first, stop - row)
            payload = self._chunk(chunk)
            nbytes = count * row_bytes
            target[at : at + nbytes] = payload[first * row_bytes : first * row_bytes + nbytes]
            at, row = at + nbytes, row + count
        return values

    def _chunk(self, chunk: int) -> np.ndarray:
        file_index, inner = divmod(chunk, self._layout.chunks_per_file)
        ready = self._ready.get(chunk)
        if ready is not None:
            return ready
        file = self._files.get(file_index)
        if file is None:
            file = self._open_file(file_index)
        offset, length = int(file.offsets[inner]), int(file.lengths[inner])
        if offset == _MISSING or offset + length > file.size:
            raise DamagedItemError(f"Damaged array {self.where}: chunk {chunk} is missing from {file.name}.")
        content = file.part(offset, length)
        stored = content[:-4]
        if not file.verified[inner]:
            if google_crc32c.value(stored) != int.from_bytes(content[-4:].tobytes(), "little"):
                raise DamagedItemError(f"Damaged array {self.where}: the checksum of chunk {chunk} does not match.")
            file.verified[inner] = file.is_kept
        if not self._layout.zstd:
            if len(stored) != self._layout.rows_per_chunk * self._row_bytes:
                raise DamagedItemError(f"Damaged array {self.where}: chunk {chunk} has {len(stored)} bytes.")
            if file.is_kept:
                self._ready[chunk] = stored
            return stored
        from numcodecs.zstd import decompress

        try:
            values = np.frombuffer(decompress(stored), np.uint8)
        except RuntimeError as error:
            raise DamagedItemError(
                f"Damaged array {self.where}: chunk {chunk} does not decompress ({error})."
            ) from error
        if len(values) != self._layout.rows_per_chunk * self._row_bytes:
            raise DamagedItemError(f"Damaged array {self.where}: chunk {chunk} has {len(values)} bytes.")
        return values

    def _open_file(self, file_index: int) -> ChunkFile:
        """Open a file of chunks, and keep it for further reads."""
        path = self._folder / f"c/{file_index}{self._tail}"
        file = _MappedFile(self.where, path, self._layout)
        self._files[file_index] = file
        if file.is_mapped:
            _keep_few_open(self, file_index)
        return file

    def _let_go(self, file_index: int) -> None:
        """Drop a file. It is closed when no view of it is left."""
        self._files.pop(file_index, None)
        for chunk in [chunk for chunk in list(self._ready) if chunk // self._layout.chunks_per_file == file_index]:
            self._ready.pop(chunk, None)


_mapped: deque[tuple[weakref.ref[MappedArrayReader], int]] = deque()


def _keep_few_open(reader: MappedArrayReader, file_index: int) -> None:
    """Record a mapped file, and drop the oldest ones if this process has too many."""
    _mapped.append((weakref.ref(reader), file_index))
    while len(_mapped) > MAX_OPEN_FILES:
        oldest, index = _mapped.popleft()
        owner = oldest()
        if owner is not None:
            owner._let_go(index)


class ChunkFile(ABC):
    """One chunk or shard file.

    Attributes:
        name: Name for messages.
        size: Its size in bytes.
        is_kept: Whether all its bytes are at hand.
        offsets: Offset of each chunk in it.
        lengths: Length of each chunk.
        verified: Whether the checksum of each chunk was verified.
    """

    name: str
    size: int
    is_kept: bool

    def _locate_chunks(self, where: str, layout: Layout, end: np.ndarray) -> None:
        """Set the places of the chunks from the last bytes of the file; raises DamagedItemError if the index is damaged."""
        if layout.sharded:
            index = end[-layout.index_bytes : -4]
            if len(index) != layout.index_bytes - 4 or google_crc32c.value(index) != int.from_bytes(
                end[-4:].tobytes(), "little"
            ):
                raise DamagedItemError(
                    f"Damaged array {where}: the index of shard {self.name} is cut or does not match."
                )
            pairs = index.view("<u8") if index.ctypes.data % 8 == 0 else np.frombuffer(index.tobytes(), "<u8")
            self.offsets, self.lengths = pairs[0::2].copy(), pairs[1::2].copy()
        else:
            self.offsets, self.lengths = np.zeros(1, np.uint64), np.array([self.size], np.uint64)
        self.verified = np.zeros(len(self.offsets), bool)

    @abstractmethod
    def part(self, offset: int, length: int) -> np.ndarray:
        """Bytes of the file."""


class _MappedFile(ChunkFile):
    """A file on a disk."""

    is_kept = True

    def __init__(self, where: str, path: Path, layout: Layout) -> None:
        self.name = path.name
        try:
            with open(path, "rb") as file:
                self.is_mapped = os.fstat(file.fileno()).st_size > SMALL_FILE_BYTES
                if not self.is_mapped:
                    self.bytes = np.frombuffer(file.read(), np.uint8)
                else:
                    self.bytes = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
            if not len(self.bytes):
                raise ValueError("empty")
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EIO):
                raise
            what = (
                "cannot be read" if isinstance(error, OSError) and error.errno == errno.EIO else "is missing or empty"
            )
            raise DamagedItemError(f"Damaged array {where}: file {path.name} {what}.") from error
        self.size = len(self.bytes)
        self._locate_chunks(where, layout, self.bytes)

    def part(self, offset: int, length: int) -> np.ndarray:
        """Bytes of the file."""
        return self.bytes[offset : offset + length]


class Layout:
    """Layout of the chunks of an array, from its metadata."""

    def __init__(self, metadata: dict[str, Any]) -> None:
        """Parse the metadata; raises ValueError for a layout that the mapped reader does not support."""
        outer = metadata["chunk_grid"]["configuration"]["chunk_shape"]
        codecs = metadata["codecs"]
        self.sharded = codecs[0]["name"] == "sharding_indexed"
        chunk = outer
        if self.sharded:
            if len(codecs) != 1 or codecs[0]["configuration"].get("index_location", "end") != "end":
                raise ValueError("sharding")
            chunk, codecs = codecs[0]["configuration"]["chunk_shape"], codecs[0]["configuration"]["codecs"]
        names = [codec["name"] for codec in codecs]
        if names not in (["bytes", "crc32c"], ["bytes", "zstd", "crc32c"]):
            raise ValueError(f"codecs {names}")
        if codecs[0].get("configuration", {}).get("endian", "little") != "little":
            raise ValueError("endianness")
        if list(chunk[1:]) != list(metadata["shape"][1:]) or list(outer[1:]) != list(metadata["shape"][1:]):
            raise ValueError("chunks along other axes than the first")
        if metadata["chunk_key_encoding"] != {"name": "default", "configuration": {"separator": "/"}}:
            raise ValueError("chunk keys")
        self.zstd = "zstd" in names
        self.rows_per_chunk = int(chunk[0])
        self.chunks_per_file = int(outer[0]) // int(chunk[0])
        self.index_bytes = 16 * self.chunks_per_file + 4
        if self.chunks_per_file < 1 or not all(type(size) is int and size >= 0 for size in metadata["shape"]):
            raise TypeError("sizes")
        if np.dtype(metadata["data_type"]).kind not in "biuf":
            raise TypeError("data type")
        axes = metadata.get("dimension_names") or []
        if not isinstance(axes, list) or len(axes) not in (0, len(metadata["shape"])):
            raise TypeError("dimension names")


@functools.lru_cache(maxsize=256)
def _parsed(raw: bytes) -> tuple[dict[str, Any], Layout]:
    """Parse the metadata of an array. Many items of a product have the same."""
    metadata = json.loads(raw)
    return metadata, Layout(metadata)


def _open_mapped(where: str, folder: Path, raw: bytes) -> ArrayReader | None:
    """Open an array on a disk; None for a layout that the mapped reader does not support."""
    return open_by_layout(where, raw, lambda metadata, layout: MappedArrayReader(where, folder, metadata, layout))


def open_by_layout(
    where: str, raw: bytes, reader: Callable[[dict[str, Any], Layout], ArrayReader]
) -> ArrayReader | None:
    """Open an array with a reader of chunks; None for a layout that only zarr-python supports.

    Raises:
        DamagedItemError: If `raw` is not the metadata of an array.
    """
    try:
        return reader(*_parsed(raw))
    except (KeyError, TypeError, IndexError, AttributeError, ArithmeticError, json.JSONDecodeError) as error:
        raise DamagedItemError(f"Damaged array {where}: its metadata is not that of an array ({error!r}).") from error
    except UnicodeDecodeError as error:
        raise DamagedItemError(f"Damaged array {where}: its metadata is not text ({error.reason}).") from error
    except ValueError:
        return None
