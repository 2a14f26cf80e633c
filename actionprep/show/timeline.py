"""Draw labeled intervals over time: segments, snippets and predictions, as a chart."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from actionprep.datasets.natural_order import natural_key
from actionprep.errors import UserError
from actionprep.show.colors import LIGHT, NOTHING, Color, label_colors, text_on, unit
from actionprep.show.files import atomic_write
from actionprep.show.text import broken, fitted, text_width

_DPI = 150
_WIDTH = 12.0  # inches
_LANE, _ROW_GAP = 0.27, 0.13
_MOST_IN_LEGEND = 36


@dataclass(frozen=True, slots=True)
class Bar:
    """A label from onset to offset, in s.

    score: how sure it is, in [0, 1]; None for what is known.
    ignored: drawn hatched, without color.
    """

    onset: float
    offset: float
    label: str
    score: float | None = None
    ignored: bool = False


@dataclass(frozen=True, slots=True)
class TimelineRow:
    """One named row of bars, which may overlap.

    span: the time that there is something of, such as the length of a recording; all when None.
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
    pictures: Sequence[tuple[float, np.ndarray]] = (),
) -> Path:
    """Draw rows of bars over a span of time (s) and write the chart; returns its path.

    path: ends in .png, .svg or .pdf. colors: of labels; chosen when not given. pictures: (time, RGB) shown above the
    rows where they were taken.

    Raises UserError for an empty span or no rows.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    if not rows or not span[1] > span[0]:
        raise UserError(f"A timeline needs at least one row and a span of time that is not empty, got {span}.")
    path = Path(path)
    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise UserError(f"A timeline is written as .png, .svg or .pdf, not as {path.name}.")
    colors = label_colors(bar.label for row in rows for bar in row.bars) if colors is None else colors
    lanes = [lanes_of(row.bars) for row in rows]
    depth = [max(1, max(of_row, default=0) + 1) for of_row in lanes]

    wide = int((_WIDTH - 0.6) * _DPI)
    details = [line for one in details for line in broken(one, wide, round(9 * _DPI / 72))]
    title = fitted(title, wide, round(13 * _DPI / 72), bold=True)
    names = [_shortened(row.name, 34) for row in rows]
    left = 0.3 + max((text_width(name, 19) for name in names), default=0) / _DPI + 0.12
    strip = 0.15 + _picture_height(pictures[0][1].shape[1] / pictures[0][1].shape[0]) if len(pictures) else 0.0
    head = 0.28 + (0.34 if title else 0) + 0.25 * len(details) + (0.05 if title or details else 0)
    body = sum(depth) * _LANE + (len(rows) + 1) * _ROW_GAP
    legend, legend_lines = _legend(rows, colors, _WIDTH - left - 0.3)
    foot = 0.62 + 0.25 * legend_lines
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
    if len(pictures):
        place = (left / _WIDTH, (foot + body) / height, chart_width / _WIDTH, (strip - 0.05) / height)
        _draw_pictures(figure, place, pictures, span, (chart_width, strip - 0.05))
    _draw_legend(figure, legend, left, height)
    with atomic_write(path) as draft, warnings.catch_warnings():
        # Letters that the typeface lacks are drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(draft, dpi=_DPI, facecolor=figure.get_facecolor(), format=path.suffix[1:].lower())
    return path


def lanes_of(bars: Sequence[Bar]) -> list[int]:
    """A lane for each bar, so that bars that overlap lie in different lanes and as few lanes as possible are used."""
    ends: list[float] = []
    found = [0] * len(bars)
    for at in sorted(range(len(bars)), key=lambda at: (bars[at].onset, -bars[at].offset)):
        bar = bars[at]
        # Neighbors that touch share a lane, also when rounding makes them overlap by a hair.
        free = next((lane for lane, end in enumerate(ends) if end <= bar.onset + 1e-6), len(ends))
        if free == len(ends):
            ends.append(bar.offset)
        ends[free] = bar.offset
        found[at] = free
    return found


def _draw_bar(axes: Any, bar: Bar, y: float, color: Color, span: tuple[float, float], width: float) -> None:
    from matplotlib.patches import Rectangle

    onset, offset = max(bar.onset, span[0]), min(bar.offset, span[1])
    if offset <= onset:
        return
    shown = _faded(color, bar.score)
    # A hair of ground between neighbors; bars narrower than that stay visible.
    hair = 0.012 * (span[1] - span[0]) / width
    long = max(offset - onset - hair, 0.35 * (offset - onset))
    axes.add_patch(
        Rectangle(
            (onset, y + 0.015),
            long,
            _LANE - 0.03,
            facecolor=unit(LIGHT.empty) if bar.ignored else unit(shown),
            edgecolor=unit(NOTHING) if bar.ignored else "none",
            hatch="////" if bar.ignored else None,
            lw=0,
            zorder=2,
        )
    )
    room = long / (span[1] - span[0]) * width * _DPI - 10
    text, points = _words_for(bar, room)
    if text and not bar.ignored:
        axes.text(
            (onset + onset + long) / 2,
            y + _LANE / 2 + 0.005,
            text,
            ha="center",
            va="center",
            fontsize=points,
            color=unit(text_on(shown)),
            zorder=3,
            parse_math=False,
        )


def _words_for(bar: Bar, room: float) -> tuple[str, float]:
    """What fits into a bar of so many pixels, and its size in points."""
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


def _draw_pictures(
    figure: Any,
    place: tuple[float, float, float, float],
    pictures: Sequence[tuple[float, np.ndarray]],
    span: tuple[float, float],
    inches: tuple[float, float],
) -> None:
    """Pictures side by side over the whole width; each lies where its time is, as far as they do not overlap."""
    axes = figure.add_axes(place)
    axes.set_xlim(0, inches[0])
    axes.set_ylim(0, inches[1])
    axes.axis("off")
    high = inches[1] - 0.1
    wide = [high * picture.shape[1] / picture.shape[0] for _, picture in pictures]
    centers = [(time - span[0]) / (span[1] - span[0]) * inches[0] for time, _ in pictures]
    for center, width, (_, picture) in zip(centers, wide, pictures, strict=True):
        left = min(max(center - width / 2, 0), inches[0] - width)
        axes.imshow(
            picture,
            extent=(left, left + width, 0.06, 0.06 + high),
            aspect="auto",
            interpolation="antialiased",
            zorder=2,
        )
        axes.plot([center, center], [0, 0.06], color=unit(LIGHT.quiet), lw=1, clip_on=False, zorder=1)
    axes.set_xlim(0, inches[0])
    axes.set_ylim(0, inches[1])


def fitting_images(aspect: float, span: tuple[float, float]) -> np.ndarray:
    """Times, evenly spread, at which pictures of that width over height stand side by side above a timeline."""
    count = int(np.clip(9.8 / (_picture_height(aspect) * aspect + 0.1), 1, 16))
    return span[0] + (np.arange(count) + 0.5) * (span[1] - span[0]) / count


def _picture_height(aspect: float) -> float:
    """In inches: pictures of all shapes get about the same area."""
    return float(np.clip(0.95 / np.sqrt(aspect), 0.75, 1.35))


def _legend(
    rows: Sequence[TimelineRow], colors: Mapping[str, Color], width: float
) -> tuple[list[list[tuple[str, Color]]], int]:
    """Labels with their colors in lines that fit, and how many lines that are."""
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
    return lines, len(lines)


def _entry_width(text: str) -> float:
    return text_width(text, 18) / _DPI + 0.42


def _draw_legend(figure: Any, lines: Sequence[Sequence[tuple[str, Color]]], left: float, height: float) -> None:
    from matplotlib.patches import Rectangle

    for number, line in enumerate(lines):
        x, y = left, 0.25 * (len(lines) - 1 - number) + 0.13
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


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most // 2 - 1]}…{text[-(most // 2) :]}"


def bars_of(segments: Iterable[Any]) -> tuple[Bar, ...]:
    """Bars from segments."""
    return tuple(Bar(segment.onset, segment.offset, segment.label) for segment in segments)
