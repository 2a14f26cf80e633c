"""Small copies of all frames on disk: the schema of the product `lowres`."""

from __future__ import annotations

from dataclasses import replace

from actionprep.datasets.products.frames import FRAMES, RGB, STATUS, TIME
from actionprep.datasets.products.schema import Array, Product

SIZED_RGB = replace(
    RGB,
    name="rgb_<size>",
    chunk=16,
    note="one array per setting of `sizes`: the short side in pixels, or both sides of a square",
)

LOWRES = Product(
    "lowres",
    (SIZED_RGB, TIME, STATUS),
    {
        "sizes": "height and width in pixels, by name of the array",
        "source_height": "height of the video in pixels",
        "source_width": "width of the video in pixels",
        "crop": "left and top edge and side of the square in the video in pixels; present if `crop` is set",
        "num_letterboxed": FRAMES.attributes["num_letterboxed"],
    },
)


def rgb_array(size: int) -> Array:
    """Return the schema of the array for one setting of `sizes`."""
    return replace(SIZED_RGB, name=f"rgb_{size}")
