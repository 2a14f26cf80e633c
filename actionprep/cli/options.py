"""Options that both programs have, and options made from settings models."""

from __future__ import annotations

import inspect
import shlex
import types
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional, Union, get_args, get_origin

import typer

if TYPE_CHECKING:
    from actionprep.settings import Settings

# What an option or an argument holds that may be left out. Typer reads this form in every version that we allow.
Text = Optional[str]  # noqa: UP045
Texts = Optional[list[str]]  # noqa: UP045
Number = Optional[int]  # noqa: UP045
Numbers = Optional[list[int]]  # noqa: UP045
Real = Optional[float]  # noqa: UP045
YesNo = Optional[bool]  # noqa: UP045
Where = Optional[Path]  # noqa: UP045

StudyOption = Annotated[
    Where,
    typer.Option(
        "--study", help="Folder of the study; otherwise the nearest actionprep.toml above the current folder."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def with_study(command: str, study: Path | None) -> str:
    """The command to try next, with --study where it was given: typed as it stands it finds the same study."""
    return command if study is None else f"{command} --study {shlex.quote(str(study))}"


def settings_parameters(model: type[Settings], *, panel: str, taken: set[str]) -> list[inspect.Parameter]:
    """One CLI option for each field of a settings model; None means "not given".

    Fields that have no natural form on a command line (tables) are left to the TOML file.
    """
    parameters = []
    for name, field in model.model_fields.items():
        kind = _option_type(field.annotation)
        if kind is None or name in taken:
            continue
        help = field.description or ""
        default = field.get_default(call_default_factory=True)
        if default is not None and default != () and not isinstance(default, bool):
            shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
            help = f"{help} (default: {shown})"
        flag = f"--{name.replace('_', '-')}"
        names = [f"{flag}/--no-{name.replace('_', '-')}"] if kind is bool else [flag]
        if isinstance(default, bool):
            help = f"{help} (default: {'yes' if default else 'no'})"
        annotation = Annotated[Optional[kind], typer.Option(*names, help=help.strip(), rich_help_panel=panel)]  # type: ignore[valid-type]  # noqa: UP045
        parameters.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation))
    return parameters


def _option_type(annotation: Any) -> Any:
    """The type that Typer is told for a field's type; None when the field is not for the command line."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _option_type(inner[0])
    if origin in (Union, types.UnionType):
        kinds = [_option_type(one) for one in inner if one is not type(None)]
        kinds = [kind for kind in kinds if kind is not None]
        if not kinds:
            return None
        # Of several forms the most general one is parsed here; the settings model validates the rest.
        return kinds[0] if len(kinds) == 1 else str
    if origin is Literal:
        return annotation if all(isinstance(one, str) for one in inner) else str
    if origin is tuple:
        # Of all its elements one type: a list, or a fixed number of values, which the settings model counts.
        element = _option_type(inner[0])
        alike = all(one in (inner[0], Ellipsis) for one in inner)
        return list[element] if element is not None and alike else None  # type: ignore[valid-type]
    if annotation is Path:
        return str
    return annotation if annotation in (int, float, str, bool) else None
