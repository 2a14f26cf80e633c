"""ViViT: all tubelets of a clip in one transformer, or first those of each time step and then the steps."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from actionprep.errors import UserError
from actionprep.training.models.attention import Activation, Block, init_transformer
from actionprep.training.models.tokens import Tubelets, pair, resize_space_time


class ViViT(nn.Module):
    """Frames or heatmap volumes → class logits, every tubelet attending to every other (ViViT model 1).

    clip (B, C, T, H, W) float: frames in RGB scaled to -1..1 (C = 3), or heatmap volumes in 0..1 (C = joints) → (B,
    num_classes).

    Arnab et al., "ViViT: A Video Vision Transformer", ICCV 2021. pool="cls" with activation="gelu_tanh" equals
    transformers' ViViT, whose weights load through their key map. pool="mean" is the heatmap study's model 1
    (woringer404v/MotionBERT: 17 x 56 x 56 x 56 volumes, tubelets 8 x 8 x 8 or 4 x 8 x 8).

    num_frames and image_size are what the learned positions are made for; other clips get them interpolated in space
    and time.

    Changed from the heatmap study: the MLP's second layer is linear (a GELU behind it, activate_output=True, lets the
    residual stream only grow); positions fit any length. It is built for (B, C, T, H, W) like every model here, not
    for channels last.
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
        places = self.grid[0] * self.grid[1] * self.grid[2] + (pool == "cls")
        self.pos_embed = nn.Parameter(torch.zeros(1, places, width))
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
        """Class logits (B, num_classes)."""
        return self.head(self.features(clip))

    def features(self, clip: Tensor) -> Tensor:
        """What the head sees: the normalized class token, or the mean of the normalized tokens, (B, width)."""
        x = self.patch_embed(clip)
        batch, t, h, w, _ = x.shape
        extra = 0 if self.cls_token is None else 1
        places = resize_space_time(self.pos_embed[0, extra:].unflatten(0, self.grid), (t, h, w))
        x = (x + places).flatten(1, 3)
        if self.cls_token is not None:
            x = torch.cat([(self.cls_token + self.pos_embed[:, :1]).expand(batch, -1, -1), x], 1)
        x = self.dropout(x)
        for block in self.blocks[:-1]:
            x = block(x)
        if self.cls_token is None:
            return self.norm(self.blocks[-1](x)).mean(1)
        return self.norm(self.blocks[-1](x, keep=1)[:, 0])


class FactorisedViViT(nn.Module):
    """Heatmap volumes or frames → class logits: attention within each time step, then over the steps (ViViT model 2).

    clip (B, C, T, H, W) float, heatmap volumes in 0..1 (C = joints) → (B, num_classes).

    Arnab et al., ICCV 2021, model 2, in the sizes of the heatmap study (woringer404v/MotionBERT): 8 + 8 blocks, heads
    as wide as the model, MLP with ReLU.

    Changed: it is factorised. The published one reshapes between the two stacks to no effect, so that all tokens
    attend to all in 16 layers; here the first stack sees one step's tokens, their mean goes on, and the second stack
    sees the steps. factorised=False is what was published, with the same parameters.
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
        """Class logits (B, num_classes)."""
        return self.head(self.features(clip))

    def features(self, clip: Tensor) -> Tensor:
        """What the head sees: the mean over the steps (all tokens where not factorised), (B, width)."""
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
            f"ViViT cuts clips into tubelets of {tubelet[0]} frames x {tubelet[1]} x {tubelet[2]}, and {size[0]} "
            f"frames of {size[1]} x {size[2]} are no multiple of that. Choose another frame count, size or tubelet."
        )
    return size[0] // tubelet[0], size[1] // tubelet[1], size[2] // tubelet[2]
