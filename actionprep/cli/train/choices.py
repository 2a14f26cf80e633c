"""What a training is of: its recipe, its split, its classes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actionprep.datasets.store import Store
    from actionprep.training.recipes import TrainSettings


_CHANGES = "the changes to the recipe (--set, or changes under [train])"


def recipe_of(store: Store, settings: TrainSettings, set_here: dict[str, Any]) -> tuple[Any, list[str]]:
    """The recipe that the settings ask for, or that suits the store, and sentences that say why and with what.

    It has the study's changes, as far as it has such settings, and those that are set here.
    """
    from actionprep.training.recipes import choose_recipe, find_recipe, suited

    if settings.recipe == "auto":
        choice = choose_recipe(store)
        chosen, why = choice.recipe, f"chosen because {choice.why}"
    else:
        chosen, why = find_recipe(settings.recipe), "as asked for"
    said = [f"Recipe {chosen.name}: {why}"]
    of_study, others = suited(chosen, settings.changes)
    if others:
        said.append(f"Of the study's changes these are for other recipes: {', '.join(others)}")
    return chosen.changed({"seed": settings.seed, **of_study, **set_here}, where=_CHANGES), said


def recipe_of_run(run: Path, name: str | None, changes: dict[str, Any]) -> Any:
    """The recipe to hold against that of a run which goes on; "auto" where nothing was said of it."""
    from actionprep.training.recipes import find_recipe
    from actionprep.training.run import FACTS, Run

    if not (run / FACTS).exists() or (name is not None and name != Run.open(run).recipe.name):
        return "auto" if name is None else find_recipe(name).changed(changes, where=_CHANGES)
    begun = Run.open(run).recipe
    # Epochs that were asked for take min_steps with them, and so they did when the run began.
    return begun.changed({"min_steps": begun.min_steps, **changes}, where=_CHANGES) if changes else "auto"


def split_of(settings: TrainSettings) -> Any:
    """The split that the settings ask for."""
    from actionprep.training.parts import SplitChoice

    return SplitChoice(
        by=settings.by,
        val_share=settings.val,
        test_share=settings.test,
        train=settings.train_groups,
        val=settings.val_groups,
        test=settings.test_groups,
        stored=settings.split,
        allow_single=settings.allow_single,
        seed=settings.seed,
    )


def labels_of(store: Store, snippets: str | None, begun: Path | None) -> tuple[str, ...]:
    """The classes of a training: those of the snippets that are asked for, else of the run that goes on."""
    from actionprep.training.datasets import read_table
    from actionprep.training.run import Run

    if snippets is None and begun is not None:
        return Run.open(begun).labels
    return read_table(store, snippets or "default").labels
