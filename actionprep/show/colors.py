"""Colors of labels, points, persons and backgrounds. All are RGB, 0 to 255."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from actionprep.datasets.label_colors import Color, oklch

ACCENT: Color = (0, 168, 150)
"""Outline of masks."""

LOST: Color = (168, 172, 180)
"""Occluded or lost points and their trails."""


@dataclass(frozen=True)
class Theme:
    """Colors of a page: background, text, secondary text, lines and empty areas."""

    ground: Color
    ink: Color
    quiet: Color
    line: Color
    empty: Color


LIGHT = Theme((255, 255, 255), (31, 35, 40), (96, 104, 115), (221, 225, 230), (238, 240, 243))
"""Theme of sheets and charts."""

DARK = Theme((19, 21, 26), (236, 239, 243), (152, 160, 172), (56, 61, 70), (32, 35, 42))
"""Theme of videos."""


def person_color(track_id: int) -> Color:
    """Return the color of a person; white for -1, an unidentified person."""
    return (255, 255, 255) if track_id < 0 else _PERSONS[track_id % len(_PERSONS)]


def point_colors(xy: np.ndarray) -> np.ndarray:
    """Color points by their direction from the median point, so that left and right differ.

    Args:
        xy: Positions, shape (N, 2). Non-finite ones become gray.

    Returns:
        RGB colors, shape (N, 3), uint8.
    """
    colors = np.full((len(xy), 3), LOST, np.uint8)
    finite = np.isfinite(xy).all(axis=1)
    if finite.any():
        around = xy[finite] - np.median(xy[finite], axis=0)
        turn = np.degrees(np.arctan2(around[:, 1], around[:, 0])).round().astype(int) % 360
        colors[finite] = _HUES[turn]
    return colors


def text_on(color: Color) -> Color:
    """Return black or white, whichever is more legible on this color (WCAG relative luminance)."""
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in _shares(color)]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return (20, 22, 26) if luminance > 0.30 else (255, 255, 255)


def unit(color: Color) -> tuple[float, float, float]:
    """Convert a color to the range 0 to 1, as matplotlib expects."""
    red, green, blue = _shares(color)
    return red, green, blue


# Distinct from the colors of left, right and middle limbs.
_PERSONS: tuple[Color, ...] = (
    (236, 203, 50),
    (168, 120, 232),
    (64, 205, 214),
    (240, 120, 180),
    (222, 84, 84),
    (178, 214, 96),
    (200, 160, 120),
)

# Blue is vivid only at a lower lightness than other hues.
_HUES = np.array(
    [oklch(0.75 - 0.13 * math.exp(-(((degree - 275) / 40) ** 2)), 0.24, degree) for degree in range(360)], np.uint8
)


def _shares(color: Color) -> list[float]:
    return [value / 255 for value in color]
