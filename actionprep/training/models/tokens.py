"""Tubelet projection, and position tables for any frame count and frame size."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from actionprep.errors import UserError


class Tubelets(nn.Module):
    """Cut clips into tubelets and project each: a convolution with stride = kernel, as one matrix product.

    Shapes: clip (B, C, T, H, W); returns (B, T / kt, H / kh, W / kw, width).

    Args:
        channels: Channels C of the clip.
        width: Token width.
        tubelet: Tubelet size (kt, kh, kw).
        flat: Store the weight of a 2D convolution, for tubelets of one frame.
    """

    def __init__(self, channels: int, width: int, tubelet: tuple[int, int, int], *, flat: bool = False) -> None:
        super().__init__()
        self.tubelet = tubelet
        self.proj: nn.Conv2d | nn.Conv3d
        if flat:
            self.proj = nn.Conv2d(channels, width, tubelet[1:], tubelet[1:])
        else:
            self.proj = nn.Conv3d(channels, width, tubelet, tubelet)

    def forward(self, clip: Tensor) -> Tensor:
        """Project a clip to tokens.

        Raises:
            UserError: If the clip is not a multiple of the tubelet.
        """
        batch, channels, frames, height, width = clip.shape
        kt, kh, kw = self.tubelet
        if frames % kt or height % kh or width % kw:
            raise UserError(
                f"A clip must be a multiple of the tubelet of {kt} frames x {kh} x {kw} pixels, got {frames} frames of "
                f"{height} x {width}. Change the frame count or the crop size."
            )
        t, h, w = frames // kt, height // kh, width // kw
        cut = clip.reshape(batch, channels, t, kt, h, kh, w, kw)
        cut = cut.permute(0, 2, 4, 6, 1, 3, 5, 7).reshape(batch, t, h, w, channels * kt * kh * kw)
        return F.linear(cut, self.proj.weight.flatten(1), self.proj.bias)


def resize_space(table: Tensor, size: tuple[int, int]) -> Tensor:
    """Interpolate a position table (..., H, W, D) to another (H, W): bicubic, with anti-aliasing."""
    height, width, dim = table.shape[-3:]
    if (height, width) == size:
        return table
    flat = table.reshape(-1, height, width, dim).permute(0, 3, 1, 2).float()
    flat = F.interpolate(flat, size=size, mode="bicubic", align_corners=False, antialias=True)
    return flat.permute(0, 2, 3, 1).reshape(*table.shape[:-3], *size, dim).to(table.dtype)


def resize_time(table: Tensor, frames: int) -> Tensor:
    """Interpolate a position table (T, ..., D) linearly to another T; steps are equal parts of the clip."""
    if table.shape[0] == frames:
        return table
    flat = table.flatten(1).t().unsqueeze(0).float()
    flat = F.interpolate(flat, size=frames, mode="linear", align_corners=False)
    return flat[0].t().reshape(frames, *table.shape[1:]).to(table.dtype)


def resize_space_time(table: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """Interpolate a position table (T, H, W, D) to another (T, H, W): first space, then time."""
    return resize_time(resize_space(table, grid[1:]), grid[0])


def sincos_positions(length: int, dim: int) -> Tensor:
    """Compute the fixed sine-cosine table of shape (length, dim), with sines at even indices.

    References:
        Vaswani et al., "Attention Is All You Need", NeurIPS 2017, section 3.5.
    """
    index = torch.arange(dim)
    rate = torch.pow(10000.0, -2.0 * torch.div(index, 2, rounding_mode="floor").double() / dim)
    angle = torch.arange(length).double().unsqueeze(1) * rate
    return torch.where(index % 2 == 0, angle.sin(), angle.cos()).float()


def pair(size: int | tuple[int, int]) -> tuple[int, int]:
    """Return (height, width); an integer is a square."""
    return (size, size) if isinstance(size, int) else size
