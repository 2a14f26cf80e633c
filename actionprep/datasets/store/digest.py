"""Hash the values of an array for digests, fast enough for writing frames."""

from __future__ import annotations

import hashlib

import google_crc32c
import numpy as np

_PIECE = 64 << 10


class ContentHash:
    """SHA-256 over the CRC-32C of every 64 KiB of content, and its length.

    SHA-256 of the content itself would double the time of writing frames. A changed piece is missed with a probability
    of 1 in 2³². That suffices to compare builds. It does not protect against forged content.
    """

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._crc = 0
        self._in_piece = 0
        self._length = 0

    def update(self, values: np.ndarray) -> None:
        """Add values of any shape, in C order."""
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
        """Return the hash of all values so far."""
        whole = self._hash.copy()
        whole.update(self._crc.to_bytes(4, "little") + self._length.to_bytes(8, "little"))
        return whole.hexdigest()
