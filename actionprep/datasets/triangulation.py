"""Triangulate points that calibrated cameras see, and check cameras and clocks by epipolar geometry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from actionprep.datasets.cameras import Camera


@dataclass(frozen=True, slots=True)
class Triangulation:
    """Points in space.

    Attributes:
        xyz: Positions in the unit of the cameras, shape (P, 3); NaN where fewer than two cameras agree.
        error: Mean distance in pixels between a point, projected, and where the used cameras see it, shape (P,); NaN
            likewise.
        used: Cameras that each position is computed from, bool of shape (V, P).
    """

    xyz: np.ndarray
    error: np.ndarray
    used: np.ndarray


def triangulate(
    cameras: Sequence[Camera], xy: np.ndarray, weight: np.ndarray, *, max_error: float = 20.0
) -> Triangulation:
    """Compute positions in space by the weighted direct linear transform.

    While the mean reprojection error of a point exceeds `max_error`, the camera with the largest error is left out.

    Args:
        cameras: V cameras with positions.
        xy: Pixels of P points in each camera, shape (V, P, 2).
        weight: Weights, such as scores of joints, shape (V, P); 0 where a camera does not see the point.
        max_error: Largest mean reprojection error in pixels.

    Returns:
        The positions.

    Raises:
        UserError: If a camera has no position.

    References:
        Hartley and Zisserman, "Multiple View Geometry in Computer Vision", 2nd edition, section 12.2.
    """
    rays = np.stack([camera.undistort(pixels) for camera, pixels in zip(cameras, xy, strict=True)])
    used = (weight > 0) & np.isfinite(rays).all(axis=-1)
    rays = np.where(used[..., None], rays, 0.0)
    poses = np.stack([_extrinsics(camera) for camera in cameras])
    # Scaled, so that the error of each equation is about that in the image.
    focal = np.array([np.sqrt(camera.matrix[0, 0] * camera.matrix[1, 1]) for camera in cameras])
    rows = rays[..., None] * poses[:, None, None, 2] - poses[:, None, :2]  # (V, P, 2, 4)
    rows = rows * (focal / focal.max())[:, None, None, None]
    while True:
        scaled = rows * np.where(used, weight, 0.0)[..., None, None]
        system = scaled.transpose(1, 0, 2, 3).reshape(xy.shape[1], -1, 4)
        solution = np.linalg.svd(system)[2][:, -1]
        with np.errstate(all="ignore"):
            xyz = solution[:, :3] / solution[:, 3:]
        xyz[used.sum(axis=0) < 2] = np.nan
        distance = np.stack(
            [np.linalg.norm(camera.project(xyz) - pixels, axis=-1) for camera, pixels in zip(cameras, xy, strict=True)]
        )
        # Behind a used camera is as wrong as far away.
        distance = np.where(used, np.where(np.isnan(distance), np.inf, distance), 0.0)
        error = distance.sum(axis=0) / np.maximum(used.sum(axis=0), 1)
        bad = np.flatnonzero((error > max_error) & (used.sum(axis=0) >= 2))
        if not len(bad):
            break
        used[distance[:, bad].argmax(axis=0), bad] = False
    known = np.isfinite(xyz).all(axis=1)
    return Triangulation(
        np.where(known[:, None], xyz, np.nan), np.where(known, error, np.nan), used & known
    )  # fmt: skip


def epipolar_distances(a: Camera, b: Camera, xy_a: np.ndarray, xy_b: np.ndarray) -> np.ndarray:
    """Distances of points from the epipolar lines of their partners in another camera.

    Args:
        a: A camera.
        b: Another camera.
        xy_a: Pixels of points in camera a, shape (P, 2).
        xy_b: Pixels of the same points in camera b, shape (P, 2).

    Returns:
        Mean of the distances in both images in pixels, shape (P,): the coordinates are undistorted, and scaled by the
        focal length.

    Raises:
        UserError: If a camera has no position.
    """
    pose_a, pose_b = _extrinsics(a), _extrinsics(b)
    rotation = pose_b[:, :3] @ pose_a[:, :3].T
    x, y, z = pose_b[:, 3] - rotation @ pose_a[:, 3]
    essential = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ rotation
    rays_a, rays_b = (np.insert(camera.undistort(xy), 2, 1, axis=-1) for camera, xy in ((a, xy_a), (b, xy_b)))
    lines_b, lines_a = rays_a @ essential.T, rays_b @ essential
    product = np.abs((rays_b * lines_b).sum(axis=-1))
    focal_a, focal_b = (np.sqrt(camera.matrix[0, 0] * camera.matrix[1, 1]) for camera in (a, b))
    with np.errstate(all="ignore"):
        away_a = focal_a * product / np.linalg.norm(lines_a[..., :2], axis=-1)
        away_b = focal_b * product / np.linalg.norm(lines_b[..., :2], axis=-1)
    return np.asarray((away_a + away_b) / 2)


def _extrinsics(camera: Camera) -> np.ndarray:
    """Rotation and translation (3, 4) from the world to the camera."""
    center = camera.center  # raises for cameras without a position
    rotation = np.asarray(camera.rotation)
    return np.concatenate([rotation, -(rotation @ center)[:, None]], axis=1)
