"""JABS pose files (`*_pose_est_v2.h5` and later): 12 joints of one or several mice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from actionprep.datasets.poses.formats.content import numbers
from actionprep.datasets.poses.formats.safe_h5 import H5, open_h5
from actionprep.datasets.poses.sequence import PoseItem, PoseSequence
from actionprep.datasets.poses.skeletons import layout_of_names
from actionprep.datasets.poses.skeletons import skeleton as layout_of
from actionprep.errors import InputError

# The order of `KeypointIndex` in the source of JABS (KumarLabJax/JABS-behavior-classifier).
_JOINTS = (
    *("nose", "left_ear", "right_ear", "base_neck", "left_front_paw", "right_front_paw", "center_spine"),
    *("left_rear_paw", "right_rear_paw", "base_tail", "mid_tail", "tip_tail"),
)
_LIMBS = ((0, 1), (0, 2), (0, 3), (3, 6), (6, 4), (6, 5), (6, 9), (9, 7), (9, 8), (9, 10), (10, 11))


def read_jabs(
    path: str | Path, *, skeleton: str | None = None, image_size: Sequence[int] | None = None
) -> Iterator[PoseItem]:
    """Read the recording of one JABS pose file.

    Coordinates are whole pixels, stored as (y, x). Version 2 has one animal. From version 3 on the number of a person is
    that of its track, from version 4 on its identity; instances without an identity are left out. The static objects and
    segmentations of later versions are not read.

    Args:
        path: The file.
        skeleton: Layout of the joints; without it, the 12 joints of JABS.
        image_size: Height and width in pixels.

    Yields:
        The recording.

    Raises:
        InputError: If the file is damaged or of another tool.
    """
    path = Path(path)
    with open_h5(path) as file:
        if "poseest/points" not in file or "poseest/confidence" not in file:
            raise InputError(f"{path} has no 'poseest/points' and 'poseest/confidence', which pose files of JABS have.")
        stored = numbers(file.read("poseest/points"), "'poseest/points'", str(path))
        score = numbers(file.read("poseest/confidence"), "'poseest/confidence'", str(path))
        if stored.ndim == 3:
            stored, score = stored[:, None], score[:, None]
        if stored.ndim != 4 or stored.shape[2:] != (len(_JOINTS), 2) or score.shape != stored.shape[:3]:
            raise InputError(
                f"'poseest/points' and 'poseest/confidence' in {path} have the shapes {stored.shape} and {score.shape}; "
                f"expected (frames, animals, {len(_JOINTS)}, 2) and (frames, animals, {len(_JOINTS)})."
            )
        track = _individuals(file, score)
    if skeleton is None:
        skeleton = layout_of_names(_JOINTS, name="jabs", limbs=_LIMBS, source=path.name).name
    elif layout_of(skeleton).num_joints != len(_JOINTS):
        raise InputError(
            f"{path} has {len(_JOINTS)} joints, and skeleton '{skeleton}' has {layout_of(skeleton).num_joints}."
        )
    score = np.where(track[..., None] >= 0, score.clip(0), 0)
    poses = PoseSequence.of(
        np.where(score[..., None] > 0, stored[..., ::-1], np.nan),
        score,
        skeleton=skeleton,
        track_id=track,
        image_size=image_size,
        frame_index=np.arange(len(stored)),
        where=str(path),
    )
    name = path.name.removesuffix(path.suffix).partition("_pose_est_v")[0]
    yield PoseItem(name, poses, extra={"file_per_frame": True})


def _individuals(file: H5, score: NDArray[np.float64]) -> NDArray[np.int64]:
    """Numbers of the animals (T, M); -1 for an instance that is no animal or has no identity."""
    shape = score.shape[:2]
    seen = (score > 0).any(-1)

    def read(name: str, expected: tuple[int, ...]) -> NDArray[np.int64]:
        values = numbers(file.read(f"poseest/{name}"), f"'poseest/{name}'", str(file.path))
        if values.shape != expected:
            raise InputError(f"'poseest/{name}' in {file.path} has the shape {values.shape}; expected {expected}.")
        return values.astype(np.int64)

    if "poseest/instance_embed_id" in file and "poseest/id_mask" in file:
        seen &= read("id_mask", shape) == 0
        return np.where(seen, read("instance_embed_id", shape) - 1, -1)
    if "poseest/instance_track_id" in file:
        if "poseest/instance_count" in file:
            seen &= np.arange(shape[1]) < read("instance_count", shape[:1])[:, None]
        return np.where(seen, read("instance_track_id", shape), -1)
    return np.where(seen, np.arange(shape[1]), -1)
