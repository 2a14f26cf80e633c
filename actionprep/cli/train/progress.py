"""The line that shows how a training goes on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from actionprep.cli import output

if TYPE_CHECKING:
    from rich.progress import Progress

    from actionprep.training.loop.progress import EpochReport


@contextmanager
def progress_of_epochs(*, quiet: bool) -> Iterator[EpochLine]:
    """A context in which each epoch's figures are shown on one live line, and sentences are told beside it."""
    line = EpochLine(quiet=quiet)
    try:
        yield line
    finally:
        line.end()


class EpochLine:
    """A live line of epochs on stderr, a line for each phase, and sentences on stdout.

    Both are most often one terminal, where a live line is drawn again and again in its place: before a sentence it ends
    and stays as it is, and the next epoch begins another one below. Elsewhere it is written once, at the end.
    """

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        self._bar: Progress | None = None
        self._tasks: dict[Any, Any] = {}
        self._known: dict[str, float] = {}

    def log(self, sentence: str) -> None:
        """Print a sentence below what there is."""
        if self.quiet:
            return
        if output.error_console.is_terminal:
            self.end()
        output.note(sentence)

    def on_epoch(self, report: EpochReport) -> None:
        """Show what an epoch gave."""
        if self._bar is None:
            # Not before, or an error of the beginning would stand below an empty line.
            self._bar = _bar(quiet=self.quiet)
            self._bar.start()
        if report.phase not in self._tasks or report.epoch == 0:
            self._tasks[report.phase] = self._bar.add_task(report.phase, total=report.num_epochs, figures="")
            self._known.clear()
        self._known.update(report.metrics)  # validation's stay until the next one
        taken = max(map(len, self._tasks)) + 20 + 2 * len(str(report.num_epochs)) + 1 + 7 + 4
        figures = progress_figures(self._known, output.error_console.width - taken)
        self._bar.update(self._tasks[report.phase], completed=report.epoch + 1, figures=figures)

    def end(self) -> None:
        """Leave the line as it is; the next epoch begins another one."""
        if self._bar is not None:
            self._bar.stop()
        self._bar = None
        self._tasks.clear()


def _bar(*, quiet: bool) -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.table import Column

    return Progress(
        TextColumn("{task.description}", table_column=Column(no_wrap=True)),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}", style="cyan", table_column=Column(no_wrap=True)),
        console=output.error_console,
        disable=quiet,
    )


def progress_figures(figures: Mapping[str, float], room: int) -> str:
    """Loss and accuracy in val, as far as they are known and fit into so many characters."""
    shown = ""
    for name, called in (("train_loss", "loss"), ("val_accuracy", "val accuracy")):
        if name in figures:
            longer = f"{shown}  {called} {figures[name]:.3f}".strip()
            shown = longer if len(longer) <= room else shown
    return shown
