"""Table of a comparison of runs: as text, CSV, Markdown, JSON and a plot."""

from __future__ import annotations

import csv
import io
import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from actionprep.datasets.paths import no_link
from actionprep.json_values import counted, plain
from actionprep.training.evaluation.bootstrap import Interval
from actionprep.training.experiments.cost import Cost
from actionprep.training.run import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Compared:
    """One row: the runs of one recipe with the same settings, or fusions of such runs.

    The metrics of a single run have the interval of its test. Those of several seeds are means, with an interval over
    resampled seeds and recordings. Folds of one seed form one test over all their snippets. Of several stored splits,
    the mean over the splits is taken.

    Attributes:
        name: Display name.
        recipe: Name of the recipe, or of the recipes of a fusion.
        runs: Folders of the runs.
        seeds: Seeds of the runs on the first split.
        folds: Number of folds.
        splits: Names of the stored splits.
        snippets: Number of test snippets, each counted once.
        accuracy: Accuracy.
        macro_f1: Macro F1.
        map: Mean average precision.
        train_seconds: Training time of one run in seconds; the mean over runs.
        passes: Forward passes per snippet in a test, per model.
        cost: Cost of one forward pass; None if the model or its snippets are not available.
    """

    name: str
    recipe: str
    runs: tuple[str, ...]
    seeds: tuple[int, ...]
    folds: int
    splits: tuple[str, ...]
    snippets: int
    accuracy: Interval
    macro_f1: Interval
    map: Interval
    train_seconds: float
    passes: tuple[int, ...]
    cost: Cost | None


IMPORTANCE = (
    "recipe", "accuracy %", "macro F1 %", "runs", "latency/pass", "passes", "parameters", "training", "GFLOPs/pass",
    "clips/s", "mAP %",
)  # fmt: skip
"""Columns of `Comparison.cells` by importance; a narrow terminal shows the first ones."""


@dataclass(frozen=True)
class Comparison:
    """Rows, sorted by accuracy, and notes on what to consider when reading them."""

    rows: tuple[Compared, ...]
    notes: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """Return rows and notes as plain values."""
        document: dict[str, Any] = plain({"rows": [asdict(row) for row in self.rows], "notes": list(self.notes)})
        return document

    def to_csv(self) -> str:
        """Return CSV text with one line per row and unrounded values."""
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, list(_flat(self.rows[0])), lineterminator="\n")
        writer.writeheader()
        writer.writerows(map(_flat, self.rows))
        return buffer.getvalue()

    def to_markdown(self) -> str:
        """Return the table of `cells` and the notes as Markdown."""
        columns, rows = self.cells()
        lines = [columns, ["---"] + ["---:"] * (len(columns) - 1), *rows]
        table = "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
        return "\n\n".join([table, *self.notes]) + "\n"

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """Return column names, and rows as display text. Columns that are empty in every row are left out."""
        columns = [
            "recipe", "accuracy %", "macro F1 %", "mAP %", "parameters", "GFLOPs/pass", "passes", "training",
            "latency/pass", "clips/s", "runs",
        ]  # fmt: skip
        rows = [
            [
                row.name,
                _with_bounds(row.accuracy),
                _with_bounds(row.macro_f1),
                _with_bounds(row.map),
                "" if row.cost is None else f"{row.cost.parameters / 1e6:.2f} M",
                "" if row.cost is None else f"{row.cost.flops / 1e9:.2f}",
                _passes(row),
                _minutes(row.train_seconds),
                "" if row.cost is None or row.cost.latency_ms is None else f"{row.cost.latency_ms:.1f} ms",
                "" if row.cost is None or row.cost.clips_per_s is None else f"{row.cost.clips_per_s:,.0f}",
                _how_many(row),
            ]
            for row in self.rows
        ]
        filled = [column for column in range(len(columns)) if any(row[column] for row in rows)]
        return [columns[column] for column in filled], [[row[column] for column in filled] for row in rows]

    def write(self, folder: str | Path) -> list[Path]:
        """Write compare.csv, compare.md, compare.json and compare.png into a folder, and return their paths."""
        folder = Path(folder)
        paths = [folder / f"compare.{kind}" for kind in ("csv", "md", "json", "png")]
        texts = (self.to_csv(), self.to_markdown(), json.dumps(self.document(), indent=2, ensure_ascii=False) + "\n")
        for path, text in zip(paths, texts, strict=False):
            write_text(path, text)
        self.figure().savefig(no_link(paths[3]), dpi=150)
        return paths

    def figure(self) -> Figure:
        """Plot accuracy with its interval against latency, operations and parameters.

        Training time replaces latency if a row was not timed. Rows of nearly equal cost are drawn next to each other,
        shifted by a few points of the page.
        """
        from matplotlib import colormaps
        from matplotlib.figure import Figure
        from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
        from matplotlib.transforms import ScaledTranslation

        axes_of: list[tuple[str, list[float]]] = [("training, s", [row.train_seconds for row in self.rows])]
        costs = [row.cost for row in self.rows if row.cost is not None]
        if len(costs) == len(self.rows):
            latencies = [cost.latency_ms for cost in costs if cost.latency_ms is not None]
            if len(latencies) == len(costs):
                axes_of = [(f"latency of one pass on {costs[0].device}, ms", latencies)]
            axes_of += [
                ("GFLOPs of one pass", [cost.flops / 1e9 for cost in costs]),
                ("parameters, M", [cost.parameters / 1e6 for cost in costs]),
            ]
        colors = colormaps["tab10" if len(self.rows) <= 10 else "tab20"].colors  # type: ignore[attr-defined]
        width = max(4.2 * len(axes_of), 7.0)
        names, num_columns = _legend([row.name for row in self.rows], width)
        lines = -(-sum(name.count("\n") + 1 for name in names) // num_columns)
        figure = Figure(figsize=(width, 3.6 + 0.24 * lines), layout="constrained")
        panels = np.atleast_1d(figure.subplots(1, len(axes_of), sharey=True))
        markers: list[Any] = []
        for panel, (label, values) in zip(panels, axes_of, strict=True):
            markers = []
            # Set limits first: a log scale derives its own, which fails for a single value.
            positions = np.maximum(values, 1e-6)
            # Leave space for shifted markers, whatever the number of decades.
            span = float(np.log(positions.max() / positions.min()))
            margin = np.exp(max(np.log(1.8), 0.08 * span))
            low, high = positions.min() / margin, positions.max() * margin
            shifts = _aside(np.log(positions), near=0.022 * np.log(high / low))
            note = "\n(equal values drawn side by side)" if shifts.any() else ""
            panel.set(xlabel=label + note, xscale="log", xlim=(low, high))
            for index, (row, name, position) in enumerate(zip(self.rows, names, positions, strict=True)):
                accuracy = row.accuracy
                below, above = max(accuracy.value - accuracy.low, 0), max(accuracy.high - accuracy.value, 0)
                marker = panel.errorbar(
                    position, accuracy.value, yerr=[[below], [above]],
                    fmt="o", color=colors[index % len(colors)], capsize=3, label=name,
                )  # fmt: skip
                # Only after the marker was added: axes ignore artists that are not in data coordinates.
                shifted = panel.transData + ScaledTranslation(shifts[index] / 72, 0, figure.dpi_scale_trans)
                for part in marker.get_children():
                    part.set_transform(shifted)
                markers.append(marker)
            panel.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high / low < 1000 else (1.0,)))
            panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            panel.xaxis.set_minor_locator(NullLocator())
            panel.grid(alpha=0.3)
            panel.spines[["top", "right"]].set_visible(False)
        panels[0].set(ylabel="accuracy")
        panels[0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value * 100:g} %"))
        figure.legend(handles=markers, loc="outside lower center", ncols=num_columns, frameon=False)
        return figure


def _legend(names: Sequence[str], width: float) -> tuple[list[str], int]:
    """Return names and the number of legend columns that fit into a width in inches; too long names are wrapped."""
    from matplotlib.textpath import TextPath

    def inches(name: str) -> float:
        return float(TextPath((0, 0), name, size=10, usetex=False).get_extents().width) / 72

    extra = 0.7  # inches per column: its marker and the gap between columns
    longest = max(map(inches, names))
    for num_columns in (3, 2, 1):
        if num_columns <= len(names) and num_columns * (longest + extra) <= width:
            return list(names), num_columns
    num_letters = int((width - extra) / longest * max(map(len, names)) * 0.9)
    return ["\n".join(textwrap.wrap(name, num_letters, break_on_hyphens=False)) for name in names], 1


_MAX_SPREAD = 18.0
"""Distance in points between the outermost markers of equal cost. A larger one would look like a different cost."""


def _aside(positions: np.ndarray, *, near: float) -> np.ndarray:
    """Return the horizontal shift of each marker in points (N,), so that nearby markers do not overlap."""
    order = np.argsort(positions, kind="stable")
    shifts = np.zeros(len(positions))
    for group in np.split(order, np.flatnonzero(np.diff(positions[order]) >= near) + 1):
        reach = min(6.0 * (len(group) - 1), _MAX_SPREAD) / 2
        shifts[group] = np.linspace(-reach, reach, len(group))
    return shifts


def _flat(row: Compared) -> Mapping[str, Any]:
    """Plain cells for CSV; unknown values are empty."""
    cells: dict[str, Any] = {"name": row.name, "recipe": row.recipe}
    for name in ("accuracy", "macro_f1", "map"):
        interval: Interval = getattr(row, name)
        cells |= {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
    cells |= {
        name: None if row.cost is None else getattr(row.cost, name) for name in (field.name for field in fields(Cost))
    }
    cells |= {"passes": _passes(row), "train_seconds": row.train_seconds, "snippets": row.snippets, "folds": row.folds}
    cells["splits"] = " ".join(row.splits)
    cells |= {"seeds": " ".join(map(str, row.seeds)), "runs": " ".join(row.runs)}
    return {name: None if value != value else value for name, value in cells.items()}


def _with_bounds(interval: Interval) -> str:
    if interval.value != interval.value:
        return "–"
    if interval.low != interval.low:
        return f"{interval.value * 100:.1f}"
    return f"{interval.value * 100:.1f} ({interval.low * 100:.1f} to {interval.high * 100:.1f})"


def _passes(row: Compared) -> str:
    """Such as "8", or "8 + 1" for a fusion."""
    return " + ".join(map(str, row.passes))


def _how_many(row: Compared) -> str:
    parts = [f"{len(row.seeds)} seeds"] if len(row.seeds) > 1 else []
    parts += [counted(row.folds, "fold")] if row.folds > 1 else []
    parts += [f"{len(row.splits)} splits"] if len(row.splits) > 1 else []
    return " x ".join(parts) or "1"


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"
