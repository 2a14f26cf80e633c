"""Settings become options."""

from __future__ import annotations

from typing import Literal

from actionprep.cli.options import settings_parameters
from actionprep.settings import Settings, option


class Example(Settings):
    """An example."""

    sizes: tuple[int, ...] = option((112, 56), "Short sides.")
    grid: tuple[int, int] = option((56, 48), "Height and width.")
    mixed: tuple[int, str] = option((1, "a"), "Only in the file.")
    filter: Literal["area", "bilinear"] = option("area", "How to shrink.")
    length: float | None = option(None, "Length in ms.", gt=0)
    masked: bool = option(True, "Keep to the foreground.")
    table: dict[str, str] = option({}, "Only in the file.")


def test_settings_become_options_with_defaults_in_the_help() -> None:
    parameters = {entry.name: entry for entry in settings_parameters(Example, panel="Settings", taken=set())}
    assert list(parameters) == ["sizes", "grid", "filter", "length", "masked"]
    assert all(entry.default is None for entry in parameters.values())
    helps = {name: entry.annotation.__metadata__[0].help for name, entry in parameters.items()}
    assert helps["sizes"] == "Short sides. (default: 112 56)"
    assert helps["grid"] == "Height and width. (default: 56 48)"
    assert helps["masked"] == "Keep to the foreground. (default: yes)"
