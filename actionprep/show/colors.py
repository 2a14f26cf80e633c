"""Colors of everything that is drawn: the ground, labels, points, persons. All are RGB, 0 to 255."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from actionprep.datasets.natural_order import natural_key

Color = tuple[int, int, int]

ACCENT: Color = (0, 168, 150)
"""Outline of masks."""

LOST: Color = (168, 172, 180)
"""What is there but not seen: occluded points and their trails."""

NOTHING: Color = (201, 206, 214)
"""No label: background and ignored windows."""


@dataclass(frozen=True)
class Theme:
    """The colors of what lies around pictures."""

    ground: Color
    ink: Color
    quiet: Color
    line: Color
    empty: Color


LIGHT = Theme((255, 255, 255), (31, 35, 40), (96, 104, 115), (221, 225, 230), (238, 240, 243))
"""For sheets, which stand on pages."""

DARK = Theme((19, 21, 26), (236, 239, 243), (152, 160, 172), (56, 61, 70), (32, 35, 42))
"""For films."""


def label_colors(labels: Iterable[str], *, nothing: Iterable[str] = ()) -> dict[str, Color]:
    """One color a label, the same for the same set of labels in whatever order.

    nothing: labels that mean that nothing happens, such as the background class; they are gray.
    """
    quiet = {"", *nothing}
    names = sorted({label for label in labels if label not in quiet}, key=natural_key)
    found = {name: _nth(at, len(names)) for at, name in enumerate(names)}
    return {**found, **dict.fromkeys(quiet, NOTHING)}


def person_color(track_id: int) -> Color:
    """The color of a person with this number; white for -1, which is nobody in particular."""
    return (255, 255, 255) if track_id < 0 else _PERSONS[track_id % len(_PERSONS)]


def point_colors(xy: np.ndarray) -> np.ndarray:
    """(N, 2) positions → (N, 3) uint8: vivid hues around the middle of the points, so that left and right differ.

    Not finite positions are gray.
    """
    found = np.full((len(xy), 3), LOST, np.uint8)
    finite = np.isfinite(xy).all(axis=1)
    if finite.any():
        around = xy[finite] - np.median(xy[finite], axis=0)
        turn = np.degrees(np.arctan2(around[:, 1], around[:, 0])).round().astype(int) % 360
        found[finite] = _HUES[turn]
    return found


def text_on(color: Color) -> Color:
    """Black or white, whichever reads better on this color (WCAG relative luminance)."""
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in _shares(color)]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return (20, 22, 26) if luminance > 0.30 else (255, 255, 255)


def unit(color: Color) -> tuple[float, float, float]:
    """The same color from 0 to 1, as matplotlib wants it."""
    red, green, blue = _shares(color)
    return red, green, blue


def oklch(lightness: float, chroma: float, hue: float) -> Color:
    """A color of even lightness in every hue (degrees), with its chroma lowered until sRGB has it.

    Björn Ottosson, "A perceptual color space for image processing", 2020 (OKLab and its matrices).
    """
    while True:
        a, b = chroma * math.cos(math.radians(hue)), chroma * math.sin(math.radians(hue))
        long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
        middle = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
        short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
        linear = (
            4.0767416621 * long - 3.3077115913 * middle + 0.2309699292 * short,
            -1.2684380046 * long + 2.6097574011 * middle - 0.3413193965 * short,
            -0.0041960863 * long - 0.7034186147 * middle + 1.7076147010 * short,
        )
        if chroma < 1e-3 or all(-1e-4 <= value <= 1.0001 for value in linear):
            break
        chroma *= 0.96
    encoded = [12.92 * v if v <= 0.0031308 else 1.055 * v ** (1 / 2.4) - 0.055 for v in (max(0.0, v) for v in linear)]
    red, green, blue = (round(255 * min(1.0, value)) for value in encoded)
    return red, green, blue


# Ten hues that stay apart for most eyes, in an order in which neighbors differ; more labels go round the hues.
_CATEGORIES: tuple[Color, ...] = (
    (52, 120, 207),
    (240, 142, 43),
    (46, 160, 100),
    (214, 69, 80),
    (140, 100, 200),
    (20, 172, 184),
    (230, 110, 170),
    (184, 160, 30),
    (128, 92, 70),
    (120, 172, 60),
)

# Away from the colors of left, right and middle limbs.
_PERSONS: tuple[Color, ...] = (
    (236, 203, 50),
    (168, 120, 232),
    (64, 205, 214),
    (240, 120, 180),
    (222, 84, 84),
    (178, 214, 96),
    (200, 160, 120),
)

# Blues are vivid only when they are darker than other hues.
_HUES = np.array(
    [oklch(0.75 - 0.13 * math.exp(-(((degree - 275) / 40) ** 2)), 0.24, degree) for degree in range(360)], np.uint8
)


def _nth(at: int, total: int) -> Color:
    if total <= len(_CATEGORIES):
        return _CATEGORIES[at]
    # Steps of the golden angle never come close to each other soon; two lightnesses tell later rounds apart.
    return oklch((0.66, 0.78, 0.56)[at % 3], 0.16, (250 + at * 137.508) % 360)


def _shares(color: Color) -> list[float]:
    return [value / 255 for value in color]


def merged(*parts: Mapping[str, Color]) -> dict[str, Color]:
    """Several maps from label to color as one; the first that knows a label wins."""
    found: dict[str, Color] = {}
    for part in parts:
        for label, color in part.items():
            found.setdefault(label, color)
    return found
