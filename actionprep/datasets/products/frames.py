"""Read stored frames, whichever way they are stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from actionprep.datasets.store.reader import DamagedItemError

if TYPE_CHECKING:
    from actionprep.datasets.store.reader import ItemReader


def read_frames(item: ItemReader, rows: slice | np.ndarray | list[int] = slice(None)) -> np.ndarray:
    """(n, H, W, 3) uint8 RGB: these rows of a product `frames`.

    rows: positions in the item, which are frame indices of the video only where all frames are stored; `item["index"]`
    has those. Raises DamagedItemError for a JPEG that does not decode.
    """
    if "rgb" in item:
        return item["rgb"][rows]
    import cv2

    ends = item["jpeg_end"][:]
    positions = np.arange(len(ends))[rows]
    starts = np.concatenate([[0], ends[:-1]])
    out = np.empty((len(positions), item.attributes["height"], item.attributes["width"], 3), np.uint8)
    for at, row in enumerate(positions):
        picture = cv2.imdecode(item["jpeg"][int(starts[row]) : int(ends[row])], cv2.IMREAD_COLOR)
        if picture is None or picture.shape != out.shape[1:]:
            raise DamagedItemError(f"Damaged item {item.where}: the JPEG of frame {row} does not decode.")
        cv2.cvtColor(picture, cv2.COLOR_BGR2RGB, out[at])
    return out
