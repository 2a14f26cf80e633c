"""One table over runs: how good, how sure, how big, how fast; runs that differ in seed or split alone are one row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from actionprep.errors import ActionprepError, UserError
from actionprep.settings import canonical_json
from actionprep.training import metrics
from actionprep.training.comparison import Compared, Comparison
from actionprep.training.cost import Cost, measure_cost
from actionprep.training.fusion import fused_runs
from actionprep.training.recipes import differences
from actionprep.training.resampling import SeedAnswers, intervals
from actionprep.training.run import FACTS, FUSION, Run
from actionprep.training.tested import saved_arrays


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
        return cls(run, (run,) if fused is None else fused.runs)

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


def _row(name: str, group: Sequence[_Entry], cost: Cost | None, *, repeats: int) -> Compared:
    repeated = _repeated(group)
    tested = [_tested(runs, split) for _, split, runs in repeated]
    accuracy, macro_f1, precision = intervals(tested, repeats=repeats)
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


def _tested(runs: Sequence[Run], split: str | None) -> SeedAnswers:
    arrays = [saved_arrays(run) for run in runs]
    num_classes = arrays[0]["probabilities"].shape[1]
    several = arrays[0]["actuals"].ndim == 2

    def joined(name: str) -> np.ndarray:
        values = np.concatenate([one[name] for one in arrays])
        return values.astype(np.int64) if several else metrics.one_hot(values, num_classes).astype(np.int64)

    return SeedAnswers(
        joined("actuals"),
        joined("predictions"),
        np.concatenate([one["recording"] for one in arrays]),
        np.concatenate([one["probabilities"] for one in arrays]),
        split,
    )


def _cost(run: Run, *, device: str, seconds: float) -> Cost:
    from actionprep.datasets.store import Store
    from actionprep.training.checkpoints import load_checkpoint
    from actionprep.training.datasets import SnippetDataset, read_table
    from actionprep.training.devices import torch_device

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
