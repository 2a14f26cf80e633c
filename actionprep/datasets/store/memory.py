"""Items and stores held in memory, for live prediction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from actionprep.datasets.store.keys import ItemKey
from actionprep.datasets.store.zarr_store import Store

if TYPE_CHECKING:
    from actionprep.datasets.store.reader import ItemReader
    from actionprep.datasets.store.zarr_store import Snapshot


class MemoryItem:
    """An item held in memory. Stages write to it as to an `ItemWriter`; readers read it as an `ItemReader`."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.attributes: dict[str, Any] = {}
        self._parts: dict[str, list[np.ndarray]] = {}
        self._empty: dict[str, np.ndarray] = {}

    def create(self, name: str, *, shape: tuple[int, ...], dtype: Any, **facts: Any) -> None:
        """Create an empty array that grows along its first axis."""
        self._parts[name] = []
        self._empty[name] = np.zeros((0, *shape), np.dtype(dtype))

    def append(self, name: str, rows: np.ndarray) -> None:
        """Append rows to an array."""
        self._parts[name].append(np.asarray(rows, self._empty[name].dtype))

    def write(self, name: str, values: np.ndarray, **facts: Any) -> None:
        """Write a complete array."""
        self.set(name, np.asarray(values))

    def set(self, name: str, values: np.ndarray) -> None:
        """Replace an array."""
        self._parts[name], self._empty[name] = [values], values[:0]

    def rows(self, name: str) -> np.ndarray:
        """Return all rows of an array."""
        parts = self._parts[name]
        if len(parts) != 1:
            self._parts[name] = parts = [np.concatenate([self._empty[name], *parts])]
        return parts[0]

    def forget(self, count: int | None) -> None:
        """Drop the first `count` rows of every array, or all rows if `count` is None."""
        for name in self._parts:
            self._parts[name] = [] if count is None else [self.rows(name)[count:]]

    def __contains__(self, name: str) -> bool:
        return name in self._parts

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._parts))

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._parts:
            raise KeyError(f"No array '{name}' in {self.where}. It has {', '.join(self)}.")
        return self.rows(name)


class MemoryStore(Store):
    """A read-only store over items in memory, for readers of model input."""

    def __init__(self, items: Mapping[tuple[str, str, str], MemoryItem]) -> None:
        self.url, self.path = "memory", None
        self._items = dict(items)

    def items(self, product: str | None = None) -> list[ItemKey]:
        """Return the keys of the items."""
        return [ItemKey(*key) for key in self._items if product in (None, key[0])]

    def snapshot(self) -> Snapshot:
        """Return this store: it does not change."""
        return cast("Snapshot", self)

    def has(self, product: str, recording: str, view: str = "") -> bool:
        """Return whether the store has the item."""
        return (product, recording, view) in self._items

    def item(self, product: str, recording: str, view: str = "") -> ItemReader:
        """Return one item, to be read like an item on disk."""
        return cast("ItemReader", self._items[product, recording, view])
