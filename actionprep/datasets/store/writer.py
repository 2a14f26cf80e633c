"""Write the arrays of one item: rows are hashed, split into chunks with checksums, and written as they arrive."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import google_crc32c
import numpy as np

from actionprep.datasets.store.digest import ContentHash
from actionprep.settings import canonical_json

Codec = Literal["raw", "zstd"]

# A shard is a file of many chunks, so that a store has few files; a request reads a part of it.
SHARD_BYTES = 32 << 20
# The index of a shard has an entry for each chunk, even if missing: this limits its size for tiny rows.
MAX_CHUNKS_PER_SHARD = 256
_ZSTD_LEVEL = 3
_ZSTD: dict[Codec, list[dict[str, Any]]] = {
    "raw": [],
    "zstd": [{"name": "zstd", "configuration": {"level": _ZSTD_LEVEL, "checksum": False}}],
}


class ItemWriter:
    """Writes the arrays and attributes of a new item; `Store.write` creates and commits it.

    The output is plain Zarr v3 (core specification; `sharding_indexed` with the index at the end, inner codecs `bytes`,
    optionally `zstd`, `crc32c`). Rows are written directly, because zarr-python copies full shards first, which takes as
    long as decoding the frames in them.

    Attributes:
        attributes: JSON values for the attributes of the group.
        array_metadata: SHA-256 of the zarr.json of each array by name, once the item is closed.
        nbytes: Bytes of array content so far.
        on_append: Called after each append, to note progress.
        hash_seconds: Time that was spent on the digest so far.
    """

    def __init__(self, folder: Path) -> None:
        self.attributes: dict[str, Any] = {}
        self.array_metadata: dict[str, str] = {}
        self.nbytes = 0
        self.on_append: Callable[[], None] | None = None
        self.hash_seconds = 0.0
        self._folder = str(folder)
        self._growing: dict[str, _Growing] = {}

    def create(
        self,
        name: str,
        *,
        shape: tuple[int, ...],
        dtype: Any,
        axes: tuple[str, ...],
        unit: str | None = None,
        chunk: int,
        codec: Codec = "raw",
        description: str = "",
    ) -> None:
        """Create an array that grows along its first axis.

        Args:
            name: Name of the array.
            shape: Shape without the first axis.
            dtype: Data type.
            axes: Names of all axes.
            unit: Unit of the values, if any.
            chunk: Rows per chunk. Chunks are packed into shards of at most about 32 MiB.
            codec: Compression of the chunks.
            description: Meaning of the values.
        """
        dtype = np.dtype(dtype)
        row_bytes = max(1, int(np.prod(shape, dtype=np.int64)) * dtype.itemsize)
        chunks_per_shard = max(1, min(SHARD_BYTES // (row_bytes * chunk), MAX_CHUNKS_PER_SHARD))
        self._growing[name] = _Growing(
            f"{self._folder}/{name}", shape, dtype, axes, unit, description, codec, chunk, chunks_per_shard
        )

    def append(self, name: str, rows: np.ndarray) -> None:
        """Append rows to an array of `create`; raises ValueError if their shape differs."""
        array = self._growing[name]
        rows = np.ascontiguousarray(rows, array.dtype)
        if rows.shape[1:] != array.shape:
            raise ValueError(f"Array '{name}' has rows of shape {array.shape}, not {rows.shape[1:]}.")
        self.hash_seconds += array.append(rows)
        self.nbytes += rows.nbytes
        if self.on_append is not None:
            self.on_append()

    def write(
        self,
        name: str,
        values: np.ndarray,
        *,
        axes: tuple[str, ...],
        unit: str | None = None,
        codec: Codec = "raw",
        description: str = "",
    ) -> None:
        """Write a complete array, as a single chunk if it is small; see `create` for the arguments."""
        values = np.asarray(values)
        if values.ndim == 0 or len(axes) != values.ndim:
            raise ValueError(f"Array '{name}' of shape {values.shape} needs one axis name per dimension, got {axes}.")
        row_bytes = max(1, values[:1].nbytes)
        chunk = max(1, min(max(len(values), 1), SHARD_BYTES // row_bytes))
        self._growing[name] = _Growing(
            f"{self._folder}/{name}", values.shape[1:], values.dtype, axes, unit, description, codec, chunk, None
        )
        self.append(name, values)

    def close(self) -> str:
        """Write pending rows and the metadata, and return the digest of all content."""
        digests = {}
        for name, array in self._growing.items():
            self.array_metadata[name] = array.finish()
            digests[name] = array.digest()
        return hashlib.sha256(canonical_json([digests, self.attributes]).encode()).hexdigest()


@dataclass
class _Growing:
    """An array that is being written.

    chunks_per_shard: None for an array with one file per chunk.
    """

    folder: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    axes: tuple[str, ...]
    unit: str | None
    description: str
    codec: Codec
    rows_per_chunk: int
    chunks_per_shard: int | None
    num_rows: int = 0
    num_chunks: int = 0
    pending: list[np.ndarray] = field(default_factory=list)
    num_pending: int = 0
    hash: ContentHash = field(default_factory=ContentHash)
    shard: _Shard | None = None
    folders: set[str] = field(default_factory=set)

    def append(self, rows: np.ndarray) -> float:
        """Hash rows and write the chunks that they complete; returns the seconds that hashing took."""
        begun = time.perf_counter()
        self.hash.update(rows)
        seconds = time.perf_counter() - begun
        self.num_rows += len(rows)
        at = 0
        while self.num_pending + len(rows) - at >= self.rows_per_chunk:
            used = self.rows_per_chunk - self.num_pending
            self._write_chunk([*self.pending, rows[at : at + used]])
            self.pending, self.num_pending = [], 0
            at += used
        if at < len(rows):
            self.pending.append(rows[at:])
            self.num_pending += len(rows) - at
        return seconds

    def finish(self) -> str:
        """Write the last chunk, padded with zeros, the last shard and the metadata; returns the SHA-256 of the metadata."""
        if self.num_pending:
            missing = self.rows_per_chunk - self.num_pending
            self._write_chunk([*self.pending, np.zeros((missing, *self.shape), self.dtype)])
            self.pending, self.num_pending = [], 0
        if self.shard is not None:
            self.shard.close()
            self.shard = None
        self._make(self.folder)
        text, sha256 = _metadata_text(
            (self.num_rows, *self.shape),
            self.dtype,
            self.axes,
            self.unit,
            self.description,
            self.codec,
            self.rows_per_chunk,
            self.chunks_per_shard,
        )
        # Buffered: a raw write may be short on a nearly full disk, without an error.
        with open(f"{self.folder}/zarr.json", "wb") as file:
            file.write(text)
        return sha256

    def digest(self) -> str:
        """Return the hash of shape, type, axes and content, which does not depend on chunks and codec."""
        return array_digest(self.hash.hexdigest(), (self.num_rows, *self.shape), self.dtype, self.axes, self.unit)

    def _write_chunk(self, parts: list[np.ndarray]) -> None:
        little = self.dtype.newbyteorder("<")
        payloads = [part.astype(little, copy=False).reshape(-1).view(np.uint8) for part in parts]
        if self.codec == "zstd":
            from numcodecs.zstd import compress

            whole = payloads[0] if len(payloads) == 1 else np.concatenate(payloads)
            payloads = [np.frombuffer(compress(whole, _ZSTD_LEVEL), np.uint8)]
        payloads.append(_crc32c(payloads))
        if self.chunks_per_shard is None:
            _add(self._file(self.num_chunks), payloads)
        else:
            index, place = divmod(self.num_chunks, self.chunks_per_shard)
            if self.shard is None:
                self.shard = _Shard(self._file(index), self.chunks_per_shard)
            self.shard.write(place, payloads)
            if place == self.chunks_per_shard - 1:
                self.shard.close()
                self.shard = None
        self.num_chunks += 1

    def _file(self, index: int) -> str:
        """Return the path of a file of chunks, c/0/0/0, and create its folders."""
        names = ("c", str(index), *["0"] * len(self.shape))
        folder = self.folder
        self._make(folder)
        for name in names[:-1]:
            folder = f"{folder}/{name}"
            self._make(folder)
        return f"{folder}/{names[-1]}"

    def _make(self, folder: str) -> None:
        if folder not in self.folders:
            os.mkdir(folder)
            self.folders.add(folder)


@functools.lru_cache(maxsize=256)
def _metadata_text(
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    axes: tuple[str, ...],
    unit: str | None,
    description: str,
    codec: Codec,
    rows_per_chunk: int,
    chunks_per_shard: int | None,
) -> tuple[bytes, str]:
    """Return the metadata of an array in Zarr v3 and its SHA-256. Items of a product mostly have the same."""
    chunk = [rows_per_chunk, *shape[1:]]
    # The checksum comes last, so that it covers the bytes on the disk.
    codecs: list[dict[str, Any]] = [_bytes_codec(dtype), *_ZSTD[codec], {"name": "crc32c"}]
    if chunks_per_shard is not None:
        inner = {
            "chunk_shape": chunk,
            "codecs": codecs,
            "index_codecs": [_bytes_codec(np.dtype(np.uint64)), {"name": "crc32c"}],
            "index_location": "end",
        }
        codecs = [{"name": "sharding_indexed", "configuration": inner}]
        chunk = [rows_per_chunk * chunks_per_shard, *shape[1:]]
    attributes = {"unit": unit, "description": description}
    metadata = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": np.zeros((), dtype).item(),
        "codecs": codecs,
        "attributes": {key: value for key, value in attributes.items() if value},
        "dimension_names": list(axes),
        "storage_transformers": [],
    }
    text = json.dumps(metadata, indent=1).encode()
    return text, hashlib.sha256(text).hexdigest()


def _bytes_codec(dtype: np.dtype[Any]) -> dict[str, Any]:
    return {"name": "bytes"} if dtype.itemsize == 1 else {"name": "bytes", "configuration": {"endian": "little"}}


class _Shard:
    """A file of chunks with an index at the end: pairs of uint64 offset and length, then crc32c."""

    def __init__(self, path: str, num_chunks: int) -> None:
        self._path = path
        self._index = np.full((num_chunks, 2), 2**64 - 1, "<u8")
        self._size = 0

    def write(self, place: int, payloads: list[np.ndarray]) -> None:
        length = sum(len(payload) for payload in payloads)
        _add(self._path, payloads)
        self._index[place] = self._size, length
        self._size += length

    def close(self) -> None:
        index = self._index.reshape(-1).view(np.uint8)
        _add(self._path, [index, _crc32c([index])], sync=True)


def _add(path: str, payloads: list[np.ndarray], *, sync: bool = False) -> None:
    # Opened for each write, so that an abandoned item leaves no file open.
    with open(path, "ab", buffering=0) as file:
        for payload in payloads:
            left = payload.data
            while left:
                left = left[file.write(left) :]
        if sync:
            # The item is synced when it is committed; a complete shard can be synced while others are written.
            os.fsync(file.fileno())


def _crc32c(payloads: list[np.ndarray]) -> np.ndarray:
    crc = 0
    for payload in payloads:
        crc = google_crc32c.extend(crc, payload)
    return np.frombuffer(crc.to_bytes(4, "little"), np.uint8)


def array_digest(
    values_hash: str, shape: tuple[int, ...], dtype: np.dtype[Any], axes: tuple[str, ...], unit: str | None
) -> str:
    """Compute the digest of an array from the hash of its values; `verify` compares it with the recorded one."""
    facts = canonical_json([list(shape), dtype.str, list(axes), unit, values_hash])
    return hashlib.sha256(facts.encode()).hexdigest()
