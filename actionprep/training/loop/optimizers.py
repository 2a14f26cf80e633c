"""Optimizers and learning-rate schedules of recipes."""

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
    """The optimizer; vectors (biases, norms) and codes have no weight decay.

    Parameters named head.* and the others may have rates of their own; with layer_decay the rate falls from layer to layer
    towards the input. Frozen parameters have no part in it.
    """
    model = unwrap_model(model)
    height = layer_heights(model) if settings.layer_decay < 1 else {}
    top = max(height.values(), default=0)
    backbone_rate = settings.backbone_learning_rate or settings.learning_rate
    head_rate = settings.head_learning_rate or settings.learning_rate
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            # Codes, tokens and tables of positions are parameters with names of their own.
            decays = parameter.ndim > 1 and "weight" in name.rpartition(".")[2]
            rate = head_rate if is_head(name) else backbone_rate
            rate *= settings.layer_decay ** (top - height.get(name, top))
            groups.setdefault((rate, decays), []).append(parameter)
    if not groups:
        raise UserError("optimizer.freeze leaves nothing to train. Name fewer parameters.")
    parts = [
        {"params": parameters, "lr": rate, "weight_decay": settings.weight_decay if decays else 0.0}
        for (rate, decays), parameters in groups.items()
    ]
    if settings.name == "sgd":
        return torch.optim.SGD(parts, lr=settings.learning_rate, momentum=settings.momentum, nesterov=settings.nesterov)
    rule: Any = torch.optim.AdamW if settings.name == "adamw" else torch.optim.Adam
    return rule(parts, lr=settings.learning_rate)


def is_head(name: str) -> bool:
    """Whether a parameter of a model, by its name, belongs to what makes logits of features."""
    return name.split(".")[0] in ("head", "heads")


def layer_heights(model: nn.Module) -> dict[str, int]:
    """How high each parameter lies: 0 before the trunk, 1 … n in its layers, n + 1 behind it.

    A model may say in `stacks` which sequences of modules are its trunk, from the bottom up, and which of them work side
    by side. Else the trunk is the sequence (a ModuleList, Sequential or ModuleDict of two or more) that holds most of the
    weights. What is registered before it lies below it.
    """
    names = [name for name, _ in model.named_parameters()]
    place: dict[str, int] = {}
    top = 0
    for group in _stacks(model):
        sequences = [(name, list(dict(model.get_submodule(name).named_children()))) for name in group]
        place |= {
            f"{name}.{key}".lstrip("."): top + n for name, keys in sequences for n, key in enumerate(keys, start=1)
        }
        top += max(len(keys) for _, keys in sequences)
    if not place:
        return {name: 1 if is_head(name) else 0 for name in names}
    found, seen = {}, False
    # Parameters of the model itself (class token, positions) come first, wherever they are used: below, but for heads.
    own = set(dict(model.named_parameters(recurse=False)))
    for name in names:
        within = next((one for one in _beginnings(name) if one in place), None)
        if within is not None:
            found[name], seen = place[within], True
        else:
            found[name] = top + 1 if (seen and name not in own) or is_head(name) else 0
    return found


def _stacks(model: nn.Module) -> tuple[tuple[str, ...], ...]:
    """Names of the sequences of a model's trunk, from the bottom up, those side by side together."""
    declared: Any = getattr(model, "stacks", None)
    if declared is not None:
        return tuple(map(tuple, declared))
    sizes = [
        (sum(p.numel() for p in module.parameters()), -name.count("."), name)
        for name, module in model.named_modules()
        if isinstance(module, (nn.ModuleList, nn.Sequential, nn.ModuleDict)) and len(module) >= 2
    ]
    return ((max(sizes, key=lambda one: one[:2])[2],),) if sizes else ()


def _beginnings(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts) + 1)]


def freeze(model: nn.Module, names: Sequence[str]) -> list[nn.Module]:
    """Make parameters whose names begin so untrainable; returns the modules that are frozen whole.

    names: beginnings of names up to a dot; "backbone" is all but the head.

    Raises UserError for a name that no parameter begins with.
    """
    model = unwrap_model(model)
    parameters = dict(model.named_parameters())
    for name in names:
        if name == "backbone":
            chosen = [one for one in parameters if not is_head(one)]
        else:
            chosen = [one for one in parameters if f"{one}.".startswith(f"{name}.")]
        if not chosen:
            first = sorted({one.split(".")[0] for one in parameters})
            raise UserError(
                f"optimizer.freeze names '{name}', and no parameter of the model begins so.{nearest(name, first)} Its "
                f"parameters begin with {', '.join(first)}; 'backbone' is all but the head."
            )
        for one in chosen:
            parameters[one].requires_grad_(False)
    return [
        module
        for module in model.modules()
        if names and any(True for _ in module.parameters()) and not any(p.requires_grad for p in module.parameters())
    ]


def rate_factor(settings: ScheduleSettings, *, num_steps: int, steps_per_epoch: int) -> Callable[[int], float]:
    """The share of the highest learning rate at each step, from 0.

    The rate rises linearly over the warm-up. cosine falls from the highest rate to 0 over the rest; multistep and
    exponential go by whole epochs.
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
