"""Pose estimators behind one protocol: frames in, joints of the people in them out."""

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

    keypoints (M, K, 3) float32: x, y in px of the frame, score; boxes (M, 5) float32: left, top, right, bottom, score.
    """

    keypoints: NDArray[np.float32]
    boxes: NDArray[np.float32]

    @classmethod
    def nobody(cls, num_joints: int) -> FramePoses:
        """A frame without people."""
        return cls(np.zeros((0, num_joints, 3), np.float32), np.zeros((0, 5), np.float32))


@runtime_checkable
class PoseEstimator(Protocol):
    """What finds people's joints in frames.

    name:     of the backend. skeleton: the layout of its joints.
    """

    name: str
    skeleton: str

    def estimate(self, frames: Frames, boxes: Sequence[ArrayLike] | None = None) -> list[FramePoses]:
        """Joints of the people in each of some consecutive frames.

        frames (B, H, W, 3) RGB. boxes: per frame (M, 4 or more) left, top, right, bottom of the people, in px; None
        lets the backend find them. The result has one entry a frame; with boxes, its people are in the order of the
        boxes.
        """
        ...

    def reset(self) -> None:
        """Forget earlier frames: what comes next is another view."""
        ...

    def identity(self) -> dict[str, str]:
        """What decides the result beside the frames: backend, versions, weights, settings; part of the fingerprint."""
        ...

    def close(self) -> None:
        """Give back processes and memory."""
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
        Entry("mmpose", f"{__name__}.mmpose:MMPose", "HRNet, or any MMPose config and checkpoint, on person boxes"),
        Entry("vitpose", f"{__name__}.vitpose:ViTPose", "ViTPose on person boxes of RT-DETR, through transformers"),
    ),
    plural="Backends",
)
"""Pose estimators by the name that `pose.backend` takes: a class, or a function that makes one.

The estimator of another package is made with one argument, `settings`: the `PoseSettings` of the stage.
"""


def open_estimator(name: str, **options: Any) -> PoseEstimator:
    """The estimator of this name, ready to use; options are those of its class.

    Raises UserError for an unknown name, SetupError where the backend or its weights are not here.
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
    """The people of many frames as one sequence, in as many slots as the fullest frame has people; not linked yet."""
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
    """Refuse what no estimator can work on; the boxes as arrays (M, 4 or more)."""
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
    """Boxes (M, 4 or 5) with a score each; 1 where there was none."""
    if boxes.shape[1] >= 5:
        return boxes[:, :5]
    return np.concatenate([boxes, np.ones((len(boxes), 1), np.float32)], 1)
