"""Skeletons over time → class logits.

A small temporal convolution network on coordinates and what derives from them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from actionprep.datasets.skeletons import Skeleton, skeleton


class SkeletonFeatures(nn.Module):
    """Joints of a clip as features that hardly depend on where, how big and how far away the person is.

    keypoints (B, M, T, K, C), score (B, M, T, K) → (B, M, num_features, T): coordinates centred on the clip's mean
    joint and divided by its spread, velocities over one and over `stride` frames, bones (joint minus parent) and
    distances between all pairs of joints. Centre and spread are those of all persons together, so that their distance
    stays. Features that touch a missing joint are 0.
    """

    pairs: Tensor
    bones: Tensor

    def __init__(self, layout: str | Skeleton, dims: int, *, stride: int = 3, distances: bool = True) -> None:
        super().__init__()
        layout = skeleton(layout)
        self.stride = stride
        count = layout.num_joints
        pairs = torch.triu_indices(count, count, 1) if distances else torch.zeros(2, 0, dtype=torch.long)
        self.register_buffer("pairs", pairs, persistent=False)
        self.register_buffer("bones", torch.tensor(layout.bones, dtype=torch.long).T.reshape(2, -1), persistent=False)
        self.groups = {
            "coordinates": count * dims,
            "velocities": count * dims,
            "slow_velocities": count * dims,
            "bones": self.bones.shape[1] * dims,
            "distances": self.pairs.shape[1],
        }
        self.num_features = sum(self.groups.values())

    def forward(self, keypoints: Tensor, score: Tensor) -> Tensor:
        """See the class."""
        seen = (score > 0).to(keypoints.dtype)
        weight = seen.unsqueeze(-1)
        total = seen.sum((1, 2, 3)).clamp_min(1)[:, None]
        centre = (keypoints * weight).sum((1, 2, 3)) / total
        centred = (keypoints - centre[:, None, None, None]) * weight
        spread = (centred.square().sum((1, 2, 3, 4)) / total[:, 0]).sqrt().clamp_min(1e-6)
        place = centred / spread[:, None, None, None, None]
        first, second = self.pairs
        between = (place[:, :, :, first] - place[:, :, :, second]).norm(dim=-1)
        joint, parent = self.bones
        parts = [
            place.flatten(3),
            _velocity(place, seen, 1).flatten(3),
            _velocity(place, seen, self.stride).flatten(3),
            (
                (place[:, :, :, joint] - place[:, :, :, parent]) * (seen[..., joint] * seen[..., parent]).unsqueeze(-1)
            ).flatten(3),
            between * seen[..., first] * seen[..., second],
        ]
        return torch.cat(parts, -1).transpose(2, 3)


def _velocity(place: Tensor, seen: Tensor, stride: int) -> Tensor:
    """Change over `stride` frames, centred on the later one.

    0 where a joint is missing at either end and at the start.
    """
    moved = torch.zeros_like(place)
    if place.shape[2] > stride:
        both = (seen[:, :, stride:] * seen[:, :, :-stride]).unsqueeze(-1)
        moved[:, :, stride:] = (place[:, :, stride:] - place[:, :, :-stride]) * both
    return moved


class _Block(nn.Module):
    def __init__(self, width: int, out: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(width, out, 3, padding=dilation, dilation=dilation, bias=False),
            nn.BatchNorm1d(out),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Conv1d(out, out, 3, padding=dilation, dilation=dilation, groups=out // 24, bias=False),
            nn.BatchNorm1d(out),
        )
        self.skip = nn.Identity() if width == out else nn.Conv1d(width, out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.skip(x) + self.body(x))


class SkeletonTCN(nn.Module):
    """Temporal convolution network, about 0.3 M parameters.

    keypoints (B, M, T, K, C), score (B, M, T, K) → logits (B, num_classes). Persons are encoded one by one with the
    same weights and merged by maximum over those that are present.
    """

    def __init__(
        self, num_classes: int, layout: str | Skeleton, dims: int, *, width: int = 96, dropout: float = 0.3
    ) -> None:
        super().__init__()
        self.features = SkeletonFeatures(layout, dims)
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
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(4 * width, num_classes))

    def forward(self, keypoints: Tensor, score: Tensor) -> Tensor:
        """See the class."""
        batch, persons = keypoints.shape[:2]
        x = self.blocks(self.enter(self.features(keypoints, score).flatten(0, 1)))
        pooled = torch.cat([x.mean(-1), x.amax(-1)], -1).unflatten(0, (batch, persons))
        present = (score > 0).any(-1).any(-1)
        # A clip without anybody is judged by its (empty) first slot rather than by minus infinity.
        present[:, 0] |= ~present.any(1)
        return self.head(pooled.masked_fill(~present[..., None], -torch.inf).amax(1))
