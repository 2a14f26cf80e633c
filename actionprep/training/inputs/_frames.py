"""Cut clips out of stored pictures and change their colors, on whatever device they are, alike over each clip."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

# Rounded BT.601 weights of red, green and blue in brightness.
LUMA = (0.299, 0.587, 0.114)


def motion_box(pictures: np.ndarray, *, margin: float = 0.15) -> tuple[float, float, float, float] | None:
    """x0, y0, x1, y1 in pixels of a square around what moves in a clip; None where nothing does.

    pictures (T, H, W, 3) uint8, some frames in order. What changes from frame to frame by more than the noise is added up
    over the clip; the middle 96 % of it in x and in y make the box, which is then grown by `margin` of its side all
    around. It may reach over the picture's edge.
    """
    if len(pictures) < 2:
        return None
    gray = pictures.astype(np.float32) @ np.array(LUMA, np.float32)
    change = np.abs(np.diff(gray, axis=0))
    # The camera's noise, from the pixels that stand still, which are most.
    noise = np.median(change, axis=(1, 2), keepdims=True)
    moving = np.clip(change - (4 * noise + 8), 0, 32).sum(axis=0)
    total = float(moving.sum())
    if total < 1e-3 * moving.size:
        return None
    ends = []
    for axis in (0, 1):
        up_to = np.cumsum(moving.sum(axis=axis)) / total
        ends.append((int(np.searchsorted(up_to, 0.02)), int(np.searchsorted(up_to, 0.98)) + 1))
    (x0, x1), (y0, y1) = ends
    half = max(x1 - x0, y1 - y0, 8) / 2 * (1 + 2 * margin)
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    return x - half, y - half, x + half, y + half


def cut(
    pictures: Tensor,
    box: Tensor,
    size: int,
    *,
    angle: Tensor | None = None,
    mirrored: Tensor | None = None,
    within: Tensor | None = None,
) -> Tensor:
    """A square of `size` pixels out of each clip, every frame alike: (B, T, C, H, W) → (B, C, T, size, size) float32.

    box      (B, 4)  x0, y0, x1, y1 in pixels, whose edges lie on whole numbers; beyond the picture its edge goes on
    angle    (B)     the box turned about its middle, rad; mirrored (B) bool: left and right changed
    within   (B, 2)  height and width of each picture, where it is padded at the bottom and on the right

    Bilinear; pictures that shrink to half or less are averaged over blocks first, so that nothing aliases.
    """
    batch, frames, channels, height, width = pictures.shape
    out = torch.empty(batch, channels, frames, size, size, device=pictures.device)
    if within is None:
        within = torch.tensor([[height, width]], device=pictures.device).expand(batch, 2)
    shrink = ((box[:, 2:] - box[:, :2]).amin(1) / size).clamp(min=1)
    level = shrink.log2().floor().long().clamp(max=4)
    for one in level.unique().tolist():
        at = torch.nonzero(level == one)[:, 0]
        block = 2**one
        flat = pictures[at].flatten(1, 2).float()
        if block > 1:
            # The padding must not be averaged into the picture's edge.
            flat = _edge_repeated(flat, within[at])
            flat = F.pad(flat, (0, -width % block, 0, -height % block), mode="replicate")
            flat = F.avg_pool2d(flat, block)
        grid = _grid(
            box[at] / block,
            size,
            flat.shape[-2:],
            within[at] / block,
            None if angle is None else angle[at],
            None if mirrored is None else mirrored[at],
        )
        found = F.grid_sample(flat, grid, mode="bilinear", padding_mode="border", align_corners=False)
        out[at] = found.unflatten(1, (frames, channels)).transpose(1, 2)
    return out


def recolored(clip: Tensor, *, brightness: Tensor, contrast: Tensor, saturation: Tensor, gray: Tensor) -> Tensor:
    """Clips (B, 3, T, H, W) of 0..255 with other colors, every frame alike.

    brightness, contrast, saturation (B): factors; gray (B) bool: without color.
    """

    def each(values: Tensor) -> Tensor:
        return values.to(clip.device).view(-1, 1, 1, 1, 1)

    luma = (clip * clip.new_tensor(LUMA).view(3, 1, 1, 1)).sum(1, keepdim=True)
    amount = torch.where(gray, torch.zeros_like(saturation), saturation)
    clip = luma + (clip - luma) * each(amount)
    middle = luma.mean((2, 3, 4), keepdim=True)
    clip = (middle + (clip - middle) * each(contrast)) * each(brightness)
    return clip.clamp(0, 255)


def _grid(
    box: Tensor,
    size: int,
    padded: torch.Size,
    within: Tensor,
    angle: Tensor | None,
    mirrored: Tensor | None,
) -> Tensor:
    """(B, size, size, 2) where grid_sample looks, in its coordinates."""
    line = (torch.arange(size, device=box.device, dtype=torch.float32) + 0.5) * (2 / size) - 1
    u, v = line.view(1, 1, -1), line.view(1, -1, 1)
    half = (box[:, 2:] - box[:, :2]).float() / 2
    middle = (box[:, 2:] + box[:, :2]).float() / 2
    if mirrored is not None:
        u = torch.where(mirrored.view(-1, 1, 1), -u, u)
    x, y = u * half[:, 0, None, None], v * half[:, 1, None, None]
    x, y = torch.broadcast_tensors(x, y)
    if angle is not None:
        cos, sin = angle.cos().view(-1, 1, 1), angle.sin().view(-1, 1, 1)
        x, y = cos * x - sin * y, sin * x + cos * y
    height, width = within[:, 0, None, None].float(), within[:, 1, None, None].float()
    half_pixel = 0.5 * torch.ones_like(height)
    x = torch.minimum(torch.maximum(x + middle[:, 0, None, None], half_pixel), width - half_pixel)
    y = torch.minimum(torch.maximum(y + middle[:, 1, None, None], half_pixel), height - half_pixel)
    return torch.stack([x * (2 / padded[1]) - 1, y * (2 / padded[0]) - 1], -1)


def _edge_repeated(flat: Tensor, within: Tensor) -> Tensor:
    """Padded pictures whose padding repeats their edge."""
    height, width = flat.shape[-2:]
    if bool((within == within.new_tensor([height, width])).all()):
        return flat
    row = torch.minimum(torch.arange(height, device=flat.device), within[:, :1] - 1)
    column = torch.minimum(torch.arange(width, device=flat.device), within[:, 1:] - 1)
    index = torch.arange(len(flat), device=flat.device).view(-1, 1, 1)
    return flat.permute(0, 2, 3, 1)[index, row[:, :, None], column[:, None, :]].permute(0, 3, 1, 2)
