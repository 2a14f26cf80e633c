"""Small HDF5 files of poses as other programs write them, made with h5py only."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np


def netcdf_file(path: Path) -> Path:
    """Two keypoints of two individuals in three frames; position is 100 t + 10 k + i, and y is 0.5 more."""
    t, s, k, i = np.meshgrid(np.arange(3), np.arange(2), np.arange(2), np.arange(2), indexing="ij")
    with h5py.File(path, "w") as file:
        file.attrs["ds_type"], file.attrs["time_unit"] = "poses", "seconds"
        file["time"] = np.array([0.0, 0.1, 0.3])
        for name, texts in (("space", ["x", "y"]), ("keypoints", ["snout", "tail"]), ("individuals", ["m", "f"])):
            file[name] = texts
        file["position"] = 100.0 * t + 10 * k + i + 0.5 * s + 2
        file["confidence"] = np.full((3, 2, 2), 0.5, np.float32)
        file["confidence"][1, 0, 1] = np.nan
        file["position"][2, :, 1, 0] = np.nan
        for name in ("time", "space", "keypoints", "individuals"):
            file[name].make_scale(name)
        for array, dimensions in (
            ("position", ("time", "space", "keypoints", "individuals")),
            ("confidence", ("time", "keypoints", "individuals")),
        ):
            for axis, name in enumerate(dimensions):
                file[array].dims[axis].attach_scale(file[name])
    return path


def nwb_file(path: Path) -> Path:
    """One animal with the nodes tail and nose; the times of the second series are a link to those of the first."""
    with h5py.File(path, "w") as file:
        behavior = file.create_group("processing/behavior")
        body = behavior.create_group("Skeletons/mouse")
        body.attrs["neurodata_type"] = "Skeleton"
        body["nodes"], body["edges"] = ["tail", "nose", "spare"], np.array([[0, 1], [1, 2]], np.uint8)
        pose = behavior.create_group("PoseEstimation")
        pose.attrs["neurodata_type"] = "PoseEstimation"
        pose["skeleton"] = h5py.SoftLink("/processing/behavior/Skeletons/mouse")
        for at, name in enumerate(("nose", "tail")):
            series = pose.create_group(name)
            series.attrs["neurodata_type"] = "PoseEstimationSeries"
            series["data"] = np.array([[3.0, 4], [5, 6], [np.nan, np.nan]]) + 10 * at
            series["confidence"] = np.array([0.9, 0.8, 0.1])
        pose["nose/timestamps"] = np.array([2.0, 2.5, 3.0])
        pose["tail/timestamps"] = h5py.SoftLink("/processing/behavior/PoseEstimation/nose/timestamps")
    return path
