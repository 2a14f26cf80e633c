"""A timeline below a video: labeled bars and a marker of the current time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from actionprep.datasets.label_colors import NOTHING, Color, label_colors
from actionprep.show.colors import DARK, text_on
from actionprep.show.text import fitted, put_text, text_width
from actionprep.show.timeline import TimelineRow, lanes_of

_LANE, _GAP, _SIZE = 22, 6, 13


class Strip:
    """Rows of bars over a time interval. Call `draw_still` once, then `draw_now` on each copy of that image."""

    def __init__(
        self, rows: Sequence[TimelineRow], span: tuple[float, float], *, colors: Mapping[str, Color] | None = None
    ) -> None:
        """Lay out the rows. `colors` defaults to those of `label_colors`."""
        self.rows, self.span = rows, span
        self.colors = label_colors(bar.label for row in rows for bar in row.bars) if colors is None else colors
        self._lanes = [lanes_of(row.bars) for row in rows]
        self._depth = [max(1, max(lanes, default=0) + 1) for lanes in self._lanes]
        self._place = (0, 0, 1)

    @property
    def height(self) -> int:
        """Height of the strip in pixels."""
        return sum(self._depth) * _LANE + (len(self.rows) - 1) * _GAP

    def x_of(self, time: float) -> float:
        """Return the x position of a time in pixels of the image."""
        left, _, width = self._place
        return left + (time - self.span[0]) / (self.span[1] - self.span[0]) * width

    def draw_still(self, canvas: np.ndarray, x: int, y: int, width: int) -> None:
        """Draw row names (left) and bars (right) onto the canvas in place."""
        names = max(text_width(row.name, _SIZE) for row in self.rows)
        names = min(names, width // 4)
        left = x + names + 12
        self._place = (left, y, x + width - left)
        for row, lanes, depth in zip(self.rows, self._lanes, self._depth, strict=True):
            name = fitted(row.name, names, _SIZE)
            place = (x + names, y + depth * _LANE / 2)
            put_text(canvas, name, place, size=_SIZE, color=DARK.quiet, anchor="right")
            canvas[y : y + depth * _LANE, left : x + width] = DARK.empty
            for bar, lane in zip(row.bars, lanes, strict=True):
                first = round(self.x_of(max(bar.onset, self.span[0])))
                end = round(self.x_of(min(bar.offset, self.span[1])))
                if end <= first:
                    continue
                color = DARK.line if bar.ignored else self._shown(bar.label, bar.score)
                top = y + lane * _LANE
                canvas[top + 1 : top + _LANE - 1, first : max(end - 1, first + 1)] = color
                text = fitted(bar.label, end - first - 8, _SIZE)
                # A shortened label is useful only while it can be distinguished from others.
                if text == bar.label or len(text) > 4:
                    ink = DARK.quiet if bar.ignored else text_on(color)
                    put_text(canvas, text, ((first + end) / 2, top + _LANE / 2), size=_SIZE, color=ink, anchor="middle")
            y += depth * _LANE + _GAP

    def draw_now(self, canvas: np.ndarray, time: float) -> None:
        """Draw the line at a time onto the canvas in place."""
        import cv2

        _, y, _ = self._place
        x = self.x_of(float(np.clip(time, *self.span)))
        ends = [(round(x * 16), round(at * 16)) for at in (y - 5, y + self.height + 3)]
        cv2.line(canvas, ends[0], ends[1], (0, 0, 0), 4, cv2.LINE_AA, 4)
        cv2.line(canvas, ends[0], ends[1], (255, 255, 255), 2, cv2.LINE_AA, 4)
        cv2.circle(canvas, ends[0], 5 * 16, (255, 255, 255), -1, cv2.LINE_AA, 4)

    def _shown(self, label: str, score: float | None) -> Color:
        color = self.colors.get(label, NOTHING)
        strength = 1.0 if score is None else 0.35 + 0.65 * float(np.clip(score, 0, 1))
        red, green, blue = (
            round(ground + (value - ground) * strength) for value, ground in zip(color, DARK.empty, strict=True)
        )
        return red, green, blue
