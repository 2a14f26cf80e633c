"""Optimisers and learning-rate schedules of recipes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from actionprep.training.recipes import OptimizerSettings, ScheduleSettings


def make_optimizer(model: nn.Module, settings: OptimizerSettings) -> torch.optim.Optimizer:
    """The optimiser; vectors (biases, norms) and codes have no weight decay, parameters named head.* their own rate."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decays = parameter.ndim > 1 and "code" not in name and "position" not in name
            is_head = name.removeprefix("_orig_mod.").startswith("head")
            groups.setdefault((is_head, decays), []).append(parameter)
    head_rate = settings.head_learning_rate or settings.learning_rate
    parts = [
        {
            "params": parameters,
            "lr": head_rate if is_head else settings.learning_rate,
            "weight_decay": settings.weight_decay if decays else 0.0,
        }
        for (is_head, decays), parameters in groups.items()
    ]
    if settings.name == "sgd":
        return torch.optim.SGD(parts, lr=settings.learning_rate, momentum=settings.momentum)
    rule: Any = torch.optim.AdamW if settings.name == "adamw" else torch.optim.Adam
    return rule(parts, lr=settings.learning_rate)


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
