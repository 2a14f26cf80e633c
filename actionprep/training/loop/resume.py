"""Write the start of a run into its folder, and check it against the options when the run is resumed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from actionprep.datasets.paths import no_link
from actionprep.datasets.split_choice import Parts, SplitChoice, choose_parts
from actionprep.datasets.store.zarr_store import Store
from actionprep.errors import UserError
from actionprep.training.loop.make_task import fresh_model
from actionprep.training.loop.training_plan import TrainingPlan, with_val_by_of
from actionprep.training.recipes import Recipe, differences, find_recipe
from actionprep.training.run import FACTS, RECIPE, SPLIT, START, Run, input_digest, source_from, write_text

if TYPE_CHECKING:
    from torch import nn

    from actionprep.datasets.splits import SplitAssignment
    from actionprep.training.inputs.base import ProductReader


@dataclass(frozen=True)
class Start:
    """Model with published weights that a training starts from.

    Attributes:
        model: The model.
        digest: Hash of what the weights changed in a fresh model, equal for all seeds.
    """

    model: nn.Module
    digest: str


def make_start(plan: TrainingPlan, reader: ProductReader, weights: Callable[[nn.Module], object]) -> Start:
    """Apply published weights to a fresh model of the plan.

    Raises:
        UserError: If they do not fit.
    """
    model = fresh_model(plan.recipe, plan.card(reader, "validate"))
    return Start(model, digest=_put_digest(model, weights))


def prepare_folder(run: Run, plan: TrainingPlan, start: Start | None, *, unfinished: bool = False) -> None:
    """Write the initial files of a run. run.json comes last and marks the folder as complete.

    Args:
        run: Run to write.
        plan: Plan of the training.
        start: Model with published weights; None: fresh weights.
        unfinished: Replace the files of a process that was killed before run.json.

    Raises:
        UserError: If the folder is not empty.
    """
    existing = {path.name for path in run.folder.iterdir()} if run.folder.is_dir() else set()
    if unfinished:
        existing = {name for name in existing if name not in (RECIPE, SPLIT, START) and not name.startswith(".")}
    if existing:
        raise UserError(
            f"The folder {run.folder} is not empty. Name another one with --run, or resume the run in it with --resume."
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
    if start is not None:
        # All phases, and a resumed run, start from these, so the published file is not needed again.
        _save_start(run, start.model)
    facts = plan.facts()
    if plan.store.path is not None:
        facts["store_from_here"] = source_from(run.folder, plan.store.path)
    digest = None if start is None else start.digest
    run.change(**facts, published_weights=start is not None, weights_digest=digest)


def restore_plan(run: Run, store: Store) -> TrainingPlan:
    """Restore the plan of a run.

    Raises:
        UserError: If the input of the run has changed in the store.
    """
    from actionprep.datasets.splits import SplitAssignment
    from actionprep.training.datasets import read_table

    facts = run.facts
    digest = input_digest(store, run.recipe.reads, facts["snippets"])
    if digest != facts["input_digest"] and not facts["state"]["complete"]:
        raise UserError(
            f"The data of the training in {run.folder} has changed in the store {store.url} since it started (digest now "
            f"{digest[:12]}, then {facts['input_digest'][:12]}). A resumed training would mix two data sets. Start a new "
            "one."
        )
    saved = facts["split"]
    split = SplitAssignment(
        train=np.array(saved["rows"]["train"], np.int64),
        val=np.array(saved["rows"]["val"], np.int64),
        test=np.array(saved["rows"]["test"], np.int64),
        by=saved["by"],
        seed=saved["seed"],
        groups={part: tuple(names) for part, names in saved["groups"].items()},
        notes=tuple(saved["notes"]),
    )
    table = read_table(store, facts["snippets"])
    parts = Parts(split, saved["by"], saved["why"], saved.get("stored"), saved.get("folds"))
    return TrainingPlan(store, run.recipe, facts["snippets"], table, tuple(facts["views"]), parts)


def check_unchanged(
    run: Run,
    plan: TrainingPlan,
    *,
    recipe: Recipe | str,
    snippets: str | None,
    split: SplitChoice | SplitAssignment | Parts,
    views: Sequence[str | int] | None,
    weights: Callable[[nn.Module], object] | None,
) -> None:
    """Check that the options of a resumed run equal those that it was started with. Defaults are not compared.

    Raises:
        UserError: If an option differs.
    """
    changes = []
    if recipe != "auto":
        requested = recipe if isinstance(recipe, Recipe) else find_recipe(recipe)
        # The number of loader workers does not affect the result.
        requested = requested.self_contained().changed({"workers": run.recipe.workers})
        changes += differences(run.recipe, requested)
    if snippets not in (None, plan.snippets):
        changes.append(f"snippets are '{plan.snippets}', not '{snippets}'")
    if views:
        from actionprep.training.datasets import choose_views

        chosen = choose_views(plan.store, plan.recipe.reads, plan.table, views)
        if chosen != plan.views:
            changes.append(f"views are {' '.join(plan.views)}, not {' '.join(chosen)}")
    if split != SplitChoice():
        if isinstance(split, SplitChoice):
            split = choose_parts(plan.store, plan.table, with_val_by_of(split, plan.recipe))
        assignment = split.split if isinstance(split, Parts) else split
        parts = [
            part
            for part in ("train", "val", "test")
            if not np.array_equal(assignment.rows(part), plan.parts.split.rows(part))
        ]
        if parts:
            changes.append(f"the split differs: {', '.join(parts)} contain other snippets")
    if weights is not None and not run.facts.get("published_weights"):
        changes.append("it did not start from published weights")
    elif weights is not None and (run.folder / START).exists():
        fresh = fresh_model(plan.recipe, plan.card(plan.make_reader(), "validate"), weights)
        if not _same_weights(run.folder / START, fresh):
            changes.append("it started from other weights")
    if changes:
        raise UserError(
            f"The training in {run.folder} can only be resumed with the options it was started with. These differ: "
            f"{'; '.join(changes)}.\nRemove these options, or start another run (--run NAME)."
        )


def split_of_run(run_folder: Path, store: Store, choice: SplitChoice) -> SplitChoice | Parts:
    """Compute the split that a choice would give the run in this folder, to compare it with that of the run."""
    if not (run_folder / FACTS).exists():
        return choice
    from actionprep.training.datasets import read_table

    run = Run(run_folder)
    choice = replace(with_val_by_of(choice, run.recipe), seed=run.facts["split"]["seed"])
    return choose_parts(store, read_table(store, run.facts["snippets"]), choice)


def _put_digest(model: nn.Module, weights: Callable[[nn.Module], object]) -> str:
    """Apply weights to a fresh model and return the hash of what they changed, which is equal for all seeds."""
    import torch

    before = {name: values.clone() for name, values in model.state_dict().items()}
    weights(model)
    digest = hashlib.sha256()
    for name, values in model.state_dict().items():
        if not torch.equal(values, before[name]):
            digest.update(name.encode())
            digest.update(values.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _same_weights(path: Path, model: nn.Module) -> bool:
    import torch

    from actionprep.training.checkpoints import read_safely

    saved, state = read_safely(path)["state_dict"], model.state_dict()
    return saved.keys() == state.keys() and all(torch.equal(saved[name], values) for name, values in state.items())


def _save_start(run: Run, model: nn.Module) -> None:
    """Save the weights that a training starts from."""
    import torch

    draft = no_link(run.folder / f".{START}.draft")
    torch.save({"state_dict": model.state_dict()}, draft)
    draft.replace(run.folder / START)
