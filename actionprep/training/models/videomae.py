"""VideoMAE: a plain ViT over tubelets, with fixed positions for any frame count."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from actionprep.errors import UserError
from actionprep.training.models.attention import Block, drop_path_rates, init_transformer
from actionprep.training.models.tokens import Tubelets, pair, resize_space_time, sincos_positions


class VideoMAE(nn.Module):
    """Frames of a clip → class logits.

    Shapes: clip (B, C, T, H, W) float, RGB, normalized with ImageNet's mean and standard deviation of the 0..1 range;
    returns (B, num_classes). If T is not a multiple of the tubelet, the last frame is repeated.

    Based on Tong et al., "VideoMAE", NeurIPS 2022. State-dict keys are those of the published weights; weights saved by
    transformers load through their key map.

    Changes: the position table is independent of the frame count. No frame of an odd count is lost. Query and value
    biases always exist (the gesture study that fine-tuned VideoMAE discarded the pretrained ones and the
    normalization).

    Args:
        num_classes: Number of classes.
        num_frames: Frames that the sine-cosine table is made for. Keep that of the weights (16); the table is
            interpolated linearly to other clips.
        image_size: Frame size that the table is made for. Keep that of the weights (224); the table is interpolated
            bicubically to other clips.
        patch_size: Height and width of a tubelet.
        tubelet_frames: Frames of a tubelet.
        in_channels: Color channels.
        width: Token width.
        depth: Number of blocks.
        heads: Attention heads.
        mlp_ratio: Width of the MLPs relative to `width`.
        dropout: Dropout of the MLPs.
        attention_dropout: Dropout of attention weights.
        drop_path: Stochastic depth of the last block.
        layer_norm_eps: Epsilon of the layer norms.
    """

    positions: Tensor

    def __init__(
        self,
        *,
        num_classes: int,
        num_frames: int = 16,
        image_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        tubelet_frames: int = 2,
        in_channels: int = 3,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        drop_path: float = 0.1,
        layer_norm_eps: float = 1e-6,
    ) -> None:
        super().__init__()
        height, frame_width = pair(image_size)
        if num_frames % tubelet_frames or height % patch_size or frame_width % patch_size:
            raise UserError(
                f"num_frames and image_size must be multiples of the tubelet of {tubelet_frames} frames x {patch_size} x "
                f"{patch_size} pixels, got {num_frames} frames of {height} x {frame_width}. Set the sizes of the weights "
                "(16 frames, 224 pixels); positions are interpolated to other clips."
            )
        self.tubelet = (tubelet_frames, patch_size, patch_size)
        self.patch_embed = Tubelets(in_channels, width, self.tubelet)
        grid = (num_frames // tubelet_frames, height // patch_size, frame_width // patch_size)
        table = sincos_positions(grid[0] * grid[1] * grid[2], width)
        self.register_buffer("positions", table.view(*grid, width), persistent=False)
        self.blocks = nn.ModuleList(
            Block(
                width,
                heads,
                int(width * mlp_ratio),
                bias="query_value",
                dropout=dropout,
                attention_dropout=attention_dropout,
                drop_path=rate,
                layer_norm_eps=layer_norm_eps,
            )
            for rate in drop_path_rates(drop_path, depth)
        )
        self.fc_norm = nn.LayerNorm(width, eps=layer_norm_eps)
        self.head = nn.Linear(width, num_classes)
        init_transformer(self)

    def forward(self, clip: Tensor) -> Tensor:
        """Return class logits (B, num_classes)."""
        return self.head(self.features(clip))

    def features(self, clip: Tensor) -> Tensor:
        """Return the input of the head: the normalized mean of all tokens, (B, width)."""
        missing = -clip.shape[2] % self.tubelet[0]
        if missing:
            clip = torch.cat([clip, clip[:, :, -1:].expand(-1, -1, missing, -1, -1)], 2)
        x = self.patch_embed(clip)
        _, t, h, w, width = x.shape
        x = (x + resize_space_time(self.positions, (t, h, w)).to(x.dtype)).view(-1, t * h * w, width)
        for block in self.blocks:
            x = block(x)
        return self.fc_norm(x.mean(1))
