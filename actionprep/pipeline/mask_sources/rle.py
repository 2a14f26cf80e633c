"""Decode run-length encoded masks of COCO and CVAT."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

MOST_PIXELS = 1 << 26
"""Largest number of pixels of a mask. No video has larger frames, so a file that declares more is damaged or hostile."""


def decode_coco(rle: Any) -> np.ndarray:
    """Decode a mask in COCO's form: `size` as [height, width], and `counts` as a list or as compressed text.

    Runs go down the columns and begin with background.

    Returns:
        The mask, bool of shape (H, W).

    Raises:
        ValueError: If it is damaged; the message says how.
    """
    size = rle.get("size")
    if not (isinstance(size, list) and len(size) == 2 and all(isinstance(n, (int, float)) for n in size)):
        raise ValueError(f"expected the size as [height, width], got {size!r:.60}")
    height, width = int(size[0]), int(size[1])
    counts = rle.get("counts")
    if isinstance(counts, str):
        counts = uncompressed(counts)
    elif not (isinstance(counts, list) and all(isinstance(n, int) for n in counts)):
        raise ValueError(f"expected counts as text or a list of integers, got {type(counts).__name__}")
    return _filled(counts, width, height).T


def decode_cvat(counts: str, height: int, width: int) -> np.ndarray:
    """Decode the `rle` of a CVAT mask: runs along the rows of its box, beginning with background.

    Args:
        counts: Integers separated by commas.
        height: Height of the box in pixels.
        width: Width of the box in pixels.

    Returns:
        The mask of the box, bool of shape (H, W).

    Raises:
        ValueError: If it is damaged; the message says how.
    """
    return _filled([int(number) for number in counts.split(",")], height, width)


def uncompressed(text: str) -> list[int]:
    """Return the runs in COCO's compressed text.

    Each number takes groups of 5 bits, lowest first, as characters from "0" on. Bit 5 states that more groups follow.
    From the third run on, a number is the difference from the run before the last one.

    Raises:
        ValueError: If the text is damaged.
    """
    counts: list[int] = []
    value = shift = 0
    for position, letter in enumerate(text):
        bits = ord(letter) - 48
        if not 0 <= bits < 64 or shift > 30:
            raise ValueError(f"character {position} of the compressed counts is damaged")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError("the compressed counts are cut off")
    return counts


def _filled(counts: Sequence[int], rows: int, columns: int) -> np.ndarray:
    """Fill runs row by row into a mask of shape (rows, columns)."""
    if not (rows > 0 and columns > 0 and rows * columns <= MOST_PIXELS):
        raise ValueError(f"a mask of {rows} x {columns} pixels is not possible")
    runs = np.array(counts, np.int64) if counts else np.zeros(0, np.int64)
    if (runs < 0).any() or int(runs.sum()) != rows * columns:
        raise ValueError(f"its runs cover {int(runs.sum())} pixels, and the mask has {rows * columns}")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(rows, columns)
