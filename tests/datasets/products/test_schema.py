"""Schemas of products: only arrays as described are written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr

from actionprep.datasets.products.frames import FRAMES, TIME, write_times
from actionprep.datasets.products.keyframes import KEYFRAMES, read_keyframe_index, write_keyframes
from actionprep.datasets.products.lowres import rgb_array
from actionprep.datasets.products.schema import Array, products
from actionprep.datasets.store.keys import ItemKey
from actionprep.datasets.store.writer import ItemWriter
from actionprep.datasets.store.zarr_store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", create=True)


KEY = ItemKey("keyframes", "clip", "0")


def test_array_write_stores_what_the_schema_states(store: Store) -> None:
    with store.write(KEY.product, KEY.recording, KEY.view, fingerprint="f", provenance={}) as item:
        write_keyframes(item, np.array([3, 9]), np.array([0.12, 0.36]), np.array([0.5, 1.0]))
    group = zarr.open_group(store.url, mode="r")[KEY.path]
    for schema in KEYFRAMES.arrays:
        array = group[schema.name]
        assert (str(array.dtype), array.metadata.dimension_names) == (schema.dtype, schema.axes)
        assert (array.attrs.get("unit"), array.attrs["description"]) == (schema.unit, schema.description)
    assert read_keyframe_index(store.item(KEY.product, KEY.recording, KEY.view)).tolist() == [3, 9]


def test_array_write_refuses_values_of_another_kind(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="Cannot cast array data from dtype\\('float64'\\) to dtype\\('int64'\\)"):
        KEYFRAMES["index"].write(ItemWriter(tmp_path), np.array([0.5]))


def test_array_create_refuses_rows_of_another_shape(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Array 'rgb_24' has the axes time, y, x, channel and 16 rows per chunk"):
        rgb_array(24).create(ItemWriter(tmp_path), (24, 24))


def test_product_names_its_arrays() -> None:
    with pytest.raises(KeyError, match=r"The product 'keyframes' has no array 'rgb'\. Arrays: index, time, score\."):
        KEYFRAMES["rgb"]


def test_product_refuses_attributes_without_description() -> None:
    assert KEYFRAMES.attributes_of(num_frames=3) == {"num_frames": 3}
    with pytest.raises(ValueError, match="The product 'keyframes' does not describe the attributes fps, size"):
        KEYFRAMES.attributes_of(num_frames=3, size=2, fps=25)


def test_products_finds_every_schema() -> None:
    result = products()
    assert {"frames", "keyframes", "lowres"} <= result.keys()
    assert result["frames"] is FRAMES
    for product in result.values():
        assert all(isinstance(array, Array) and array.description for array in product.arrays)
        assert len({array.name for array in product.arrays}) == len(product.arrays)


def test_write_times_counts_letterboxed_frames(tmp_path: Path) -> None:
    for name in ("letterboxed", "clean"):
        (tmp_path / name).mkdir()
    item = ItemWriter(tmp_path / "letterboxed")
    write_times(item, [np.array([0.0, 0.1]), np.array([0.2])], [np.array([0, 3], np.uint8), np.array([3], np.uint8)])
    assert item.attributes == {"num_letterboxed": 2}
    clean = ItemWriter(tmp_path / "clean")
    write_times(clean, [np.array([0.0])], [np.array([1], np.uint8)])
    assert clean.attributes == {}


def test_array_replaced_keeps_the_rest() -> None:
    assert replace(TIME, name="seconds").unit == "s"
