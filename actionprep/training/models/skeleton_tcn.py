"""A small temporal convolution network on skeleton features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from actionprep.datasets.poses.skeletons import Skeleton
from actionprep.errors import UserError
from actionprep.training.models.skeleton_features import (
    FEATURES,
    SkeletonFeatures,
    merge_persons,
    merge_persons_by_frame,
)

_GROUP = 24
"""Channels per group of the second convolution of a block."""


class _Block(nn.Module):
    def __init__(self, width: int, out: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(width, out, 3, padding=dilation, dilation=dilation, bias=False),
            nn.BatchNorm1d(out),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Conv1d(out, out, 3, padding=dilation, dilation=dilation, groups=out // _GROUP, bias=False),
            nn.BatchNorm1d(out),
        )
        self.skip = nn.Identity() if width == out else nn.Conv1d(width, out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.skip(x) + self.body(x))


class SkeletonTCN(nn.Module):
    """Skeletons over time → class logits: a temporal convolution network with about 0.3 M parameters.

    Shapes: keypoints (B, M, T, K, C), score (B, M, T, K); returns (B, num_classes), or (B, T, num_classes) with
    `per_frame`. Without a score, joints at the origin are missing. Persons are encoded separately with shared weights
    and merged by maximum over those that are present.

    Args:
        num_classes: Number of classes.
        layout: Skeleton layout, or its name.
        dims: Coordinates per joint.
        width: Channels of the first blocks; a multiple of 24.
        dropout: Dropout in the blocks.
        features: Features of the joints; see `SkeletonFeatures`.
        per_frame: Return logits of every frame, each from the frames around it.
    """

    def __init__(
        self,
        num_classes: int,
        layout: str | Skeleton,
        dims: int,
        *,
        width: int = 96,
        dropout: float = 0.3,
        features: Sequence[str] = FEATURES,
        per_frame: bool = False,
    ) -> None:
        super().__init__()
        if width % _GROUP:
            raise UserError(
                f"The width of skeleton-tcn must be a multiple of {_GROUP}, got {width}. Use for example --set "
                f"sizes.width={max(round(width / _GROUP), 1) * _GROUP}."
            )
        self.per_frame = per_frame
        self.features = SkeletonFeatures(layout, dims, features=features)
        self.enter = nn.Sequential(
            nn.BatchNorm1d(self.features.num_features),
            nn.Conv1d(self.features.num_features, width, 1, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(inplace=True),
        )
        self.blocks = nn.Sequential(
            _Block(width, width, 1, dropout),
            _Block(width, width, 2, dropout),
            _Block(width, 2 * width, 1, dropout),
            _Block(2 * width, 2 * width, 2, dropout),
        )
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(2 * width if per_frame else 4 * width, num_classes))

    def forward(self, keypoints: Tensor, score: Tensor | None = None) -> Tensor:
        """Return class logits; see the class for shapes."""
        if score is None:
            score = (keypoints != 0).any(-1).to(keypoints.dtype)
        batch, persons = keypoints.shape[:2]
        x = self.blocks(self.enter(self.features(keypoints, score).flatten(0, 1)))
        if self.per_frame:
            return self.head(merge_persons_by_frame(x.transpose(1, 2).unflatten(0, (batch, persons)), score))
        pooled = torch.cat([x.mean(-1), x.amax(-1)], -1).unflatten(0, (batch, persons))
        return self.head(merge_persons(pooled, score))
