"""Settings of heatmap volumes. This module does not import torch."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator

from actionprep.settings import Settings, option

Persons = Literal["max", "separate"]


class HeatmapSettings(Settings):
    """Settings for rendering keypoints as volumes."""

    kind: Literal["joint", "limb"] = option("joint", "One channel per joint, or one per limb.")
    size: tuple[int, int] = option((56, 56), "Height and width of the grid in px.")
    sigma: float = option(0.6, "Standard deviation of the Gaussian in px of the grid.", gt=0)
    truncate: float | None = option(
        3.0, "Half of the window in sigmas, as published. Not set: draw every pixel exactly."
    )
    persons: Persons = option("max", "Merge persons by maximum, or keep one volume per person.")
    compact: bool = option(True, "Crop to the people of the clip; otherwise use the full image.")
    padding: float = option(0.25, "Fraction by which the compact box is enlarged.", ge=0)
    square: bool = option(True, "Make the compact box square.")
    projection: Literal["xy", "xz", "yz"] = option("xy", "Plane that 3D poses are projected to.")
    camera: tuple[float, ...] = option(
        (), "Project 3D poses with this camera instead: the 12 numbers of its 3 x 4 matrix, row by row."
    )

    @field_validator("size")
    @classmethod
    def _positive(cls, size: tuple[int, int]) -> tuple[int, int]:
        if min(size) < 1:
            raise ValueError("The grid needs at least one pixel in each direction.")
        return size

    @field_validator("camera")
    @classmethod
    def _twelve(cls, camera: tuple[float, ...]) -> tuple[float, ...]:
        if len(camera) not in (0, 12):
            raise ValueError(f"A camera is a matrix of 3 rows and 4 columns: 12 numbers, got {len(camera)}")
        return camera

    @property
    def view(self) -> Literal["xy", "xz", "yz"] | list[list[float]]:
        """Projection of 3D poses: the camera if it is set, else the plane."""
        if not self.camera:
            return self.projection
        return [list(self.camera[row : row + 4]) for row in (0, 4, 8)]
