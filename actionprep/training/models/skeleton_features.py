"""What the small skeleton models see: coordinates, velocities, bones and distances, computed from raw joints."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from actionprep.datasets.poses.skeletons import Skeleton, skeleton
from actionprep.errors import UserError, nearest

FEATURES = ("coordinates", "velocities", "slow_velocities", "bones", "distances")


class SkeletonFeatures(nn.Module):
    """Joints of a clip as features that hardly depend on where, how big and how far away the person is.

    keypoints (B, M, T, K, C), score (B, M, T, K) → (B, M, num_features, T): coordinates centered on the clip's mean
    joint and divided by its spread, velocities over one and over `stride` frames, bones (joint minus parent) and
    distances between all pairs of joints; or those of FEATURES that `features` names, in its order. Center and spread are
    those of all persons together, so that their distance stays. Features that touch a missing joint are 0.

    groups:     how many features each name stands for, in the order in which they come.
    min_frames: in clips of fewer all features are 0.
    """

    pairs: Tensor
    bones: Tensor

    def __init__(
        self, layout: str | Skeleton, dims: int, *, stride: int = 3, features: Sequence[str] = FEATURES
    ) -> None:
        super().__init__()
        layout = skeleton(layout)
        self.stride = stride
        count = layout.num_joints
        self.register_buffer("pairs", torch.triu_indices(count, count, 1), persistent=False)
        self.register_buffer("bones", torch.tensor(layout.bones, dtype=torch.long).T.reshape(2, -1), persistent=False)
        sizes = {
            "coordinates": count * dims,
            "velocities": count * dims,
            "slow_velocities": count * dims,
            "bones": self.bones.shape[1] * dims,
            "distances": self.pairs.shape[1],
        }
        as_list = isinstance(features, (list, tuple))
        wrong = [one for one in features if one not in FEATURES] if as_list else []
        if not as_list or wrong or not features or len(set(features)) < len(features):
            example = features if features in FEATURES else "velocities"
            hint = nearest(str(wrong[0]), FEATURES) if wrong else f" Write --set 'sizes.features=[\"{example}\"]'."
            raise UserError(
                f"Features of joints are some of {', '.join(FEATURES)}, each once, as a list, and came as {features!r}."
                + hint
            )
        self.groups = {name: sizes[name] for name in features}
        self.num_features = sum(self.groups.values())
        needed = {"velocities": 2, "slow_velocities": 1 + stride}
        self.min_frames = min(needed.get(name, 1) for name in features)

    def forward(self, keypoints: Tensor, score: Tensor) -> Tensor:
        """See the class."""
        seen = (score > 0).to(keypoints.dtype)
        weight = seen.unsqueeze(-1)
        total = seen.sum((1, 2, 3)).clamp_min(1)[:, None]
        center = (keypoints * weight).sum((1, 2, 3)) / total
        centered = (keypoints - center[:, None, None, None]) * weight
        spread = (centered.square().sum((1, 2, 3, 4)) / total[:, 0]).sqrt().clamp_min(1e-6)
        place = centered / spread[:, None, None, None, None]
        return torch.cat([self._feature(name, place, seen) for name in self.groups], -1).transpose(2, 3)

    def _feature(self, name: str, place: Tensor, seen: Tensor) -> Tensor:
        """(B, M, T, F) of places (B, M, T, K, C) and which joints are seen (B, M, T, K)."""
        if name == "coordinates":
            return place.flatten(3)
        if name == "velocities":
            return _velocity(place, seen, 1).flatten(3)
        if name == "slow_velocities":
            return _velocity(place, seen, self.stride).flatten(3)
        first, second = self.bones if name == "bones" else self.pairs
        between = place[:, :, :, first] - place[:, :, :, second]
        both = seen[..., first] * seen[..., second]
        return (between * both.unsqueeze(-1)).flatten(3) if name == "bones" else between.norm(dim=-1) * both


def _velocity(place: Tensor, seen: Tensor, stride: int) -> Tensor:
    """Change over `stride` frames, centered on the later one.

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


def merge_persons_by_frame(encoded: Tensor, score: Tensor) -> Tensor:
    """The same at every instant by itself: encoded (B, M, T, F), score (B, M, T, K) → (B, T, F)."""
    batch = encoded.shape[0]
    apart, seen = (one.transpose(1, 2).flatten(0, 1) for one in (encoded, score))
    return merge_persons(apart, seen[:, :, None]).unflatten(0, (batch, -1))
