"""A plain transformer whose tokens are a few frames of one joint's heatmap."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from actionprep.errors import UserError
from actionprep.training.models.attention import Block, drop_path_rates, init_transformer
from actionprep.training.models.tokens import resize_time

Pool = Literal["mean", "mean-max"]


class HeatmapTransformer(nn.Module):
    """Heatmap volumes → class logits.

    clip (B, K, T, H, W) float in 0..1, K joints; frame_valid (B, T) bool or None → (B, num_classes). T is a multiple
    of `patch_frames`. A token is `patch_frames` frames of one joint's H x W map: (T / patch_frames) * K tokens.

    After the heatmap study's "vanilla" transformer (woringer404v/MotionBERT), itself after Mao et al., "Masked Motion
    Predictors are Strong 3D Action Representation Learners", ICCV 2023: learned time and joint embeddings, pre-norm
    blocks, mean of all tokens.

    pool: "mean", as published, or "mean-max": the head sees the mean and the maximum of the tokens, so that a short
    movement of one joint is not lost among all that stay; embed_std: standard deviation of both embeddings at the
    start, 0.02 as published.

    Changed: padded frames are masked; another number of frames interpolates the time embedding instead of failing; the
    volume is read as it lies in memory (the study moved 10 MB a clip to put the map last). Temporal shift belongs to
    the recipe, and there it shifts time: the study's rolled the joints.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        num_joints: int = 17,
        maps: int = 1,
        num_frames: int = 48,
        map_size: int = 56,
        patch_frames: int = 4,
        width: int = 256,
        depth: int = 8,
        heads: int = 8,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        drop_path: float = 0.0,
        layer_norm_eps: float = 1e-5,
        pool: Pool = "mean",
        embed_std: float = 0.02,
    ) -> None:
        super().__init__()
        if num_frames % patch_frames:
            raise UserError(
                f"A token holds {patch_frames} frames, and {num_frames} frames are no multiple of that. Change "
                "input.frames, or sizes.patch_frames."
            )
        if num_joints % maps:
            raise UserError(f"{num_joints} channels are no multiple of {maps} maps a joint.")
        if pool not in get_args(Pool):
            raise UserError(f"Tokens are pooled by one of {', '.join(get_args(Pool))}, and pool is {pool!r}.")
        if not 0 <= embed_std < math.inf:
            raise UserError(f"embed_std is a standard deviation, 0 or more, and came as {embed_std!r}.")
        self.num_joints = num_joints
        self.maps = maps
        self.map_size = map_size
        self.patch_frames = patch_frames
        self.pool = pool
        self.embed = nn.Linear(maps * patch_frames * map_size * map_size, width)
        self.time_embed = nn.Parameter(torch.zeros(num_frames // patch_frames, width))
        self.joint_embed = nn.Parameter(torch.zeros(num_joints // maps, width))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(
                width,
                heads,
                int(width * mlp_ratio),
                dropout=dropout,
                attention_dropout=attention_dropout,
                drop_path=rate,
                layer_norm_eps=layer_norm_eps,
            )
            for rate in drop_path_rates(drop_path, depth)
        )
        self.norm = nn.LayerNorm(width, eps=layer_norm_eps)
        self.head = nn.Linear(2 * width if pool == "mean-max" else width, num_classes)
        init_transformer(self)
        nn.init.trunc_normal_(self.time_embed, std=embed_std)
        nn.init.trunc_normal_(self.joint_embed, std=embed_std)

    def forward(self, clip: Tensor, frame_valid: Tensor | None = None) -> Tensor:
        """Class logits (B, num_classes)."""
        return self.head(self.features(clip, frame_valid))

    def features(self, clip: Tensor, frame_valid: Tensor | None = None) -> Tensor:
        """What the head sees: the normalized tokens of valid frames pooled, (B, width), or (B, 2 · width)."""
        batch, joints, frames, height, width = clip.shape
        if joints != self.num_joints or (height, width) != (self.map_size, self.map_size) or frames % self.patch_frames:
            raise UserError(
                f"This model reads {self.num_joints} joints on maps of {self.map_size} x {self.map_size}, "
                f"{self.patch_frames} frames a token, "
                f"and got {joints} joints, {frames} frames, maps of {height} x {width}. Render the heatmaps at that "
                "size, or build the model for these."
            )
        steps = frames // self.patch_frames
        mask = None
        if frame_valid is not None:
            clip = clip * frame_valid[:, None, :, None, None]
            seen = frame_valid.view(batch, steps, self.patch_frames).any(2)
            seen = seen | ~seen.any(1, keepdim=True)
            each = joints // self.maps
            mask = seen.unsqueeze(1).expand(-1, each, -1).reshape(batch, 1, 1, each * steps)
        x = clip.reshape(batch, self.maps, joints // self.maps, steps, -1)
        x = self.embed(x.permute(0, 2, 3, 1, 4).flatten(3))
        x = x + self.joint_embed.unsqueeze(1) + resize_time(self.time_embed, steps)
        x = self.dropout(x.flatten(1, 2))
        for block in self.blocks:
            x = block(x, mask=mask)
        x = self.norm(x)
        valid = None if mask is None else mask[:, 0, 0, :, None]
        mean = x.mean(1) if valid is None else (x * valid).sum(1) / valid.sum(1)
        if self.pool == "mean":
            return mean
        most = (x if valid is None else x.masked_fill(~valid, -torch.inf)).amax(1)
        return torch.cat([mean, most], 1)
