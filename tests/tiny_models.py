"""All models at sizes that train in milliseconds, with inputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from actionprep.training.models.registry import build_model

_VIT = {"width": 32, "depth": 2, "heads": 2, "dropout": 0.0}
_FRAMES = {**_VIT, "num_frames": 4, "image_size": 32}
_VOLUME = {**_VIT, "in_channels": 5, "num_frames": 8, "image_size": 16, "tubelet": (4, 8, 8), "attention_dropout": 0.0}
_TOKENS = {**_VIT, "num_joints": 5, "num_frames": 8, "map_size": 16}
_BERT = {**_VIT, "num_joints": 5, "num_frames": 8, "representation": 16, "hidden": 32}
_I3D = {"width_multiplier": 0.0625, "dropout": 0.0}
_FRONT = {**_I3D, "size": (8, 32, 32)}
_TRACKS = {"num_points": 8, "num_views": 2, "dropout": 0.0}

# name → (sizes, input shape)
TINY: dict[str, tuple[dict[str, object], tuple[int, ...]]] = {
    "timesformer": (_FRAMES, (2, 3, 4, 32, 32)),
    "timesformer-hr": (_FRAMES, (2, 3, 4, 32, 32)),
    "timesformer-l": (_FRAMES, (2, 3, 4, 32, 32)),
    "timesformer-joint": (_FRAMES, (2, 3, 4, 32, 32)),
    "timesformer-space": (_FRAMES, (2, 3, 4, 32, 32)),
    "timesformer-light": (_FRAMES, (2, 3, 4, 32, 32)),
    "videomae": (_FRAMES, (2, 3, 4, 32, 32)),
    "vivit-frames": (_FRAMES, (2, 3, 4, 32, 32)),
    "vivit-1": (_VOLUME, (2, 5, 8, 16, 16)),
    "vivit-1-big": (_VOLUME, (2, 5, 8, 16, 16)),
    "vivit-1-small-tube": (_VOLUME, (2, 5, 8, 16, 16)),
    "vivit-2": ({**_VOLUME, "head_width": 8}, (2, 5, 8, 16, 16)),
    "vivit-2-published": ({**_VOLUME, "head_width": 8}, (2, 5, 8, 16, 16)),
    "heatmap-transformer": (_TOKENS, (2, 5, 8, 16, 16)),
    "heatmap-transformer-big": (_TOKENS, (2, 5, 8, 16, 16)),
    "heatmap-transformer-small": (_TOKENS, (2, 5, 8, 16, 16)),
    "motionbert": (_BERT, (2, 2, 8, 5, 3)),
    "motionbert-heatmap": ({**_BERT, "map_size": 16}, (2, 5, 8, 16, 16)),
    "poseconv3d": (
        {"in_channels": 5, "base_channels": 4, "stage_blocks": (1, 1, 1), "dropout": 0.0},
        (2, 5, 8, 16, 16),
    ),
    "poseconv3d-small": ({"in_channels": 5, "widths": (4, 8, 8), "dropout": 0.0}, (2, 5, 8, 16, 16)),
    "view-transformer-maaf": ({**_TRACKS, "heads": 2, "hidden": 32}, (2, 6, 2, 8, 2)),
    "track-lstm": ({**_TRACKS, "hidden": 16}, (2, 6, 2, 8, 2)),
    "track-cnn-lstm": ({**_TRACKS, "hidden": 16}, (2, 6, 2, 8, 2)),
    "i3d": (_I3D, (2, 3, 8, 32, 32)),
    "i3d-small": (_I3D, (2, 3, 8, 32, 32)),
    "i3d-resizer-3d": (_FRONT, (2, 3, 4, 14, 14)),
    "i3d-resizer-2d": (_FRONT, (2, 3, 4, 14, 14)),
    "i3d-stn-resizer": (_FRONT, (2, 3, 4, 14, 14)),
    "i3d-transformer-resizer": (_FRONT, (2, 3, 4, 14, 14)),
}
CLASSES = 3


def tiny(name: str, **sizes: object) -> tuple[nn.Module, Tensor]:
    """Return a tiny model from a fixed seed and two samples for it."""
    torch.manual_seed(0)
    settings, shape = TINY[name]
    return build_model(name, num_classes=CLASSES, **{**settings, **sizes}), torch.randn(shape)


def targets(logits: Tensor) -> Tensor:
    """Return labels 0, 1 for the two samples, repeated over frames if the model returns frame logits."""
    labels = torch.arange(logits.shape[0])
    return labels.unsqueeze(1).expand(logits.shape[:-1]) if logits.ndim == 3 else labels
