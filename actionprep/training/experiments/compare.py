"""One table over runs: how good, how sure, how big, how fast; repetitions of a training are one row."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from actionprep.datasets.natural_order import natural_key
from actionprep.errors import ActionprepError, UserError
from actionprep.training.evaluation.bootstrap import SeedAnswers, intervals
from actionprep.training.experiments.comparison import Compared, Comparison
from actionprep.training.experiments.cost import Cost, measure_cost
from actionprep.training.experiments.grouping import Entry, repeated, row_names, rows_of
from actionprep.training.run import FACTS, FUSION, Run


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
    measure: time one model of each row on this machine, with snippets of its store; it is counted in any case.
    repeats: resampled tests of the intervals. seconds: how long each model is timed.

    Of a folder's runs, those that are not tested yet or damaged are left out, and the notes name them.

    Raises UserError for such a run that is given itself, and when no other is there.
    """
    found, notes = _tested_in(runs)
    groups, about_repetitions = rows_of(found)
    notes += about_repetitions
    names, rows = row_names([group[0] for group in groups]), []
    notes += _notes(names, groups)
    for name, group in zip(names, groups, strict=True):
        cost = None
        try:
            cost = _together([_cost(run, timed=measure, device=device, seconds=seconds) for run in group[0].members])
        except ActionprepError as error:
            notes.append(f"{name} was not {'measured' if measure else 'counted'}: {error}")
        rows.append(_row(name, group, cost, repeats=repeats))
    if timed := [row.cost for row in rows if row.cost is not None and row.cost.latency_ms is not None]:
        notes.append(
            f"Latency and clips/s of one pass of the models alone, on {timed[0].device} with {timed[0].threads} CPU "
            f"thread(s); clips/s in batches of {timed[0].batch}."
        )
    if any(passes > 1 for row in rows if row.cost is not None for passes in row.passes):
        notes.append(
            "A test asks a model of each snippet as many times as stand under passes: what a pass costs, so many times."
        )
    rows.sort(key=lambda row: -row.accuracy.value)
    return Comparison(tuple(rows), tuple(notes))


def runs_in(given: Run | str | Path) -> list[Run]:
    """The run or fusion of a folder, or all inside it, complete or not."""
    if isinstance(given, Run):
        return [given]
    folder = Path(given)
    if _is_run(folder):
        return [Run(folder)]
    inner = sorted(_runs_below(folder))
    if not inner:
        raise UserError(
            f"{folder} is no run and holds none. Runs are made by 'actiontrain fit' or 'actiontrain sweep'."
        )
    return list(map(Run, inner))


def _runs_below(folder: Path) -> Iterator[Path]:
    """Folders of runs and fusions, however deep; a run's own folders hold what it wrote and are not looked into."""
    seen = set()
    # A study's runs may lie on another disk: links are followed, each place once.
    for place, names, _ in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            names.clear()
        elif _is_run(Path(place)):
            names.clear()
            yield Path(place)
        seen.add(real)


def _is_run(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (FACTS, FUSION))


def _tested_in(places: Sequence[Run | str | Path]) -> tuple[list[Entry], list[str]]:
    """What is tested, each folder once, and sentences that name what is left out; trainings that go on still are not."""
    found: dict[Path, Entry] = {}
    untested: list[Path] = []
    named_untested: list[Path] = []
    damaged: list[str] = []
    for place in places:
        inside = not isinstance(place, Run) and not _is_run(Path(place))
        for run in runs_in(place):
            try:
                if inside and not (run.folder / FUSION).exists() and not run.is_complete:
                    continue
                if run.tested is None:
                    (untested if inside else named_untested).append(run.folder)
                elif run.folder.resolve() not in found:
                    found[run.folder.resolve()] = Entry.of(run).read()
            except UserError as error:
                if not inside:
                    raise
                damaged.append(str(error))
    if named_untested or (untested and not found):
        first, *others = dict.fromkeys([*named_untested, *untested])
        more = f" (and {len(others)} more)" if others else ""
        raise UserError(
            f"{first}{more} is not tested yet, and only tested runs can be compared. Run 'actiontrain test {first}' first."
        )
    if damaged and not found:
        raise UserError(damaged[0])
    if not found:
        raise UserError("Nothing to compare: name some runs, or train and test some ('actiontrain sweep').")
    notes = [f"Left out: {reason}" for reason in dict.fromkeys(damaged)]
    if untested:
        named = _few([str(folder) for folder in dict.fromkeys(untested)])
        notes.append(
            f"Left out, because they are not tested yet: {named}. 'actiontrain test {untested[0]}' tests the first."
        )
    return list(found.values()), notes


def _together(costs: Sequence[Cost]) -> Cost:
    """The cost of asking several models one after the other."""
    first = costs[0]
    together = replace(first, parameters=sum(one.parameters for one in costs), flops=sum(one.flops for one in costs))
    latencies = [one.latency_ms for one in costs if one.latency_ms is not None]
    rates = [one.clips_per_s for one in costs if one.clips_per_s is not None]
    if not latencies:
        return together
    return replace(together, latency_ms=sum(latencies), clips_per_s=1 / sum(1 / one for one in rates))


def _notes(names: Sequence[str], rows: Sequence[Sequence[Entry]]) -> list[str]:
    """What keeps rows from being compared; what else a store holds does not matter, only what they read."""
    runs = [run for row in rows for entry in row for run in entry.members]
    if len({run.labels for run in runs}) > 1:
        return ["These runs have different classes: their figures do not compare."]
    return [*_about_snippets(names, rows), *_about_products(runs)]


def _about_products(runs: Sequence[Run]) -> list[str]:
    products: dict[str, dict[str, list[str]]] = {}
    for run in runs:
        facts, reads = run.facts, run.recipe.reads
        made = products.setdefault(f"{reads} and {_snippets_digest(facts)}", {})
        made.setdefault(facts["input_digest"], []).append(run.folder.name)
    return [
        f"The {name.partition(' and ')[0]} that these runs read are not the same: {_apart(made)}."
        for name, made in products.items()
        if len(made) > 1
    ]


def _about_snippets(names: Sequence[str], rows: Sequence[Sequence[Entry]]) -> list[str]:
    """A sentence that names the snippets of each row when they are not those of all others; and one for a row's seeds."""
    tested: dict[tuple[str, frozenset[int]], list[int]] = {}
    sentences = []
    for at, row in enumerate(rows):
        of_seeds: dict[tuple[int, ...], frozenset[int]] = {}
        for entry in row:
            of_seeds[entry.seeds] = of_seeds.get(entry.seeds, frozenset()) | entry.test_rows
        if len(set(of_seeds.values())) > 1:
            sentences.append(f"The seeds of {names[at]} were not all tested on the same snippets.")
        digest = _snippets_digest(row[0].members[0].facts)
        tested.setdefault((digest, frozenset().union(*of_seeds.values())), []).append(at)
    if len(tested) < 2:
        return sentences
    groups_of = {
        key: _tested_groups([entry for at in rows_at for entry in rows[at]]) for key, rows_at in tested.items()
    }
    common = set.intersection(*map(set, groups_of.values()))
    tables = len({digest for digest, _ in tested})
    parts = []
    for (digest, snippets), rows_at in tested.items():
        # Should there be too many to name, those that tell them apart are named.
        groups = sorted(groups_of[digest, snippets], key=lambda one: (one in common, natural_key(" ".join(one))))
        groups[:_MOST] = sorted(groups[:_MOST], key=lambda one: natural_key(" ".join(one)))
        named = _few([name for _, name in groups])
        kinds = "/".join(dict.fromkeys(kind for kind, _ in groups))
        table = f" in snippets/{rows[rows_at[0]][0].members[0].facts['snippets']} ({digest[:8]})" if tables > 1 else ""
        parts.append(f"{_few([names[at] for at in rows_at])} on {len(snippets)} of {kinds} {named}{table}")
    return [
        f"These rows were tested on different snippets, so their figures do not compare: {' | '.join(parts)}.",
        *sentences,
    ]


def _tested_groups(entries: Sequence[Entry]) -> set[tuple[str, str]]:
    """Whose test snippets they are: pairs such as ("subject", "4")."""
    found = set()
    for entry in entries:
        split = entry.members[0].facts["split"]
        # Earlier runs keep the groups of their split alone.
        shown = split.get("shown", {}).get("test") or {"by": split["by"], "names": split["groups"].get("test", ())}
        found |= {(str(shown["by"]), str(name)) for name in shown["names"]}
    return found


def _snippets_digest(facts: Mapping[str, Any]) -> str:
    """The hash of a run's table of snippets; of older runs, which did not keep it, that of the table as it is now."""
    from actionprep.datasets.store.zarr_store import Store

    if "snippets_digest" in facts:
        return str(facts["snippets_digest"])
    try:
        return str(Store(facts["store"]).item("snippets", facts["snippets"]).digest)
    except ActionprepError:
        return f"{facts['store_digest']} {facts['snippets']}"


def _apart(groups: Mapping[str, Sequence[str]]) -> str:
    """Names of runs in groups: "a, b | c"."""
    return " | ".join(_few(list(dict.fromkeys(names))) for names in groups.values())


_MOST = 6
"""So many of a list of names are told; of the others, how many there are."""


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
    return ", ".join(names[:_MOST]) + more


def _row(name: str, row: Sequence[Entry], cost: Cost | None, *, repeats: int) -> Compared:
    tests = repeated(row)
    accuracy, macro_f1, precision = intervals(
        [SeedAnswers.of([entry.arrays for entry in entries], split) for _, split, entries in tests], repeats=repeats
    )
    return Compared(
        name=name,
        recipe=row[0].recipe,
        runs=tuple(str(entry.run.folder) for entry in row),
        seeds=tuple(seed for seed, split, _ in tests if split == tests[0][1]),
        folds=max(len(entries) for _, _, entries in tests),
        splits=tuple(dict.fromkeys(split for _, split, _ in tests if split is not None)),
        snippets=len(frozenset().union(*(entry.test_rows for entry in row if entry.seeds == row[0].seeds))),
        accuracy=accuracy,
        macro_f1=macro_f1,
        map=precision,
        train_seconds=float(np.mean([entry.train_seconds for entry in row])),
        passes=tuple(run.recipe.test_variants for run in row[0].members),
        cost=cost,
    )


def _cost(run: Run, *, timed: bool, device: str, seconds: float) -> Cost:
    from actionprep.datasets.store.zarr_store import Store
    from actionprep.training.checkpoints import load_checkpoint
    from actionprep.training.datasets import SnippetDataset, read_table
    from actionprep.training.loop.devices import torch_device

    facts = run.facts
    store = Store(run.store).snapshot()
    checkpoint = load_checkpoint(run.best, device=str(torch_device(device)))
    table = read_table(store, facts["snippets"])
    rows = np.array(facts["split"]["rows"]["test"], np.int64)
    if rows.max() >= len(table.recording):
        # Another table of as many rows will do: what a pass costs does not depend on which snippet it is.
        raise UserError(
            f"snippets/{facts['snippets']} in {store.url} holds {len(table.recording)} snippets, fewer than when "
            f"{run.folder} was trained. Cut them as they were, or train anew."
        )
    dataset = SnippetDataset(
        store,
        table,
        checkpoint.recipe.input,
        views=checkpoint.views or None,
        rows=rows,
    )
    dataset.reader.to(torch_device(device))
    return measure_cost(checkpoint, dataset, timed=timed, seconds=seconds)
