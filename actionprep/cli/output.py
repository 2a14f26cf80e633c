"""Console output of commands: errors, tables, progress, JSON."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from rich.console import Console
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from actionprep.json_values import plain, printable


class SafeConsole(Console):
    """A console that escapes control characters in text, such as those in file names and labels."""

    def render(self, *arguments: Any, **options: Any) -> Iterator[Segment]:
        """Render with control characters of texts escaped. Control codes of the console itself stay."""
        for segment in super().render(*arguments, **options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


console = SafeConsole(highlight=False)
error_console = SafeConsole(stderr=True, highlight=False)

_SECONDS_BETWEEN_LINES = 30.0


def _text(text: object, style: str = "") -> Text:
    """Make text without markup. Escaped here, because Rich drops some control characters and measures others as 0."""
    return Text(printable(str(text)), style=style)


def print_error(error: Exception, *, prefix: str = "") -> None:
    """Print an error as one red paragraph on stderr."""
    error_console.print(_text(f"{prefix}{error}", "red"), soft_wrap=True)


def print_text(text: str, *, end: str = "\n") -> None:
    """Print text on stdout for another program or a file, without styles and wrapping."""
    sys.stdout.write(printable(text) + end)
    sys.stdout.flush()


def can_ask() -> bool:
    """Return whether somebody at a terminal can answer questions."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def print_json(document: Any) -> None:
    """Print one JSON document on stdout. NaN and infinity become null."""
    json.dump(plain(document), sys.stdout, indent=2, default=str, allow_nan=False)
    sys.stdout.write("\n")


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    caption: str = "",
    importance: Sequence[str] = (),
    whole: Sequence[str] = (),
) -> list[str]:
    """Print a table. Columns of numbers are right-aligned.

    Args:
        title: Title of the table.
        columns: Names of the columns.
        rows: Cells of each row.
        caption: Text below the table.
        importance: Columns, the most important first. As many as fit are shown. Only the first one is wrapped, at spaces.
            Empty: show all columns and wrap them as needed, except those in `whole`. Long paths are wrapped too, at "/".
        whole: Columns that are never wrapped, the most important first. Columns that do not fit are left out.

    Returns:
        The columns that were left out.
    """
    # Cells are text, never markup. A message may contain square brackets.
    rows = [
        tuple(cell if isinstance(cell, Text) else _text("" if cell is None else cell) for cell in row) for row in rows
    ]
    table = Table(
        title=_text(title) if title else None,
        title_justify="left",
        title_style="bold",
        caption=_text(caption) if caption else None,
        box=None,
    )
    table.caption_justify = "left"
    shown = _that_fit(columns, rows, importance) if importance else _beside_whole(columns, rows, whole)
    unfolded = [*importance[1:], *whole]
    widths = {} if unfolded else _fitted_widths(columns, rows, console.width)
    for at, name in enumerate(columns):
        if name not in shown:
            continue
        numeric = all(_numeric(row[at].plain) for row in rows) and bool(rows)
        table.add_column(name, justify="right" if numeric else "left", header_style="bold cyan",
                         no_wrap=name in unfolded, overflow="ellipsis" if name in unfolded else "fold",
                         min_width=None if name in unfolded else _longest_word(rows, at),
                         width=widths.get(name))  # fmt: skip
    for row in rows:
        cells = [(cell, name) for cell, name in zip(row, columns, strict=True) if name in shown]
        table.add_row(*(_folded(cell, widths[name]) if name in widths else cell for cell, name in cells))
    console.print(table)
    return [name for name in columns if name not in shown]


_FOLDED = 26
"""Minimum width of the most important column in characters, in favor of the others."""


_LEGIBLE = 8
"""Minimum width of a wrapped column in characters."""


def _beside_whole(columns: Sequence[str], rows: Sequence[Sequence[Text]], whole: Sequence[str]) -> list[str]:
    """Choose as many unwrapped columns as fit, then as many wrapped ones as stay legible."""
    if not whole:
        return list(columns)
    widths = _widths(columns, rows)
    room, shown = console.width - widths[whole[0]], [whole[0]]
    for name in [*whole[1:], *(name for name in columns if name not in whole)]:
        words = max(_LEGIBLE, _longest_word(rows, columns.index(name))) + 2
        least = widths[name] if name in whole else min(widths[name], words)
        if least <= room:
            room -= least
            shown.append(name)
    return shown


def _widths(columns: Sequence[str], rows: Sequence[Sequence[Text]]) -> dict[str, int]:
    """Width of each column without wrapping in characters, including the gap."""
    return {name: max([len(name), *(row[at].cell_len for row in rows)]) + 2 for at, name in enumerate(columns)}


def _that_fit(columns: Sequence[str], rows: Sequence[Sequence[Text]], importance: Sequence[str]) -> list[str]:
    """Choose the most important columns, as many as fit without wrapping any but the first."""
    widths = _widths(columns, rows)
    first = columns.index(importance[0])
    room = console.width - min(widths[importance[0]], max(_FOLDED, _longest_word(rows, first)) + 2)
    shown = [importance[0]]
    for name in importance[1:]:
        if widths[name] <= room:
            room -= widths[name]
            shown.append(name)
    return shown


def _fitted_widths(columns: Sequence[str], rows: Sequence[Sequence[Text]], room: int) -> dict[str, int]:
    """Choose the widths of all columns where wrapping at spaces alone is not enough to show them.

    Args:
        columns: Names of the columns.
        rows: Cells of each row.
        room: Width of the terminal.

    Returns:
        Width of each column in characters, without gap. Empty if the longest words of all columns fit.
    """
    words = [max(_longest_word(rows, at), len(name)) for at, name in enumerate(columns)]
    room -= 2 * len(columns)
    if sum(words) <= room:
        return {}
    largest = max(words)
    while largest > 1 and sum(min(width, largest) for width in words) > room:
        largest -= 1
    widths = [min(width, largest) for width in words]
    # Give the rest to the columns that are wrapped most.
    natural = [width - 2 for width in _widths(columns, rows).values()]
    for _ in range(room - sum(widths)):
        at = max(range(len(columns)), key=lambda at: natural[at] / widths[at])
        if widths[at] >= natural[at]:
            break
        widths[at] += 1
    return dict(zip(columns, widths, strict=True))


def _folded(cell: Text, width: int) -> Text:
    """Break words that are longer than a column, where possible after a separator of a path."""
    if all(Text(word).cell_len <= width for word in cell.plain.split()):
        return cell
    lines = []
    for line in cell.plain.split("\n"):
        words = []
        for word in line.split(" "):
            pieces, rest = [], word
            while Text(rest).cell_len > width:
                cut = max((rest.rfind(mark, 0, width) + 1 for mark in "/\\"), default=0) or width
                pieces.append(rest[:cut])
                rest = rest[cut:]
            words.append("\n".join([*pieces, rest]))
        lines.append(" ".join(words))
    return Text("\n".join(lines), style=cell.style)


def _longest_word(rows: Sequence[Sequence[Text]], at: int) -> int:
    """Length of the longest word of a column, which must not be broken, up to the width of the terminal."""
    words = [Text(word).cell_len for row in rows for word in row[at].plain.split()]
    return min(max(words, default=1), console.width - 2)


def print_next(command: str, why: str, *, to_stderr: bool = False) -> None:
    """Print a hint of the next command.

    Args:
        command: The command.
        why: What it does.
        to_stderr: Print on stderr, because stdout is meant for other programs.
    """
    hint = Text.assemble(("next  ", "dim"), _text(command, "bold green"), _text(f"   {why}", "dim"))
    (error_console if to_stderr else console).print(hint, soft_wrap=True)


def note(text: str) -> None:
    """Print one line of information."""
    console.print(_text(text), soft_wrap=True)


def warn(text: str) -> None:
    """Print one line of warning on stderr."""
    error_console.print(_text(text, "yellow"), soft_wrap=True)


@contextmanager
def progress_bar(what: str, total: int, unit: str, *, quiet: bool = False) -> Iterator[Any]:
    """Show a progress bar with rate, ETA and failures. Call the yielded function with (advance, failures).

    Where the output is not a terminal, such as the log of a cluster, a line is printed every 30 seconds instead.
    """
    if not quiet and not error_console.is_terminal:
        yield _ProgressLines(printable(what), total, unit)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn

    class Rate(ProgressColumn):
        def render(self, task: Any) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:,.0f} {unit}/s", style="cyan")

    class Failures(ProgressColumn):
        def render(self, task: Any) -> Text:
            failures = task.fields.get("failures", 0)
            return Text(f"{failures} failed" if failures else "", style="red")

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
        Failures(),
        console=error_console,
        disable=quiet,
    )
    with bar:
        task = bar.add_task(printable(what), total=total, failures=0)

        def advance(amount: int, failures: int = 0) -> None:
            bar.update(task, advance=amount, failures=failures)

        yield advance


class _ProgressLines:
    """Print the progress as lines, at most one in 30 seconds."""

    def __init__(self, what: str, total: int, unit: str) -> None:
        self._what, self._total, self._unit = what, total, unit
        self._done, self._begun = 0, time.monotonic()
        self._printed = self._begun

    def __call__(self, amount: int, failures: int = 0) -> None:
        self._done += amount
        now = time.monotonic()
        if now - self._printed < _SECONDS_BETWEEN_LINES:
            return
        self._printed = now
        rate = self._done / (now - self._begun)
        share = f" ({self._done / self._total:.0%})" if self._total else ""
        failed = f", {failures} failed" if failures else ""
        speed = f"{rate:,.{0 if rate >= 10 else 1}f} {self._unit}/s"
        line = f"{self._what}: {self._done:,} of {self._total:,} {self._unit}{share}, {speed}{failed}"
        error_console.print(_text(line), soft_wrap=True)


@contextmanager
def progress_of_steps(what: str, unit: str, *, quiet: bool = False) -> Iterator[Any]:
    """Show a progress bar from the first step on, when the total is known. Call with (total, failures) per step."""
    with ExitStack() as stack:
        bar: list[Any] = []

        def step(total: int, failures: int = 0) -> None:
            if not bar:
                bar.append(stack.enter_context(progress_bar(what, total, unit, quiet=quiet)))
            bar[0](1, failures=failures)

        yield step


def bytes_text(count: float) -> str:
    """12345678 → "12.3 MB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def duration_text(seconds: float) -> str:
    """75.2 → "1 min 15 s"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def _numeric(cell: str) -> bool:
    digits = cell.replace(",", "").replace(" %", "").replace("%", "").lstrip("-").replace(".", "", 1)
    return cell in ("", "–") or digits.isdigit()
