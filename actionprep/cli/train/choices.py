"""What a training is of: its recipe, its split, its classes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actionprep.datasets.store.zarr_store import Store
    from actionprep.training.split_choice import SplitChoice
    from actionprep.training.train_settings import TrainSettings


CHANGES = "the changes to the recipe (--set, or changes under [train])"


def recipe_of(store: Store, settings: TrainSettings, set_here: dict[str, Any]) -> tuple[Any, list[str]]:
    """The recipe that the settings ask for, or that suits the store, and sentences that say why and with what.

    It has the study's changes, as far as it has such settings, and those that are set here.
    """
    from actionprep.training.recipes import applicable_changes, choose_recipe, find_recipe

    if settings.recipe == "auto":
        choice = choose_recipe(store)
        chosen, why = choice.recipe, f"chosen because {choice.why}"
    else:
        chosen, why = find_recipe(settings.recipe), "as asked for"
    said = [f"Recipe {chosen.name}: {why}"]
    of_study, others = applicable_changes(chosen, settings.changes)
    if others:
        said.append(f"Of the study's changes these are for other recipes: {', '.join(others)}")
    return chosen.changed({"seed": settings.seed, **of_study, **set_here}, where=CHANGES), said


def recipe_of_run(run: Path, name: str | None, changes: dict[str, Any]) -> Any:
    """The recipe to hold against that of a run which goes on; "auto" where nothing was said of it."""
    from actionprep.training.recipes import find_recipe
    from actionprep.training.run import FACTS, Run

    if not (run / FACTS).exists() or (name is not None and name != Run.open(run).recipe.name):
        return "auto" if name is None else find_recipe(name).changed(changes, where=CHANGES)
    begun = Run.open(run).recipe
    # Epochs that were asked for take min_steps with them, and so they did when the run began.
    return begun.changed({"min_steps": begun.min_steps, **changes}, where=CHANGES) if changes else "auto"


_ANEW = ("by", "val", "test", "train_groups", "val_groups", "test_groups")
"""Settings that say how to split the snippets anew."""


def split_of(
    store: Store, of_study: TrainSettings, given: Mapping[str, Any], *, rebuilt_by: str | None = None
) -> tuple[Any, list[str]]:
    """The split that is asked for, and sentences that say which settings of the study it does not use.

    of_study: the settings of the study; given: those of the command line, which go before them; None: not given.
    rebuilt_by:  --folds or --splits, where each training gets a split of its own by this option.

    Raises UserError where options of the command line contradict each other, or the stored split that would be taken.
    """
    from actionprep.errors import UserError
    from actionprep.settings import COMMAND_LINE
    from actionprep.training.split_choice import SplitChoice, stored_name
    from actionprep.training.train_settings import TrainSettings

    settings = of_study.with_changes(dict(given), where=COMMAND_LINE)
    here = [name for name in _ANEW if given.get(name) is not None]
    anew = SplitChoice(
        by=settings.by,
        val_share=settings.val,
        test_share=settings.test,
        train=settings.train_groups,
        val=settings.val_groups,
        test=settings.test_groups,
        allow_single=settings.allow_single,
        seed=settings.seed,
    )

    def unused(names: Iterable[str], why: str) -> list[str]:
        fresh = TrainSettings()
        found = [name for name in names if getattr(of_study, name) != getattr(fresh, name)]
        return [f"Not used of the study's [train]: {', '.join(found)}, since {why}"] if found else []

    if rebuilt_by == "--folds":
        wrong = [name for name in ("split", *here) if given.get(name) is not None and name != "val"]
        if wrong:
            raise UserError(
                f"{_options(wrong)} and --folds were given, and --folds makes splits of its own: every subject, session or "
                f"recording is in test once. Leave out {_options(wrong)}, or leave out --folds."
            )
        return anew, unused(("split", *_ANEW[:1], *_ANEW[2:]), "--folds makes splits of its own")
    if rebuilt_by is not None:
        return anew, unused(("split", *_ANEW), f"{rebuilt_by} names the stored splits")
    asks_anew = any(name in here for name in ("train_groups", "val_groups", "test_groups")) or (
        "by" in here and settings.by != "auto"
    )
    if given.get("split") is None and asks_anew:
        return anew, unused(["split"], f"{_options(here)} split{'s' if len(here) == 1 else ''} anew")
    name = stored_name(store, replace(anew, stored=settings.split))
    if name is None:
        return anew, _stored_beside(store) if anew.is_default else []
    if here:
        options = _options(here)
        if given.get("split") is not None:
            found, do = f"--split {name} takes the stored split as it is", f"leave out {options}, or leave out --split"
        elif of_study.split is not None:
            found = f"The study takes the stored split '{name}' as it is (split under [train])"
            do = f"leave out {options}, or say by what to split with --by subject, session or recording"
        else:
            found = f"The store has split/{name}, which is taken as it is where nothing else is named"
            do = f"leave out {options}, or say by what to split with --by subject, session or recording"
        raise UserError(f"{found}, and {options} would split anew: {do}.")
    why = f"the split is the stored one, split/{name}"
    return SplitChoice(stored=settings.split, allow_single=settings.allow_single, seed=settings.seed), unused(
        _ANEW, why
    )


def _stored_beside(store: Store) -> list[str]:
    """A sentence that names the stored splits, where a training splits anew though nobody asked for that."""
    from actionprep.datasets.splits import stored_parts

    found = {key.recording: store.item("split", key.recording) for key in store.items("split")}
    found = {name: item for name, item in found.items() if len(stored_parts(item)) == 1}
    if not found:
        return []
    # By column are those that a data set comes with.
    official = all(item.attributes["by"] == "column" for item in found.values())
    several = len(found) > 1
    return [
        f"The store has {'' if several else 'the '}{'official' if official else 'stored'} split{'s' if several else ''} "
        f"{', '.join(found)}; use {'one with --split' if several else f'it with --split {next(iter(found))}'}. Without "
        "it this training uses another split."
    ]


def _options(names: Iterable[str]) -> str:
    """Settings as the options that they are, as "--by, --val and --test"."""
    *others, last = [f"--{name.replace('_', '-')}" for name in names]
    return f"{', '.join(others)} and {last}" if others else last


def labels_of(store: Store, snippets: str | None, begun: Path | None) -> tuple[str, ...]:
    """The classes of a training: those of the snippets that are asked for, else of the run that goes on."""
    from actionprep.training.datasets import read_table
    from actionprep.training.run import Run

    if snippets is None and begun is not None:
        return Run.open(begun).labels
    return read_table(store, snippets or "default").labels


def ask_how_to_split(store: Store, snippets: str, choice: SplitChoice) -> SplitChoice:
    """Ask at the terminal how to split if only some recordings have a given split.

    Args:
        store: Store with the snippets.
        snippets: Name of the table of snippets.
        choice: How to split, as far as the options tell.

    Returns:
        The choice, with the answer in `by`; unchanged if nothing is open, or if nobody can answer.
    """
    import typer

    from actionprep.cli import output
    from actionprep.training.datasets import read_table
    from actionprep.training.split_choice import PartlyGivenSplitError, given_split, stored_name

    named = choice.train or choice.val or choice.test
    if choice.by != "auto" or named or stored_name(store, choice) is not None or not output.can_ask():
        return choice
    try:
        given_split(read_table(store, snippets))
    except PartlyGivenSplitError as error:
        output.warn(str(error).splitlines()[0])
        question = "Ignore the given splits, and split by (subject, session, recording; stop ends)"
        answer = typer.prompt(question, default="stop", show_default=True).strip()
        if answer in ("subject", "session", "recording"):
            return replace(choice, by=answer)
        raise
    return choice
