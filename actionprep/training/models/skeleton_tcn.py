"""Skeletons over time → class logits.

A small network on coordinates and what derives from them: convolutions over time, then attention over time.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from actionprep.datasets.skeletons import Skeleton
from actionprep.errors import UserError
from actionprep.training.models.skeleton_features import SkeletonFeatures, merge_persons, merge_persons_by_instant
from actionprep.training.models.skeleton_transformer import first_positions, frame_encoder

_GROUP = 24
"""Channels that a block's second convolution mixes at a time."""


class _Block(nn.Module):
    def __init__(self, width: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation, groups=width // _GROUP, bias=False),
            nn.BatchNorm1d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.body(x))


class SkeletonTCN(nn.Module):
    """Temporal convolution network whose last layers attend over time, about 0.25 M parameters.

    keypoints (B, M, T, K, C), score (B, M, T, K) → logits (B, num_classes), for T up to `max_frames`. Two blocks of
    convolutions see a few frames around each; `depth` layers of attention then relate all of them. Mean and maximum over
    time. Persons are encoded one by one with the same weights and merged by maximum over those that are present. Without a
    score, joints at the origin are missing.

    per_frame: logits of every instant instead, (B, T, num_classes).
    """

    def __init__(
        self,
        num_classes: int,
        layout: str | Skeleton,
        dims: int,
        *,
        width: int = 96,
        depth: int = 2,
        heads: int = 4,
        dropout: float = 0.3,
        attention_dropout: float = 0.2,
        max_frames: int = 128,
        per_frame: bool = False,
    ) -> None:
        super().__init__()
        step = math.lcm(_GROUP, heads)
        if width % step:
            raise UserError(
                f"The width of skeleton-tcn is divided into groups of {_GROUP} and into {heads} heads; {width} is no "
                f"multiple of both. Give it one that is, such as --set sizes.width={max(round(width / step), 1) * step}."
            )
        self.per_frame = per_frame
        self.features = SkeletonFeatures(layout, dims)
        self.enter = nn.Sequential(
            nn.BatchNorm1d(self.features.num_features),
            nn.Conv1d(self.features.num_features, width, 1, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(inplace=True),
        )
        self.blocks = nn.Sequential(_Block(width, 1, dropout), _Block(width, 2, dropout))
        self.positions = nn.Parameter(torch.randn(1, max_frames, width) * 0.02)
        self.encoder = frame_encoder(width, depth, heads, attention_dropout)
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(width if per_frame else 2 * width, num_classes))

    def forward(self, keypoints: Tensor, score: Tensor | None = None) -> Tensor:
        """See the class."""
        if score is None:
            score = (keypoints != 0).any(-1).to(keypoints.dtype)
        batch, persons, frames = keypoints.shape[:3]
        tokens = self.blocks(self.enter(self.features(keypoints, score).flatten(0, 1))).transpose(1, 2)
        tokens = self.encoder(tokens + first_positions(self.positions, frames))
        if self.per_frame:
            return self.head(merge_persons_by_instant(tokens.unflatten(0, (batch, persons)), score))
        pooled = torch.cat([tokens.mean(1), tokens.amax(1)], -1).unflatten(0, (batch, persons))
        return self.head(merge_persons(pooled, score))
