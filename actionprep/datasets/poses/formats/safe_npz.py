"""Read npz files of strangers: no pickles, and the declared sizes are checked before any memory is taken."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

from numpy.lib import format as npy
from numpy.typing import NDArray

from actionprep.errors import InputError, UserError

GIB = 1 << 30


def load_npz(
    path: str | Path, names: Iterable[str] | None = None, *, max_bytes: int = 8 * GIB
) -> dict[str, NDArray[Any]]:
    """All arrays of an npz file, or those named.

    Every member's header is read first: shape times item size must equal what the zip says it unpacks to, and all
    wanted members together must stay within max_bytes. Arrays of Python objects are refused: loading them would run a
    pickle.

    Raises UserError when there is no such file; InputError when it is damaged, too large or holds objects, naming
    the member.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"No npz file at {path}.")
    wanted = None if names is None else list(names)
    try:
        with zipfile.ZipFile(path) as archive:
            members = {
                info.filename.removesuffix(".npy"): info
                for info in archive.infolist()
                if info.filename.endswith(".npy")
            }
            missing = [name for name in wanted or () if name not in members]
            if missing:
                raise InputError(
                    f"{path} holds no array '{missing[0]}'. It holds {', '.join(sorted(members)) or 'none'}."
                )
            chosen = {name: info for name, info in members.items() if wanted is None or name in wanted}
            total = 0
            for name, info in chosen.items():
                with archive.open(info) as stream:
                    total += _declared(stream, info, name, path)
                if total > max_bytes:
                    raise InputError(
                        f"{path} declares {total / GIB:.1f} GiB of arrays up to '{name}'; the limit is "
                        f"{max_bytes / GIB:.1f} GiB. "
                        "Nothing was unpacked. Raise max_bytes if the file is right."
                    )
            loaded = {}
            for name, info in chosen.items():
                with archive.open(info) as stream:
                    loaded[name] = npy.read_array(stream, allow_pickle=False)
            return loaded
    # The last one is zipfile's word for a compression that it does not know.
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError) as error:
        raise InputError(f"{path} is not a sound npz file: {error}.") from None


def _declared(stream: IO[bytes], info: zipfile.ZipInfo, name: str, path: Path) -> int:
    version = npy.read_magic(stream)
    read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
    if read_header is None:
        raise InputError(f"Array '{name}' in {path} has the npy version {version}; versions 1.0 and 2.0 are read.")
    shape, _, dtype = read_header(stream)
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
