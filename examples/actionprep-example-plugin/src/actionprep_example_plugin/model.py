"""Classify by the mean speed of the tracked points over time."""

from __future__ import annotations

import tomllib
from importlib.resources import files

import torch
from torch import Tensor, nn

from actionprep.training.models.registry import ModelCard, axes


class PointSpeed(nn.Module):
    """Mean speed of the visible points, per time step and view → class logits.

    Shapes: velocity (B, T, V, N, 2), valid (B, T, V, N) bool; returns (B, num_classes).
    """

    def __init__(self, *, num_classes: int, num_views: int = 1, num_frames: int = 32) -> None:
        super().__init__()
        self.head = nn.Linear(num_frames * num_views, num_classes)

    def forward(self, velocity: Tensor, valid: Tensor) -> Tensor:
        """Compute the logits of a batch."""
        speed = torch.linalg.vector_norm(velocity, dim=-1) * valid
        return self.head((speed.sum(-1) / valid.sum(-1).clamp(min=1)).flatten(1))


CARD = ModelCard(
    name="point-speed",
    product="tracks",
    input_shape=axes("T32 V1 N256 C2"),
    num_classes=10,
    parameters=None,
    source="example of a package",
    build="actionprep_example_plugin.model:PointSpeed",
)
RECIPE = tomllib.loads((files(__package__) / "point_speed.toml").read_text(encoding="utf-8"))
