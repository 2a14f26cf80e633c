"""Our default on point tracks: points spread to a picture of flow, tokens of views and instants, a transformer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ViewTransformer(nn.Module):
    """Points of several views over time → class logits.

    xy (B, T, V, N, 2) normalized to the moving region, valid (B, T, V, N) bool, frame_valid (B, T) bool, velocity
    (B, T, V, N, 2) in the unit of xy a second → (B, num_classes). Any T, any N, any views missing: what is not
    valid takes no part. Masks None: all is valid. velocity None: the step from the instant before, of points that
    keep their place on the axis.

    Every `merge` instants of a view become a picture of `grid` x `grid` cells over [-extent, extent]: how many points
    are there and how they move, spread bilinearly. Two 3D convolutions turn the pictures into tokens of `width`, one
    for each view and step; a transformer lets all tokens of all views see each other; attention pools those that are
    valid.

    Ours. What the multi-view furniture-assembly model (baturalpguven/AI-Driven-Furniture-Assembly-Tracking-System)
    could not see is here: real points instead of padding, their motion, the order of time, all steps, and missing
    views.
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
        self.pictures = FlowPictures(grid=grid, extent=extent)
        self.encoder = nn.Sequential(
            nn.Conv3d(FlowPictures.channels, channels[0], 3, padding=1, bias=False),
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
        # Codes that start apart: from zero it takes hundreds of steps until views are told from each other. One view
        # needs none.
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
        """Class logits (B, num_classes)."""
        tokens, seen = self.tokens(xy, valid, frame_valid, velocity)
        num_views, num_steps = tokens.shape[1:3]
        tokens = (tokens + self.view_code[:num_views, None] + _stretched(self.time_code, num_steps)).flatten(1, 2)
        if seen is None:
            tokens = self.norm(self.transformer(tokens))
            weight = self.pool(tokens).softmax(1)
        else:
            seen = seen.flatten(1, 2)
            # A sample without any point would give NaN: all its tokens count, and say nothing.
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
        """Tokens (B, V, S, width) of each view and step, and which of them have points (B, V, S); None: all."""
        num_samples, _, num_views = xy.shape[:3]
        is_whole = valid is None and frame_valid is None
        if valid is None:
            valid = torch.ones(xy.shape[:-1], dtype=torch.bool, device=xy.device)
        if frame_valid is not None:
            valid = valid & frame_valid[:, :, None, None]
        if velocity is None:
            both = (valid[:, 1:] & valid[:, :-1])[..., None]
            velocity = F.pad((xy[:, 1:] - xy[:, :-1]) * both, (0, 0, 0, 0, 0, 0, 1, 0))
        by_view = [self._steps(one.transpose(1, 2).flatten(0, 1)) for one in (xy, velocity, valid)]  # (B * V, S, …)
        seen = by_view[2].any(-1)
        present = seen.any(-1)
        # Batch statistics are of views that are there; with fixed statistics absent ones do no harm.
        some = self.training and num_views > 1 and not is_whole and bool(present.any() & ~present.all())
        if some:
            by_view = [one[present] for one in by_view]
        found = self.encoder(self.pictures(*by_view))  # (B * V, C, S, h, w)
        found = self.project(self.dropout(found.transpose(1, 2).flatten(2)))
        if some:
            whole = found.new_zeros(num_samples * num_views, *found.shape[1:])
            whole[present] = found
            found = whole
        found = self.dropout(found).unflatten(0, (num_samples, num_views))
        if is_whole:
            return found, None
        return found, seen.unflatten(0, (num_samples, num_views))

    def _steps(self, points: Tensor) -> Tensor:
        """(B, T, N, …) → (B, S, merge · N, …): the points of neighboring instants together, none where T ends."""
        missing = -points.shape[1] % self.merge
        if missing:
            points = torch.cat([points, points.new_zeros(len(points), missing, *points.shape[2:])], 1)
        return points.unflatten(1, (-1, self.merge)).flatten(2, 3)


class FlowPictures(nn.Module):
    """Points → pictures of where they are and how they move.

    xy (B, T, N, 2), velocity (B, T, N, 2), valid (B, T, N) bool → (B, 5, T, grid, grid): mean velocity in x and in y,
    mean speed, density, and how much moves. Each point is spread over the four cells around it. Every figure is
    relative to the number of points of the instant, so that more or fewer of them give the same picture, only smoother
    or rougher. No weights.
    """

    channels = 5

    def __init__(self, *, grid: int, extent: float, fast: float = 3.0) -> None:
        """fast: a speed, in half heights a second, that counts as 1."""
        super().__init__()
        self.grid = grid
        self.extent = extent
        self.fast = fast

    def forward(self, xy: Tensor, velocity: Tensor, valid: Tensor) -> Tensor:
        """Pictures; see the class."""
        num_samples, num_frames, _ = valid.shape
        cells = self.grid * self.grid
        place = (xy / self.extent + 1) * (self.grid / 2) - 0.5
        corner = place.floor()
        part = place - corner
        velocity = velocity / self.fast
        speed = velocity.norm(dim=-1, keepdim=True)
        figures = torch.cat([torch.ones_like(speed), velocity, speed], -1) * valid[..., None]
        first = torch.arange(num_samples * num_frames, device=xy.device).view(num_samples, num_frames, 1) * cells
        total = figures.new_zeros(num_samples * num_frames * cells, 4)
        for right in (0, 1):
            for down in (0, 1):
                x, y = corner[..., 0] + right, corner[..., 1] + down
                inside = (x >= 0) & (x < self.grid) & (y >= 0) & (y < self.grid)
                weight = (part[..., 0] if right else 1 - part[..., 0]) * (part[..., 1] if down else 1 - part[..., 1])
                cell = first + y.clamp(0, self.grid - 1).long() * self.grid + x.clamp(0, self.grid - 1).long()
                total = total.index_add(0, cell.flatten(), (figures * (weight * inside)[..., None]).flatten(0, 2))
        total = total.view(num_samples, num_frames, self.grid, self.grid, 4).permute(0, 4, 1, 2, 3)
        count, sums = total[:, :1], total[:, 1:]
        num_points = valid.sum(-1)[:, None, :, None, None].clamp(min=1)
        # A cell that a single distant point only touches says little: half a point of "does not move" is added.
        mean = sums / (count + 0.5)
        density = torch.log1p(count * (200 / num_points)) / 3
        moving = torch.log1p(sums[:, 2:] * (20 / num_points))
        return torch.cat([mean, density, moving], 1)


def _stretched(code: Tensor, num_steps: int) -> Tensor:
    """A code (T, D) brought to another number of steps: linear, steps being equal parts of the snippet."""
    if len(code) == num_steps:
        return code
    return F.interpolate(code.t()[None], size=num_steps, mode="linear", align_corners=False)[0].t()
