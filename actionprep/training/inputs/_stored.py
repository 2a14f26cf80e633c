"""Checks that stored pictures are what models of pictures expect."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from actionprep.errors import UserError

if TYPE_CHECKING:
    from actionprep.datasets.store.zarr_store import ItemReader


def checked_size(item: ItemReader, name: str) -> tuple[int, int]:
    """(H, W) of an array of pictures; raises UserError unless it holds RGB bytes (T, H, W, 3)."""
    array = item[name]
    if array.dtype != np.uint8 or len(array.shape) != 4 or array.shape[-1] != 3:
        raise UserError(
            f"{item.where}/{name} holds {array.dtype} of shape {tuple(array.shape)}, and pictures are expected to be uint8 "
            "(T, H, W, 3), RGB from 0 to 255. Was it written by another program? Make it anew with 'actionprep build "
            f"{item.where.partition('/')[0]}'."
        )
    return int(array.shape[1]), int(array.shape[2])
