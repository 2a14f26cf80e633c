"""What stands between stored bytes and a model of pictures: its own values and colors, and the mean over views."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from actionprep.training.models.registry import PixelInput

Channels = Literal["rgb", "gray", "motion"]


class PixelClassifier(nn.Module):
    """Clips as they are stored → class logits, by a model that wants them its own way.

    clip (B, 3, T, H, W), RGB from 0 to 255, uint8 or float → (B, num_classes). Clips of several views (B, V, 3, T, H, W),
    of which view_valid (B, V) are there, give the logits of the mean over views of the probabilities.

    channels: "gray" shows the model brightness alone, "motion" brightness and its change from frame to frame.
    several_labels: probabilities are those of each label by itself.

    The order of colors, their range, mean and deviation are buffers: a checkpoint carries them.
    """

    scale: Tensor
    offset: Tensor
    color_order: Tensor

    def __init__(
        self, model: nn.Module, pixels: PixelInput, *, channels: Channels = "rgb", several_labels: bool = False
    ) -> None:
        super().__init__()
        self.model = model
        self.channels: Channels = channels
        self.several_labels = several_labels
        scale, offset = pixels.scale_and_shift()
        self.register_buffer("scale", torch.tensor(scale).expand(3).clone())
        self.register_buffer("offset", torch.tensor(offset).expand(3).clone())
        self.register_buffer("color_order", torch.tensor([0, 1, 2]))
        self.want_colors(pixels.color_order)

    def want_colors(self, order: Literal["RGB", "BGR"]) -> None:
        """The order of colors that the weights were trained with."""
        self.color_order.copy_(torch.tensor([0, 1, 2] if order == "RGB" else [2, 1, 0]))

    def forward(self, clip: Tensor, view_valid: Tensor | None = None) -> Tensor:
        """Class logits (B, num_classes)."""
        if clip.ndim == 5:
            return self.model(self.seen(clip))
        batch, num_views = clip.shape[:2]
        logits = self.model(self.seen(clip.flatten(0, 1))).float().unflatten(0, (batch, num_views))
        return over_views(logits, view_valid, several_labels=self.several_labels)

    def features(self, clip: Tensor, view_valid: Tensor | None = None) -> Tensor:
        """What the model's head sees, (B, width); of several views the mean."""
        features: Any = self.model.features
        if clip.ndim == 5:
            return features(self.seen(clip))
        found = features(self.seen(clip.flatten(0, 1))).unflatten(0, clip.shape[:2])
        if view_valid is None:
            return found.mean(1)
        weight = view_valid[..., None].to(found.dtype)
        return (found * weight).sum(1) / weight.sum(1).clamp(min=1)

    def seen(self, clip: Tensor) -> Tensor:
        """The clip (B, C, T, H, W) as the model sees it."""
        clip = clip.float()[:, self.color_order]
        clip = clip * self.scale.view(-1, 1, 1, 1) + self.offset.view(-1, 1, 1, 1)
        if self.channels == "rgb":
            return clip
        gray = (clip * clip.new_tensor([0.299, 0.587, 0.114])[self.color_order].view(3, 1, 1, 1)).sum(1, keepdim=True)
        if self.channels == "gray":
            return gray
        change = torch.zeros_like(gray)
        # A change is mostly small; four times it is of the size of the picture's contrasts.
        change[:, :, 1:] = 4 * (gray[:, :, 1:] - gray[:, :, :-1])
        return torch.cat([gray, change], 1)


def over_views(logits: Tensor, view_valid: Tensor | None, *, several_labels: bool) -> Tensor:
    """Logits (B, C) of the mean probability over views, from (B, V, C); a sample without any view counts all."""
    if view_valid is None:
        view_valid = torch.ones(logits.shape[:2], dtype=torch.bool, device=logits.device)
    valid = (view_valid | ~view_valid.any(1, keepdim=True)).unsqueeze(-1)
    count = valid.sum(1)

    def mean(log_p: Tensor) -> Tensor:
        return log_p.masked_fill(~valid, float("-inf")).logsumexp(1) - count.log()

    if several_labels:
        return mean(F.logsigmoid(logits)) - mean(F.logsigmoid(-logits))
    return mean(F.log_softmax(logits, -1))


def bare(model: nn.Module) -> nn.Module:
    """The published model inside what stands around it."""
    compiled = getattr(model, "_orig_mod", None)
    if isinstance(compiled, nn.Module):
        return bare(compiled)
    return bare(model.model) if isinstance(model, PixelClassifier) else model
