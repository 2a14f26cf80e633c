"""The charts of the report page, drawn as SVG inside it."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence

from actionprep.training.evaluation.metrics import metric_name

COLORS = ("#2f6fdb", "#d9622b", "#2a9d63", "#8a55c9")


def line_chart(title: str, lines: Sequence[tuple[str, Sequence[tuple[float, float]]]], *, share: bool) -> str:
    """Lines over epochs, named below with their last value; share: values are from 0 to 1, shown in per cent."""
    width, height, left, bottom, top, right = 460, 240, 46, 30, 14, 20
    xs = [x for _, points in lines for x, _ in points]
    ys = [y for _, points in lines for _, y in points if math.isfinite(y)]
    low, high = (0.0, 1.0) if share else (min(0.0, *ys), max(ys, default=1.0) * 1.05 or 1.0)
    last = max(*xs, 1) if len(xs) > 1 else max(xs[0], 1)

    def at(x: float, y: float) -> tuple[float, float]:
        across = left + (width - left - right) * x / last
        return across, height - bottom - (height - bottom - top) * (y - low) / max(high - low, 1e-9)

    parts = [f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{html.escape(title)}">']
    for tick in _ticks(low, high):
        _, y = at(0, tick)
        label = f"{tick * 100:.0f} %" if share else f"{tick:g}"
        parts.append(f'<line class="grid" x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    for tick in _ticks(0, last, whole=True):
        x, _ = at(tick, low)
        parts.append(f'<text x="{x:.1f}" y="{height - 10}" text-anchor="middle">{tick:.0f}</text>')
    for color, (_name, points) in zip(COLORS, lines, strict=False):
        places = [at(x, y) for x, y in points if math.isfinite(y)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{path}" stroke="{color}"/>')
        if len(places) == 1:
            parts.append(f'<circle cx="{places[0][0]:.1f}" cy="{places[0][1]:.1f}" r="3" fill="{color}"/>')
    parts.append("</svg>")
    legend = "".join(
        f'<span><i style="background:{color}"></i>{html.escape(metric_name(name))} '
        f"<b>{percent(points[-1][1]) if share else f'{points[-1][1]:.3f}'}</b></span>"
        for color, (name, points) in zip(COLORS, lines, strict=False)
    )
    caption = f"<figcaption>{html.escape(title)}<small>by epoch</small></figcaption>"
    return f"<figure>{caption}{''.join(parts)}<p>{legend}</p></figure>"


def _ticks(low: float, high: float, *, whole: bool = False) -> list[float]:
    span = max(high - low, 1e-9)
    step = 10 ** math.floor(math.log10(span / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= 5)
    if whole:
        step = max(1, round(step))
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 10) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def reliability_chart(title: str, bins: Sequence[Mapping[str, float]], color: str) -> str:
    """Accuracy over confidence; the area of a dot is its share of the snippets."""
    width, height, left, bottom, top, right = 460, 300, 46, 30, 14, 26

    def at(x: float, y: float) -> tuple[float, float]:
        return left + (width - left - right) * x, height - bottom - (height - bottom - top) * y

    parts = [f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="Reliability: {html.escape(title)}">']
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, y = at(tick, tick)
        parts.append(f'<line class="grid" x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{tick * 100:.0f} %</text>')
        parts.append(f'<text x="{x:.1f}" y="{height - 10}" text-anchor="middle">{tick * 100:.0f} %</text>')
    (x0, y0), (x1, y1) = at(0, 0), at(1, 1)
    parts.append(f'<line class="grid" x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}" stroke-dasharray="5 5"/>')
    most = max((one["count"] for one in bins), default=1)
    for one in bins:
        x, y = at(one["confidence"], one["accuracy"])
        hint = f"{one['count']} snippets: {percent(one['confidence'])} sure, {percent(one['accuracy'])} right"
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{3 + 9 * math.sqrt(one["count"] / most):.1f}" fill="{color}" '
            f'fill-opacity="0.75"><title>{hint}</title></circle>'
        )
    parts.append("</svg>")
    caption = f"<figcaption>{html.escape(title)}<small>right, by how sure</small></figcaption>"
    return f"<figure>{caption}{''.join(parts)}</figure>"


def percent(value: float | None) -> str:
    """A share for a reader, a dash where there is none."""
    return "–" if value is None or value != value else f"{value * 100:.1f} %"
