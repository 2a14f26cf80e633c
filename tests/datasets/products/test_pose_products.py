"""Schemas of poses and heatmaps match the arrays on disk."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pose_items import made_poses, store_poses, write_npz

from actionprep.api import import_poses
from actionprep.datasets.products.heatmaps import HEATMAPS, read_heatmaps
from actionprep.datasets.products.poses import POSE, read_pose_item
from actionprep.datasets.products.schema import Product, products
from actionprep.datasets.store.zarr_store import Store


def check(item, schema: Product, renamed=None):
    assert set(item) == {array.name for array in schema.arrays}
    for array in schema.arrays:
        stored = item[array.name]
        assert np.dtype(stored.dtype) == np.dtype(array.dtype)
        assert stored.axes == (renamed or {}).get(array.name, array.axes)
    assert set(item.attributes) - set(schema.attributes) <= {"view", "recording"}


@pytest.mark.parametrize("frames", [5, 1030])
@pytest.mark.parametrize("dims", [2, 3])
def test_pose_item_is_as_described_and_reads_back(tmp_path, frames, dims):
    store = Store(tmp_path / "store", create=True)
    layout = "ntu25" if dims == 3 else "coco17"
    poses = made_poses(frames, 2, layout=layout, dimensions=dims, image_size=(96, 128) if dims == 2 else None)
    store_poses(store, "a", poses, num_rescaled=3)
    item = store.item("pose", "a", "0")
    check(item, POSE, {"keypoints": ("time", "person", "joint", "xyz"[:dims])})
    read = read_pose_item(item)
    for name in ("keypoints", "score", "bbox", "track_id", "filled", "frame_index", "time"):
        assert np.array_equal(getattr(read, name), getattr(poses, name)), name


def test_pose_attribute_that_is_not_described_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'pose' does not describe the attributes mood"):
        store_poses(Store(tmp_path / "store", create=True), "a", made_poses(3), mood="good")


def test_pose_without_times_is_refused(tmp_path):
    with pytest.raises(ValueError, match="Poses need the time of every frame"):
        store_poses(Store(tmp_path / "store", create=True), "a", replace(made_poses(3), time=None))


@pytest.mark.parametrize("persons", ["together", "separate"])
def test_heatmaps_item_is_as_described_and_reads_back(tmp_path, persons):
    write_npz(tmp_path / "data" / "a.npz", made_poses(6, 2), label="x")
    study = import_poses(tmp_path / "study", [tmp_path / "data"], format="pose-npz").study
    changes = {"size": (20, 24)} if persons == "together" else {"size": (20, 24), "persons": "separate"}
    assert study.build("heatmaps", overrides={"heatmaps": changes}).ok
    item = study.item("heatmaps", "a", 0)
    axes = ("time", "person", "channel", "y", "x") if persons == "separate" else HEATMAPS["volume"].axes
    check(item, HEATMAPS, {"volume": axes})
    volume = read_heatmaps(item)
    assert volume.dtype == np.float32
    assert volume.max() <= 1
    assert np.array_equal(np.rint(volume * 255), item["volume"][:])
    assert np.array_equal(read_heatmaps(item, 2), volume[2])


def test_schemas_are_found_by_name():
    assert products()["pose"] is POSE
    assert products()["heatmaps"] is HEATMAPS
