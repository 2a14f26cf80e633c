"""Convert stored frames to the pixel format of a model, and average predictions over views."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from actionprep.training.inputs._clip_settings import Channels
from actionprep.training.models.optical_flow import optical_flow
from actionprep.training.models.registry import PixelInput

_LUMA = (0.299, 0.587, 0.114)
_LARGEST_FLOW = 20.0
"""Flow in pixels that becomes 1, as for the two-stream I3D (Carreira and Zisserman, CVPR 2017)."""


class PixelClassifier(nn.Module):
    """Stored clips → class logits, by a model with its own pixel format.

    Shapes: clip (B, C, T, H, W), RGB from 0 to 255 and with keypoints a fourth channel that is 255 where a joint is,
    uint8 or float; returns (B, num_classes). For several views, clip (B, V, C, T, H, W) with view_valid (B, V) returns
    the logits of the mean probability over valid views.

    The color order, range, mean and standard deviation are buffers, so they are saved in checkpoints.

    Args:
        model: Model that reads (B, C, T, H, W).
        pixels: Its pixel format.
        channels: "rgb"; "gray" (brightness); "motion" (brightness and its change from frame to frame); "flow" (optical
            flow in x and y, -1..1 for 20 pixels per frame) or "rgb-flow"; "keypoints" (1 where a joint is) or
            "rgb-keypoints".
        multi_label: Whether labels are independent (sigmoid instead of softmax).
    """

    scale: Tensor
    offset: Tensor
    color_order: Tensor

    def __init__(
        self, model: nn.Module, pixels: PixelInput, *, channels: Channels = "rgb", multi_label: bool = False
    ) -> None:
        super().__init__()
        self.model = model
        self.channels: Channels = channels
        self.multi_label = multi_label
        scale, offset = pixels.scale_and_shift()
        self.register_buffer("scale", torch.tensor(scale).expand(3).clone())
        self.register_buffer("offset", torch.tensor(offset).expand(3).clone())
        self.register_buffer("color_order", torch.tensor([0, 1, 2]))
        self.set_color_order(pixels.color_order)

    def set_color_order(self, order: Literal["RGB", "BGR"]) -> None:
        """Set the color order that the weights were trained with."""
        self.color_order.copy_(torch.tensor([0, 1, 2] if order == "RGB" else [2, 1, 0]))

    def forward(self, clip: Tensor, view_valid: Tensor | None = None) -> Tensor:
        """Return class logits (B, num_classes)."""
        if clip.ndim == 5:
            return self.model(self.preprocess(clip))
        batch, num_views = clip.shape[:2]
        logits = self.model(self.preprocess(clip.flatten(0, 1))).float().unflatten(0, (batch, num_views))
        return mean_over_views(logits, view_valid, multi_label=self.multi_label)

    def features(self, clip: Tensor, view_valid: Tensor | None = None) -> Tensor:
        """Return the input of the model's head, (B, width): the mean over valid views."""
        features: Any = self.model.features
        if clip.ndim == 5:
            return features(self.preprocess(clip))
        by_view = features(self.preprocess(clip.flatten(0, 1))).unflatten(0, clip.shape[:2])
        if view_valid is None:
            return by_view.mean(1)
        weight = view_valid[..., None].to(by_view.dtype)
        return (by_view * weight).sum(1) / weight.sum(1).clamp(min=1)

    def preprocess(self, clip: Tensor) -> Tensor:
        """Convert a stored clip (B, 3 or 4, T, H, W) to the model's input (B, C, T, H, W)."""
        clip = clip.float()
        if self.channels == "keypoints":
            return clip[:, 3:4] / 255
        if self.channels == "flow":
            return self._flow(clip)
        colors = clip[:, :3][:, self.color_order]
        colors = colors * self.scale.view(-1, 1, 1, 1) + self.offset.view(-1, 1, 1, 1)
        if self.channels == "rgb":
            return colors
        if self.channels == "rgb-keypoints":
            return torch.cat([colors, clip[:, 3:4] / 255], 1)
        if self.channels == "rgb-flow":
            return torch.cat([colors, self._flow(clip)], 1)
        gray = (colors * colors.new_tensor(_LUMA)[self.color_order].view(3, 1, 1, 1)).sum(1, keepdim=True)
        if self.channels == "gray":
            return gray
        change = torch.zeros_like(gray)
        # Changes are mostly small; a factor of 4 brings them to the scale of the contrast within a frame.
        change[:, :, 1:] = 4 * (gray[:, :, 1:] - gray[:, :, :-1])
        return torch.cat([gray, change], 1)

    def _flow(self, clip: Tensor) -> Tensor:
        """Optical flow (B, 2, T, H, W) of a stored clip, limited to -1..1."""
        gray = (clip[:, :3] * clip.new_tensor(_LUMA).view(3, 1, 1, 1)).sum(1) / 255
        with torch.no_grad():
            return (optical_flow(gray) / _LARGEST_FLOW).clamp(-1, 1)


def mean_over_views(logits: Tensor, view_valid: Tensor | None, *, multi_label: bool) -> Tensor:
    """Average probabilities over views.

    Args:
        logits: Logits of shape (B, V, C).
        view_valid: Valid views, shape (B, V), or None for all. A sample without a valid view uses all views.
        multi_label: Use sigmoid probabilities instead of softmax.

    Returns:
        Logits of the mean probabilities, shape (B, C).
    """
    if view_valid is None:
        view_valid = torch.ones(logits.shape[:2], dtype=torch.bool, device=logits.device)
    valid = (view_valid | ~view_valid.any(1, keepdim=True)).unsqueeze(-1)
    count = valid.sum(1)

    def mean(log_p: Tensor) -> Tensor:
        return log_p.masked_fill(~valid, float("-inf")).logsumexp(1) - count.log()

    if multi_label:
        return mean(F.logsigmoid(logits)) - mean(F.logsigmoid(-logits))
    return mean(F.log_softmax(logits, -1))


def unwrap_model(model: nn.Module) -> nn.Module:
    """Return the published model without torch.compile and `PixelClassifier` wrappers."""
    compiled = getattr(model, "_orig_mod", None)
    if isinstance(compiled, nn.Module):
        return unwrap_model(compiled)
    return unwrap_model(model.model) if isinstance(model, PixelClassifier) else model
