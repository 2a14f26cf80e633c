"""Link people over frames, keep the most important ones, fill short gaps and smooth their joints."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from actionprep.datasets.poses.sequence import PoseSequence, joint_boxes
from actionprep.errors import UserError
from actionprep.settings import Settings, option

Array = NDArray[np.float64]

# Standard deviation of annotations per joint, relative to the body size, from the COCO keypoint evaluation
# (cocodataset.org/#keypoints-eval). Joints that COCO does not have get the mean of these.
_SIGMAS = {
    "nose": 0.026,
    "eye": 0.025,
    "ear": 0.035,
    "shoulder": 0.079,
    "elbow": 0.072,
    "wrist": 0.062,
    "hip": 0.107,
    "knee": 0.087,
    "ankle": 0.089,
}
_OTHER_SIGMA = 0.07
# Number of frames for which an undetected joint still counts as part of its person.
_JOINT_MEMORY = 5


class LinkingSettings(Settings):
    """How people of neighboring frames become one person over time."""

    persons: int | None = option(
        None,
        "Keep at most this many persons: those with the largest sum of score times box area. Not set: keep all.",
        ge=1,
    )
    least_likeness: float = option(
        0.2, "Link two poses only if the mean of box IoU and keypoint similarity is at least this.", ge=0, le=1
    )
    memory: int = option(15, "A person who is not detected for more frames than this gets a new number.", ge=0)
    least_frames: int = option(
        3,
        "Drop persons who are detected in fewer frames than this. Shorter views keep persons who are in all frames.",
        ge=1,
    )
    fill: int = option(0, "Interpolate gaps of at most this many frames, and flag them as filled; 0 fills none.", ge=0)
    smooth: Literal["none", "one-euro", "savgol"] = option("none", "Smooth the joints of each person over time.")
    one_euro_cutoff: float = option(1.0, "One-euro: cut-off frequency at rest in Hz; lower is smoother.", gt=0)
    one_euro_beta: float = option(
        0.05, "One-euro: increase of the cut-off with speed in body heights per second.", ge=0
    )
    savgol_window: int = option(7, "Savitzky–Golay: number of frames, odd.", ge=3)
    savgol_order: int = option(2, "Savitzky–Golay: order of the polynomial.", ge=1)


@dataclass(frozen=True)
class Linking:
    """Linked poses, and counts of what was dropped and filled.

    Attributes:
        poses: The linked poses.
        num_found: Number of persons before any were dropped.
        num_dropped: Number of persons that were dropped.
        num_filled_frames: Number of frames in which an undetected person was interpolated, summed over persons.
        num_filled_joints: Number of interpolated joints, including those of interpolated persons.
    """

    poses: PoseSequence
    num_found: int
    num_dropped: int
    num_filled_frames: int
    num_filled_joints: int


def link(poses: PoseSequence, settings: LinkingSettings | None = None, *, keep_ids: bool = False) -> Linking:
    """Link people over frames, so that slot m is person m in every frame.

    In each frame, detected people are assigned to known persons with the Hungarian algorithm, so that the sum of
    similarities is largest. The similarity is the mean of the box IoU and the keypoint similarity (OKS) with the last
    detection of the person, moved on at its last velocity. Persons are numbered by the sum of mean score times box area
    over all frames, the largest first, and equal ones by first appearance. So the same input always gives the same
    numbers, and person 0 is the most important one.

    Args:
        poses: Poses with people in any slots.
        settings: How to link; None for the defaults.
        keep_ids: Use the track ids of the poses if all people have one. People are then only selected and numbered.

    Returns:
        The linked poses. Their track ids are the slots.
    """
    settings = settings or LinkingSettings()
    tracks = _known_tracks(poses) if keep_ids and has_ids(poses) else _tracks(poses, settings)
    weight = _importance(poses, tracks)
    frames = np.array([(tracks == person).any(1).sum() for person in range(len(weight))])
    first = np.array([int((tracks == person).any(1).argmax()) for person in range(len(weight))])
    least = min(settings.least_frames, poses.num_frames)
    order = [person for person in np.lexsort((first, -weight)) if frames[person] >= least][: settings.persons]
    linked = _as_slots(poses, tracks, order)
    filled = linked
    if settings.fill:
        filled = fill_gaps(linked, settings.fill)
    if settings.smooth != "none":
        filled = smooth(filled, settings)
    return Linking(
        filled,
        num_found=len(weight),
        num_dropped=len(weight) - len(order),
        num_filled_frames=int((filled.present & ~linked.present).sum()),
        num_filled_joints=int((filled.filled & ~linked.filled).sum()),
    )


def has_ids(poses: PoseSequence) -> bool:
    """Return whether all people in these poses have a track id."""
    return bool(poses.present.any()) and bool((poses.track_id[poses.present] >= 0).all())


def box_iou(a: Array, b: Array) -> Array:
    """Compute the intersection over union of boxes.

    Args:
        a: Left, top, right, bottom, shape (N, 4).
        b: Likewise, shape (M, 4).

    Returns:
        IoU of each pair, shape (N, M); 0 if both boxes are empty.
    """
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    both = np.prod(np.clip(high - low, 0, None), -1)
    area_a, area_b = (np.prod(np.clip(box[:, 2:] - box[:, :2], 0, None), -1) for box in (a, b))
    union = area_a[:, None] + area_b[None] - both
    return np.asarray(np.divide(both, union, out=np.zeros_like(both), where=union > 0))


def keypoint_similarity(a: Array, seen_a: Array, b: Array, seen_b: Array, sigmas: Array) -> Array:
    """Compute the object keypoint similarity (OKS) of people.

    This is the mean of exp(-d² / (2 s² k²)) over the joints detected in both, where d is the distance, k is twice the
    joint's sigma, and s² is the mean area of the two boxes. It is the measure of the COCO keypoint evaluation, made
    symmetric.

    Args:
        a: Joints, shape (N, K, C); x and y come first.
        seen_a: Scores of these joints, shape (N, K); above 0 where a joint was detected.
        b: Joints of other people, shape (M, K, C).
        seen_b: Their scores, shape (M, K).
        sigmas: Standard deviation per joint, shape (K,).

    Returns:
        Similarity in [0, 1] of each pair, shape (N, M); 0 if they share no joint.
    """
    shown = (seen_a[:, None] > 0) & (seen_b[None] > 0)
    distance = ((a[:, None, ..., :2] - b[None, ..., :2]) ** 2).sum(-1)
    boxes = (joint_boxes(people, seen).astype(float) for people, seen in ((a, seen_a), (b, seen_b)))
    area_a, area_b = (np.prod(box[:, 2:] - box[:, :2], -1) for box in boxes)
    area = np.maximum((area_a[:, None] + area_b[None]) / 2, 1e-9)
    alike = np.exp(-distance / (2 * area[..., None] * (2 * sigmas) ** 2))
    count = shown.sum(-1)
    return np.asarray(np.divide((alike * shown).sum(-1), count, out=np.zeros(count.shape), where=count > 0))


def joint_sigmas(poses: PoseSequence) -> Array:
    """Return COCO's sigma for each joint of the layout of these poses, shape (K,)."""
    from actionprep.datasets.poses.skeletons import skeleton

    def sigma(joint: str) -> float:
        name = joint.removeprefix("left_").removeprefix("right_")
        return _SIGMAS.get(name, _OTHER_SIGMA)

    return np.array([sigma(joint) for joint in skeleton(poses.skeleton).joints])


def fill_gaps(poses: PoseSequence, longest: int) -> PoseSequence:
    """Interpolate the joints of linked persons over short gaps.

    Each joint is interpolated separately, linearly in frame numbers. Its score is the lower of the scores before and
    after the gap. Gaps at the ends are not filled. Where a person was not detected, the box is that of the filled joints.

    Args:
        poses: Linked poses.
        longest: Length in frames of the longest gap to fill.

    Returns:
        New poses. Interpolated joints are flagged in `filled`.
    """
    keypoints, score = poses.keypoints.copy(), poses.score.copy()
    number = poses.frame_index
    for m in range(poses.num_persons):
        for k in range(poses.num_joints):
            seen = np.flatnonzero(poses.score[:, m, k] > 0)
            for before, after in pairwise(seen):
                if not 1 < number[after] - number[before] <= longest + 1:
                    continue
                for t in range(before + 1, after):
                    share = (number[t] - number[before]) / (number[after] - number[before])
                    keypoints[t, m, k] = (1 - share) * poses.keypoints[before, m, k] + share * poses.keypoints[
                        after, m, k
                    ]
                    score[t, m, k] = min(poses.score[before, m, k], poses.score[after, m, k])
    made = (score > 0) & (poses.score <= 0)
    present = (score > 0).any(-1)
    new = present & ~poses.present
    bbox = np.where(new[..., None], joint_boxes(keypoints, score), poses.bbox)
    ids = poses.track_id.copy()
    for m in range(poses.num_persons):
        known = poses.track_id[poses.present[:, m], m]
        if len(known):
            ids[new[:, m], m] = known[0]
    return replace(poses, keypoints=keypoints, score=score, bbox=bbox, track_id=ids, filled=poses.filled | made)


def smooth(poses: PoseSequence, settings: LinkingSettings) -> PoseSequence:
    """Smooth the joints of linked persons within each run of frames in which they are detected.

    "one-euro" filters forward in time. "savgol" applies a Savitzky–Golay filter to runs that are at least as long as the
    window, and leaves shorter ones unchanged. Poses without times are taken as 30 frames per second.

    Args:
        poses: Linked poses.
        settings: The filter and its parameters.

    Returns:
        New poses with the same scores.

    Raises:
        UserError: If the window is even, or not longer than the order of the polynomial.

    References:
        Casiez, Roussel and Vogel, "1€ Filter: A Simple Speed-based Low-pass Filter for Noisy Input in Interactive
        Systems", CHI 2012.
    """
    if settings.savgol_window % 2 == 0 or settings.savgol_order >= settings.savgol_window:
        raise UserError(
            f"Savitzky–Golay needs an odd window longer than its order, got window {settings.savgol_window} and order "
            f"{settings.savgol_order}."
        )
    keypoints = poses.keypoints.copy()
    time = poses.time if poses.time is not None else poses.frame_index / 30.0
    for m in range(poses.num_persons):
        heights = (poses.bbox[..., 3] - poses.bbox[..., 1])[poses.present[:, m], m]
        size = float(np.median(heights)) if len(heights) and np.median(heights) > 0 else 1.0
        for k in range(poses.num_joints):
            for stretch in _stretches(poses.score[:, m, k] > 0, poses.frame_index):
                values = poses.keypoints[stretch, m, k].astype(np.float64)
                if settings.smooth == "savgol":
                    if len(stretch) >= settings.savgol_window:
                        from scipy.signal import savgol_filter

                        keypoints[stretch, m, k] = savgol_filter(
                            values, settings.savgol_window, settings.savgol_order, axis=0
                        )
                else:
                    keypoints[stretch, m, k] = one_euro(
                        values, np.asarray(time)[stretch], settings.one_euro_cutoff, settings.one_euro_beta / size
                    )
    return replace(poses, keypoints=keypoints)


def one_euro(values: Array, time: Array, cutoff: float, beta: float, *, speed_cutoff: float = 1.0) -> Array:
    """Apply the one-euro filter, a low-pass filter with a cut-off of `cutoff + beta * |speed|` Hz.

    Args:
        values: Signal, shape (T, C).
        time: Times in seconds, shape (T,).
        cutoff: Cut-off frequency at rest in Hz.
        beta: Increase of the cut-off with speed.
        speed_cutoff: Cut-off frequency of the speed in Hz.

    Returns:
        Filtered signal, float64 of shape (T, C).
    """

    def share(frequency: Any, step: float) -> Any:
        return 1 / (1 + 1 / (2 * np.pi * frequency * step))

    out = np.array(values, np.float64)
    speed = np.zeros(values.shape[1:])
    for t in range(1, len(values)):
        step = max(float(time[t] - time[t - 1]), 1e-6)
        raw = (values[t] - out[t - 1]) / step
        speed = speed + share(speed_cutoff, step) * (raw - speed)
        mix = share(cutoff + beta * np.abs(speed), step)
        out[t] = out[t - 1] + mix * (values[t] - out[t - 1])
    return out


def _known_tracks(poses: PoseSequence) -> NDArray[np.int64]:
    """Return track ids renumbered by first appearance, shape (T, M); -1 for empty slots."""
    tracks = np.full(poses.track_id.shape, -1, np.int64)
    ids = poses.track_id[poses.present]
    number_of = {int(id): number for number, id in enumerate(dict.fromkeys(ids.tolist()))}
    tracks[poses.present] = [number_of[int(id)] for id in ids]
    return tracks


def _tracks(poses: PoseSequence, settings: LinkingSettings) -> NDArray[np.int64]:
    """Return the person in each slot, numbered by first appearance, shape (T, M); -1 for empty slots."""
    from scipy.optimize import linear_sum_assignment

    sigmas = joint_sigmas(poses)
    tracks = np.full((poses.num_frames, poses.num_persons), -1, np.int64)
    known: list[_Track] = []
    for t in range(poses.num_frames):
        number = int(poses.frame_index[t])
        slots = np.flatnonzero(poses.present[t])
        points, seen = poses.keypoints[t, slots].astype(np.float64), poses.score[t, slots].astype(np.float64)
        boxes = poses.bbox[t, slots].astype(np.float64)
        alive = [track for track in known if number - track.frame <= settings.memory + 1]
        assigned: dict[int, _Track] = {}
        if alive and len(slots):
            predicted = [track.at(number) for track in alive]
            likeness = (
                box_iou(np.stack([box for _, box in predicted]), boxes)
                + keypoint_similarity(
                    np.stack([joints for joints, _ in predicted]),
                    np.stack([track.seen for track in alive]),
                    points,
                    seen,
                    sigmas,
                )
            ) / 2
            for row, column in zip(*linear_sum_assignment(-likeness), strict=True):
                if likeness[row, column] >= settings.least_likeness:
                    assigned[int(column)] = alive[row]
        for row, slot in enumerate(slots):
            track = assigned.get(row)
            if track is None:
                track = _Track(len(known), number, points[row], seen[row], boxes[row])
                known.append(track)
            else:
                track.see(number, points[row], seen[row], boxes[row])
            tracks[t, slot] = track.person
    return tracks


class _Track:
    """The last detection of a person: the last position of each joint, and the median velocity.

    Joints are kept for some frames, because detectors sometimes detect only half of a person.
    """

    def __init__(self, person: int, frame: int, points: Array, seen: Array, box: Array) -> None:
        self.person = person
        self.frame, self.points, self.seen, self.box = frame, points, seen, box
        self.joint_frame = np.where(seen > 0, frame, -(10**9))
        self.velocity = np.zeros(2)

    def see(self, frame: int, points: Array, seen: Array, box: Array) -> None:
        shared = (seen > 0) & (self.joint_frame == self.frame)
        if shared.any():
            step = np.median((points - self.points)[shared, :2], 0) / (frame - self.frame)
            self.velocity = (self.velocity + step) / 2
        carried, box_before = self.at(frame)
        self.joint_frame = np.where(seen > 0, frame, self.joint_frame)
        kept = (seen <= 0) & (frame - self.joint_frame <= _JOINT_MEMORY)
        self.points = np.where((seen > 0)[:, None], points, carried)
        self.seen = np.where(seen > 0, seen, np.where(kept, self.seen, 0))
        if kept.any():
            box = np.concatenate([np.minimum(box[:2], box_before[:2]), np.maximum(box[2:], box_before[2:])])
            box_of_joints = joint_boxes(self.points, self.seen).astype(np.float64)
            box = np.concatenate([np.maximum(box[:2], box_of_joints[:2]), np.minimum(box[2:], box_of_joints[2:])])
        self.frame, self.box = frame, box

    def at(self, frame: int) -> tuple[Array, Array]:
        """Return joints and box, extrapolated to a later frame."""
        move = self.velocity * (frame - self.frame)
        points = self.points.copy()
        points[:, :2] += move
        return points, self.box + np.tile(move, 2)


def _importance(poses: PoseSequence, tracks: NDArray[np.int64]) -> Array:
    """Return the sum over all frames of mean score times box area, for each person."""
    area = np.prod(np.clip(poses.bbox[..., 2:] - poses.bbox[..., :2], 0, None), -1).astype(np.float64)
    value = poses.score.mean(-1) * area
    count = int(tracks.max(initial=-1)) + 1
    return np.bincount(tracks[tracks >= 0], value[tracks >= 0], count).astype(np.float64)


def _as_slots(poses: PoseSequence, tracks: NDArray[np.int64], order: list[int]) -> PoseSequence:
    slots = max(1, len(order))

    def moved(array: NDArray[Any], empty: Any) -> NDArray[Any]:
        out = np.full((poses.num_frames, slots, *array.shape[2:]), empty, array.dtype)
        for slot, person in enumerate(order):
            frame, source = np.nonzero(tracks == person)
            out[frame, slot] = array[frame, source]
        return out

    score = moved(poses.score, 0)
    ids = np.where((score > 0).any(-1), np.arange(slots), -1)
    return replace(
        poses,
        keypoints=moved(poses.keypoints, 0),
        score=score,
        bbox=moved(poses.bbox, 0),
        track_id=ids,
        filled=moved(poses.filled, False),
    )


def _stretches(seen: NDArray[np.bool_], number: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Return the runs of neighboring frames in which `seen` is true."""
    index = np.flatnonzero(seen)
    if not len(index):
        return []
    return np.split(index, np.flatnonzero(np.diff(number[index]) > 1) + 1)
