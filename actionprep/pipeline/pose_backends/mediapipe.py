"""Estimate poses with MediaPipe: the body (BlazePose), two hands, or body, face and hands together.

The package contains the models, so no weights are downloaded. It runs in a worker process, see
`actionprep.pipeline.pose_backends.mediapipe_environment`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from actionprep.datasets.poses.pixels import first_pixel_center, normalized_to_pixel_centers
from actionprep.datasets.poses.sequence import joint_boxes
from actionprep.errors import UserError
from actionprep.pipeline.pose_backends import FramePoses, Frames, check_frames
from actionprep.pipeline.pose_backends.install_step import run_step
from actionprep.pipeline.pose_backends.mediapipe_environment import (
    ALONE,
    FOLLOW,
    INSTALL,
    VERSION,
    Worker,
    environment_folder,
    installed_models,
    is_installed,
    python_of,
    supported_python,
)

__all__ = [
    "INSTALL",
    "MediaPipe",
    "MediaPipeHands",
    "MediaPipeHolistic",
    "environment_folder",
    "install_mediapipe",
    "installed_identity",
    "is_installed",
]

# Points of MediaPipe's face mesh at the 68 face landmarks of iBUG 300-W, in their order: jaw, eyebrows, nose, eyes, lips.
_FACE_68 = np.array(
    [
        *(162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389),
        *(71, 63, 105, 66, 107, 336, 296, 334, 293, 301),
        *(168, 197, 5, 4, 75, 97, 2, 326, 305),
        *(33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380),
        *(61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181),
        *(78, 82, 13, 312, 308, 317, 14, 87),
    ]
)


class MediaPipe:
    """MediaPipe Pose in a worker process, which runs until `close`: 33 landmarks of one person per frame, or per box.

    Args:
        environment: Folder of the virtual environment, see `environment_folder`.
        complexity: 1 is the model in the package; 0 (lite) and 2 (heavy) need additional files.
        detection: Lowest confidence of a detected person.
        tracking: Lowest confidence to follow a person to the next frame, instead of detecting again.
        smooth: Smooth landmarks over time, as implemented by MediaPipe.
        timeout: Seconds to wait for the result of a frame.

    Raises:
        UserError: If there is no model of this complexity.
        SetupError: If the environment or the model is missing or does not work.
    """

    name = "mediapipe"
    skeleton = "mediapipe33"
    solution = "pose"
    num_landmarks = 33

    def __init__(
        self,
        *,
        environment: str | Path | None = None,
        complexity: int = 1,
        detection: float = 0.5,
        tracking: float = 0.5,
        smooth: bool = True,
        timeout: float = 60.0,
    ) -> None:
        if complexity not in (0, 1, 2):
            raise UserError(f"MediaPipe's complexity is 0 (lite), 1 (full) or 2 (heavy), got {complexity}.")
        self._options = {"complexity": complexity, "detection": detection, "tracking": tracking, "smooth": smooth}
        self._timeout = timeout
        self._environment = environment_folder(environment)
        self._worker = self._start()
        self._about = self._worker.about

    def __enter__(self) -> MediaPipe:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def estimate(self, frames: Frames, boxes: Sequence[ArrayLike] | None = None) -> list[FramePoses]:
        """Estimate one person per frame, followed over frames; with boxes, one person per box, each box by itself."""
        people = check_frames(frames, boxes)
        if self._worker.ended:
            self._worker = self._start()
        if people is None:
            return [self._followed(frame, index) for index, frame in enumerate(frames)]
        return [
            self._in_boxes(frame, box, index) for index, (frame, box) in enumerate(zip(frames, people, strict=True))
        ]

    def reset(self) -> None:
        """Discard the followed person."""
        self._worker.reset()

    def identity(self) -> dict[str, str]:
        """Return the version, the hashes of the weights, and the settings."""
        return _identity(self.name, str(self._about["version"]), self._about["weights"], self._options)

    def close(self) -> None:
        """Stop the worker."""
        self._worker.end()

    @classmethod
    def joints(cls, landmarks: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the rows of the layout's joints from the landmarks of the model, shape (K, 5)."""
        return landmarks

    def _start(self) -> Worker:
        return Worker(self._environment, {"solution": self.solution, **self._options}, self._timeout)

    def _followed(self, frame: NDArray[np.uint8], index: int) -> FramePoses:
        landmarks = self._ask(frame, FOLLOW, index)
        if landmarks is None:
            return FramePoses.nobody(len(self.joints(np.zeros((self.num_landmarks, 5), np.float32))))
        keypoints = _pixels(landmarks, frame.shape[0], frame.shape[1], 0, 0)
        around = joint_boxes(keypoints[:, :2], keypoints[:, 2])
        return FramePoses(keypoints[None], np.append(around, _score(keypoints))[None].astype(np.float32))

    def _in_boxes(self, frame: NDArray[np.uint8], boxes: NDArray[np.float32], index: int) -> FramePoses:
        num_joints = len(self.joints(np.zeros((self.num_landmarks, 5), np.float32)))
        keypoints = np.zeros((len(boxes), num_joints, 3), np.float32)
        height, width = frame.shape[:2]
        for person, (left, top, right, bottom) in enumerate(boxes[:, :4]):
            # The model detects heads and hips; a margin around a tight box helps.
            grow = 0.15 * max(right - left, bottom - top)
            x0, y0 = max(int(left - grow), 0), max(int(top - grow), 0)
            x1, y1 = min(int(right + grow) + 1, width), min(int(bottom + grow) + 1, height)
            if x1 - x0 < 8 or y1 - y0 < 8:
                continue
            landmarks = self._ask(np.ascontiguousarray(frame[y0:y1, x0:x1]), ALONE, index)
            if landmarks is not None:
                keypoints[person] = _pixels(landmarks, y1 - y0, x1 - x0, x0, y0)
        score = np.array([_score(person) for person in keypoints], np.float32).reshape(-1, 1)
        return FramePoses(keypoints, np.concatenate([boxes[:, :4], score], 1))

    def _ask(self, image: NDArray[np.uint8], mode: int, index: int) -> NDArray[np.float32] | None:
        answer = self._worker.ask(image, mode, index)
        if not answer:
            return None
        return self.joints(np.frombuffer(answer, np.float32).reshape(self.num_landmarks, 5))


class MediaPipeHands(MediaPipe):
    """MediaPipe Hands: 21 landmarks of the left hand and 21 of the right hand of one person per frame, or per box.

    The score of a landmark is the confidence of its hand. A hand that is not detected has the score 0. The arguments are
    those of `MediaPipe`; only `complexity` 1 is in the package, and landmarks are not smoothed.
    """

    name = "mediapipe-hands"
    skeleton = "mediapipe_hands42"
    solution = "hands"
    num_landmarks = 42


class MediaPipeHolistic(MediaPipe):
    """MediaPipe Holistic: the 33 landmarks of the body, 68 of the face and 21 of each hand of one person.

    The face is reduced from 468 points to the 68 of iBUG 300-W, which COCO-WholeBody uses too. A face or a hand that is
    not detected has the score 0; detected ones have the score 1, as the models give no confidence. The arguments are
    those of `MediaPipe`.
    """

    name = "mediapipe-holistic"
    skeleton = "mediapipe_holistic143"
    solution = "holistic"
    num_landmarks = 33 + 468 + 42

    @classmethod
    def joints(cls, landmarks: NDArray[np.float32]) -> NDArray[np.float32]:  # noqa: D102
        body, face, hands = np.split(landmarks, [33, 33 + 468])
        return np.concatenate([body, face[_FACE_68], hands])


_BACKENDS = {kind.name: kind for kind in (MediaPipe, MediaPipeHands, MediaPipeHolistic)}


def installed_identity(
    folder: str | Path | None = None,
    *,
    backend: str = "mediapipe",
    complexity: int = 1,
    detection: float = 0.5,
    tracking: float = 0.5,
    smooth: bool = True,
) -> dict[str, str]:
    """Return the identity of `MediaPipe` with these options from its files, without starting a worker.

    Args:
        folder: Folder of the environment, see `environment_folder`.
        backend: Name of the backend: mediapipe, mediapipe-hands or mediapipe-holistic.
        complexity: As in `MediaPipe`.
        detection: As in `MediaPipe`.
        tracking: As in `MediaPipe`.
        smooth: As in `MediaPipe`.

    Returns:
        The same as `MediaPipe.identity`.

    Raises:
        SetupError: If the environment or the model is missing.
    """
    version, weights = installed_models(folder, _BACKENDS[backend].solution, complexity)
    options = {"complexity": complexity, "detection": detection, "tracking": tracking, "smooth": smooth}
    return _identity(backend, version, weights, options)


def install_mediapipe(folder: str | Path | None = None, *, echo: bool = True) -> Path:
    """Create a virtual environment with MediaPipe (about 1 GB), and test it.

    Args:
        folder: Folder of the environment, see `environment_folder`.
        echo: Print the commands.

    Returns:
        The folder.

    Raises:
        SetupError: If a step fails; the error has the last lines of its output.
    """
    environment = environment_folder(folder)
    python = supported_python()
    _run([python, "-m", "venv", "--clear", str(environment)], echo)
    _run(
        [str(python_of(environment)), "-m", "pip", "install", "--disable-pip-version-check", f"mediapipe=={VERSION}"],
        echo,
    )
    with MediaPipe(environment=environment) as estimator:
        estimator.estimate(np.zeros((1, 64, 64, 3), np.uint8))
    return environment


def _identity(backend: str, version: str, weights: dict[str, Any], options: dict[str, Any]) -> dict[str, str]:
    return {
        "backend": backend,
        "version": version,
        # Older items have joints half a pixel to the right and below; this entry causes a rebuild.
        "first pixel center": str(first_pixel_center("mediapipe")),
        **{f"weights {name}": str(digest) for name, digest in weights.items()},
        **{name: str(value) for name, value in options.items()},
    }


def _pixels(landmarks: NDArray[np.float32], height: int, width: int, left: int, top: int) -> NDArray[np.float32]:
    """Convert landmarks (K, 5) of a crop to x, y in pixels of the frame, with the visibility as score.

    Rows of zeros are landmarks of a part that was not detected. They stay zeros.
    """
    xy = normalized_to_pixel_centers(landmarks[:, :2], height=height, width=width, name="mediapipe")
    xy = xy + np.array([left, top], np.float32)
    keypoints = np.concatenate([xy, landmarks[:, 3:4].clip(1e-4, 1)], 1).astype(np.float32)
    keypoints[~landmarks.any(-1)] = 0
    return keypoints


def _score(keypoints: NDArray[np.float32]) -> float:
    """Return the mean score of the landmarks that were detected; 0 if there are none."""
    seen = keypoints[keypoints[:, 2] > 0, 2]
    return float(seen.mean()) if len(seen) else 0.0


def _run(command: list[str], echo: bool) -> None:
    run_step(command, echo=echo)
