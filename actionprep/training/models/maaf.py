"""The published multi-view transformer on tracked points ("MAAF"), size for size, with its blind spots mended."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from actionprep.errors import UserError
from actionprep.training.models.tokens import sincos_positions


class MultiViewTransformer(nn.Module):
    """Points of several views over time → class logits.

    xy (B, T, V, N, 2) float, normalized to the moving region; valid (B, T, V, N) bool; frame_valid (B, T) bool → (B,
    num_classes). Both masks may be None: all points, all frames count. N need not be `num_points`, which is the width
    of a view's token.

    After the multi-view furniture-assembly model (baturalpguven/AI-Driven-Furniture-Assembly-Tracking-System):
    attention over the views, a small CNN along the points, fixed view encoding, views side by side, two post-norm
    transformer layers.

    Changed, without a single parameter more:
    - padded points are masked in the view attention, the convolutions and the pooling (the original's 500 inputs were
      one repeated point);
    - x and y are weighted apart by the view attention (the original averaged them together, in raw pixels, which
      saturates its sigmoid);
    - time is encoded, and all valid steps are averaged (the original had no time encoding and read only the last step);
    - padded frames are masked, so that batches may hold clips of unequal length (the original could only take batches
      of one). faithful=True switches these off, for comparison with the published figures.
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
        faithful: bool = False,
    ) -> None:
        super().__init__()
        width = num_points * num_views
        if width % heads:
            raise UserError(
                f"The transformer is num_points x num_views = {num_points} x {num_views} = {width} wide, and {heads} "
                "heads do not divide that. Choose a number of points that does."
            )
        self.num_views = num_views
        self.faithful = faithful
        self.views = ViewAttention(per_axis=not faithful)
        self.conv1 = nn.Conv2d(1, 16, (3, 2), padding=1)
        self.conv2 = nn.Conv2d(16, 32, (3, 1), padding=1)
        self.reduce = nn.Linear(32, num_points)
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("view_code", sincos_positions(num_views, num_points), persistent=False)
        layer = nn.TransformerEncoderLayer(width, heads, hidden, dropout, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, num_classes)

    def forward(self, xy: Tensor, valid: Tensor | None = None, frame_valid: Tensor | None = None) -> Tensor:
        """Class logits (B, num_classes)."""
        batch, frames, views = xy.shape[:3]
        if views != self.num_views:
            raise UserError(
                f"This model was made for {self.num_views} views and got {views}. Build it with num_views={views}, or "
                "choose the views."
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
            # A clip without any valid frame would give NaN; it counts as all valid, for the caller to leave out.
            seen = frame_valid | ~frame_valid.any(1, keepdim=True)
            x = self.encoder(x, src_key_padding_mask=~seen).masked_fill(~seen.unsqueeze(-1), 0.0)
            x = x.sum(1) / seen.sum(1, keepdim=True)
        return self.head(self.dropout(x))

    def _pool_points(self, xy: Tensor, valid: Tensor) -> Tensor:
        """(B*T*V, N, 2) points and their mask → (B*T*V, 32), the mean over the places that real points reach."""
        x, seen = xy.unsqueeze(1), valid.float().unsqueeze(1)
        for conv in (self.conv1, self.conv2):
            # Zeros stand for nothing: before a convolution they equal its padding, after ReLU they win no maximum.
            x = F.relu(conv(x)) * seen.unsqueeze(-1)
            x = self.dropout(F.max_pool2d(x, (2, 1), stride=2, ceil_mode=True))
            seen = F.max_pool1d(seen, 2, stride=2, ceil_mode=True)
        return x.mean(3).sum(2) / seen.sum(2).clamp(min=1.0)


class ViewAttention(nn.Module):
    """Weight each view by a sigmoid of what it and its neighbors hold (efficient channel attention, over views).

    xy (B, T, V, N, 2) with zeros at invalid points, valid (B, T, V, N) → xy weighted. A 1D convolution over the views,
    shared by all steps.

    Wang et al., "ECA-Net", CVPR 2020, for the kernel rule; the published models take the kernel of 8 views for any
    number of views. Changed: the mean is over valid points only, and x and y keep a weight each (`per_axis`).
    """

    def __init__(self, *, num_views: int = 8, gamma: float = 2.0, offset: float = 1.0, per_axis: bool = True) -> None:
        super().__init__()
        size = int(abs((math.log2(num_views) + offset) / gamma))
        size += 1 - size % 2
        self.per_axis = per_axis
        self.conv = nn.Conv1d(1, 1, size, padding=size // 2, bias=False)

    def forward(self, xy: Tensor, valid: Tensor) -> Tensor:
        """Weighted points, the same shape as xy."""
        mean = xy.sum(3) / valid.sum(3).clamp(min=1).unsqueeze(-1)
        if not self.per_axis:
            mean = mean.mean(-1, keepdim=True)
        batch, frames, views, axes = mean.shape
        weight = self.conv(mean.transpose(2, 3).reshape(-1, 1, views)).view(batch, frames, axes, views).transpose(2, 3)
        return xy * weight.sigmoid().unsqueeze(3)
