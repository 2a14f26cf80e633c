"""TimeSformer: a ViT with attention over time then space, over both jointly, or over space only."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from actionprep.errors import UserError
from actionprep.training.models.attention import Attention, Block, DropPath, Mlp, drop_path_rates, init_transformer
from actionprep.training.models.tokens import Tubelets, pair, resize_space, resize_time

SpaceTime = Literal["divided", "joint", "space"]
Pool = Literal["class", "mean-max"]
Start = Literal["image", "scratch"]


class TimeSformer(nn.Module):
    """Frames of a clip → class logits.

    Shapes: clip (B, C, T, H, W) float, RGB, normalized with mean 0.45 and standard deviation 0.225 of the 0..1 range;
    returns (B, num_classes).

    Based on Bertasius, Wang and Torresani, "Is Space-Time Attention All You Need for Video Understanding?", ICML 2021.
    State-dict keys are those of the published weights without their prefix `model.`.

    Changes: only the class head depends on the number of classes. The frame count is an ordinary argument (the
    published builder ignores it, so 16- and 96-frame weights do not load). Positions are interpolated in 2D (bicubic)
    and in time (linear), not by nearest neighbor over the flattened grid. Stochastic depth drops full clips. For
    speed, with the same logits: tokens stay in frame order, so attention over time needs no copy; its projection and
    `temporal_fc` are merged; the last block computes only the class token (8 % fewer operations).

    Args:
        num_classes: Number of classes.
        num_frames: Frames that the time embedding is made for; it is interpolated to other clips.
        image_size: Frame size that the position table is made for; it is interpolated to other clips.
        patch_size: Height and width of a patch.
        in_channels: Color channels.
        width: Token width.
        depth: Number of blocks.
        heads: Attention heads.
        mlp_ratio: Width of the MLPs relative to `width`.
        attention: "divided" (time, then space), "joint" (all tokens), or "space" (each frame separately; frames are
            averaged at the end).
        dropout: Dropout of tokens and MLPs.
        attention_dropout: Dropout of attention weights.
        drop_path: Stochastic depth of the last block.
        layer_norm_eps: Epsilon of the layer norms.
        pool: Input of the head: "class" (the class token, as published), or "mean-max" (mean and maximum of the other
            tokens).
        start: Initialization. "image", as published, is for pretrained image weights: small weights, and a time branch
            that outputs zero. "scratch" is for narrow models without pretrained weights: Xavier initialization, larger
            position embeddings, and an active time branch.
    """

    time_embed: nn.Parameter | None

    def __init__(
        self,
        *,
        num_classes: int,
        num_frames: int = 8,
        image_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        in_channels: int = 3,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        mlp_ratio: float = 4.0,
        attention: SpaceTime = "divided",
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        drop_path: float = 0.1,
        layer_norm_eps: float = 1e-6,
        pool: Pool = "class",
        start: Start = "image",
    ) -> None:
        super().__init__()
        if attention not in get_args(SpaceTime):
            raise UserError(f"attention must be 'divided', 'joint' or 'space', got {attention!r}.")
        if pool not in get_args(Pool):
            raise UserError(f"pool must be one of {', '.join(get_args(Pool))}, got {pool!r}.")
        if start not in get_args(Start):
            raise UserError(f"start must be one of {', '.join(get_args(Start))}, got {start!r}.")
        height, frame_width = pair(image_size)
        if height % patch_size or frame_width % patch_size:
            raise UserError(
                f"The frame size must be a multiple of the {patch_size} x {patch_size} patch, got {height} x {frame_width}. "
                "Change the image size or the patch size."
            )
        self.attention: SpaceTime = attention
        self.pool: Pool = pool
        self.start: Start = start
        self.patch_size = patch_size
        self.grid = (height // patch_size, frame_width // patch_size)
        self.patch_embed = Tubelets(in_channels, width, (1, patch_size, patch_size), flat=True)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.grid[0] * self.grid[1], width))
        self.time_embed = nn.Parameter(torch.zeros(1, num_frames, width)) if attention != "space" else None
        self.pos_drop = nn.Dropout(dropout)
        hidden = int(width * mlp_ratio)
        block_type = _DividedBlock if attention == "divided" else Block
        self.blocks = nn.ModuleList(
            block_type(
                width,
                heads,
                hidden,
                dropout=dropout,
                attention_dropout=attention_dropout,
                drop_path=rate,
                layer_norm_eps=layer_norm_eps,
            )
            for rate in drop_path_rates(drop_path, depth)
        )
        self.norm = nn.LayerNorm(width, eps=layer_norm_eps)
        self.head = nn.Linear(2 * width if pool == "mean-max" else width, num_classes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize all weights; start="image" zeroes the time branch, so that image weights work unchanged."""
        scratch = self.start == "scratch"
        init_transformer(self, start="xavier" if scratch else "normal")
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.3 if scratch else 0.02)
        if scratch:
            if self.time_embed is not None:
                nn.init.trunc_normal_(self.time_embed, std=0.3)
            return
        for block in self.blocks:
            if isinstance(block, _DividedBlock):
                nn.init.zeros_(block.temporal_fc.weight)
                nn.init.zeros_(block.temporal_fc.bias)

    def forward(self, clip: Tensor) -> Tensor:
        """Return class logits (B, num_classes)."""
        return self.head(self.features(clip))

    def features(self, clip: Tensor) -> Tensor:
        """Return the input of the head: the class token (B, width), or mean and maximum of the others (B, 2 · width)."""
        tokens = self.patch_embed(clip)
        batch, frames, rows, columns, _ = tokens.shape
        positions = resize_space(self.pos_embed[0, 1:].unflatten(0, self.grid), (rows, columns)).flatten(0, 1)
        if self.time_embed is not None:
            positions = positions + resize_time(self.time_embed[0], frames).unsqueeze(1)
        x = self.pos_drop(tokens.flatten(2, 3) + positions)
        cls = self.pos_drop(self.cls_token + self.pos_embed[:, :1]).expand(batch, -1, -1)
        if self.attention == "divided":
            for block in self.blocks[:-1]:
                cls, x = block(cls, x)
            cls, x = self.blocks[-1](cls, x, last=self.pool == "class")
        elif self.attention == "joint":
            cls, x = self._attend(torch.cat([cls, x.flatten(1, 2)], 1))
        else:
            cls, x = self._attend(torch.cat([cls.unsqueeze(1).expand(-1, frames, -1, -1), x], 2).flatten(0, 1))
            cls, x = cls.unflatten(0, (batch, frames)).mean(1), x.unflatten(0, (batch, frames))
        if self.pool == "class":
            return self.norm(cls[:, 0])
        # The frame axis is still separate with divided and with space attention.
        x = self.norm(x.flatten(1, -2))
        return torch.cat([x.mean(1), x.amax(1)], 1)

    def _attend(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Apply all blocks; the last one computes only the tokens that the head reads. Returns class token and others."""
        for block in self.blocks[:-1]:
            x = block(x)
        x = self.blocks[-1](x, keep=1 if self.pool == "class" else None)
        return x[:, :1], x[:, 1:]


class _DividedBlock(nn.Module):
    """Attention over time, then over space with the class token in every frame, then the MLP.

    Shapes: cls (B, 1, D), x (B, T, P, D); returns both. The two residual streams stay contiguous; only the normalized
    inputs are concatenated.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int,
        *,
        dropout: float,
        attention_dropout: float,
        drop_path: float,
        layer_norm_eps: float,
    ) -> None:
        super().__init__()
        self.temporal_norm1 = nn.LayerNorm(width, eps=layer_norm_eps)
        self.temporal_attn = Attention(width, heads, dropout=attention_dropout)
        self.temporal_fc = nn.Linear(width, width)
        self.norm1 = nn.LayerNorm(width, eps=layer_norm_eps)
        self.attn = Attention(width, heads, dropout=attention_dropout)
        self.norm2 = nn.LayerNorm(width, eps=layer_norm_eps)
        self.mlp = Mlp(width, hidden, dropout=dropout)
        self.drop_path = DropPath(drop_path)

    def forward(self, cls: Tensor, x: Tensor, *, last: bool = False) -> tuple[Tensor, Tensor]:
        """Return both streams; with `last`, only the class token is computed."""
        batch, frames, places, _ = x.shape
        x = self._over_time(x)
        in_frames = self._in_frames(cls, x)
        if last:
            out = self.attn(in_frames, keep=1).unflatten(0, (batch, frames))
            cls = cls + self.drop_path(out).mean(1)
            return cls + self.drop_path(self.mlp(self.norm2(cls))), x
        out = self.drop_path(self.attn(in_frames).unflatten(0, (batch, frames)))
        out_cls, out_x = out.split([1, places], 2)
        cls, x = cls + out_cls.mean(1), x + out_x
        out = self.drop_path(self.mlp(torch.cat([self.norm2(cls), self.norm2(x).flatten(1, 2)], 1)))
        out_cls, out_x = out.split([1, frames * places], 1)
        return cls + out_cls, x + out_x.unflatten(1, (frames, places))

    def _over_time(self, x: Tensor) -> Tensor:
        return x + self.drop_path(self.temporal_attn.along_time(self.temporal_norm1(x), then=self.temporal_fc))

    def _in_frames(self, cls: Tensor, x: Tensor) -> Tensor:
        """Prepend a copy of the class token to the normalized tokens of each frame: (B * T, 1 + P, D)."""
        copies = self.norm1(cls).unsqueeze(1).expand(-1, x.shape[1], -1, -1)
        return torch.cat([copies, self.norm1(x)], 2).flatten(0, 1)
