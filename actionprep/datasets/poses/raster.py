"""Draw joints as single pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from actionprep.datasets.frame_times import frame_interval
from actionprep.datasets.poses.sequence import PoseSequence
from actionprep.errors import UserError
from actionprep.json_values import counted


def keypoint_raster(
    keypoints: np.ndarray, score: np.ndarray, *, source: tuple[int, int], size: tuple[int, int]
) -> np.ndarray:
    """Draw the joints of all persons as single pixels.

    Args:
        keypoints: Joints in pixels of the source, shape (T, M, K, 2); (0, 0) is the center of the first pixel.
        score: Confidence, shape (T, M, K). Joints without a positive score are left out.
        source: Height and width of the source frames.
        size: Height and width of the result.

    Returns:
        1 where a joint is and 0 elsewhere, uint8 of shape (T, *size). Joints outside the frame are on its edge.
    """
    raster = np.zeros((len(keypoints), *size), np.uint8)
    frame, person, joint = np.nonzero((score > 0) & np.isfinite(keypoints).all(axis=-1))
    xy = keypoints[frame, person, joint].astype(np.float64)
    height, width = source
    scale = np.array([size[1] / width, size[0] / height])
    pixel = np.rint((xy + 0.5) * scale - 0.5).clip(0, [size[1] - 1, size[0] - 1]).astype(np.int64)
    raster[frame, pixel[:, 1], pixel[:, 0]] = 1
    return raster


def has_raster(poses: PoseSequence) -> bool:
    """Return whether poses can be drawn: 2D, with frames, in pixels of a known frame size."""
    return poses.dimensions == 2 and poses.image_size is not None and len(poses.keypoints) > 0


def poses_in_frames(poses: PoseSequence, frames: Mapping[str, Any], where: str) -> PoseSequence:
    """Return poses in the coordinates of stored frames, which may be a crop of the video.

    Args:
        poses: Poses for which `has_raster` is true, in pixels of the video.
        frames: Attributes of the item with the frames.
        where: Name of that item, for the error.

    Returns:
        Poses whose image size is that of the crop. Joints outside it have no score.

    Raises:
        UserError: If frames of the item are letterboxed, because joints of those frames are elsewhere.
    """
    if frames.get("num_letterboxed"):
        raise UserError(
            f"{where} has {counted(int(frames['num_letterboxed']), 'letterboxed frame')}, because its video changes size. "
            "Joints cannot be drawn into them: leave the recording out, or set input.channels=rgb."
        )
    if "crop" not in frames:
        return poses
    assert poses.image_size is not None
    left, top, side = frames["crop"]
    height, width = poses.image_size
    scale = np.array([frames["source_width"] / width, frames["source_height"] / height])
    # Positions refer to the center of the first pixel.
    xy = (poses.keypoints + 0.5) * scale - 0.5 - (left, top)
    inside = ((xy >= -0.5) & (xy < side - 0.5)).all(axis=-1)
    return replace(
        poses,
        keypoints=xy.astype(np.float32),
        score=np.where(inside, poses.score, 0).astype(poses.score.dtype),
        image_size=(side, side),
    )


def pose_raster(poses: PoseSequence, time: np.ndarray, *, size: tuple[int, int]) -> np.ndarray:
    """Draw the joints at some times.

    Args:
        poses: Poses with times, for which `has_raster` is true.
        time: Times in seconds, shape (T,). The nearest pose is drawn, and none if it is over half a frame away.
        size: Height and width of the result.

    Returns:
        The raster, uint8 of shape (T, *size); see `keypoint_raster`.
    """
    assert poses.time is not None
    assert poses.image_size is not None
    after = np.searchsorted(poses.time, time).clip(1, max(len(poses.time) - 1, 1))
    before = np.minimum(after - 1, len(poses.time) - 1)
    after = np.minimum(after, len(poses.time) - 1)
    nearer_before = np.abs(poses.time[before] - time) <= np.abs(poses.time[after] - time)
    nearest = np.where(nearer_before, before, after)
    matches = np.abs(poses.time[nearest] - time) <= 0.5 * frame_interval(poses.time)
    score = np.where(matches[:, None, None], poses.score[nearest], 0)
    return keypoint_raster(poses.keypoints[nearest], score, source=poses.image_size, size=size)
