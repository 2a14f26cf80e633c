"""ViViT: one transformer over all tubelets, or attention within each time step and then over the steps."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from actionprep.errors import UserError
from actionprep.training.models.attention import Activation, Block, init_transformer
from actionprep.training.models.tokens import Tubelets, pair, resize_space_time


class ViViT(nn.Module):
    """Frames or heatmap volumes → class logits: every tubelet attends to all others (ViViT model 1).

    Shapes: clip (B, C, T, H, W) float: RGB frames scaled to -1..1 (C = 3), or heatmap volumes in 0..1 (C = joints);
    returns (B, num_classes).

    Based on Arnab et al., "ViViT: A Video Vision Transformer", ICCV 2021. pool="cls" with activation="gelu_tanh"
    equals the ViViT of transformers; its weights load through their key map. pool="mean" is model 1 of the heatmap
    study (woringer404v/MotionBERT: 17 x 56 x 56 x 56 volumes, tubelets 8 x 8 x 8 or 4 x 8 x 8).

    Changes to the heatmap study: the second layer of the MLP is linear; with a GELU after it, the residual stream can
    only grow. Positions are interpolated to any clip. Channels are before time, as in all models here, not last.

    Args:
        num_classes: Number of classes.
        in_channels: Channels of the clip.
        num_frames: Frames that the learned positions are made for; they are interpolated to other clips.
        image_size: Frame size that the learned positions are made for.
        tubelet: Tubelet size (frames, height, width).
        width: Token width.
        depth: Number of blocks.
        heads: Attention heads.
        mlp_ratio: Width of the MLPs relative to `width`.
        pool: Input of the head: the mean of all tokens, or the class token ("cls").
        activation: Activation of the MLPs.
        dropout: Dropout of tokens and MLPs.
        attention_dropout: Dropout of attention weights.
        activate_output: Apply the activation after the second layer of the MLPs, as in the heatmap study.
        layer_norm_eps: Epsilon of the layer norms.
    """

    cls_token: nn.Parameter | None

    def __init__(
        self,
        *,
        num_classes: int,
        in_channels: int = 17,
        num_frames: int = 56,
        image_size: int | tuple[int, int] = 56,
        tubelet: tuple[int, int, int] = (8, 8, 8),
        width: int = 256,
        depth: int = 8,
        heads: int = 8,
        mlp_ratio: float = 4.0,
        pool: Literal["mean", "cls"] = "mean",
        activation: Activation = "gelu",
        dropout: float = 0.0,
        attention_dropout: float = 0.1,
        activate_output: bool = False,
        layer_norm_eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.tubelet = tubelet
        self.grid = _grid(num_frames, image_size, tubelet)
        self.patch_embed = Tubelets(in_channels, width, tubelet)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width)) if pool == "cls" else None
        num_tokens = self.grid[0] * self.grid[1] * self.grid[2] + (pool == "cls")
        self.pos_embed = nn.Parameter(torch.zeros(1, num_tokens, width))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(
                width,
                heads,
                int(width * mlp_ratio),
                activation=activation,
                dropout=dropout,
                attention_dropout=attention_dropout,
                activate_output=activate_output,
                layer_norm_eps=layer_norm_eps,
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width, eps=layer_norm_eps)
        self.head = nn.Linear(width, num_classes)
        init_transformer(self)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def forward(self, clip: Tensor) -> Tensor:
        """Return class logits (B, num_classes)."""
        return self.head(self.features(clip))

    def features(self, clip: Tensor) -> Tensor:
        """Return the input of the head: the normalized class token, or the mean of the normalized tokens, (B, width)."""
        x = self.patch_embed(clip)
        batch, t, h, w, _ = x.shape
        extra = 0 if self.cls_token is None else 1
        positions = resize_space_time(self.pos_embed[0, extra:].unflatten(0, self.grid), (t, h, w))
        x = (x + positions).flatten(1, 3)
        if self.cls_token is not None:
            x = torch.cat([(self.cls_token + self.pos_embed[:, :1]).expand(batch, -1, -1), x], 1)
        x = self.dropout(x)
        for block in self.blocks[:-1]:
            x = block(x)
        if self.cls_token is None:
            return self.norm(self.blocks[-1](x)).mean(1)
        return self.norm(self.blocks[-1](x, keep=1)[:, 0])


class FactorizedViViT(nn.Module):
    """Heatmap volumes or frames → class logits: attention within each time step, then over the steps (ViViT model 2).

    Shapes: clip (B, C, T, H, W) float, heatmap volumes in 0..1 (C = joints); returns (B, num_classes).

    Based on Arnab et al., ICCV 2021, model 2, at the size of the heatmap study (woringer404v/MotionBERT): 8 + 8 blocks,
    heads as wide as the model, MLP with ReLU.

    Changes: attention is factorized: the first stack attends within one step, and the second attends over the means of
    the steps. In the code of the study, the reshape between the stacks has no effect, so all tokens attend to all
    tokens in 16 layers.

    Args:
        num_classes: Number of classes.
        in_channels: Channels of the clip.
        num_frames: Frames that the learned positions are made for; they are interpolated to other clips.
        image_size: Frame size that the learned positions are made for.
        tubelet: Tubelet size (frames, height, width).
        width: Token width.
        depth: Blocks of each stack.
        heads: Attention heads.
        head_width: Width of one head.
        mlp_ratio: Width of the MLPs relative to `width`.
        dropout: Dropout of the MLPs.
        attention_dropout: Dropout of attention weights.
        factorised: False reproduces the code of the study, with the same parameters.
        layer_norm_eps: Epsilon of the layer norms.
    """

    stacks: ClassVar[tuple[tuple[str, ...], ...]] = (("blocks",), ("time_blocks",))

    def __init__(
        self,
        *,
        num_classes: int,
        in_channels: int = 17,
        num_frames: int = 56,
        image_size: int | tuple[int, int] = 56,
        tubelet: tuple[int, int, int] = (8, 8, 8),
        width: int = 256,
        depth: int = 8,
        heads: int = 8,
        head_width: int | None = 256,
        mlp_ratio: float = 4.0,
        dropout: float = 0.1,
        attention_dropout: float = 0.1,
        factorised: bool = True,
        layer_norm_eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.tubelet = tubelet
        self.grid = _grid(num_frames, image_size, tubelet)
        self.factorised = factorised
        self.patch_embed = Tubelets(in_channels, width, tubelet)
        self.pos_embed = nn.Parameter(torch.zeros(1, self.grid[0] * self.grid[1] * self.grid[2], width))

        def stack() -> nn.ModuleList:
            return nn.ModuleList(
                Block(
                    width,
                    heads,
                    int(width * mlp_ratio),
                    head_width=head_width,
                    activation="relu",
                    dropout=dropout,
                    attention_dropout=attention_dropout,
                    layer_norm_eps=layer_norm_eps,
                )
                for _ in range(depth)
            )

        self.blocks = stack()
        self.time_blocks = stack()
        self.head = nn.Linear(width, num_classes)
        init_transformer(self)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def forward(self, clip: Tensor) -> Tensor:
        """Return class logits (B, num_classes)."""
        return self.head(self.features(clip))

    def features(self, clip: Tensor) -> Tensor:
        """Return the input of the head: the mean over the steps (over all tokens if not factorized), (B, width)."""
        x = self.patch_embed(clip)
        batch, t, h, w, _ = x.shape
        x = x + resize_space_time(self.pos_embed[0].unflatten(0, self.grid), (t, h, w))
        x = x.view(batch * t, h * w, -1) if self.factorised else x.flatten(1, 3)
        for block in self.blocks:
            x = block(x)
        if self.factorised:
            x = x.mean(1).unflatten(0, (batch, t))
        for block in self.time_blocks:
            x = block(x)
        return x.mean(1)


def _grid(num_frames: int, image_size: int | tuple[int, int], tubelet: tuple[int, int, int]) -> tuple[int, int, int]:
    size = (num_frames, *pair(image_size))
    if any(s % k for s, k in zip(size, tubelet, strict=True)):
        raise UserError(
            f"num_frames and image_size must be multiples of the tubelet of {tubelet[0]} frames x {tubelet[1]} x "
            f"{tubelet[2]} pixels, got {size[0]} frames of {size[1]} x {size[2]}. Change the frame count, the size or the "
            "tubelet."
        )
    return size[0] // tubelet[0], size[1] // tubelet[1], size[2] // tubelet[2]
