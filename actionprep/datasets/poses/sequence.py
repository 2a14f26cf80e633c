"""Poses of one view over time, in memory. Pose formats are read to them, and pose products written from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from actionprep.datasets.poses.skeletons import Conversion, convert, skeleton
from actionprep.errors import InputError


@dataclass(frozen=True, eq=False)
class PoseSequence:
    """Joints of people in T frames, with M persons (slots) and K joints.

    Create it with `PoseSequence.of`, which checks arrays and adds defaults.

    Attributes:
        keypoints: Coordinates in pixels of the source image, or meters for 3D, float32 of shape (T, M, K, 2 or 3).
            Missing joints have score 0 and coordinates 0.
        score: Scores of at least 0, float32 of shape (T, M, K); 0 for missing joints.
        bbox: Left, top, right and bottom of each person, in the units of x and y, float32 of shape (T, M, 4); zeros for
            absent persons.
        track_id: Number of the person, the same in all frames, int64 of shape (T, M); -1 for absent or unlinked persons.
        filled: Whether a joint was interpolated across a gap, bool of shape (T, M, K).
        skeleton: Name of the layout, or path of a layout file.
        image_size: Height and width of the source image in pixels; None if unknown.
        frame_index: Indices of the frames in the view, int64 of shape (T,).
        time: Seconds on the recording's clock, float64 of shape (T,), or None.
    """

    keypoints: NDArray[np.float32]
    score: NDArray[np.float32]
    bbox: NDArray[np.float32]
    track_id: NDArray[np.int64]
    filled: NDArray[np.bool_]
    skeleton: str
    image_size: tuple[int, int] | None
    frame_index: NDArray[np.int64]
    time: NDArray[np.float64] | None = None

    @classmethod
    def of(
        cls,
        keypoints: ArrayLike,
        score: ArrayLike | None = None,
        *,
        skeleton: str,
        bbox: ArrayLike | None = None,
        track_id: ArrayLike | None = None,
        filled: ArrayLike | None = None,
        image_size: Sequence[int] | None = None,
        frame_index: ArrayLike | None = None,
        time: ArrayLike | None = None,
        where: str = "these poses",
    ) -> PoseSequence:
        """Create a sequence from arrays, check them, and add defaults for missing ones.

        Keypoints have the shape (T, M, K, C), or (T, K, C) for one person. Without a score, a joint is missing if all
        its coordinates are 0 or one is NaN; other joints have score 1. NaN coordinates count as missing only if the
        score is 0, NaN or not given. Without boxes, the box of a person is that of the detected joints. A `filled` of
        shape (T, M) applies to all joints of a person. `where` is the source of the poses, for error messages.

        Raises:
            InputError: If an array has a wrong shape, type or value; the error names the array.
        """
        layout = _layout(skeleton)
        points = _numbers(keypoints, "keypoints", where)
        if points.ndim == 3:
            points = points[:, None]
            score = None if score is None else np.asarray(score)[:, None] if np.ndim(score) == 2 else score
        if points.ndim != 4 or points.shape[-1] not in (2, 3):
            raise InputError(
                f"Keypoints of {where} must have the shape (frames, persons, joints, 2 or 3), got {points.shape}."
            )
        if points.shape[2] != layout.num_joints:
            raise InputError(
                f"Keypoints of {where} have {points.shape[2]} joints, but skeleton '{layout.name}' has "
                f"{layout.num_joints}. Name the skeleton that the file was made with."
            )
        if score is not None:
            score = _numbers(score, "score", where)
            if score.shape != points.shape[:3]:
                raise InputError(f"The score of {where} must have the shape {points.shape[:3]}, got {score.shape}.")
            bad = np.isinf(score) | (score < 0)
            if bad.any():
                frame = int(np.argwhere(bad)[0][0])
                raise InputError(
                    f"Scores of {where} must be finite and at least 0; frame {frame} has {score[bad][0]:g}.",
                    frame=frame,
                )
        seen = score_of_seen(points, score)
        joints = np.where((seen > 0)[..., None], points, np.float32(0))
        frames, persons = joints.shape[:2]
        here: NDArray[np.bool_] = np.asarray((seen > 0).any(-1))
        around = joint_boxes(joints, seen)
        boxes = around if bbox is None else _numbers(bbox, "bbox", where)
        if boxes.shape == around.shape:
            boxes = np.where(np.isfinite(boxes).all(-1, keepdims=True), boxes, around)
        sequence = cls(
            keypoints=joints,
            score=seen,
            bbox=boxes,
            track_id=np.full((frames, persons), -1, np.int64)
            if track_id is None
            else _whole(track_id, "track_id", where),
            filled=_filled(filled, seen, where),
            skeleton=skeleton,
            image_size=None if image_size is None else _size(image_size, where),
            frame_index=np.arange(frames) if frame_index is None else _whole(frame_index, "frame_index", where),
            time=None if time is None else _numbers(time, "time", where, np.float64),
        )
        for name, array, shape in (
            ("bbox", sequence.bbox, (frames, persons, 4)),
            ("track_id", sequence.track_id, (frames, persons)),
            ("filled", sequence.filled, seen.shape),
            ("frame_index", sequence.frame_index, (frames,)),
            ("time", sequence.time, (frames,)),
        ):
            if array is not None and array.shape != shape:
                raise InputError(f"The array '{name}' of {where} must have the shape {shape}, got {array.shape}.")
        if (np.diff(sequence.frame_index) <= 0).any():
            raise InputError(f"The frame numbers of {where} must rise from frame to frame.")
        _check_tracks(sequence, here, where)
        return sequence

    @property
    def num_frames(self) -> int:
        """Number of frames, T."""
        return len(self.keypoints)

    @property
    def num_persons(self) -> int:
        """Number of slots for persons, M."""
        return int(self.keypoints.shape[1])

    @property
    def num_joints(self) -> int:
        """Number of joints, K."""
        return int(self.keypoints.shape[2])

    @property
    def dimensions(self) -> int:
        """Number of coordinates, 2 or 3."""
        return int(self.keypoints.shape[3])

    @property
    def present(self) -> NDArray[np.bool_]:
        """Whether at least one joint of a person is detected, bool of shape (T, M)."""
        return np.asarray((self.score > 0).any(-1))

    def take(self, frames: ArrayLike) -> PoseSequence:
        """Return these frames, given by position."""
        chosen = np.asarray(frames, np.int64)
        arrays = ("keypoints", "score", "bbox", "track_id", "filled", "frame_index")
        picked: dict[str, Any] = {name: getattr(self, name)[chosen] for name in arrays}
        return replace(self, **picked, time=None if self.time is None else self.time[chosen])

    def with_skeleton(self, target: str) -> tuple[PoseSequence, Conversion]:
        """Return these poses in another layout, and a description of the conversion."""
        points, score, done = convert(self.keypoints, self.score, self.skeleton, target)
        # Joints derived from filled joints are filled too.
        _, sure, _ = convert(self.keypoints, np.where(self.filled, 0, self.score), self.skeleton, target)
        filled = (score > 0) & (sure <= 0)
        return replace(self, keypoints=points, score=score, filled=filled, skeleton=target), done


@dataclass(frozen=True, eq=False)
class PoseItem:
    """Poses of one view of one recording in a pose file, with metadata of the file.

    Attributes:
        recording: Id of the recording: relative path and name of the file; dots in the name are kept.
        poses: The poses.
        view: Camera if the format has it, else None.
        label: Label of the recording.
        subject: Subject of the recording.
        splits: Names of the splits that list this recording, such as "xsub_train".
        extra: Other content of the file, as plain values.
    """

    recording: str
    poses: PoseSequence
    view: str | None = None
    label: str | int | None = None
    subject: str | None = None
    splits: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


def joint_boxes(keypoints: NDArray[np.floating[Any]], score: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Compute the smallest box around the detected joints.

    Args:
        keypoints: Coordinates, shape (..., K, C).
        score: Scores, shape (..., K); above 0 where a joint is detected.

    Returns:
        Left, top, right and bottom, float32 of shape (..., 4); zeros without joints.
    """
    seen = np.asarray(score)[..., None] > 0
    xy = np.asarray(keypoints)[..., :2]
    low = np.where(seen, xy, np.inf).min(-2)
    high = np.where(seen, xy, -np.inf).max(-2)
    box = np.concatenate([low, high], -1)
    return np.where(np.isfinite(box), box, 0).astype(np.float32)


def score_of_seen(
    keypoints: NDArray[np.floating[Any]], score: NDArray[np.floating[Any]] | None = None, *, least: float = 0.0
) -> NDArray[np.float32]:
    """Return the score of each joint, with 0 for missing joints. This is the definition of a missing joint.

    A joint is missing if one of its coordinates is NaN or infinite, or if its score is 0, NaN, infinite or below
    `least`. Without scores, a joint is missing if all its coordinates are 0 or one is not finite; other joints have the
    score 1.

    Args:
        keypoints: Coordinates, shape (..., K, C).
        score: Scores, shape (..., K).
        least: Smallest score of a joint that counts as seen.

    Returns:
        Scores, shape (..., K).
    """
    finite = np.isfinite(keypoints).all(-1)
    scores: NDArray[np.float32]
    if score is None:
        scores = (finite & (keypoints != 0).any(-1)).astype(np.float32)
    else:
        scores = np.where(finite & np.isfinite(score) & (score >= least), score, 0).astype(np.float32)
    return scores


def pack_persons(
    people: Sequence[Sequence[NDArray[np.floating[Any]]]], num_joints: int, dimensions: int = 2
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Combine lists of people per frame into arrays.

    Args:
        people: For each frame, arrays of shape (K, dimensions + 1); the last column is the score.
        num_joints: Number of joints, K.
        dimensions: Number of coordinates, C.

    Returns:
        Keypoints (T, M, K, C) and scores (T, M, K). M is the largest number of people in a frame, and at least 1.
    """
    slots = max([1, *(len(frame) for frame in people)])
    keypoints = np.zeros((len(people), slots, num_joints, dimensions), np.float32)
    score = np.zeros((len(people), slots, num_joints), np.float32)
    for t, frame in enumerate(people):
        for m, person in enumerate(frame):
            keypoints[t, m] = person[:, :dimensions]
            score[t, m] = person[:, dimensions]
    return keypoints, score


def _filled(filled: ArrayLike | None, seen: NDArray[Any], where: str) -> NDArray[np.bool_]:
    if filled is None:
        return np.zeros(seen.shape, bool)
    marked: NDArray[np.bool_] = _numbers(filled, "filled", where) != 0
    return marked[..., None] & (seen > 0) if marked.shape == seen.shape[:2] else marked


def _layout(name: str) -> Any:
    return skeleton(name)


def _numbers(values: ArrayLike, name: str, where: str, kind: type = np.float32) -> NDArray[Any]:
    try:
        array = np.asarray(values, dtype=None)
    except ValueError:
        raise InputError(f"The array '{name}' of {where} is ragged: its rows differ in length.") from None
    if array.dtype.kind not in "fiub":
        raise InputError(f"The array '{name}' of {where} must hold numbers, got {array.dtype}.")
    with np.errstate(over="ignore"):  # too large for single precision is infinite, and refused as that
        return array.astype(kind)


def _whole(values: ArrayLike, name: str, where: str) -> NDArray[np.int64]:
    array = _numbers(values, name, where, np.float64)
    if not np.isfinite(array).all() or (array != np.floor(array)).any():
        raise InputError(f"The array '{name}' of {where} must have integer values.")
    return array.astype(np.int64)


def _size(image_size: Sequence[int], where: str) -> tuple[int, int]:
    try:
        height, width = (int(value) for value in image_size)
    except (TypeError, ValueError, OverflowError):
        height = width = 0
    if height < 1 or width < 1:
        raise InputError(f"The image size of {where} must be (height, width) in pixels, got {image_size}.")
    return height, width


def _check_tracks(sequence: PoseSequence, here: NDArray[np.bool_], where: str) -> None:
    known = here & (sequence.track_id >= 0)
    # Persons without an id get a unique negative one.
    ids = np.sort(np.where(known, sequence.track_id, -1 - np.arange(sequence.num_persons)), axis=1)
    twice = np.flatnonzero((np.diff(ids, axis=1) == 0).any(1))
    if len(twice):
        t = int(twice[0])
        raise InputError(
            f"Frame {t} of {where} has the same track id twice: {sequence.track_id[t][known[t]].tolist()}. An id is one "
            "person.",
            frame=t,
        )
