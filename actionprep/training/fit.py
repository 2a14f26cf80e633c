"""Train a recipe on a store, write the run to a folder, and resume interrupted trainings."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actionprep.datasets.split_choice import Parts, SplitChoice
from actionprep.datasets.store.opening import open_store
from actionprep.datasets.store.zarr_store import Store
from actionprep.garbage_collection import collect_as_usual
from actionprep.training.loop.devices import lightning_devices
from actionprep.training.loop.make_task import check_model, make_task
from actionprep.training.loop.processes import is_first_process, shared_folder, wait_for_run
from actionprep.training.loop.progress import EpochReport, Log, silent
from actionprep.training.loop.resume import check_unchanged, make_start, prepare_folder, restore_plan
from actionprep.training.loop.trainer import TrainerOptions, train_phase
from actionprep.training.loop.training_plan import TrainingPlan, resolve_recipe
from actionprep.training.loop.wandb_logging import check_wandb
from actionprep.training.recipes import Recipe
from actionprep.training.run import (
    FACTS,
    START,
    VALIDATED,
    Phase,
    Run,
    early_best_warning,
    keep_file,
    now,
    validation_sentence,
)
from actionprep.training.weights import StartingWeights

if TYPE_CHECKING:
    from torch import nn

    from actionprep.datasets.splits import SplitAssignment
    from actionprep.training.inputs.base import ProductReader
    from actionprep.training.loop.task import ClassifierTask


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
    wandb: bool | Mapping[str, Any] = False,
    tensorboard: bool = True,
    weights: Callable[[nn.Module], object] | None = None,
    on_epoch: Callable[[EpochReport], None] | None = None,
    log: Log | None = None,
    resume: bool = False,
) -> Run:
    """Train one model on the snippets of a store and write everything to a folder.

    Args:
        store: Store with the snippets and the product that the recipe reads.
        recipe: Recipe, its name, the path of a recipe in TOML, or "auto" for one that fits the store.
        run_folder: Folder of the run.
        snippets: Name of the table of snippets (snippets/<name>); None: default.
        split: How to split (see `SplitChoice`), or the split itself.
        views: Views in this order; None: all views of the product.
        device: Device of the training.
        devices: Processes of one training on this machine, each on its own GPU or on the CPU.
        num_nodes: Machines of one training.
        threads: CPU threads; None: the default of PyTorch.
        wandb: Whether to log to Weights & Biases too; a mapping has its project, entity or tags.
        tensorboard: Whether to log to TensorBoard.
        weights: Called with the fresh model, to load weights into it.
        on_epoch: Called after every epoch.
        log: Receives progress messages.
        resume: Resume the training in this folder; a complete one stays as it is. Recipe, snippets, split, views and
            weights may only be given as the training began, except for the number of loader workers.

    Returns:
        The complete run.

    Raises:
        UserError: If recipe and store do not fit, if a part is empty or has a single class, if the folder is in use, or if
            the training to resume began with other options.
        SetupError: If the package of Weights & Biases is missing.
    """
    log = log or silent
    store = open_store(store).snapshot()
    run = Run(shared_folder(Path(run_folder), multiple=devices * num_nodes > 1))
    options = TrainerOptions(device, devices, num_nodes, threads, wandb, tensorboard)
    if resume and (run.folder / FACTS).exists():
        plan = restore_plan(run, store)
        if isinstance(recipe, Recipe):
            recipe = _fitted_recipe(recipe, weights)
            if recipe.workers != plan.recipe.workers:
                # The order of batches does not depend on the number of workers.
                plan = replace(plan, recipe=plan.recipe.changed({"workers": recipe.workers}))
        check_unchanged(run, plan, recipe=recipe, snippets=snippets, split=split, views=views, weights=weights)
        if run.is_complete:
            log(f"The training in {run.folder} is complete.")
            return run
        reader = plan.make_reader()
        plan.in_precision(device, check_model(plan, reader))
        if wandb:
            check_wandb()
        log(f"Resuming the training in {run.folder}")
        _train(run, plan, options, on_epoch=on_epoch, log=log, reader=reader)
        _log_validation(run, log)
        return run
    if wandb:
        check_wandb()
    chosen = _fitted_recipe(resolve_recipe(store, recipe, log), weights)
    lightning_devices(device, devices)  # a missing device is an error before there is a run
    plan = TrainingPlan.make(store, chosen, snippets=snippets or "default", split=split, views=views)
    seen = weights.seen_of(plan) if isinstance(weights, StartingWeights) else None
    if seen is not None:
        plan = plan.with_note(seen)
    for sentence in plan.sentences:
        log(sentence)
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    # Errors of reader, model, optimizer and published weights are raised before there is a run.
    reader = plan.make_reader()
    plan = plan.in_precision(device, check_model(plan, reader))
    start = None
    if weights is not None and is_first_process():
        start = make_start(plan, reader, weights)
    log(f"Run {run.folder}")
    if is_first_process():
        prepare_folder(run, plan, start, unfinished=resume)
    _train(run, plan, options, on_epoch=on_epoch, log=log, reader=reader)
    _log_validation(run, log)
    return run


def _log_validation(run: Run, log: Log) -> None:
    sentence = validation_sentence(run) if is_first_process() else None
    if sentence is not None:
        log(sentence)


def _fitted_recipe(recipe: Recipe, weights: Callable[[nn.Module], object] | None) -> Recipe:
    """Return the recipe with the model variant that the weights require, if it does not choose one."""
    return weights.fitted_recipe(recipe) if isinstance(weights, StartingWeights) else recipe


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
    """Create the first task of `fit` (model, loss and loaders of its first phase) without a run."""
    store = open_store(store).snapshot()
    chosen = _fitted_recipe(resolve_recipe(store, recipe, silent), weights)
    plan = TrainingPlan.make(store, chosen, snippets=snippets, split=split, views=views)
    reader = plan.make_reader()
    plan = plan.in_precision(device, check_model(plan, reader))
    task = make_task(plan, reader, plan.phases[0])
    if weights is not None:
        weights(task.model)
    return task


def _train(
    run: Run,
    plan: TrainingPlan,
    options: TrainerOptions,
    *,
    on_epoch: Callable[[EpochReport], None] | None,
    log: Log = silent,
    reader: ProductReader | None = None,
) -> None:
    """Train all phases that are not complete."""
    import torch

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    reader = reader or plan.make_reader()
    phases = plan.phases
    wait_for_run(run)
    collect_as_usual()
    begun: Phase = run.facts["state"]["phase"]
    before = sum(row["seconds"] for row in run.metrics)
    started = time.monotonic()
    for phase in phases[phases.index(begun) :]:
        # Only the first of these phases can have started before.
        resume = _checkpoint_to_resume(run, phase) if phase == begun else None
        train_phase(run, plan, reader, phase, options, resume=resume, on_epoch=on_epoch)
        if phase == "validate" and is_first_process():
            warning = early_best_warning(run)
            if warning is not None:
                log(warning)
        if phase != phases[-1] and is_first_process():
            # The result of the validation is kept. After a kill between any two of these lines the folder can be resumed:
            # the phase in run.json decides, and a checkpoint of another phase is not used.
            keep_file(run.best, run.folder / VALIDATED)
            run.change(state={"phase": phases[phases.index(phase) + 1], "complete": False})
            run.last.unlink()
    if not is_first_process():
        return
    took = before + time.monotonic() - started
    run.change(state={"phase": phases[-1], "complete": True}, train_seconds=round(took, 3), finished=now())
    (run.folder / START).unlink(missing_ok=True)
    from actionprep.training.evaluation.report import write_report

    write_report(run)


def _checkpoint_to_resume(run: Run, phase: Phase) -> Path | None:
    """Return last.ckpt, if it exists and belongs to this phase."""
    from actionprep.training.checkpoints import read_safely

    if not run.last.exists():
        return None
    return run.last if read_safely(run.last)["actionprep"]["phase"] == phase else None
