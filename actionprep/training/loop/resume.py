"""What a run was begun with: written into its folder, read from there, and held against what is asked when it goes on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from actionprep.datasets.paths import no_link
from actionprep.datasets.store.zarr_store import Store
from actionprep.errors import UserError
from actionprep.training.loop.make_task import fresh_model
from actionprep.training.loop.training_plan import Plan, as_recipe_wants
from actionprep.training.recipes import Recipe, differences, find_recipe
from actionprep.training.run import FACTS, RECIPE, SPLIT, START, Run, input_digest, source_from, write_text
from actionprep.training.split_choice import Parts, SplitChoice, choose_parts

if TYPE_CHECKING:
    from torch import nn

    from actionprep.datasets.splits import SplitAssignment
    from actionprep.training.inputs.base import ProductReader


@dataclass(frozen=True)
class Start:
    """The model with the published weights that a training begins from.

    digest: hash of what they changed in a fresh model, which is the same for every seed.
    """

    model: nn.Module
    digest: str


def start_with(plan: Plan, reader: ProductReader, weights: Callable[[nn.Module], object]) -> Start:
    """A fresh model of the plan with weights put into it; raises UserError when they do not fit."""
    model = fresh_model(plan.recipe, plan.card(reader, "validate"))
    return Start(model, digest=_put_digest(model, weights))


def prepare_folder(run: Run, plan: Plan, start: Start | None, *, unfinished: bool = False) -> None:
    """Write what a run begins with; run.json comes last, and says that the rest is there.

    start:      what the training begins from; None: fresh weights.
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
    if start is not None:
        # Every phase, and a resumed run, begins from these: the published file is not needed again.
        _save_start(run, start.model)
    facts = plan.facts()
    if plan.store.path is not None:
        facts["store_from_here"] = source_from(run.folder, plan.store.path)
    digest = None if start is None else start.digest
    run.change(**facts, published_weights=start is not None, weights_digest=digest)


def plan_of_run(run: Run, store: Store) -> Plan:
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
    parts = Parts(split, given["by"], given["why"], given.get("stored"), given.get("folds"))
    return Plan(store, run.recipe, facts["snippets"], table, tuple(facts["views"]), parts)


def check_same(
    run: Run,
    plan: Plan,
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
        differing += differences(run.recipe, asked.self_contained())
    if snippets not in (None, plan.snippets):
        differing.append(f"snippets are '{plan.snippets}', not '{snippets}'")
    if views:
        from actionprep.training.datasets import choose_views

        chosen = choose_views(plan.store, plan.recipe.reads, plan.table, views)
        if chosen != plan.views:
            differing.append(f"views are {' '.join(plan.views)}, not {' '.join(chosen)}")
    if split != SplitChoice():
        if isinstance(split, SplitChoice):
            split = choose_parts(plan.store, plan.table, as_recipe_wants(split, plan.recipe))
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
        fresh = fresh_model(plan.recipe, plan.card(plan.make_reader(), "validate"), weights)
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
    choice = replace(as_recipe_wants(choice, run.recipe), seed=run.facts["split"]["seed"])
    return choose_parts(store, read_table(store, run.facts["snippets"]), choice)


def _put_digest(model: nn.Module, weights: Callable[[nn.Module], object]) -> str:
    """Put weights into a fresh model; returns the hash of what they changed in it, which is the same for every seed."""
    import torch

    fresh = {name: values.clone() for name, values in model.state_dict().items()}
    weights(model)
    found = hashlib.sha256()
    for name, values in model.state_dict().items():
        if not torch.equal(values, fresh[name]):
            found.update(name.encode())
            found.update(values.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return found.hexdigest()


def _same_weights(path: Path, model: nn.Module) -> bool:
    import torch

    from actionprep.training.checkpoints import read_safely

    kept, state = read_safely(path)["state_dict"], model.state_dict()
    return kept.keys() == state.keys() and all(torch.equal(kept[name], values) for name, values in state.items())


def _save_start(run: Run, model: nn.Module) -> None:
    """Keep the weights that a training begins from."""
    import torch

    draft = no_link(run.folder / f".{START}.draft")
    torch.save({"state_dict": model.state_dict()}, draft)
    draft.replace(run.folder / START)
