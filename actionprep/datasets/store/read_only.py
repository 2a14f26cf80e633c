"""Stores in other forms than Zarr, which readers and trainings use like a `Store`."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from actionprep.datasets.store.keys import Damage, ItemKey
from actionprep.datasets.store.reader import ArrayReader, DamagedItemError, ItemReader
from actionprep.datasets.store.zarr_store import Snapshot, Store, prove_item
from actionprep.errors import UserError
from actionprep.settings import canonical_json


class ReadOnlyStore(Store):
    """A store that is only read: it has the items, attributes and digests of a `Store`, and no folder.

    Attributes:
        form: What the store is, for messages.
    """

    form: str

    def __init__(self, url: str | Path, attributes: Mapping[ItemKey, dict[str, Any] | DamagedItemError]) -> None:
        """Set the items.

        Args:
            url: Place of the store.
            attributes: Attributes of each item (see docs/store.md), or why they cannot be used.
        """
        self.url, self.path = str(url), None
        self._attributes = dict(sorted(attributes.items()))
        self._readers: dict[ItemKey, ItemReader] = {}
        self._claim = None

    def items(self, product: str | None = None) -> list[ItemKey]:
        """Return the keys of all items, sorted; of one product, or of several joined by "+"."""
        wanted = None if product is None else product.split("+")
        return [key for key in self._attributes if wanted is None or key.product in wanted]

    def snapshot(self) -> Snapshot:
        """Return this store: it does not change."""
        return cast("Snapshot", self)

    def metadata(self, key: ItemKey) -> dict[str, Any] | None:
        """Return the attributes of an item, None if it does not exist; raises DamagedItemError if they are damaged."""
        attributes = self._attributes.get(key)
        if isinstance(attributes, DamagedItemError):
            raise attributes
        return attributes

    def has(self, product: str, recording: str, view: str = "") -> bool:
        """Return whether the item exists; raises DamagedItemError if its attributes are damaged."""
        return self.metadata(ItemKey(product, recording, view)) is not None

    def products(self) -> list[str]:
        """Return the names of the products that have items."""
        return sorted({key.product for key in self._attributes})

    def item(self, product: str, recording: str, view: str = "") -> ItemReader:
        """Open one item; raises UserError if it does not exist, DamagedItemError if its attributes are damaged."""
        key = ItemKey(product, recording, view)
        if key not in self._readers:
            attributes = self.metadata(key)
            if attributes is None:
                raise UserError(self._no_item(key))
            self._readers[key] = self._open_item(key, attributes)
        return self._readers[key]

    def digest(self) -> str:
        """Hash all content; raises DamagedItemError if the attributes of an item are damaged."""
        digests = sorted([key.path, str((self.metadata(key) or {})["digest"])] for key in self.items())
        return hashlib.sha256(canonical_json(digests).encode()).hexdigest()

    def verify(self, keys: list[ItemKey] | None = None) -> Iterator[tuple[ItemKey, Damage | None]]:
        """Read every item, or those of `keys`, and compare it with its digest; yields its damage or None."""
        for key in self.items() if keys is None else keys:
            try:
                prove_item(self.item(key.product, key.recording, key.view))
            except DamagedItemError as error:
                yield key, Damage(key, str(error))
            else:
                yield key, None

    def require_local(self) -> Path:
        """Raise UserError: nothing is written to this store."""
        raise UserError(
            f"{self.url} is {self.form}, which is read-only. Build in the study's Zarr store and export it again."
        )

    @abstractmethod
    def _open_item(self, key: ItemKey, attributes: dict[str, Any]) -> ItemReader:
        """Open an item that exists."""


class MemoryArray(ArrayReader):
    """An array in memory with the interface of a stored one."""

    def __init__(self, where: str, values: np.ndarray, axes: tuple[str, ...], unit: str | None = None) -> None:
        self.where, self.axes, self.unit = where, axes, unit
        self.shape, self.dtype = values.shape, values.dtype
        self._values = values

    def _rows(self, start: int, stop: int) -> np.ndarray:
        return self._values[start:stop].copy()
