"""Compare tested runs: quality with intervals, size and speed. Repetitions of one training form one row."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from actionprep.datasets.natural_order import natural_key
from actionprep.errors import ActionprepError, UserError, name_list
from actionprep.json_values import counted
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
    """Compare tested runs.

    Untested and damaged runs inside a folder are left out and named in the notes.

    Args:
        runs: Runs and fusions, or folders that contain some: of folds, of a sweep, of a study.
        measure: Time one model per row on this machine, on snippets of its store. Parameters and operations are always
            counted.
        device: Device of the timing.
        repeats: Number of resampled test sets of the intervals.
        seconds: Duration of each timing.

    Returns:
        Rows sorted by accuracy, and notes.

    Raises:
        UserError: If a run that is given itself is untested or damaged, or if there is no tested run.
    """
    entries, notes = _tested_in(runs)
    groups, group_notes = rows_of(entries)
    notes += group_notes
    names, rows = row_names([group[0] for group in groups]), []
    notes += _notes(names, groups)
    for name, group in zip(names, groups, strict=True):
        cost = None
        try:
            cost = _total_cost([_cost(run, timed=measure, device=device, seconds=seconds) for run in group[0].members])
        except ActionprepError as error:
            notes.append(f"{name} was not {'timed' if measure else 'counted'}: {error}")
        rows.append(_row(name, group, cost, repeats=repeats))
    if timed := [row.cost for row in rows if row.cost is not None and row.cost.latency_ms is not None]:
        notes.append(
            f"Latency and clips/s are of one forward pass of the models alone, on {timed[0].device} with "
            f"{counted(timed[0].threads or 0, 'CPU thread')}; clips/s in batches of {timed[0].batch}."
        )
    if any(passes > 1 for row in rows if row.cost is not None for passes in row.passes):
        notes.append(
            "A test runs several passes per snippet (column 'passes'). Multiply the cost of one pass by their number."
        )
    rows.sort(key=lambda row: -row.accuracy.value)
    return Comparison(tuple(rows), tuple(notes))


def runs_in(source: Run | str | Path) -> list[Run]:
    """List the run or fusion in a folder, or all runs below it, complete or not.

    Raises:
        UserError: If there is none.
    """
    if isinstance(source, Run):
        return [source]
    folder = Path(source)
    if _is_run(folder):
        return [Run(folder)]
    folders = sorted(_runs_below(folder))
    if not folders:
        raise UserError(
            f"{folder} is not a run and contains none. Train runs with 'actiontrain fit' or 'actiontrain sweep'."
        )
    return list(map(Run, folders))


def _runs_below(folder: Path) -> Iterator[Path]:
    """Find the folders of runs and fusions at any depth. Subfolders of a run are not searched."""
    seen = set()
    # The runs of a study may be on another disk: links are followed, each folder once.
    for path, names, _ in os.walk(folder, followlinks=True):
        real_path = os.path.realpath(path)
        if real_path in seen:
            names.clear()
        elif _is_run(Path(path)):
            names.clear()
            yield Path(path)
        seen.add(real_path)


def _is_run(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (FACTS, FUSION))


def _tested_in(sources: Sequence[Run | str | Path]) -> tuple[list[Entry], list[str]]:
    """Return the tested runs, each folder once, and notes on those left out. Trainings in progress are ignored."""
    entries: dict[Path, Entry] = {}
    untested: list[Path] = []
    named_untested: list[Path] = []
    damaged: list[str] = []
    for source in sources:
        is_nested = not isinstance(source, Run) and not _is_run(Path(source))
        for run in runs_in(source):
            try:
                if is_nested and not (run.folder / FUSION).exists() and not run.is_complete:
                    continue
                if run.tested is None:
                    (untested if is_nested else named_untested).append(run.folder)
                elif run.folder.resolve() not in entries:
                    entries[run.folder.resolve()] = Entry.of(run).read()
            except UserError as error:
                if not is_nested:
                    raise
                damaged.append(str(error))
    if named_untested or (untested and not entries):
        first, *others = dict.fromkeys([*named_untested, *untested])
        more = f" and {len(others)} more" if others else ""
        raise UserError(
            f"{first}{more} {'have' if others else 'has'} not been tested yet. Only tested runs can be compared: run "
            f"'actiontrain test {first}' first."
        )
    if damaged and not entries:
        raise UserError(damaged[0])
    if not entries:
        raise UserError("No runs to compare. Name tested runs, or train and test some with 'actiontrain sweep'.")
    notes = [f"Left out: {reason}" for reason in dict.fromkeys(damaged)]
    if untested:
        folders = list(dict.fromkeys(map(str, untested)))
        notes.append(
            f"Left out because not tested yet: {name_list(folders, _MAX_NAMES)}. Test the first one with "
            f"'actiontrain test {folders[0]}'."
        )
    return list(entries.values()), notes


def _total_cost(costs: Sequence[Cost]) -> Cost:
    """Cost of running several models one after the other."""
    first = costs[0]
    total = replace(first, parameters=sum(cost.parameters for cost in costs), flops=sum(cost.flops for cost in costs))
    latencies = [cost.latency_ms for cost in costs if cost.latency_ms is not None]
    rates = [cost.clips_per_s for cost in costs if cost.clips_per_s is not None]
    if not latencies:
        return total
    return replace(total, latency_ms=sum(latencies), clips_per_s=1 / sum(1 / rate for rate in rates))


def _notes(names: Sequence[str], rows: Sequence[Sequence[Entry]]) -> list[str]:
    """Explain why rows are not comparable. Only the data that the runs read matters, not the rest of their stores."""
    runs = [run for row in rows for entry in row for run in entry.members]
    if len({run.labels for run in runs}) > 1:
        return ["These runs have different classes, so their metrics are not comparable."]
    return [*_about_snippets(names, rows), *_about_products(runs)]


def _about_products(runs: Sequence[Run]) -> list[str]:
    products: dict[str, dict[str, list[str]]] = {}
    for run in runs:
        facts, product = run.facts, run.recipe.reads
        runs_of_digest = products.setdefault(f"{product} and {_snippets_digest(facts)}", {})
        runs_of_digest.setdefault(facts["input_digest"], []).append(run.folder.name)
    return [
        f"The {name.partition(' and ')[0]} read by these runs differ: {_run_groups(groups)}."
        for name, groups in products.items()
        if len(groups) > 1
    ]


def _about_snippets(names: Sequence[str], rows: Sequence[Sequence[Entry]]) -> list[str]:
    """Name the test snippets of each row if rows differ in them, and rows with seeds that differ in them."""
    tested: dict[tuple[str, frozenset[int]], list[int]] = {}
    sentences = []
    for index, row in enumerate(rows):
        rows_of_seed: dict[tuple[int, ...], frozenset[int]] = {}
        for entry in row:
            rows_of_seed[entry.seeds] = rows_of_seed.get(entry.seeds, frozenset()) | entry.test_rows
        if len(set(rows_of_seed.values())) > 1:
            sentences.append(f"The seeds of {names[index]} were not all tested on the same snippets.")
        digest = _snippets_digest(row[0].members[0].facts)
        tested.setdefault((digest, frozenset().union(*rows_of_seed.values())), []).append(index)
    if len(tested) < 2:
        return sentences
    groups_of = {
        key: _tested_groups([entry for index in indices for entry in rows[index]]) for key, indices in tested.items()
    }
    common = set.intersection(*map(set, groups_of.values()))
    tables = len({digest for digest, _ in tested})
    parts = []
    for (digest, snippets), indices in tested.items():
        # If there are too many to name, prefer those that distinguish the rows.
        groups = sorted(groups_of[digest, snippets], key=lambda group: (group in common, natural_key(" ".join(group))))
        groups[:_MAX_NAMES] = sorted(groups[:_MAX_NAMES], key=lambda group: natural_key(" ".join(group)))
        group_names = name_list([name for _, name in groups], _MAX_NAMES)
        kinds = "/".join(dict.fromkeys(kind for kind, _ in groups))
        table = f" in snippets/{rows[indices[0]][0].members[0].facts['snippets']} ({digest[:8]})" if tables > 1 else ""
        row_list = name_list([names[index] for index in indices], _MAX_NAMES)
        parts.append(f"{row_list} on {len(snippets)} of {kinds} {group_names}{table}")
    return [
        f"These rows were tested on different snippets, so their metrics are not comparable: {' | '.join(parts)}.",
        *sentences,
    ]


def _tested_groups(entries: Sequence[Entry]) -> set[tuple[str, str]]:
    """Groups of the test snippets, as pairs such as ("subject", "4")."""
    groups = set()
    for entry in entries:
        split = entry.members[0].facts["split"]
        # Older runs record only the groups of their split.
        shown = split.get("shown", {}).get("test") or {"by": split["by"], "names": split["groups"].get("test", ())}
        groups |= {(str(shown["by"]), str(name)) for name in shown["names"]}
    return groups


def _snippets_digest(facts: Mapping[str, Any]) -> str:
    """Hash of the snippet table of a run. Older runs did not record it; for them the current table is hashed."""
    from actionprep.datasets.store.opening import open_store

    if "snippets_digest" in facts:
        return str(facts["snippets_digest"])
    try:
        return str(open_store(facts["store"]).item("snippets", facts["snippets"]).digest)
    except ActionprepError:
        return f"{facts['store_digest']} {facts['snippets']}"


def _run_groups(groups: Mapping[str, Sequence[str]]) -> str:
    """Format groups of run names: "a, b | c"."""
    return " | ".join(name_list(list(dict.fromkeys(names)), _MAX_NAMES) for names in groups.values())


_MAX_NAMES = 6
"""Maximum number of names in a note."""


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
    from actionprep.datasets.store.opening import open_store
    from actionprep.training.checkpoints import load_checkpoint
    from actionprep.training.datasets import SnippetDataset, read_table
    from actionprep.training.loop.devices import torch_device

    facts = run.facts
    store = open_store(run.store).snapshot()
    checkpoint = load_checkpoint(run.best, device=str(torch_device(device)))
    table = read_table(store, facts["snippets"])
    rows = np.array(facts["split"]["rows"]["test"], np.int64)
    if rows.max() >= len(table.recording):
        # Any table with enough rows will do: the cost of a pass does not depend on the snippet.
        raise UserError(
            f"snippets/{facts['snippets']} in {store.url} has {len(table.recording)} snippets, fewer than when "
            f"{run.folder} was trained. Create the same snippets again, or train again."
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
