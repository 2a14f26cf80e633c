"""Draw labeled intervals over time: segments, snippets and predictions, as a chart."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from actionprep.datasets.label_colors import NOTHING, Color, label_colors
from actionprep.datasets.natural_order import natural_key
from actionprep.errors import UserError
from actionprep.show.colors import LIGHT, text_on, unit
from actionprep.show.files import atomic_write
from actionprep.show.text import broken, fitted, text_width

_DPI = 150
_WIDTH = 12.0  # inches
_LANE, _ROW_GAP = 0.27, 0.13
_MOST_IN_LEGEND = 36
_MOST_UNNAMED = 24


@dataclass(frozen=True, slots=True)
class Bar:
    """A labeled interval.

    Attributes:
        onset: Start in seconds.
        offset: End in seconds.
        label: Class name; "" for no label.
        score: Probability in [0, 1]; None for annotations.
        ignored: Draw the bar hatched, without color.
    """

    onset: float
    offset: float
    label: str
    score: float | None = None
    ignored: bool = False


@dataclass(frozen=True, slots=True)
class TimelineRow:
    """One named row of bars. Bars may overlap.

    Attributes:
        name: Name at the left.
        bars: Bars of the row.
        span: Interval with data in seconds, such as the length of a recording; None for the full axis.
    """

    name: str
    bars: tuple[Bar, ...]
    span: tuple[float, float] | None = None


def draw_timeline(
    rows: Sequence[TimelineRow],
    span: tuple[float, float],
    path: str | Path,
    *,
    title: str = "",
    details: Sequence[str] = (),
    colors: Mapping[str, Color] | None = None,
    images: Sequence[tuple[float, np.ndarray]] = (),
) -> Path:
    """Draw rows of bars over a time interval and write the chart.

    Labels that do not fit into their bars are listed below the chart with their times.

    Args:
        rows: Rows from top to bottom.
        span: Start and end of the time axis in seconds.
        path: File that ends in .png, .svg or .pdf.
        title: Title of the chart.
        details: Lines below the title.
        colors: Colors of labels. Default: those of `label_colors`.
        images: Times in seconds and RGB images, drawn above the rows at their times.

    Returns:
        The path.

    Raises:
        UserError: If the interval is empty, there are no rows, or the suffix is unknown.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    if not rows or not span[1] > span[0]:
        raise UserError(f"A timeline needs at least one row and a time interval that is not empty; got {span}.")
    path = Path(path)
    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise UserError(f"Timelines are written as .png, .svg or .pdf files; got {path.name}.")
    colors = label_colors(bar.label for row in rows for bar in row.bars) if colors is None else colors
    lanes = [lanes_of(row.bars) for row in rows]
    depth = [max(1, max(of_row, default=0) + 1) for of_row in lanes]

    wide = int((_WIDTH - 0.6) * _DPI)
    details = [line for part in details for line in broken(part, wide, round(9 * _DPI / 72))]
    title = fitted(title, wide, round(13 * _DPI / 72), bold=True)
    names = [_shortened(row.name, 34) for row in rows]
    left = 0.3 + max((text_width(name, 19) for name in names), default=0) / _DPI + 0.12
    strip = 0.15 + _picture_height(images[0][1].shape[1] / images[0][1].shape[0]) if len(images) else 0.0
    head = 0.28 + (0.34 if title else 0) + 0.25 * len(details) + (0.05 if title or details else 0)
    body = sum(depth) * _LANE + (len(rows) + 1) * _ROW_GAP
    legend = _legend(rows, colors, _WIDTH - left - 0.3)
    notes = _unnamed(rows, span, _WIDTH - left - 0.3)
    foot = 0.62 + 0.25 * (len(legend) + len(notes))
    height = head + strip + body + foot
    figure = Figure(figsize=(_WIDTH, height), dpi=_DPI, facecolor=unit(LIGHT.ground))
    FigureCanvasAgg(figure)
    _write_head(figure, title, details, height)

    chart_width = _WIDTH - left - 0.3
    axes = figure.add_axes((left / _WIDTH, foot / height, chart_width / _WIDTH, body / height))
    axes.set_xlim(*span)
    axes.set_ylim(body, 0)
    y = _ROW_GAP
    middles = []
    for row, of_row, deep in zip(rows, lanes, depth, strict=True):
        low, high = row.span or span
        ground = ((low, y - 0.03), high - low, deep * _LANE + 0.06)
        axes.add_patch(Rectangle(*ground, facecolor=unit(LIGHT.empty), lw=0, zorder=0))
        for bar, lane in zip(row.bars, of_row, strict=True):
            _draw_bar(axes, bar, y + lane * _LANE, colors.get(bar.label, NOTHING), span, chart_width)
        middles.append(y + deep * _LANE / 2)
        y += deep * _LANE + _ROW_GAP
    _style_axes(axes, middles, names, span)
    if len(images):
        rect = (left / _WIDTH, (foot + body) / height, chart_width / _WIDTH, (strip - 0.05) / height)
        _draw_images(figure, rect, images, span, (chart_width, strip - 0.05))
    _draw_legend(figure, legend, left, 0.25 * len(notes), height)
    _write_notes(figure, notes, left, height)
    with atomic_write(path) as draft, warnings.catch_warnings():
        # Letters missing from the typeface are drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(draft, dpi=_DPI, facecolor=figure.get_facecolor(), format=path.suffix[1:].lower())
    return path


def lanes_of(bars: Sequence[Bar]) -> list[int]:
    """Assign bars to lanes, so that overlapping bars are in different lanes. Uses as few lanes as possible."""
    ends: list[float] = []
    lanes = [0] * len(bars)
    for index in sorted(range(len(bars)), key=lambda index: (bars[index].onset, -bars[index].offset)):
        bar = bars[index]
        # Adjacent bars share a lane, even if rounding makes them overlap slightly.
        free = next((lane for lane, end in enumerate(ends) if end <= bar.onset + 1e-6), len(ends))
        if free == len(ends):
            ends.append(bar.offset)
        ends[free] = bar.offset
        lanes[index] = free
    return lanes


def _draw_bar(axes: Any, bar: Bar, y: float, color: Color, span: tuple[float, float], width: float) -> None:
    from matplotlib.patches import Rectangle

    onset, offset = max(bar.onset, span[0]), min(bar.offset, span[1])
    if offset <= onset:
        return
    shown = _faded(color, bar.score)
    length = _drawn_length(offset - onset, span, width)
    axes.add_patch(
        Rectangle(
            (onset, y + 0.015),
            length,
            _LANE - 0.03,
            facecolor=unit(LIGHT.empty) if bar.ignored else unit(shown),
            edgecolor=unit(NOTHING) if bar.ignored else "none",
            hatch="////" if bar.ignored else None,
            lw=0,
            zorder=2,
        )
    )
    text, points = _words_for(bar, _text_room(bar, span, width))
    if text and not bar.ignored:
        axes.text(
            (onset + onset + length) / 2,
            y + _LANE / 2 + 0.005,
            text,
            ha="center",
            va="center",
            fontsize=points,
            color=unit(text_on(shown)),
            zorder=3,
            parse_math=False,
        )


def _drawn_length(seconds: float, span: tuple[float, float], width: float) -> float:
    """Length of a drawn bar in seconds: a thin gap separates neighbors, and short bars stay visible."""
    gap = 0.012 * (span[1] - span[0]) / width
    return max(seconds - gap, 0.35 * seconds)


def _text_room(bar: Bar, span: tuple[float, float], width: float) -> float:
    """Width for text within a bar in pixels."""
    seconds = min(bar.offset, span[1]) - max(bar.onset, span[0])
    return _drawn_length(seconds, span, width) / (span[1] - span[0]) * width * _DPI - 10


def _words_for(bar: Bar, room: float) -> tuple[str, float]:
    """Choose the text that fits into a bar of this width in pixels, and its size in points."""
    score = "" if bar.score is None else f" {bar.score:.2f}"
    for text, points in ((bar.label + score, 8.0), (bar.label, 8.0), (bar.label, 6.8)):
        if text and text_width(text, round(points * _DPI / 72)) <= room:
            return text, points
    short = fitted(bar.label, int(room), 14) if room > 30 else ""
    return (short, 6.8) if len(short) > 4 else ("", 8.0)


def _faded(color: Color, score: float | None) -> Color:
    strength = 1.0 if score is None else 0.35 + 0.65 * float(np.clip(score, 0, 1))
    red, green, blue = (round(255 + (value - 255) * strength) for value in color)
    return red, green, blue


def _style_axes(axes: Any, middles: Sequence[float], names: Sequence[str], span: tuple[float, float]) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.set_yticks(list(middles), list(names), fontsize=9, color=unit(LIGHT.ink), parse_math=False)
    axes.tick_params(axis="y", length=0, pad=7)
    axes.tick_params(axis="x", length=3, color=unit(LIGHT.line), labelcolor=unit(LIGHT.quiet), labelsize=8.5)
    minutes = span[1] - span[0] > 180
    axes.xaxis.set_major_locator(MaxNLocator(10, steps=[1.5, 3, 6] if minutes else [1, 2, 2.5, 5, 10]))
    if minutes:
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _clock(value)))
        axes.set_xlabel("time on the recording's clock (min:s)", fontsize=8.5, color=unit(LIGHT.quiet))
    else:
        axes.set_xlabel("time on the recording's clock (s)", fontsize=8.5, color=unit(LIGHT.quiet))
    axes.grid(axis="x", color=unit(LIGHT.line), lw=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "left", "right"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(unit(LIGHT.line))


def _clock(seconds: float) -> str:
    sign = "-" if seconds < 0 else ""
    minutes, rest = divmod(round(abs(seconds)), 60)
    return f"{sign}{minutes}:{rest:02d}"


def _write_head(figure: Any, title: str, details: Sequence[str], height: float) -> None:
    y = height - 0.28
    if title:
        figure.text(0.3 / _WIDTH, y / height, title, fontsize=13, weight="bold", va="center", color=unit(LIGHT.ink))
        y -= 0.32
    for line in details:
        figure.text(0.3 / _WIDTH, y / height, line, fontsize=9, va="center", color=unit(LIGHT.quiet), parse_math=False)
        y -= 0.25


def _draw_images(
    figure: Any,
    rect: tuple[float, float, float, float],
    images: Sequence[tuple[float, np.ndarray]],
    span: tuple[float, float],
    inches: tuple[float, float],
) -> None:
    """Draw images side by side over the full width, each as near to its time as possible."""
    axes = figure.add_axes(rect)
    axes.set_xlim(0, inches[0])
    axes.set_ylim(0, inches[1])
    axes.axis("off")
    high = inches[1] - 0.1
    wide = [high * image.shape[1] / image.shape[0] for _, image in images]
    centers = [(time - span[0]) / (span[1] - span[0]) * inches[0] for time, _ in images]
    for center, width, (_, image) in zip(centers, wide, images, strict=True):
        left = min(max(center - width / 2, 0), inches[0] - width)
        axes.imshow(
            image,
            extent=(left, left + width, 0.06, 0.06 + high),
            aspect="auto",
            interpolation="antialiased",
            zorder=2,
        )
        axes.plot([center, center], [0, 0.06], color=unit(LIGHT.quiet), lw=1, clip_on=False, zorder=1)
    axes.set_xlim(0, inches[0])
    axes.set_ylim(0, inches[1])


def fitting_images(aspect: float, span: tuple[float, float]) -> np.ndarray:
    """Choose evenly spaced times for images of this aspect ratio (width / height) above a timeline."""
    count = int(np.clip(9.8 / (_picture_height(aspect) * aspect + 0.1), 1, 16))
    return span[0] + (np.arange(count) + 0.5) * (span[1] - span[0]) / count


def _picture_height(aspect: float) -> float:
    """Height in inches. Images of all aspect ratios get about the same area."""
    return float(np.clip(0.95 / np.sqrt(aspect), 0.75, 1.35))


def _legend(rows: Sequence[TimelineRow], colors: Mapping[str, Color], width: float) -> list[list[tuple[str, Color]]]:
    """Wrap labels with their colors into lines that fit."""
    used = sorted({bar.label for row in rows for bar in row.bars if bar.label and not bar.ignored}, key=natural_key)
    entries = [(label, colors.get(label, NOTHING)) for label in used[:_MOST_IN_LEGEND]]
    if len(used) > _MOST_IN_LEGEND:
        entries.append((f"and {len(used) - _MOST_IN_LEGEND} more", LIGHT.ground))
    lines: list[list[tuple[str, Color]]] = []
    room = 0.0
    for entry in entries:
        need = _entry_width(entry[0])
        if not lines or room < need:
            lines.append([])
            room = width
        lines[-1].append(entry)
        room -= need
    return lines


def _entry_width(text: str) -> float:
    return text_width(text, 18) / _DPI + 0.42


def _draw_legend(
    figure: Any, lines: Sequence[Sequence[tuple[str, Color]]], left: float, bottom: float, height: float
) -> None:
    from matplotlib.patches import Rectangle

    for number, line in enumerate(lines):
        x, y = left, bottom + 0.25 * (len(lines) - 1 - number) + 0.13
        for text, color in line:
            figure.add_artist(
                Rectangle(
                    (x / _WIDTH, y / height),
                    0.12 / _WIDTH,
                    0.12 / height,
                    facecolor=unit(color),
                    lw=0,
                    transform=figure.transFigure,
                )
            )
            figure.text(
                (x + 0.18) / _WIDTH,
                (y + 0.055) / height,
                text,
                fontsize=8.5,
                va="center",
                color=unit(LIGHT.ink),
                parse_math=False,
            )
            x += _entry_width(text)


def _unnamed(rows: Sequence[TimelineRow], span: tuple[float, float], width: float) -> list[str]:
    """List the bars that are too short to carry their label, as lines that fit a width in inches."""
    phrases = []
    for row in rows:
        bars = [
            bar for bar in row.bars if bar.label and not bar.ignored and bar.offset > span[0] and bar.onset < span[1]
        ]
        for bar in sorted(bars, key=lambda bar: (bar.onset, bar.offset)):
            if not _words_for(bar, _text_room(bar, span, width))[0]:
                prefix = f"{row.name}: " if len(rows) > 1 else ""
                phrases.append(f"{prefix}{bar.label} {bar.onset:.2f}–{bar.offset:.2f} s")
    if not phrases:
        return []
    more = len(phrases) - _MOST_UNNAMED
    phrases = [*phrases[:_MOST_UNNAMED], *([f"and {more} more"] if more > 0 else [])]
    return broken(f"Short: {'  ·  '.join(phrases)}", int(width * _DPI), round(8 * _DPI / 72))


def _write_notes(figure: Any, notes: Sequence[str], left: float, height: float) -> None:
    for index, line in enumerate(reversed(notes)):
        y = (0.25 * index + 0.14) / height
        figure.text(left / _WIDTH, y, line, fontsize=8, va="center", color=unit(LIGHT.quiet), parse_math=False)


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most // 2 - 1]}…{text[-(most // 2) :]}"


def bars_of(segments: Iterable[Any]) -> tuple[Bar, ...]:
    """Convert segments to bars."""
    return tuple(Bar(segment.onset, segment.offset, segment.label) for segment in segments)
