"""Options that several commands of `actiontrain` have, and what they stand for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from actionprep.cli.options import Number, Text, Texts, Where, YesNo

if TYPE_CHECKING:
    from actionprep.cli.train.folders import Place
    from actionprep.training.checkpoints import Checkpoint

StoreArgument = Annotated[Text, typer.Argument(help="Store: a folder or a URL. (default: that of the study)")]
RunArgument = Annotated[Text, typer.Argument(help="Run, by name or folder; the last one when left out.")]
SetOption = Annotated[
    Texts, typer.Option("--set", help="Settings of the recipe as name=value: --set epochs=30 input.rotation=0.3.")
]
OwnSettingsOption = Annotated[
    Texts,
    typer.Option(
        "--set",
        help="Settings that name code or files, which no checkpoint may set, as name=value: --set tracks.repo=co-tracker.",
    ),
]
DeviceOption = Annotated[Text, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
CarryOption = Annotated[
    YesNo,
    typer.Option("--carry/--no-carry", help="Carry the model's state from window to window. (default: as the recipe)"),
]
ThreadsOption = Annotated[Number, typer.Option("--threads", help="CPU threads of the computation.", min=1)]
FoldsOption = Annotated[
    Text, typer.Option(help="Cross-validate, leaving out one subject, session or recording at a time.")
]
NumFoldsOption = Annotated[Number, typer.Option(help="With --folds: so many folds instead of one a group.", min=2)]
WeightsOption = Annotated[Where, typer.Option("--weights", help="Instead of a run: published weights, with --recipe.")]
WeightsRecipeOption = Annotated[Text, typer.Option("--recipe", help="With --weights: recipe with their model.")]
MeasureOption = Annotated[
    bool,
    typer.Option(
        "--measure/--no-measure", help="Time one model of each row on this machine; it is counted in any case."
    ),
]


def changes_of(given: list[str] | None) -> dict[str, Any]:
    """`["epochs=30", "input.rotation=0.3"]` → plain values; what is no TOML value is taken as text."""
    import tomllib

    from actionprep.errors import UserError

    found: dict[str, Any] = {}
    for one in given or []:
        name, equals, value = one.partition("=")
        if not equals:
            raise UserError(f"--set takes name=value, such as epochs=30; got {one!r}.")
        try:
            found[name] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            found[name] = value
    return found


def stage_changes_of(given: list[str] | None) -> dict[str, dict[str, Any]]:
    """`["tracks.repo=co-tracker"]` → {"tracks": {"repo": "co-tracker"}}."""
    from actionprep.errors import UserError

    found: dict[str, dict[str, Any]] = {}
    for name, value in changes_of(given).items():
        table, dot, key = name.partition(".")
        if not dot:
            raise UserError(f"--set takes table.name=value here, such as tracks.repo=co-tracker; got '{name}'.")
        found.setdefault(table, {})[key] = value
    return found


def given_of(**values: Any) -> dict[str, Any]:
    """Those that were given."""
    return {name: value for name, value in values.items() if value is not None}


def group_of(name: str) -> Any:
    """What --folds names, checked."""
    from actionprep.errors import UserError, nearest

    known = ("subject", "session", "recording")
    if name not in known:
        raise UserError(f"--folds takes {', '.join(known)}; got {name!r}.{nearest(name, known)}")
    return name


def part_of(name: str) -> Any:
    """What --part names, checked."""
    from actionprep.errors import UserError, nearest

    known = ("test", "val", "train")
    if name not in known:
        raise UserError(f"--part takes {', '.join(known)}; got {name!r}.{nearest(name, known)}")
    return name


def use_threads(threads: int | None) -> None:
    """Compute on so many threads, when it is said."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def published_of(place: Place, weights: Path, recipe: str | None, *, device: str, quiet: bool) -> Checkpoint:
    """Open the published weights that --weights and --recipe name, for the snippets of a study or store."""
    from actionprep.cli import output
    from actionprep.errors import UserError
    from actionprep.training.recipes import find_recipe
    from actionprep.training.weights import published_checkpoint

    if recipe is None:
        raise UserError(
            "--weights needs --recipe, which names the model that the weights are for. 'actiontrain recipes' lists them."
        )
    return published_checkpoint(
        weights,
        place.store,
        find_recipe(recipe),
        snippets=place.settings.snippets,
        device=device,
        log=(lambda sentence: None) if quiet else output.note,
    )
