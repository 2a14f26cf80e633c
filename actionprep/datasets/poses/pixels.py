"""Convert pixel coordinates of poses to those of the store, where the center of the first pixel is (0, 0).

The conventions of all pose formats and pose backends are listed here.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from actionprep.errors import InputError

if TYPE_CHECKING:
    from actionprep.datasets.poses.sequence import PoseSequence

FIRST_PIXEL_CENTER: Mapping[str, float] = MappingProxyType(
    {
        # MediaPipe divides by the size of the image: 0 and 1 are the outer edges of the first and the last pixel.
        "mediapipe": 0.5,
        # MATLAB counts pixels from 1.
        "jhmdb": 1.0,
    }
)
"""Coordinate of the center of the first pixel, by format or backend.

All others have 0. OpenPose, MMPose, ViTPose and AlphaPose are trained on COCO, where the first pixel is (0, 0), and
write the same coordinates. NTU's color and depth coordinates are those of Kinect's images, counted from 0.
The npz and csv formats of actionprep use the convention of the store.
"""

# Coordinates up to this value are fractions of the image, not pixels.
_NORMALIZED = 1.0


def first_pixel_center(name: str) -> float:
    """Return the coordinate of the center of the first pixel in the convention of a format or backend."""
    return FIRST_PIXEL_CENTER.get(name, 0.0)


def to_pixel_centers(xy: ArrayLike, name: str) -> NDArray[Any]:
    """Convert pixel coordinates of a format or backend to those of the store.

    Args:
        xy: Coordinates in pixels, shape (..., 2).
        name: Format or backend that they come from.

    Returns:
        Coordinates in pixels with (0, 0) at the center of the first pixel, same shape.
    """
    return np.asarray(xy) - np.float32(first_pixel_center(name))


def normalized_to_pixel_centers(xy: ArrayLike, *, height: int, width: int, name: str) -> NDArray[Any]:
    """Convert coordinates normalized by the image size to pixels of the store.

    Args:
        xy: Coordinates as fractions of the width and the height, shape (..., 2).
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        name: Format or backend that they come from.

    Returns:
        Coordinates in pixels with (0, 0) at the center of the first pixel, same shape.
    """
    return to_pixel_centers(np.asarray(xy) * np.array([width, height], np.float32), name)


def check_pixels(poses: PoseSequence, where: str) -> None:
    """Check that 2D poses are in pixels and not normalized by the image size.

    Args:
        poses: Poses that should be in pixels.
        where: File or recording, for the message.

    Raises:
        InputError: If the joints of every person and frame lie within [-1, 1].
    """
    if poses.dimensions != 2:
        return
    xy = poses.keypoints[poses.score > 0]
    if not len(xy) or np.abs(xy).max() > _NORMALIZED:
        return
    low, high = float(xy.min()), float(xy.max())
    raise InputError(
        f"The joints in {where} lie between {low:.3g} and {high:.3g}; expected pixels of the video. They look "
        "normalized by the size of the image, as OpenPose writes them with --keypoint_scale 3 or 4.\n"
        "Write them in pixels (OpenPose: without --keypoint_scale), or multiply them by the image's width and height."
    )
