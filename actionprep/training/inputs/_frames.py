"""Crop clips out of stored frames and change their colors, on the device of the frames.

All frames of a clip are changed alike.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

# Rounded BT.601 weights of red, green and blue in brightness.
LUMA = (0.299, 0.587, 0.114)


def motion_box(images: np.ndarray, *, margin: float = 0.15) -> tuple[float, float, float, float] | None:
    """Find a square around what moves in a clip.

    Changes from frame to frame above the noise are summed over the clip. The middle 96 % of the sum in x and in y form
    the box, which is then extended by `margin` of its side on all sides. It can extend beyond the frame.

    Args:
        images: Frames in temporal order, uint8 of shape (T, H, W, 3).
        margin: Margin as a share of the side.

    Returns:
        x0, y0, x1, y1 in pixels; None if nothing moves.
    """
    if len(images) < 2:
        return None
    gray = images.astype(np.float32) @ np.array(LUMA, np.float32)
    change = np.abs(np.diff(gray, axis=0))
    # Estimate the camera noise from pixels that do not move, which is most of them.
    noise = np.median(change, axis=(1, 2), keepdims=True)
    moving = np.clip(change - (4 * noise + 8), 0, 32).sum(axis=0)
    total = float(moving.sum())
    if total < 1e-3 * moving.size:
        return None
    ends = []
    for axis in (0, 1):
        cumulative = np.cumsum(moving.sum(axis=axis)) / total
        ends.append((int(np.searchsorted(cumulative, 0.02)), int(np.searchsorted(cumulative, 0.98)) + 1))
    (x0, x1), (y0, y1) = ends
    half = max(x1 - x0, y1 - y0, 8) / 2 * (1 + 2 * margin)
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    return x - half, y - half, x + half, y + half


def cut(
    images: Tensor,
    box: Tensor,
    size: int,
    *,
    angle: Tensor | None = None,
    mirrored: Tensor | None = None,
    within: Tensor | None = None,
) -> Tensor:
    """Crop a square out of each clip, the same in all frames, with bilinear interpolation.

    Frames that shrink to half their size or less are averaged over blocks first, to avoid aliasing. Channels after the
    third are rasters of single pixels and keep the maximum of each block.

    Args:
        images: Frames of shape (B, T, C, H, W).
        box: x0, y0, x1, y1 in pixels, shape (B, 4); pixel edges are whole numbers. Beyond the frame, its edge is
            repeated.
        size: Side of the result in pixels.
        angle: Rotation of the box about its center in rad, shape (B,).
        mirrored: Whether left and right are exchanged, bool (B,).
        within: Height and width of each frame, shape (B, 2), if frames are padded at the bottom and on the right.

    Returns:
        Clips of shape (B, C, T, size, size), float32.
    """
    batch, frames, channels, height, width = images.shape
    out = torch.empty(batch, channels, frames, size, size, device=images.device)
    if within is None:
        within = torch.tensor([[height, width]], device=images.device).expand(batch, 2)
    shrink = ((box[:, 2:] - box[:, :2]).amin(1) / size).clamp(min=1)
    level = shrink.log2().floor().long().clamp(max=4)
    for block_level in level.unique().tolist():
        samples = torch.nonzero(level == block_level)[:, 0]
        block = 2**block_level
        flat = images[samples].flatten(1, 2).float()
        if block > 1:
            # Padding must not be averaged into the edge of the frame.
            flat = _edge_repeated(flat, within[samples])
            flat = F.pad(flat, (0, -width % block, 0, -height % block), mode="replicate")
            pooled = F.avg_pool2d(flat, block)
            if channels > 3:
                pooled = pooled.unflatten(1, (frames, channels))
                rasters = flat.unflatten(1, (frames, channels))[:, :, 3:].flatten(0, 2)
                pooled[:, :, 3:] = F.max_pool2d(rasters, block).view_as(pooled[:, :, 3:])
                pooled = pooled.flatten(1, 2)
            flat = pooled
        grid = _grid(
            box[samples] / block,
            size,
            flat.shape[-2:],
            within[samples] / block,
            None if angle is None else angle[samples],
            None if mirrored is None else mirrored[samples],
        )
        squares = F.grid_sample(flat, grid, mode="bilinear", padding_mode="border", align_corners=False)
        out[samples] = squares.unflatten(1, (frames, channels)).transpose(1, 2)
    return out


def recolored(clip: Tensor, *, brightness: Tensor, contrast: Tensor, saturation: Tensor, gray: Tensor) -> Tensor:
    """Change the colors of clips, equally in all frames.

    Args:
        clip: Clips of shape (B, 3, T, H, W), values in 0..255.
        brightness: Factors, shape (B,).
        contrast: Factors, shape (B,).
        saturation: Factors, shape (B,).
        gray: Which clips lose their colors, bool (B,).

    Returns:
        Clips of the same shape, clamped to 0..255.
    """

    def per_sample(values: Tensor) -> Tensor:
        return values.to(clip.device).view(-1, 1, 1, 1, 1)

    luma = (clip * clip.new_tensor(LUMA).view(3, 1, 1, 1)).sum(1, keepdim=True)
    amount = torch.where(gray, torch.zeros_like(saturation), saturation)
    clip = luma + (clip - luma) * per_sample(amount)
    mean = luma.mean((2, 3, 4), keepdim=True)
    clip = (mean + (clip - mean) * per_sample(contrast)) * per_sample(brightness)
    return clip.clamp(0, 255)


def _grid(
    box: Tensor,
    size: int,
    padded: torch.Size,
    within: Tensor,
    angle: Tensor | None,
    mirrored: Tensor | None,
) -> Tensor:
    """Sampling positions in the coordinates of grid_sample, shape (B, size, size, 2)."""
    line = (torch.arange(size, device=box.device, dtype=torch.float32) + 0.5) * (2 / size) - 1
    u, v = line.view(1, 1, -1), line.view(1, -1, 1)
    half = (box[:, 2:] - box[:, :2]).float() / 2
    center = (box[:, 2:] + box[:, :2]).float() / 2
    if mirrored is not None:
        u = torch.where(mirrored.view(-1, 1, 1), -u, u)
    x, y = u * half[:, 0, None, None], v * half[:, 1, None, None]
    x, y = torch.broadcast_tensors(x, y)
    if angle is not None:
        cos, sin = angle.cos().view(-1, 1, 1), angle.sin().view(-1, 1, 1)
        x, y = cos * x - sin * y, sin * x + cos * y
    height, width = within[:, 0, None, None].float(), within[:, 1, None, None].float()
    half_pixel = 0.5 * torch.ones_like(height)
    x = torch.minimum(torch.maximum(x + center[:, 0, None, None], half_pixel), width - half_pixel)
    y = torch.minimum(torch.maximum(y + center[:, 1, None, None], half_pixel), height - half_pixel)
    return torch.stack([x * (2 / padded[1]) - 1, y * (2 / padded[0]) - 1], -1)


def _edge_repeated(flat: Tensor, within: Tensor) -> Tensor:
    """Frames with the padding replaced by their repeated edge."""
    height, width = flat.shape[-2:]
    if bool((within == within.new_tensor([height, width])).all()):
        return flat
    row = torch.minimum(torch.arange(height, device=flat.device), within[:, :1] - 1)
    column = torch.minimum(torch.arange(width, device=flat.device), within[:, 1:] - 1)
    index = torch.arange(len(flat), device=flat.device).view(-1, 1, 1)
    return flat.permute(0, 2, 3, 1)[index, row[:, :, None], column[:, None, :]].permute(0, 3, 1, 2)
