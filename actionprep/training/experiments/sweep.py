"""Train and test recipes × settings × seeds × folds or splits, several at a time; what is done is not done again."""

from __future__ import annotations

import hashlib
import itertools
import json
import multiprocessing
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actionprep.datasets.paths import below
from actionprep.datasets.store.zarr_store import Store
from actionprep.errors import ActionprepError, UserError
from actionprep.settings import canonical_json
from actionprep.training.recipes import Recipe, applicable_changes, find_recipe
from actionprep.training.run import FACTS, Run, placed, source_from, write_text
from actionprep.training.split_choice import Parts, SplitChoice, choose_folds, stored_split

if TYPE_CHECKING:
    from actionprep.datasets.splits import By
    from actionprep.training.experiments.comparison import Comparison

PLAN = "sweep.json"


@dataclass(frozen=True)
class Job:
    """One training of a sweep: its recipe with its seed, and its run's folder.

    fold: from 0; None without folds. split: the name of its stored split; None where the sweep is not over several.
    """

    recipe: Recipe
    settings: Mapping[str, Any]
    fold: int | None
    split: str | None
    folder: Path

    @property
    def is_done(self) -> bool:
        """Whether it is trained and tested."""
        run = Run(self.folder)
        try:
            return (self.folder / FACTS).exists() and run.is_complete and run.tested is not None
        except UserError:
            # What is damaged is told when it is this one's turn, and the others go on.
            return False


@dataclass(frozen=True)
class Sweep:
    """What a sweep came to: the comparison of what is tested (None without any), and what failed, with its reason."""

    folder: Path
    jobs: tuple[Job, ...]
    comparison: Comparison | None
    failures: tuple[tuple[Job, str], ...]


def sweep(
    store: Store | str | Path,
    recipes: Sequence[Recipe | str],
    folder: str | Path,
    *,
    grid: Mapping[str, Sequence[Any]] | None = None,
    changes: Mapping[str, Any] | None = None,
    of_study: Mapping[str, Any] | None = None,
    seeds: Sequence[int] = (0,),
    folds: By | None = None,
    num_folds: int | None = None,
    splits: Sequence[str] = (),
    snippets: str = "default",
    split: SplitChoice = SplitChoice(),
    views: Sequence[str | int] | None = None,
    device: str = "auto",
    jobs: int = 1,
    threads: int | None = None,
    measure: bool = True,
    tell: Callable[[str], None] | None = None,
) -> Sweep:
    """Train and test every combination into its own folder, then compare them.

    grid:    settings of the recipes with the values to try, by dotted names; changes: settings that all have;
             of_study: settings that those recipes have whose inputs and models know them.
    seeds:   of weights, order and augmentation; the split is that of `split.seed` for all.
    folds:   cross-validate by subject, session or recording; num_folds None leaves one out at a time.
    splits:  names of stored splits (split/<name>) to train and test on each, instead of `split`.
    jobs:    trainings at a time, each in a process of its own when there are several; threads: CPU threads of each, by
             default all cores shared out.

    The same call again goes on: trained and tested combinations stay, one that was interrupted is resumed. A
    combination that cannot be trained is told in `failures`, and the others go on.

    Raises UserError when the folder holds a sweep over other data, or for a wrong recipe, setting or fold.
    """
    tell = tell or (lambda _: None)
    store = (store if isinstance(store, Store) else Store(store)).snapshot()
    planned = plan_sweep(
        store, recipes, folder, grid=grid, changes=changes, of_study=of_study, seeds=seeds, folds=folds, num_folds=num_folds,
        splits=splits, snippets=snippets, split=split,
    )  # fmt: skip
    _claim(Path(folder), store, snippets, split, views, folds, num_folds, over_splits=bool(splits))
    waiting = [job for job in planned if not job.is_done]
    tell(f"{len(planned)} trainings, {len(planned) - len(waiting)} of them done already.")
    share = threads if threads is not None else (max(1, (os.cpu_count() or 1) // jobs) if jobs > 1 else None)
    common = (
        str(store.path) if store.path is not None else store.url, snippets, split, tuple(views or ()), folds,
        num_folds, device, share,
    )  # fmt: skip
    failures = []

    def begins(job: Job) -> None:
        tell(f"Training {job.folder.relative_to(folder)}")

    for number, (job, reason) in enumerate(_worked_off(waiting, common, jobs, begins), start=1):
        name = job.folder.relative_to(folder)
        if reason is None:
            figures = (Run(job.folder).tested or {})["figures"]
            tell(f"{number} of {len(waiting)}: {name} {figures['accuracy'] * 100:.1f} %")
        else:
            failures.append((job, reason))
            tell(f"{number} of {len(waiting)}: {name} failed: {reason.splitlines()[0]}")
    done = [Run(job.folder) for job in planned if job.is_done]
    comparison = None
    if done:
        from actionprep.training.experiments.compare import compare

        comparison = compare(done, measure=measure, device=device)
        comparison.write(folder)
    return Sweep(Path(folder), tuple(planned), comparison, tuple(failures))


def plan_sweep(
    store: Store,
    recipes: Sequence[Recipe | str],
    folder: str | Path,
    *,
    grid: Mapping[str, Sequence[Any]] | None = None,
    changes: Mapping[str, Any] | None = None,
    of_study: Mapping[str, Any] | None = None,
    seeds: Sequence[int] = (0,),
    folds: By | None = None,
    num_folds: int | None = None,
    splits: Sequence[str] = (),
    snippets: str = "default",
    split: SplitChoice = SplitChoice(),
) -> list[Job]:
    """The trainings of a sweep, in the order in which they are done: seed by seed, so that early ones show all recipes."""
    if not recipes or not seeds:
        raise UserError("A sweep needs at least one recipe and one seed.")
    grid = dict(grid or {})
    for option, given in (("--grid", grid), ("--set", changes or {})):
        if {"seed", "recipe.seed"} & set(given):
            raise UserError(
                f"{option} seed=… has no effect in a sweep: every seed of --seeds trains every combination. Name the seeds "
                "there: --seeds 1 2."
            )
    for name, values in grid.items():
        if not values:
            raise UserError(f"No values to try for '{name}'. Give them as {name}=value,value.")
    # Of each combination: what its folder is called below that of its seed, its fold and its stored split.
    parts: list[tuple[str, int | None, str | None]] = [("", None, None)]
    if folds is not None and splits:
        raise UserError("Folds split the snippets anew, and stored splits are there already: give one of the two.")
    if folds is not None:
        count = len(_folds(store, snippets, split, folds, num_folds))
        parts = [(f"fold-{number + 1:02d}", number, None) for number in range(count)]
    elif splits:
        for name in splits:
            stored_split(store, name)
        parts = [(f"split-{name}", None, name) for name in dict.fromkeys(splits)]
    found: dict[Path, Job] = {}
    for seed, recipe, values in itertools.product(seeds, recipes, itertools.product(*grid.values())):
        base = recipe if isinstance(recipe, Recipe) else find_recipe(recipe)
        settings = dict(zip(grid, values, strict=True))
        own, _ = applicable_changes(base, of_study or {})
        chosen = base.changed({**own, **(changes or {}), **settings, "seed": seed}, where="the sweep").self_contained()
        combination = f"{_folder_name(chosen, settings)}/seed-{seed}"
        for part, number, stored in parts:
            place = below(folder, f"{combination}/{part}" if part else combination)
            found.setdefault(place, Job(chosen, settings, number, stored, place))
    return list(found.values())


def _folder_name(recipe: Recipe, settings: Mapping[str, Any]) -> str:
    """A name for a reader, and a hash of every setting but the seed, so that no two combinations share a folder."""
    tables = recipe.to_tables()
    for key in ("seed", "doc"):
        tables["recipe"].pop(key)
    code = hashlib.sha256(canonical_json(tables).encode()).hexdigest()[:8]
    words = [recipe.name, *(f"{name.rpartition('.')[2]}={value}" for name, value in settings.items())]
    return re.sub(r"[^\w.=+-]+", "_", "-".join(words))[:80] + f"-{code}"


def _claim(
    folder: Path,
    store: Store,
    snippets: str,
    split: SplitChoice,
    views: Sequence[str | int] | None,
    folds: By | None,
    num_folds: int | None,
    *,
    over_splits: bool,
) -> None:
    """Write what the sweep is over, or raise UserError when the folder holds a sweep over something else."""
    about = {
        "store": source_from(folder, store.path) if store.path is not None else store.url,
        "snippets": snippets,
        "split": {name: getattr(split, name) for name in split.__dataclass_fields__},
        "views": [str(view) for view in views or ()],
        "folds": folds,
        "num_folds": num_folds,
        # Which ones is no matter of the folder, as with seeds: more may be added later.
        "splits": "stored" if over_splits else None,
    }
    about = json.loads(canonical_json(about))
    path = folder / PLAN
    if path.exists():
        begun = _read_plan(path)
        if store.path is not None and placed(folder, str(begun.get("store"))) == store.path.resolve():
            begun["store"] = about["store"]
        other = [name for name, value in about.items() if begun.get(name) != value]
        if other:
            said = ", ".join(f"{name} was {begun.get(name)}, now {about[name]}" for name in other)
            raise UserError(
                f"{folder} holds a sweep over other data: {said}. "
                "Its table would not compare like with like: name another folder with --name."
            )
    elif folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"The folder {folder} is not empty and holds no sweep. Name another one with --name.")
    write_text(path, json.dumps(about, indent=2) + "\n")


def _read_plan(path: Path) -> dict[str, Any]:
    advice = "It says what the sweep in this folder is over: name another folder with --name."
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}. {advice}") from None
    if not isinstance(found, dict):
        raise UserError(f"{path} is damaged: it holds no table. {advice}")
    return found


def _folds(store: Store, snippets: str, split: SplitChoice, by: By, num_folds: int | None) -> list[Parts]:
    from actionprep.training.datasets import read_table

    return choose_folds(read_table(store, snippets), split, by=by, num_folds=num_folds)


def _worked_off(
    jobs: Sequence[Job], common: tuple[Any, ...], at_once: int, begins: Callable[[Job], None]
) -> Iterator[tuple[Job, str | None]]:
    """Each job as it ends, with the reason of its failure or None; `begins` is called with each before it is done."""
    if at_once <= 1:
        for job in jobs:
            begins(job)
            yield job, _work(job, common)
        return
    # Fresh interpreters: a fork would copy the threads' locks of this one.
    with ProcessPoolExecutor(at_once, mp_context=multiprocessing.get_context("spawn")) as pool:
        running: dict[Future[str | None], Job] = {}
        waiting = list(jobs)
        try:
            while waiting or running:
                while waiting and len(running) < at_once:
                    job = waiting.pop(0)
                    begins(job)
                    running[pool.submit(_work, job, common)] = job
                ended, _ = wait(running, return_when="FIRST_COMPLETED")
                for future in ended:
                    job = running.pop(future)
                    yield job, _outcome(future)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _outcome(future: Future[str | None]) -> str | None:
    try:
        return future.result()
    except BrokenProcessPool:
        return "its process was killed, perhaps for want of memory: try fewer --jobs"


def _work(job: Job, common: tuple[Any, ...]) -> str | None:
    """Train and test one job; the reason when it cannot be done."""
    from actionprep.training.fit import fit
    from actionprep.training.test import run_test

    where, snippets, split, views, folds, num_folds, device, threads = common
    try:
        store = Store(where)
        parts: SplitChoice | Parts = split
        if job.split is not None:
            parts = SplitChoice(stored=job.split, allow_single=split.allow_single, seed=split.seed)
        if job.fold is not None:
            assert folds is not None
            val_by = "recording" if "recording" in (job.recipe.val_by, split.val_by) else "group"
            parts = _folds(store, snippets, replace(split, val_by=val_by), folds, num_folds)[job.fold]
        run = fit(
            store, job.recipe, job.folder, snippets=snippets, split=parts, views=views or None, device=device,
            threads=threads, resume=True,
        )  # fmt: skip
        if run.tested is None:
            run_test(run, store, device=device)
    except ActionprepError as error:
        return str(error)
    return None
