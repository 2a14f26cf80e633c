"""Lay out images as a sheet: rows of equal height, captions, a title and a legend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from actionprep.datasets.label_colors import Color
from actionprep.show.colors import LIGHT, Theme, point_colors, text_on
from actionprep.show.text import fitted, line_height, put_text, text_width

MARGIN, GAP = 28, 12
TITLE, BODY, CAPTION = 25, 16, 14


@dataclass(frozen=True)
class Tile:
    """One image of a sheet, or an empty tile with a reason.

    Attributes:
        size: Height and width in pixels.
        image: RGB image of that size, or None for an empty tile.
        name: Bold text at the start of the caption, such as the view.
        caption: Caption, such as "1.233 s".
        remark: Text at the right end of the caption.
        reason: Text on an empty tile.
    """

    size: tuple[int, int]
    image: np.ndarray | None
    name: str = ""
    caption: str = ""
    remark: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Mark:
    """One entry of a legend."""

    kind: Literal["dot", "ring", "square", "hues", "tag"]
    color: Color
    text: str
    sample: str = ""
    """Text on a tag."""


def row_height(aspects: Sequence[float], width: int, *, low: int = 96, high: int = 640) -> int:
    """Compute the height at which images with these aspect ratios (width / height) fill a row, within limits."""
    room = width - GAP * (len(aspects) - 1)
    return int(np.clip(room / sum(aspects), low, high))


def columns_for(count: int, most: int) -> int:
    """Number of images per row, so that rows are about equally full and none has more than `most`."""
    num_rows = -(-count // most)
    return -(-count // num_rows)


def draw_contact_sheet(
    rows: Sequence[Sequence[Tile]],
    *,
    title: str,
    details: Sequence[str] = (),
    legend: Sequence[Mark] = (),
    theme: Theme = LIGHT,
    group: int = 1,
) -> np.ndarray:
    """Draw a sheet of tiles.

    Args:
        rows: Tiles of each row.
        title: Title of the sheet.
        details: Phrases below the title.
        legend: Entries of the legend.
        theme: Colors of the page.
        group: Number of consecutive rows that form a group. Groups are separated by a wider gap.

    Returns:
        RGB image, shape (H, W, 3), uint8.
    """
    caption = line_height(CAPTION) + 6
    width = max(sum(tile.size[1] for tile in row) + GAP * (len(row) - 1) for row in rows)
    width = max(width, min(text_width(title, TITLE, bold=True), 900), 420) + 2 * MARGIN
    lines = wrapped(details, width - 2 * MARGIN, BODY)
    marks = _mark_lines(legend, width - 2 * MARGIN)
    head = MARGIN + line_height(TITLE) + len(lines) * line_height(BODY) + 16
    heights = [max(tile.size[0] for tile in row) + caption for row in rows]
    between = [GAP * (2 if group > 1 and at % group == 0 else 1) for at in range(1, len(rows))]
    foot = MARGIN - 6 + (len(marks) * line_height(BODY) + 12 if marks else 0)
    canvas = np.full((head + sum(heights) + sum(between) + foot, width, 3), theme.ground, np.uint8)

    put_text(
        canvas,
        fitted(title, width - 2 * MARGIN, TITLE, bold=True),
        (MARGIN, MARGIN + line_height(TITLE) / 2 - 4),
        size=TITLE,
        color=theme.ink,
        bold=True,
    )
    y = MARGIN + line_height(TITLE)
    for line in lines:
        put_text(canvas, line, (MARGIN, y + line_height(BODY) / 2), size=BODY, color=theme.quiet)
        y += line_height(BODY)
    y = head
    for at, row in enumerate(rows):
        x = MARGIN
        for tile in row:
            _draw_tile(canvas, tile, x, y, theme)
            x += tile.size[1] + GAP
        y += heights[at] + (between[at] if at < len(between) else 0)
    y += 12
    for line_of_marks in marks:
        x = MARGIN
        for mark in line_of_marks:
            x = draw_mark(canvas, mark, x, y + line_height(BODY) // 2, theme)
        y += line_height(BODY)
    return canvas


def wrapped(phrases: Sequence[str], width: int, size: int) -> list[str]:
    """Join phrases with dots and wrap them into lines that fit a width."""
    lines: list[str] = []
    for phrase in phrases:
        longer = f"{lines[-1]}  ·  {phrase}" if lines else phrase
        if lines and text_width(longer, size) <= width:
            lines[-1] = longer
        else:
            lines.append(fitted(phrase, width, size))
    return lines


def draw_mark(canvas: np.ndarray, mark: Mark, x: int, y: int, theme: Theme) -> int:
    """Draw one legend entry at (x, y).

    Returns:
        The x position of the next entry.
    """
    import cv2

    unit = 16  # OpenCV coordinates are in 1/16 pixels
    if mark.kind == "hues":
        turns = np.radians(np.arange(0, 360, 60))
        hues = point_colors(np.stack([np.cos(turns), np.sin(turns)], axis=1))
        for at, color in enumerate(hues.tolist()):
            cv2.circle(canvas, ((x + 5 + 8 * at) * unit, y * unit), 4 * unit, color, -1, cv2.LINE_AA, 4)
        x += 5 + 8 * len(hues) + 4
    elif mark.kind == "tag":
        wide = text_width(mark.sample, CAPTION, bold=True) + 10
        canvas[y - 10 : y + 11, x : x + wide] = mark.color
        put_text(canvas, mark.sample, (x + 5, y), size=CAPTION, color=text_on(mark.color), bold=True)
        x += wide + 8
    elif mark.kind == "square":
        canvas[y - 6 : y + 7, x : x + 13] = mark.color
        x += 21
    else:
        thick = -1 if mark.kind == "dot" else 2
        radius = 6 if mark.kind == "dot" else 5
        cv2.circle(canvas, ((x + 6) * unit, y * unit), radius * unit, mark.color, thick, cv2.LINE_AA, 4)
        x += 21
    put_text(canvas, mark.text, (x, y), size=BODY, color=theme.quiet)
    return x + text_width(mark.text, BODY) + 26


def _mark_lines(legend: Sequence[Mark], width: int) -> list[list[Mark]]:
    lines: list[list[Mark]] = []
    used = 0
    for mark in legend:
        signs = {"hues": 58, "tag": text_width(mark.sample, CAPTION, bold=True) + 18}
        wide = text_width(mark.text, BODY) + signs.get(mark.kind, 21) + 26
        if not lines or used + wide > width:
            lines.append([])
            used = 0
        lines[-1].append(mark)
        used += wide
    return lines


def _draw_tile(canvas: np.ndarray, tile: Tile, x: int, y: int, theme: Theme) -> None:
    height, width = tile.size
    if tile.image is None:
        canvas[y : y + height, x : x + width] = theme.empty
        reason = fitted(tile.reason, width - 12, CAPTION)
        put_text(canvas, reason, (x + width / 2, y + height / 2), size=CAPTION, color=theme.quiet, anchor="middle")
    else:
        canvas[y : y + height, x : x + width] = tile.image
    line = y + height + 4 + line_height(CAPTION) / 2
    left = x
    if tile.name:
        name = fitted(tile.name, width, CAPTION, bold=True)
        put_text(canvas, name, (left, line), size=CAPTION, color=theme.ink, bold=True)
        left += text_width(name, CAPTION, bold=True) + 10
    room = x + width - left
    caption = fitted(tile.caption, room, CAPTION) if room > 20 else ""
    put_text(canvas, caption, (left, line), size=CAPTION, color=theme.ink)
    left += text_width(caption, CAPTION) + 14
    if tile.remark and text_width(tile.remark, CAPTION) <= x + width - left:
        put_text(canvas, tile.remark, (x + width, line), size=CAPTION, color=theme.quiet, anchor="right")
