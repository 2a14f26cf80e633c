"""A program of sub-commands: how it is made, how it reads a command line, and what it says when something is wrong."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

WORDS = "actionprep.words"
"""Where a command's context keeps the words that it was given, as they stood on the command line."""


class _PlainErrors:
    """Errors of the command line as one red paragraph in our words, whatever the option parser says of them."""

    def main(self, *words: Any, **options: Any) -> Any:
        """Run, and end with the exit code of a wrong command line."""
        from actionprep.errors import ActionprepError

        try:
            return super().main(*words, **options)  # type: ignore[misc]
        except ActionprepError as error:
            if not options.get("standalone_mode", True):
                raise
            from actionprep.cli.output import print_error

            print_error(error)
            sys.exit(error.exit_code)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse as usual; raises UserError for what the parser refuses."""
        try:
            return super().parse_args(ctx, args)  # type: ignore[misc]
        except Exception as error:
            # The parser's classes have moved from version to version of Typer; their names have not.
            kinds = [kind.__name__ for kind in type(error).__mro__]
            if "UsageError" not in kinds or "NoArgsIsHelpError" in kinds:
                raise
            from actionprep.errors import UserError

            raise UserError(_parser_error(error, kinds[0], self, ctx)) from None


class PlainGroup(_PlainErrors, TyperGroup):
    """The commands of a program."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that is to run; raises UserError that names the nearest one."""
        from actionprep.errors import UserError, nearest

        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            known = self.list_commands(ctx)
            raise UserError(
                f"{ctx.command_path} has no command '{args[0]}'.{nearest(args[0], known)} '{ctx.command_path} --help' lists "
                "them."
            )
        return super().resolve_command(ctx, args)


class ManyValuesCommand(_PlainErrors, TyperCommand):
    """A command whose list options take any number of values: `--views 0 1 3 6` means `--views 0 --views 1 …`.

    Values go up to the next word that begins with a dash (a negative number does not), or up to `--`.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Repeat the flag before every value, then parse as usual."""
        ctx.meta[WORDS] = tuple(args)
        flags = {flag for option in self.params if getattr(option, "multiple", False) for flag in option.opts}
        return super().parse_args(ctx, repeat_flags(args, flags))


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


def same_command(context: typer.Context, *more: str, without: tuple[str, ...] = (), flags: tuple[str, ...] = ()) -> str:
    """The command line that this is, for a shell, with more words; without some options and their values, and flags."""
    import shlex

    words: list[str] = []
    given = iter(context.meta.get(WORDS, ()))
    for word in given:
        if word in without:
            next(given, None)
        elif word not in flags and word.partition("=")[0] not in without:
            words.append(word)
    return shlex.join([*context.command_path.split(), *words, *more])


def _parser_error(error: Any, kind: str, command: Any, ctx: Any) -> str:
    """What is wrong with a command line: which option, what was expected, what came."""
    from actionprep.errors import nearest
    from actionprep.settings import in_plain_words, wrong_option

    path = ctx.command_path
    options = {name: one for one in command.params for name in (*one.opts, *one.secondary_opts)}
    if kind == "NoSuchOption":
        known = [name for name in options if name.startswith("--")]
        return (
            f"{path} has no option {error.option_name}.{nearest(error.option_name, known)} '{path} --help' lists them."
        )
    if kind == "BadOptionUsage":
        name = error.option_name
        if "requires" in str(error.message):
            return f"{name} needs a value, and got none.{_help(options.get(name))}"
        return f"{name} takes no value: write it alone."
    if kind == "MissingParameter":
        return f"{path} needs {_named(error.param)}.{_help(error.param)}"
    if getattr(error, "param", None) is not None:
        name, meaning = _named(error.param), _help(error.param)
        problems = error.__cause__.errors() if hasattr(error.__cause__, "errors") else []
        if problems:
            return "\n".join(wrong_option(name, one["input"], in_plain_words(one), meaning) for one in problems)
        return f"Wrong value for {name}: {error.message}{meaning}"
    if (extra := re.search(r"unexpected extra arguments?(?:\(s\))? \((.*)\)", str(error.message))) is not None:
        names = " ".join(_named(one) for one in command.params if one.param_type_name == "argument")
        takes = f"takes {names}" if names else "takes options alone"
        return f"{path} {takes}, and got more words: {extra[1]}. '{path} --help' lists its options."
    return f"{path}: {error.format_message()}"


def _named(param: Any) -> str:
    """An option by its long name, an argument by what it is called in the help."""
    if param.param_type_name == "argument":
        return str(param.metavar or param.name).upper()
    return max(param.opts, key=len)


def _help(param: Any) -> str:
    help = getattr(param, "help", None)
    return f" ({help})" if help else ""


def repeat_flags(args: list[str], flags: set[str]) -> list[str]:
    """`["--views", "0", "1"]` → `["--views", "0", "--views", "1"]` for the flags that take lists."""
    spread: list[str] = []
    words = iter(args)
    flag, taken = "", 0
    for word in words:
        if word == "--":
            return [*spread, word, *words]
        if word in flags:
            if flag and not taken:
                spread.append(flag)
            flag, taken = word, 0
        elif flag and not _is_option(word):
            spread += [flag, word]
            taken += 1
        else:
            if flag and not taken:
                spread.append(flag)
            flag = ""
            spread.append(word)
    if flag and not taken:
        spread.append(flag)
    return spread


def _is_option(word: str) -> bool:
    if not word.startswith("-") or word == "-":
        return False
    try:
        float(word)
    except ValueError:
        return True
    return False


def guarded(command: Callable[..., Any]) -> Callable[..., Any]:
    """Print errors meant for people as one red paragraph and end with their exit code; Ctrl-C ends with 130.

    Anything else is a fault of the program: its traceback goes into a file that the paragraph names. A `--debug`
    parameter of the command lets every traceback through.
    """

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        from actionprep.errors import ActionprepError

        try:
            return command(*args, **kwargs)
        except ActionprepError as error:
            if kwargs.get("debug"):
                raise
            from actionprep.cli.output import print_error

            print_error(error)
            raise typer.Exit(error.exit_code) from None
        except BrokenPipeError:
            # The reader of our output has gone (`| head`): nothing to say to anybody.
            sys.stderr.close()
            raise typer.Exit(0) from None
        except OSError as error:
            if kwargs.get("debug"):
                raise
            from actionprep.cli.output import print_error

            where = f" {error.filename}" if error.filename else ""
            print_error(OSError(f"The system refused:{where}: {error.strerror or error}. '--debug' shows where."))
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            print("\nStopped. What was finished is whole; run the same command to go on.", file=sys.stderr)
            raise typer.Exit(130) from None
        except (typer.Exit, typer.Abort):
            raise
        except Exception as error:
            if kwargs.get("debug"):
                raise
            from actionprep.cli.output import print_error

            print_error(error, prefix=f"A fault in the program: {type(error).__name__}: ", suffix=_kept(error))
            raise typer.Exit(1) from None

    return run


def _kept(error: Exception) -> str:
    """Where the traceback of a fault is now, in a sentence."""
    import tempfile
    import traceback

    from actionprep.json_values import printable

    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", prefix="actionprep-fault-", suffix=".log", delete=False
    ) as file:
        file.write(printable(" ".join(sys.argv) + "\n\n" + "".join(traceback.format_exception(error))))
    return f"\nThe traceback is in {file.name}; please report this with that file."
