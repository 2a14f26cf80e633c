"""The default model for point tracks: flow maps of points, tokens of views and time steps, a transformer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ViewTransformer(nn.Module):
    """Points of several views over time → class logits.

    Shapes: xy (B, T, V, N, 2), normalized to the moving region; valid (B, T, V, N) bool; frame_valid (B, T) bool;
    velocity (B, T, V, N, 2) in units of xy per second; returns (B, num_classes). Any T and N. Invalid points, frames
    and views are masked; a mask of None means all valid. Without velocity, it is the change since the previous frame,
    which requires that points keep their index.

    Points of every `merge` frames of a view become a map of `grid` x `grid` cells over [-extent, extent] with their
    density and motion; see `FlowMaps`. Two 3D convolutions turn the maps into one token per view and step. A
    transformer attends over all tokens of all views, and attention pooling summarizes the valid ones.

    Our own design. Unlike the multi-view furniture-assembly model
    (baturalpguven/AI-Driven-Furniture-Assembly-Tracking-System), it reads real points instead of padding, their motion,
    the order of time, all steps, and supports missing views.

    Args:
        num_classes: Number of classes.
        num_views: Number of views.
        num_frames: Frames that the time embedding is made for; it is interpolated to other clips.
        merge: Frames per step.
        grid: Cells per side of a map.
        extent: Half the side of a map, in units of xy.
        channels: Channels of the two convolutions.
        width: Token width.
        layers: Transformer layers.
        heads: Attention heads.
        dropout: Dropout.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        num_views: int = 1,
        num_frames: int = 32,
        merge: int = 2,
        grid: int = 14,
        extent: float = 1.6,
        channels: tuple[int, int] = (24, 48),
        width: int = 96,
        layers: int = 2,
        heads: int = 4,
        dropout: float = 0.3,
    ) -> None:
        super().__init__()
        self.merge = merge
        self.flow_maps = FlowMaps(grid=grid, extent=extent)
        self.encoder = nn.Sequential(
            nn.Conv3d(FlowMaps.channels, channels[0], 3, padding=1, bias=False),
            nn.BatchNorm3d(channels[0]),
            nn.ReLU(),
            nn.MaxPool3d((1, 2, 2)),
            nn.Conv3d(channels[0], channels[1], 3, padding=1, bias=False),
            nn.BatchNorm3d(channels[1]),
            nn.ReLU(),
            nn.MaxPool3d((1, 2, 2)),
        )
        self.dropout = nn.Dropout(dropout)
        self.project = nn.Linear(channels[1] * (grid // 4) ** 2, width)
        self.time_code = nn.Parameter(torch.randn(-(-num_frames // merge), width) * 0.02)
        # View codes start far apart: from zero, the model needs hundreds of steps to distinguish views. A single view
        # needs no code.
        code = torch.randn(num_views, width) * 0.5 if num_views > 1 else torch.zeros(1, width)
        self.view_code = nn.Parameter(code)
        layer = nn.TransformerEncoderLayer(
            width, heads, 2 * width, dropout / 2, activation="gelu", batch_first=True, norm_first=True
        )
        self.transformer = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.pool = nn.Linear(width, 1)
        self.head = nn.Linear(width, num_classes)

    def forward(
        self,
        xy: Tensor,
        valid: Tensor | None = None,
        frame_valid: Tensor | None = None,
        velocity: Tensor | None = None,
    ) -> Tensor:
        """Return class logits (B, num_classes)."""
        tokens, seen = self.tokens(xy, valid, frame_valid, velocity)
        num_views, num_steps = tokens.shape[1:3]
        tokens = (tokens + self.view_code[:num_views, None] + _stretched(self.time_code, num_steps)).flatten(1, 2)
        if seen is None:
            tokens = self.norm(self.transformer(tokens))
            weight = self.pool(tokens).softmax(1)
        else:
            seen = seen.flatten(1, 2)
            # A sample without points would give NaN, so use all its (uninformative) tokens.
            seen = seen | ~seen.any(1, keepdim=True)
            tokens = self.norm(self.transformer(tokens, src_key_padding_mask=~seen))
            weight = self.pool(tokens).masked_fill(~seen[..., None], float("-inf")).softmax(1)
        return self.head(self.dropout((weight * tokens).sum(1)))

    def tokens(
        self,
        xy: Tensor,
        valid: Tensor | None = None,
        frame_valid: Tensor | None = None,
        velocity: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Compute the tokens of each view and step.

        Args:
            xy: Points of shape (B, T, V, N, 2).
            valid: Valid points, shape (B, T, V, N); None: all.
            frame_valid: Valid frames, shape (B, T); None: all.
            velocity: Velocities, shape of xy; None: computed from xy.

        Returns:
            Tokens (B, V, S, width), and which of them have points (B, V, S); None if all points are valid.
        """
        num_samples, _, num_views = xy.shape[:3]
        all_valid = valid is None and frame_valid is None
        if valid is None:
            valid = torch.ones(xy.shape[:-1], dtype=torch.bool, device=xy.device)
        if frame_valid is not None:
            valid = valid & frame_valid[:, :, None, None]
        if velocity is None:
            both = (valid[:, 1:] & valid[:, :-1])[..., None]
            velocity = F.pad((xy[:, 1:] - xy[:, :-1]) * both, (0, 0, 0, 0, 0, 0, 1, 0))
        by_view = [self._steps(t.transpose(1, 2).flatten(0, 1)) for t in (xy, velocity, valid)]  # (B * V, S, …)
        seen = by_view[2].any(-1)
        present = seen.any(-1)
        # In training, exclude absent views from the batch statistics; with fixed statistics they have no effect.
        exclude = self.training and num_views > 1 and not all_valid and bool(present.any() & ~present.all())
        if exclude:
            by_view = [tensor[present] for tensor in by_view]
        tokens = self.encoder(self.flow_maps(*by_view))  # (B * V, C, S, h, w)
        tokens = self.project(self.dropout(tokens.transpose(1, 2).flatten(2)))
        if exclude:
            padded = tokens.new_zeros(num_samples * num_views, *tokens.shape[1:])
            padded[present] = tokens
            tokens = padded
        tokens = self.dropout(tokens).unflatten(0, (num_samples, num_views))
        if all_valid:
            return tokens, None
        return tokens, seen.unflatten(0, (num_samples, num_views))

    def _steps(self, points: Tensor) -> Tensor:
        """Join the points of every `merge` frames: (B, T, N, …) → (B, S, merge · N, …), padded with zeros at the end."""
        missing = -points.shape[1] % self.merge
        if missing:
            points = torch.cat([points, points.new_zeros(len(points), missing, *points.shape[2:])], 1)
        return points.unflatten(1, (-1, self.merge)).flatten(2, 3)


class FlowMaps(nn.Module):
    """Points → maps of their density and motion.

    Shapes: xy (B, T, N, 2), velocity (B, T, N, 2), valid (B, T, N) bool; returns (B, 5, T, grid, grid): mean velocity
    in x and y, mean speed, density, and amount of motion.

    Each point is distributed bilinearly over the four nearest cells. All values are relative to the number of points
    of the frame, so a different number gives the same maps with more or less noise. There are no weights.

    Args:
        grid: Cells per side.
        extent: Half the side of a map, in units of xy.
        fast: Speed, in half frame heights per second, that is scaled to 1.
    """

    channels = 5

    def __init__(self, *, grid: int, extent: float, fast: float = 3.0) -> None:
        super().__init__()
        self.grid = grid
        self.extent = extent
        self.fast = fast

    def forward(self, xy: Tensor, velocity: Tensor, valid: Tensor) -> Tensor:
        """Compute the maps; see the class for shapes."""
        num_samples, num_frames, _ = valid.shape
        cells = self.grid * self.grid
        position = (xy / self.extent + 1) * (self.grid / 2) - 0.5
        corner = position.floor()
        fraction = position - corner
        velocity = velocity / self.fast
        speed = velocity.norm(dim=-1, keepdim=True)
        values = torch.cat([torch.ones_like(speed), velocity, speed], -1) * valid[..., None]
        first = torch.arange(num_samples * num_frames, device=xy.device).view(num_samples, num_frames, 1) * cells
        total = values.new_zeros(num_samples * num_frames * cells, 4)
        for right in (0, 1):
            for down in (0, 1):
                x, y = corner[..., 0] + right, corner[..., 1] + down
                inside = (x >= 0) & (x < self.grid) & (y >= 0) & (y < self.grid)
                weight_x = fraction[..., 0] if right else 1 - fraction[..., 0]
                weight_y = fraction[..., 1] if down else 1 - fraction[..., 1]
                weight = weight_x * weight_y
                cell = first + y.clamp(0, self.grid - 1).long() * self.grid + x.clamp(0, self.grid - 1).long()
                total = total.index_add(0, cell.flatten(), (values * (weight * inside)[..., None]).flatten(0, 2))
        total = total.view(num_samples, num_frames, self.grid, self.grid, 4).permute(0, 4, 1, 2, 3)
        count, sums = total[:, :1], total[:, 1:]
        num_points = valid.sum(-1)[:, None, :, None, None].clamp(min=1)
        # Adding half a static point keeps the mean small in cells that a single point barely touches.
        mean = sums / (count + 0.5)
        density = torch.log1p(count * (200 / num_points)) / 3
        moving = torch.log1p(sums[:, 2:] * (20 / num_points))
        return torch.cat([mean, density, moving], 1)


def _stretched(code: Tensor, num_steps: int) -> Tensor:
    """Interpolate a code (T, D) linearly to another number of steps; steps are equal parts of the snippet."""
    if len(code) == num_steps:
        return code
    return F.interpolate(code.t()[None], size=num_steps, mode="linear", align_corners=False)[0].t()
