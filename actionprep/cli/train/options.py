"""Options that several commands of `actiontrain` share."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from actionprep.cli.options import Number, Text, Texts, Where, YesNo

StoreArgument = Annotated[Where, typer.Argument(help="A store. (default: that of the study)")]
RunArgument = Annotated[Text, typer.Argument(help="Run, by name or folder. (default: the last run)")]
RunOption = Annotated[Text, typer.Option("--run", help="The same as RUN.")]
SetOption = Annotated[
    Texts, typer.Option("--set", help="Settings of the recipe as name=value: --set epochs=30 input.rotation=0.3.")
]
OwnSettingsOption = Annotated[
    Texts,
    typer.Option(
        "--set",
        help="Settings that name code or files, as name=value: --set tracks.repo=co-tracker. Checkpoints cannot set them.",
    ),
]
DeviceOption = Annotated[Text, typer.Option("--device", help="Device: auto, cpu, cuda or cuda:N.")]
CarryOption = Annotated[
    YesNo,
    typer.Option("--carry/--no-carry", help="Carry the model state from window to window. (default: as in the recipe)"),
]
ThreadsOption = Annotated[Number, typer.Option("--threads", help="Number of CPU threads.", min=1)]
FoldsOption = Annotated[
    Text, typer.Option(help="Cross-validate, leaving out one subject, session or recording at a time.")
]
NumFoldsOption = Annotated[Number, typer.Option(help="With --folds: number of folds. (default: one per group)", min=2)]
MeasureOption = Annotated[
    bool,
    typer.Option("--measure/--no-measure", help="Measure the speed of the models on this machine."),
]


def changes_of(given: list[str] | None) -> dict[str, Any]:
    """Parse `["epochs=30", "input.rotation=0.3"]` into values. Words that are not TOML values are text."""
    import tomllib

    from actionprep.errors import UserError

    changes: dict[str, Any] = {}
    for word in given or []:
        name, equals, value = word.partition("=")
        if not equals:
            raise UserError(f"--set expects name=value, such as epochs=30; got {word!r}.")
        try:
            changes[name] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            changes[name] = value
    return changes


def stage_changes_of(given: list[str] | None) -> dict[str, dict[str, Any]]:
    """Parse `["tracks.repo=co-tracker"]` into {"tracks": {"repo": "co-tracker"}}."""
    from actionprep.errors import UserError

    changes: dict[str, dict[str, Any]] = {}
    for name, value in changes_of(given).items():
        table, dot, key = name.partition(".")
        if not dot:
            raise UserError(f"--set expects table.name=value, such as tracks.repo=co-tracker; got '{name}'.")
        changes.setdefault(table, {})[key] = value
    return changes


def chosen_run(argument: str | None, option: str | None) -> str | None:
    """The run that was named as argument or with --run.

    Raises:
        UserError: If both name different runs.
    """
    from actionprep.errors import UserError

    if argument is not None and option is not None and argument != option:
        raise UserError(f"Two runs were given: {argument} and --run {option}. Give one of them.")
    return option if argument is None else argument


def given_of(**values: Any) -> dict[str, Any]:
    """Drop values that are None."""
    return {name: value for name, value in values.items() if value is not None}


def group_of(name: str) -> Any:
    """Check the value of --folds."""
    from actionprep.errors import UserError, nearest

    known = ("subject", "session", "recording")
    if name not in known:
        raise UserError(f"--folds must be one of {', '.join(known)}; got {name!r}.{nearest(name, known)}")
    return name


def part_of(name: str) -> Any:
    """Check the value of --part."""
    from actionprep.errors import UserError, nearest

    known = ("test", "val", "train")
    if name not in known:
        raise UserError(f"--part must be one of {', '.join(known)}; got {name!r}.{nearest(name, known)}")
    return name


def use_threads(threads: int | None) -> None:
    """Set the number of CPU threads, if given."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
