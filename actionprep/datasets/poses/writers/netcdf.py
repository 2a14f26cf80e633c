"""Write poses as the netCDF files of movement, with xarray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from actionprep.datasets.poses.individuals import individuals_of
from actionprep.datasets.poses.skeletons import skeleton
from actionprep.datasets.poses.writers import ViewPoses, missing_package


def write(path: Path, poses: ViewPoses) -> None:
    """Write one view as a poses dataset of movement.

    `position` has the dimensions (time, space, keypoints, individuals), and `confidence` the same without space. Times
    are seconds on the recording's clock. Missing joints are NaN, with a confidence of 0. The coordinate `frame` has the
    frame numbers, and the attribute `skeleton_edges` of `position` has pairs of positions of keypoints.

    Args:
        path: File to write.
        poses: Poses of the view.

    Raises:
        UserError: If xarray or h5netcdf is not installed.

    References:
        https://movement.neuroinformatics.dev/user_guide/movement_dataset.html
    """
    try:
        import h5netcdf  # noqa: F401
        import xarray
    except ImportError as error:
        raise missing_package(error, "netcdf") from None
    sequence = poses.item.poses
    layout = skeleton(sequence.skeleton)
    people = individuals_of(sequence)
    time = np.arange(sequence.num_frames) / poses.fps if sequence.time is None else sequence.time
    attributes: dict[str, Any] = {
        "ds_type": "poses",
        "fps": float(poses.fps),
        "time_unit": "seconds",
        "source_software": "actionprep",
        "source_file": f"{poses.item.recording}/{poses.item.view}",
    }
    if sequence.image_size is not None:
        attributes["image_size"] = np.array(sequence.image_size, np.int64)
    dataset = xarray.Dataset(
        data_vars={
            "position": (
                ("time", "space", "keypoints", "individuals"),
                people.keypoints.transpose(0, 3, 2, 1),
                {"skeleton_edges": np.array(layout.limbs, np.int64).reshape(-1)} if layout.limbs else {},
            ),
            "confidence": (("time", "keypoints", "individuals"), people.score.transpose(0, 2, 1)),
        },
        coords={
            "time": np.asarray(time, np.float64),
            "space": list("xyz"[: sequence.dimensions]),
            "keypoints": list(layout.joints),
            "individuals": list(people.names),
            "frame": ("time", sequence.frame_index),
        },
        attrs=attributes,
    )
    dataset.to_netcdf(path, engine="h5netcdf")
