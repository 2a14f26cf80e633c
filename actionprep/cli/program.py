"""A program of sub-commands: how it is made, and how a command becomes one of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer

from actionprep.cli.options import ManyValuesCommand, PlainGroup, guarded


def program(group: type[PlainGroup] = PlainGroup, *, help: str, epilog: str) -> typer.Typer:
    """A program without sub-commands yet; shown alone, it prints its help."""
    return typer.Typer(
        cls=group,
        help=help,
        epilog=epilog,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
    )


def add_command(
    app: typer.Typer,
    command: Callable[..., Any],
    panel: str,
    *,
    name: str | None = None,
    kind: type[ManyValuesCommand] = ManyValuesCommand,
) -> None:
    """Make a function the next sub-command, of its own name unless said otherwise; its docstring is the help."""
    app.command(name, rich_help_panel=panel, cls=kind)(guarded(command))
