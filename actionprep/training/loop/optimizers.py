"""Optimizers and learning-rate schedules."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from actionprep.errors import UserError, nearest
from actionprep.training.models.pixels import unwrap_model
from actionprep.training.recipes import OptimizerSettings, ScheduleSettings


def make_optimizer(model: nn.Module, settings: OptimizerSettings) -> torch.optim.Optimizer:
    """Build an optimizer. Vectors (biases, norms) and position codes have no weight decay.

    Parameters named head.* and all others can have separate learning rates. With `layer_decay`, the rate decreases from
    layer to layer towards the input. Frozen parameters are left out.

    Args:
        model: Model to optimize.
        settings: Name and parameters of the optimizer.

    Returns:
        The optimizer.

    Raises:
        UserError: If all parameters are frozen.
    """
    model = unwrap_model(model)
    height = layer_heights(model) if settings.layer_decay < 1 else {}
    top = max(height.values(), default=0)
    backbone_rate = settings.backbone_learning_rate or settings.learning_rate
    head_rate = settings.head_learning_rate or settings.learning_rate
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            # Codes, tokens and tables of positions are parameters that are not named weight.
            decays = parameter.ndim > 1 and "weight" in name.rpartition(".")[2]
            rate = head_rate if is_head(name) else backbone_rate
            rate *= settings.layer_decay ** (top - height.get(name, top))
            groups.setdefault((rate, decays), []).append(parameter)
    if not groups:
        raise UserError("optimizer.freeze leaves no parameter to train. Name fewer parameters.")
    parts = [
        {"params": parameters, "lr": rate, "weight_decay": settings.weight_decay if decays else 0.0}
        for (rate, decays), parameters in groups.items()
    ]
    if settings.name == "sgd":
        return torch.optim.SGD(parts, lr=settings.learning_rate, momentum=settings.momentum, nesterov=settings.nesterov)
    rule: Any = torch.optim.AdamW if settings.name == "adamw" else torch.optim.Adam
    return rule(parts, lr=settings.learning_rate)


def is_head(name: str) -> bool:
    """Return whether a parameter, by its name, belongs to the classification head."""
    return name.split(".")[0] in ("head", "heads")


def layer_heights(model: nn.Module) -> dict[str, int]:
    """Compute the height of each parameter: 0 before the trunk, 1 … n in its layers, n + 1 after it.

    A model can declare in `stacks` which sequences of modules form its trunk, from the bottom up, and which of them are
    parallel. Otherwise the trunk is the sequence (a ModuleList, Sequential or ModuleDict with at least two modules)
    with the most parameters. Modules that are registered before the trunk are below it.

    Args:
        model: Model to analyze.

    Returns:
        Height by parameter name.
    """
    names = [name for name, _ in model.named_parameters()]
    height_of_layer: dict[str, int] = {}
    top = 0
    for group in _stacks(model):
        sequences = [(name, list(dict(model.get_submodule(name).named_children()))) for name in group]
        height_of_layer |= {
            f"{name}.{key}".lstrip("."): top + index
            for name, keys in sequences
            for index, key in enumerate(keys, start=1)
        }
        top += max(len(keys) for _, keys in sequences)
    if not height_of_layer:
        return {name: 1 if is_head(name) else 0 for name in names}
    heights, passed_trunk = {}, False
    # Direct parameters of the model (class token, positions) come first wherever they are used: below, except heads.
    direct = set(dict(model.named_parameters(recurse=False)))
    for name in names:
        layer = next((prefix for prefix in _prefixes(name) if prefix in height_of_layer), None)
        if layer is not None:
            heights[name], passed_trunk = height_of_layer[layer], True
        else:
            heights[name] = top + 1 if (passed_trunk and name not in direct) or is_head(name) else 0
    return heights


def _stacks(model: nn.Module) -> tuple[tuple[str, ...], ...]:
    """Names of the sequences of the trunk, from the bottom up; parallel ones together."""
    stacks: Any = getattr(model, "stacks", None)
    if stacks is not None:
        return tuple(map(tuple, stacks))
    sizes = [
        (sum(p.numel() for p in module.parameters()), -name.count("."), name)
        for name, module in model.named_modules()
        if isinstance(module, (nn.ModuleList, nn.Sequential, nn.ModuleDict)) and len(module) >= 2
    ]
    return ((max(sizes, key=lambda size: size[:2])[2],),) if sizes else ()


def _prefixes(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts) + 1)]


def freeze(model: nn.Module, names: Sequence[str]) -> list[nn.Module]:
    """Freeze parameters by the start of their names.

    Args:
        model: Model to change.
        names: Starts of names, up to a dot; "backbone" is everything except the head.

    Returns:
        The modules that are completely frozen.

    Raises:
        UserError: If no parameter matches a name.
    """
    model = unwrap_model(model)
    parameters = dict(model.named_parameters())
    for name in names:
        if name == "backbone":
            matching = [parameter for parameter in parameters if not is_head(parameter)]
        else:
            matching = [parameter for parameter in parameters if f"{parameter}.".startswith(f"{name}.")]
        if not matching:
            top_names = sorted({parameter.split(".")[0] for parameter in parameters})
            raise UserError(
                f"optimizer.freeze names '{name}', but no parameter of the model starts with it.{nearest(name, top_names)} "
                f"Parameters start with {', '.join(top_names)}; 'backbone' is everything except the head."
            )
        for parameter in matching:
            parameters[parameter].requires_grad_(False)
    return [
        module
        for module in model.modules()
        if names and any(True for _ in module.parameters()) and not any(p.requires_grad for p in module.parameters())
    ]


def rate_factor(settings: ScheduleSettings, *, num_steps: int, steps_per_epoch: int) -> Callable[[int], float]:
    """Build a learning-rate schedule.

    The rate rises linearly during warm-up. "cosine" then falls from the highest rate to 0. "multistep" and
    "exponential" change per epoch.

    Args:
        settings: Name and parameters of the schedule.
        num_steps: Number of optimizer steps of the training.
        steps_per_epoch: Number of optimizer steps per epoch.

    Returns:
        Function from the step, from 0, to the share of the highest learning rate.
    """
    warmup = round(settings.warmup * num_steps)

    def factor(step: int) -> float:
        rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
        epoch = step // max(steps_per_epoch, 1)
        if settings.name == "cosine":
            done = (step - warmup) / max(num_steps - warmup, 1)
            return rise * 0.5 * (1 + math.cos(math.pi * min(max(done, 0.0), 1.0)))
        if settings.name == "multistep":
            return rise * settings.gamma ** sum(epoch >= milestone for milestone in settings.milestones)
        if settings.name == "exponential":
            return rise * settings.gamma**epoch
        return rise

    return factor
