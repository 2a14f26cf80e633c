"""Mid fusion: models joined at the features before their heads and trained together."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from actionprep.errors import UserError
from actionprep.training.models.pixels import PixelClassifier
from actionprep.training.models.registry import build_model, model_card

_DEFAULT = (
    {"model": "view-transformer", "sizes": {}, "channels": "rgb"},
    {"model": "i3d-small", "sizes": {}, "channels": "rgb"},
)


class MidFusion(nn.Module):
    """Arrays of several inputs → class logits.

    Shapes: `part<i>_<name>` is the array <name> of the input of model i; returns (B, num_classes).

    Each model returns the features that its own head would read (per-frame features are averaged). The features are
    normalized and concatenated for one linear head. In training, parts are dropped at random per sample, so that the
    head does not rely on one part.

    Args:
        num_classes: Number of classes.
        parts: Per model its name, sizes and, for models that read frames, channels.
        dropout: Dropout before the head.
        part_dropout: Probability of dropping a part of a sample.
    """

    # The parts run in parallel: no layer decay between them.
    stacks: ClassVar[tuple[tuple[str, ...], ...]] = ()

    def __init__(
        self,
        *,
        num_classes: int,
        parts: Sequence[Mapping[str, Any]] = _DEFAULT,
        dropout: float = 0.3,
        part_dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.backbones = nn.ModuleList()
        widths = []
        for part in parts:
            model = build_model(part["model"], num_classes=num_classes, **part["sizes"])
            widths.append(_head_width(model, part["model"]))
            model.head = nn.Identity()
            pixels = model_card(part["model"]).pixels
            channels = part.get("channels", "rgb")
            self.backbones.append(model if pixels is None else PixelClassifier(model, pixels, channels=channels))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in widths)
        self.dropout = nn.Dropout(dropout)
        self.part_dropout = part_dropout
        self.head = nn.Linear(sum(widths), num_classes)

    def forward(self, **arrays: Tensor) -> Tensor:
        """Return class logits (B, num_classes)."""
        features = [self._features(index, arrays) for index in range(len(self.backbones))]
        if self.training and self.part_dropout:
            kept = torch.rand(len(features[0]), len(features), device=features[0].device)
            # Always keep the part with the largest draw, so that no sample loses all parts.
            kept = (kept >= self.part_dropout) | (kept == kept.amax(1, keepdim=True))
            features = [part * kept[:, index, None] for index, part in enumerate(features)]
        return self.head(self.dropout(torch.cat(features, 1)))

    def _features(self, index: int, arrays: Mapping[str, Tensor]) -> Tensor:
        prefix, model = f"part{index}_", self.backbones[index]
        own = {name.removeprefix(prefix): values for name, values in arrays.items() if name.startswith(prefix)}
        if isinstance(model, PixelClassifier):
            features = model.features(own["clip"], own.get("view_valid")).float()
        else:
            parameters = inspect.signature(model.forward).parameters
            features = model(**{name: own[name] for name in parameters if name in own}).float()
        if features.ndim == 3:
            valid = own.get("frame_valid", torch.ones(features.shape[:2], device=features.device))
            weight = valid.unsqueeze(-1).to(features.dtype)
            features = (features * weight).sum(1) / weight.sum(1).clamp(min=1)
        return self.norms[index](features)


def _head_width(model: nn.Module, name: str) -> int:
    """Return the input width of a model's head, which is that of its first linear layer."""
    head = getattr(model, "head", None)
    linear = [layer for layer in head.modules() if isinstance(layer, nn.Linear)] if isinstance(head, nn.Module) else []
    if not linear:
        raise UserError(
            f"The model '{name}' has no head that mid fusion can replace. Train it alone and combine the runs instead: "
            "actiontrain fuse RUN RUN …"
        )
    return linear[0].in_features
