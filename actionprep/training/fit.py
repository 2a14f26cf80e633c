"""Train: from a store and a recipe to a run folder; whole, interrupted and resumed, or over folds."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import shutil
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from actionprep.datasets.store import Store
from actionprep.errors import EnvironmentProblem, UserError
from actionprep.training.parts import (
    Parts,
    SplitChoice,
    choose_folds,
    choose_parts,
    describe,
    groups_of,
    is_multi_label,
    joined,
)
from actionprep.training.recipes import Recipe, choose_recipe, find_recipe
from actionprep.training.run import (
    FACTS,
    RECIPE,
    SPLIT,
    START,
    VALIDATED,
    Phase,
    Run,
    input_digest,
    keep_file,
    mixtures,
    now,
    pipeline_of,
    place_from,
    versions,
    write_text,
)

if TYPE_CHECKING:
    from torch import nn

    from actionprep.datasets.snippets import SnippetTable
    from actionprep.datasets.splits import By, SplitAssignment
    from actionprep.training.datasets import SnippetDataset
    from actionprep.training.inputs.base import ProductReader
    from actionprep.training.task import ClassifierTask


@dataclass(frozen=True)
class EpochReport:
    """What a progress display is told after each epoch: figures by name, such as train_loss and val_accuracy."""

    phase: Phase
    epoch: int
    num_epochs: int
    figures: Mapping[str, float]


@dataclass(frozen=True)
class FoldRuns:
    """The runs of a cross-validation and their figures.

    rows:    for each fold its group, number of test snippets, accuracy and macro F1.
    summary: accuracy and macro F1 over all test snippets of all folds together, with intervals over recordings, and the
             mean and spread over the folds.
    """

    folder: Path
    runs: tuple[Run, ...]
    rows: tuple[dict[str, Any], ...]
    summary: dict[str, Any]


Told = Callable[[str], None]


def fit(
    store: Store | str | Path,
    recipe: Recipe | str = "auto",
    run_folder: str | Path = "run",
    *,
    snippets: str | None = None,
    split: SplitChoice | SplitAssignment | Parts = SplitChoice(),
    views: Sequence[str | int] | None = None,
    device: str = "auto",
    devices: int = 1,
    num_nodes: int = 1,
    threads: int | None = None,
    wandb: bool = False,
    tensorboard: bool = True,
    weights: Callable[[nn.Module], object] | None = None,
    on_epoch: Callable[[EpochReport], None] | None = None,
    tell: Told | None = None,
    resume: bool = False,
) -> Run:
    """Train one model on the snippets of a store and keep everything in a folder.

    recipe:  a recipe, its name, the path of one in TOML, or "auto": what suits the store.
    snippets: name of the table, snippets/<name>; None: default.
    split:   how to split (see `SplitChoice`), or a split that was made already.
    views:   names of views, in this order; None: all that the product has.
    devices: processes of one training on this machine, on as many GPUs, or on the CPU; num_nodes: machines.
    weights: called with the fresh model, to put published weights into it.
    tell:    is told, in sentences, what is about to happen.
    resume:  go on with the training in this folder where it was interrupted; a complete one stays as it is. Everything
             that decides its numbers is as it began: of recipe, snippets, split, views and weights, what is given here
             may only say the same.

    Raises UserError when recipe and store do not fit, for an empty part or a single class, when the folder is taken, or
    when a resumed training was begun otherwise.
    """
    tell = tell or _silent
    store = store if isinstance(store, Store) else Store(store)
    run = Run(_shared_folder(Path(run_folder), several=devices * num_nodes > 1))
    options = _Options(device, devices, num_nodes, threads, wandb, tensorboard)
    if resume and (run.folder / FACTS).exists():
        plan = _plan_of(run, store)
        _check_same(run, plan, recipe=recipe, snippets=snippets, split=split, views=views, weights=weights)
        if run.is_complete:
            tell(f"The training in {run.folder} is complete.")
            return run
        tell(f"Going on with the training in {run.folder}")
        _train(run, plan, options, on_epoch=on_epoch)
        _tell_validation(run, tell)
        return run
    chosen = _in_precision(_resolve(store, recipe, tell), device)
    plan = _Plan.make(store, chosen, snippets=snippets or "default", split=split, views=views)
    for sentence in plan.sentences:
        tell(sentence)
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    # What a reader refuses is known before there is a run.
    reader = _reader(plan)
    tell(f"Run {run.folder}")
    if is_first_process():
        _prepare_folder(run, plan, weights, unfinished=resume)
    _train(run, plan, options, on_epoch=on_epoch, reader=reader)
    _tell_validation(run, tell)
    return run


def validation_sentence(run: Run) -> str | None:
    """What validation gave in the epoch that was chosen; None where nothing was validated."""
    monitor = run.recipe.monitor
    rows = [row for row in run.metrics if row["phase"] == "validate" and "val_accuracy" in row]
    numbers = [row for row in rows if monitor in row]
    if not rows:
        return None
    better = min if monitor == "val_loss" else max
    best = better(numbers, key=lambda row: row[monitor]) if numbers else rows[-1]
    what = "exact match" if run.facts["several_labels"] else "accuracy"
    why = f"the best by {monitor.removeprefix('val_').replace('_', ' ')}" if numbers else "the last"
    return (
        f"Validation: {what} {best['val_accuracy']:.3f}, macro F1 {best['val_macro_f1']:.3f}, loss {best['val_loss']:.3f} "
        f"in epoch {best['epoch'] + 1}, {why} of {len(rows)} that were validated"
        + (", before the refit on train and val." if (run.folder / VALIDATED).exists() else ".")
    )


def _tell_validation(run: Run, tell: Told) -> None:
    sentence = validation_sentence(run) if is_first_process() else None
    if sentence is not None:
        tell(sentence)


def first_task(
    store: Store | str | Path,
    recipe: Recipe | str = "auto",
    *,
    snippets: str = "default",
    split: SplitChoice | SplitAssignment | Parts = SplitChoice(),
    views: Sequence[str | int] | None = None,
    weights: Callable[[nn.Module], object] | None = None,
    device: str = "auto",
) -> ClassifierTask:
    """The task that `fit` would begin with: model, loss and loaders of its first phase, without a run."""
    store = store if isinstance(store, Store) else Store(store)
    chosen = _in_precision(_resolve(store, recipe, _silent), device)
    plan = _Plan.make(store, chosen, snippets=snippets, split=split, views=views)
    task = make_task(plan, _reader(plan), plan.phases[0])
    if weights is not None:
        weights(task.model)
    return task


def fit_folds(
    store: Store | str | Path,
    recipe: Recipe | str = "auto",
    run_folder: str | Path = "run",
    *,
    by: By = "subject",
    num_folds: int | None = None,
    snippets: str = "default",
    split: SplitChoice = SplitChoice(),
    tell: Told | None = None,
    resume: bool = False,
    **options: Any,
) -> FoldRuns:
    """Cross-validate: train and test a run for each fold, and one table over all.

    by, num_folds: every subject (session, recording) is in test once; num_folds None leaves one out at a time. The
    runs lie in fold-01, fold-02, … of the folder, the table in folds.csv and folds.json. resume: folds that are done
    are not trained again. Other options as for `fit`.
    """
    from actionprep.training.datasets import read_table
    from actionprep.training.test import run_test, saved_arrays

    tell = tell or _silent
    store = store if isinstance(store, Store) else Store(store)
    chosen = _resolve(store, recipe, tell)
    table = read_table(store, snippets)
    folds = choose_folds(table, replace(split, val_by=_val_by(chosen, split)), by=by, num_folds=num_folds)
    folder = Path(run_folder)
    runs, rows, arrays = [], [], []
    for number, parts in enumerate(folds, start=1):
        tell(f"Fold {number} of {len(folds)}: {parts.why}")
        run = fit(
            store,
            chosen,
            folder / f"fold-{number:02d}",
            snippets=snippets,
            split=parts,
            resume=resume,
            tell=tell,
            **options,
        )
        found = run.tested if resume and run.tested is not None else run_test(run, store)
        assert found is not None
        runs.append(run)
        rows.append(
            {
                "fold": number,
                by: " + ".join(parts.split.groups["test"]),
                "snippets": found["num_samples"],
                "accuracy": found["figures"]["accuracy"],
                "macro_f1": found["figures"]["macro_f1"],
            }
        )
        arrays.append(saved_arrays(run))
    summary = over_folds(arrays, rows)
    outer = Run(folder)
    outer.write_table("folds.csv", rows)
    outer.write_json("folds.json", {"by": by, "folds": rows, "summary": summary, "recipe": chosen.name})
    return FoldRuns(folder, tuple(runs), tuple(rows), summary)


@dataclass(frozen=True)
class _Options:
    device: str = "auto"
    devices: int = 1
    num_nodes: int = 1
    threads: int | None = None
    wandb: bool = False
    tensorboard: bool = True


@dataclass(frozen=True)
class _Plan:
    """Everything that a training is decided by."""

    store: Store
    recipe: Recipe
    snippets: str
    table: SnippetTable
    views: tuple[str, ...]
    parts: Parts

    @classmethod
    def make(
        cls,
        store: Store,
        recipe: Recipe,
        *,
        snippets: str,
        split: SplitChoice | SplitAssignment | Parts,
        views: Sequence[str | int] | None,
    ) -> _Plan:
        from actionprep.training.checkpoints import check_abilities
        from actionprep.training.datasets import choose_views, read_table
        from actionprep.training.inputs.base import find_input

        check_abilities(recipe)
        table = read_table(store, snippets)
        find_input(recipe.product).check_store(recipe.input, store)
        if isinstance(split, SplitChoice):
            parts = choose_parts(store, table, replace(split, val_by=_val_by(recipe, split)))
        elif isinstance(split, Parts):
            parts = split
        else:
            parts = Parts(split, split.by, "the given split")
        if not len(parts.split.train):
            raise UserError("The train part of the split is empty. Give it some groups, or a larger share.")
        return cls(store, recipe, snippets, table, choose_views(store, recipe.reads, table, views), parts)

    @property
    def sentences(self) -> list[str]:
        views = f", views {', '.join(self.views)}" if len(self.views) > 1 else ""
        return [
            f"{len(self.table.labels)} classes: {', '.join(self.table.labels)}{views}",
            self.parts.why,
            *describe(self.parts, self.table),
            *mixtures(self.store, self.recipe.reads, self.views),
            *self._more_epochs(),
        ]

    def _groups(self) -> dict[str, tuple[str, tuple[str, ...]]]:
        return groups_of(self.parts, self.table)

    def _more_epochs(self) -> list[str]:
        """A sentence where min_steps takes more epochs than the recipe has."""
        recipe, num_snippets = self.recipe, len(self.rows(self.phases[0])[0])
        num_epochs = _num_epochs(recipe, num_snippets)
        if num_epochs == recipe.epochs:
            return []
        return [
            f"So few snippets: {num_epochs} epochs instead of {recipe.epochs}, to make min_steps = {recipe.min_steps} steps "
            "(--set min_steps=0 leaves the epochs as they are)"
        ]

    def facts(self) -> dict[str, Any]:
        """What run.json says of it."""
        split = self.parts.split
        return {
            "schema": 1,
            "store": str(self.store.path.resolve()) if self.store.path is not None else self.store.url,
            "store_digest": self.store.digest(),
            "input_digest": input_digest(self.store, self.recipe.reads, self.snippets),
            "snippets": self.snippets,
            "snippets_digest": self.store.item("snippets", self.snippets).digest,
            "labels": list(self.table.labels),
            "views": list(self.views),
            "several_labels": is_multi_label(self.table),
            "seed": self.recipe.seed,
            "split": {
                "by": self.parts.by,
                "why": self.parts.why,
                "stored": self.parts.stored,
                "seed": split.seed,
                "groups": {part: list(names) for part, names in split.groups.items()},
                "shown": {part: {"by": by, "names": list(names)} for part, (by, names) in self._groups().items()},
                "rows": {part: split.rows(part).tolist() for part in ("train", "val", "test")},
                "notes": list(split.notes),
            },
            "pipeline": pipeline_of(self.store, self.recipe.reads),
            "snippet_settings": self.table.settings,
            "versions": versions(),
            "started": now(),
            "state": {"phase": "validate" if self.phases[0] == "validate" else "refit", "complete": False},
        }

    @property
    def phases(self) -> tuple[Phase, ...]:
        return ("validate", "refit") if self.recipe.refit and len(self.parts.split.val) else ("validate",)

    def rows(self, phase: Phase) -> tuple[np.ndarray, np.ndarray]:
        """Rows to train on and rows to validate on."""
        split = self.parts.split
        return (joined(split), np.zeros(0, np.int64)) if phase == "refit" else (split.train, split.val)


def _resolve(store: Store, recipe: Recipe | str, tell: Told) -> Recipe:
    if isinstance(recipe, Recipe):
        return recipe
    if recipe == "auto":
        choice = choose_recipe(store)
        tell(f"Recipe {choice.recipe.name}: {choice.why}")
        return choice.recipe
    return find_recipe(recipe)


def _in_precision(recipe: Recipe, device: str) -> Recipe:
    from actionprep.training.precision import with_precision
    from actionprep.training.test import torch_device

    return with_precision(recipe, torch_device(device)) if recipe.precision == "auto" else recipe


def _val_by(recipe: Recipe, split: SplitChoice) -> Any:
    return "recording" if "recording" in (recipe.val_by, split.val_by) else "group"


def _prepare_folder(
    run: Run, plan: _Plan, weights: Callable[[nn.Module], object] | None, *, unfinished: bool = False
) -> None:
    """Write what a run begins with; run.json comes last, and says that the rest is there.

    unfinished: what a kill before that left behind is written anew.
    """
    there = {path.name for path in run.folder.iterdir()} if run.folder.is_dir() else set()
    if unfinished:
        there = {name for name in there if name not in (RECIPE, SPLIT, START) and not name.startswith(".")}
    if there:
        raise UserError(
            f"The folder {run.folder} is not empty. Name another one with --run, or go on with the run in it with "
            "--resume."
        )
    write_text(run.folder / RECIPE, plan.recipe.to_toml())
    parts = {int(row): part for part in ("train", "val", "test") for row in plan.parts.split.rows(part)}
    table = plan.table
    run.write_table(
        SPLIT,
        [
            {
                "row": row,
                "part": parts.get(row, ""),
                "recording": table.recordings[table.recording[row]],
                "onset": float(table.onset[row]),
                "offset": float(table.offset[row]),
                "label": table.labels[table.label[row]] if table.label[row] >= 0 else "",
                "subject": table.subjects[table.recording[row]],
                "session": table.sessions[table.recording[row]],
            }
            for row in range(len(table))
        ],
    )
    if weights is not None:
        # Every phase, and a resumed run, begins from these: the published file is not needed again.
        _save_start(run, _fresh_model(plan.recipe, _card(plan, _reader(plan), "validate"), weights))
    facts = plan.facts()
    if plan.store.path is not None:
        facts["store_from_here"] = place_from(run.folder, plan.store.path)
    run.change(**facts, published_weights=weights is not None)


def _plan_of(run: Run, store: Store) -> _Plan:
    """The plan that a run was begun with; raises UserError when the store has changed since."""
    from actionprep.datasets.splits import SplitAssignment
    from actionprep.training.datasets import read_table

    facts = run.facts
    digest = input_digest(store, run.recipe.reads, facts["snippets"])
    if digest != facts["input_digest"] and not facts["state"]["complete"]:
        raise UserError(
            f"What the training in {run.folder} reads has changed in the store {store.url} since it began (digest "
            f"{digest[:12]}, then {facts['input_digest'][:12]}). Its numbers would not be those of one training: begin "
            "a new one."
        )
    given = facts["split"]
    split = SplitAssignment(
        train=np.array(given["rows"]["train"], np.int64),
        val=np.array(given["rows"]["val"], np.int64),
        test=np.array(given["rows"]["test"], np.int64),
        by=given["by"],
        seed=given["seed"],
        groups={part: tuple(names) for part, names in given["groups"].items()},
        notes=tuple(given["notes"]),
    )
    table = read_table(store, facts["snippets"])
    parts = Parts(split, given["by"], given["why"], given.get("stored"))
    return _Plan(store, run.recipe, facts["snippets"], table, tuple(facts["views"]), parts)


def _check_same(
    run: Run,
    plan: _Plan,
    *,
    recipe: Recipe | str,
    snippets: str | None,
    split: SplitChoice | SplitAssignment | Parts,
    views: Sequence[str | int] | None,
    weights: Callable[[nn.Module], object] | None,
) -> None:
    """Raise UserError when what is given says otherwise than the run that is to go on; defaults say nothing."""
    differing = []
    if recipe != "auto":
        asked = recipe if isinstance(recipe, Recipe) else find_recipe(recipe)
        differing += differences(run.recipe, asked)
    if snippets not in (None, plan.snippets):
        differing.append(f"snippets are '{plan.snippets}', not '{snippets}'")
    if views:
        from actionprep.training.datasets import choose_views

        chosen = choose_views(plan.store, plan.recipe.reads, plan.table, views)
        if chosen != plan.views:
            differing.append(f"views are {' '.join(plan.views)}, not {' '.join(chosen)}")
    if split != SplitChoice():
        if isinstance(split, SplitChoice):
            split = choose_parts(plan.store, plan.table, replace(split, val_by=_val_by(plan.recipe, split)))
        other = split.split if isinstance(split, Parts) else split
        parts = [
            part
            for part in ("train", "val", "test")
            if not np.array_equal(other.rows(part), plan.parts.split.rows(part))
        ]
        if parts:
            differing.append(f"the split is another: {', '.join(parts)} hold other snippets")
    if weights is not None and not run.facts.get("published_weights"):
        differing.append("it was not begun from published weights")
    elif weights is not None and (run.folder / START).exists():
        fresh = _fresh_model(plan.recipe, _card(plan, _reader(plan), "validate"), weights)
        if not _same_weights(run.folder / START, fresh):
            differing.append("it was begun from other weights")
    if differing:
        raise UserError(
            f"The training in {run.folder} was begun otherwise than asked now, and goes on only as it began: "
            f"{'; '.join(differing)}.\nLeave these options out beside --resume, or begin another run (--run NAME)."
        )


def parts_of_run(run_folder: Path, store: Store, choice: SplitChoice) -> SplitChoice | Parts:
    """The split that a choice would give the run of this folder, to be held against the one that it began with."""
    if not (run_folder / FACTS).exists():
        return choice
    from actionprep.training.datasets import read_table

    run = Run(run_folder)
    choice = replace(choice, val_by=_val_by(run.recipe, choice), seed=run.facts["split"]["seed"])
    return choose_parts(store, read_table(store, run.facts["snippets"]), choice)


def differences(begun: Recipe, asked: Recipe) -> list[str]:
    """The settings in which two recipes differ, as "epochs is 4, not 8"; precision auto differs from none."""
    if asked.precision == "auto":
        asked = asked.changed({"precision": begun.precision, "channels_last": begun.channels_last})
    mine, other = begun.to_tables(), asked.to_tables()
    found = []
    for table, values in mine.items():
        for key in dict.fromkeys([*values, *other[table]]):
            one, two = values.get(key), other[table].get(key)
            if one != two and key not in ("doc",):
                name = key if table == "recipe" else f"{table}.{key}"
                found.append(f"{name} is {_said(one)}, not {_said(two)}")
    return found


def _said(value: Any) -> str:
    return "not set" if value is None else str(value)


def _train(
    run: Run,
    plan: _Plan,
    options: _Options,
    *,
    on_epoch: Callable[[EpochReport], None] | None,
    reader: ProductReader | None = None,
) -> None:
    """All phases that are not done yet."""
    import torch

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    reader = reader or _reader(plan)
    phases = plan.phases
    _wait_for(run)
    begun: Phase = run.facts["state"]["phase"]
    before = sum(row["seconds"] for row in run.metrics)
    started = time.monotonic()
    for phase in phases[phases.index(begun) :]:
        # Only the first phase may have been begun before; the others must not look at what it leaves.
        resume = _checkpoint_to_go_on(run, phase) if phase == begun else None
        _train_phase(run, plan, reader, phase, options, resume=resume, on_epoch=on_epoch)
        if phase != phases[-1] and is_first_process():
            # What validation found stays beside the next phase's weights. A kill between any two of these lines leaves
            # a folder that goes on: the phase in run.json decides, and a checkpoint of another phase is not gone on from.
            keep_file(run.best, run.folder / VALIDATED)
            run.change(state={"phase": phases[phases.index(phase) + 1], "complete": False})
            run.last.unlink()
    if not is_first_process():
        return
    took = before + time.monotonic() - started
    run.change(state={"phase": phases[-1], "complete": True}, train_seconds=round(took, 1), finished=now())
    (run.folder / START).unlink(missing_ok=True)
    from actionprep.training.report import write_report

    write_report(run)


def _checkpoint_to_go_on(run: Run, phase: Phase) -> Path | None:
    """last.ckpt, where there is one of this phase."""
    from actionprep.training.checkpoints import read_safely

    if not run.last.exists():
        return None
    return run.last if read_safely(run.last)["actionprep"]["phase"] == phase else None


def _reader(plan: _Plan) -> ProductReader:
    from actionprep.training.inputs.base import find_input

    return find_input(plan.recipe.product)(plan.recipe.input, plan.store, plan.table, plan.views)


def _train_phase(
    run: Run,
    plan: _Plan,
    reader: ProductReader,
    phase: Phase,
    options: _Options,
    *,
    resume: Path | None,
    on_epoch: Callable[[EpochReport], None] | None,
) -> None:
    with quiet_lightning():
        import lightning.pytorch as pl

        from actionprep.training import callbacks

        recipe = plan.recipe
        task = make_task(plan, reader, phase, start=run.folder / START)
        has_val = task._val_loader is not None
        shown = callbacks.History(run, phase, task.num_epochs, on_epoch)
        wanted: list[Any] = [callbacks.LastValidated(), callbacks.Averaging(), shown]
        wanted.append(callbacks.Checkpoints(run, recipe, phase, has_val=has_val))
        if recipe.patience is not None and has_val:
            wanted.insert(0, callbacks.Patience(recipe))
        accelerator, chosen = _accelerator(options.device, options.devices)
        trainer = pl.Trainer(
            accelerator=accelerator,
            devices=chosen,
            num_nodes=options.num_nodes,
            strategy="ddp" if options.devices * options.num_nodes > 1 else "auto",
            precision=recipe.precision,
            max_epochs=task.num_epochs,
            check_val_every_n_epoch=recipe.validate_every,
            accumulate_grad_batches=recipe.accumulate,
            gradient_clip_val=recipe.optimizer.gradient_clip,
            num_sanity_val_steps=0,
            log_every_n_steps=1,
            logger=callbacks.loggers(run, phase, tensorboard=options.tensorboard, wandb=options.wandb),
            callbacks=wanted,
            enable_checkpointing=True,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            # Else each process would norm its own share of a batch. PyTorch can do it on GPUs alone.
            sync_batchnorm=accelerator == "cuda" and options.devices * options.num_nodes > 1,
            enable_autolog_hparams=False,
            default_root_dir=str(run.folder),
        )
        with callbacks.memory_explained(recipe, accelerator), _interruptible(trainer):
            trainer.fit(task, ckpt_path=resume, weights_only=True)


class Terminated(KeyboardInterrupt):
    """A training was told to end by SIGTERM, as schedulers do; it can be gone on with as after Ctrl-C."""


@contextlib.contextmanager
def _interruptible(trainer: Any) -> Iterator[None]:
    """Ctrl-C as KeyboardInterrupt, which Lightning turns into an exit with code 1 and a deaf ear for a second one.

    SIGTERM, which it turns into an exit with code 0, as Terminated.
    """
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT) if main else None
    try:
        yield
    except SystemExit:
        if trainer.received_sigterm:
            raise Terminated from None
        if not trainer.interrupted:
            raise
    finally:
        if main:
            signal.signal(signal.SIGINT, handler)
    if trainer.interrupted:
        raise KeyboardInterrupt


def make_task(plan: _Plan, reader: ProductReader, phase: Phase, *, start: Path | None = None) -> ClassifierTask:
    """The Lightning task of one phase, with the weights of `start`, if there are any, or fresh ones of the recipe's seed."""
    from actionprep.training.checkpoints import read_safely
    from actionprep.training.datasets import SnippetLoader
    from actionprep.training.task import ClassifierTask

    recipe = plan.recipe
    train_rows, val_rows = plan.rows(phase)

    def loader(rows: np.ndarray, *, train: bool) -> SnippetLoader:
        return SnippetLoader(
            _dataset(plan, reader, rows, train=train),
            batch=recipe.batch,
            shuffle=train,
            balanced=train and recipe.sampler == "balanced",
            workers=recipe.workers,
        )

    card = _card(plan, reader, phase)
    model = _fresh_model(recipe, card)
    if start is not None and start.exists():
        model.load_state_dict(read_safely(start)["state_dict"])
    if recipe.channels_last:
        channels_last(model)
    if recipe.compile:
        _check_compiler()
        model.compile()
    return ClassifierTask(
        model,
        recipe,
        loader(train_rows, train=True),
        loader(val_rows, train=False) if len(val_rows) else None,
        several=is_multi_label(plan.table),
        card=card,
        num_epochs=_num_epochs(recipe, len(train_rows)),
    )


def channels_last(model: nn.Module) -> None:
    """Lay the weights of all 2D and 3D convolutions out channels last; what they compute follows them."""
    import torch

    layouts = {4: torch.channels_last, 5: torch.channels_last_3d}
    for module in model.modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Conv3d)):
            weight = module.weight
            weight.data = weight.data.contiguous(memory_format=layouts[weight.ndim])


def _check_compiler() -> None:
    if not any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "clang++", "cl")):
        raise EnvironmentProblem(
            "compile = true needs a C++ compiler, and none is here (g++, clang++, or what CXX names). Install one, or train "
            "with --set compile=false, which gives the same numbers up to rounding."
        )


def _card(plan: _Plan, reader: ProductReader, phase: Phase) -> dict[str, Any]:
    from actionprep.training.checkpoints import card_of

    pipeline = pipeline_of(plan.store, plan.recipe.reads)
    return card_of(plan.recipe, plan.table, plan.views, reader, pipeline=pipeline, phase=phase)


def _fresh_model(
    recipe: Recipe, card: Mapping[str, Any], weights: Callable[[nn.Module], object] | None = None
) -> nn.Module:
    import torch

    from actionprep.training.checkpoints import make_model

    torch.manual_seed(recipe.seed)
    model = make_model(card)
    if weights is not None:
        weights(model)
    return model


def _same_weights(path: Path, model: nn.Module) -> bool:
    import torch

    from actionprep.training.checkpoints import read_safely

    kept, state = read_safely(path)["state_dict"], model.state_dict()
    return kept.keys() == state.keys() and all(torch.equal(kept[name], values) for name, values in state.items())


def _save_start(run: Run, model: nn.Module) -> None:
    """Keep the weights that a training begins from."""
    import torch

    draft = run.folder / f".{START}.draft"
    torch.save({"state_dict": model.state_dict()}, draft)
    draft.replace(run.folder / START)


def _num_epochs(recipe: Recipe, num_snippets: int) -> int:
    """The recipe's epochs, or more where these would be too few steps."""
    per_epoch = math.ceil(math.ceil(num_snippets / recipe.batch) / recipe.accumulate)
    return max(recipe.epochs, math.ceil(recipe.min_steps / max(per_epoch, 1)))


def _dataset(plan: _Plan, reader: ProductReader, rows: np.ndarray, *, train: bool) -> SnippetDataset:
    from actionprep.training.datasets import SnippetDataset

    recipe = plan.recipe
    return SnippetDataset(
        plan.store, plan.table, rows=rows, train=train, seed=recipe.seed, targets=recipe.targets, reader=reader
    )


def is_first_process() -> bool:
    """Whether this process is the one of its training that writes; the others only compute."""
    if "RANK" in os.environ:
        # torchrun numbers processes by itself, not by SLURM's order of nodes.
        return os.environ["RANK"] == "0"
    return all(os.environ.get(name, "0") == "0" for name in ("SLURM_PROCID", "LOCAL_RANK", "NODE_RANK"))


def _shared_folder(folder: Path, *, several: bool) -> Path:
    """The run's folder, the same in all processes that one command starts, though each might name it by its own clock."""
    if not several:
        return folder
    if is_first_process():
        os.environ[_FOLDER_OF_ALL] = str(folder.resolve())
    return Path(os.environ.get(_FOLDER_OF_ALL, folder))


def _wait_for(run: Run, seconds: float = 300.0) -> None:
    """Let the first process write the run's folder before the others read it."""
    until = time.monotonic() + seconds
    while not (run.folder / FACTS).exists():
        if time.monotonic() > until:
            raise EnvironmentProblem(
                f"The first process of this training has not made {run.folder} in {seconds:.0f} s. On several machines "
                "the folder must be on a disk that all of them see."
            )
        time.sleep(0.2)


_FOLDER_OF_ALL = "ACTIONPREP_RUN_FOLDER"


def _accelerator(device: str, devices: int) -> tuple[str, Any]:
    """Lightning's names for a device, and for several of its kind."""
    from actionprep.training.test import torch_device

    chosen, number = torch_device(device), device.partition(":")[2]
    if not number:
        return chosen.type, devices
    if devices > 1:
        raise UserError(
            f"--device {device} names a single GPU, and --devices asks for {devices} processes, each on one of its own. "
            "Leave the number out, or choose GPUs with CUDA_VISIBLE_DEVICES."
        )
    return chosen.type, [int(number)]


@contextlib.contextmanager
def quiet_lightning() -> Iterator[None]:
    """Lightning's hints are for people who write loops; what concerns a user, `fit` says itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import lightning.pytorch  # noqa: F401 - before the levels are set: its import sets them too

    levels = {}
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logger = logging.getLogger(name)
        levels[logger] = logger.level
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning.*")
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            warnings.filterwarnings("ignore", category=FutureWarning)
            warnings.filterwarnings("ignore", message=".*treespec.*")
            warnings.filterwarnings("ignore", message=r".*lr_scheduler\.step\(\).*")
            yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)


def over_folds(arrays: Sequence[Mapping[str, np.ndarray]], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Figures over the test snippets of all folds together, and their mean and spread over the folds."""
    from actionprep.training import metrics

    actual, predicted = (np.concatenate([one[name] for one in arrays]) for name in ("actuals", "predictions"))
    groups = np.concatenate([one["recording"] for one in arrays])
    num_classes = arrays[0]["probabilities"].shape[1]
    spread = {}
    for name in ("accuracy", "macro_f1"):
        mean, deviation = metrics.mean_and_spread([row[name] for row in rows])
        spread[name] = {"mean": mean, "std": deviation}
    drawn = metrics.bootstrap(lambda at: metrics.accuracy(actual[at], predicted[at]), len(actual), groups=groups)
    return {
        "num_samples": len(actual),
        "accuracy": metrics.where_it_varies(drawn, len(np.unique(groups)), is_share=True).as_json(),
        "macro_f1": metrics.f1_scores(actual, predicted, num_classes)["macro_f1"],
        "over_folds": spread,
    }


def _silent(sentence: str) -> None:
    """Tell nobody."""
