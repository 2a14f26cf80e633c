"""Sizes of pictures that are made smaller."""

from __future__ import annotations


def by_short_side(height: int, width: int, short_side: int) -> tuple[int, int]:
    """(height, width) of the same shape with this short side; the long side is the nearest even number.

    Even, because chroma of most video is stored for pairs of pixels, and odd sizes take a slower way through scaling.
    """
    scale = short_side / min(height, width)
    long_side = max(short_side, 2 * round(max(height, width) * scale / 2))
    return (short_side, long_side) if height <= width else (long_side, short_side)
