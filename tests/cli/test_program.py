"""A program parses command lines, lists its commands and reports errors in plain words."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from actionprep.cli.program import ManyValuesCommand, PlainGroup, guarded, repeat_flags
from actionprep.errors import UserError
from actionprep.json_values import counted

COMMANDS = {
    "prep": "demo init scan import sync pose3d config decode keyframes masks track pose heatmaps lowres snippets split plan build "
    "verify digest gc status show bouts agreement skeletons formats doctor export evaluate",
    "train": "fit test fuse predict bouts compare sweep export slurm resized models recipes",
}
HEAVY = {"torch", "lightning", "zarr", "dask", "numpy", "pandas", "av", "cv2", "matplotlib", "pydantic"}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_imports_nothing_heavy(name: str) -> None:
    code = (
        f"import sys\nfrom actionprep.cli import {name}\nsys.argv = ['program', '--help']\n"
        f"try:\n    {name}()\nexcept SystemExit:\n    print(*sorted({HEAVY} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage" in done.stdout
    assert done.stderr.split() == []


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_are_listed_in_the_order_of_the_work(name: str) -> None:
    if name == "prep":
        from actionprep.cli.prep import app
    else:
        from actionprep.cli.train import app
    group = typer.main.get_command(app)
    assert group.list_commands(typer.Context(group)) == COMMANDS[name].split()


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


@pytest.fixture
def program() -> typer.Typer:
    """Two commands with options of several kinds."""
    app = typer.Typer(cls=PlainGroup)

    @app.command(cls=ManyValuesCommand)
    def fit(
        store: Annotated[str, typer.Argument(help="A store.")],
        epochs: Annotated[Optional[int], typer.Option(help="Passes.", min=1)] = None,  # noqa: UP045
        share: Annotated[float, typer.Option("--share", "-s", help="Share for val.", max=0.9)] = 0.1,
        views: Annotated[Optional[list[int]], typer.Option(help="Views.")] = None,  # noqa: UP045
        kind: Annotated[Literal["one", "two"], typer.Option(help="Which kind.")] = "one",
        json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    ) -> None:
        """Train."""

    @app.command(cls=ManyValuesCommand)
    def status() -> None:
        """Show."""

    return app


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("fit x --epochs many", "Wrong value for --epochs: got 'many'. Give a whole number. (Passes.)"),
        ("fit x --epochs 0", "Wrong value for --epochs: got 0. Give 1 or more. (Passes.)"),
        ("fit x --epochs 1.5", "Wrong value for --epochs: got 1.5. Give a whole number. (Passes.)"),
        ("fit x -s 2", "Wrong value for --share: got 2. Give 0.9 or less. (Share for val.)"),
        ("fit x --share some", "Wrong value for --share: got 'some'. Give a number. (Share for val.)"),
        ("fit x --views 0 a", "Wrong value for --views: got 'a'. Give a whole number. (Views.)"),
        ("fit x --kind twoo", "Wrong value for --kind: got 'twoo'. Give one of 'one', 'two'. Did you mean 'two'? (Which kind.)"),
        ("fit x --epochs", "--epochs needs a value. (Passes.)"),
        ("fit x --json=1", "--json takes no value."),
        ("fit x --epoch 3", "run fit has no option --epoch. Did you mean '--epochs'? Run 'run fit --help' to list all options."),
        ("fit", "run fit needs STORE. (A store.)"),
        ("fit x y z", "run fit takes STORE; got also: y z. Run 'run fit --help' to list all options."),
        ("status x", "run status takes only options; got also: x. Run 'run status --help' to list all options."),
        ("statu", "run has no command 'statu'. Did you mean 'status'? Run 'run --help' to list all commands."),
        ("--quiet", "run has no option --quiet. Run 'run --help' to list all options."),
    ],
)  # fmt: skip
def test_a_wrong_command_line_is_one_paragraph_in_plain_words(program: typer.Typer, words: str, message: str) -> None:
    result = CliRunner().invoke(program, words.split(), prog_name="run")
    assert result.exit_code == 2
    assert result.stderr == f"{message}\n"
    assert result.stdout == ""


def test_help_without_words_and_good_command_lines_are_as_ever(program: typer.Typer) -> None:
    assert CliRunner().invoke(program, ["fit", "x", "--epochs", "3", "--views", "0", "1"]).exit_code == 0
    assert "--epochs" in CliRunner().invoke(program, ["fit", "--help"]).stdout


@pytest.mark.parametrize("words", ["fit x --epochs many --json", "fit x --epoch 3 --json"])
def test_json_reports_parse_errors_on_stdout(program: typer.Typer, words: str) -> None:
    result = CliRunner().invoke(program, words.split(), prog_name="run")
    assert result.exit_code == 2
    assert json.loads(result.stdout) == {"error": result.stderr.removesuffix("\n")}


def test_json_reports_errors_of_a_command_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    @guarded
    def fails(json: bool = False) -> None:
        raise UserError("No view '9'.")

    for as_json in (True, False):
        with pytest.raises(typer.Exit):
            fails(json=as_json)
        printed = capsys.readouterr()
        assert printed.err == "No view '9'.\n"
        assert (json.loads(printed.out) if as_json else printed.out) == ({"error": "No view '9'."} if as_json else "")


def test_option_that_is_not_near_gets_no_suggestion(program: typer.Typer) -> None:
    result = CliRunner().invoke(program, ["fit", "x", "--store", "y"], prog_name="run")
    assert result.stderr == "run fit has no option --store. Run 'run fit --help' to list all options.\n"


def commands_of(name: str) -> dict[str, Any]:
    if name == "prep":
        from actionprep.cli.prep import app
    else:
        from actionprep.cli.train import app
    group = typer.main.get_command(app)
    context = group.make_context(name, ["status" if name == "prep" else "models"])
    return {word: group.resolve_command(context, [word])[1] for word in group.list_commands(context)}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_leaves_room_for_texts_at_80_columns(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 80)
    app = importlib.import_module(f"actionprep.cli.{name}").app
    for word, command in commands_of(name).items():
        if (name, word) in (("prep", "export"), ("prep", "evaluate")):  # groups of commands
            continue
        printed = CliRunner().invoke(app, [word, "-h"]).stdout
        text = " ".join(re.sub(r"[│╭╮╰╯─]", " ", printed).split())
        for param in command.params:
            flag = max(param.opts, key=len)
            if param.param_type_name != "option" or param.hidden:
                continue
            shown = flag.replace("--", "--[no-]", 1) if param.secondary_opts else flag
            assert f" {shown} " in f" {text} ", (word, flag)  # not cut
        for line in printed.splitlines():
            before = re.match(r"│ (?:\* +|   )?--\S+ +(-\w +)?(<\S+ +)?(\[\S+\] +)?", line)
            assert before is None or 80 - before.end() > 25, (word, line)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_prints_every_word_of_every_option(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 400)
    app = importlib.import_module(f"actionprep.cli.{name}").app
    for word, command in commands_of(name).items():
        if word in ("export", "evaluate") and name == "prep":  # its commands have their own help
            continue
        printed = " ".join(re.sub(r"[│╭╮╰╯─]", " ", CliRunner().invoke(app, [word, "-h"]).stdout).split())
        assert "(default: )" not in printed
        for param in command.params:
            if param.param_type_name == "option" and param.help and not param.hidden:
                assert " ".join(param.help.split()) in printed, (word, param.name)
        own, _, common = printed.partition("Common options")
        assert "--help" in common, word
        assert "--debug" not in own, word


@pytest.mark.parametrize("name", COMMANDS)
def test_version_is_printed_alone(name: str) -> None:
    result = CliRunner().invoke(importlib.import_module(f"actionprep.cli.{name}").app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"actionprep {version('actionprep')}\n")


@pytest.mark.parametrize(
    ("count", "noun", "text"),
    [(1, "recording", "1 recording"), (0, "recording", "0 recordings"), (2, "class", "2 classes"), (1, "class", "1 class"),
     (3, "entry", "3 entries"), (2, "day", "2 days"), (12345, "frame", "12,345 frames"), (2, "search", "2 searches")],
)  # fmt: skip
def test_counted_uses_singular_and_plural(count: int, noun: str, text: str) -> None:
    assert counted(count, noun) == text
    assert counted(2, "datum", "data") == "2 data"


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


def test_program_fault_is_a_paragraph_with_the_traceback_file(
    capsys: pytest.CaptureFixture[str],
) -> None:
    @guarded
    def broken(debug: bool = False) -> None:
        raise ZeroDivisionError("by zero")

    with pytest.raises(typer.Exit) as stopped:
        broken()
    assert stopped.value.exit_code == 1
    printed = capsys.readouterr().err
    actual = re.fullmatch(
        r"Internal error: ZeroDivisionError: by zero\nThe traceback is in (\S+)\. Please report this error with that file\.",
        printed.strip(),
    )
    assert actual is not None
    assert "in broken" in Path(actual[1]).read_text()
    Path(actual[1]).unlink()
    with pytest.raises(ZeroDivisionError):
        broken(debug=True)


def test_ctrl_c_ends_with_130(capsys: pytest.CaptureFixture[str]) -> None:
    @guarded
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(typer.Exit) as stopped:
        interrupted()
    assert stopped.value.exit_code == 130
    assert "Run the same command again to resume" in capsys.readouterr().err
