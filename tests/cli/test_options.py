"""List options take any number of values, and settings become options."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, Optional

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from actionprep.cli.options import ManyValuesCommand, guarded, repeat_flags, settings_parameters
from actionprep.errors import UserError
from actionprep.settings import Settings, option


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--views", "0", "1", "3"], ["--views", "0", "--views", "1", "--views", "3"]),
        (["--views", "0", "--grid", "20"], ["--views", "0", "--grid", "20"]),
        (["a", "--views", "0", "1", "--json"], ["a", "--views", "0", "--views", "1", "--json"]),
        (["--views", "-1", "2"], ["--views", "-1", "--views", "2"]),
        (["--views", "0", "--", "a", "--views"], ["--views", "0", "--", "a", "--views"]),
        (["--views", "0", "--views", "1"], ["--views", "0", "--views", "1"]),
        (["--views"], ["--views"]),
        (["--views", "--grid", "20"], ["--views", "--grid", "20"]),
        (["--views=0", "1"], ["--views=0", "1"]),
    ],
)
def test_flags_are_repeated_before_each_value(args: list[str], expected: list[str]) -> None:
    assert repeat_flags(args, {"--views"}) == expected


@given(st.lists(st.text("abc01", min_size=1), max_size=6), st.lists(st.text("xyz", min_size=1), max_size=4))
def test_nothing_is_lost_and_order_is_kept(values: list[str], after: list[str]) -> None:
    spread = repeat_flags(["--views", *values, "--end", *after], {"--views"})
    assert [word for word in spread if word != "--views"] == [*values, "--end", *after]
    assert spread.count("--views") == max(1, len(values))


def test_a_typer_command_takes_the_values_until_the_next_option() -> None:
    app = typer.Typer()
    seen: dict[str, object] = {}

    @app.command(cls=ManyValuesCommand)
    def run(
        name: str,
        views: Annotated[Optional[list[str]], typer.Option()] = None,  # noqa: UP045
        grid: int = 3,
    ) -> None:
        seen.update(name=name, views=views, grid=grid)

    result = CliRunner().invoke(app, ["here", "--views", "0", "1", "3", "6", "--grid", "20"])
    assert result.exit_code == 0, result.output
    assert seen == {"name": "here", "views": ["0", "1", "3", "6"], "grid": 20}


class Example(Settings):
    """An example."""

    sizes: tuple[int, ...] = option((112, 56), "Short sides.")
    filter: Literal["area", "bilinear"] = option("area", "How to shrink.")
    length: float | None = option(None, "Length in ms.", gt=0)
    masked: bool = option(True, "Keep to the foreground.")
    table: dict[str, str] = option({}, "Only in the file.")


def test_settings_become_options_with_defaults_in_the_help() -> None:
    parameters = {one.name: one for one in settings_parameters(Example, panel="Settings", taken=set())}
    assert list(parameters) == ["sizes", "filter", "length", "masked"]
    assert all(one.default is None for one in parameters.values())
    helps = {name: one.annotation.__metadata__[0].help for name, one in parameters.items()}
    assert helps["sizes"] == "Short sides. (default: 112 56)"
    assert helps["masked"] == "Keep to the foreground. (default: yes)"


def test_errors_for_people_are_one_paragraph_and_keep_their_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    @guarded
    def fails(debug: bool = False) -> None:
        raise UserError("No view '9'. It has views 0, 1.")

    with pytest.raises(typer.Exit) as stopped:
        fails()
    assert stopped.value.exit_code == 2
    assert capsys.readouterr().err.strip() == "No view '9'. It has views 0, 1."
    with pytest.raises(UserError):
        fails(debug=True)


def test_a_fault_of_the_program_is_a_paragraph_that_names_the_file_with_the_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    @guarded
    def broken(debug: bool = False) -> None:
        raise ZeroDivisionError("by zero")

    with pytest.raises(typer.Exit) as stopped:
        broken()
    assert stopped.value.exit_code == 1
    printed = capsys.readouterr().err
    found = re.fullmatch(
        r"A fault in the program: ZeroDivisionError: by zero\nThe traceback is in (\S+); please report this with that "
        r"file\.",
        printed.strip(),
    )
    assert found is not None
    assert "in broken" in Path(found[1]).read_text()
    Path(found[1]).unlink()
    with pytest.raises(ZeroDivisionError):
        broken(debug=True)


def test_ctrl_c_ends_with_130(capsys: pytest.CaptureFixture[str]) -> None:
    @guarded
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(typer.Exit) as stopped:
        interrupted()
    assert stopped.value.exit_code == 130
    assert "run the same command to go on" in capsys.readouterr().err


def test_the_help_of_a_stage_shows_defaults_and_no_list_of_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    from actionprep.cli.prep import app as prep

    monkeypatch.setenv("COLUMNS", "200")
    shown = CliRunner().invoke(prep, ["track", "--help"]).output
    assert "(default: 20)" in shown
    assert "W windows of T frames with N slots for points." in shown
    assert "float32" not in shown
