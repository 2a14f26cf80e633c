"""Pose estimators with a common protocol: they take frames and return the joints of people."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from actionprep.datasets.poses.sequence import PoseSequence, pack_persons
from actionprep.datasets.poses.skeletons import skeleton as layout_of
from actionprep.errors import UserError
from actionprep.registry import Entry, Registry

Frames = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class FramePoses:
    """The people of one frame.

    Attributes:
        keypoints: x and y in pixels of the frame, and score of each joint, float32 of shape (M, K, 3).
        boxes: Left, top, right, bottom and score of each person, float32 of shape (M, 5).
    """

    keypoints: NDArray[np.float32]
    boxes: NDArray[np.float32]

    @classmethod
    def nobody(cls, num_joints: int) -> FramePoses:
        """Return a frame without people."""
        return cls(np.zeros((0, num_joints, 3), np.float32), np.zeros((0, 5), np.float32))


@runtime_checkable
class PoseEstimator(Protocol):
    """Estimate the joints of people in frames.

    Attributes:
        name: Name of the backend.
        skeleton: Layout of the joints.
    """

    name: str
    skeleton: str

    def estimate(self, frames: Frames, boxes: Sequence[ArrayLike] | None = None) -> list[FramePoses]:
        """Estimate the joints of people in consecutive frames.

        Args:
            frames: RGB frames, uint8 of shape (B, H, W, 3).
            boxes: For each frame, left, top, right and bottom of the people in pixels, shape (M, 4 or more). None: the
                backend finds people itself.

        Returns:
            One entry per frame. With boxes, people are in the order of the boxes.
        """
        ...

    def reset(self) -> None:
        """Discard the state of earlier frames. The next frames are of another view."""
        ...

    def identity(self) -> dict[str, str]:
        """Return what the result depends on besides the frames: backend, version, weights and settings.

        It is part of the fingerprint of items.
        """
        ...

    def close(self) -> None:
        """Stop processes and free memory."""
        ...


POSE_BACKENDS: Registry[Callable[..., PoseEstimator]] = Registry(
    "pose backend",
    "actionprep.pose_backends",
    (
        Entry(
            "mediapipe",
            f"{__name__}.mediapipe:MediaPipe",
            "33 landmarks of one person; model inside its package, in a separate environment",
        ),
        Entry(
            "mediapipe-hands",
            f"{__name__}.mediapipe:MediaPipeHands",
            "21 landmarks of each hand of one person, or of each box; in the environment of mediapipe",
        ),
        Entry(
            "mediapipe-holistic",
            f"{__name__}.mediapipe:MediaPipeHolistic",
            "body, face (68) and hands of one person, or of each box; in the environment of mediapipe",
        ),
        Entry("mmpose", f"{__name__}.mmpose:MMPose", "HRNet, or any MMPose config and checkpoint, on person boxes"),
        Entry("vitpose", f"{__name__}.vitpose:ViTPose", "ViTPose on person boxes of RT-DETR, through transformers"),
    ),
    plural="Backends",
)
"""Pose estimators by the name in `pose.backend`: classes, or functions that return an estimator.

Estimators of other packages are called with one argument, `settings`: the `PoseSettings` of the stage.
"""


def open_estimator(name: str, **options: Any) -> PoseEstimator:
    """Open a pose estimator.

    Args:
        name: Name of the backend.
        options: Arguments of its class.

    Returns:
        The estimator, ready to use.

    Raises:
        UserError: If no backend has this name.
        SetupError: If the backend is not installed, or its weights are missing.
    """
    return POSE_BACKENDS.find(name)(**options)


def to_sequence(
    frames: Sequence[FramePoses],
    skeleton: str,
    *,
    image_size: tuple[int, int],
    frame_index: ArrayLike | None = None,
    time: ArrayLike | None = None,
) -> PoseSequence:
    """Combine the people of many frames into one sequence. People are not linked over frames.

    Args:
        frames: People of each frame.
        skeleton: Layout of the joints.
        image_size: Height and width of the frames in pixels.
        frame_index: Indices of the frames, shape (T,); None for 0 to T - 1.
        time: Times of the frames in seconds, shape (T,); None if unknown.

    Returns:
        Poses with as many slots as the largest number of people in a frame.
    """
    keypoints, score = pack_persons([list(frame.keypoints) for frame in frames], layout_of(skeleton).num_joints)
    bbox = np.zeros((*score.shape[:2], 4), np.float32)
    for t, frame in enumerate(frames):
        bbox[t, : len(frame.boxes)] = frame.boxes[:, :4]
    return PoseSequence.of(
        keypoints,
        score,
        skeleton=skeleton,
        bbox=bbox * (score > 0).any(-1, keepdims=True),
        image_size=image_size,
        frame_index=frame_index,
        time=time,
        where="estimated poses",
    )


def check_frames(frames: Frames, boxes: Sequence[ArrayLike] | None) -> list[NDArray[np.float32]] | None:
    """Check the shapes and values of frames and boxes.

    Args:
        frames: RGB frames, uint8 of shape (B, H, W, 3).
        boxes: Boxes of each frame, or None.

    Returns:
        The boxes as float32 arrays of shape (M, 4 or more), or None.

    Raises:
        UserError: If frames are not RGB bytes, or boxes are not finite rows for every frame.
    """
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8:
        raise UserError(f"Frames must be RGB bytes (frames, height, width, 3), got {frames.dtype} {frames.shape}.")
    if boxes is None:
        return None
    if len(boxes) != len(frames):
        raise UserError(f"Boxes must be given for every frame: got {len(boxes)} lists for {len(frames)} frames.")
    arrays = [np.asarray(box, np.float32) for box in boxes]
    arrays = [box.reshape(0, 4) if box.size == 0 else box for box in arrays]
    for index, box in enumerate(arrays):
        if box.ndim != 2 or box.shape[1] < 4 or not np.isfinite(box).all():
            raise UserError(
                f"Boxes of frame {index} must be rows of finite left, top, right, bottom; got shape {box.shape}."
            )
    return arrays


def with_scores(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return boxes (M, 4 or more) as (M, 5) with a score; 1 if they have none."""
    if boxes.shape[1] >= 5:
        return boxes[:, :5]
    return np.concatenate([boxes, np.ones((len(boxes), 1), np.float32)], 1)
