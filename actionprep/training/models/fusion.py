"""Mid fusion: what the heads of several models would see, joined and trained together."""

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

    part<i>_<name>: the array <name> of the i-th model's input → (B, num_classes).

    Each model gives what its own head would see (of every frame: the mean); these are normalized, joined, and one linear
    head reads them all. In training a whole part is left out of a sample at times, so that none is relied on alone.

    parts: for each the name of its model, its sizes, and for pictures the channels that it sees.
    """

    # Its parts are no layers of each other.
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
            widths.append(_read_by_head(model, part["model"]))
            model.head = nn.Identity()
            pixels = model_card(part["model"]).pixels
            channels = part.get("channels", "rgb")
            self.backbones.append(model if pixels is None else PixelClassifier(model, pixels, channels=channels))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in widths)
        self.dropout = nn.Dropout(dropout)
        self.part_dropout = part_dropout
        self.head = nn.Linear(sum(widths), num_classes)

    def forward(self, **arrays: Tensor) -> Tensor:
        """Class logits (B, num_classes)."""
        found = [self._features(at, arrays) for at in range(len(self.backbones))]
        if self.training and self.part_dropout:
            kept = torch.rand(len(found[0]), len(found), device=found[0].device)
            # The part that would go last always stays.
            kept = (kept >= self.part_dropout) | (kept == kept.amax(1, keepdim=True))
            found = [one * kept[:, at, None] for at, one in enumerate(found)]
        return self.head(self.dropout(torch.cat(found, 1)))

    def _features(self, at: int, arrays: Mapping[str, Tensor]) -> Tensor:
        prefix, model = f"part{at}_", self.backbones[at]
        own = {name.removeprefix(prefix): values for name, values in arrays.items() if name.startswith(prefix)}
        if isinstance(model, PixelClassifier):
            found = model.features(own["clip"], own.get("view_valid")).float()
        else:
            found = model(
                **{name: own[name] for name in inspect.signature(model.forward).parameters if name in own}
            ).float()
        if found.ndim == 3:
            valid = (
                own.get("frame_valid", torch.ones(found.shape[:2], device=found.device)).unsqueeze(-1).to(found.dtype)
            )
            found = (found * valid).sum(1) / valid.sum(1).clamp(min=1)
        return self.norms[at](found)


def _read_by_head(model: nn.Module, name: str) -> int:
    """How many numbers a model's head reads: those that the first linear layer in it takes."""
    head = getattr(model, "head", None)
    linear = [one for one in head.modules() if isinstance(one, nn.Linear)] if isinstance(head, nn.Module) else []
    if not linear:
        raise UserError(
            f"The model '{name}' cannot be a part of a mid fusion, because it has no head that could be taken off. Fuse its "
            "trained run with others instead: actiontrain fuse RUN RUN …"
        )
    return linear[0].in_features
