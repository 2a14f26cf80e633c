"""Train: from a store and a recipe to a run folder; whole, interrupted and resumed, or over folds."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from actionprep.datasets.store import Store
from actionprep.errors import EnvironmentProblem, UserError
from actionprep.training.parts import Parts, SplitChoice, choose_folds, choose_parts, describe, is_multi_label, joined
from actionprep.training.recipes import Recipe, choose_recipe, find_recipe
from actionprep.training.run import FACTS, RECIPE, Phase, Run, input_digest, now, pipeline_of, versions, write_text

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
    snippets: str = "default",
    split: SplitChoice | SplitAssignment | Parts = SplitChoice(),
    views: Sequence[str | int] | None = None,
    device: str = "auto",
    devices: int = 1,
    num_nodes: int = 1,
    threads: int | None = None,
    wandb: bool = False,
    tensorboard: bool = True,
    weights: str | Path | None = None,
    on_epoch: Callable[[EpochReport], None] | None = None,
    tell: Told | None = None,
    resume: bool = False,
) -> Run:
    """Train one model on the snippets of a store and keep everything in a folder.

    recipe:  a recipe, its name, the path of one in TOML, or "auto": what suits the store.
    split:   how to split (see `SplitChoice`), or a split that was made already.
    views:   names of views, in this order; None: all that the product has.
    devices: processes of one training on this machine, on as many GPUs, or on the CPU; num_nodes: machines.
    weights: a file of published weights, or a checkpoint of another run, to start from.
    tell:    is told, in sentences, what is about to happen.
    resume:  go on with the training in this folder where it was interrupted; a complete one stays as it is.

    Raises UserError when recipe and store do not fit, for an empty part or a single class, or when the folder is taken.
    """
    tell = tell or _silent
    store = store if isinstance(store, Store) else Store(store)
    run = Run(_shared_folder(Path(run_folder), several=devices * num_nodes > 1))
    if resume and (run.folder / FACTS).exists():
        return _resumed(
            run,
            store,
            device=device,
            devices=devices,
            num_nodes=num_nodes,
            threads=threads,
            on_epoch=on_epoch,
            tell=tell,
        )
    chosen = _resolve(store, recipe, tell)
    put = None
    if weights is not None:
        from actionprep.training.weights import starting_weights

        put = starting_weights(weights, model_name=chosen.model, tell=tell)
    plan = _Plan.make(store, chosen, snippets=snippets, split=split, views=views)
    for sentence in plan.sentences:
        tell(sentence)
    if is_first_process():
        _prepare_folder(run, plan)
        run.change(weights=None if weights is None else str(Path(weights).resolve()))
    options = _Options(device, devices, num_nodes, threads, wandb, tensorboard)
    _train(run, plan, options, weights=put, on_epoch=on_epoch)
    return run


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
    summary = _over_folds(arrays, rows)
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
        from actionprep.training.datasets import choose_views, read_table
        from actionprep.training.inputs.base import find_input

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
        return cls(store, recipe, snippets, table, choose_views(store, recipe.product, table, views), parts)

    @property
    def sentences(self) -> list[str]:
        views = f", views {', '.join(self.views)}" if len(self.views) > 1 else ""
        return [
            f"{len(self.table.labels)} classes: {', '.join(self.table.labels)}{views}",
            self.parts.why,
            *describe(self.parts, self.table),
        ]

    def facts(self) -> dict[str, Any]:
        """What run.json says of it."""
        split = self.parts.split
        return {
            "schema": 1,
            "store": str(self.store.path.resolve()) if self.store.path is not None else self.store.url,
            "store_digest": self.store.digest(),
            "input_digest": input_digest(self.store, self.recipe.product, self.snippets),
            "snippets": self.snippets,
            "labels": list(self.table.labels),
            "views": list(self.views),
            "several_labels": is_multi_label(self.table),
            "seed": self.recipe.seed,
            "split": {
                "by": self.parts.by,
                "why": self.parts.why,
                "seed": split.seed,
                "groups": {part: list(names) for part, names in split.groups.items()},
                "rows": {part: split.rows(part).tolist() for part in ("train", "val", "test")},
                "notes": list(split.notes),
            },
            "pipeline": pipeline_of(self.store, self.recipe.product),
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


def _val_by(recipe: Recipe, split: SplitChoice) -> Any:
    return "recording" if "recording" in (recipe.val_by, split.val_by) else "group"


def _prepare_folder(run: Run, plan: _Plan) -> None:
    if run.folder.exists() and any(run.folder.iterdir()):
        raise UserError(
            f"The folder {run.folder} is not empty. Name another one with --run, or go on with the run in it with "
            "--resume."
        )
    write_text(run.folder / RECIPE, plan.recipe.to_toml())
    parts = {int(row): part for part in ("train", "val", "test") for row in plan.parts.split.rows(part)}
    table = plan.table
    run.write_table(
        "split.csv",
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
    run.change(**plan.facts())


def _resumed(
    run: Run,
    store: Store,
    *,
    device: str,
    devices: int,
    num_nodes: int,
    threads: int | None,
    on_epoch: Callable[[EpochReport], None] | None,
    tell: Told,
) -> Run:
    facts = run.facts
    if facts["state"]["complete"]:
        tell(f"The training in {run.folder} is complete.")
        return run
    digest = input_digest(store, run.recipe.product, facts["snippets"])
    if digest != facts["input_digest"]:
        raise UserError(
            f"What the training in {run.folder} reads has changed in the store {store.url} since it began (digest "
            f"{digest[:12]}, then {facts['input_digest'][:12]}). Its numbers would not be those of one training: "
            "begin a "
            "new one."
        )
    from actionprep.datasets.splits import SplitAssignment
    from actionprep.training.datasets import read_table

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
    plan = _Plan(
        store, run.recipe, facts["snippets"], table, tuple(facts["views"]), Parts(split, given["by"], given["why"])
    )
    tell(f"Going on with the training in {run.folder}")
    put = None
    if facts.get("weights") is not None:
        from actionprep.training.weights import starting_weights

        # A refit that has not begun yet starts from them again.
        put = starting_weights(facts["weights"], model_name=run.recipe.model, tell=tell)
    _train(run, plan, _Options(device, devices, num_nodes, threads), weights=put, on_epoch=on_epoch)
    return run


def _train(
    run: Run,
    plan: _Plan,
    options: _Options,
    *,
    weights: Callable[[nn.Module], object] | None,
    on_epoch: Callable[[EpochReport], None] | None,
) -> None:
    """All phases that are not done yet."""
    import torch

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    reader = _reader(plan)
    phases = plan.phases
    _wait_for(run)
    begun: Phase = run.facts["state"]["phase"]
    started = time.monotonic()
    for phase in phases[phases.index(begun) :]:
        if is_first_process():
            run.change(state={"phase": phase, "complete": False})
        # Only the first phase may have been begun before; the others must not look at what it leaves.
        resume = run.last if phase == begun and run.last.exists() else None
        _train_phase(run, plan, reader, phase, options, resume=resume, weights=weights, on_epoch=on_epoch)
        if phase != phases[-1] and is_first_process():
            # The next phase begins with fresh weights: what validation found stays beside them.
            run.best.replace(run.folder / "validated.ckpt")
            run.last.unlink()
            run.change(state={"phase": phases[phases.index(phase) + 1], "complete": False})
    if not is_first_process():
        return
    facts = run.facts
    took = facts.get("train_seconds", 0.0) + time.monotonic() - started
    run.change(state={"phase": phases[-1], "complete": True}, train_seconds=round(took, 1), finished=now())
    from actionprep.training.report import write_report

    write_report(run)


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
    weights: Callable[[nn.Module], object] | None,
    on_epoch: Callable[[EpochReport], None] | None,
) -> None:
    with quiet_lightning():
        import lightning.pytorch as pl

        from actionprep.training import callbacks

        recipe = plan.recipe
        task = make_task(plan, reader, phase, weights=weights)
        has_val = task._val_loader is not None
        shown = callbacks.History(run, phase, task.num_epochs, on_epoch)
        wanted: list[Any] = [callbacks.Averaging(), shown, callbacks.Checkpoints(run, recipe, phase, has_val=has_val)]
        if recipe.patience is not None and has_val:
            wanted.insert(
                0,
                pl.callbacks.EarlyStopping(
                    recipe.monitor,
                    patience=-(-recipe.patience // recipe.validate_every),
                    mode="min" if recipe.monitor == "val_loss" else "max",
                    check_on_train_epoch_end=False,
                ),
            )
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
            enable_autolog_hparams=False,
            default_root_dir=str(run.folder),
        )
        with callbacks.memory_explained(recipe):
            trainer.fit(task, ckpt_path=resume, weights_only=True)
        if trainer.interrupted:
            raise KeyboardInterrupt


def make_task(
    plan: _Plan,
    reader: ProductReader,
    phase: Phase,
    *,
    weights: Callable[[nn.Module], object] | None = None,
) -> ClassifierTask:
    """The Lightning task of one phase, with fresh weights of the recipe's seed."""
    import torch

    from actionprep.training.checkpoints import card_of, make_model
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

    card = card_of(
        recipe, plan.table, plan.views, reader, pipeline=pipeline_of(plan.store, recipe.product), phase=phase
    )
    torch.manual_seed(recipe.seed)
    model = make_model(card)
    if weights is not None:
        weights(model)
    if recipe.compile:
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


def _num_epochs(recipe: Recipe, num_snippets: int) -> int:
    """The recipe's epochs, or more where these would be too few steps."""
    per_epoch = math.ceil(math.ceil(num_snippets / recipe.batch) / recipe.accumulate)
    return max(recipe.epochs, math.ceil(recipe.min_steps / max(per_epoch, 1)))


def _dataset(plan: _Plan, reader: ProductReader, rows: np.ndarray, *, train: bool) -> SnippetDataset:
    from actionprep.training.datasets import SnippetDataset

    return SnippetDataset(plan.store, plan.table, rows=rows, train=train, seed=plan.recipe.seed, reader=reader)


def is_first_process() -> bool:
    """Whether this process is the one of its training that writes; the others only compute."""
    ranks = ("RANK", "SLURM_PROCID", "LOCAL_RANK", "NODE_RANK")
    return all(os.environ.get(name, "0") == "0" for name in ranks)


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
    import torch

    if device == "auto":
        return ("cuda" if torch.cuda.is_available() else "cpu"), devices
    kind, _, number = device.partition(":")
    if kind == "cuda" and not torch.cuda.is_available():
        raise EnvironmentProblem(
            "device is cuda, and PyTorch finds no CUDA GPU here. Use --device cpu, or install a CUDA build of PyTorch."
        )
    return kind, [int(number)] if number else devices


@contextlib.contextmanager
def quiet_lightning() -> Iterator[None]:
    """Lightning's hints are for people who write loops; what concerns a user, `fit` says itself."""
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


def _over_folds(arrays: Sequence[Mapping[str, np.ndarray]], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    from actionprep.training import metrics

    actual, predicted = (np.concatenate([one[name] for one in arrays]) for name in ("actuals", "predictions"))
    groups = np.concatenate([one["recording"] for one in arrays])
    num_classes = arrays[0]["probabilities"].shape[1]
    spread = {}
    for name in ("accuracy", "macro_f1"):
        mean, deviation = metrics.mean_and_spread([row[name] for row in rows])
        spread[name] = {"mean": mean, "std": deviation}
    return {
        "num_samples": len(actual),
        "accuracy": metrics.bootstrap(
            lambda at: metrics.accuracy(actual[at], predicted[at]), len(actual), groups=groups
        ).as_json(),
        "macro_f1": metrics.f1_scores(actual, predicted, num_classes)["macro_f1"],
        "over_folds": spread,
    }


def _silent(sentence: str) -> None:
    """Tell nobody."""
