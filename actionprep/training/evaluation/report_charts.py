"""Charts of the report page: matplotlib figures, written as SVG text that is part of the page."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from actionprep.training.evaluation.metrics import metric_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = ("#2f6fdb", "#d9622b", "#2a9d63", "#8a55c9")

# Drawn in these colors, which the page replaces by its own, so that charts follow its light or dark theme.
_INK, _GRID = "#667086", "#e4e7ed"
_PAGE_COLORS = {_INK: "var(--soft)", _GRID: "var(--line)"}

Lines = Sequence[tuple[str, Sequence[tuple[float, float]]]]


def line_chart(lines: Lines, *, share: bool) -> Figure:
    """Plot metrics over epochs, with the last value of each in the legend.

    Args:
        lines: Name of each metric and its points (epoch, value). Values that are not finite are left out.
        share: Whether values are from 0 to 1 and shown in percent.

    Returns:
        The chart.
    """
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    figure, axes = _new_chart(height=2.9)
    for color, (name, points) in zip(COLORS, lines, strict=False):
        finite = [(x, y) for x, y in points if math.isfinite(y)]
        value = points[-1][1]
        label = f"{metric_name(name)} {percent(value) if share else f'{value:.3f}'}"
        marker = "o" if len(finite) == 1 else None
        axes.plot([x for x, _ in finite], [y for _, y in finite], color=color, linewidth=2, marker=marker, label=label)
    if share:
        axes.set_ylim(0, 1)
        axes.yaxis.set_major_formatter(FuncFormatter(_percent_tick))
    elif not any(y < 0 for _, points in lines for _, y in points if math.isfinite(y)):
        axes.set_ylim(bottom=0)
    axes.set_xlim(0, max(max(x for _, points in lines for x, _ in points), 1))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    axes.set_xlabel("epoch", color=_INK)
    figure.legend(loc="outside lower left", ncols=2, frameon=False, labelcolor=_INK)
    return figure


def reliability_chart(bins: Sequence[Mapping[str, float]], color: str) -> Figure:
    """Plot accuracy over confidence. The area of a marker is proportional to the number of snippets in its bin.

    Args:
        bins: Confidence, accuracy and count of each bin; see `calibration.Reliability.rows`.
        color: Color of the markers.

    Returns:
        The chart.
    """
    from matplotlib.ticker import FuncFormatter

    figure, axes = _new_chart(height=3.2)
    axes.plot([0, 1], [0, 1], color=_GRID, linestyle=(0, (5, 5)), linewidth=1.2)
    largest = max((row["count"] for row in bins), default=1)
    axes.scatter(
        [row["confidence"] for row in bins],
        [row["accuracy"] for row in bins],
        [30 + 270 * row["count"] / largest for row in bins],
        color=color,
        alpha=0.75,
        linewidths=0,
        clip_on=False,
        zorder=3,
    )
    axes.set(xlim=(0, 1), ylim=(0, 1))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(_percent_tick))
    axes.set_xlabel("confidence", color=_INK)
    axes.set_ylabel("accuracy", color=_INK)
    return figure


def svg(figure: Figure, name: str) -> Markup:
    """Render a chart as an SVG element for an HTML page, in the colors of the page.

    Args:
        figure: Chart.
        name: Accessible name, unique on the page. Identifiers inside the SVG are derived from it.

    Returns:
        The element. All text in it is escaped.
    """
    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata=dict.fromkeys(_METADATA))
    text = buffer.getvalue()
    # Names of groups are the same in all charts, and nothing refers to them.
    text = re.sub(r'<g id="[\w.]+"', "<g", text[text.index("<svg ") :])
    for color, replacement in _PAGE_COLORS.items():
        text = text.replace(color, replacement)
    return Markup("<svg role='img' aria-label='{}' ").format(name) + Markup(text.removeprefix("<svg "))


# Without these, charts of equal data are equal and contain no address.
_METADATA = ("Creator", "Date", "Format", "Type")


def percent(value: float | None) -> str:
    """Format a share in percent; a dash for None and NaN."""
    return "–" if value is None or value != value else f"{value * 100:.1f} %"


def _percent_tick(value: float, _: object) -> str:
    return f"{value * 100:g} %"


def _new_chart(height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    # Room for markers on the edge of the axes, in inches.
    figure = Figure(figsize=(4.6, height), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12))
    axes = figure.subplots()
    axes.grid(color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelcolor=_INK, labelsize=9)
    axes.spines[:].set_visible(False)
    return figure, axes
