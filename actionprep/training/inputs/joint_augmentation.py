"""Augmentation of joints on the device of the batch."""

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
    """Augmentation of joints; 0 disables a change. Lengths are in body sizes (see `body_frame`), angles in rad."""

    rotation: float = option(0.3, "2D: largest rotation in the image plane about the body center, in rad.", ge=0)
    turn: float = option(0.5, "3D: largest rotation about the vertical axis, in rad.", ge=0)
    tilt: float = option(0.0, "3D: largest rotation about each horizontal axis, in rad.", ge=0)
    scale: float = option(
        0.15, "Largest change of scale about the body center along each axis, as a share.", ge=0, lt=1
    )
    shift: float = option(0.0, "Largest shift along each axis, in body sizes.", ge=0)
    noise: float = option(0.012, "Standard deviation of noise on every joint and frame, in body sizes.", ge=0)
    bones: float = option(
        0.15, "Largest change of bone lengths, as a share; joints move with their parents.", ge=0, lt=1
    )
    temporal_shift: int = option(0, "Largest shift in time, in time steps; the first or last step fills the gap.", ge=0)
    joint_dropout: float = option(0.04, "Share of joints that are dropped from a sample.", ge=0, lt=1)
    point_dropout: float = option(0.0, "Share of joints that are dropped from single time steps.", ge=0, lt=1)
    person_dropout: float = option(0.0, "Share of persons that are dropped; at least one is kept.", ge=0, lt=1)
    view_dropout: float = option(0.3, "Share of views that are dropped; at least one is kept.", ge=0, lt=1)
    up: str = option("y", "3D: vertical axis, x, y or z.", pattern="^[xyz]$")


def augment_joints(
    keypoints: Tensor,
    score: Tensor,
    layout: Skeleton,
    settings: JointAugmentation,
    draws: Draws,
    mirrored: Tensor,
) -> tuple[Tensor, Tensor]:
    """Augment joints.

    Bone lengths and mirroring are drawn per sample, everything else per view. A view that would lose all joints keeps
    them.

    Args:
        keypoints: Joints of shape (B, V, M, T, K, C), with C = 2 or 3.
        score: Scores of shape (B, V, M, T, K); 0 where a joint is missing.
        layout: Skeleton of the joints.
        settings: Settings.
        draws: Random numbers.
        mirrored: Which samples are mirrored, bool (B,).

    Returns:
        Augmented copies of keypoints and scores.
    """
    import torch

    views, persons, frames, joints, dims = keypoints.shape[1:]
    device = keypoints.device

    def draw(limit: float, *shape: int) -> Tensor:
        return draws.uniform(-limit, limit, shape=shape).to(device)

    if settings.temporal_shift:
        steps = draw_shift(settings.temporal_shift, draws).to(device)
        keypoints, score = shift_in_time(keypoints, score, steps)
    if settings.bones:
        keypoints = scale_bones(keypoints, score, layout, 1 + draw(settings.bones, joints))
    keypoints, score = mirror(keypoints, score, layout, mirrored.to(device))
    center, size = body_frame(keypoints, score)
    matrix = _rotations(draw, settings, views, dims)
    if settings.scale:
        matrix = matrix * (1 + draw(settings.scale, views, dims))[..., None]
    new_center = center + draw(settings.shift, views, dims) * size[..., None] if settings.shift else center
    keypoints = (keypoints - center[:, :, None, None, None]) @ matrix[:, :, None, None]
    keypoints = keypoints + new_center[:, :, None, None, None]
    if settings.noise:
        keypoints = keypoints + _normal(draws, keypoints.shape[1:]).to(device) * (
            settings.noise * size[..., None, None, None, None]
        )
    keep = torch.ones_like(score, dtype=torch.bool)
    if settings.joint_dropout:
        keep &= (draws.uniform(shape=(views, persons, 1, joints)) >= settings.joint_dropout).to(device)
    if settings.point_dropout:
        keep &= (draws.uniform(shape=(views, persons, frames, joints)) >= settings.point_dropout).to(device)
    if settings.person_dropout and persons > 1:
        present = (score > 0).flatten(3).any(-1).any(1)  # (B, M), in any view
        keep &= _keep(draws, settings.person_dropout, present)[:, None, :, None, None]
    is_empty = ~(keep & (score > 0)).flatten(2).any(-1)
    keep |= is_empty[:, :, None, None, None]
    if settings.view_dropout and views > 1:
        present = (score > 0).flatten(2).any(-1)  # (B, V)
        keep &= _keep(draws, settings.view_dropout, present)[:, :, None, None, None]
    score = score * keep
    return keypoints * (score > 0)[..., None], score


def body_frame(keypoints: Tensor, score: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the center of all visible joints of a view, and their root mean square distance from it.

    Args:
        keypoints: Joints of shape (B, V, M, T, K, C).
        score: Scores of shape (B, V, M, T, K).

    Returns:
        Centers (B, V, C) and sizes (B, V); 0 and 1 if no joint is visible.
    """
    import torch

    visible = (score > 0)[..., None].to(keypoints.dtype)
    count = visible.sum((2, 3, 4))  # (B, V, 1)
    divisor = count.clamp(min=1)
    center = (keypoints * visible).sum((2, 3, 4)) / divisor
    distance = (keypoints - center[:, :, None, None, None]) * visible
    size = (distance.square().sum((2, 3, 4, 5)) / divisor[..., 0]).sqrt()
    return center, torch.where(size > 0, size, 1.0)


def mirror(keypoints: Tensor, score: Tensor, layout: Skeleton, mirrored: Tensor) -> tuple[Tensor, Tensor]:
    """Mirror samples left to right about their body center and exchange left and right joints.

    Args:
        keypoints: Joints of shape (B, V, M, T, K, C).
        score: Scores of shape (B, V, M, T, K).
        layout: Skeleton of the joints.
        mirrored: Which samples are mirrored, bool (B,).
    """
    import torch

    if not bool(mirrored.any()):
        return keypoints, score
    order = list(layout.flip_order)
    flipped, flipped_score = keypoints[..., order, :], score[..., order]
    center, _ = body_frame(keypoints, score)
    x = 2 * center[..., 0][:, :, None, None, None] - flipped[..., 0]
    flipped = torch.cat([x[..., None], flipped[..., 1:]], -1) * (flipped_score > 0)[..., None]
    mask = mirrored.view(-1, 1, 1, 1, 1)
    return torch.where(mask[..., None], flipped, keypoints), torch.where(mask, flipped_score, score)


def scale_bones(keypoints: Tensor, score: Tensor, layout: Skeleton, factors: Tensor) -> Tensor:
    """Change the lengths of bones along the skeleton tree. Every joint moves with its parent; roots stay.

    Args:
        keypoints: Joints of shape (B, V, M, T, K, C).
        score: Scores of shape (B, V, M, T, K). Bones with a missing end keep their length.
        layout: Skeleton of the joints.
        factors: Factor for the bone from the parent to each joint, shape (B, K).
    """
    import torch

    parents = [parent if parent >= 0 else joint for joint, parent in enumerate(layout.parents)]
    chain = torch.zeros(layout.num_joints, layout.num_joints, device=keypoints.device)
    for joint in range(layout.num_joints):
        ancestor = joint
        while parents[ancestor] != ancestor:
            chain[joint, ancestor] = 1
            ancestor = parents[ancestor]
    both_ends = (score > 0) & (score[..., parents] > 0)
    change = torch.where(both_ends, (factors - 1)[:, None, None, None], 0.0)[..., None]
    return keypoints + chain @ (change * (keypoints - keypoints[..., parents, :]))


def shift_in_time(keypoints: Tensor, score: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
    """Move joints to later time steps; the first or last step fills the gap.

    The published augmentation of this name rolled joints instead of time steps by mistake.

    Args:
        keypoints: Joints of shape (B, V, M, T, K, C).
        score: Scores of shape (B, V, M, T, K).
        steps: Number of steps, shape (B,); negative ones move to earlier steps.
    """
    index = shifted_indices(keypoints.shape[3], steps)[:, None, None, :, None]
    moved_score = score.gather(3, index.expand_as(score))
    return keypoints.gather(3, index[..., None].expand_as(keypoints)), moved_score


def draw_shift(limit: int, draws: Draws) -> Tensor:
    """Draw the number of time steps by which each sample is moved, from -limit to limit, int64 (B,)."""
    import torch

    return torch.round(draws.uniform(-limit - 0.499, limit + 0.499, shape=(1,))).long()[:, 0]


def shifted_indices(frames: int, steps: Tensor) -> Tensor:
    """Return which time step is at each position after all were moved to later steps, int64 (B, T)."""
    import torch

    return (torch.arange(frames, device=steps.device) - steps[:, None]).clamp(0, frames - 1)


def _rotations(draw: Callable[..., Tensor], settings: JointAugmentation, views: int, dims: int) -> Tensor:
    """Rotation matrices (B, V, C, C), to be multiplied from the right."""
    import torch

    def rotation(axes: tuple[int, int], limit: float) -> Tensor:
        angle = draw(limit, views)
        cos, sin = angle.cos(), angle.sin()
        matrix = torch.eye(dims, device=angle.device).repeat(*angle.shape, 1, 1)
        a, b = axes
        matrix[..., a, a] = matrix[..., b, b] = cos
        matrix[..., a, b], matrix[..., b, a] = sin, -sin
        return matrix

    if dims == 2:
        return rotation((0, 1), settings.rotation)
    up = "xyz".index(settings.up)
    flat = tuple(axis for axis in range(3) if axis != up)
    matrix = rotation((flat[0], flat[1]), settings.turn)
    if settings.tilt:
        for axis in flat:
            plane = tuple(index for index in range(3) if index != axis)
            matrix = matrix @ rotation((plane[0], plane[1]), settings.tilt)
    return matrix


def _normal(draws: Draws, shape: torch.Size) -> Tensor:
    """Standard normal numbers (B, *shape) from uniform ones (Box and Muller, 1958)."""
    import torch

    count = math.prod(shape)
    radius, angle = draws.uniform(shape=(2, -(-count // 2))).unbind(1)
    radius = (-2 * torch.log1p(-radius)).sqrt()
    both = torch.cat([radius * (2 * math.pi * angle).cos(), radius * (2 * math.pi * angle).sin()], 1)
    return both[:, :count].view(-1, *shape)


def _keep(draws: Draws, rate: float, present: Tensor) -> Tensor:
    """Which of N elements are kept, bool (B, N); at least one of those present."""
    drawn = draws.uniform(shape=(present.shape[1],)).to(present.device)
    kept_anyway = drawn.masked_fill(~present, -1.0).argmax(1, keepdim=True)
    return (drawn >= rate).scatter(1, kept_anyway, True)
