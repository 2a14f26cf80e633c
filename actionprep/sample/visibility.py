"""Visibility of skin points and joints, computed from ellipsoids and furniture instead of images."""

from __future__ import annotations

import numpy as np

from actionprep.sample.body import Body
from actionprep.sample.cameras import Camera
from actionprep.sample.room import scene_depth

_SKIN = 0.012  # meters by which a surface may be in front of its own point without hiding it
_FLESH = 0.13  # meters of body in front of a joint that counts as visible


def visible_points(
    camera: Camera, body: Body, position: np.ndarray, normal: np.ndarray, *, session: int
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (T, N, 2) and visibility (T, N) bool of skin points.

    position (T, N, 3) meters and normal (T, N, 3) outward, as `Body.surface` returns them. A point is visible if it is
    inside the image, faces the camera, and neither another part of the body nor furniture is in front of it.
    """
    xy, depth = camera.project(position)
    faces = np.einsum("tni,tni->tn", camera.center - position, normal) > 0
    clear = body_depth(camera, body, position) > depth - _SKIN
    clear &= scene_depth(camera, xy, session) > depth
    return xy, faces & clear & inside_image(camera, xy)


def visible_joints(camera: Camera, body: Body, *, session: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (T, 25, 2) and visibility (T, 25) bool of the joints.

    A joint is visible if it is inside the image and only its own body part is in front of it.
    """
    xy, depth = camera.project(body.joints)
    clear = body_depth(camera, body, body.joints) > depth - _FLESH
    clear &= scene_depth(camera, xy, session) > depth
    return xy, clear & inside_image(camera, xy)


def inside_image(camera: Camera, xy: np.ndarray) -> np.ndarray:
    """Whether pixels (..., 2) are on the image, including half a pixel around the outermost centers."""
    limit = np.array(camera.size) - 0.5
    return np.asarray(((xy >= -0.5) & (xy < limit)).all(axis=-1))


def body_depth(camera: Camera, body: Body, target: np.ndarray) -> np.ndarray:
    """Depth (T, N) at which the ray towards each target (T, N, 3) first meets the body; infinite where it misses."""
    unit = np.swapaxes(body.axes, -1, -2) / body.radii[None, :, :, None]
    origin = np.einsum("tpij,tpj->tpi", unit, camera.center - body.centers)
    _, depth = camera.project(target)
    heading = (target - camera.center) / depth[..., None]
    rays = np.swapaxes(unit @ np.swapaxes(heading, -1, -2)[:, None], -1, -2)  # (T, P, N, 3)
    square = (rays**2).sum(-1)
    aimed = np.einsum("tpi,tpni->tpn", origin, rays)
    inner = aimed**2 - square * ((origin**2).sum(-1) - 1)[..., None]
    near = np.where(inner > 0, (-aimed - np.sqrt(np.maximum(inner, 0.0))) / square, np.inf)
    return np.asarray(near.min(axis=1))
