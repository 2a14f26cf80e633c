"""Check the form of stored frames."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from actionprep.errors import UserError

if TYPE_CHECKING:
    from actionprep.datasets.store.reader import ItemReader


def checked_size(item: ItemReader, name: str) -> tuple[int, int]:
    """Return the height and width of an array of frames.

    Raises:
        UserError: Unless the array is uint8 RGB of shape (T, H, W, 3).
    """
    array = item[name]
    if array.dtype != np.uint8 or len(array.shape) != 4 or array.shape[-1] != 3:
        raise UserError(
            f"{item.where}/{name} has dtype {array.dtype} and shape {tuple(array.shape)}; expected uint8 frames of shape "
            "(T, H, W, 3), RGB from 0 to 255. It was probably written by another program. Create it again with 'actionprep "
            f"build {item.where.partition('/')[0]}'."
        )
    return int(array.shape[1]), int(array.shape[2])
