"""Masks on disk: the schema of the product `masks`, its writer and its reader."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from actionprep.datasets.products.schema import Array, Product

if TYPE_CHECKING:
    from actionprep.datasets.store.reader import ItemReader
    from actionprep.datasets.store.writer import ItemWriter

FOREGROUND = Array(
    "foreground",
    "uint8",
    ("frame", "y", "x_packed"),
    None,
    "1 where a pixel is foreground; 8 pixels of a row to a byte, leftmost in the highest bit",
    chunk=32,
)
AREA = Array("area", "float32", ("frame",), None, "share of the frame that is foreground", chunk=4096)

MASKS = Product(
    "masks",
    (FOREGROUND, AREA),
    {
        "source": "mask source",
        "width": "width of the masks in pixels",
        "num_frames": "number of frames",
        "num_empty": "number of frames without foreground",
        "is_empty": "whether no frame has foreground",
        "num_missing": "number of frames without a mask; for mask files",
        "num_resized": "number of masks that were scaled to the frames; for mask files",
        "num_unused": "number of masks without a frame; for mask files",
        "num_mostly_foreground": "number of frames with more than 60 % foreground; for motion, if there are any",
        "num_uncompensated": "number of frames without an estimate of camera motion; for motion, if there are any",
    },
)


def create_masks(item: ItemWriter, *, height: int, width: int) -> None:
    """Begin the arrays of an item.

    Args:
        item: Item to write to.
        height: Height of the masks in pixels.
        width: Width of the masks in pixels.
    """
    FOREGROUND.create(item, (height, -(-width // 8)), codec="zstd")
    AREA.create(item)


def append_masks(item: ItemWriter, foreground: np.ndarray) -> np.ndarray:
    """Append masks to an item.

    Args:
        item: Item to write to.
        foreground: Masks of shape (T, H, W), bool.

    Returns:
        Share of each frame that is foreground, shape (T,), float32.
    """
    pixels = np.array([np.count_nonzero(mask) for mask in foreground])
    area = pixels.astype(np.float32) / np.float32(foreground[0].size)
    item.append(FOREGROUND.name, pack_masks(foreground))
    item.append(AREA.name, area)
    return area


def read_masks(item: ItemReader, rows: int | slice | np.ndarray = slice(None)) -> np.ndarray:
    """Read masks.

    Args:
        item: Item of the product `masks`.
        rows: Frames to read.

    Returns:
        Masks of shape (T, H, W), bool; (H, W) for a single frame.
    """
    return unpack_masks(item[FOREGROUND.name][rows], int(item.attributes["width"]))


def pack_masks(foreground: np.ndarray) -> np.ndarray:
    """Pack 8 pixels of a row into a byte.

    Args:
        foreground: Masks of shape (..., H, W), bool.

    Returns:
        Packed masks of shape (..., H, ceil(W / 8)), uint8.
    """
    return np.packbits(foreground, axis=-1)


def unpack_masks(packed: np.ndarray, width: int) -> np.ndarray:
    """Unpack masks that `pack_masks` packed.

    Args:
        packed: Packed masks of shape (..., H, ceil(W / 8)), uint8.
        width: Width W of the masks in pixels.

    Returns:
        Masks of shape (..., H, W), bool.

    Raises:
        ValueError: If rows of that width are packed into another number of bytes.
    """
    if packed.shape[-1] != -(-width // 8):
        raise ValueError(f"Masks {width} px wide are packed into {-(-width // 8)} bytes a row, not {packed.shape[-1]}.")
    return np.unpackbits(packed, axis=-1, count=width).view(bool)
