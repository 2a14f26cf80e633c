"""The table that a comparison of runs gives: as text, csv, Markdown and a figure."""

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
from actionprep.json_values import plain
from actionprep.training.evaluation.metrics import Interval
from actionprep.training.experiments.cost import Cost
from actionprep.training.run import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Compared:
    """One row: the runs of one recipe with the same settings, or fusions of such runs.

    accuracy, macro_f1, map (mean average precision): of one run with the interval of its test; of several seeds their
        mean, with an interval over both seeds and recordings drawn anew. Folds of one seed are one test over all their
        snippets; of several stored splits it is the mean over them.
    snippets:      test snippets, each counted once.
    train_seconds: of one run, the mean. passes: how often a test asks each model of a snippet; cost: of one such pass,
        None where the model or its snippets are not there.
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
"""Columns of `Comparison.cells`, those first that a narrow terminal shows."""


@dataclass(frozen=True)
class Comparison:
    """Rows, the best first, and what a reader of them should know."""

    rows: tuple[Compared, ...]
    notes: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """Plain values."""
        found: dict[str, Any] = plain({"rows": [asdict(row) for row in self.rows], "notes": list(self.notes)})
        return found

    def to_csv(self) -> str:
        """A row a line, figures as they are."""
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, list(_flat(self.rows[0])), lineterminator="\n")
        writer.writeheader()
        writer.writerows(map(_flat, self.rows))
        return buffer.getvalue()

    def to_markdown(self) -> str:
        """The table of `cells` for a page."""
        columns, rows = self.cells()
        lines = [columns, ["---"] + ["---:"] * (len(columns) - 1), *rows]
        table = "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
        return "\n\n".join([table, *self.notes]) + "\n"

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """Columns, and the rows as text for a reader; without those in which no row has anything."""
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
        filled = [at for at in range(len(columns)) if any(row[at] for row in rows)]
        return [columns[at] for at in filled], [[row[at] for at in filled] for row in rows]

    def write(self, folder: str | Path) -> list[Path]:
        """Write compare.csv, compare.md, compare.json and compare.png into a folder; returns their paths."""
        folder = Path(folder)
        paths = [folder / f"compare.{kind}" for kind in ("csv", "md", "json", "png")]
        texts = (self.to_csv(), self.to_markdown(), json.dumps(self.document(), indent=2, ensure_ascii=False) + "\n")
        for path, text in zip(paths, texts, strict=False):
            write_text(path, text)
        self.figure().savefig(no_link(paths[3]), dpi=150)
        return paths

    def figure(self) -> Figure:
        """Accuracy with its interval against latency, operations and weights; what was not timed against training time.

        Rows of equal cost stand side by side about it, some points of the paper aside and no more.
        """
        from matplotlib import colormaps
        from matplotlib.figure import Figure
        from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
        from matplotlib.transforms import ScaledTranslation

        axes_of: list[tuple[str, list[float]]] = [("training, s", [row.train_seconds for row in self.rows])]
        costs = [row.cost for row in self.rows if row.cost is not None]
        if len(costs) == len(self.rows):
            latencies = [one.latency_ms for one in costs if one.latency_ms is not None]
            if len(latencies) == len(costs):
                axes_of = [(f"latency of one pass on {costs[0].device}, ms", latencies)]
            axes_of += [
                ("GFLOPs of one pass", [one.flops / 1e9 for one in costs]),
                ("parameters, M", [one.parameters / 1e6 for one in costs]),
            ]
        colors = colormaps["tab10" if len(self.rows) <= 10 else "tab20"].colors  # type: ignore[attr-defined]
        width = max(4.2 * len(axes_of), 7.0)
        names, num_columns = _legend([row.name for row in self.rows], width)
        lines = -(-sum(name.count("\n") + 1 for name in names) // num_columns)
        figure = Figure(figsize=(width, 3.6 + 0.24 * lines), layout="constrained")
        panels = np.atleast_1d(figure.subplots(1, len(axes_of), sharey=True))
        handles: list[Any] = []
        for panel, (label, values) in zip(panels, axes_of, strict=True):
            handles = []
            # Bounds come first: a scale looks for bounds of its own, and one value alone has none.
            places = np.maximum(values, 1e-6)
            # Room for a mark that stands aside, however many decades there are.
            span = float(np.log(places.max() / places.min()))
            margin = np.exp(max(np.log(1.8), 0.08 * span))
            low, high = places.min() / margin, places.max() * margin
            aside = _aside(np.log(places), near=0.022 * np.log(high / low))
            moved = "\n(equal ones side by side)" if aside.any() else ""
            panel.set(xlabel=label + moved, xscale="log", xlim=(low, high))
            for at, (row, name, place) in enumerate(zip(self.rows, names, places, strict=True)):
                one = row.accuracy
                bars = panel.errorbar(
                    place, one.value, yerr=[[max(one.value - one.low, 0)], [max(one.high - one.value, 0)]],
                    fmt="o", color=colors[at % len(colors)], capsize=3, label=name,
                )  # fmt: skip
                # After they were added: axes take no bounds from what does not stand at its data.
                shifted = panel.transData + ScaledTranslation(aside[at] / 72, 0, figure.dpi_scale_trans)
                for part in bars.get_children():
                    part.set_transform(shifted)
                handles.append(bars)
            panel.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high / low < 1000 else (1.0,)))
            panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            panel.xaxis.set_minor_locator(NullLocator())
            panel.grid(alpha=0.3)
            panel.spines[["top", "right"]].set_visible(False)
        panels[0].set(ylabel="accuracy")
        panels[0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value * 100:g} %"))
        figure.legend(handles=handles, loc="outside lower center", ncols=num_columns, frameon=False)
        return figure


def _legend(names: Sequence[str], width: float) -> tuple[list[str], int]:
    """Names and the number of columns in which they fit into so many inches; names too long even for one are wrapped."""
    from matplotlib.textpath import TextPath

    def inches(name: str) -> float:
        return float(TextPath((0, 0), name, size=10, usetex=False).get_extents().width) / 72

    besides = 0.7  # of a column: its mark, and what stands between columns
    longest = max(map(inches, names))
    for num_columns in (3, 2, 1):
        if num_columns <= len(names) and num_columns * (longest + besides) <= width:
            return list(names), num_columns
    letters = int((width - besides) / longest * max(map(len, names)) * 0.9)
    return ["\n".join(textwrap.wrap(name, letters, break_on_hyphens=False)) for name in names], 1


_WIDEST = 18.0
"""So far apart, in points of the paper, stand the outermost of rows of equal cost: more would look like another cost."""


def _aside(places: np.ndarray, *, near: float) -> np.ndarray:
    """Points (N) to the right by which to draw each of these places (N,): those near each other stand side by side."""
    order = np.argsort(places, kind="stable")
    found = np.zeros(len(places))
    for group in np.split(order, np.flatnonzero(np.diff(places[order]) >= near) + 1):
        reach = min(6.0 * (len(group) - 1), _WIDEST) / 2
        found[group] = np.linspace(-reach, reach, len(group))
    return found


def _flat(row: Compared) -> Mapping[str, Any]:
    """Plain cells for csv; what is not known is empty."""
    found: dict[str, Any] = {"name": row.name, "recipe": row.recipe}
    for name in ("accuracy", "macro_f1", "map"):
        one: Interval = getattr(row, name)
        found |= {name: one.value, f"{name}_low": one.low, f"{name}_high": one.high}
    found |= {
        name: None if row.cost is None else getattr(row.cost, name) for name in (one.name for one in fields(Cost))
    }
    found |= {"passes": _passes(row), "train_seconds": row.train_seconds, "snippets": row.snippets, "folds": row.folds}
    found["splits"] = " ".join(row.splits)
    found |= {"seeds": " ".join(map(str, row.seeds)), "runs": " ".join(row.runs)}
    return {name: None if value != value else value for name, value in found.items()}


def _with_bounds(one: Interval) -> str:
    if one.value != one.value:
        return "–"
    if one.low != one.low:
        return f"{one.value * 100:.1f}"
    return f"{one.value * 100:.1f} ({one.low * 100:.1f} to {one.high * 100:.1f})"


def _passes(row: Compared) -> str:
    """As "8", or of a fusion "8 + 1"."""
    return " + ".join(map(str, row.passes))


def _how_many(row: Compared) -> str:
    parts = [f"{len(row.seeds)} seeds"] if len(row.seeds) > 1 else []
    parts += [f"{row.folds} folds"] if row.folds > 1 else []
    parts += [f"{len(row.splits)} splits"] if len(row.splits) > 1 else []
    return " x ".join(parts) or "1"


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"
