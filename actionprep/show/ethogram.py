"""Draw the bouts of many recordings as an ethogram raster beside their time budgets."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

from actionprep.datasets.bouts import Observation, covered_microseconds
from actionprep.datasets.label_colors import NOTHING, Color, label_colors
from actionprep.datasets.natural_order import natural_key
from actionprep.errors import UserError
from actionprep.json_values import counted
from actionprep.show.files import atomic_write
from actionprep.show.text import fitted

_MOST_ROWS = 80
_NAME_WIDTH = 240  # pixels of letters of 11 px


def draw_ethogram(
    observations: Sequence[Observation],
    path: str | Path,
    *,
    title: str = "",
    colors: Mapping[str, Color] | None = None,
) -> Path:
    """Draw one row per recording with its bouts over time, and beside it the share of time of each label.

    Rows are grouped by group and subject. Bouts of several labels at the same time share the height of their row. Time
    counts from the start of each recording.

    Args:
        observations: Recordings with their bouts; at most 80 are drawn.
        path: File that ends in .png, .svg or .pdf.
        title: Title of the chart.
        colors: Colors of labels. Default: those of `label_colors`.

    Returns:
        The path.

    Raises:
        UserError: If there is no recording, or the suffix is unknown.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    path = Path(path)
    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise UserError(f"Ethograms are written as .png, .svg or .pdf files; got {path.name}.")
    if not observations:
        raise UserError("An ethogram needs at least one recording.")
    ordered = sorted(
        observations, key=lambda row: tuple(map(natural_key, (row.group, row.subject, row.recording, row.source)))
    )
    drawn = ordered[:_MOST_ROWS]
    labels = sorted({bout.label for observed in observations for bout in observed.bouts}, key=natural_key)
    chosen = label_colors(labels) if colors is None else colors
    rgb = {label: "#{:02x}{:02x}{:02x}".format(*chosen.get(label, NOTHING)) for label in labels}

    figure = Figure(figsize=(12, 1.5 + 0.27 * len(drawn) + 0.2 * (len(labels) // 9)), layout="constrained")
    FigureCanvasAgg(figure)
    raster, budget = figure.subplots(1, 2, sharey=True, width_ratios=[3, 1])
    for row, observation in enumerate(drawn):
        present = [label for label in labels if any(bout.label == label for bout in observation.bouts)]
        lanes = _lanes(observation, present)
        height = 0.8 / max(max(lanes.values(), default=0) + 1, 1)
        raster.barh(row, observation.observed_s, height=0.8, color=(0.95, 0.955, 0.965), zorder=1)
        budget.barh(row, 1.0, height=0.8, color=(0.95, 0.955, 0.965), zorder=1)
        left = 0.0
        for label in present:
            bars = [
                (bout.onset - observation.span[0], bout.offset - bout.onset)
                for bout in observation.bouts
                if bout.label == label
            ]
            bottom = row - 0.4 + lanes[label] * height
            raster.broken_barh(bars, (bottom, height), facecolors=rgb[label], linewidth=0, zorder=2)
            own = [bout for bout in observation.bouts if bout.label == label]
            share = covered_microseconds(own, *observation.span) / (observation.observed_s * 1e6)
            budget.barh(row, share, left=left, height=0.8, color=rgb[label], zorder=2)
            left += share
        budget.set_xlim(0, max(1.0, left, budget.get_xlim()[1]))
    with_source = len({observation.source for observation in observations}) > 1
    names = [fitted(_row_name(item, with_source=with_source), _NAME_WIDTH, 11) for item in drawn]
    raster.set_yticks(range(len(drawn)), names, fontsize=8, parse_math=False)
    raster.set(ylim=(len(drawn) - 0.4, -0.6), xlabel="time from the start (s)")
    raster.set_xlim(0, max(observation.observed_s for observation in drawn))
    budget.set(xlabel="share of the observed time")
    for axes in (raster, budget):
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", alpha=0.25)
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
    for row, (before, after) in enumerate(itertools.pairwise(drawn)):
        if before.group != after.group:
            for axes in (raster, budget):
                axes.axhline(row + 0.5, color=(0.6, 0.63, 0.68), linewidth=1)
    shown = f"{title}  ·  " if title else ""
    rest = len(ordered) - len(drawn)
    figure.suptitle(
        f"{shown}{counted(len({row.recording for row in ordered}), 'recording')}"
        + (f", {counted(rest, 'row')} not drawn" if rest else ""),
        x=0.01, ha="left", fontsize=11, parse_math=False,
    )  # fmt: skip
    if labels:
        handles = [Patch(color=rgb[label], label=label) for label in labels]
        legend = figure.legend(handles=handles, loc="outside lower left", ncols=9, fontsize=8, frameon=False)
        for text in legend.get_texts():
            text.set_parse_math(False)
    with atomic_write(path) as draft:
        figure.savefig(draft, dpi=150)
    return path


def _lanes(observation: Observation, labels: Sequence[str]) -> dict[str, int]:
    """Choose a lane for each label so that labels which overlap in time do not share one."""
    intervals = {
        label: [(bout.onset, bout.offset) for bout in observation.bouts if bout.label == label] for label in labels
    }
    lanes: dict[str, int] = {}
    for label in labels:
        taken = {
            lanes[other]
            for other in lanes
            if any(a < d and c < b for a, b in intervals[label] for c, d in intervals[other])
        }
        lanes[label] = next(lane for lane in range(len(labels) + 1) if lane not in taken)
    return lanes


def _row_name(observation: Observation, *, with_source: bool) -> str:
    parts = [observation.group, observation.subject, observation.recording, observation.source if with_source else ""]
    return " · ".join(dict.fromkeys(part for part in parts if part))
