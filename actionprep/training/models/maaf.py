"""The published multi-view transformer on tracked points ("MAAF") at its published size, with its faults fixed."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from actionprep.errors import UserError
from actionprep.training.models.tokens import sincos_positions


class MultiViewTransformer(nn.Module):
    """Points of several views over time → class logits.

    Shapes: xy (B, T, V, N, 2) float, normalized to the moving region; valid (B, T, V, N) bool or None (all valid);
    frame_valid (B, T) bool or None (all valid); returns (B, num_classes). N can differ from `num_points`.

    Based on the multi-view furniture-assembly model (baturalpguven/AI-Driven-Furniture-Assembly-Tracking-System):
    attention over the views, a small CNN along the points, fixed view encoding, concatenated views, two post-norm
    transformer layers.

    Changes, with the same number of parameters:
    - Padded points are masked in the view attention, the convolutions and the pooling (the 500 inputs of the original
      were copies of one point).
    - The view attention weights x and y separately (the original averaged them in raw pixels, which saturates its
      sigmoid).
    - Time is encoded, and all valid steps are averaged (the original had no time encoding and used only the last step).
    - Padded frames are masked, so that a batch can have clips of different lengths (the original took batches of one).

    Args:
        num_classes: Number of classes.
        num_points: Width of the token of one view.
        num_views: Number of views.
        heads: Attention heads.
        layers: Transformer layers.
        hidden: Width of the MLPs.
        dropout: Dropout.
        faithful: Reproduce the original, without the changes above, to compare with the published metrics. None: True
            if weights of the original are loaded, else False.
    """

    view_code: Tensor

    def __init__(
        self,
        *,
        num_classes: int,
        num_points: int = 500,
        num_views: int = 4,
        heads: int = 8,
        layers: int = 2,
        hidden: int = 2048,
        dropout: float = 0.5,
        faithful: bool | None = None,
    ) -> None:
        super().__init__()
        width = num_points * num_views
        if width % heads:
            raise UserError(
                f"The width num_points x num_views = {num_points} x {num_views} = {width} must be a multiple of the {heads} "
                "heads. Change input.points."
            )
        self.num_views = num_views
        self.views = ViewAttention()
        self.faithful: bool | None = None
        if faithful is not None:
            self.set_variant(faithful=faithful)
        self.conv1 = nn.Conv2d(1, 16, (3, 2), padding=1)
        self.conv2 = nn.Conv2d(16, 32, (3, 1), padding=1)
        self.reduce = nn.Linear(32, num_points)
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("view_code", sincos_positions(num_views, num_points), persistent=False)
        layer = nn.TransformerEncoderLayer(width, heads, hidden, dropout, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, num_classes)

    def set_variant(self, *, faithful: bool) -> None:
        """Compute as the original does, or with our changes; the weights are the same."""
        self.faithful = faithful
        self.views.per_axis = not faithful

    def forward(self, xy: Tensor, valid: Tensor | None = None, frame_valid: Tensor | None = None) -> Tensor:
        """Return class logits (B, num_classes)."""
        batch, frames, views = xy.shape[:3]
        if views != self.num_views:
            raise UserError(
                f"Expected {self.num_views} views, got {views}. Select {self.num_views} views, or build the model with "
                f"num_views={views}."
            )
        if valid is None or self.faithful:
            valid = torch.ones(xy.shape[:-1], dtype=torch.bool, device=xy.device)
        xy = self.views(xy.masked_fill(~valid.unsqueeze(-1), 0.0), valid)
        x = self.reduce(self._pool_points(xy.flatten(0, 2), valid.flatten(0, 2)))
        x = (x.unflatten(0, (batch, frames, views)) + self.view_code).flatten(2)
        if self.faithful:
            return self.head(self.dropout(self.encoder(x)[:, -1]))
        x = x + sincos_positions(frames, x.shape[-1]).to(x)
        if frame_valid is None:
            x = self.encoder(x).mean(1)
        else:
            # A clip without a valid frame would give NaN, so treat it as fully valid; the caller ignores it.
            seen = frame_valid | ~frame_valid.any(1, keepdim=True)
            x = self.encoder(x, src_key_padding_mask=~seen).masked_fill(~seen.unsqueeze(-1), 0.0)
            x = x.sum(1) / seen.sum(1, keepdim=True)
        return self.head(self.dropout(x))

    def _pool_points(self, xy: Tensor, valid: Tensor) -> Tensor:
        """Encode points (B*T*V, N, 2) with mask (B*T*V, N) to (B*T*V, 32): the mean over positions with valid points."""
        x, seen = xy.unsqueeze(1), valid.float().unsqueeze(1)
        for conv in (self.conv1, self.conv2):
            # Invalid points are 0: like padding in a convolution, and never the maximum after ReLU.
            x = F.relu(conv(x)) * seen.unsqueeze(-1)
            x = self.dropout(F.max_pool2d(x, (2, 1), stride=2, ceil_mode=True))
            seen = F.max_pool1d(seen, 2, stride=2, ceil_mode=True)
        return x.mean(3).sum(2) / seen.sum(2).clamp(min=1.0)


class ViewAttention(nn.Module):
    """Efficient channel attention over views: scale each view by a sigmoid of the means of the view and its neighbors.

    Shapes: xy (B, T, V, N, 2) with zeros at invalid points, valid (B, T, V, N); returns the shape of xy. All steps
    share one 1D convolution over the views.

    Based on Wang et al., "ECA-Net", CVPR 2020, for the kernel size; the published models use the kernel of 8 views for
    any number of views. Changes: the mean is over valid points only, and x and y have separate weights (`per_axis`).

    Args:
        num_views: Number of views that the kernel size is computed for.
        gamma: Divisor in the kernel rule.
        offset: Offset in the kernel rule.
        per_axis: Weight x and y separately.
    """

    def __init__(self, *, num_views: int = 8, gamma: float = 2.0, offset: float = 1.0, per_axis: bool = True) -> None:
        super().__init__()
        size = int(abs((math.log2(num_views) + offset) / gamma))
        size += 1 - size % 2
        self.per_axis = per_axis
        self.conv = nn.Conv1d(1, 1, size, padding=size // 2, bias=False)

    def forward(self, xy: Tensor, valid: Tensor) -> Tensor:
        """Return the scaled points, in the shape of xy."""
        mean = xy.sum(3) / valid.sum(3).clamp(min=1).unsqueeze(-1)
        if not self.per_axis:
            mean = mean.mean(-1, keepdim=True)
        batch, frames, views, axes = mean.shape
        weight = self.conv(mean.transpose(2, 3).reshape(-1, 1, views)).view(batch, frames, axes, views).transpose(2, 3)
        return xy * weight.sigmoid().unsqueeze(3)
