"""Describe the arrays and attributes of a product, and write arrays as described."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from actionprep.datasets.store.writer import Codec, ItemWriter


@dataclass(frozen=True, slots=True)
class Array:
    """One array of a product.

    Where a name, an axis or a unit depends on the settings, derive the written array with `dataclasses.replace`.

    Attributes:
        name: Name within the item.
        dtype: Data type as NumPy names it, for example "float32".
        axes: Name of each axis.
        unit: Unit of the values; None for values without a unit.
        description: What the values mean. It is stored with the array.
        chunk: Default number of rows per chunk; None stores the array as one chunk.
        note: Addition to the description for the documentation, for example when the array is present.
    """

    name: str
    dtype: str
    axes: tuple[str, ...]
    unit: str | None = None
    description: str = ""
    chunk: int | None = None
    note: str = ""

    def create(
        self, item: ItemWriter, shape: tuple[int, ...] = (), *, chunk: int | None = None, codec: Codec = "raw"
    ) -> None:
        """Begin the array in an item; rows are added with `item.append(name, rows)`.

        Args:
            item: Item to write to.
            shape: Shape of one row, that is of all axes but the first.
            chunk: Rows per chunk; None uses the default of the schema.
            codec: Compression of the chunks.

        Raises:
            ValueError: If the shape does not fit the axes, or if the rows per chunk are unknown.
        """
        rows = chunk or self.chunk
        if len(shape) + 1 != len(self.axes) or rows is None:
            raise ValueError(
                f"Array '{self.name}' has the axes {', '.join(self.axes)} and {rows or 'no'} rows per chunk: it cannot "
                f"begin with rows of shape {shape}."
            )
        item.create(
            self.name,
            shape=shape,
            dtype=self.dtype,
            axes=self.axes,
            unit=self.unit,
            chunk=rows,
            codec=codec,
            description=self.description,
        )

    def write(self, item: ItemWriter, values: np.ndarray, *, codec: Codec = "raw") -> None:
        """Write the full array to an item.

        Args:
            item: Item to write to.
            values: Values with one dimension per axis. Their type may differ from `dtype` in size, not in kind.
            codec: Compression of the chunks.

        Raises:
            TypeError: If the values are of another kind than `dtype`, for example floats for integers.
        """
        item.write(
            self.name,
            np.asarray(values).astype(self.dtype, casting="same_kind", copy=False),
            axes=self.axes,
            unit=self.unit,
            codec=codec,
            description=self.description,
        )


@dataclass(frozen=True)
class Product:
    """Schema of a product: what an item of it contains.

    Attributes:
        name: Name of the product, which is also the name of its stage.
        arrays: Arrays of an item, in the order of the documentation.
        attributes: Meaning of each attribute that the stage adds to an item, by name.
    """

    name: str
    arrays: tuple[Array, ...]
    attributes: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Array:
        """Return an array by name.

        Raises:
            KeyError: If the product has no array of that name.
        """
        for array in self.arrays:
            if array.name == name:
                return array
        names = ", ".join(array.name for array in self.arrays)
        raise KeyError(f"The product '{self.name}' has no array '{name}'. Arrays: {names}.")

    def attributes_of(self, **values: Any) -> dict[str, Any]:
        """Return attribute values, checked against the names of the schema.

        Raises:
            ValueError: If the schema does not describe one of them.
        """
        unknown = values.keys() - self.attributes.keys()
        if unknown:
            raise ValueError(
                f"The product '{self.name}' does not describe the attributes {', '.join(sorted(unknown))}."
            )
        return values


def products() -> dict[str, Product]:
    """Return the schema of every product by name, from the modules of this package."""
    package = import_module("actionprep.datasets.products")
    modules = (import_module(f"{package.__name__}.{info.name}") for info in iter_modules(package.__path__))
    schemas = (value for module in modules for value in vars(module).values() if isinstance(value, Product))
    return {product.name: product for product in sorted(schemas, key=lambda product: product.name)}
