"""Cameras of a calibration: read them from files of other tools, project points, remove lens distortion."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from actionprep.datasets.findings import Finding
from actionprep.datasets.names_to_ids import id_of_name
from actionprep.datasets.tables import decode_head
from actionprep.datasets.view_ids import views_with_number
from actionprep.errors import UserError
from actionprep.registry import Entry, Registry

_LARGEST = 1 << 22
"""Largest number of bytes of a calibration file."""

_DISTORTION_LENGTHS = (0, 4, 5, 8, 12)


@dataclass(frozen=True, eq=False)
class Camera:
    """A pinhole camera with lens distortion, in OpenCV's conventions.

    A world point X has the camera coordinates R X + t. The camera looks along +z, x points right and y points down.

    Attributes:
        view: Name of the camera in its file; in the catalog, the id of the view.
        matrix: Intrinsic matrix K in pixels, float64 of shape (3, 3).
        distortion: Coefficients k1, k2, p1, p2[, k3[, k4, k5, k6[, s1, s2, s3, s4]]], or k1 … k4 of the fisheye model;
            float64 of shape (D,), D in {0, 4, 5, 8, 12}.
        rotation: R, float64 of shape (3, 3); None if the file has intrinsics only.
        translation: t in `unit`, float64 of shape (3,); None if the file has intrinsics only.
        width: Width of the calibrated images in pixels; 0 if the file does not state it.
        height: Height, likewise.
        unit: Unit of the world: "m" or "mm"; empty if the format does not define it.
        fisheye: Whether `distortion` is of OpenCV's fisheye model.
        source: Name of the format that the camera was read from.
    """

    view: str
    matrix: np.ndarray
    distortion: np.ndarray
    rotation: np.ndarray | None = None
    translation: np.ndarray | None = None
    width: int = 0
    height: int = 0
    unit: str = ""
    fisheye: bool = False
    source: str = ""

    def __post_init__(self) -> None:
        matrix = _numbers(self.matrix, (3, 3), "intrinsic matrix", self.view)
        if not (matrix[0, 0] > 0 and matrix[1, 1] > 0):
            raise UserError(
                f"Camera '{self.view}': expected positive focal lengths, got {matrix[0, 0]}, {matrix[1, 1]}."
            )
        distortion = _numbers(self.distortion, None, "distortion", self.view)
        lengths = (0, 4) if self.fisheye else _DISTORTION_LENGTHS
        if len(distortion) not in lengths:
            raise UserError(
                f"Camera '{self.view}': expected {', '.join(map(str, lengths[:-1]))} or {lengths[-1]} distortion "
                f"coefficients, got {len(distortion)}."
            )
        object.__setattr__(self, "matrix", matrix)
        object.__setattr__(self, "distortion", distortion)
        if (self.rotation is None) != (self.translation is None):
            missing = "rotation" if self.rotation is None else "translation"
            raise UserError(f"Camera '{self.view}': the {missing} is missing.")
        if self.rotation is not None:
            rotation = np.asarray(self.rotation, np.float64)
            if rotation.size == 3:
                rotation = rotation_from_vector(_numbers(rotation.reshape(-1), (3,), "rotation", self.view))
            rotation = _numbers(rotation, (3, 3), "rotation", self.view)
            if np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-3 or np.linalg.det(rotation) < 0:
                raise UserError(f"Camera '{self.view}': its rotation matrix is not a rotation.")
            object.__setattr__(self, "rotation", rotation)
            translation = np.asarray(self.translation, np.float64).reshape(-1)
            object.__setattr__(self, "translation", _numbers(translation, (3,), "translation", self.view))

    @property
    def center(self) -> np.ndarray:
        """Position of the camera in the world, in `unit`, float64 of shape (3,)."""
        rotation, translation = self._pose()
        return np.asarray(-rotation.T @ translation)

    def project(self, points: np.ndarray) -> np.ndarray:
        """Project world points into the image.

        Args:
            points: Points in `unit`, shape (..., 3).

        Returns:
            Pixels, float64 of shape (..., 2). NaN for points that are not in front of the camera.

        Raises:
            UserError: If the camera has intrinsics only.
        """
        rotation, translation = self._pose()
        inside = np.asarray(points, np.float64) @ rotation.T + translation
        depth = np.where(inside[..., 2:] > 0, inside[..., 2:], np.nan)
        return self.distort(inside[..., :2] / depth)

    def distort(self, rays: np.ndarray) -> np.ndarray:
        """Convert normalized image coordinates x/z, y/z of shape (..., 2) to pixels with lens distortion."""
        rays = np.asarray(rays, np.float64)
        return np.asarray(self._distorted(rays) @ self.matrix[:2, :2].T + self.matrix[:2, 2])

    def undistort(self, pixels: np.ndarray) -> np.ndarray:
        """Convert pixels to normalized image coordinates x/z, y/z without lens distortion.

        Inverts `distort` by Newton's method.

        Args:
            pixels: Positions in the image, shape (..., 2).

        Returns:
            Coordinates on the plane z = 1, float64 of shape (..., 2). NaN where the lens model has no inverse.
        """
        pixels = np.asarray(pixels, np.float64)
        target = (pixels - self.matrix[:2, 2]) @ np.linalg.inv(self.matrix[:2, :2]).T
        if not self.distortion.any() and not self.fisheye:
            return np.asarray(target)
        rays = self._first_guess(target)
        step = 1e-6
        with np.errstate(all="ignore"):
            for _ in range(50):
                error = self._distorted(rays) - target
                if not np.nanmax(np.abs(error), initial=0.0) > 1e-12:
                    break
                columns = [
                    (self._distorted(rays + shift) - self._distorted(rays - shift)) / (2 * step)
                    for shift in (np.array([step, 0.0]), np.array([0.0, step]))
                ]
                (a, c), (b, d) = (np.moveaxis(column, -1, 0) for column in columns)
                scale = a * d - b * c
                x, y = error[..., 0], error[..., 1]
                rays = rays - np.stack([d * x - b * y, a * y - c * x], axis=-1) / scale[..., None]
            residual = np.abs(self._distorted(rays) - target).max(axis=-1, keepdims=True)
            return np.where(residual < 1e-7, rays, np.nan)

    def cropped(self, x: int, y: int, width: int, height: int) -> Camera:
        """Return the camera of a rectangle of its image, given in pixels."""
        matrix = self.matrix.copy()
        matrix[:2, 2] -= (x, y)
        return replace(self, matrix=matrix, width=width, height=height)

    def _pose(self) -> tuple[np.ndarray, np.ndarray]:
        if self.rotation is None or self.translation is None:
            raise UserError(
                f"Camera '{self.view}' has no position: its file has intrinsics only. Use a calibration of all cameras "
                "together (extrinsics)."
            )
        return self.rotation, self.translation

    def _first_guess(self, target: np.ndarray) -> np.ndarray:
        if not self.fisheye:
            return target.copy()
        radius = np.linalg.norm(target, axis=-1, keepdims=True)
        # Without distortion, the radius of the fisheye model is the angle to the axis.
        scale = np.tan(np.minimum(radius, 1.5)) / np.where(radius > 1e-9, radius, 1.0)
        return np.asarray(target * np.where(radius > 1e-9, scale, 1.0))

    def _distorted(self, rays: np.ndarray) -> np.ndarray:
        """Apply the lens model of OpenCV (documentation of calib3d) to normalized coordinates."""
        x, y = rays[..., 0], rays[..., 1]
        square = x * x + y * y
        k = np.zeros(12)
        k[: len(self.distortion)] = self.distortion
        if self.fisheye:
            radius = np.sqrt(square)
            angle = np.arctan(radius)
            powers = angle * angle
            bent = angle * (1 + powers * (k[0] + powers * (k[1] + powers * (k[2] + powers * k[3]))))
            return rays * np.where(radius > 1e-9, bent / np.where(radius > 1e-9, radius, 1.0), 1.0)[..., None]
        radial = 1 + square * (k[0] + square * (k[1] + square * k[4]))
        radial = radial / (1 + square * (k[5] + square * (k[6] + square * k[7])))
        return np.stack(
            [
                x * radial + 2 * k[2] * x * y + k[3] * (square + 2 * x * x) + square * (k[8] + square * k[9]),
                y * radial + k[2] * (square + 2 * y * y) + 2 * k[3] * x * y + square * (k[10] + square * k[11]),
            ],
            axis=-1,
        )


def rotation_from_vector(vector: np.ndarray) -> np.ndarray:
    """Return the matrix (3, 3) of a rotation vector (3,): its direction is the axis, its length the angle in radians."""
    angle = float(np.linalg.norm(vector))
    if angle < 1e-12:
        return np.eye(3)
    x, y, z = np.asarray(vector, np.float64) / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.asarray(np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross)


@dataclass(frozen=True)
class CalibrationFormat:
    """A format of calibration files.

    Attributes:
        name: Name in lists, and `Camera.source`.
        description: One line for lists of formats.
        suffixes: Suffixes of its files.
        recognizes: Whether a file has this format, from its path and its text.
        read: Reads the cameras from the path and the text.
    """

    name: str
    description: str
    suffixes: tuple[str, ...]
    recognizes: Callable[[Path, str], bool]
    read: Callable[[Path, str], list[Camera]]


_FOLDER = "actionprep.datasets.calibration_formats"

CALIBRATION_FORMATS: Registry[CalibrationFormat] = Registry(
    "calibration format",
    "actionprep.calibration_formats",
    (
        Entry("anipose", f"{_FOLDER}.camera_toml:ANIPOSE"),
        Entry("caliscope", f"{_FOLDER}.camera_toml:CALISCOPE"),
        Entry("freemocap", f"{_FOLDER}.camera_toml:FREEMOCAP"),
        Entry("opencv", f"{_FOLDER}.opencv_storage:FORMAT"),
        Entry("pose2sim", f"{_FOLDER}.camera_toml:POSE2SIM"),
    ),
    plural="Formats",
    instance_of="actionprep.datasets.cameras:CalibrationFormat",
)
"""Formats of calibration files by name."""


def calibration_files(path: Path) -> list[Path]:
    """Return the files of a calibration: the file itself, or those in a folder that have the suffix of a format."""
    if not path.is_dir():
        return [path]
    suffixes = {suffix for format in CALIBRATION_FORMATS.working().values() for suffix in format.suffixes}
    return sorted(file for file in path.iterdir() if file.suffix.lower() in suffixes and file.name[0] != ".")


def read_calibration(path: str | Path) -> list[Camera]:
    """Read the cameras of a calibration.

    Args:
        path: File of one of `CALIBRATION_FORMATS`, or a folder with one such file per camera.

    Returns:
        The cameras in the order of the file; `view` is the camera's name there.

    Raises:
        UserError: If the file cannot be read, is of no known format, or has a wrong camera.
    """
    path = Path(path)
    files = calibration_files(path)
    if not files:
        raise UserError(f"No calibration in {path}: expected files such as calibration.toml or cam1.yml.")
    cameras = [camera for file in files for camera in _read_file(file)]
    sources: dict[str, Camera] = {}
    for camera in cameras:
        if camera.view in sources:
            raise UserError(f"Two cameras in {path} have the name '{camera.view}'. Give each camera one name.")
        sources[camera.view] = camera
    return cameras


def _read_file(path: Path) -> list[Camera]:
    try:
        with open(path, "rb") as file:
            content = file.read(_LARGEST + 1)
    except OSError as error:
        raise UserError(f"Cannot read the calibration {path}: {error.strerror or error}.") from None
    if len(content) > _LARGEST:
        raise UserError(f"{path} is no calibration: it has more than {_LARGEST >> 20} MiB.")
    text = decode_head(content)
    formats = CALIBRATION_FORMATS.working()
    format = next((each for each in formats.values() if each.recognizes(path, text)), None)
    if format is None:
        known = "; ".join(f"{each.name} ({each.description})" for each in formats.values())
        hint = (
            " It is the settings file of an Anipose project; give its calibration.toml." if "board_type" in text else ""
        )
        raise UserError(f"Cannot detect the calibration format of {path}.{hint} Formats: {known}.")
    try:
        cameras = [replace(camera, source=format.name) for camera in format.read(path, text)]
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError, np.linalg.LinAlgError) as error:
        raise UserError(f"{path} is not a valid '{format.name}' calibration: {error}.") from None
    if not cameras:
        raise UserError(f"{path}: has no cameras.")
    return cameras


def cameras_of_views(
    cameras: Sequence[Camera],
    views: Mapping[str, tuple[int, int]],
    *,
    where: str,
    crops: Mapping[str, tuple[int, int, int, int]] | None = None,
) -> tuple[list[Camera], list[Finding]]:
    """Match the cameras of a calibration with the views of a study.

    An exact name wins. Otherwise the camera and the view with the same number, as the only number in their names, match.
    A camera that was calibrated on full frames of a view with a crop becomes the camera of that rectangle.

    Args:
        cameras: Cameras of the file.
        views: Width and height in pixels of each view; zeros if unknown.
        where: Name of the file, for findings.
        crops: Rectangles x, y, width, height in px of views that show a part of their file.

    Returns:
        Cameras with the ids of views, in the order of `views`, and findings.
    """
    names = list(views)
    matched: dict[str, Camera] = {}
    findings = []
    for camera in sorted(cameras, key=lambda camera: id_of_name(camera.view) not in views):
        name = id_of_name(camera.view)
        view: str | None = name if name in views else None
        if view is None:
            numbers = re.findall(r"\d{1,9}", name)
            similar = views_with_number(str(int(numbers[0])), names) if len(numbers) == 1 else []
            view = similar[0] if len(similar) == 1 and similar[0] not in matched else None
        if view is None:
            known = ", ".join(names)
            findings.append(Finding("camera not used", where, f"camera '{camera.view}' is no view; views: {known}"))
            continue
        matched[view] = replace(camera, view=view)
    for view in names:
        if view not in matched:
            findings.append(Finding("camera not used", where, f"view '{view}' has no camera in the calibration"))
            continue
        camera, size = matched[view], views[view]
        box = (crops or {}).get(view)
        if box is not None and (camera.width, camera.height) != size:
            if camera.width and (box[0] + box[2] > camera.width or box[1] + box[3] > camera.height):
                message = (
                    f"camera '{view}' was calibrated at {camera.width} x {camera.height} px, and the rectangle of the view "
                    "reaches beyond that; it is left out"
                )
                findings.append(Finding("camera not used", where, message))
                del matched[view]
                continue
            matched[view] = camera.cropped(*box)
        elif camera.width and all(size) and (camera.width, camera.height) != size:
            message = (
                f"camera '{view}' was calibrated at {camera.width} x {camera.height} px and the view has "
                f"{size[0]} x {size[1]}: pixels of the two differ; it is left out"
            )
            findings.append(Finding("camera not used", where, message))
            del matched[view]
    return [matched[view] for view in names if view in matched], findings


def _numbers(values: Any, shape: tuple[int, ...] | None, what: str, view: str) -> np.ndarray:
    try:
        array = np.asarray(values, np.float64)
    except (ValueError, TypeError, OverflowError):
        raise UserError(f"Camera '{view}': the {what} is not made of numbers.") from None
    if shape is None:
        array = array.reshape(-1)
    elif array.shape != shape:
        raise UserError(f"Camera '{view}': expected the {what} with shape {shape}, got {array.shape}.")
    if not np.isfinite(array).all():
        raise UserError(f"Camera '{view}': the {what} is not finite.")
    return array
