"""Render the body: cast camera rays onto its ellipsoids, in front of and behind the furniture."""

from __future__ import annotations

import cv2
import numpy as np

from actionprep.sample.body import PART_GARMENT, Body
from actionprep.sample.cameras import Camera
from actionprep.sample.patterns import CLOTH_CELL_SIZE, CLOTH_CELLS, cloth_volumes
from actionprep.sample.room import SUPERSAMPLING, Backdrop

_LIGHT = np.array([0.35, 0.25, 0.9]) / np.linalg.norm([0.35, 0.25, 0.9])
_AMBIENT = 0.52
_SHADOW_REACH = 0.9 * np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]])  # meters around the hips


def draw_frames(
    camera: Camera, backdrop: Backdrop, body: Body, *, cloth: np.ndarray, palette: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Images (T, H, W, 3) uint8 RGB and foreground (T, H, W) bool of a posed body.

    cloth (G,) and palette (G, 256, 3) as `patterns.wardrobe` gives them. A pixel is foreground when the body covers
    at least half of its samples.

    Each ellipsoid is the unit sphere in its own frame, where a ray is o + t d with d linear in the pixel; its outline
    is the conic on which the discriminant of |o + t d| = 1 vanishes.
    """
    width, height = camera.size
    num_frames = len(body.centers)
    images = np.empty((num_frames, height, width, 3), np.uint8)
    foreground = np.zeros((num_frames, height, width), bool)
    sight = _Sight.of(camera, body)
    garb = _Garb.of(body, cloth, palette)
    for frame in range(num_frames):
        canvas = backdrop.rgb.copy()
        _cast_shadow(canvas, camera, backdrop.floor, body.joints[frame])
        _draw_body(canvas, foreground[frame], backdrop.depth, sight, frame, garb, body)
        np.rint(canvas, out=canvas)
        images[frame] = canvas
    return images, foreground


class _Sight:
    """All ellipsoids of all frames in camera coordinates: boxes in samples, and the polynomials of the ray test."""

    def __init__(
        self, box: np.ndarray, middle: np.ndarray, origin: np.ndarray, heading: np.ndarray, order: np.ndarray
    ) -> None:
        self.box = box  # (T, P, 4) first and past-the-last sample: x0, x1, y0, y1
        self.middle = middle  # (T, P, 2) pixel that polynomials are centered on
        self.origin = origin  # (T, P, 3) lens in the ellipsoid's unit frame
        self.heading = heading  # (T, P, 3, 3) ray = heading @ (x - middle x, y - middle y, 1)
        self.order = order  # (T, P) parts from near to far

    @classmethod
    def of(cls, camera: Camera, body: Body) -> _Sight:
        unit = np.swapaxes(body.axes, -1, -2) / body.radii[None, :, :, None]
        origin = np.einsum("tpij,tpj->tpi", unit, camera.center - body.centers)
        heading = unit @ (camera.rotation.T @ np.linalg.inv(camera.matrix))
        middle, depth = camera.project(body.centers)
        heading[..., 2] += heading[..., 0] * middle[..., :1] + heading[..., 1] * middle[..., 1:]

        # Bounds of the outline conic from its dual.
        aimed = np.einsum("tpi,tpij->tpj", origin, heading)
        excess = (origin**2).sum(-1) - 1
        conic = aimed[..., :, None] * aimed[..., None, :] - excess[..., None, None] * (
            np.swapaxes(heading, -1, -2) @ heading
        )
        dual = np.linalg.inv(conic)
        x0, x1 = _conic_bounds(dual, 0)
        y0, y1 = _conic_bounds(dual, 1)
        limits = np.array(camera.size) * SUPERSAMPLING
        first_x = np.clip(np.floor((middle[..., 0] + x0 + 0.5) * SUPERSAMPLING), 0, limits[0])
        last_x = np.clip(np.ceil((middle[..., 0] + x1 + 0.5) * SUPERSAMPLING), 0, limits[0])
        first_y = np.clip(np.floor((middle[..., 1] + y0 + 0.5) * SUPERSAMPLING), 0, limits[1])
        last_y = np.clip(np.ceil((middle[..., 1] + y1 + 0.5) * SUPERSAMPLING), 0, limits[1])
        box = np.stack([first_x, last_x, first_y, last_y], axis=-1).astype(np.int64)
        return cls(box, middle, origin, heading, np.argsort(depth, axis=1))


def _conic_bounds(dual: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    mid, own, last = dual[..., axis, 2], dual[..., axis, axis], dual[..., 2, 2]
    root = np.sqrt(np.maximum(mid**2 - own * last, 0.0))
    first, two = (mid - root) / last, (mid + root) / last
    return np.minimum(first, two), np.maximum(first, two)


class _Garb:
    """Per part: cloth index, origin in the texture volume, size, and light direction in its frame."""

    def __init__(self, flat: np.ndarray, cloth: np.ndarray, palette: np.ndarray, cells: np.ndarray) -> None:
        self.flat = flat
        self.cloth = cloth
        self.palette = palette
        self.cells = cells

    @classmethod
    def of(cls, body: Body, cloth: np.ndarray, palette: np.ndarray) -> _Garb:
        cells = (body.radii / CLOTH_CELL_SIZE).astype(np.float32)
        # Parts use different positions of the volume.
        place = (np.arange(len(cells))[:, None] * np.array([13.7, 29.3, 41.9])) % CLOTH_CELLS + CLOTH_CELLS
        return cls(
            flat=cloth_volumes().reshape(-1),
            cloth=(cloth[PART_GARMENT] * CLOTH_CELLS**3).astype(np.int32),
            palette=palette.reshape(-1, 3),
            cells=np.stack([cells, place.astype(np.float32)], axis=1),
        )


def _draw_body(
    canvas: np.ndarray,
    foreground: np.ndarray,
    scene_depth: np.ndarray,
    sight: _Sight,
    frame: int,
    garb: _Garb,
    body: Body,
) -> None:
    boxes = sight.box[frame]
    step = 1 / SUPERSAMPLING
    # The bounding box of the body in full pixels.
    filled = (boxes[:, 1] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 2])
    if not filled.any():
        return
    left, top = boxes[filled][:, [0, 2]].min(axis=0) // SUPERSAMPLING * SUPERSAMPLING
    right, bottom = -(-boxes[filled][:, [1, 3]].max(axis=0) // SUPERSAMPLING) * SUPERSAMPLING

    depth = scene_depth[top:bottom, left:right].copy()
    part = np.full(depth.shape, -1, np.int8)
    origin = sight.origin[frame]
    heading = sight.heading[frame]
    middle = sight.middle[frame]
    gram = np.swapaxes(heading, -1, -2) @ heading
    aimed = np.einsum("pi,pij->pj", origin, heading)
    excess = (origin**2).sum(-1) - 1
    conic = aimed[:, :, None] * aimed[:, None, :] - excess[:, None, None] * gram
    # Python numbers and single precision for speed. The centered polynomials are exact enough in single precision.
    conics, grams, aims, middles = conic.tolist(), gram.tolist(), aimed.tolist(), middle.tolist()
    grid_x = (np.arange(left, right) + 0.5) * step - 0.5
    grid_y = ((np.arange(top, bottom) + 0.5) * step - 0.5)[:, None]
    for index in sight.order[frame].tolist():
        x0, x1, y0, y1 = boxes[index].tolist()
        if x1 <= x0 or y1 <= y0:
            continue
        rows, columns = slice(y0 - top, y1 - top), slice(x0 - left, x1 - left)
        x = (grid_x[columns] - middles[index][0]).astype(np.float32)
        y = (grid_y[rows] - middles[index][1]).astype(np.float32)
        inside = _quadratic(conics[index], x, y)
        np.maximum(inside, 0.0, out=inside)
        np.sqrt(inside, out=inside)
        b = aims[index]
        near = (b[0] * x + b[2]) + b[1] * y
        near += inside
        near /= _quadratic(grams[index], x, y)
        np.negative(near, out=near)
        hit = near < depth[rows, columns]
        hit &= inside > 0
        np.copyto(depth[rows, columns], near, where=hit)
        np.copyto(part[rows, columns], index, where=hit)

    shown_y, shown_x = np.nonzero(part >= 0)
    if not len(shown_y):
        return
    which = part[shown_y, shown_x].astype(np.intp)
    color = _shade(
        which,
        depth[shown_y, shown_x],
        ((shown_x + (left + 0.5)) * step - 0.5).astype(np.float32),
        ((shown_y + (top + 0.5)) * step - 0.5).astype(np.float32),
        sight,
        frame,
        garb,
        body,
    )
    layer = np.zeros((*part.shape, 4), np.float32)
    layer[shown_y, shown_x, :3] = color
    layer[shown_y, shown_x, 3] = 1.0
    size = ((right - left) // SUPERSAMPLING, (bottom - top) // SUPERSAMPLING)
    layer = cv2.resize(layer, size, interpolation=cv2.INTER_AREA)
    rows = slice(top // SUPERSAMPLING, bottom // SUPERSAMPLING)
    columns = slice(left // SUPERSAMPLING, right // SUPERSAMPLING)
    region = canvas[rows, columns]
    region *= 1 - layer[..., 3:]
    region += layer[..., :3]
    foreground[rows, columns] = layer[..., 3] >= 0.5


def _quadratic(q: list[list[float]], x: np.ndarray, y: np.ndarray) -> np.ndarray:
    # (x, y, 1) q (x, y, 1)' for a row x (w,) and a column y (h, 1).
    value = (2 * q[0][1]) * x + (q[1][1] * y + 2 * q[1][2])
    value *= y
    value += (q[0][0] * x + 2 * q[0][2]) * x + q[2][2]
    return np.asarray(value)


def _shade(
    which: np.ndarray,
    depth: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    sight: _Sight,
    frame: int,
    garb: _Garb,
    body: Body,
) -> np.ndarray:
    # Color (n, 3) of samples from where their rays meet the unit sphere of their part.
    origin = sight.origin[frame].astype(np.float32)
    heading = sight.heading[frame].astype(np.float32)
    middle = sight.middle[frame].astype(np.float32)
    light = (np.einsum("pji,j->pi", body.axes[frame], _LIGHT) / body.radii).astype(np.float32)
    thin = (1 / body.radii).astype(np.float32)
    table = np.concatenate(
        [origin, heading.reshape(-1, 9), middle, light, thin, garb.cells.reshape(-1, 6)], axis=1
    ).T.copy()
    values = table[:, which]
    x = x - values[12]
    y = y - values[13]
    lit = np.zeros_like(depth)
    bright = np.zeros_like(depth)
    place = garb.cloth[which]
    for axis in range(3):
        unit = values[axis] + depth * (values[3 + 3 * axis] * x + values[4 + 3 * axis] * y + values[5 + 3 * axis])
        lit += unit * values[14 + axis]
        bright += (unit * values[17 + axis]) ** 2
        cell = (unit * values[20 + axis] + values[23 + axis]).astype(np.int32) % CLOTH_CELLS
        place += cell * CLOTH_CELLS**axis
    shade = _AMBIENT + (1 - _AMBIENT) * np.maximum(lit / np.sqrt(bright), -0.25)
    color = garb.palette[garb.flat[place].astype(np.int32) + (PART_GARMENT[which] * 256)]
    color *= shade[:, None]
    return np.asarray(np.clip(color, 0, 255, out=color))


def _cast_shadow(canvas: np.ndarray, camera: Camera, floor: np.ndarray, joints: np.ndarray) -> None:
    # Soft darkening of the floor below the mid hip and both ankles.
    spots = joints[[8, 11, 14], :2]
    xy, _ = camera.project(np.concatenate([spots[0] + _SHADOW_REACH, np.zeros((4, 1))], axis=1))
    height, width = floor.shape[:2]
    (x0, y0), (x1, y1) = xy.min(axis=0).astype(int).tolist(), (xy.max(axis=0).astype(int) + 1).tolist()
    rows, columns = slice(max(y0, 0), min(max(y1, 0), height)), slice(max(x0, 0), min(max(x1, 0), width))
    across, along = floor[rows, columns, 0], floor[rows, columns, 1]
    light = np.ones(across.shape, np.float32)
    for (x, y), spread, depth in zip(spots.tolist(), (0.26, 0.13, 0.13), (0.3, 0.35, 0.35), strict=True):
        away = (across - x) ** 2 + (along - y) ** 2
        light *= 1 - depth * np.exp(away * (-0.5 / spread**2))
    canvas[rows, columns] *= light[..., None]
