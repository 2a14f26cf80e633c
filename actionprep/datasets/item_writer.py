"""Write the arrays of one item: rows are gathered into whole shards, hashed, and written once."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from actionprep.settings import canonical_json

if TYPE_CHECKING:
    import zarr

Codec = Literal["raw", "zstd"]

# A shard is what one request of a remote store fetches a part of, and what memory holds while it is gathered.
SHARD_BYTES = 32 << 20
# A shard's index has an entry for each of its chunks, there or not: this bounds it for tiny rows.
MAX_CHUNKS_PER_SHARD = 256


class ItemWriter:
    """Arrays and attributes of an item that is being made; `Store.write` hands it out and commits it.

    attributes: JSON values that go into the group beside the arrays.
    """

    def __init__(self, group: zarr.Group) -> None:
        self.attributes: dict[str, Any] = {}
        self._group = group
        self._growing: dict[str, _Growing] = {}
        self._digests: dict[str, str] = {}
        self.nbytes = 0

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
        """Begin an array that grows along its first axis.

        shape: without the first axis. axes: names of all axes. chunk: rows of a chunk. Chunks fill shards of about 32 MiB.
        """
        dtype = np.dtype(dtype)
        row_bytes = max(1, int(np.prod(shape, dtype=np.int64)) * dtype.itemsize)
        chunks_per_shard = max(1, min(SHARD_BYTES // (row_bytes * chunk), MAX_CHUNKS_PER_SHARD))
        self._growing[name] = _Growing(
            name, shape, dtype, axes, unit, description, codec, chunk, chunk * chunks_per_shard
        )

    def append(self, name: str, rows: np.ndarray) -> None:
        """Add rows to an array that `create` began."""
        array = self._growing[name]
        rows = np.ascontiguousarray(rows, array.dtype)
        if rows.shape[1:] != array.shape:
            raise ValueError(f"Array '{name}' has rows of shape {array.shape}, not {rows.shape[1:]}.")
        array.pending.append(rows)
        array.num_pending += len(rows)
        while array.num_pending >= array.rows_per_shard:
            self._flush(array, array.take(array.rows_per_shard))

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
        """Write a whole array at once, as one chunk where it is small."""
        values = np.asarray(values)
        if values.ndim == 0 or len(axes) != values.ndim:
            raise ValueError(f"Array '{name}' of shape {values.shape} needs one axis name a dimension, not {axes}.")
        row_bytes = max(1, values[:1].nbytes)
        chunk = max(1, min(max(len(values), 1), SHARD_BYTES // row_bytes))
        self._growing[name] = _Growing(
            name, values.shape[1:], values.dtype, axes, unit, description, codec, chunk, chunk, sharded=False
        )
        self.append(name, values)

    def close(self) -> str:
        """Write what is pending; returns the digest of all content."""
        for array in self._growing.values():
            if array.num_pending or array.stored is None:
                self._flush(array, array.take(array.num_pending))
            self._digests[array.name] = array.digest()
        return hashlib.sha256(canonical_json([self._digests, self.attributes]).encode()).hexdigest()

    def _flush(self, array: _Growing, rows: np.ndarray) -> None:
        if array.stored is None:
            array.stored = self._create(array, len(rows))
        elif len(rows):
            array.stored.resize((array.num_written + len(rows), *array.shape))
        if len(rows):
            array.stored[array.num_written : array.num_written + len(rows)] = rows
        array.hash.update(rows.reshape(-1).view(np.uint8))
        array.num_written += len(rows)
        self.nbytes += rows.nbytes

    def _create(self, array: _Growing, num_rows: int) -> zarr.Array:
        from zarr.codecs import Crc32cCodec, ZstdCodec

        attributes = {"unit": array.unit, "description": array.description}
        return self._group.create_array(
            array.name,
            shape=(num_rows, *array.shape),
            chunks=(array.rows_per_chunk, *array.shape),
            shards=(array.rows_per_shard, *array.shape) if array.sharded else None,
            dtype=array.dtype,
            # The checksum comes last so that it covers what lies on the disk.
            compressors=[ZstdCodec(level=3), Crc32cCodec()] if array.codec == "zstd" else [Crc32cCodec()],
            fill_value=0,
            dimension_names=array.axes,
            attributes={key: value for key, value in attributes.items() if value},
            # A chunk that is all zeros is written too: a missing file must always mean damage.
            config={"write_empty_chunks": True},
        )


@dataclass
class _Growing:
    """An array on its way to the disk."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    axes: tuple[str, ...]
    unit: str | None
    description: str
    codec: Codec
    rows_per_chunk: int
    rows_per_shard: int
    sharded: bool = True
    stored: Any = None
    num_written: int = 0
    num_pending: int = 0
    pending: list[np.ndarray] = field(default_factory=list)
    hash: Any = field(default_factory=hashlib.sha256)

    def take(self, count: int) -> np.ndarray:
        """The next `count` pending rows in one array."""
        if len(self.pending) == 1 and len(self.pending[0]) == count:
            taken = self.pending.pop()
            self.num_pending = 0
            return taken
        taken = np.empty((count, *self.shape), self.dtype)
        at = 0
        while at < count:
            rows = self.pending[0]
            used = rows[: count - at]
            taken[at : at + len(used)] = used
            at += len(used)
            if len(used) == len(rows):
                self.pending.pop(0)
            else:
                self.pending[0] = rows[len(used) :]
        self.num_pending -= count
        return taken

    def digest(self) -> str:
        """Hash of shape, type, axes and content, whatever the chunks and codec."""
        return array_digest(self.hash.hexdigest(), (self.num_written, *self.shape), self.dtype, self.axes, self.unit)


def array_digest(
    values_hash: str, shape: tuple[int, ...], dtype: np.dtype[Any], axes: tuple[str, ...], unit: str | None
) -> str:
    """The digest of an array from the hash of its values; `verify` compares it with what the writer noted."""
    facts = canonical_json([list(shape), dtype.str, list(axes), unit, values_hash])
    return hashlib.sha256(facts.encode()).hexdigest()
