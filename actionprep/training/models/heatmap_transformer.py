"""A plain transformer; a token is a few frames of one joint's heatmap."""

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

    Shapes: clip (B, K, T, H, W) float in 0..1 with K joints, frame_valid (B, T) bool or None; returns (B,
    num_classes). T must be a multiple of `patch_frames`. A token is `patch_frames` frames of one joint's H x W map: (T
    / patch_frames) * K tokens.

    Based on the "vanilla" transformer of the heatmap study (woringer404v/MotionBERT), itself after Mao et al., "Masked
    Motion Predictors are Strong 3D Action Representation Learners", ICCV 2023: learned time and joint embeddings,
    pre-norm blocks, mean of all tokens.

    Changes: padded frames are masked. The time embedding is interpolated to other frame counts instead of failing. The
    volume is read in its memory layout (the study copied 10 MB per clip to move the map to the end). Temporal shift is
    part of the recipe and shifts time (the study rolled the joints).

    Args:
        num_classes: Number of classes.
        num_joints: Number of channels of the clip.
        maps: Heatmaps per joint; num_joints must be a multiple.
        num_frames: Frames that the time embedding is made for.
        map_size: Height and width of a map.
        patch_frames: Frames per token.
        width: Token width.
        depth: Number of blocks.
        heads: Attention heads.
        mlp_ratio: Width of the MLP relative to `width`.
        dropout: Dropout of tokens and MLPs.
        attention_dropout: Dropout of attention weights.
        drop_path: Stochastic depth of the last block.
        layer_norm_eps: Epsilon of the layer norms.
        pool: "mean", as published, or "mean-max": the head reads mean and maximum of the tokens, so that a short
            movement of one joint is not averaged out.
        embed_std: Initial standard deviation of both embeddings; published: 0.02.
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
                f"The number of frames must be a multiple of the {patch_frames} frames per token, got {num_frames}. Change "
                "input.frames or sizes.patch_frames."
            )
        if num_joints % maps:
            raise UserError(
                f"The number of channels must be a multiple of the {maps} maps per joint, got {num_joints}."
            )
        if pool not in get_args(Pool):
            raise UserError(f"pool must be one of {', '.join(get_args(Pool))}, got {pool!r}.")
        if not 0 <= embed_std < math.inf:
            raise UserError(f"embed_std must be a finite standard deviation of 0 or more, got {embed_std!r}.")
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
        """Return class logits (B, num_classes)."""
        return self.head(self.features(clip, frame_valid))

    def features(self, clip: Tensor, frame_valid: Tensor | None = None) -> Tensor:
        """Return the input of the head: pooled tokens of valid frames, (B, width), or (B, 2 · width) for "mean-max"."""
        batch, joints, frames, height, width = clip.shape
        if joints != self.num_joints or (height, width) != (self.map_size, self.map_size) or frames % self.patch_frames:
            raise UserError(
                f"Expected {self.num_joints} joints, maps of {self.map_size} x {self.map_size} and a multiple of "
                f"{self.patch_frames} frames, got {joints} joints, {frames} frames and maps of {height} x {width}. Render "
                "the heatmaps at the expected size, or build the model for this size."
            )
        steps = frames // self.patch_frames
        mask = None
        if frame_valid is not None:
            clip = clip * frame_valid[:, None, :, None, None]
            seen = frame_valid.view(batch, steps, self.patch_frames).any(2)
            seen = seen | ~seen.any(1, keepdim=True)
            num_joints = joints // self.maps
            mask = seen.unsqueeze(1).expand(-1, num_joints, -1).reshape(batch, 1, 1, num_joints * steps)
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
        maximum = (x if valid is None else x.masked_fill(~valid, -torch.inf)).amax(1)
        return torch.cat([mean, maximum], 1)
