"""A small transformer over frames, on skeleton features."""

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


class SkeletonTransformer(nn.Module):
    """Skeletons over time → class logits: a transformer with about 0.3 M parameters; a token is a frame.

    Shapes: keypoints (B, M, T, K, C), score (B, M, T, K), T up to `max_frames`; returns (B, num_classes), or
    (B, T, num_classes) with `per_frame`. Without a score, joints at the origin are missing.

    Each token is computed from one frame and its two neighbors. Positions are learned, blocks are pre-norm, and the head
    reads mean and maximum over time. Persons are encoded separately with shared weights and merged by maximum over
    those that are present.

    Args:
        num_classes: Number of classes.
        layout: Skeleton layout, or its name.
        dims: Coordinates per joint.
        width: Token width.
        depth: Number of blocks.
        heads: Attention heads.
        dropout: Dropout in the blocks.
        max_frames: Number of learned positions.
        features: Features of the joints; see `SkeletonFeatures`.
        per_frame: Return logits of every frame.
    """

    def __init__(
        self,
        num_classes: int,
        layout: str | Skeleton,
        dims: int,
        *,
        width: int = 96,
        depth: int = 3,
        heads: int = 4,
        dropout: float = 0.2,
        max_frames: int = 128,
        features: Sequence[str] = FEATURES,
        per_frame: bool = False,
    ) -> None:
        super().__init__()
        self.per_frame = per_frame
        self.features = SkeletonFeatures(layout, dims, features=features)
        self.enter = nn.Sequential(
            nn.BatchNorm1d(self.features.num_features),
            nn.Conv1d(self.features.num_features, width, 1, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(inplace=True),
            nn.Conv1d(width, width, 3, padding=1, groups=4),
        )
        self.positions = nn.Parameter(torch.randn(1, max_frames, width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            width, heads, 2 * width, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, depth, norm=nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(width if per_frame else 2 * width, num_classes))

    def forward(self, keypoints: Tensor, score: Tensor | None = None) -> Tensor:
        """Return class logits; see the class for shapes."""
        if score is None:
            score = (keypoints != 0).any(-1).to(keypoints.dtype)
        batch, persons, frames = keypoints.shape[:3]
        if frames > self.positions.shape[1]:
            raise UserError(
                f"Expected at most {self.positions.shape[1]} frames, got {frames}. Reduce input.frames, or use --set "
                f"sizes.max_frames={frames}."
            )
        tokens = self.enter(self.features(keypoints, score).flatten(0, 1)).transpose(1, 2)
        tokens = self.encoder(tokens + self.positions[:, :frames])
        if self.per_frame:
            return self.head(merge_persons_by_frame(tokens.unflatten(0, (batch, persons)), score))
        pooled = torch.cat([tokens.mean(1), tokens.amax(1)], -1).unflatten(0, (batch, persons))
        return self.head(merge_persons(pooled, score))
