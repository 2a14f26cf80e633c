"""Dense optical flow on the device of the clips."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_SMALLEST = 12
"""Smallest side of a pyramid level in pixels."""


def optical_flow(gray: Tensor, *, levels: int = 4, window: int = 7, iterations: int = 3) -> Tensor:
    """Estimate how each pixel moves from frame to frame, by pyramidal Lucas-Kanade at every pixel.

    Args:
        gray: Brightness in 0..1, shape (B, T, H, W).
        levels: Largest number of pyramid levels; each halves the size.
        window: Side of the square around a pixel that is assumed to move alike, odd.
        iterations: Updates per level.

    Returns:
        Flow in x and y from the previous frame to each frame, in pixels, shape (B, 2, T, H, W), float32. It is 0 in the
        first frame. A pixel of frame t + 1 at p was at p - flow in frame t.

    References:
        Lucas and Kanade, "An Iterative Image Registration Technique", IJCAI 1981; Bouguet, "Pyramidal Implementation of
        the Lucas Kanade Feature Tracker", Intel 2000. Here for all pixels, with a small constant on the diagonal of the
        2 x 2 system, so that the flow of uniform areas is 0.
    """
    batch, frames, height, width = gray.shape
    flow = gray.new_zeros((batch, 2, frames, height, width), dtype=torch.float32)
    if frames < 2:
        return flow
    gray = gray.float()
    pyramid = [(gray[:, 1:].reshape(-1, 1, height, width), gray[:, :-1].reshape(-1, 1, height, width))]
    while len(pyramid) < levels and min(pyramid[-1][0].shape[-2:]) >= 2 * _SMALLEST:
        pyramid.append(tuple(F.avg_pool2d(image, 2) for image in pyramid[-1]))  # type: ignore[arg-type]
    back: Tensor | None = None
    for current, previous in reversed(pyramid):
        size = current.shape[-2:]
        if back is None:
            back = current.new_zeros((len(current), 2, *size))
        else:
            scale = back.new_tensor([size[1] / back.shape[-1], size[0] / back.shape[-2]]).view(1, 2, 1, 1)
            back = F.interpolate(back, size=size, mode="bilinear", align_corners=False) * scale
        for _ in range(iterations):
            back = back + _update(current, _shifted(previous, back), window)
    assert back is not None
    # `back` leads from a frame to the position in the previous one.
    flow[:, :, 1:] = -back.unflatten(0, (batch, frames - 1)).transpose(1, 2)
    return flow


def _update(current: Tensor, previous: Tensor, window: int) -> Tensor:
    """Displacement (n, 2, H, W) that brings the previous frames closer to the current ones, at most 1 px."""
    padded = F.pad(previous, (1, 1, 1, 1), mode="replicate")
    dx = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
    dy = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    difference = current - previous
    products = torch.cat([dx * dx, dx * dy, dy * dy, dx * difference, dy * difference], 1)
    sums = F.avg_pool2d(products, window, stride=1, padding=window // 2, count_include_pad=False)
    xx, xy, yy, xt, yt = sums.split(1, 1)
    # About the variance of the noise of 8-bit values.
    xx, yy = xx + 1e-5, yy + 1e-5
    determinant = xx * yy - xy * xy
    step = torch.cat([yy * xt - xy * yt, xx * yt - xy * xt], 1) / determinant
    return step.clamp(-1, 1)


def _shifted(images: Tensor, by: Tensor) -> Tensor:
    """Images (n, 1, H, W) sampled at each pixel plus a displacement (n, 2, H, W); beyond the edge, it is repeated."""
    height, width = images.shape[-2:]
    x = torch.arange(width, device=images.device, dtype=torch.float32)
    y = torch.arange(height, device=images.device, dtype=torch.float32)[:, None]
    grid = torch.stack([(2 * (x + by[:, 0]) + 1) / width - 1, (2 * (y + by[:, 1]) + 1) / height - 1], -1)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
