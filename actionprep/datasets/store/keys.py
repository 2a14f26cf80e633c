"""Names of items, and of damage to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class ItemKey(NamedTuple):
    """Name of an item: a product of one view of a recording, or of the study (view "")."""

    product: str
    recording: str
    view: str = ""

    @property
    def path(self) -> str:
        """Path in the store."""
        return "/".join(part for part in (self.product, self.recording, self.view) if part)

    def __str__(self) -> str:
        return self.path


@dataclass(frozen=True)
class Damage:
    """Damage that `Store.verify` found.

    Attributes:
        key: The item, or the path of the folder in `product` and `recording` ("" for the store's root).
        reason: What is wrong, as a sentence.
        is_folder: Whether the metadata of a folder is damaged instead of an item.
    """

    key: ItemKey
    reason: str
    is_folder: bool = False

    @property
    def place(self) -> str:
        """Path of the item, or of the folder's metadata file."""
        return join_path(self.key.path, "zarr.json") if self.is_folder else self.key.path


def join_path(path: str, name: str) -> str:
    """Return the path of a name in a folder of the store; "" is the store itself."""
    return f"{path}/{name}" if path else name
