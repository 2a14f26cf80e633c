"""Compute the size of images that are shrunk."""

from __future__ import annotations


def by_short_side(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Return the size of the same aspect ratio with this short side.

    The long side is rounded to an even number, because most video stores chroma for pairs of pixels and odd sizes scale
    more slowly.

    Args:
        height: Height in pixels.
        width: Width in pixels.
        short_side: Short side of the result in pixels.

    Returns:
        Height and width in pixels.
    """
    scale = short_side / min(height, width)
    long_side = max(short_side, 2 * round(max(height, width) * scale / 2))
    return (short_side, long_side) if height <= width else (long_side, short_side)
