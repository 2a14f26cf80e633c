"""Sampling of frames and augmentation of joints, before anything is rendered or fed to a model.

Everything is a pure function of arrays and of a numpy Generator; `sample_rng(seed, epoch, sample)` makes the Generator,
so that a sample's augmentation depends on these three numbers and on nothing else (no worker, batch or order).

Arrays are those of one sample: keypoints (M, T, K, C) float32 with C = 2 or 3, score (M, T, K), 0 where a joint is
                                missing.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actionprep.datasets.poses import PoseSequence
from actionprep.datasets.skeletons import Skeleton
from actionprep.errors import UserError
from actionprep.settings import Settings, option

Array = NDArray[np.float32]
Indices = NDArray[np.int64]


def sample_rng(seed: int, epoch: int, sample: int) -> np.random.Generator:
    """The random numbers of one sample in one epoch: the same whoever asks, in whatever order."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch, sample])))


def sample_arrays(poses: PoseSequence, *, persons: int | None = None, drop_empty: bool = True) -> tuple[Array, Array]:
    """One sample out of a pose sequence: keypoints (M, T, K, C) and score (M, T, K), a row a person.

    Linked persons are ordered by track id, so that a row is one person throughout; unlinked ones stay in their slots.
    With `persons`, the rows seen in most frames are kept (the first of equals); empty rows are added where too few are.
    drop_empty: leave out frames in which nobody is seen, unless there are no others.
    """
    here = poses.present
    ids = np.unique(poses.track_id[here & (poses.track_id >= 0)])
    if len(ids) and not (here & (poses.track_id < 0)).any():
        rows = [here & (poses.track_id == one) for one in ids]
        keypoints = np.zeros((len(ids), *poses.keypoints.shape[:1], *poses.keypoints.shape[2:]), np.float32)
        score = np.zeros(keypoints.shape[:-1], np.float32)
        for row, mine in enumerate(rows):
            frame, slot = np.nonzero(mine)
            keypoints[row, frame], score[row, frame] = poses.keypoints[frame, slot], poses.score[frame, slot]
    else:
        keypoints, score = poses.keypoints.transpose(1, 0, 2, 3), poses.score.transpose(1, 0, 2)
    if persons is not None:
        often = np.argsort(-(score > 0).any(-1).sum(1), kind="stable")[:persons]
        keypoints, score = keypoints[np.sort(often)], score[np.sort(often)]
        short = persons - len(keypoints)
        keypoints = np.pad(keypoints, ((0, short), (0, 0), (0, 0), (0, 0)))
        score = np.pad(score, ((0, short), (0, 0), (0, 0)))
    seen = (score > 0).any((0, 2))
    if drop_empty and seen.any():
        keypoints, score = keypoints[:, seen], score[:, seen]
    return np.ascontiguousarray(keypoints), np.ascontiguousarray(score)


def uniform_frames(num_frames: int, clip_len: int, rng: np.random.Generator) -> Indices:
    """One random frame of each of `clip_len` segments of equal length: (clip_len,) rising frame indices.

    Short clips as published with PoseConv3D (Duan et al., CVPR 2022): with clip_len to 2 clip_len frames, neighbouring
    frames with single ones left out at random; with fewer than clip_len frames, consecutive ones from a random start,
    over the end back to the first.
    """
    _check_length(num_frames, clip_len)
    if num_frames < clip_len:
        return (rng.integers(num_frames) + np.arange(clip_len)) % num_frames
    if num_frames < 2 * clip_len:
        skips = np.zeros(clip_len + 1, np.int64)
        skips[rng.choice(clip_len + 1, num_frames - clip_len, replace=False)] = 1
        return np.arange(clip_len) + np.cumsum(skips)[:-1]
    edges = np.arange(clip_len + 1) * num_frames // clip_len
    return edges[:-1] + rng.integers(np.diff(edges))


def centre_frames(num_frames: int, clip_len: int) -> Indices:
    """The middle frame of each of `clip_len` segments of equal length; frames repeat where there are too few."""
    return spread_clips(num_frames, clip_len, 1)[0]


def spread_clips(num_frames: int, clip_len: int, num_clips: int) -> NDArray[np.int64]:
    """Several clips for testing, without chance: (num_clips, clip_len).

    Clip j takes the frame at share (j + 1/2) / num_clips of every segment.
    """
    _check_length(num_frames, clip_len)
    if num_clips < 1:
        raise UserError(f"The number of test clips must be at least 1, got {num_clips}.")
    inside = (np.arange(num_clips) + 0.5) / num_clips
    place = (np.arange(clip_len)[None] + inside[:, None]) * num_frames / clip_len
    return np.floor(place).astype(np.int64).clip(0, num_frames - 1)


def warped_times(
    num_frames: int,
    clip_len: int,
    rng: np.random.Generator,
    *,
    crop: tuple[float, float] = (0.75, 1.0),
    warp: float = 0.0,
) -> NDArray[np.float64]:
    """Fractional frame times of a random part of the sequence, run through at a smoothly changing speed: (clip_len,).

    crop: smallest and largest share of the sequence that is kept; its place is random. warp: how far the speed may
          sway, as
    a share of the mean speed (0 to below 1); one sine wave over the clip, so that times always rise.
    """
    _check_length(num_frames, clip_len)
    length = rng.uniform(*crop) * (num_frames - 1)
    start = rng.uniform(0, max(num_frames - 1 - length, 0))
    sway, phase = rng.uniform(-warp, warp), rng.uniform(0, 2 * np.pi)
    even = np.linspace(0, 1, clip_len)
    bent = even + sway / (2 * np.pi) * (np.sin(2 * np.pi * even + phase) - np.sin(phase))
    return np.asarray(start + length * bent.clip(0, 1))


def resample(keypoints: Array, score: Array, times: NDArray[np.float64]) -> tuple[Array, Array]:
    """Joints at fractional frame times, linear between the two frames beside: (M, T, K, C) → (M, len(times), K, C).

    A joint that is missing in one of the two frames takes the other; one missing in both is missing.
    """
    low = np.floor(times).astype(np.int64).clip(0, keypoints.shape[1] - 1)
    high = np.ceil(times).astype(np.int64).clip(0, keypoints.shape[1] - 1)
    share = (times - low).astype(np.float32)[None, :, None]
    before, after = score[:, low], score[:, high]
    share = np.where(before <= 0, 1, np.where(after <= 0, 0, share)).astype(np.float32)
    mixed = keypoints[:, low] * (1 - share)[..., None] + keypoints[:, high] * share[..., None]
    return mixed.astype(np.float32), (before * (1 - share) + after * share).astype(np.float32)


def temporal_shift(keypoints: Array, score: Array, frames: int) -> tuple[Array, Array]:
    """All joints later by `frames` (earlier where negative); the first or last frame fills what becomes empty.

    This moves along time; the published augmentation of this name rolled the joints by mistake.
    """
    index = (np.arange(keypoints.shape[1]) - frames).clip(0, keypoints.shape[1] - 1)
    return keypoints[:, index], score[:, index]


def body_frame(keypoints: Array, score: Array) -> tuple[Array, float]:
    """Centre (C,) of all joints seen in the clip, and their root mean square distance from it.

    Zeros and 1 where none is.
    """
    seen = score > 0
    count = int(seen.sum())
    if count == 0:
        return np.zeros(keypoints.shape[-1], np.float32), 1.0
    points = keypoints[seen]
    centre = points.mean(0)
    size = float(np.sqrt(((points - centre) ** 2).sum(-1).mean()))
    return centre.astype(np.float32), size if size > 0 else 1.0


def rotate(keypoints: Array, angle: float, centre: Array, *, up: int = 1) -> Array:
    """Turned by `angle` rad about the centre: in the plane for 2D, about the axis `up` for 3D."""
    cos, sin = np.cos(angle), np.sin(angle)
    if keypoints.shape[-1] == 2:
        turn = np.array([[cos, sin], [-sin, cos]])
    else:
        a, b = (axis for axis in range(3) if axis != up)
        turn = np.eye(3)
        turn[a, a] = turn[b, b] = cos
        turn[a, b], turn[b, a] = sin, -sin
    return np.asarray((keypoints - centre) @ turn.astype(np.float32) + centre, np.float32)


def flip(keypoints: Array, score: Array, skeleton: Skeleton, centre_x: float) -> tuple[Array, Array]:
    """Mirrored about the line x = centre_x, with left and right joints exchanged."""
    order = list(skeleton.flip_order)
    mirrored = keypoints[:, :, order].copy()
    mirrored[..., 0] = 2 * np.float32(centre_x) - mirrored[..., 0]
    return mirrored, score[:, :, order]


def scale_bones(keypoints: Array, score: Array, skeleton: Skeleton, factors: Array) -> Array:
    """Bones made longer or shorter along the tree, every joint moving with its parent; the root stays.

    factors (K,): for the bone from a joint's parent to the joint. Bones with a missing end keep their length.
    """
    parents, chain = _tree(skeleton)
    held = (score > 0) & (score[:, :, parents] > 0)
    bones = keypoints - keypoints[:, :, parents]
    change = np.where(held, factors - 1, 0)[..., None].astype(np.float32) * bones
    return np.asarray(keypoints + chain @ change, np.float32)


@lru_cache(maxsize=16)
def _tree(skeleton: Skeleton) -> tuple[Indices, Array]:
    """Parents (roots are their own), and chain[j, i] = 1 where bone i lies between joint j and its root."""
    parents = np.array([parent if parent >= 0 else joint for joint, parent in enumerate(skeleton.parents)])
    chain = np.zeros((skeleton.num_joints, skeleton.num_joints), np.float32)
    for joint in range(skeleton.num_joints):
        place = joint
        while parents[place] != place:
            chain[joint, place] = 1
            place = int(parents[place])
    return parents, chain


def random_box(
    box: NDArray[Any],
    rng: np.random.Generator,
    *,
    area: tuple[float, float] = (0.56, 1.0),
    aspect: tuple[float, float] = (3 / 4, 4 / 3),
) -> NDArray[np.float64]:
    """A random part of a box (left, top, right, bottom), as random resized cropping takes it of an image.

    area: share of the box, uniform; aspect: width over height, log-uniform. Shapes that do not fit are drawn again, ten
    times, and then the whole box is taken.
    """
    left, top, right, bottom = (float(value) for value in box)
    width, height = right - left, bottom - top
    for _ in range(10):
        share = rng.uniform(*area) * width * height
        shape = np.exp(rng.uniform(*np.log(aspect)))
        wide, high = np.sqrt(share * shape), np.sqrt(share / shape)
        if wide <= width and high <= height:
            x, y = left + rng.uniform(0, width - wide), top + rng.uniform(0, height - high)
            return np.array([x, y, x + wide, y + high])
    return np.array([left, top, right, bottom])


class PoseAugmentation(Settings):
    """Changes of joints before rendering; 0 turns each off. Lengths are in body sizes (`body_frame`), angles in rad."""

    rotate: float = option(0.3, "Turn about the body centre, uniform in ± this angle (3D: about the vertical).", ge=0)
    tilt: float = option(0.0, "3D only: turn about the horizontal axes as well, uniform in ± this angle.", ge=0)
    scale: float = option(0.15, "Scale about the body centre, uniform in 1 ± this.", ge=0, lt=1)
    scale_axes: bool = option(True, "Draw the scale for every axis by itself.")
    shift: float = option(0.0, "Shift along every axis, uniform in ± this many body sizes.", ge=0)
    noise: float = option(
        0.012, "Gaussian noise of every joint in every frame, standard deviation in body sizes.", ge=0
    )
    bones: float = option(0.15, "Bone lengths along the kinematic tree, each uniform in 1 ± this.", ge=0, lt=1)
    flip: float = option(
        0.5, "Probability of a mirror image with sides exchanged; 0 where left and right matter.", ge=0, le=1
    )
    joint_dropout: float = option(0.04, "Probability that a joint is missing in the whole clip.", ge=0, lt=1)
    point_dropout: float = option(0.0, "Probability that a joint is missing in one frame.", ge=0, lt=1)
    person_dropout: float = option(0.0, "Probability that a person is missing, where another stays.", ge=0, lt=1)
    temporal_shift: int = option(0, "Shift along time, uniform in ± this many frames.", ge=0)

    def __call__(
        self, keypoints: Array, score: Array, skeleton: Skeleton, rng: np.random.Generator, *, up: int = 1
    ) -> tuple[Array, Array]:
        """A changed copy of one sample. Coordinates of missing joints are 0."""
        dims = keypoints.shape[-1]
        if self.temporal_shift:
            keypoints, score = temporal_shift(
                keypoints, score, int(rng.integers(-self.temporal_shift, self.temporal_shift + 1))
            )
        if self.bones:
            pairs = 1 + rng.uniform(-self.bones, self.bones, skeleton.num_joints)
            keypoints = scale_bones(keypoints, score, skeleton, pairs.astype(np.float32))
        centre, size = body_frame(keypoints, score)
        if self.flip and rng.random() < self.flip:
            keypoints, score = flip(keypoints, score, skeleton, float(centre[0]))
        matrix = np.eye(dims, dtype=np.float32)
        if self.scale:
            matrix = np.diag(1 + rng.uniform(-self.scale, self.scale, dims if self.scale_axes else 1) * np.ones(dims))
        if self.rotate:
            matrix = matrix @ _turn(dims, rng.uniform(-self.rotate, self.rotate), up)
        if self.tilt and dims == 3:
            for axis in (axis for axis in range(3) if axis != up):
                matrix = matrix @ _turn(3, rng.uniform(-self.tilt, self.tilt), axis)
        offset = rng.uniform(-self.shift, self.shift, dims) * size if self.shift else np.zeros(dims)
        keypoints = (keypoints - centre) @ matrix.astype(np.float32) + (centre + offset).astype(np.float32)
        if self.noise:
            keypoints = keypoints + rng.standard_normal(keypoints.shape, np.float32) * np.float32(self.noise * size)
        keep = np.ones(score.shape, bool)
        if self.joint_dropout:
            keep &= rng.random((score.shape[0], 1, score.shape[2])) >= self.joint_dropout
        if self.point_dropout:
            keep &= rng.random(score.shape) >= self.point_dropout
        if self.person_dropout and score.shape[0] > 1:
            keep &= _keep_persons(score, self.person_dropout, rng)
        if not (score[keep] > 0).any():
            keep[:] = True
        score = np.where(keep, score, 0).astype(np.float32)
        return np.where(score[..., None] > 0, keypoints, 0).astype(np.float32), score


def _turn(dims: int, angle: float, up: int) -> NDArray[Any]:
    return rotate(np.eye(dims, dtype=np.float32), angle, np.zeros(dims, np.float32), up=up)


def _keep_persons(score: Array, probability: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    present = (score > 0).any((1, 2))
    keep = rng.random(len(score)) >= probability
    if present.any() and not (keep & present).any():
        keep[rng.choice(np.flatnonzero(present))] = True
    return np.asarray(keep[:, None, None])


def _check_length(num_frames: int, clip_len: int) -> None:
    if num_frames < 1 or clip_len < 1:
        raise UserError(f"A clip needs at least one frame: got {num_frames} frames and a clip length of {clip_len}.")
