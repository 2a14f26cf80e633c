"""The table that a comparison of runs gives: as text, csv, Markdown and a figure."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from actionprep.plain import plain
from actionprep.training.cost import Cost
from actionprep.training.metrics import Interval
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
    train_seconds: of one run, the mean. cost: None where it was not measured.
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
    cost: Cost | None


IMPORTANCE = (
    "recipe", "accuracy %", "macro F1 %", "runs", "latency", "parameters", "training", "GFLOPs", "clips/s", "mAP %"
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
        """Columns, and the rows as text for a reader."""
        rows = [
            [
                row.name,
                _with_bounds(row.accuracy),
                _with_bounds(row.macro_f1),
                _with_bounds(row.map),
                "" if row.cost is None else f"{row.cost.parameters / 1e6:.2f} M",
                "" if row.cost is None else f"{row.cost.flops / 1e9:.2f}",
                _minutes(row.train_seconds),
                "" if row.cost is None else f"{row.cost.latency_ms:.1f} ms",
                "" if row.cost is None else f"{row.cost.clips_per_s:,.0f}",
                _how_many(row),
            ]
            for row in self.rows
        ]
        return (
            [
                "recipe", "accuracy %", "macro F1 %", "mAP %", "parameters", "GFLOPs", "training", "latency", "clips/s",
                "runs",
            ],
            rows,
        )  # fmt: skip

    def write(self, folder: str | Path) -> list[Path]:
        """Write compare.csv, compare.md, compare.json and compare.png into a folder; returns their paths."""
        folder = Path(folder)
        paths = [folder / f"compare.{kind}" for kind in ("csv", "md", "json", "png")]
        texts = (self.to_csv(), self.to_markdown(), json.dumps(self.document(), indent=2, ensure_ascii=False) + "\n")
        for path, text in zip(paths, texts, strict=False):
            write_text(path, text)
        self.figure().savefig(paths[3], dpi=150)
        return paths

    def figure(self) -> Figure:
        """Accuracy with its interval against latency, operations and weights; without costs against training time."""
        from matplotlib import colormaps
        from matplotlib.figure import Figure
        from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

        axes_of: list[tuple[str, list[float]]] = [("training, s", [row.train_seconds for row in self.rows])]
        costs = [row.cost for row in self.rows if row.cost is not None]
        if len(costs) == len(self.rows):
            axes_of = [
                (f"latency on {costs[0].device}, ms", [one.latency_ms for one in costs]),
                ("GFLOPs a snippet", [one.flops / 1e9 for one in costs]),
                ("parameters, M", [one.parameters / 1e6 for one in costs]),
            ]
        colors = colormaps["tab10" if len(self.rows) <= 10 else "tab20"].colors  # type: ignore[attr-defined]
        rows = -(-len(self.rows) // 3)
        figure = Figure(figsize=(4.2 * len(axes_of), 3.6 + 0.25 * rows), layout="constrained")
        panels = np.atleast_1d(figure.subplots(1, len(axes_of), sharey=True))
        handles: list[Any] = []
        for panel, (name, values) in zip(panels, axes_of, strict=True):
            handles = []
            for at, (row, value) in enumerate(zip(self.rows, values, strict=True)):
                one = row.accuracy
                handles.append(
                    panel.errorbar(
                        max(value, 1e-6), one.value, yerr=[[max(one.value - one.low, 0)], [max(one.high - one.value, 0)]],
                        fmt="o", color=colors[at % len(colors)], capsize=3, label=row.name,
                    )
                )  # fmt: skip
            # Bounds come first: a scale looks for bounds of its own, and one value alone has none.
            panel.set(xlabel=name, xlim=(max(min(values), 1e-6) / 1.8, max(*values, 2e-6) * 1.8))
            panel.set_xscale("log")
            panel.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            panel.xaxis.set_minor_locator(NullLocator())
            panel.grid(alpha=0.3)
            panel.spines[["top", "right"]].set_visible(False)
        panels[0].set(ylabel="accuracy")
        panels[0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value * 100:g} %"))
        figure.legend(handles=handles, loc="outside lower center", ncols=min(3, len(self.rows)), frameon=False)
        return figure


def _flat(row: Compared) -> Mapping[str, Any]:
    """Plain cells for csv; what is not known is empty."""
    found: dict[str, Any] = {"name": row.name, "recipe": row.recipe}
    for name in ("accuracy", "macro_f1", "map"):
        one: Interval = getattr(row, name)
        found |= {name: one.value, f"{name}_low": one.low, f"{name}_high": one.high}
    found |= {
        name: None if row.cost is None else getattr(row.cost, name) for name in (one.name for one in fields(Cost))
    }
    found |= {"train_seconds": row.train_seconds, "snippets": row.snippets, "folds": row.folds}
    found["splits"] = " ".join(row.splits)
    found |= {"seeds": " ".join(map(str, row.seeds)), "runs": " ".join(row.runs)}
    return {name: None if value != value else value for name, value in found.items()}


def _with_bounds(one: Interval) -> str:
    if one.value != one.value:
        return "–"
    if one.low != one.low:
        return f"{one.value * 100:.1f}"
    return f"{one.value * 100:.1f} ({one.low * 100:.1f} to {one.high * 100:.1f})"


def _how_many(row: Compared) -> str:
    parts = [f"{len(row.seeds)} seeds"] if len(row.seeds) > 1 else []
    parts += [f"{row.folds} folds"] if row.folds > 1 else []
    parts += [f"{len(row.splits)} splits"] if len(row.splits) > 1 else []
    return " x ".join(parts) or "1"


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"
