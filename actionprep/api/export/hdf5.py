"""Write the items of a store to one HDF5 file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from actionprep.api.export._targets import Progress, chosen_views
from actionprep.errors import UserError

if TYPE_CHECKING:
    from actionprep.datasets.store.keys import ItemKey
    from actionprep.datasets.store.zarr_store import Store


@dataclass(frozen=True)
class Hdf5Export:
    """What `export_hdf5` wrote.

    Attributes:
        path: The file.
        items: Number of items by product.
        written: False if the file was there already, with the same content.
        num_bytes: Size of the file.
    """

    path: Path
    items: dict[str, int]
    written: bool
    num_bytes: int


def export_hdf5(
    store: Store | str | Path,
    path: str | Path,
    *,
    products: Sequence[str] | None = None,
    views: Sequence[str | int] | None = None,
    compress: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Hdf5Export:
    """Write the items of a store to one HDF5 file, with the groups, arrays and attributes of the store.

    Args:
        store: Store to read.
        path: File to write. It appears when it is complete.
        products: Products to write; None: all that training reads, with snippets and splits.
        views: Views by name or number; None: all.
        compress: Compress the arrays with gzip, without loss.
        overwrite: Replace a file with other content.
        progress: Called after each item.

    Returns:
        The counts. A file with the same items stays as it is.

    Raises:
        UserError: If the store lacks a product or view, or if the file exists with other content.
    """
    from actionprep.datasets.store.hdf5_store import write_hdf5
    from actionprep.datasets.store.opening import open_store

    store, path = open_store(store).snapshot(), Path(path)
    keys = _chosen_items(store, products, views)
    counts: dict[str, int] = {}
    for key in keys:
        counts[key.product] = counts.get(key.product, 0) + 1
    if os.path.lexists(path):
        if _has_items(path, store, keys):
            return Hdf5Export(path, counts, False, path.stat().st_size)
        if not overwrite or path.is_dir():
            raise UserError(
                f"{path} exists, and is {'a folder' if path.is_dir() else 'not an export of the same items'}. "
                f"{'' if path.is_dir() else 'Replace it with --overwrite, or '}{'C' if path.is_dir() else 'c'}hoose another "
                "name."
            )
    return Hdf5Export(path, counts, True, write_hdf5(path, store, keys, compress=compress, progress=progress))


def _chosen_items(store: Store, products: Sequence[str] | None, views: Sequence[str | int] | None) -> list[ItemKey]:
    from actionprep.errors import nearest
    from actionprep.training.inputs.base import INPUTS

    available = store.products()
    for product in products or ():
        if product not in available:
            raise UserError(
                f"The store {store.url} has no product '{product}'.{nearest(product, available)} Available products: "
                f"{', '.join(available) or 'none'}."
            )
    wanted = list(products or [name for name in available if name in (*INPUTS, "snippets", "split")])
    keys = store.items("+".join(wanted)) if wanted else []
    if not keys:
        raise UserError(
            f"The store {store.url} has nothing that training reads. Available products: {', '.join(available) or 'none'}. "
            "Name some with --products, or run 'actionprep build'."
        )
    chosen = chosen_views(store, {key.view for key in keys if key.view}, views)
    return [key for key in keys if not key.view or key.view in chosen]


def _has_items(path: Path, store: Store, keys: Sequence[ItemKey]) -> bool:
    """Whether a file has the same items."""
    from actionprep.datasets.store.opening import open_store
    from actionprep.errors import ActionprepError

    try:
        other = open_store(path)
        return other.items() == list(keys) and all(
            (other.metadata(key) or {})["digest"] == (store.metadata(key) or {})["digest"] for key in keys
        )
    except ActionprepError:
        return False
