"""The hash of an array's values that digests are made of: fast enough not to be noticed while frames are written."""

from __future__ import annotations

import hashlib

import google_crc32c
import numpy as np

_PIECE = 64 << 10


class ContentHash:
    """SHA-256 over the CRC-32C of every 64 KiB of content, and its length.

    SHA-256 of the content itself takes as long as all else that writing frames takes. Every piece that differs is
    missed with a chance of one in four thousand million, which tells equal builds from unequal ones; it is no defense
    against somebody who forges content on purpose.
    """

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._crc = 0
        self._in_piece = 0
        self._length = 0

    def update(self, values: np.ndarray) -> None:
        """Take the next values, of any shape, in C order."""
        content = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        self._length += len(content)
        at = 0
        while at < len(content):
            part = content[at : at + _PIECE - self._in_piece]
            self._crc = google_crc32c.extend(self._crc, part)
            self._in_piece += len(part)
            at += len(part)
            if self._in_piece == _PIECE:
                self._hash.update(self._crc.to_bytes(4, "little"))
                self._crc = self._in_piece = 0

    def hexdigest(self) -> str:
        """The hash of what was taken so far."""
        whole = self._hash.copy()
        whole.update(self._crc.to_bytes(4, "little") + self._length.to_bytes(8, "little"))
        return whole.hexdigest()
