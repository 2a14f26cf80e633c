"""The eight calibrated cameras of the sample study, and their calibration file."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Camera:
    """A pinhole camera without distortion, and the timing of its files.

    view:         its id in file names.
    size:         (width, height) in pixels.
    matrix:       (3, 3) intrinsics; the center of the first pixel is (0, 0), as in OpenCV.
    rotation:     (3, 3) and translation (3,): x_camera = rotation @ x_world + translation, meters, world z up.
    rate:         frames per second; of the view with variable frame times the nominal rate.
    variable:     whether frame times are irregular and frames are dropped.
    clock_offset: seconds to add to the file's times to be on the recording's clock.
    """

    view: int
    size: tuple[int, int]
    matrix: np.ndarray
    rotation: np.ndarray
    translation: np.ndarray
    rate: Fraction = Fraction(25)
    variable: bool = False
    clock_offset: float = 0.0

    @property
    def center(self) -> np.ndarray:
        """Position of the lens (3,) in the world, meters."""
        return -self.rotation.T @ self.translation

    def project(self, xyz: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """World points (..., 3) to pixels (..., 2) and depth (...) along the optical axis, in meters."""
        seen = xyz @ self.rotation.T + self.translation
        image = seen @ self.matrix.T
        return image[..., :2] / image[..., 2:], seen[..., 2]

    def rays(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """World directions (..., 3) through pixels; scaled so that a ray's parameter is the depth."""
        normalized = np.stack(np.broadcast_arrays(x, y, 1.0), axis=-1) @ np.linalg.inv(self.matrix).T
        return normalized @ self.rotation

    def frame_times(self, duration: float, rng: np.random.Generator) -> tuple[np.ndarray, Fraction]:
        """Ticks (T,) int64 of the frames of a recording of `duration` seconds, and the time base.

        A frame's time on the recording's clock is ticks * time base + clock_offset.
        """
        span = duration - self.clock_offset
        count = int(np.ceil(span * float(self.rate) - 1e-9))
        if not self.variable:
            return np.arange(count, dtype=np.int64), 1 / self.rate
        nominal = 1000 / float(self.rate)
        # More than needed, because the steps may be short. The surplus is cut.
        steps = nominal * rng.uniform(0.65, 1.35, 2 * count)
        steps[rng.random(2 * count) < 0.05] += nominal  # dropped frames
        ticks = np.concatenate([[0], np.cumsum(np.round(steps))]).astype(np.int64)
        return ticks[ticks < span * 1000], Fraction(1, 1000)


@dataclass(frozen=True)
class _Mount:
    # Position and properties of one camera: meters, pixels, frames per second.
    size: tuple[int, int]
    rate: Fraction
    distance: float
    height: float
    pixels_per_meter: float
    variable: bool = False
    clock_offset: float = 0.0


# View k is at an azimuth of 45 k degrees around the body, which faces view 0. Distances are long, lenses are narrow and
# views 0, 1, 3 and 6 are at hip height, so that perspective contains almost no information about depth. These four views
# look along the four horizontal lines of the actions (0, 45, 135 and 90 degrees).
_MOUNTS = (
    _Mount((192, 144), Fraction(20), 17.0, 1.0, 60.0),
    _Mount((176, 144), Fraction(16), 18.0, 0.9, 58.0),
    _Mount((160, 128), Fraction(10), 9.0, 1.9, 52.0),
    _Mount((192, 144), Fraction(15), 17.5, 1.1, 59.0, variable=True),
    _Mount((176, 144), Fraction(25, 2), 16.0, 1.3, 57.0),
    _Mount((160, 120), Fraction(15000, 1001), 9.5, 3.0, 48.0),
    _Mount((144, 192), Fraction(15), 16.5, 1.0, 68.0, clock_offset=0.12),
    _Mount((256, 192), Fraction(6), 8.5, 1.6, 78.0),
)


def camera_ring(count: int = len(_MOUNTS)) -> tuple[Camera, ...]:
    """Return the first `count` of the eight cameras around the origin."""
    return tuple(_camera(view, mount) for view, mount in enumerate(_MOUNTS[:count]))


def _camera(view: int, mount: _Mount) -> Camera:
    azimuth = np.radians(45.0 * view)
    center = np.array([mount.distance * np.cos(azimuth), mount.distance * np.sin(azimuth), mount.height])
    forward = np.array([0.0, 0.0, 0.95]) - center
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    width, height = mount.size
    focal = mount.pixels_per_meter * mount.distance
    matrix = np.array([[focal, 0.0, (width - 1) / 2], [0.0, focal, (height - 1) / 2], [0.0, 0.0, 1.0]])
    return Camera(
        view=view,
        size=mount.size,
        matrix=matrix,
        rotation=rotation,
        translation=-rotation @ center,
        rate=mount.rate,
        variable=mount.variable,
        clock_offset=mount.clock_offset,
    )


def write_calibration(path: Path, cameras: tuple[Camera, ...]) -> None:
    """Write a TOML file with one table per camera, in the format of Pose2Sim.

    Keys: name, size (width, height), matrix, distortions (all zero), rotation (Rodrigues vector, world to camera),
    translation (meters), fisheye.
    """
    import cv2

    lines = []
    for camera in cameras:
        rodrigues, _ = cv2.Rodrigues(camera.rotation)
        lines += [
            f"[cam_{camera.view}]",
            f'name = "cam{camera.view}"',
            f"size = {[float(side) for side in camera.size]}",
            f"matrix = {camera.matrix.tolist()}",
            "distortions = [0.0, 0.0, 0.0, 0.0]",
            f"rotation = {rodrigues.ravel().tolist()}",
            f"translation = {camera.translation.tolist()}",
            "fisheye = false",
            "",
        ]
    path.write_text("\n".join(lines), encoding="utf-8")


def read_calibration(path: Path) -> dict[int, Camera]:
    """Read the cameras of a calibration file, by view. A calibration has no frame rates and clocks."""
    import cv2

    cameras = {}
    for table in tomllib.loads(path.read_text(encoding="utf-8")).values():
        view = int(str(table["name"]).removeprefix("cam"))
        rotation, _ = cv2.Rodrigues(np.array(table["rotation"]))
        cameras[view] = Camera(
            view=view,
            size=(int(table["size"][0]), int(table["size"][1])),
            matrix=np.array(table["matrix"]),
            rotation=rotation,
            translation=np.array(table["translation"]),
        )
    return cameras
