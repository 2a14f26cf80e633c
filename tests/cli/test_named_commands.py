"""Commands and options that messages and pages mention exist."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "actionprep").rglob("*.py"))
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
SLOT = "\x00"
"""Placeholder for a value in an f-string."""

_QUOTED = re.compile(r"['`‘](?P<command>(?:actionprep|actiontrain) [^'`’]+)['`’]")
_PROSE = re.compile(
    r"(?:[:(] ?|\b[Rr]un )(?P<command>(?:actionprep|actiontrain)(?: (?:--)?[\w…"
    + SLOT
    + r"-][\w=./…"
    + SLOT
    + r"-]*)+)"
)
_INLINE = re.compile(r"(?<!`)`(?P<command>(?:actionprep|actiontrain) [^`]+)`")
_OPTION = re.compile(r"(?<![\w(-])--[a-z][a-z-]+[a-z](?![\w-]|: #|:\S)")  # not the variables of a style sheet
OF_OTHER_PROGRAMS = {
    "--upgrade", "--user", "--no-deps", "--target", "--index-url", "--extra-index-url", "--no-build-isolation",
    "--no-binary", "--only-binary", "--resources", "--clear", "--disable-pip-version-check",
    # torchrun's, srun's and sbatch's, in job scripts
    "--constraint", "--nnodes", "--nproc-per-node", "--rdzv-backend", "--rdzv-endpoint", "--rdzv-id", "--no-python",
    "--nodes", "--ntasks-per-node", "--cpus-per-task", "--gpus-per-node", "--mem", "--job-name", "--output", "--error",
    "--train-subjects", "--val-subjects", "--test-subjects",  # other names of groups, which 'fit' rewrites
    "--requeue", "--open-mode", "--signal", "--partition", "--account", "--time", "--kill-on-bad-exit", "--max-restarts",
}  # fmt: skip


@cache
def program(name: str) -> Any:
    if name == "actionprep":
        from actionprep.cli.prep import app
    else:
        from actionprep.cli.train import app
    return typer.main.get_command(app)


def options_of(command: Any) -> set[str]:
    return {"--help", *(entry for option in command.params for entry in (*option.opts, *option.secondary_opts))}


@cache
def every_option() -> set[str]:
    result: set[str] = set(OF_OTHER_PROGRAMS)
    for name in ("actionprep", "actiontrain"):
        group = program(name)
        context = group.context_class(group, info_name=name)
        for word in group.list_commands(context):
            command = command_of(name, word)
            result |= options_of(command)
            for inner in getattr(command, "commands", {}).values():
                result |= options_of(inner)
    return result


@cache
def command_of(name: str, word: str) -> Any:
    """Return the command with all its options, or None if it does not exist."""
    group = program(name)
    context = group.context_class(group, info_name=name)
    return group.resolve_command(context, [word])[1] if word in group.list_commands(context) else None


def wrong_in(text: str) -> str | None:
    """Return the problem of a command, or None."""
    name, *words = text.replace("…", " ").split()
    if not words or words[0].startswith(SLOT) or words[0] == "--help":
        return None
    command = command_of(name, words[0].rstrip(".,;").partition(SLOT)[0])
    if command is None:
        return f"{name} has no command '{words[0]}'"
    inner = getattr(command, "commands", {})
    if inner and len(words) > 1 and words[1] in inner:
        command = inner[words[1]]
    known = options_of(command)
    given = [word.rstrip(".,;:)").partition("=")[0] for word in words[1:] if word.startswith("--") and word != "--"]
    wrong = [entry for entry in given if SLOT not in entry and entry not in known]
    return f"{name} {words[0]} has no {', '.join(wrong)}" if wrong else None


def strings(path: Path) -> Iterator[tuple[int, str]]:
    """Return the strings of a file. Values of f-strings are replaced with the placeholder."""
    inside: set[int] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            inside |= {id(part) for part in node.values}
            yield (
                node.lineno,
                "".join(str(part.value) if isinstance(part, ast.Constant) else SLOT for part in node.values),
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield node.lineno, node.value


def commands_in(text: str) -> list[str]:
    flat = " ".join(text.split())
    return [result["command"] for pattern in (_QUOTED, _PROSE) for result in pattern.finditer(flat)]


def test_commands_named_in_messages_exist() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {problem} (in {command.replace(SLOT, '{}')!r})"
        for path in SOURCES
        for line, text in strings(path)
        for command in commands_in(text)
        if (problem := wrong_in(command)) is not None
    ]
    assert wrong == []


OPTIONS_OF_OTHERS = {"--local-dir"}
"""Options of other programs that messages name: hf download."""


def test_options_named_in_messages_exist() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {option}"
        for path in SOURCES
        for line, text in strings(path)
        for option in _OPTION.findall(text)
        if option not in every_option() | OPTIONS_OF_OTHERS
    ]
    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_named_in_the_text_of_a_page_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    wrong = [problem for result in _INLINE.finditer(text) if (problem := wrong_in(result["command"])) is not None]
    assert wrong == []


def test_a_command_or_an_option_that_is_not_there_is_found() -> None:
    assert commands_in("Make them with 'actionprep sync', or: actiontrain fit --set a=1.") == [
        "actionprep sync",
        "actiontrain fit --set a=1.",
    ]
    assert wrong_in("actionprep snyc") == "actionprep has no command 'snyc'"
    assert wrong_in("actiontrain fit --set a=1 --nothing.") == "actiontrain fit has no --nothing"
    assert wrong_in("actionprep track --grid 20 --views 0 1") is None
