"""Frames on disk: the schema of the product `frames`, its writer and its reader."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from actionprep.datasets.products.schema import Array, Product
from actionprep.datasets.store.reader import DamagedItemError

if TYPE_CHECKING:
    from actionprep.datasets.store.reader import ItemReader
    from actionprep.datasets.store.writer import ItemWriter

STATUS_MEANINGS = {
    0: "decoded",
    1: "concealed (the decoder reported damage)",
    2: "missing (repeats the last good frame)",
    3: "letterboxed (its size differs from the first frame)",
    4: "first after a jump of the clock",
}
"""Meaning of each value of the array `status`."""

RGB = Array("rgb", "uint8", ("time", "y", "x", "channel"), None, "frames, RGB, full range", chunk=8)
TIME = Array("time", "float64", ("time",), "s", "frame times on the recording's clock")
STATUS = Array("status", "uint8", ("time",), None, ", ".join(f"{key} {text}" for key, text in STATUS_MEANINGS.items()))
INDEX = Array("index", "int64", ("time",), None, "position in the video, from 0")

_LETTERBOXED = 3

FRAMES = Product(
    "frames",
    (
        replace(RGB, note="storage `raw`, or `zstd`"),
        Array("jpeg", "uint8", ("byte",), None, "JPEG files in a row", 1 << 20, "storage `jpeg`, instead of `rgb`"),
        Array("jpeg_end", "int64", ("time",), None, "end of the bytes of each frame", 1 << 13, "storage `jpeg`"),
        TIME,
        STATUS,
        INDEX,
    ),
    {
        "which": "frames that are stored: all, keyframes or segments",
        "storage": "raw, zstd or jpeg",
        "height": "height of the stored frames in pixels",
        "width": "width of the stored frames in pixels",
        "source_height": "height of the video in pixels",
        "source_width": "width of the video in pixels",
        "num_frames": "number of frames of the video",
        "num_letterboxed": "number of letterboxed frames; present if there are any",
    },
)


def write_times(item: ItemWriter, times: list[np.ndarray], status: list[np.ndarray]) -> None:
    """Write times and status of the frames of an item, and count letterboxed frames in its attributes.

    Args:
        item: Item to write to.
        times: Times in seconds on the recording's clock, one array per block.
        status: Status of each frame, likewise (see `STATUS_MEANINGS`).
    """
    TIME.write(item, np.concatenate([*times, np.zeros(0)]))
    all_status = np.concatenate([*status, np.zeros(0, np.uint8)])
    STATUS.write(item, all_status)
    if num_letterboxed := int((all_status == _LETTERBOXED).sum()):
        item.attributes["num_letterboxed"] = num_letterboxed


def read_frames(item: ItemReader, rows: slice | np.ndarray | list[int] = slice(None)) -> np.ndarray:
    """Read stored frames, whichever way they are stored.

    Args:
        item: Item of the product `frames`.
        rows: Positions in the item. They are frame indices of the video only if all frames are stored; `item["index"]`
            has the frame indices.

    Returns:
        RGB frames, uint8 of shape (N, H, W, 3).

    Raises:
        DamagedItemError: If a JPEG does not decode.
    """
    if "rgb" in item:
        return item["rgb"][rows]
    import cv2

    ends = item["jpeg_end"][:]
    positions = np.arange(len(ends))[rows]
    starts = np.concatenate([[0], ends[:-1]])
    out = np.empty((len(positions), item.attributes["height"], item.attributes["width"], 3), np.uint8)
    for image, row in zip(out, positions, strict=True):
        decoded = cv2.imdecode(item["jpeg"][int(starts[row]) : int(ends[row])], cv2.IMREAD_COLOR)
        if decoded is None or decoded.shape != image.shape:
            raise DamagedItemError(f"Damaged item {item.where}: the JPEG of frame {row} does not decode.")
        cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB, image)
    return out
