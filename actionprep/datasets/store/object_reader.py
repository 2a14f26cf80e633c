"""Read chunks of arrays in a bucket, with a request for each chunk of a large shard, and verify their checksums."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from actionprep.datasets.store.files import StoreFiles
from actionprep.datasets.store.object_files import ObjectFiles
from actionprep.datasets.store.reader import (
    SMALL_FILE_BYTES,
    ArrayReader,
    ChunkFile,
    DamagedItemError,
    Layout,
    MappedArrayReader,
    open_by_layout,
)

# The first request reads this much of the end of a shard: its index, or all of a small one.
_END_BYTES = 256 << 10


class ObjectArrayReader(MappedArrayReader):
    """An array in a bucket. Small files are kept; of large ones the chunks are read when they are asked for."""

    def __init__(self, where: str, files: ObjectFiles, place: str, metadata: dict[str, Any], layout: Layout) -> None:
        super().__init__(where, Path(place), metadata, layout)
        self._objects, self._place = files, place
        self._last: tuple[int, np.ndarray] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_last": None}

    def _chunk(self, chunk: int) -> np.ndarray:
        # Rows are often read in order, many from one chunk.
        if self._last is None or self._last[0] != chunk:
            self._last = chunk, super()._chunk(chunk)
        return self._last[1]

    def _open_file(self, file_index: int) -> ChunkFile:
        file = _ObjectFile(self.where, self._objects, f"{self._place}/c/{file_index}{self._tail}", self._layout)
        if file.is_kept or self._layout.sharded:
            self._files[file_index] = file
        return file


class _ObjectFile(ChunkFile):
    """An object with one chunk, or with a shard of them."""

    def __init__(self, where: str, files: ObjectFiles, path: str, layout: Layout) -> None:
        self._where, self._files, self._path = where, files, path
        self.name = path.rpartition("/")[2]
        if layout.sharded:
            read = files.read_end(path, max(_END_BYTES, layout.index_bytes))
        else:
            whole = files.read(path)
            read = None if whole is None else (whole, len(whole))
        if read is None or not read[0]:
            raise DamagedItemError(f"Damaged array {where}: file {self.name} is missing or empty.")
        end, self.size = np.frombuffer(read[0], np.uint8), read[1]
        self._whole = end if len(end) == self.size else None
        self.is_kept = self._whole is not None and self.size <= SMALL_FILE_BYTES
        self._locate_chunks(where, layout, end)

    def part(self, offset: int, length: int) -> np.ndarray:
        """Bytes of the object."""
        if self._whole is not None:
            return self._whole[offset : offset + length]
        content = self._files.read_range(self._path, offset, offset + length)
        if content is None or len(content) != length:
            raise DamagedItemError(f"Damaged array {self._where}: file {self.name} is missing or cut.")
        return np.frombuffer(content, np.uint8)


def open_object_array(where: str, files: StoreFiles, place: str, raw: bytes) -> ArrayReader | None:
    """Open an array in a bucket; None for a layout that only zarr-python supports."""
    if not isinstance(files, ObjectFiles):
        return None
    return open_by_layout(where, raw, lambda metadata, layout: ObjectArrayReader(where, files, place, metadata, layout))
