"""Weights of another size or kind brought to a model's shapes: positions, patches, attention over time."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from actionprep.errors import UserError
from actionprep.training.models.published.key_maps import State
from actionprep.training.models.timesformer import TimeSformer
from actionprep.training.models.tokens import resize_space, resize_space_time, resize_time
from actionprep.training.models.vivit import ViViT


def temporal_copies(model: nn.Module, ours: State) -> State:
    """For weights without attention over time: that over space, as a start for it."""
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


def made_to_fit(
    model: nn.Module, name: str, tensor: Tensor, target: Tensor, source_grid: tuple[int, int, int] | None
) -> tuple[Tensor, str] | None:
    """A tensor of another shape brought to the target's, and how; None where there is no honest way."""
    if name == "patch_embed.proj.weight":
        return _fitted_patches(tensor, target)
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
        return _fitted_vivit_positions(model, tensor, source_grid)
    if name == "time_embed":
        return resize_time(tensor[0], target.shape[1])[None], "linear in time"
    if name.endswith("temp_embed"):
        frames = target.shape[1]
        if frames <= tensor.shape[1]:
            return tensor[:, :frames], "its beginning, which is what shorter clips were trained with"
        return resize_time(tensor[0], frames)[None], "linear in time"
    return None


def _fitted_patches(tensor: Tensor, target: Tensor) -> tuple[Tensor, str] | None:
    """Patch projections with other input channels, or of pictures where the model wants tubelets."""
    how = []
    if tensor.ndim == 4 and target.ndim == 5:
        # The central frame carries the picture's weights and its neighbors nothing: the clip starts as its middle
        # pictures.
        inflated = tensor.new_zeros(*tensor.shape[:2], target.shape[2], *tensor.shape[2:])
        inflated[:, :, target.shape[2] // 2] = tensor
        tensor = inflated
        how.append("the picture's weights at the tubelet's central frame")
    channels, wanted = tensor.shape[1], target.shape[1]
    if channels == 3 and wanted == 1:
        tensor = tensor.sum(1, keepdim=True)
        how.append("summed over RGB")
    elif channels == 3 and wanted != 3:
        repeats = -(-wanted // 3)
        tensor = tensor.repeat(1, repeats, *(1,) * (tensor.ndim - 2))[:, :wanted] * (3 / wanted)
        how.append(f"RGB repeated over {wanted} channels and scaled by 3/{wanted}")
    return (tensor, "; ".join(how)) if tensor.shape == target.shape and how else None


def _fitted_vivit_positions(
    model: ViViT, tensor: Tensor, source_grid: tuple[int, int, int] | None
) -> tuple[Tensor, str] | None:
    """A table of another tubelet grid, or of a picture, which every time step then shares."""
    extra = 0 if model.cls_token is None else 1
    places = tensor.shape[1] - extra
    steps, rows, columns = model.grid
    if source_grid is not None:
        grid = source_grid
    elif places % (rows * columns) == 0 and places > rows * columns:
        grid = (places // (rows * columns), rows, columns)
    elif places % steps == 0 and math.isqrt(places // steps) ** 2 == places // steps:
        grid = (steps, math.isqrt(places // steps), math.isqrt(places // steps))
    else:
        return None
    if math.prod(grid) != places:
        raise UserError(
            f"source_grid {grid} is {math.prod(grid)} tubelets, and the position table in the file has {places}."
        )
    table = resize_space_time(tensor[0, extra:].unflatten(0, grid), model.grid)
    return (
        torch.cat([tensor[:, :extra], table.flatten(0, 2)[None]], 1),
        f"{shape_text(grid)} → {shape_text(model.grid)} tubelets, bicubic in space and linear in time",
    )


def shape_text(shape: Iterable[int]) -> str:
    """A shape for a message: 8 x 14 x 14."""
    return " x ".join(map(str, shape))
