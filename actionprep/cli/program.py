"""Build a program of sub-commands: parse command lines, print help and report errors."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable, Collection, Sequence
from copy import copy
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

WORDS = "actionprep.words"
"""Key of the context entry with the words of the command line."""

COMMON = "Common options"
"""Help panel of the options that many commands share. It comes after a command's own options."""

_COMMON_OPTIONS = {
    "study", "views", "recordings", "workers", "scheduler", "slurm", "retry", "skip_incomplete", "device", "threads", "json",
    "debug", "help",
}  # fmt: skip


class _PlainErrors:
    """Print errors of the command line as one red paragraph in plain words, whatever the parser reports."""

    def main(self, *words: Any, **options: Any) -> Any:
        """Run the command and exit with its exit code."""
        from actionprep.errors import ActionprepError

        try:
            return super().main(*words, **options)  # type: ignore[misc]
        except ActionprepError as error:
            if not options.get("standalone_mode", True):
                raise
            words_given = options.get("args", words[0] if words else None)
            _report(error, json="--json" in (sys.argv[1:] if words_given is None else words_given))
            sys.exit(error.exit_code)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the words.

        Raises:
            UserError: If the parser refuses them.
        """
        try:
            return super().parse_args(ctx, args)  # type: ignore[misc]
        except Exception as error:
            # The modules of the parser's exceptions differ between versions of Typer. Their names do not.
            kinds = [kind.__name__ for kind in type(error).__mro__]
            if "UsageError" not in kinds or "NoArgsIsHelpError" in kinds:
                raise
            from actionprep.errors import UserError

            raise UserError(_parser_error(error, kinds[0], self, ctx)) from None


class PlainGroup(_PlainErrors, TyperGroup):
    """The commands of a program."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command to run.

        Raises:
            UserError: If there is no such command. Names the nearest one.
        """
        from actionprep.errors import UserError, nearest

        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            known = self.list_commands(ctx)
            raise UserError(
                f"{ctx.command_path} has no command '{args[0]}'.{nearest(args[0], known)} "
                f"Run '{ctx.command_path} --help' to list all commands."
            )
        return super().resolve_command(ctx, args)


class ManyValuesCommand(_PlainErrors, TyperCommand):
    """A command with list options that take any number of values: `--views 0 1 3 6` means `--views 0 --views 1 …`.

    Values end at the next word that starts with a dash (except negative numbers), or at `--`.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Repeat the flag before every value, then parse as usual."""
        ctx.meta[WORDS] = tuple(args)
        flags = {flag for option in self.params if getattr(option, "multiple", False) for flag in option.opts}
        return super().parse_args(ctx, repeat_flags(args, flags))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help: the command's own options first, then the common ones. Help texts are text, never markup."""
        shown = copy(self)
        shown.help = _without_markup(self.help)
        shown.params = [_for_help(param, ctx) for param in self.params]
        help_option = self.get_help_option(ctx)
        shown.get_help_option = lambda ctx: help_option and _for_help(help_option, ctx)  # type: ignore[method-assign]
        super(ManyValuesCommand, shown).format_help(ctx, formatter)


def _for_help(param: Any, ctx: Any) -> Any:
    """A copy of an option or argument as the help shows it."""
    shown = copy(param)
    if param.param_type_name == "option" and param.name in _COMMON_OPTIONS:
        shown.rich_help_panel = COMMON
    if getattr(param, "help", None):
        shown.help = _without_markup(param.help)
    if param.secondary_opts:
        # One column less leaves room for the help text at 80 columns.
        shown.opts = [name.replace("--", "--[no-]", 1) for name in param.opts]
        shown.secondary_opts = []
    if param.param_type_name == "option" and param.metavar is None:
        shown.metavar, choices = _value_name(param, ctx)
        if any(choice not in (shown.help or "") for choice in choices):
            shown.help = f"{shown.help or ''} Choices: {', '.join(choices)}.".strip()
    return shown


_LONGEST_VALUE_NAME = 18
"""Longer names of values would leave too little room for the help texts at 80 columns."""


def _value_name(param: Any, ctx: Any) -> tuple[str | None, list[str]]:
    """Short name of an option's value, and its choices if the name does not list them.

    The name is empty for a flag, and None for the parser's own name.
    """
    if getattr(param, "is_flag", False):
        return "", []
    # Older versions of Typer name values in another way, and briefly.
    describe = getattr(param, "display_type", None)
    text = describe(ctx) if describe is not None else None
    if text is None:
        return None, []
    if "|" in text and len(text) > _LONGEST_VALUE_NAME:
        return "<choice>", str(text).strip("<>").split("|")
    return str(text).replace(" range", ""), []


def _without_markup(text: str | None) -> str | None:
    """Escape square brackets, which Rich would read as markup."""
    return text and re.sub(r"\[(?=[a-z/#@])", r"\\[", text)


def program(group: type[PlainGroup] = PlainGroup, *, help: str, epilog: str) -> typer.Typer:
    """Create a program without sub-commands. Without arguments, it prints its help."""
    app = typer.Typer(
        cls=group,
        help=help,
        epilog=epilog,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings=HELP_NAMES,
    )

    @app.callback()
    def top(
        version: Annotated[
            bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
        ] = False,
    ) -> None:
        pass

    return app


HELP_NAMES = {"help_option_names": ["--help", "-h"]}


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"actionprep {version('actionprep')}")
        raise typer.Exit


def add_command(
    app: typer.Typer,
    command: Callable[..., Any],
    panel: str,
    *,
    name: str | None = None,
    kind: type[ManyValuesCommand] = ManyValuesCommand,
) -> None:
    """Add a function as the next sub-command.

    Args:
        app: The program.
        command: The function. Its docstring is the help.
        panel: Panel of the program's help.
        name: Name of the command. Default: name of the function.
        kind: Class of the command.
    """
    app.command(name, rich_help_panel=panel, cls=kind, context_settings=HELP_NAMES)(guarded(command))


def program_of(app: typer.Typer, words: Sequence[str], *, others: Collection[str] = ()) -> typer.Typer:
    """Return a program with the command that a command line names, and without the others where that is possible.

    To describe the options of all commands takes longer than many commands.

    Args:
        app: The program.
        words: The command line without the name of the program.
        others: Names of commands that `app` makes itself when they are used.
    """
    if not words:
        return app
    commands = [info for info in app.registered_commands if _name_of(info) == words[0]]
    groups = [info for info in app.registered_groups if info.name == words[0]]
    if not commands and not groups and words[0] not in others:
        return app
    small = copy(app)
    small.registered_commands, small.registered_groups = commands, groups
    return small


def _name_of(command: Any) -> str:
    """Name of a registered command, as Typer derives it."""
    return str(command.name or command.callback.__name__.replace("_", "-"))


def same_command(context: typer.Context, *more: str, without: tuple[str, ...] = (), flags: tuple[str, ...] = ()) -> str:
    """Return this command line for a shell, changed.

    Args:
        context: Context of the command.
        *more: Words to append.
        without: Options to leave out, with their values.
        flags: Flags to leave out.
    """
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
    """Describe an error of a command line: the option, the expected value and the given value."""
    from actionprep.errors import nearest
    from actionprep.settings import in_plain_words, wrong_option

    path = ctx.command_path
    options = {name: param for param in command.params for name in (*param.opts, *param.secondary_opts)}
    if kind == "NoSuchOption":
        known = [name for name in options if name.startswith("--")]
        return (
            f"{path} has no option {error.option_name}.{nearest(error.option_name, known)} "
            f"Run '{path} --help' to list all options."
        )
    if kind == "BadOptionUsage":
        name = error.option_name
        if "requires" in str(error.message):
            return f"{name} needs a value.{_help(options.get(name))}"
        return f"{name} takes no value."
    if kind == "MissingParameter":
        return f"{path} needs {_named(error.param)}.{_help(error.param)}"
    if getattr(error, "param", None) is not None:
        name, meaning = _named(error.param), _help(error.param)
        problems = error.__cause__.errors() if hasattr(error.__cause__, "errors") else []
        if problems:
            return "\n".join(
                wrong_option(name, problem["input"], in_plain_words(problem), meaning) for problem in problems
            )
        return f"Wrong value for {name}: {error.message}{meaning}"
    if (extra := re.search(r"unexpected extra arguments?(?:\(s\))? \((.*)\)", str(error.message))) is not None:
        names = " ".join(_named(param) for param in command.params if param.param_type_name == "argument")
        takes = f"takes {names}" if names else "takes only options"
        return f"{path} {takes}; got also: {extra[1]}. Run '{path} --help' to list all options."
    return f"{path}: {error.format_message()}"


def _named(param: Any) -> str:
    """Name of an option (its long name) or an argument (as in the help)."""
    if param.param_type_name == "argument":
        return str(param.metavar or param.name).upper()
    return max(param.opts, key=len)


def _help(param: Any) -> str:
    help = getattr(param, "help", None)
    return f" ({help})" if help else ""


def repeat_flags(args: list[str], flags: set[str]) -> list[str]:
    """`["--views", "0", "1"]` → `["--views", "0", "--views", "1"]` for flags that take lists."""
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
    """Print errors as one red paragraph and exit with their exit code. Ctrl-C exits with 130.

    With `--json`, errors are also printed on stdout, as {"error": "…"}. Any other exception is a bug: its traceback is
    written to a file named in the message. With `--debug`, all exceptions pass through.
    """

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        from actionprep.errors import ActionprepError

        try:
            return command(*args, **kwargs)
        except ActionprepError as error:
            if kwargs.get("debug"):
                raise
            _report(error, json=kwargs.get("json"))
            raise typer.Exit(error.exit_code) from None
        except BrokenPipeError:
            # The reader of our output is closed (`| head`).
            sys.stderr.close()
            raise typer.Exit(0) from None
        except OSError as error:
            if kwargs.get("debug"):
                raise
            where = f"{error.filename}: " if error.filename else ""
            text = f"System error: {where}{error.strerror or error}. Use --debug to show the traceback."
            _report(OSError(text), json=kwargs.get("json"))
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            print("\nStopped. Finished work is complete. Run the same command again to resume.", file=sys.stderr)
            raise typer.Exit(130) from None
        except (typer.Exit, typer.Abort):
            raise
        except Exception as error:
            if kwargs.get("debug"):
                raise
            text = f"Internal error: {type(error).__name__}: {error}{_kept(error)}"
            _report(RuntimeError(text), json=kwargs.get("json"))
            raise typer.Exit(1) from None

    return run


def _report(error: Exception, *, json: bool | None) -> None:
    """Print an error on stderr, and with --json also as a document on stdout."""
    from actionprep.cli.output import print_error, print_json

    print_error(error)
    if json:
        print_json({"error": str(error)})


def _kept(error: Exception) -> str:
    """Write the traceback of an internal error to a file and name it in a sentence."""
    import tempfile
    import traceback

    from actionprep.json_values import printable

    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", prefix="actionprep-fault-", suffix=".log", delete=False
    ) as file:
        file.write(printable(" ".join(sys.argv) + "\n\n" + "".join(traceback.format_exception(error))))
    return f"\nThe traceback is in {file.name}. Please report this error with that file."
