"""Choose the recipe, split and classes of a training run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actionprep.datasets.split_choice import SplitChoice
    from actionprep.datasets.store.zarr_store import Store
    from actionprep.training.train_settings import TrainSettings


CHANGES = "the changes to the recipe (--set, or changes under [train])"


def recipe_of(store: Store, settings: TrainSettings, set_here: dict[str, Any]) -> tuple[Any, list[str]]:
    """Choose the recipe: the one in the settings, or the best match for the store.

    Applies the changes of the study, as far as the recipe has these settings, and those of the command line.

    Returns:
        The recipe, and messages that explain the choice.
    """
    from actionprep.training.recipes import applicable_changes, choose_recipe, find_recipe

    if settings.recipe == "auto":
        choice = choose_recipe(store)
        chosen, why = choice.recipe, f"chosen because {choice.why}"
    else:
        chosen, why = find_recipe(settings.recipe), "as requested"
    messages = [f"Recipe {chosen.name}: {why}"]
    of_study, others = applicable_changes(chosen, settings.changes)
    if others:
        messages.append(f"Changes of the study that this recipe does not have: {', '.join(others)}")
    return chosen.changed({"seed": settings.seed, **of_study, **set_here}, where=CHANGES), messages


def recipe_of_run(run: Path, name: str | None, changes: dict[str, Any]) -> Any:
    """The recipe to compare with that of a resumed run; "auto" if none was given."""
    from actionprep.training.recipes import find_recipe
    from actionprep.training.run import FACTS, Run

    if not (run / FACTS).exists() or (name is not None and name != Run.open(run).recipe.name):
        return "auto" if name is None else find_recipe(name).changed(changes, where=CHANGES)
    begun = Run.open(run).recipe
    # A given number of epochs overrides min_steps, as it did when the run was started.
    return begun.changed({"min_steps": begun.min_steps, **changes}, where=CHANGES) if changes else "auto"


_SPLITTING = ("by", "val", "test", "train_groups", "val_groups", "test_groups")
"""Settings of a new split."""


def split_of(
    store: Store, of_study: TrainSettings, given: Mapping[str, Any], *, rebuilt_by: str | None = None
) -> tuple[Any, list[str]]:
    """Choose the split.

    Args:
        store: The store.
        of_study: Settings of the study.
        given: Settings of the command line, which override those of the study. None means not given.
        rebuilt_by: "--folds" or "--splits", if each run of the command gets its own split by this option.

    Returns:
        The split, and messages about settings of the study that it does not use.

    Raises:
        UserError: If options of the command line contradict each other or the stored split.
    """
    from actionprep.datasets.split_choice import SplitChoice, stored_name
    from actionprep.errors import UserError
    from actionprep.settings import COMMAND_LINE
    from actionprep.training.train_settings import TrainSettings

    settings = of_study.with_changes(dict(given), where=COMMAND_LINE)
    here = [name for name in _SPLITTING if given.get(name) is not None]
    new_split = SplitChoice(
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
        defaults = TrainSettings()
        changed = [name for name in names if getattr(of_study, name) != getattr(defaults, name)]
        return [f"Ignored settings of [train]: {', '.join(changed)}, because {why}"] if changed else []

    if rebuilt_by == "--folds":
        wrong = [name for name in ("split", *here) if given.get(name) is not None and name != "val"]
        if wrong:
            raise UserError(
                f"{_options(wrong)} cannot be combined with --folds, which makes its own splits: each subject, session or "
                f"recording is tested once. Remove {_options(wrong)} or --folds."
            )
        return new_split, unused(("split", *_SPLITTING[:1], *_SPLITTING[2:]), "--folds makes its own splits")
    if rebuilt_by is not None:
        return new_split, unused(("split", *_SPLITTING), f"{rebuilt_by} selects stored splits")
    wants_new_split = any(name in here for name in ("train_groups", "val_groups", "test_groups")) or (
        "by" in here and settings.by != "auto"
    )
    if given.get("split") is None and wants_new_split:
        return new_split, unused(["split"], f"{_options(here)} {'makes' if len(here) == 1 else 'make'} a new split")
    name = stored_name(store, replace(new_split, stored=settings.split))
    if name is None:
        return new_split, _unused_splits(store) if new_split.is_default else []
    if here:
        options = _options(here)
        if given.get("split") is not None:
            use, fix = f"--split {name} uses a stored split", f"Remove {options} or --split"
        elif of_study.split is not None:
            use = f"The settings use the stored split '{name}' (split under [train])"
            fix = f"Remove {options}, or choose the split unit with --by subject, session or recording"
        else:
            use = f"The store has split/{name}, which is used by default"
            fix = f"Remove {options}, or choose the split unit with --by subject, session or recording"
        raise UserError(f"{use}, but {options} would make a new split. {fix}.")
    why = f"the stored split '{name}' is used"
    return SplitChoice(stored=settings.split, allow_single=settings.allow_single, seed=settings.seed), unused(
        _SPLITTING, why
    )


def _unused_splits(store: Store) -> list[str]:
    """Message that names the stored splits, if a new split is made by default."""
    from actionprep.datasets.products.split import stored_parts

    splits = {key.recording: store.item("split", key.recording) for key in store.items("split")}
    splits = {name: item for name, item in splits.items() if len(stored_parts(item)) == 1}
    if not splits:
        return []
    # Splits by column come with the data set.
    kind = "official" if all(item.attributes["by"] == "column" for item in splits.values()) else "stored"
    if len(splits) == 1:
        [name] = splits
        return [f"This run uses another split. To use the {kind} split of the store, add --split {name}."]
    return [
        f"This run uses another split. To use one of the {kind} splits of the store, add --split: {', '.join(splits)}."
    ]


def _options(names: Iterable[str]) -> str:
    """Join settings as options, such as "--by, --val and --test"."""
    *others, last = [f"--{name.replace('_', '-')}" for name in names]
    return f"{', '.join(others)} and {last}" if others else last


def labels_of(store: Store, snippets: str | None, begun: Path | None) -> tuple[str, ...]:
    """Classes of a run: those of the given snippets, or those of the resumed run."""
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
        choice: How to split, according to the options.

    Returns:
        The choice, with the answer in `by`; unchanged if nothing is open, or if nobody can answer.
    """
    import typer

    from actionprep.cli import output
    from actionprep.datasets.split_choice import PartlyGivenSplitError, given_split, stored_name
    from actionprep.training.datasets import read_table

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
