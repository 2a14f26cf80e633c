"""What the small skeleton models see: coordinates, velocities, bones and distances, computed from raw joints."""

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


def merge_persons(encoded: Tensor, score: Tensor) -> Tensor:
    """Maximum over the persons that are present: encoded (B, M, F), score (B, M, T, K) → (B, F).

    A clip without anybody takes its first slot.
    """
    present = (score > 0).any(-1).any(-1)
    present = torch.cat([present[:, :1] | ~present.any(1, keepdim=True), present[:, 1:]], 1)
    return encoded.masked_fill(~present[..., None], -torch.inf).amax(1)


def merge_persons_by_instant(encoded: Tensor, score: Tensor) -> Tensor:
    """The same at every instant by itself: encoded (B, M, T, F), score (B, M, T, K) → (B, T, F)."""
    batch = encoded.shape[0]
    apart, seen = (one.transpose(1, 2).flatten(0, 1) for one in (encoded, score))
    return merge_persons(apart, seen[:, :, None]).unflatten(0, (batch, -1))
