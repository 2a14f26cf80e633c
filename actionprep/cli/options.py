"""Options of both programs, and options generated from settings models."""

from __future__ import annotations

import inspect
import shlex
import types
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional, Union, get_args, get_origin

import typer

if TYPE_CHECKING:
    from actionprep.settings import Settings

# Types of optional options and arguments, in a form that all supported versions of Typer read.
Text = Optional[str]  # noqa: UP045
Texts = Optional[list[str]]  # noqa: UP045
Number = Optional[int]  # noqa: UP045
Numbers = Optional[list[int]]  # noqa: UP045
Real = Optional[float]  # noqa: UP045
YesNo = Optional[bool]  # noqa: UP045
Where = Optional[Path]  # noqa: UP045

StudyOption = Annotated[
    Where,
    typer.Option("--study", help="Folder of the study. (default: the nearest parent folder with an actionprep.toml)"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print only one JSON document on stdout.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")]


def with_study(command: str, study: Path | None) -> str:
    """Append --study to a command if it was given, so that the command finds the same study."""
    return command if study is None else f"{command} --study {shlex.quote(str(study))}"


def settings_parameters(model: type[Settings], *, panel: str, taken: set[str]) -> list[inspect.Parameter]:
    """Generate one CLI option per field of a settings model. None means "not given".

    Fields without a natural form on a command line (tables) can only be set in the TOML file.

    Args:
        model: The settings model.
        panel: Help panel of the options.
        taken: Names of fields to skip, because the command has an option of that name.
    """
    parameters = []
    for name, field in model.model_fields.items():
        kind = _option_type(field.annotation)
        if kind is None or name in taken:
            continue
        help = field.description or ""
        default = field.get_default(call_default_factory=True)
        if default is not None and default not in ((), "") and not isinstance(default, bool):
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
    """Type of the option of a field; None if the field has no option."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _option_type(inner[0])
    if origin in (Union, types.UnionType):
        kinds = [_option_type(member) for member in inner if member is not type(None)]
        kinds = [kind for kind in kinds if kind is not None]
        if not kinds:
            return None
        # Several types are parsed as text here and validated by the settings model.
        return kinds[0] if len(kinds) == 1 else str
    if origin is Literal:
        return annotation if all(isinstance(value, str) for value in inner) else str
    if origin is tuple:
        # Elements of one type: a list, or a fixed number of values, which the settings model checks.
        element = _option_type(inner[0])
        alike = all(member in (inner[0], Ellipsis) for member in inner)
        return list[element] if element is not None and alike else None  # type: ignore[valid-type]
    if annotation is Path:
        return str
    return annotation if annotation in (int, float, str, bool) else None
