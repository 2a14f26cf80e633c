"""Joints of a batch changed at random, on their device: mirrored, bent, turned, scaled, shifted, blurred and left out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from actionprep.datasets.poses.skeletons import Skeleton
from actionprep.settings import option
from actionprep.training.inputs.base import MirroringSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import Tensor

    from actionprep.training.inputs.rng import Draws


class JointAugmentation(MirroringSettings):
    """Changes of joints; 0 turns each off. Lengths are in body sizes (`body_frame`), angles in rad."""

    rotation: float = option(0.3, "2D: largest turn in the picture, about the body center, in rad.", ge=0)
    turn: float = option(0.5, "3D: largest turn about the vertical, in rad.", ge=0)
    tilt: float = option(0.0, "3D: largest turn about each of the horizontal axes, in rad.", ge=0)
    scale: float = option(0.15, "Largest change of size about the body center, as a share, for each axis.", ge=0, lt=1)
    shift: float = option(0.0, "Largest shift along each axis, in body sizes.", ge=0)
    noise: float = option(0.012, "Standard deviation of the noise of every joint in every frame, in body sizes.", ge=0)
    bones: float = option(
        0.15, "Largest change of a bone's length, as a share; joints move with their parents.", ge=0, lt=1
    )
    temporal_shift: int = option(0, "Largest shift along time, in instants; the first or last one fills the gap.", ge=0)
    joint_dropout: float = option(0.04, "Share of the joints that are left out of a sample.", ge=0, lt=1)
    point_dropout: float = option(0.0, "Share of the joints that are left out of single instants.", ge=0, lt=1)
    person_dropout: float = option(0.0, "Share of the persons that are left out; one always stays.", ge=0, lt=1)
    view_dropout: float = option(0.3, "Share of the views that are left out; one always stays.", ge=0, lt=1)
    up: str = option("y", "3D: the vertical axis, x, y or z.", pattern="^[xyz]$")


def augment_joints(
    keypoints: Tensor,
    score: Tensor,
    layout: Skeleton,
    how: JointAugmentation,
    draws: Draws,
    mirrored: Tensor,
) -> tuple[Tensor, Tensor]:
    """A changed copy: keypoints (B, V, M, T, K, C) with C 2 or 3 and score (B, V, M, T, K), 0 where a joint is missing.

    mirrored (B,) bool: which samples are mirrored. Bone lengths and mirroring are those of a sample, all else is drawn
    for each view by itself. A view in which everything would be left out keeps everything.
    """
    import torch

    views, persons, frames, joints, dims = keypoints.shape[1:]
    device = keypoints.device

    def drawn(most: float, *shape: int) -> Tensor:
        return draws.uniform(-most, most, shape=shape).to(device)

    if how.temporal_shift:
        by = drawn_shift(how.temporal_shift, draws).to(device)
        keypoints, score = shifted_in_time(keypoints, score, by)
    if how.bones:
        keypoints = scale_bones(keypoints, score, layout, 1 + drawn(how.bones, joints))
    keypoints, score = mirror(keypoints, score, layout, mirrored.to(device))
    center, size = body_frame(keypoints, score)
    matrix = _turns(drawn, how, views, dims)
    if how.scale:
        matrix = matrix * (1 + drawn(how.scale, views, dims))[..., None]
    moved = center + drawn(how.shift, views, dims) * size[..., None] if how.shift else center
    keypoints = (keypoints - center[:, :, None, None, None]) @ matrix[:, :, None, None]
    keypoints = keypoints + moved[:, :, None, None, None]
    if how.noise:
        keypoints = keypoints + _normal(draws, keypoints.shape[1:]).to(device) * (
            how.noise * size[..., None, None, None, None]
        )
    keep = torch.ones_like(score, dtype=torch.bool)
    if how.joint_dropout:
        keep &= (draws.uniform(shape=(views, persons, 1, joints)) >= how.joint_dropout).to(device)
    if how.point_dropout:
        keep &= (draws.uniform(shape=(views, persons, frames, joints)) >= how.point_dropout).to(device)
    if how.person_dropout and persons > 1:
        present = (score > 0).flatten(3).any(-1).any(1)  # (B, M), in any view
        keep &= _kept(draws, how.person_dropout, present)[:, None, :, None, None]
    nothing = ~(keep & (score > 0)).flatten(2).any(-1)
    keep |= nothing[:, :, None, None, None]
    if how.view_dropout and views > 1:
        present = (score > 0).flatten(2).any(-1)  # (B, V)
        keep &= _kept(draws, how.view_dropout, present)[:, :, None, None, None]
    score = score * keep
    return keypoints * (score > 0)[..., None], score


def body_frame(keypoints: Tensor, score: Tensor) -> tuple[Tensor, Tensor]:
    """Center (B, V, C) of all joints seen in each view, and their root mean square distance from it (B, V).

    Zeros and 1 where none is. keypoints (B, V, M, T, K, C), score (B, V, M, T, K).
    """
    import torch

    seen = (score > 0)[..., None].to(keypoints.dtype)
    count = seen.sum((2, 3, 4))  # (B, V, 1)
    some = count.clamp(min=1)
    center = (keypoints * seen).sum((2, 3, 4)) / some
    away = (keypoints - center[:, :, None, None, None]) * seen
    size = (away.square().sum((2, 3, 4, 5)) / some[..., 0]).sqrt()
    return center, torch.where(size > 0, size, 1.0)


def mirror(keypoints: Tensor, score: Tensor, layout: Skeleton, mirrored: Tensor) -> tuple[Tensor, Tensor]:
    """Samples mirrored left to right about their body center, left and right joints exchanged; mirrored (B,) bool."""
    import torch

    if not bool(mirrored.any()):
        return keypoints, score
    order = list(layout.flip_order)
    other, other_score = keypoints[..., order, :], score[..., order]
    center, _ = body_frame(keypoints, score)
    x = 2 * center[..., 0][:, :, None, None, None] - other[..., 0]
    other = torch.cat([x[..., None], other[..., 1:]], -1) * (other_score > 0)[..., None]
    which = mirrored.view(-1, 1, 1, 1, 1)
    return torch.where(which[..., None], other, keypoints), torch.where(which, other_score, score)


def scale_bones(keypoints: Tensor, score: Tensor, layout: Skeleton, factors: Tensor) -> Tensor:
    """Bones longer or shorter along the tree, every joint moving with its parent; roots stay.

    factors (B, K): for the bone from a joint's parent to the joint. Bones with a missing end keep their length.
    """
    import torch

    parents = [parent if parent >= 0 else joint for joint, parent in enumerate(layout.parents)]
    chain = torch.zeros(layout.num_joints, layout.num_joints, device=keypoints.device)
    for joint in range(layout.num_joints):
        place = joint
        while parents[place] != place:
            chain[joint, place] = 1
            place = parents[place]
    held = (score > 0) & (score[..., parents] > 0)
    change = torch.where(held, (factors - 1)[:, None, None, None], 0.0)[..., None]
    return keypoints + chain @ (change * (keypoints - keypoints[..., parents, :]))


def shifted_in_time(keypoints: Tensor, score: Tensor, by: Tensor) -> tuple[Tensor, Tensor]:
    """All joints later by so many instants (B,), earlier where negative; the first or last one fills the gap.

    This moves along time; the published augmentation of this name rolled the joints by mistake.
    """
    index = shifted_sources(keypoints.shape[3], by)[:, None, None, :, None]
    moved = score.gather(3, index.expand_as(score))
    return keypoints.gather(3, index[..., None].expand_as(keypoints)), moved


def drawn_shift(most: int, draws: Draws) -> Tensor:
    """(B,) int64: by how many instants each sample is shifted, at most so many either way."""
    import torch

    return torch.round(draws.uniform(-most - 0.499, most + 0.499, shape=(1,))).long()[:, 0]


def shifted_sources(frames: int, by: Tensor) -> Tensor:
    """(B, T) int64: which instant stands where, after all were made later by so many (B,)."""
    import torch

    return (torch.arange(frames, device=by.device) - by[:, None]).clamp(0, frames - 1)


def _turns(drawn: Callable[..., Tensor], how: JointAugmentation, views: int, dims: int) -> Tensor:
    """(B, V, C, C) rotations that rows are multiplied with from the right."""
    import torch

    def about(axes: tuple[int, int], most: float) -> Tensor:
        angle = drawn(most, views)
        cos, sin = angle.cos(), angle.sin()
        matrix = torch.eye(dims, device=angle.device).repeat(*angle.shape, 1, 1)
        a, b = axes
        matrix[..., a, a] = matrix[..., b, b] = cos
        matrix[..., a, b], matrix[..., b, a] = sin, -sin
        return matrix

    if dims == 2:
        return about((0, 1), how.rotation)
    up = "xyz".index(how.up)
    flat = tuple(axis for axis in range(3) if axis != up)
    matrix = about((flat[0], flat[1]), how.turn)
    if how.tilt:
        for axis in flat:
            other = tuple(one for one in range(3) if one != axis)
            matrix = matrix @ about((other[0], other[1]), how.tilt)
    return matrix


def _normal(draws: Draws, shape: torch.Size) -> Tensor:
    """(B, *shape) standard normal numbers, from uniform ones (Box and Muller, 1958)."""
    import torch

    count = math.prod(shape)
    radius, angle = draws.uniform(shape=(2, -(-count // 2))).unbind(1)
    radius = (-2 * torch.log1p(-radius)).sqrt()
    both = torch.cat([radius * (2 * math.pi * angle).cos(), radius * (2 * math.pi * angle).sin()], 1)
    return both[:, :count].view(-1, *shape)


def _kept(draws: Draws, rate: float, present: Tensor) -> Tensor:
    """(B, N) bool: which of N stay; of those present at least one."""
    drawn = draws.uniform(shape=(present.shape[1],)).to(present.device)
    best = drawn.masked_fill(~present, -1.0).argmax(1, keepdim=True)
    return (drawn >= rate).scatter(1, best, True)
