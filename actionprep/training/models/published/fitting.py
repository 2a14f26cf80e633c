"""Adapt weights to a model of another size: positions, patch projections, attention over time."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from actionprep.errors import UserError
from actionprep.training.models.heatmap_transformer import HeatmapTransformer
from actionprep.training.models.published.key_maps import State
from actionprep.training.models.timesformer import TimeSformer
from actionprep.training.models.tokens import resize_space, resize_space_time, resize_time
from actionprep.training.models.vivit import ViViT


def temporal_copies(model: nn.Module, ours: State) -> State:
    """Copy attention over space to attention over time, for weights without the latter.

    Args:
        model: Model that receives the weights.
        ours: Its state dict, with our keys.

    Returns:
        Copied weights by name; empty if the model does not need them.
    """
    if not isinstance(model, TimeSformer) or model.attention != "divided":
        return {}
    if any(".temporal_attn." in name for name in ours):
        return {}
    copies: State = {}
    for name, tensor in ours.items():
        for space, time in ((".attn.", ".temporal_attn."), (".norm1.", ".temporal_norm1.")):
            if space in name:
                copies[name.replace(space, time)] = tensor
    return copies


def fit_tensor(
    model: nn.Module, name: str, tensor: Tensor, target: Tensor, source_grid: tuple[int, int, int] | None
) -> tuple[Tensor, str] | None:
    """Adapt a tensor to the shape of a model's weight.

    Args:
        model: Model that receives the weight.
        name: Name of the weight.
        tensor: Tensor from the file.
        target: Weight of the model.
        source_grid: Tubelet grid (time, rows, columns) of a ViViT position table, if known.

    Returns:
        The adapted tensor and a description of the change; None if the tensor cannot be adapted.
    """
    if name == "patch_embed.proj.weight":
        return _fit_patches(tensor, target)
    if tensor.shape[-1] != target.shape[-1]:
        return None
    if name == "pos_embed" and isinstance(model, TimeSformer):
        side = math.isqrt(tensor.shape[1] - 1)
        if side * side != tensor.shape[1] - 1:
            return None
        grid = resize_space(tensor[0, 1:].unflatten(0, (side, side)), model.grid)
        table = torch.cat([tensor[:, :1], grid.flatten(0, 1)[None]], 1)
        return table, f"{side} x {side} → {shape_text(model.grid)} patches, bicubic"
    if name == "pos_embed" and isinstance(model, ViViT):
        return _fit_vivit_positions(model, tensor, source_grid)
    if name == "time_embed" and isinstance(model, HeatmapTransformer):
        return resize_time(tensor, target.shape[0]), f"{len(tensor)} → {len(target)} steps, linear in time"
    if name == "time_embed":
        return resize_time(tensor[0], target.shape[1])[None], "linear in time"
    if name.endswith("temp_embed"):
        frames = target.shape[1]
        if frames <= tensor.shape[1]:
            return tensor[:, :frames], "first frames only, as in training on shorter clips"
        return resize_time(tensor[0], frames)[None], "linear in time"
    return None


def _fit_patches(tensor: Tensor, target: Tensor) -> tuple[Tensor, str] | None:
    """Adapt patch projections to other input channels, and those of images to tubelets."""
    how = []
    if tensor.ndim == 4 and target.ndim == 5:
        # The central frame gets the image weights and the others zeros: initially, a tubelet acts as its central frame.
        inflated = tensor.new_zeros(*tensor.shape[:2], target.shape[2], *tensor.shape[2:])
        inflated[:, :, target.shape[2] // 2] = tensor
        tensor = inflated
        how.append("image weights at the central frame of the tubelet")
    channels, expected = tensor.shape[1], target.shape[1]
    if channels == 3 and expected == 1:
        tensor = tensor.sum(1, keepdim=True)
        how.append("summed over RGB")
    elif channels == 3 and expected != 3:
        repeats = -(-expected // 3)
        tensor = tensor.repeat(1, repeats, *(1,) * (tensor.ndim - 2))[:, :expected] * (3 / expected)
        how.append(f"RGB repeated over {expected} channels and scaled by 3/{expected}")
    return (tensor, "; ".join(how)) if tensor.shape == target.shape and how else None


def _fit_vivit_positions(
    model: ViViT, tensor: Tensor, source_grid: tuple[int, int, int] | None
) -> tuple[Tensor, str] | None:
    """Adapt a position table to another tubelet grid; one of an image is repeated for every time step."""
    extra = 0 if model.cls_token is None else 1
    num_tokens = tensor.shape[1] - extra
    steps, rows, columns = model.grid
    if source_grid is not None:
        grid = source_grid
    elif num_tokens % (rows * columns) == 0 and num_tokens > rows * columns:
        grid = (num_tokens // (rows * columns), rows, columns)
    elif num_tokens % steps == 0 and math.isqrt(num_tokens // steps) ** 2 == num_tokens // steps:
        grid = (steps, math.isqrt(num_tokens // steps), math.isqrt(num_tokens // steps))
    else:
        return None
    if math.prod(grid) != num_tokens:
        raise UserError(
            f"source_grid {grid} has {math.prod(grid)} tubelets, but the position table in the file has {num_tokens}."
        )
    table = resize_space_time(tensor[0, extra:].unflatten(0, grid), model.grid)
    return (
        torch.cat([tensor[:, :extra], table.flatten(0, 2)[None]], 1),
        f"{shape_text(grid)} → {shape_text(model.grid)} tubelets, bicubic in space and linear in time",
    )


def shape_text(shape: Iterable[int]) -> str:
    """Format a shape for display: 8 x 14 x 14."""
    return " x ".join(map(str, shape))
