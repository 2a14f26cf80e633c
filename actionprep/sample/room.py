"""The room of the sample study: floor, walls and furniture, rendered as image and depth for each camera."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from actionprep.sample.cameras import Camera
from actionprep.sample.patterns import surface

SUPERSAMPLING = 2
"""Samples per pixel along each axis, for the body and for depth."""

_HALF_WIDTH = 20.0  # of the square room, meters
_TEXTURE_SPAN = 2.4  # meters that one seamless image covers


@dataclass(frozen=True)
class Box:
    """A piece of furniture on the floor: center (x, y), size (x, y, z) in meters, rotation and texture."""

    center: tuple[float, float]
    size: tuple[float, float, float]
    turn: float
    kind: str
    variant: int


@dataclass(frozen=True)
class Backdrop:
    """The empty room as seen by one camera.

    rgb (H, W, 3) float32; depth (2H, 2W) float32 meters along the optical axis; floor (H, W, 2) float32 world x and y
    of the floor where a pixel shows it, a large value elsewhere.
    """

    rgb: np.ndarray
    depth: np.ndarray
    floor: np.ndarray


def furniture(session: int) -> tuple[Box, ...]:
    """The boxes of one session. Some are between the stage and a camera and hide part of the subject."""
    return (
        *_OCCLUDERS,
        Box((-12.0, 2.5), (0.8, 1.6, 1.2), 0.2, "crate", session),
        Box((-11.5, -1.4), (0.9, 1.2, 0.7), -0.3, "crate", session + 1),
        Box((4.2, 13.0), (2.4, 0.8, 2.2), 0.1, "cabinet", session),
        Box((-2.4, 12.0), (1.0, 1.0, 1.0), 0.6, "crate", session),
        Box((-9.5, -8.0), (1.6, 0.8, 1.9), 0.8, "cabinet", session + 1),
        Box((9.6, -8.0), (1.2, 1.2, 1.2), 0.5, "crate", session),
        Box((12.0, 2.0), (0.8, 1.7, 1.2), 0.0, "crate", session + 1),
        Box((1.6, -13.0), (2.2, 0.7, 1.8), 0.0, "cabinet", session),
        Box((8.2, 10.5), (1.3, 0.9, 1.5), 0.3, "cabinet", session + 1),
        Box((-9.0, 7.0), (1.3, 1.0, 1.0), -0.4, "crate", session),
    )


def _standing_before(view: int, *, distance: float, aside: float, size: tuple[float, float, float], kind: str) -> Box:
    # A box between the stage and a camera, moved to the camera's right by `aside`.
    azimuth = np.radians(45.0 * view)
    toward = np.array([np.cos(azimuth), np.sin(azimuth)])
    right = np.array([-np.sin(azimuth), np.cos(azimuth)])
    x, y = distance * toward + aside * right
    return Box((float(x), float(y)), size, float(azimuth), kind, view)


_OCCLUDERS = (
    _standing_before(0, distance=2.6, aside=0.55, size=(0.5, 1.5, 0.55), kind="crate"),
    _standing_before(1, distance=2.4, aside=-0.5, size=(0.5, 1.3, 0.75), kind="cabinet"),
    _standing_before(3, distance=2.2, aside=0.25, size=(0.7, 1.5, 0.9), kind="crate"),
    _standing_before(6, distance=2.4, aside=-0.45, size=(0.5, 0.5, 1.35), kind="cabinet"),
)


@lru_cache(maxsize=16)
def _backdrop(view: int, session: int) -> Backdrop:
    from actionprep.sample.cameras import camera_ring

    return draw_backdrop(camera_ring()[view], session)


def backdrop(camera: Camera, session: int) -> Backdrop:
    """Render the empty room of a session for one camera. Cached per process."""
    return _backdrop(camera.view, session)


def draw_backdrop(camera: Camera, session: int) -> Backdrop:
    """Cast one ray per sample, and average the samples of each pixel."""
    import cv2

    width, height = camera.size
    x = (np.arange(width * SUPERSAMPLING) + 0.5) / SUPERSAMPLING - 0.5
    y = (np.arange(height * SUPERSAMPLING) + 0.5) / SUPERSAMPLING - 0.5
    rgb, depth, floor = _cast(camera, *np.meshgrid(x, y), session=session)
    return Backdrop(
        rgb=cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA),
        depth=depth.astype(np.float32),
        # The first sample of a pixel is accurate enough for a soft shadow.
        floor=floor[::SUPERSAMPLING, ::SUPERSAMPLING].astype(np.float32),
    )


def scene_depth(camera: Camera, xy: np.ndarray, session: int) -> np.ndarray:
    """Return the depth (...) of the furniture at image points xy (..., 2); infinite where there is none."""
    origin, rays = camera.center, camera.rays(xy[..., 0], xy[..., 1])
    return np.minimum.reduce([_meet_box(box, origin, rays)[0] for box in furniture(session)])


def _cast(camera: Camera, x: np.ndarray, y: np.ndarray, *, session: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    # Color (..., 3), depth (...) and floor position (..., 2) along the rays through pixels.
    origin, rays = camera.center, camera.rays(x, y)
    safe = np.where(np.abs(rays) < 1e-9, 1e-9, rays)
    depth = np.where(safe[..., 2] < 0, -origin[2] / safe[..., 2], np.inf)
    spot = origin[:2] + np.where(np.isfinite(depth), depth, 0.0)[..., None] * rays[..., :2]
    rgb = _paint("boards", session, spot[..., 0], spot[..., 1])
    floor = np.where(np.isfinite(depth)[..., None], spot, 1e3)

    # Walls: the nearest of the two planes that the ray leaves the room through.
    leave = (np.sign(safe[..., :2]) * _HALF_WIDTH - origin[:2]) / safe[..., :2]
    wall = leave.argmin(axis=-1)
    reach = leave.min(axis=-1)
    spot = origin + reach[..., None] * rays
    along = np.where(wall == 0, spot[..., 1], spot[..., 0])
    sign = np.take_along_axis(safe[..., :2], wall[..., None], axis=-1)[..., 0] > 0
    bricks = _paint("bricks", session, along, -spot[..., 2])
    paper = _paint("paper", session, along, -spot[..., 2])
    side = np.where((wall + sign) % 2 == 0, 1.0, 0.86)
    wall_rgb = np.where((wall == 0)[..., None], bricks, paper) * side[..., None]
    skirting = (spot[..., 2] < 0.12)[..., None]
    wall_rgb = np.where(skirting, np.array([205.0, 200.0, 190.0]), wall_rgb)
    nearer = reach < depth
    rgb = np.where(nearer[..., None], wall_rgb, rgb)
    floor = np.where(nearer[..., None], 1e3, floor)
    depth = np.minimum(depth, reach)

    for box in furniture(session):
        window = _shown(box, camera, x, y)
        if window is None:
            continue
        reach, face, local = _meet_box(box, origin, rays[window])
        nearer = reach < depth[window]
        across = np.where(face == 0, local[..., 1], local[..., 0])[nearer]
        up = np.where(face == 2, local[..., 1], -local[..., 2])[nearer]
        light = np.array([0.8, 0.95, 1.12])[face[nearer]]
        rgb[window][nearer] = _paint(box.kind, box.variant, across, up) * light[:, None]
        floor[window][nearer] = 1e3
        depth[window][nearer] = reach[nearer]
    return np.clip(rgb, 0, 255).astype(np.float32), depth, floor


def _shown(box: Box, camera: Camera, x: np.ndarray, y: np.ndarray) -> tuple[slice, slice] | None:
    # The rows and columns of a grid of pixels that can show a box; None when it is out of sight.
    signs = np.array([[i, j, k] for i in (-0.5, 0.5) for j in (-0.5, 0.5) for k in (0.0, 1.0)])
    local = signs * np.array(box.size)
    cos, sin = np.cos(box.turn), np.sin(box.turn)
    corners = np.stack([cos * local[:, 0] - sin * local[:, 1], sin * local[:, 0] + cos * local[:, 1], local[:, 2]], -1)
    corners[:, :2] += box.center
    xy, depth = camera.project(corners)
    if depth.max() <= 0.1:
        return None
    if depth.min() <= 0.1:
        return slice(0, x.shape[0]), slice(0, x.shape[1])
    columns = np.flatnonzero((x[0] >= xy[:, 0].min() - 1) & (x[0] <= xy[:, 0].max() + 1))
    rows = np.flatnonzero((y[:, 0] >= xy[:, 1].min() - 1) & (y[:, 0] <= xy[:, 1].max() + 1))
    if not len(columns) or not len(rows):
        return None
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _meet_box(box: Box, origin: np.ndarray, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    # Slab test in the frame of the box: depth (inf: missed), axis of the face, and position on the box.
    turn = np.array([[np.cos(box.turn), np.sin(box.turn), 0], [-np.sin(box.turn), np.cos(box.turn), 0], [0, 0, 1.0]])
    half = np.array(box.size) / 2
    start = turn @ (origin - np.array([*box.center, half[2]]))
    heading = rays @ turn.T
    heading = np.where(np.abs(heading) < 1e-9, 1e-9, heading)
    first, second = (-half - start) / heading, (half - start) / heading
    enter, leave = np.minimum(first, second), np.maximum(first, second)
    face = enter.argmax(axis=-1)
    near = enter.max(axis=-1)
    met = (near < leave.min(axis=-1)) & (near > 0)
    depth = np.where(met, near, np.inf)
    return depth, face, start + near[..., None] * heading


def _paint(kind: str, variant: int, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    image = surface(kind, variant % 2)
    side = image.shape[0]
    column = np.floor(u / _TEXTURE_SPAN * side).astype(np.int64) % side
    row = np.floor(v / _TEXTURE_SPAN * side).astype(np.int64) % side
    return image[row, column]
