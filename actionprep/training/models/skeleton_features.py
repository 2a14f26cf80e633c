"""Features of the small skeleton models: coordinates, velocities, bones and distances of joints."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from actionprep.datasets.poses.skeletons import Skeleton, skeleton
from actionprep.errors import UserError, nearest

FEATURES = ("coordinates", "velocities", "slow_velocities", "bones", "distances")


class SkeletonFeatures(nn.Module):
    """Features of joints that depend little on the position, size and distance of the person.

    Shapes: keypoints (B, M, T, K, C), score (B, M, T, K); returns (B, M, num_features, T). Features of a missing joint
    are 0.

    - "coordinates": centered on the mean joint of the clip and divided by its spread. Center and spread are those of
      all persons together, so that the distance between persons is kept.
    - "velocities", "slow_velocities": change over 1 and over `stride` frames.
    - "bones": joint minus parent.
    - "distances": between all pairs of joints.

    Args:
        layout: Skeleton layout, or its name.
        dims: Coordinates per joint.
        stride: Frames of the slow velocities.
        features: Names of the features to compute, in order.

    Attributes:
        groups: Number of features of each name, in order.
        num_features: Total number of features.
        min_frames: In clips with fewer frames, all features are 0.
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
        wrong = [name for name in features if name not in FEATURES] if as_list else []
        if not as_list or wrong or not features or len(set(features)) < len(features):
            example = features if features in FEATURES else "velocities"
            hint = nearest(str(wrong[0]), FEATURES) if wrong else f" Write --set 'sizes.features=[\"{example}\"]'."
            raise UserError(
                f"sizes.features must be a list of {', '.join(FEATURES)}, each at most once, got {features!r}." + hint
            )
        self.groups = {name: sizes[name] for name in features}
        self.num_features = sum(self.groups.values())
        needed = {"velocities": 2, "slow_velocities": 1 + stride}
        self.min_frames = min(needed.get(name, 1) for name in features)

    def forward(self, keypoints: Tensor, score: Tensor) -> Tensor:
        """Compute the features (B, M, num_features, T)."""
        seen = (score > 0).to(keypoints.dtype)
        weight = seen.unsqueeze(-1)
        total = seen.sum((1, 2, 3)).clamp_min(1)[:, None]
        center = (keypoints * weight).sum((1, 2, 3)) / total
        centered = (keypoints - center[:, None, None, None]) * weight
        spread = (centered.square().sum((1, 2, 3, 4)) / total[:, 0]).sqrt().clamp_min(1e-6)
        xy = centered / spread[:, None, None, None, None]
        return torch.cat([self._feature(name, xy, seen) for name in self.groups], -1).transpose(2, 3)

    def _feature(self, name: str, xy: Tensor, seen: Tensor) -> Tensor:
        """Compute (B, M, T, F) from normalized joints (B, M, T, K, C) and their visibility (B, M, T, K)."""
        if name == "coordinates":
            return xy.flatten(3)
        if name == "velocities":
            return _velocity(xy, seen, 1).flatten(3)
        if name == "slow_velocities":
            return _velocity(xy, seen, self.stride).flatten(3)
        first, second = self.bones if name == "bones" else self.pairs
        difference = xy[:, :, :, first] - xy[:, :, :, second]
        both = seen[..., first] * seen[..., second]
        return (difference * both.unsqueeze(-1)).flatten(3) if name == "bones" else difference.norm(dim=-1) * both


def _velocity(xy: Tensor, seen: Tensor, stride: int) -> Tensor:
    """Compute the change over `stride` frames; 0 in the first frames and where a joint is missing in either frame."""
    velocity = torch.zeros_like(xy)
    if xy.shape[2] > stride:
        both = (seen[:, :, stride:] * seen[:, :, :-stride]).unsqueeze(-1)
        velocity[:, :, stride:] = (xy[:, :, stride:] - xy[:, :, :-stride]) * both
    return velocity


def merge_persons(encoded: Tensor, score: Tensor) -> Tensor:
    """Take the maximum over the persons that are present.

    Args:
        encoded: Features per person, shape (B, M, F).
        score: Scores of joints, shape (B, M, T, K); a person without a positive score is absent.

    Returns:
        Features of shape (B, F). A clip without a person returns those of the first slot.
    """
    present = (score > 0).any(-1).any(-1)
    present = torch.cat([present[:, :1] | ~present.any(1, keepdim=True), present[:, 1:]], 1)
    return encoded.masked_fill(~present[..., None], -torch.inf).amax(1)


def merge_persons_by_frame(encoded: Tensor, score: Tensor) -> Tensor:
    """Apply `merge_persons` to each frame: encoded (B, M, T, F), score (B, M, T, K) → (B, T, F)."""
    batch = encoded.shape[0]
    by_frame, frame_score = (tensor.transpose(1, 2).flatten(0, 1) for tensor in (encoded, score))
    return merge_persons(by_frame, frame_score[:, :, None]).unflatten(0, (batch, -1))
