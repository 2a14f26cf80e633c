"""Triangulated points against known positions, with lens distortion, wrong views and wrong cameras."""

from __future__ import annotations

import numpy as np
import pytest

from actionprep.datasets.cameras import Camera
from actionprep.datasets.triangulation import epipolar_distances, triangulate


def camera(view: str, azimuth: float, *, distance: float = 4.0) -> Camera:
    """A camera with lens distortion that looks at the origin from a direction in the plane z = 0."""
    forward = -np.array([np.cos(azimuth), np.sin(azimuth), 0.0])
    down = np.array([0.0, 0.0, -1.0])
    rotation = np.stack([np.cross(down, forward), down, forward])
    return Camera(
        view,
        np.array([[900.0, 0, 320], [0, 910.0, 240], [0, 0, 1]]),
        np.array([-0.2, 0.05, 0.001, -0.002]),
        rotation,
        -rotation @ (-forward * distance),
        unit="m",
    )


CAMERAS = [camera(name, azimuth) for name, azimuth in (("a", 0.0), ("b", 1.3), ("c", 2.5), ("d", 4.0))]


@pytest.fixture
def points() -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.8, 0.8, (40, 3))


def seen(points: np.ndarray) -> np.ndarray:
    return np.stack([camera.project(points) for camera in CAMERAS])


def test_triangulate_exact_pixels(points: np.ndarray):
    result = triangulate(CAMERAS, seen(points), np.ones((4, 40)))
    assert np.abs(result.xyz - points).max() < 1e-6
    assert result.error.max() < 1e-4
    assert result.used.all()


def test_triangulate_leaves_out_a_wrong_view(points: np.ndarray):
    xy = seen(points)
    xy[2, :10] += [150, -80]
    result = triangulate(CAMERAS, xy, np.ones((4, 40)))
    assert not result.used[2, :10].any()
    assert result.used[:, 10:].all()
    assert np.abs(result.xyz - points).max() < 1e-6


def test_triangulate_needs_two_views(points: np.ndarray):
    weight = np.ones((4, 40))
    weight[1:, :5] = 0
    weight[2:, 5:9] = 0
    result = triangulate(CAMERAS, seen(points), weight)
    assert np.isnan(result.xyz[:5]).all()
    assert np.isnan(result.error[:5]).all()
    assert not result.used[:, :5].any()
    assert np.abs(result.xyz[5:] - points[5:]).max() < 1e-6


def test_triangulate_error_is_the_distance_in_pixels(points: np.ndarray):
    rng = np.random.default_rng(1)
    xy = seen(points) + rng.normal(0, 2, (4, 40, 2))
    result = triangulate(CAMERAS, xy, np.ones((4, 40)))
    distance = [np.linalg.norm(camera.project(result.xyz) - xy[k], axis=-1) for k, camera in enumerate(CAMERAS)]
    assert result.error == pytest.approx(np.mean(distance, axis=0))
    assert np.linalg.norm(result.xyz - points, axis=1).mean() < 0.02


def test_epipolar_distances_of_partners_and_of_others(points: np.ndarray):
    xy = seen(points)
    assert epipolar_distances(CAMERAS[0], CAMERAS[1], xy[0], xy[1]).max() < 1e-4
    # In this rig epipolar lines are nearly horizontal, so a vertical shift of 10 px is nearly the distance.
    moved = epipolar_distances(CAMERAS[0], CAMERAS[1], xy[0], xy[1] + [0, 10])
    assert np.median(moved) == pytest.approx(10, rel=0.2)
    assert np.median(epipolar_distances(CAMERAS[0], CAMERAS[2], xy[0], xy[1])) > 10
