"""One table over runs: how good, how sure, how big, how fast; runs that differ in seed or split alone are one row."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from actionprep.datasets.catalogue import natural_key
from actionprep.errors import ActionprepError, UserError
from actionprep.plain import plain
from actionprep.settings import canonical_json
from actionprep.training import metrics
from actionprep.training.cost import Cost, measure_cost
from actionprep.training.fit import differences
from actionprep.training.fusion import fused_runs
from actionprep.training.metrics import Interval
from actionprep.training.run import FACTS, FUSION, Run, write_text
from actionprep.training.test import saved_arrays

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


def compare(
    runs: Sequence[Run | str | Path],
    *,
    measure: bool = True,
    device: str = "auto",
    repeats: int = 1000,
    seconds: float = 0.5,
) -> Comparison:
    """Put tested runs side by side.

    runs:    runs, or folders that hold some: of folds, of a sweep, of a study's runs.
    measure: count and time one model of each row on this machine, with snippets of its store.
    repeats: resampled tests of the intervals. seconds: how long each model is timed.

    Raises UserError for a run that is not tested yet.
    """
    given = [one for place in runs for one in runs_in(place)]
    found = [_Entry.of(run) for run in {run.folder.resolve(): run for run in given}.values()]
    if not found:
        raise UserError("Nothing to compare: name some runs, or train and test some ('actiontrain sweep').")
    untested = [entry.run.folder for entry in found if entry.run.tested is None]
    if untested:
        more = f" (and {len(untested) - 1} more)" if len(untested) > 1 else ""
        raise UserError(
            f"{untested[0]}{more} is not tested yet, and only tested runs can be compared. Run 'actiontrain test "
            f"{untested[0]}' first."
        )
    groups: dict[str, list[_Entry]] = {}
    for entry in found:
        groups.setdefault(canonical_json([_identity(run) for run in entry.members]), []).append(entry)
    names = _names([group[0] for group in groups.values()])
    rows, notes = [], _notes([run for entry in found for run in entry.members])
    for name, group in zip(names, groups.values(), strict=True):
        cost = None
        if measure:
            try:
                cost = _together([_cost(run, device=device, seconds=seconds) for run in group[0].members])
            except UserError as error:
                notes.append(f"{name} was not measured: {error}")
        rows.append(_row(name, group, cost, repeats=repeats))
    if costs := [row.cost for row in rows if row.cost is not None]:
        notes.append(
            f"Latency and clips/s of the models alone, on {costs[0].device} with {costs[0].threads} CPU thread(s); "
            f"clips/s in batches of {costs[0].batch}."
        )
    if len({frozenset(row.splits) for row in rows}) > 1:
        notes.append("These rows are not all over the same stored splits, so some were tested on other snippets.")
    rows.sort(key=lambda row: -row.accuracy.value)
    return Comparison(tuple(rows), tuple(notes))


def runs_in(given: Run | str | Path) -> list[Run]:
    """The run or fusion of a folder, or all complete ones inside it."""
    if isinstance(given, Run):
        return [given]
    folder = Path(given)
    if any((folder / name).is_file() for name in (FACTS, FUSION)):
        return [Run(folder)]
    depths = ("*", "*/*", "*/*/*")
    inner = sorted(
        {path.parent for name in (FACTS, FUSION) for depth in depths for path in folder.glob(f"{depth}/{name}")}
    )
    if not inner:
        raise UserError(
            f"{folder} is no run and holds none. Runs are made by 'actiontrain fit' or 'actiontrain sweep'."
        )
    return [run for run in map(Run, inner) if (run.folder / FUSION).exists() or run.is_complete]


@dataclass(frozen=True)
class _Entry:
    """Something tested, and the runs whose models it asks: itself, or those of a fusion."""

    run: Run
    members: tuple[Run, ...]

    @classmethod
    def of(cls, run: Run) -> _Entry:
        fused = fused_runs(run.folder)
        return cls(run, (run,) if fused is None else fused[0])

    @property
    def recipe(self) -> str:
        names = [one.recipe.name for one in self.members]
        return names[0] if len(names) == 1 else f"fusion of {' + '.join(names)}"

    @property
    def seed(self) -> int:
        return int(self.members[0].facts["seed"])

    @property
    def stored_split(self) -> str | None:
        """Name of the stored split, if it is one."""
        found: str | None = self.members[0].facts["split"].get("stored")
        return found

    @property
    def test_rows(self) -> set[int]:
        return set(self.members[0].facts["split"]["rows"]["test"])

    @property
    def train_seconds(self) -> float:
        return sum(float(one.facts.get("train_seconds") or 0.0) for one in self.members)


def _together(costs: Sequence[Cost]) -> Cost:
    """The cost of asking several models one after the other."""
    first = costs[0]
    if len(costs) == 1:
        return first
    return replace(
        first,
        parameters=sum(one.parameters for one in costs),
        flops=sum(one.flops for one in costs),
        latency_ms=sum(one.latency_ms for one in costs),
        clips_per_s=1 / sum(1 / one.clips_per_s for one in costs),
    )


def _identity(run: Run) -> str:
    """Equal for runs that differ in seed or split alone."""
    tables = run.recipe.to_tables()
    for key in ("seed", "doc"):
        tables["recipe"].pop(key)
    facts = run.facts
    return canonical_json([tables, facts["snippets"], facts["views"], facts["labels"], facts["input_digest"]])


def _names(entries: Sequence[_Entry]) -> list[str]:
    """Names of rows: the recipe's, and what sets it apart from others of that name."""
    found = []
    runs = [entry.run for entry in entries if len(entry.members) == 1]
    for entry in entries:
        run = entry.run
        if len(entry.members) > 1:
            found.append(entry.recipe)
            continue
        same = [other for other in runs if other.recipe.name == run.recipe.name]
        apart: dict[str, str] = {}
        for other in same:
            for sentence in differences(run.recipe, other.recipe):
                setting, _, rest = sentence.partition(" is ")
                if setting != "seed":
                    apart[setting] = rest.rpartition(", not ")[0]
        for fact in ("views", "snippets"):
            if len({canonical_json(other.facts[fact]) for other in same}) > 1:
                value = run.facts[fact]
                apart[fact] = value if isinstance(value, str) else " ".join(value)
        found.append(" ".join([run.recipe.name, *(f"{name}={value}" for name, value in apart.items())]))
    doubled = {name for name in found if found.count(name) > 1}
    return [
        f"{name} ({entry.run.folder.name})" if name in doubled else name
        for name, entry in zip(found, entries, strict=True)
    ]


def _notes(runs: Sequence[Run]) -> list[str]:
    """What keeps runs from being compared; what else a store holds does not matter, only what they read."""
    facts = [run.facts for run in runs]
    if len({tuple(one["labels"]) for one in facts}) > 1:
        return ["These runs have different classes: their figures do not compare."]
    notes = []
    tables: dict[str, list[str]] = {}
    for run, one in zip(runs, facts, strict=True):
        tables.setdefault(_snippets_digest(one), []).append(run.folder.name)
    if len(tables) > 1:
        notes.append(
            f"These runs were tested on different snippets, so their figures do not compare: {_apart(tables)}."
        )
    products: dict[str, dict[str, list[str]]] = {}
    for run, one in zip(runs, facts, strict=True):
        reads = run.recipe.reads
        made = products.setdefault(f"{reads} and {_snippets_digest(one)}", {})
        made.setdefault(one["input_digest"], []).append(run.folder.name)
    for name, made in products.items():
        if len(made) > 1:
            product = name.partition(" and ")[0]
            notes.append(f"The {product} that these runs read are not the same: {_apart(made)}.")
    return notes


def _snippets_digest(facts: Mapping[str, Any]) -> str:
    """The hash of a run's table of snippets; of older runs, which did not keep it, that of the table as it is now."""
    from actionprep.datasets.store import Store

    if "snippets_digest" in facts:
        return str(facts["snippets_digest"])
    try:
        return str(Store(facts["store"]).item("snippets", facts["snippets"]).digest)
    except ActionprepError:
        return f"{facts['store_digest']} {facts['snippets']}"


def _apart(groups: Mapping[str, Sequence[str]], most: int = 6) -> str:
    """Names of runs in groups: "a, b | c"."""
    named = []
    for names in groups.values():
        unique = list(dict.fromkeys(names))
        more = f" and {len(unique) - most} more" if len(unique) > most else ""
        named.append(", ".join(unique[:most]) + more)
    return " | ".join(named)


_DRAWS = 100
"""Resampled tests whose precision is counted at once, so that large tests fit into memory."""


@dataclass(frozen=True)
class _Tested:
    """What one seed's runs on one split said of their test snippets, all folds together, as zeros and ones (S, C)."""

    actual: np.ndarray
    predicted: np.ndarray
    recording: np.ndarray
    probabilities: np.ndarray
    split: str | None = None

    def figures(self, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Accuracy, macro F1 and mean average precision (R) under R weights (R, S) of the snippets.

        nan where no snippet has any weight.
        """
        right = (self.actual == self.predicted).all(axis=1)
        total = weight.sum(axis=1)
        accuracy = np.divide(weight @ right, total, out=np.full(len(weight), np.nan), where=total > 0)
        hits = weight @ (self.actual & self.predicted)
        both = weight @ self.actual + weight @ self.predicted
        f1 = np.divide(2 * hits, both, out=np.full(hits.shape, np.nan), where=both > 0)
        there = (~np.isnan(f1)).sum(axis=1)
        macro = np.divide(np.nansum(f1, axis=1), there, out=np.full(len(weight), np.nan), where=there > 0)
        precision = np.concatenate(
            [
                metrics.mean_average_precision(self.actual, self.probabilities, weight[first : first + _DRAWS])
                for first in range(0, len(weight), _DRAWS)
            ]
        )
        return accuracy, macro, precision


def _row(name: str, group: Sequence[_Entry], cost: Cost | None, *, repeats: int) -> Compared:
    repeated = _repeated(group)
    tested = [_tested(runs, split) for _, split, runs in repeated]
    accuracy, macro_f1, precision = _intervals(tested, repeats=repeats)
    return Compared(
        name=name,
        recipe=group[0].recipe,
        runs=tuple(str(entry.run.folder) for entry in group),
        seeds=tuple(seed for seed, split, _ in repeated if split == repeated[0][1]),
        folds=max(len(runs) for _, _, runs in repeated),
        splits=tuple(dict.fromkeys(split for _, split, _ in repeated if split is not None)),
        snippets=len(set().union(*(one.test_rows for one in group if one.seed == repeated[0][0]))),
        accuracy=accuracy,
        macro_f1=macro_f1,
        map=precision,
        train_seconds=float(np.mean([entry.train_seconds for entry in group])),
        cost=cost,
    )


def _repeated(group: Sequence[_Entry]) -> list[tuple[int, str | None, list[Run]]]:
    """The runs by seed and stored split: others with the same seed that test on other snippets are folds of one test."""
    found: list[tuple[int, str | None, list[Run], set[int]]] = []
    for entry in group:
        rows, split = entry.test_rows, entry.stored_split
        for seed, of_split, runs, taken in found:
            if split is None and of_split is None and seed == entry.seed and not taken & rows:
                runs.append(entry.run)
                taken |= rows
                break
        else:
            found.append((entry.seed, split, [entry.run], rows))
    return [(seed, split, runs) for seed, split, runs, _ in found]


def _tested(runs: Sequence[Run], split: str | None) -> _Tested:
    arrays = [saved_arrays(run) for run in runs]
    num_classes = arrays[0]["probabilities"].shape[1]
    several = arrays[0]["actuals"].ndim == 2

    def joined(name: str) -> np.ndarray:
        values = np.concatenate([one[name] for one in arrays])
        return values.astype(np.int64) if several else metrics.one_hot(values, num_classes).astype(np.int64)

    return _Tested(
        joined("actuals"),
        joined("predictions"),
        np.concatenate([one["recording"] for one in arrays]),
        np.concatenate([one["probabilities"] for one in arrays]),
        split,
    )


def _intervals(tested: Sequence[_Tested], *, repeats: int, seed: int = 0) -> tuple[Interval, Interval, Interval]:
    """Accuracy, macro F1 and mean average precision, with 95 % of draws of seeds and recordings.

    Each is the mean over splits of the mean over seeds.

    A recording is drawn for all seeds and splits alike, since several are tested on the same ones. Splits are not drawn:
    they are those of the data set.
    """
    rng = np.random.default_rng([seed, 1])
    # In the order of the tables of snippets, so that one run has the interval of its test.
    names = sorted(
        set(np.concatenate([one.recording for one in tested]).tolist()), key=lambda one: natural_key(str(one))
    )
    place = {name: at for at, name in enumerate(names)}
    groups = np.arange(len(names))
    drawn = np.concatenate(list(metrics.bootstrap_weights(len(names), groups=groups, repeats=repeats, seed=seed)))
    plain = [one.figures(np.ones((1, len(one.actual)))) for one in tested]
    resampled = [one.figures(drawn[:, [place[name] for name in one.recording.tolist()]]) for one in tested]
    seeds_of = [
        np.flatnonzero([one.split == split for one in tested]) for split in dict.fromkeys(one.split for one in tested)
    ]
    drawn_seeds = [seeds[rng.integers(0, len(seeds), (repeats, len(seeds)))] for seeds in seeds_of]
    found = []
    for figure in range(3):
        of_run = np.stack([one[figure] for one in resampled])
        of_split = [_mean(of_run[which, np.arange(repeats)[:, None]], axis=1) for which in drawn_seeds]
        low, high = np.nanquantile(_mean(np.stack(of_split), axis=0), [0.025, 0.975])
        value = np.mean([np.mean([plain[at][figure][0] for at in seeds]) for seeds in seeds_of])
        drawn_interval = Interval(float(value), float(low), float(high))
        found.append(metrics.where_it_varies(drawn_interval, len(names), is_share=figure == 0))
    return found[0], found[1], found[2]


def _mean(values: np.ndarray, *, axis: int) -> np.ndarray:
    """The mean of those that are numbers; nan where none is, as when no recording of a small split was drawn."""
    there = ~np.isnan(values)
    count = there.sum(axis=axis)
    total = np.where(there, values, 0.0).sum(axis=axis)
    return np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)


def _cost(run: Run, *, device: str, seconds: float) -> Cost:
    from actionprep.datasets.store import Store
    from actionprep.training.checkpoints import load_checkpoint
    from actionprep.training.datasets import SnippetDataset, read_table
    from actionprep.training.test import torch_device

    facts = run.facts
    store = Store(run.store)
    checkpoint = load_checkpoint(run.best, device=str(torch_device(device)))
    rows = np.array(facts["split"]["rows"]["test"], np.int64)
    dataset = SnippetDataset(
        store,
        read_table(store, facts["snippets"]),
        checkpoint.recipe.input,
        views=checkpoint.views or None,
        rows=rows,
    )
    dataset.reader.to(torch_device(device))
    return measure_cost(checkpoint, dataset, seconds=seconds)


def _flat(row: Compared) -> Mapping[str, Any]:
    """Plain cells for csv."""
    found: dict[str, Any] = {"name": row.name, "recipe": row.recipe}
    for name in ("accuracy", "macro_f1", "map"):
        one: Interval = getattr(row, name)
        found |= {name: one.value, f"{name}_low": one.low, f"{name}_high": one.high}
    found |= {
        name: None if row.cost is None else getattr(row.cost, name) for name in (one.name for one in fields(Cost))
    }
    found |= {"train_seconds": row.train_seconds, "snippets": row.snippets, "folds": row.folds}
    found["splits"] = " ".join(row.splits)
    return found | {"seeds": " ".join(map(str, row.seeds)), "runs": " ".join(row.runs)}


def _with_bounds(one: Interval) -> str:
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
