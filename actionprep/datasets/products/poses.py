"""The product `pose`: joints of persons over time, its arrays on disk, its writer and its reader."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from actionprep.datasets.poses.sequence import PoseSequence
from actionprep.datasets.poses.skeletons import skeleton, skeleton_of_item, stored_layout
from actionprep.datasets.products.schema import Array, Product

if TYPE_CHECKING:
    from actionprep.datasets.store.reader import ItemReader
    from actionprep.datasets.store.writer import ItemWriter

_FRAMES_PER_CHUNK = 1024
_PERSON = ("time", "person")

POSE = Product(
    "pose",
    (
        Array(
            "keypoints",
            "float32",
            (*_PERSON, "joint", "xy"),
            "px",
            "joints; zeros where the score is 0",
            note="3D poses have the axis xyz; these, and poses of images of unknown size, have the unit of their file",
        ),
        Array(
            "score",
            "float32",
            (*_PERSON, "joint"),
            None,
            "as the estimator gives it; 0 is missing",
        ),
        Array(
            "bbox",
            "float32",
            (*_PERSON, "box"),
            "px",
            "left, top, right, bottom; zeros where nobody is",
        ),
        Array("track_id", "int32", _PERSON, None, "number of the person; -1 where nobody is"),
        Array(
            "filled",
            "bool",
            (*_PERSON, "joint"),
            None,
            "whether the joint was interpolated, not seen",
        ),
        Array("index", "int64", ("time",), None, "position in the video"),
        Array("time", "float64", ("time",), "s", "on the recording's clock"),
    ),
    {
        "skeleton": "name of the joint layout, or path of a layout file",
        "layout": "contents of the layout, if it is none of the built-in ones",
        "joints": "names of the joints, in order",
        "estimator": "the backend, or import",
        "image_size": "height and width of the frame that px refer to, or null",
        "num_frames": "frames",
        "num_frames_with_person": "frames with at least one person",
        "num_persons": "persons that are stored",
        "num_persons_found": "persons before the selection",
        "num_persons_dropped": "persons left out by the selection",
        "num_filled": "frames of a person with interpolated joints",
        "num_joints_filled": "interpolated joints",
        "smoothed": "none, one-euro or savgol",
        "converted": "what a conversion of the layout kept, derived and lost",
        "format": "imports: format of the files",
        "num_rescaled": "imports: frames scaled to the size of the video",
        "num_joints_seen": "imports: joints with a score",
        "num_joints_outside": "imports: joints outside the frame",
        "num_frames_in_corner": "imports: frames with all joints in the upper left quarter, if the file has no frame size",
        "num_frames_without_file": "imports of one file per frame: frames without a file",
        "num_frames_renumbered": "imports: frames that were taken to be numbered from 1, if files are missing",
        "num_repeated_frames": "imports: rows left out because their frame number repeats",
        "limb_length_ratio": "imports of OpenPose: how clear the choice between BODY_25 and BODY_25B was",
    },
)


def write_pose_item(item: ItemWriter, poses: PoseSequence, *, estimator: str, **attributes: Any) -> None:
    """Write poses as the arrays and attributes of `POSE`.

    Args:
        item: The item to write to.
        poses: The poses, with times.
        estimator: The backend, or "import".
        attributes: More attributes of the schema, as plain values.

    Raises:
        ValueError: If the poses have no times, or if the schema does not describe an attribute.
    """
    if poses.time is None:
        raise ValueError("Poses need the time of every frame to be stored.")
    layout = skeleton(poses.skeleton)
    unit = "px" if poses.dimensions == 2 and poses.image_size is not None else None
    values: dict[str, np.ndarray] = {
        "keypoints": poses.keypoints,
        "score": poses.score,
        "bbox": poses.bbox,
        "track_id": poses.track_id,
        "filled": poses.filled,
        "index": poses.frame_index,
        "time": poses.time,
    }
    for schema in POSE.arrays:
        array = schema
        if array.unit == "px":
            array = replace(array, unit=unit)
        if array.name == "keypoints":
            array = replace(array, axes=(*array.axes[:-1], "xyz"[: poses.dimensions]))
        rows = values[array.name]
        if poses.num_frames <= _FRAMES_PER_CHUNK:
            array.write(item, rows)
        else:
            array.create(item, rows.shape[1:], chunk=_FRAMES_PER_CHUNK)
            item.append(array.name, rows.astype(array.dtype, copy=False))
    item.attributes.update(
        POSE.attributes_of(
            skeleton=poses.skeleton,
            **stored_layout(poses.skeleton),
            joints=list(layout.joints),
            estimator=estimator,
            image_size=None if poses.image_size is None else list(poses.image_size),
            num_frames=poses.num_frames,
            num_frames_with_person=int(poses.present.any(axis=1).sum()),
            num_persons=len(np.unique(poses.track_id[poses.present])),
            **attributes,
        )
    )


def read_pose_item(item: ItemReader) -> PoseSequence:
    """Read the poses of an item into memory."""
    attributes = item.attributes
    size = attributes.get("image_size")
    score, filled = item["score"][:], item["filled"][:].astype(bool)
    return PoseSequence(
        keypoints=item["keypoints"][:],
        score=score,
        bbox=item["bbox"][:],
        track_id=item["track_id"][:].astype(np.int64),
        # Items of version 1 have one value per person.
        filled=filled if filled.ndim == 3 else filled[..., None] & (score > 0),
        skeleton=skeleton_of_item(attributes),
        image_size=None if size is None else (int(size[0]), int(size[1])),
        frame_index=item["index"][:],
        time=item["time"][:],
    )
