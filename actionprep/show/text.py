"""Draw antialiased text onto images, in the typeface that ships with matplotlib."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np

from actionprep.datasets.label_colors import Color

Anchor = Literal["left", "middle", "right"]


def text_width(text: str, size: int, *, bold: bool = False) -> int:
    """Return the width of a line in pixels."""
    return _letters(text, size, bold).shape[1]


def line_height(size: int) -> int:
    """Return the distance between lines in pixels."""
    return round(size * 1.35)


def fitted(text: str, width: int, size: int, *, bold: bool = False) -> str:
    """Shorten a text with an ellipsis in its middle to fit a width; "" if nothing fits."""
    if text_width(text, size, bold=bold) <= width:
        return text
    for kept in range(len(text) - 1, 0, -1):
        head = (kept + 1) // 2
        short = f"{text[:head].rstrip()}…{text[len(text) - (kept - head) :].lstrip() if kept > head else ''}"
        if text_width(short, size, bold=bold) <= width:
            return short
    return ""


def broken(text: str, width: int, size: int) -> list[str]:
    """Wrap a text between words to fit a width. Words that are too long are shortened."""
    lines: list[str] = []
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(longer, size) <= width:
            lines[-1] = longer
        else:
            lines.append(fitted(word, width, size))
    return [line.strip(" ·") for line in lines]


def put_text(
    image: np.ndarray,
    text: str,
    xy: tuple[float, float],
    *,
    size: int,
    color: Color,
    bold: bool = False,
    anchor: Anchor = "left",
    halo: Color | None = None,
) -> None:
    """Draw one line of text onto an image in place. Text beyond the image is cut off.

    Args:
        image: RGB image, shape (H, W, 3), uint8.
        text: The line.
        xy: Left end, middle or right end (see `anchor`) of the line, at half its height, in pixels.
        size: Font size in pixels.
        color: Color of the text.
        bold: Use the bold typeface.
        anchor: Which point of the line `xy` is.
        halo: Color of an outline that separates the text from a busy image.
    """
    letters = _letters(text, size, bold)
    height, width = letters.shape
    left = round(xy[0] - {"left": 0, "middle": width / 2, "right": width}[anchor])
    top = round(xy[1] - height / 2)
    if halo is not None:
        import cv2

        room = max(1, round(size / 9))
        spread = cv2.copyMakeBorder(letters, room, room, room, room, cv2.BORDER_CONSTANT, value=0)
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * room + 1, 2 * room + 1))
        _blend(image, cv2.dilate(spread, kernel), left - room, top - room, halo, 0.8)
    _blend(image, letters, left, top, color, 1.0)


def _blend(image: np.ndarray, alpha: np.ndarray, left: int, top: int, color: Color, strength: float) -> None:
    height, width = image.shape[:2]
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(left + alpha.shape[1], width), min(top + alpha.shape[0], height)
    if x0 >= x1 or y0 >= y1:
        return
    share = alpha[y0 - top : y1 - top, x0 - left : x1 - left, None].astype(np.float32) * (strength / 255)
    part = image[y0:y1, x0:x1]
    part[:] = np.rint(part + (np.array(color, np.float32) - part) * share).astype(np.uint8)


@lru_cache(maxsize=2048)
def _letters(text: str, size: int, bold: bool) -> np.ndarray:
    """Render opacity (line height, width), uint8. The height depends only on the font size, so that baselines align."""
    from PIL import Image, ImageDraw

    # File names may contain characters that cannot be drawn.
    text = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
    font = _font(size, bold)
    width = max(1, round(font.getlength(text)))
    ascent, descent = font.getmetrics()
    image = Image.new("L", (width + 1, ascent + descent), 0)
    ImageDraw.Draw(image).text((0, 0), text, fill=255, font=font)
    letters = np.array(image)
    letters.setflags(write=False)
    return letters


@lru_cache(maxsize=32)
def _font(size: int, bold: bool):  # type: ignore[no-untyped-def]
    import matplotlib
    from PIL import ImageFont

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(
        str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size, layout_engine=ImageFont.Layout.BASIC
    )
