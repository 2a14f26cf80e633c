"""Read calibrations in TOML with a table per camera: Pose2Sim, Anipose, Caliscope and FreeMoCap."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from actionprep.datasets.cameras import CalibrationFormat, Camera
from actionprep.errors import UserError

_UNITS = {"pose2sim": "m", "freemocap": "mm", "caliscope": "m", "anipose": ""}
"""Unit of translations. Anipose uses that of the board, which the file does not state."""


def _format_of(path: Path, text: str) -> str | None:
    """Return the name of the format of a TOML file; None if it is no calibration."""
    if path.suffix.lower() != ".toml":
        return None
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError):
        return "anipose" if "matrix" in text and "distortions" in text else None
    cameras = _tables(document.get("cameras")) or _tables(document)
    keys = {key for camera in cameras.values() for key in camera}
    if not cameras:
        return None
    if "cameras" in document or keys & {"verified_resolutions", "rotation_count", "grid_count"}:
        return "caliscope"
    metadata = document.get("metadata", {})
    if keys & {"world_position", "world_orientation"} or any("freemocap" in key for key in metadata):
        return "freemocap"
    # Anipose has the key for fisheye cameras only, and names its tables cam_0, cam_1, …
    states_pinhole = any(camera.get("fisheye") is False for camera in cameras.values())
    return "pose2sim" if states_pinhole or ("fisheye" in keys and "cam_0" not in cameras) else "anipose"


def _tables(document: Any) -> dict[str, dict[str, Any]]:
    """Return the tables of cameras, which have an intrinsic matrix or what belongs to it."""
    if not isinstance(document, Mapping):
        return {}
    return {
        str(name): table
        for name, table in document.items()
        if isinstance(table, dict) and ("matrix" in table or "distortions" in table)
    }


def _read(name: str, path: Path, text: str) -> list[Camera]:
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"is not valid TOML: {error}.") from None
    tables = _tables(document.get("cameras")) or _tables(document)
    return [_camera(key, table, name) for key, table in tables.items()]


def _camera(key: str, table: dict[str, Any], format: str) -> Camera:
    view = str(table.get("name", table.get("cam_id", table.get("port", key))))
    for needed in ("matrix", "distortions", "rotation", "translation"):
        if needed not in table:
            raise UserError(f"Camera '{view}': the key '{needed}' is missing. Calibrate all cameras and save again.")
    size = table.get("size", (0, 0))
    if not (isinstance(size, (list, tuple)) and len(size) == 2 and all(isinstance(n, (int, float)) for n in size)):
        raise UserError(f"Camera '{view}': expected the size as [width, height], got {size!r:.60}.")
    return Camera(
        view,
        matrix=table["matrix"],
        distortion=table["distortions"],
        rotation=table["rotation"],
        translation=table["translation"],
        width=int(size[0]),
        height=int(size[1]),
        unit=_UNITS[format],
        fisheye=table.get("fisheye") is True,
    )


def _toml_format(name: str, description: str) -> CalibrationFormat:
    return CalibrationFormat(
        name, description, (".toml",), lambda path, text: _format_of(path, text) == name, partial(_read, name)
    )


ANIPOSE = _toml_format("anipose", "Anipose calibration.toml")
CALISCOPE = _toml_format("caliscope", "Caliscope camera_array.toml or config.toml")
FREEMOCAP = _toml_format("freemocap", "FreeMoCap camera calibration toml")
POSE2SIM = _toml_format("pose2sim", "Pose2Sim Calib*.toml")
