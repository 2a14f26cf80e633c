"""Render keypoints as 3D heatmap volumes, with compiled loops on the CPU and one batched pass on a GPU.

Duan et al., "Revisiting Skeleton-based Action Recognition", CVPR 2022, section 3.2 and its published code: Gaussians of
sigma 0.6 px times the score, within 3 sigma truncated to integer pixels, persons merged by maximum. A limb is the
Gaussian of the distance to the segment times the lower of its two scores. A limb shorter than 1 px is drawn as its first
joint.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from actionprep.datasets.poses.heatmap_settings import HeatmapSettings, Persons
from actionprep.datasets.poses.skeletons import Skeleton, skeleton
from actionprep.errors import UserError

__all__ = [
    "HeatmapSettings",
    "compact_boxes",
    "grid_boxes",
    "joint_heatmaps",
    "limb_heatmaps",
    "project",
    "render",
    "to_grid",
]

# Joints below this score are not drawn, as published.
LEAST_SCORE = 1e-3
# Number of values that the GPU code for limbs computes at a time.
_CHUNK = 1 << 25


def joint_heatmaps(
    xy: Tensor,
    score: Tensor,
    *,
    size: tuple[int, int],
    sigma: float = 0.6,
    truncate: float | None = 3.0,
    persons: Persons = "max",
    dtype: torch.dtype = torch.float32,
    out: Tensor | None = None,
) -> Tensor:
    """Render joints as Gaussian volumes, one channel per joint.

    Joints that are outside the grid, not finite or below a score of 0.001 are not drawn.

    Args:
        xy: Positions in pixels of the grid, shape (B, M, T, K, 2). Pixel centers are at integers.
        score: Scores in [0, 1], shape (B, M, T, K).
        size: Height and width of the grid.
        sigma: Standard deviation of the Gaussian in pixels.
        truncate: Half of the window in sigmas, truncated to integer pixels as published. None: draw every pixel, with
            an error below 1e-7.
        persons: "max" merges persons by maximum; "separate" keeps one volume per person.
        dtype: float32, or uint8 for values scaled to 255 and rounded, with a quarter of the memory. uint8 clips scores
            above 1.
        out: Volume to overwrite, instead of allocating memory for every batch.

    Returns:
        Volume on the device of `xy`, shape (B, K, T, H, W), or (B, M, K, T, H, W) with separate persons.
    """
    xy, score = _checked(xy, score, size, sigma, truncate, dtype)
    batch, people, frames, joints = score.shape
    shape = (batch, people if persons == "separate" else 1, joints, frames, *size)
    volume = _volume(shape, dtype, xy.device, out, persons)
    if xy.device.type == "cpu":
        _on_cpu("draw_joints", xy, score, volume, (), sigma, truncate, clear=out is not None)
    else:
        for m in range(people):
            drawn = _joints_of(xy[:, m], score[:, m], size, sigma, truncate)
            _merge(volume[:, m if persons == "separate" else 0], drawn)
    return volume if persons == "separate" else volume[:, 0]


def limb_heatmaps(
    xy: Tensor,
    score: Tensor,
    limbs: Sequence[tuple[int, int]] | Skeleton | str,
    *,
    size: tuple[int, int],
    sigma: float = 0.6,
    truncate: float | None = 3.0,
    persons: Persons = "max",
    dtype: torch.dtype = torch.float32,
    out: Tensor | None = None,
) -> Tensor:
    """Render limbs as volumes, one channel per limb.

    The window of a limb is the box around it, enlarged by `truncate` sigmas, as published.

    Args:
        xy: As in `joint_heatmaps`.
        score: As in `joint_heatmaps`.
        limbs: Pairs of joint indices, or a layout with limbs.
        size: As in `joint_heatmaps`.
        sigma: As in `joint_heatmaps`.
        truncate: As in `joint_heatmaps`.
        persons: As in `joint_heatmaps`.
        dtype: As in `joint_heatmaps`.
        out: As in `joint_heatmaps`.

    Returns:
        Volume of shape (B, L, T, H, W), or (B, M, L, T, H, W) with separate persons.

    Raises:
        UserError: If there are no limbs, or a limb has an unknown joint.
    """
    xy, score = _checked(xy, score, size, sigma, truncate, dtype)
    pairs = skeleton(limbs).limbs if isinstance(limbs, str | Skeleton) else tuple(limbs)
    batch, people, frames, joints = score.shape
    wrong = [pair for pair in pairs if not (0 <= pair[0] < joints and 0 <= pair[1] < joints)]
    if wrong or not pairs:
        raise UserError(
            f"Limbs must be pairs of joints between 0 and {joints - 1}, got {wrong[0] if wrong else 'none'}."
        )
    shape = (batch, people if persons == "separate" else 1, len(pairs), frames, *size)
    volume = _volume(shape, dtype, xy.device, out, persons)
    ends = torch.tensor(pairs, device=xy.device)
    if xy.device.type == "cpu":
        _on_cpu("draw_limbs", xy, score, volume, (ends.numpy(),), sigma, truncate, clear=out is not None)
    else:
        step = max(1, _CHUNK // (len(pairs) * frames * size[0] * size[1]))
        for start in range(0, batch, step):
            part = slice(start, start + step)
            for m in range(people):
                drawn = _limbs_of(xy[part, m], score[part, m], ends, size, sigma, truncate)
                _merge(volume[part, m if persons == "separate" else 0], drawn)
    return volume if persons == "separate" else volume[:, 0]


def compact_boxes(
    xy: Tensor,
    score: Tensor,
    *,
    padding: float = 0.25,
    square: bool = True,
    least_side: float = 10.0,
    image_size: tuple[int, int] | None = None,
    whole_pixels: bool = False,
) -> Tensor:
    """Compute one box per clip around the joints of all its frames and persons.

    The box is enlarged around its center and may extend beyond the image.

    Args:
        xy: Positions, shape (B, M, T, K, 2).
        score: Scores, shape (B, M, T, K); joints with score 0 are ignored.
        padding: Fraction by which each side is enlarged.
        square: Enlarge the shorter side to make the box square.
        least_side: Smallest side of the box around the joints. A clip without joints or with a smaller box gets the
            full image if `image_size` is given, else a box of this side. Use 0 for joints that are not in pixels.
        image_size: Height and width of the image in pixels.
        whole_pixels: Truncate the box towards zero, as the published code does.

    Returns:
        Left, top, right and bottom of each clip, shape (B, 4).
    """
    if not score[0:1].numel():
        # A minimum over no persons, frames or joints is not defined.
        xy, score = xy.new_zeros(len(xy), 1, 1, 1, 2), score.new_zeros(len(xy), 1, 1, 1)
    seen = (score > 0)[..., None]
    low = torch.where(seen, xy, torch.inf).amin((1, 2, 3))
    high = torch.where(seen, xy, -torch.inf).amax((1, 2, 3))
    none = ~torch.isfinite(low).all(-1, keepdim=True)
    low, high = low.masked_fill(none, 0), high.masked_fill(none, 0)
    center, half = (low + high) / 2, (high - low) / 2
    small = ((high - low) < least_side).any(-1, keepdim=True) | none
    half = half * (1 + padding)
    if square:
        half = half.amax(-1, keepdim=True).expand_as(half)
    box = torch.cat([center - half, center + half], -1)
    if whole_pixels:
        box = box.trunc()
    if image_size is not None:
        other = box.new_tensor([0, 0, image_size[1], image_size[0]]).expand_as(box)
    else:
        wide = half.amax(-1, keepdim=True).clamp_min(max(least_side / 2, 1e-6)).expand_as(half)
        other = torch.cat([center - wide, center + wide], -1)
    return torch.where(small, other, box)


def to_grid(xy: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Convert positions to pixels of a grid.

    Args:
        xy: Positions, shape (B, M, T, K, 2).
        boxes: Left, top, right and bottom of the grid of each clip, shape (B, 4).
        size: Height and width of the grid.

    Returns:
        Positions in pixels of the grid, shape (B, M, T, K, 2).
    """
    low, high = boxes[:, None, None, None, :2], boxes[:, None, None, None, 2:]
    return (xy - low) / (high - low).clamp_min(1e-9) * xy.new_tensor([size[1], size[0]])


def project(
    keypoints: Tensor,
    score: Tensor,
    view: Literal["xy", "xz", "yz"] | Tensor | Sequence[Sequence[float]] = "xy",
    *,
    y_up: bool = True,
) -> tuple[Tensor, Tensor]:
    """Project 3D joints to 2D.

    Args:
        keypoints: Joints, shape (…, K, 3).
        score: Scores, shape (…, K).
        view: "xy" for the front (x right, y up), "yz" for the side (z right, y up), "xz" for the view from above (x
            right, z up), or a camera matrix of shape (3, 4).
        y_up: Whether y points up. Rows of images go down, so the vertical axis is then negated.

    Returns:
        Positions, shape (…, K, 2), and scores, shape (…, K); 0 for joints at or behind the camera.

    Raises:
        UserError: If the view is unknown, or the matrix has another shape.
    """
    if isinstance(view, str):
        axes = {"xy": (0, 1), "xz": (0, 2), "yz": (2, 1)}.get(view)
        if axes is None:
            raise UserError(f"Unknown projection '{view}'. Use xy, xz, yz, or a 3 x 4 camera matrix.")
        sign = -1.0 if view == "xz" or y_up else 1.0
        return torch.stack([keypoints[..., axes[0]], sign * keypoints[..., axes[1]]], -1), score
    camera = torch.as_tensor(view, dtype=keypoints.dtype, device=keypoints.device)
    if camera.shape[-2:] != (3, 4):
        raise UserError(f"A camera is a matrix of 3 rows and 4 columns, got the shape {tuple(camera.shape)}.")
    seen = keypoints @ camera[..., :3].transpose(-1, -2) + camera[..., 3]
    depth = seen[..., 2]
    ahead = depth > 0
    xy = seen[..., :2] / torch.where(ahead, depth, 1).unsqueeze(-1)
    return torch.where(ahead[..., None], xy, 0), torch.where(ahead, score, 0)


def grid_boxes(
    xy: Tensor, score: Tensor, settings: HeatmapSettings, *, image_size: tuple[int, int] | None = None
) -> Tensor:
    """Compute the box that the grid of each clip covers: its people, or the full image.

    Args:
        xy: Positions, shape (B, M, T, K, 2).
        score: Scores, shape (B, M, T, K).
        settings: Settings of the heatmaps.
        image_size: Height and width of the image in pixels; None if unknown.

    Returns:
        Left, top, right and bottom of each clip, shape (B, 4).

    Raises:
        UserError: If the settings require the full image and its size is unknown.
    """
    if settings.compact:
        return compact_boxes(
            xy,
            score,
            padding=settings.padding,
            square=settings.square,
            least_side=10.0 if image_size is not None else 0.0,
            image_size=image_size,
        )
    if image_size is None:
        raise UserError(
            "Heatmaps of the full image need its size, which these poses do not have. Give image_size=(height, "
            "width), or crop the volume to the people (compact = true)."
        )
    return xy.new_tensor([0, 0, image_size[1], image_size[0]]).expand(len(xy), 4)


def render(
    keypoints: Tensor,
    score: Tensor,
    layout: str | Skeleton,
    settings: HeatmapSettings | None = None,
    *,
    image_size: tuple[int, int] | None = None,
    boxes: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    out: Tensor | None = None,
) -> Tensor:
    """Render the keypoints of a batch as volumes. 3D keypoints are projected first.

    Args:
        keypoints: Joints, shape (B, M, T, K, 2 or 3).
        score: Scores, shape (B, M, T, K).
        layout: Layout of the joints.
        settings: Settings of the heatmaps; None for the defaults.
        image_size: Height and width of the image in pixels; required without compact cropping.
        boxes: Boxes to crop to, shape (B, 4), for example random parts of the compact boxes; None for `grid_boxes`.
        dtype: As in `joint_heatmaps`.
        out: As in `joint_heatmaps`.

    Returns:
        Volume of shape (B, C, T, H, W) with C joints or limbs, or (B, M, C, T, H, W) with separate persons.

    Raises:
        UserError: If the keypoints do not match the layout, or the size of the image is required and missing.
    """
    settings = settings or HeatmapSettings()
    layout = skeleton(layout)
    if keypoints.ndim != 5 or keypoints.shape[-1] not in (2, 3) or keypoints.shape[-2] != layout.num_joints:
        raise UserError(
            f"Heatmaps of '{layout.name}' need keypoints (batch, persons, frames, {layout.num_joints} joints, 2 or 3), "
            f"got {tuple(keypoints.shape)}."
        )
    flat = keypoints.shape[-1] == 2
    if not flat:
        keypoints, score = project(keypoints, score, settings.view)
    if boxes is None:
        boxes = grid_boxes(keypoints, score, settings, image_size=image_size if flat else None)
    xy = to_grid(keypoints, boxes, settings.size)
    how: dict[str, Any] = {
        "size": settings.size,
        "sigma": settings.sigma,
        "truncate": settings.truncate,
        "persons": settings.persons,
        "dtype": dtype,
        "out": out,
    }
    return joint_heatmaps(xy, score, **how) if settings.kind == "joint" else limb_heatmaps(xy, score, layout, **how)


def _checked(
    xy: Tensor, score: Tensor, size: tuple[int, int], sigma: float, truncate: float | None, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    if xy.ndim != 5 or xy.shape[-1] != 2 or score.shape != xy.shape[:-1]:
        raise UserError(
            "Heatmaps need joints (batch, persons, frames, joints, 2) with scores (batch, persons, frames, joints); "
            f"got {tuple(xy.shape)} with {tuple(score.shape)}. Project 3D joints first."
        )
    if min(size) < 1 or not sigma > 0 or (truncate is not None and not truncate > 0):
        raise UserError(
            f"Heatmaps need a grid, sigma and window above 0, got size {size}, sigma {sigma}, truncate {truncate}."
        )
    score = score.detach().to(torch.float32)
    # A value above 255 would wrap to 0, and estimators sometimes return scores slightly above 1.
    return xy.detach().to(torch.float32), score.clamp(max=1) if dtype == torch.uint8 else score


def _volume(
    shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, out: Tensor | None, persons: Persons
) -> Tensor:
    if persons not in ("max", "separate"):
        raise UserError(f"persons must be 'max' or 'separate', got '{persons}'.")
    if dtype not in (torch.float32, torch.uint8):
        raise UserError(f"Heatmaps are float32 or uint8, not {dtype}.")
    if out is None:
        # numpy's zeros come from the system as untouched pages: pixels that nobody draws on cost nothing.
        kind = np.uint8 if dtype == torch.uint8 else np.float32
        return (
            torch.from_numpy(np.zeros(shape, kind))
            if device.type == "cpu"
            else torch.zeros(shape, dtype=dtype, device=device)
        )
    wanted = shape if persons == "separate" else (shape[0], *shape[2:])
    if tuple(out.shape) != wanted or out.dtype != dtype or out.device != device or not out.is_contiguous():
        raise UserError(
            f"`out` must be a contiguous {dtype} tensor of shape {wanted} on {device}, got {out.dtype} "
            f"{tuple(out.shape)} on {out.device}."
        )
    # The compiled loops clear it piece by piece, while each piece is in the cache.
    return (out if device.type == "cpu" else out.zero_()).view(shape)


def _on_cpu(
    kernel: str,
    xy: Tensor,
    score: Tensor,
    volume: Tensor,
    limbs: tuple[Any, ...],
    sigma: float,
    truncate: float | None,
    *,
    clear: bool,
) -> None:
    from actionprep.datasets.poses import heatmap_kernels

    draw = getattr(heatmap_kernels, kernel)
    reach = -1.0 if truncate is None else sigma * truncate
    scale, half = (255.0, 0.5) if volume.dtype == torch.uint8 else (1.0, 0.0)
    points, seen, target = xy.contiguous().numpy(), score.contiguous().numpy(), volume.numpy()
    shares = max(1, min(torch.get_num_threads(), len(points)))
    edges = np.linspace(0, len(points), shares + 1).astype(int)

    def part(index: int) -> None:
        rows = slice(edges[index], edges[index + 1])
        draw(points[rows], seen[rows], *limbs, target[rows], clear, float(sigma), reach, LEAST_SCORE, scale, half)

    if shares == 1:
        part(0)
        return
    with ThreadPoolExecutor(shares) as pool:
        list(pool.map(part, range(shares)))


def _merge(volume: Tensor, drawn: Tensor) -> None:
    if volume.dtype == torch.uint8:
        drawn = (drawn * 255 + 0.5).to(torch.uint8)
    torch.maximum(volume, drawn, out=volume)


def _drawable(xy: Tensor, score: Tensor) -> Tensor:
    return (score >= LEAST_SCORE) & torch.isfinite(xy).all(-1)


def _axis(place: Tensor, length: int, low: Tensor, high: Tensor, sigma: float, truncate: float | None) -> Tensor:
    """Gaussian of one axis over its pixels, 0 outside the window from `low` to `high`: (…,) → (…, length)."""
    pixels = torch.arange(length, device=place.device)
    value = torch.exp(-((pixels - place[..., None]) ** 2) / (2 * sigma**2))
    if truncate is None:
        return value
    return torch.where(_inside(pixels, low, high, sigma * truncate), value, 0)


def _inside(pixels: Tensor, low: Tensor, high: Tensor, reach: float) -> Tensor:
    # The window's ends are cut from doubles, as on the CPU: in single precision they could fall on the next pixel.
    first = (_exact(low) - reach).trunc()
    last = (_exact(high) + reach).trunc()
    return (pixels >= first[..., None]) & (pixels <= last[..., None])


def _exact(values: Tensor) -> Tensor:
    return values if values.device.type == "mps" else values.to(torch.float64)


def _joints_of(xy: Tensor, score: Tensor, size: tuple[int, int], sigma: float, truncate: float | None) -> Tensor:
    """One person of each clip: (B, T, K, 2) → (B, K, T, H, W)."""
    xy, score = xy.transpose(1, 2), score.transpose(1, 2)
    ok = _drawable(xy, score)
    x, y = torch.where(ok, xy[..., 0], 0), torch.where(ok, xy[..., 1], 0)
    wide = _axis(x, size[1], x, x, sigma, truncate)
    high = _axis(y, size[0], y, y, sigma, truncate) * torch.where(ok, score, 0)[..., None]
    return high[..., :, None] * wide[..., None, :]


def _limbs_of(
    xy: Tensor, score: Tensor, ends: Tensor, size: tuple[int, int], sigma: float, truncate: float | None
) -> Tensor:
    """One person of each clip: (B, T, K, 2) → (B, L, T, H, W)."""
    a, b = xy[:, :, ends[:, 0]].transpose(1, 2), xy[:, :, ends[:, 1]].transpose(1, 2)
    score_a, score_b = score[:, :, ends[:, 0]].transpose(1, 2), score[:, :, ends[:, 1]].transpose(1, 2)
    ok = _drawable(a, score_a) & _drawable(b, score_b)
    a, b = _exact(torch.where(ok[..., None], a, 0)), _exact(torch.where(ok[..., None], b, 0))
    along = b - a
    length = along.square().sum(-1)
    short = length < 1
    along = torch.where(short[..., None], 0, along)
    value = torch.where(ok, torch.where(short, score_a, torch.minimum(score_a, score_b)), 0)
    px = torch.arange(size[1], device=xy.device) - a[..., 0, None]
    py = torch.arange(size[0], device=xy.device) - a[..., 1, None]
    share = px[..., None, :] * along[..., 0, None, None] + py[..., :, None] * along[..., 1, None, None]
    share = (share / length.clamp_min(1)[..., None, None]).clamp(0, 1)
    off_x = px[..., None, :] - share * along[..., 0, None, None]
    off_y = py[..., :, None] - share * along[..., 1, None, None]
    drawn = torch.exp(-(off_x.square() + off_y.square()) / (2 * sigma**2)).float() * value[..., None, None]
    if truncate is None:
        return drawn
    low, high = torch.minimum(a, b), torch.maximum(a, b)
    low, high = torch.where(short[..., None], a, low), torch.where(short[..., None], a, high)
    columns = _inside(torch.arange(size[1], device=xy.device), low[..., 0], high[..., 0], sigma * truncate)
    rows = _inside(torch.arange(size[0], device=xy.device), low[..., 1], high[..., 1], sigma * truncate)
    return torch.where(rows[..., :, None] & columns[..., None, :], drawn, 0)
