"""Train and test recipes × settings × seeds × folds or splits, several at a time. Finished trainings are skipped."""

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
from actionprep.datasets.split_choice import Parts, SplitChoice, choose_folds, stored_split
from actionprep.datasets.store.opening import open_store
from actionprep.datasets.store.zarr_store import Store
from actionprep.errors import ActionprepError, UserError
from actionprep.settings import canonical_json
from actionprep.training.recipes import Recipe, applicable_changes, find_recipe
from actionprep.training.run import FACTS, Run, placed, source_from, write_text

if TYPE_CHECKING:
    from actionprep.datasets.splits import By
    from actionprep.training.experiments.comparison import Comparison

PLAN = "sweep.json"


@dataclass(frozen=True)
class Job:
    """One training of a sweep.

    Attributes:
        recipe: Recipe with its seed.
        settings: Values of the settings that the sweep varies.
        fold: Index of the fold, from 0; None without folds.
        split: Name of the stored split; None if the sweep does not use several.
        folder: Folder of the run.
    """

    recipe: Recipe
    settings: Mapping[str, Any]
    fold: int | None
    split: str | None
    folder: Path

    @property
    def is_done(self) -> bool:
        """Whether the job is trained and tested."""
        run = Run(self.folder)
        try:
            return (self.folder / FACTS).exists() and run.is_complete and run.tested is not None
        except UserError:
            # Damage is reported when the turn of this job comes, and the other jobs continue.
            return False


@dataclass(frozen=True)
class Sweep:
    """Result of a sweep.

    Attributes:
        folder: Folder of the sweep.
        jobs: All trainings.
        comparison: Comparison of the tested runs; None if there are none.
        failures: Failed jobs with the reason.
    """

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
    log: Callable[[str], None] | None = None,
) -> Sweep:
    """Train and test every combination in its own folder, then compare the runs.

    Calling it again resumes: finished combinations are skipped, an interrupted one is resumed. A combination that
    cannot be trained is listed in `failures`, and the others continue.

    Args:
        store: Store with the snippets.
        recipes: Recipes or their names.
        folder: Folder of the sweep.
        grid: Values to try of each setting, by dotted name.
        changes: Settings of all combinations.
        of_study: Settings that apply to recipes with an input and model that know them.
        seeds: Seeds of weights, order and augmentation. The split depends only on `split.seed`.
        folds: Cross-validate by subject, session or recording.
        num_folds: Number of folds; None leaves one group out at a time.
        splits: Names of stored splits (split/<name>) to train and test on, instead of `split`.
        snippets: Name of the table of snippets.
        split: How the snippets are divided into train, val and test.
        views: Views to use; None: all.
        device: Device of the trainings.
        jobs: Number of trainings at a time. Several run in separate processes.
        threads: CPU threads per training. Default: all cores, divided among the processes.
        measure: Time the models after training.
        log: Function that receives progress messages.

    Returns:
        Jobs, comparison and failures.

    Raises:
        UserError: If the folder contains a sweep over other data, or if a recipe, setting or fold is invalid.
    """
    log = log or (lambda _: None)
    store = open_store(store).snapshot()
    planned = plan_sweep(
        store, recipes, folder, grid=grid, changes=changes, of_study=of_study, seeds=seeds, folds=folds, num_folds=num_folds,
        splits=splits, snippets=snippets, split=split,
    )  # fmt: skip
    _claim(Path(folder), store, snippets, split, views, folds, num_folds, over_splits=bool(splits))
    waiting = [job for job in planned if not job.is_done]
    log(f"{len(planned)} trainings, {len(planned) - len(waiting)} of them already done.")
    job_threads = threads if threads is not None else (max(1, (os.cpu_count() or 1) // jobs) if jobs > 1 else None)
    common = (
        str(store.path) if store.path is not None else store.url, snippets, split, tuple(views or ()), folds,
        num_folds, device, job_threads,
    )  # fmt: skip
    failures = []

    def on_start(job: Job) -> None:
        log(f"Training {job.folder.relative_to(folder)}")

    for count, (job, reason) in enumerate(_run_jobs(waiting, common, jobs, on_start), start=1):
        name = job.folder.relative_to(folder)
        if reason is None:
            values = (Run(job.folder).tested or {})["metrics"]
            log(f"{count} of {len(waiting)}: {name} {values['accuracy'] * 100:.1f} %")
        else:
            failures.append((job, reason))
            log(f"{count} of {len(waiting)}: {name} failed: {reason.splitlines()[0]}")
    tested = [Run(job.folder) for job in planned if job.is_done]
    comparison = None
    if tested:
        from actionprep.training.experiments.compare import compare

        comparison = compare(tested, measure=measure, device=device)
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
    """List the trainings of a sweep in order: seed by seed, so that all recipes get results early.

    The arguments are those of `sweep`.
    """
    if not recipes or not seeds:
        raise UserError("A sweep needs at least one recipe and one seed.")
    grid = dict(grid or {})
    for option, settings_given in (("--grid", grid), ("--set", changes or {})):
        if {"seed", "recipe.seed"} & set(settings_given):
            raise UserError(
                f"{option} seed=… has no effect in a sweep, because every combination is trained with each seed of --seeds. "
                "Set the seeds there: --seeds 1 2."
            )
    for name, values in grid.items():
        if not values:
            raise UserError(f"No values to try for '{name}'. Give them as {name}=value,value.")
    # Per combination: subfolder below the folder of its seed, fold and stored split.
    parts: list[tuple[str, int | None, str | None]] = [("", None, None)]
    if folds is not None and splits:
        raise UserError("Folds and stored splits cannot be combined. Use one of the two.")
    if folds is not None:
        count = len(_folds(store, snippets, split, folds, num_folds))
        parts = [(f"fold-{fold + 1:02d}", fold, None) for fold in range(count)]
    elif splits:
        for name in splits:
            stored_split(store, name)
        parts = [(f"split-{name}", None, name) for name in dict.fromkeys(splits)]
    jobs: dict[Path, Job] = {}
    for seed, recipe, values in itertools.product(seeds, recipes, itertools.product(*grid.values())):
        base = recipe if isinstance(recipe, Recipe) else find_recipe(recipe)
        settings = dict(zip(grid, values, strict=True))
        study_changes, _ = applicable_changes(base, of_study or {})
        values_given = {**study_changes, **(changes or {}), **settings, "seed": seed}
        final = base.changed(values_given, where="the sweep").self_contained()
        combination = f"{_folder_name(final, settings)}/seed-{seed}"
        for subfolder, fold, stored in parts:
            path = below(folder, f"{combination}/{subfolder}" if subfolder else combination)
            jobs.setdefault(path, Job(final, settings, fold, stored, path))
    return list(jobs.values())


def _folder_name(recipe: Recipe, settings: Mapping[str, Any]) -> str:
    """Readable name with a hash of every setting except the seed, so that combinations never share a folder."""
    tables = recipe.to_tables()
    for key in ("seed", "doc"):
        tables["recipe"].pop(key)
    digest = hashlib.sha256(canonical_json(tables).encode()).hexdigest()[:8]
    parts = [recipe.name, *(f"{name.rpartition('.')[2]}={value}" for name, value in settings.items())]
    return re.sub(r"[^\w.=+-]+", "_", "-".join(parts))[:80] + f"-{digest}"


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
    """Record what the sweep covers.

    Raises:
        UserError: If the folder contains a sweep over something else.
    """
    about = {
        "store": source_from(folder, store.path) if store.path is not None else store.url,
        "snippets": snippets,
        "split": {name: getattr(split, name) for name in split.__dataclass_fields__},
        "views": [str(view) for view in views or ()],
        "folds": folds,
        "num_folds": num_folds,
        # The names of the splits are not recorded, like seeds: more may be added later.
        "splits": "stored" if over_splits else None,
    }
    about = json.loads(canonical_json(about))
    path = folder / PLAN
    if path.exists():
        previous = _read_plan(path)
        if store.path is not None and placed(folder, str(previous.get("store"))) == store.path.resolve():
            previous["store"] = about["store"]
        different = [name for name, value in about.items() if previous.get(name) != value]
        if different:
            differences = ", ".join(f"{name} was {previous.get(name)}, now {about[name]}" for name in different)
            raise UserError(
                f"{folder} contains a sweep over other data: {differences}. The results would not be comparable. Choose "
                "another folder with --name."
            )
    elif folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"The folder {folder} is not empty and is not a sweep. Choose another one with --name.")
    write_text(path, json.dumps(about, indent=2) + "\n")


def _read_plan(path: Path) -> dict[str, Any]:
    advice = "The file describes the sweep in this folder. Choose another folder with --name."
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}. {advice}") from None
    if not isinstance(plan, dict):
        raise UserError(f"{path} is damaged: it is not a JSON object. {advice}")
    return plan


def _folds(store: Store, snippets: str, split: SplitChoice, by: By, num_folds: int | None) -> list[Parts]:
    from actionprep.training.datasets import read_table

    return choose_folds(read_table(store, snippets), split, by=by, num_folds=num_folds)


def _run_jobs(
    jobs: Sequence[Job], common: tuple[Any, ...], at_once: int, on_start: Callable[[Job], None]
) -> Iterator[tuple[Job, str | None]]:
    """Yield each finished job with the reason of its failure or None; `on_start` is called before each job."""
    if at_once <= 1:
        for job in jobs:
            on_start(job)
            yield job, _work(job, common)
        return
    # Start fresh interpreters: a fork would copy locks held by threads of this one.
    with ProcessPoolExecutor(at_once, mp_context=multiprocessing.get_context("spawn")) as pool:
        running: dict[Future[str | None], Job] = {}
        waiting = list(jobs)
        try:
            while waiting or running:
                while waiting and len(running) < at_once:
                    job = waiting.pop(0)
                    on_start(job)
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
        return "its process was killed, possibly out of memory. Try fewer --jobs"


def _work(job: Job, common: tuple[Any, ...]) -> str | None:
    """Train and test one job; return the reason if that fails."""
    from actionprep.training.fit import fit
    from actionprep.training.test import run_test

    url, snippets, split, views, folds, num_folds, device, threads = common
    try:
        store = open_store(url)
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
