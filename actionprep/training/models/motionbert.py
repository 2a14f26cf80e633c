"""MotionBERT: two transformer streams over joints and time, on keypoints or on heatmaps."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from actionprep.errors import UserError
from actionprep.training.models.attention import Attention, DropPath, Mlp, drop_path_rates, init_transformer
from actionprep.training.models.tokens import resize_time


class MotionBERT(nn.Module):
    """Keypoints of a few persons → class logits.

    Shapes: keypoints (B, M, T, K, 2) float, x and y in -1..1, with score (B, M, T, K); or keypoints (B, M, T, K,
    channels) without score; frame_valid (B, T) bool or None; person_valid (B, M) bool or None (a person with only
    zeros is absent); returns (B, num_classes).

    Based on Zhu et al., "MotionBERT", ICCV 2023: DSTformer and the action head. State-dict keys are those of the
    published weights; their joints are in the order of Human3.6M.

    Changes: absent persons are excluded from the mean over persons (the original pads to two persons and includes the
    empty one). Any number of persons. Padded frames are masked. Dropout acts on the averages. A training batch of one
    does not fail. The head that reconstructs inputs (`backbone.head`) is kept, frozen, because the published weights
    and counts include it.

    Args:
        num_classes: Number of classes.
        num_joints: Number of joints.
        num_frames: Length of the time embedding. Shorter clips use its beginning; for longer clips it is interpolated.
        channels: Values per joint, including the score.
        width: Token width.
        depth: Number of layers.
        heads: Attention heads.
        mlp_ratio: Width of the MLPs relative to `width`.
        representation: Width of the representation of a joint.
        hidden: Hidden width of the action head.
        dropout: Dropout of the action head.
        drop_path: Stochastic depth of the last layer.
        average_absent: Include absent persons in the mean, as the published action weights expect.
        layer_norm_eps: Epsilon of the layer norms.
    """

    stacks: ClassVar[tuple[tuple[str, ...], ...]] = (("backbone.blocks_st", "backbone.blocks_ts", "backbone.ts_attn"),)

    def __init__(
        self,
        *,
        num_classes: int,
        num_joints: int = 17,
        num_frames: int = 243,
        channels: int = 3,
        width: int = 512,
        depth: int = 5,
        heads: int = 8,
        mlp_ratio: float = 2.0,
        representation: int = 512,
        hidden: int = 2048,
        dropout: float = 0.5,
        drop_path: float = 0.0,
        average_absent: bool = False,
        layer_norm_eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.average_absent = average_absent
        self.backbone = DSTformer(
            channels=channels,
            num_joints=num_joints,
            num_frames=num_frames,
            width=width,
            depth=depth,
            heads=heads,
            mlp_ratio=mlp_ratio,
            representation=representation,
            drop_path=drop_path,
            layer_norm_eps=layer_norm_eps,
        )
        self.head = _ActionHead(num_joints * representation, hidden, num_classes, dropout)

    def forward(
        self,
        keypoints: Tensor,
        score: Tensor | None = None,
        frame_valid: Tensor | None = None,
        person_valid: Tensor | None = None,
    ) -> Tensor:
        """Return class logits (B, num_classes)."""
        joints, channels = self.backbone.num_joints, self.backbone.channels
        if score is not None and keypoints.shape[-1] == channels - 1:
            keypoints = torch.cat([keypoints, score.unsqueeze(-1)], -1)
        if keypoints.ndim != 5 or keypoints.shape[3:] != (joints, channels):
            raise UserError(
                f"Expected keypoints (batch, persons, frames, {joints} joints, {channels} values), or one value less with a "
                f"separate score, got {tuple(keypoints.shape)}. Use the joint set that the model was built for, or change "
                "num_joints and channels."
            )
        return self.head(self.features(keypoints, frame_valid, person_valid))

    def features(self, tokens: Tensor, frame_valid: Tensor | None = None, person_valid: Tensor | None = None) -> Tensor:
        """Return the input of the head: the mean over valid frames and present persons, (B, K * representation)."""
        batch, persons = tokens.shape[:2]
        if frame_valid is not None:
            frame_valid = frame_valid | ~frame_valid.any(1, keepdim=True)
            tokens = tokens * frame_valid[:, None, :, None, None]
        if person_valid is None:
            person_valid = (tokens != 0).flatten(2).any(2)
        mask = None if frame_valid is None else frame_valid.repeat_interleave(persons, 0)
        x = self.backbone.represent(tokens.flatten(0, 1), mask).unflatten(0, (batch, persons))
        if frame_valid is None:
            x = x.mean(2)
        else:
            weight = frame_valid[:, None, :, None, None].to(x.dtype)
            x = (x * weight).sum(2) / weight.sum(2)
        if self.average_absent:
            return x.mean(1).flatten(1)
        seen = (person_valid | ~person_valid.any(1, keepdim=True))[:, :, None, None].to(x.dtype)
        return ((x * seen).sum(1) / seen.sum(1)).flatten(1)


class HeatmapMotionBERT(MotionBERT):
    """Heatmap volumes → class logits; a token is the flattened map of one joint at one frame.

    Shapes: clip (B, K, T, H, W) float in 0..1 with H = W = map_size, or (B, M, K, T, H, W) with one volume per person;
    frame_valid (B, T) bool or None; person_valid (B, M) bool or None; returns (B, num_classes).

    Based on the heatmap study (woringer404v/MotionBERT) at its published size. Changes, in addition to those of
    `MotionBERT`: each person can keep a separate volume (the study merged them). Any number of frames (the script of
    the study asks for 120 where its configuration allows 48).

    Args:
        num_classes: Number of classes.
        map_size: Height and width of a map.
        num_frames: Length of the time embedding.
        **sizes: Other arguments of `MotionBERT`.
    """

    def __init__(self, *, num_classes: int, map_size: int = 56, num_frames: int = 48, **sizes: Any) -> None:
        super().__init__(num_classes=num_classes, num_frames=num_frames, channels=map_size * map_size, **sizes)
        self.map_size = map_size

    def forward(  # type: ignore[override]
        self, clip: Tensor, frame_valid: Tensor | None = None, person_valid: Tensor | None = None
    ) -> Tensor:
        """Return class logits (B, num_classes)."""
        if clip.ndim == 5:
            clip = clip.unsqueeze(1)
        joints, size = self.backbone.num_joints, self.map_size
        if clip.shape[2] != joints or clip.shape[4:] != (size, size):
            raise UserError(
                f"Expected heatmaps of {joints} joints on maps of {size} x {size}, got {tuple(clip.shape)}. Render them at "
                "that size, or change num_joints and map_size of the model."
            )
        return self.head(self.features(self.tokens(clip), frame_valid, person_valid))

    def tokens(self, clip: Tensor) -> Tensor:
        """Rearrange (B, M, K, T, H, W) to tokens (B, M, T, K, H * W)."""
        return clip.flatten(4).transpose(2, 3)


class DSTformer(nn.Module):
    """The dual-stream backbone of MotionBERT.

    Shapes: `represent` maps (B, T, K, C) to (B, T, K, representation); `forward` maps it back to (B, T, K, C).

    Each layer runs a space → time block and a time → space block on the same input and mixes them with two weights per
    token.
    """

    def __init__(
        self,
        *,
        channels: int,
        num_joints: int,
        num_frames: int,
        width: int,
        depth: int,
        heads: int,
        mlp_ratio: float,
        representation: int,
        drop_path: float,
        layer_norm_eps: float,
    ) -> None:
        super().__init__()
        self.channels = channels
        self.num_joints = num_joints
        self.joints_embed = nn.Linear(channels, width)
        self.pos_embed = nn.Parameter(torch.zeros(1, num_joints, width))
        self.temp_embed = nn.Parameter(torch.zeros(1, num_frames, 1, width))
        rates = drop_path_rates(drop_path, depth)
        hidden = int(width * mlp_ratio)
        self.blocks_st = nn.ModuleList(_TwoWayBlock(width, heads, hidden, "space", p, layer_norm_eps) for p in rates)
        self.blocks_ts = nn.ModuleList(_TwoWayBlock(width, heads, hidden, "time", p, layer_norm_eps) for p in rates)
        mixes = [nn.Linear(2 * width, 2) for _ in range(depth)]
        self.ts_attn = nn.ModuleList(mixes)
        self.norm = nn.LayerNorm(width, eps=layer_norm_eps)
        self.pre_logits = nn.ModuleDict({"fc": nn.Linear(width, representation)})
        self.head = nn.Linear(representation, channels)
        init_transformer(self)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.trunc_normal_(self.temp_embed, std=0.02)
        for mix in mixes:
            nn.init.zeros_(mix.weight)
            nn.init.constant_(mix.bias, 0.5)
        self.head.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruct the inputs (B, T, K, C) from their representations."""
        return self.head(self.represent(x))

    def represent(self, x: Tensor, frame_valid: Tensor | None = None) -> Tensor:
        """Return representations (B, T, K, representation); frame_valid (B, T) masks padded frames in the attention."""
        frames = x.shape[1]
        times = (
            self.temp_embed[0, :frames]
            if frames <= self.temp_embed.shape[1]
            else resize_time(self.temp_embed[0], frames)
        )
        x = self.joints_embed(x) + self.pos_embed + times
        mask = None if frame_valid is None else frame_valid[:, None, None, :]
        for st, ts, mix in zip(self.blocks_st, self.blocks_ts, self.ts_attn, strict=True):
            x_st, x_ts = st(x, mask), ts(x, mask)
            alpha = mix(torch.cat([x_st, x_ts], -1)).softmax(-1)
            x = x_st * alpha[..., :1] + x_ts * alpha[..., 1:]
        return torch.tanh(self.pre_logits["fc"](self.norm(x)))


class _TwoWayBlock(nn.Module):
    """Attention over joints and over time, each with its MLP; `first` is "space" or "time": (B, T, K, D) → same."""

    def __init__(
        self, width: int, heads: int, hidden: int, first: str, drop_path: float, layer_norm_eps: float
    ) -> None:
        super().__init__()
        self.first = first
        self.norm1_s = nn.LayerNorm(width, eps=layer_norm_eps)
        self.norm1_t = nn.LayerNorm(width, eps=layer_norm_eps)
        self.attn_s = Attention(width, heads)
        self.attn_t = Attention(width, heads)
        self.norm2_s = nn.LayerNorm(width, eps=layer_norm_eps)
        self.norm2_t = nn.LayerNorm(width, eps=layer_norm_eps)
        self.mlp_s = Mlp(width, hidden)
        self.mlp_t = Mlp(width, hidden)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        if self.first == "space":
            return self._over_time(self._over_joints(x), mask)
        return self._over_joints(self._over_time(x, mask))

    def _over_joints(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attn_s(self.norm1_s(x).flatten(0, 1)).unflatten(0, x.shape[:2]))
        return x + self.drop_path(self.mlp_s(self.norm2_s(x)))

    def _over_time(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = x + self.drop_path(self.attn_t.along_time(self.norm1_t(x), mask=mask))
        return x + self.drop_path(self.mlp_t(self.norm2_t(x)))


class _ActionHead(nn.Module):
    """Dropout, linear, batch norm, ReLU, linear: (B, features) → (B, num_classes)."""

    def __init__(self, features: int, hidden: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.fc1 = nn.Linear(features, hidden)
        self.bn = nn.BatchNorm1d(hidden)
        self.fc2 = nn.Linear(hidden, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc1(self.dropout(x))
        if self.training and x.shape[0] == 1:
            # One sample has no variance: use the running statistics and do not update them.
            bn = self.bn
            x = F.batch_norm(x, bn.running_mean, bn.running_var, bn.weight, bn.bias, False, 0.0, bn.eps)
        else:
            x = self.bn(x)
        return self.fc2(F.relu(x))
