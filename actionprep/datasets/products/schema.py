"""Describe the arrays of a product once, for its writer, its reader and the documentation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from actionprep.datasets.store.reader import ItemReader
    from actionprep.datasets.store.writer import ItemWriter


@dataclass(frozen=True, slots=True)
class ArraySchema:
    """One array of a product.

    Attributes:
        axes: Names of its axes.
        dtype: NumPy name of its type.
        description: What its values are.
        unit: Unit of its values; None where they have none.
    """

    axes: tuple[str, ...]
    dtype: str
    description: str
    unit: str | None = None


Schema = Mapping[str, ArraySchema]
"""Arrays of a product by name, in the order in which they are written."""


def write_arrays(item: ItemWriter, schema: Schema, values: Mapping[str, np.ndarray]) -> None:
    """Write all arrays of a schema, each as one chunk where it is small.

    Args:
        item: The item to write to.
        schema: Its arrays, or some of them.
        values: Their values by name.

    Raises:
        ValueError: If an array has another type than its schema.
    """
    for name, array in schema.items():
        if values[name].dtype != np.dtype(array.dtype):
            raise ValueError(f"Array '{name}' must be {array.dtype}, not {values[name].dtype}.")
        item.write(name, values[name], axes=array.axes, unit=array.unit, description=array.description)


def read_arrays(item: ItemReader, schema: Schema) -> dict[str, np.ndarray]:
    """Read all arrays of a schema into memory, by name."""
    return {name: item[name][:] for name in schema}
