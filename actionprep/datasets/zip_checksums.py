"""Check the checksums of zip archives, for readers that do not: torch.load is one."""

from __future__ import annotations

import lzma
import struct
import zipfile
import zlib
from pathlib import Path

_PIECE = 1 << 20
# Attribute of MS-DOS by which other readers, unlike zipfile, recognize folders; PyTorch's then reads nothing.
_DIRECTORY = 0x10
# zipfile has no common error for archives with damaged headers.
_DAMAGED = (
    zipfile.BadZipFile, EOFError, LookupError, NotImplementedError, OSError, OverflowError, RuntimeError, ValueError,
    lzma.LZMAError, struct.error, zlib.error,
)  # fmt: skip


def zip_damage(path: Path) -> str | None:
    """Find damage in a zip archive: every member is read, in pieces, and compared with its CRC-32.

    Args:
        path: File to check.

    Returns:
        What is damaged, as a part of a sentence; None for an intact archive and for a file that is not a zip archive.
    """
    name = ""
    try:
        if not zipfile.is_zipfile(path):
            return None
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                name = member.filename
                if member.external_attr & _DIRECTORY and member.file_size:
                    raise zipfile.BadZipFile(f"the part {name!r} is marked as a folder and has content")
                with archive.open(member) as stream:
                    while stream.read(_PIECE):
                        pass
    except _DAMAGED as error:
        what = (
            f"its part {name!r} does not match its checksum"
            if "CRC" in str(error)
            else f"its archive is broken ({error})"
        )
        return f"{what}; bits changed after it was written"
    return None
