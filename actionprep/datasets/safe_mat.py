"""Read number and text arrays of Matlab files of strangers, with every length checked before it is used."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actionprep.errors import InputError, explained_read_errors

# Bytes that one variable may unpack to.
MAX_BYTES = 1 << 30

_MATRIX, _COMPRESSED = 14, 15
_STORED = {
    1: "i1",
    2: "u1",
    3: "i2",
    4: "u2",
    5: "i4",
    6: "u4",
    7: "f4",
    9: "f8",
    12: "i8",
    13: "u8",
    16: "u1",
    17: "u2",
}
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_TEXT = 4
_COMPLEX = 0x0800


def load_mat(path: str | Path) -> dict[str, NDArray[Any]]:
    """Read the real number arrays and texts of a Matlab 5 to 7 file.

    SciPy's reader is not used, because damaged files can end the process in it.

    Args:
        path: The file.

    Returns:
        Arrays by name, as Matlab shows them: two axes or more. A text is an array of one string per row. Cells, structs,
        objects, sparse and complex arrays are left out.

    Raises:
        InputError: If the file is damaged or of another version.
    """
    path = Path(path)
    with explained_read_errors(path):
        content = path.read_bytes()
    order = {b"IM": "<", b"MI": ">"}.get(content[126:128])
    if order is None:
        what = "a Matlab 7.3 file (HDF5)" if content[:8] == b"\x89HDF\r\n\x1a\n" else "of another kind, or damaged"
        raise InputError(f"{path} is not a readable Matlab file: it is {what}; Matlab 5 to 7 files are read.")
    arrays: dict[str, NDArray[Any]] = {}
    try:
        for kind, data in _elements(memoryview(content)[128:], order):
            if kind == _COMPRESSED:
                inner = list(_elements(memoryview(_unpacked(data)), order))
            else:
                inner = [(kind, data)]
            for inner_kind, matrix in inner:
                array = _matrix(matrix, order) if inner_kind == _MATRIX else None
                if array is not None:
                    arrays[array[0]] = array[1]
    except (ValueError, IndexError, struct.error, zlib.error, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a readable Matlab file: {error}.") from None
    return arrays


def _unpacked(data: memoryview) -> bytes:
    reader = zlib.decompressobj()
    content = reader.decompress(data, MAX_BYTES)
    if reader.unconsumed_tail:
        raise ValueError(f"a variable unpacks to more than {MAX_BYTES >> 20} MiB")
    if not reader.eof:
        raise ValueError("a packed variable breaks off")
    return content


def _elements(data: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """(type, content) of the elements that follow each other."""
    at = 0
    while at < len(data):
        kind, length = struct.unpack_from(f"{order}II", data, at)
        if kind >> 16:
            # A small element: its content stands in the tag.
            kind, length, begin = kind & 0xFFFF, kind >> 16, at + 4
            end, following = begin + length, at + 8
            if length > 4:
                raise ValueError(f"a small element at byte {at} declares {length} bytes")
        else:
            begin = at + 8
            end = begin + length
            following = end if kind == _COMPRESSED else begin + -(-length // 8) * 8
        if end > len(data):
            raise ValueError(f"an element at byte {at} declares {length} bytes, and {len(data) - begin} are left")
        yield kind, data[begin:end]
        at = following


def _matrix(data: memoryview, order: str) -> tuple[str, NDArray[Any]] | None:
    """Name and values of a variable, None for one that is neither numbers nor text."""
    if not len(data):
        return None
    parts = _elements(data, order)
    flags = int(_values(next(parts, (0, data[:0])), order)[0])
    code = flags & 0xFF
    if flags & _COMPLEX or (code not in _CLASSES and code != _TEXT):
        return None
    shape = tuple(int(extent) for extent in _values(next(parts, (0, data[:0])), order))
    name = _values(next(parts, (0, data[:0])), order).tobytes().decode("ascii")
    values = _values(next(parts, (0, data[:0])), order)
    if len(shape) < 2 or min(shape) < 0 or math.prod(shape) != len(values):
        raise ValueError(f"'{name}' declares the shape {shape} and has {len(values)} values")
    if code != _TEXT:
        return name, values.astype(_CLASSES[code]).reshape(shape, order="F")
    letters = [chr(int(value)) for value in values]
    rows = np.array(letters, dtype=object).reshape(shape, order="F").reshape(shape[0], -1 if letters else 0)
    return name, np.array(["".join(row) for row in rows if letters], dtype=np.str_)


def _values(element: tuple[int, memoryview], order: str) -> NDArray[Any]:
    kind, data = element
    if kind not in _STORED:
        raise ValueError(f"an element of type {kind} stands where numbers are expected")
    return np.frombuffer(data, np.dtype(order + _STORED[kind]))
