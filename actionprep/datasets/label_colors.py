"""Colors of labels: the same label has the same color in every image, video and page of a study. All are RGB, 0 to 255."""

from __future__ import annotations

import math
from collections.abc import Iterable

from actionprep.datasets.natural_order import natural_key

Color = tuple[int, int, int]

NOTHING: Color = (201, 206, 214)
"""No label: background and ignored windows."""


def label_colors(labels: Iterable[str], *, nothing: Iterable[str] = (), others: Iterable[str] = ()) -> dict[str, Color]:
    """Choose one color per label. The choice depends only on the set of labels, not on their order.

    Args:
        labels: All labels of the study, so that its images, videos and pages agree.
        nothing: Labels that mean that nothing happens, such as the background class. They are gray.
        others: Labels that the study does not have. They come after its own and leave their colors as they are.

    Returns:
        A color for each label, and gray for "".
    """
    gray = {"", *nothing}
    names = sorted(set(labels) - gray, key=natural_key)
    more = sorted(set(others) - gray - set(names), key=natural_key)
    fixed = _CATEGORIES if len(names) <= len(_CATEGORIES) else ()
    colors = {
        name: fixed[index] if index < len(fixed) else _on_circle(index) for index, name in enumerate([*names, *more])
    }
    return {**colors, **dict.fromkeys(gray, NOTHING)}


def oklch(lightness: float, chroma: float, hue: float) -> Color:
    """Convert OKLCH to sRGB. The chroma is lowered until the color is within the sRGB gamut.

    Args:
        lightness: Perceived lightness in [0, 1].
        chroma: Wanted chroma.
        hue: Hue in degrees.

    References:
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


# Ten hues that most people can distinguish, ordered so that neighbors differ. More labels use the hue circle.
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


def _on_circle(index: int) -> Color:
    # Steps of the golden angle keep hues far apart. Three lightnesses distinguish later rounds.
    return oklch((0.66, 0.78, 0.56)[index % 3], 0.16, (250 + index * 137.508) % 360)
