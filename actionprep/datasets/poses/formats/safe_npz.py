"""Read untrusted npz files: without pickles, and with the declared sizes checked before memory is allocated."""

from __future__ import annotations

import lzma
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from actionprep.errors import InputError, UserError, explained_read_errors

GIB = 1 << 30

# Maximum compression ratio of arrays that unpack to more than this. Poses compress 2 to 20 times, zeros 1000 times.
FREE_BYTES = GIB // 4
MAX_RATIO = 64

# Exceptions of zipfile, its codecs and NumPy's header parser for damaged content.
_DAMAGE = (
    *(
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        struct.error,
        tokenize.TokenError,
        EOFError,
        OSError,
        SyntaxError,
    ),
    *(ValueError, TypeError, KeyError, IndexError, OverflowError, MemoryError, NotImplementedError, RuntimeError),
)


def load_npz(
    path: str | Path, names: Iterable[str] | None = None, *, max_bytes: int = 8 * GIB
) -> dict[str, NDArray[Any]]:
    """Load the arrays of an npz file.

    The headers of all members are checked before memory is allocated: the size of each array must equal the unpacked size
    in the zip directory. Arrays of Python objects are an error, because loading them would run a pickle.

    Args:
        path: The file.
        names: Names of the arrays to load; None for all.
        max_bytes: Maximum total size of the arrays in bytes.

    Returns:
        Arrays by name.

    Raises:
        UserError: If the file does not exist.
        InputError: If the file is damaged, too large or encrypted, or contains Python objects; names the array.
    """
    path = Path(path)
    wanted = None if names is None else list(names)
    with _members(path) as (archive, members):
        missing = [name for name in wanted or () if name not in members]
        if missing:
            raise InputError(f"{path} holds no array '{missing[0]}'. It holds {', '.join(sorted(members)) or 'none'}.")
        chosen = {name: info for name, info in members.items() if wanted is None or name in wanted}
        total = packed = 0
        for name, info in chosen.items():
            if info.flag_bits & 1:
                raise InputError(f"Array '{name}' in {path} is encrypted. Save the file without a password.")
            with archive.open(info) as stream:
                total += _declared(stream, info, name, path)
            packed += info.compress_size
            if total > max_bytes:
                raise InputError(
                    f"{path} declares {total / GIB:.1f} GiB of arrays up to '{name}'; the limit is "
                    f"{max_bytes / GIB:.1f} GiB. "
                    "Nothing was unpacked. Raise max_bytes if the file is right."
                )
        if total > max(FREE_BYTES, MAX_RATIO * packed):
            raise InputError(
                f"{path} declares {total / GIB:.2f} GiB of arrays in {packed / 1e6:.1f} MB, {total / max(packed, 1):.0f} "
                f"times as much; the limit is {MAX_RATIO} times. Nothing was unpacked. If the file is right, save it with "
                "numpy.savez, which does not pack."
            )
        loaded = {}
        for name, info in chosen.items():
            with archive.open(info) as stream:
                loaded[name] = npy.read_array(stream, allow_pickle=False)
        return loaded


def npz_names(path: str | Path) -> tuple[str, ...]:
    """List the names of the arrays in an npz file without reading them; raises errors as `load_npz`."""
    with _members(Path(path)) as (_, members):
        return tuple(members)


@dataclass(frozen=True, slots=True)
class NpzMember:
    """An array of an npz file, as its headers describe it.

    Attributes:
        shape: Shape of the array.
        dtype: Data type of the array.
        crc32: CRC-32 of the npy file in the archive. Reading the array checks it.
        num_bytes: Size of the npy file.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    crc32: int
    num_bytes: int


def npz_members(path: str | Path) -> dict[str, NpzMember]:
    """Read the headers of all arrays of an npz file, without their values.

    Raises:
        UserError: If there is no such file.
        InputError: If the file is damaged, or has arrays of Python objects.
    """
    path = Path(path)
    entries = {}
    with _members(path) as (archive, members):
        for name, info in members.items():
            with archive.open(info) as stream:
                _declared(stream, info, name, path)
            with archive.open(info) as stream:
                shape, _, dtype = read_npy_header(stream, f"Array '{name}' in {path}")
            entries[name] = NpzMember(shape, dtype, info.CRC, info.file_size)
    return entries


def read_npy_header(stream: IO[bytes], where: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read the header of an npy stream.

    Args:
        stream: At the beginning of the array.
        where: The array and its file, for messages.

    Returns:
        Shape, whether the order is Fortran's, and data type.

    Raises:
        InputError: If the header is damaged, of another version, or declares a negative extent.
    """
    try:
        version = npy.read_magic(stream)
        read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
        if read_header is None:
            raise InputError(f"{where} has the npy version {version}; versions 1.0 and 2.0 are read.")
        shape, fortran, dtype = read_header(stream)
    except _DAMAGE as error:
        raise InputError(f"{where} does not hold a numpy array: {error}.") from None
    if any(extent < 0 for extent in shape):
        raise InputError(f"{where} declares the shape {shape}, with a negative extent.")
    return shape, fortran, dtype


@contextmanager
def _members(path: Path) -> Iterator[tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]]:
    if not path.is_file():
        raise UserError(f"No npz file at {path}.")
    try:
        with explained_read_errors(path), zipfile.ZipFile(path) as archive:
            yield (
                archive,
                {
                    info.filename.removesuffix(".npy"): info
                    for info in archive.infolist()
                    if info.filename.endswith(".npy")
                },
            )
    except _DAMAGE as error:
        if isinstance(error, UserError):
            raise
        raise InputError(f"{path} is not a sound npz file: {error}.") from None


def _declared(stream: IO[bytes], info: zipfile.ZipInfo, name: str, path: Path) -> int:
    shape, _, dtype = read_npy_header(stream, f"Array '{name}' in {path}")
    if dtype.hasobject:
        raise InputError(
            f"Array '{name}' in {path} holds Python objects, which only a pickle could load, and pickles can run code. "
            "Save it as numbers or strings."
        )
    size = math.prod(shape) * dtype.itemsize
    if stream.tell() + size != info.file_size:
        raise InputError(
            f"Array '{name}' in {path} declares {size} bytes, shape {shape} of {dtype}, "
            f"but the archive holds {info.file_size - stream.tell()} bytes for it. The file is damaged or forged."
        )
    return size
