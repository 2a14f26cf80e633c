"""The product `pose` on disk: write a sequence of poses as an item, and read it back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from actionprep.datasets.poses.sequence import PoseSequence
from actionprep.datasets.poses.skeletons import skeleton, skeleton_of_item, stored_layout

if TYPE_CHECKING:
    from actionprep.datasets.store.reader import ItemReader
    from actionprep.datasets.store.writer import ItemWriter

_FRAMES_PER_CHUNK = 1024


def write_pose_item(item: ItemWriter, poses: PoseSequence, *, estimator: str, **told: Any) -> None:
    """Write poses as the arrays and attributes of `pose/<recording>/<view>` (see docs/store.md).

    estimator: what found the joints, or "import". told: more attributes, as plain values.
    Raises ValueError for poses without times: the store holds the time of every frame.
    """
    if poses.time is None:
        raise ValueError("Poses need the time of every frame to be stored.")
    layout = skeleton(poses.skeleton)
    axis = "xyz"[: poses.dimensions]
    unit = "px" if poses.dimensions == 2 and poses.image_size is not None else None
    person = ("time", "person")
    arrays: tuple[tuple[str, np.ndarray, tuple[str, ...], str | None, str], ...] = (
        ("keypoints", poses.keypoints, (*person, "joint", axis), unit, "joints; zeros where the score is 0"),
        ("score", poses.score, (*person, "joint"), None, "as the estimator gives it; 0 is missing"),
        ("bbox", poses.bbox, (*person, "box"), unit, "left, top, right, bottom; zeros where nobody is"),
        ("track_id", poses.track_id.astype(np.int32), person, None, "number of the person; -1 where nobody is"),
        ("filled", poses.filled.astype(bool), (*person, "joint"), None, "whether the joint was interpolated, not seen"),
        ("index", poses.frame_index.astype(np.int64), ("time",), None, "position in the video"),
        ("time", poses.time, ("time",), "s", "on the recording's clock"),
    )
    for name, values, axes, unit_of, description in arrays:
        about: dict[str, Any] = {"axes": axes, "unit": unit_of, "description": description}
        if poses.num_frames <= _FRAMES_PER_CHUNK:
            item.write(name, values, **about)
        else:
            item.create(name, shape=values.shape[1:], dtype=values.dtype, chunk=_FRAMES_PER_CHUNK, **about)
            item.append(name, values)
    item.attributes.update(
        skeleton=poses.skeleton,
        **stored_layout(poses.skeleton),
        joints=list(layout.joints),
        estimator=estimator,
        image_size=None if poses.image_size is None else list(poses.image_size),
        num_frames=poses.num_frames,
        num_frames_with_person=int(poses.present.any(axis=1).sum()),
        num_persons=len(np.unique(poses.track_id[poses.present])),
        **told,
    )


def read_pose_item(item: ItemReader) -> PoseSequence:
    """The poses of an item of the product `pose`, in memory."""
    told = item.attributes
    size = told.get("image_size")
    score, filled = item["score"][:], item["filled"][:].astype(bool)
    return PoseSequence(
        keypoints=item["keypoints"][:],
        score=score,
        bbox=item["bbox"][:],
        track_id=item["track_id"][:].astype(np.int64),
        # Items of version 1 tell it of persons.
        filled=filled if filled.ndim == 3 else filled[..., None] & (score > 0),
        skeleton=skeleton_of_item(told),
        image_size=None if size is None else (int(size[0]), int(size[1])),
        frame_index=item["index"][:],
        time=item["time"][:],
    )
