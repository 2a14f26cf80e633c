"""Progress line of training."""

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
    """Show the metrics of each epoch on one live line, with messages below."""
    line = EpochLine(quiet=quiet)
    try:
        yield line
    finally:
        line.end()


class EpochLine:
    """A live line of epochs per phase on stderr, and messages on stdout.

    On a terminal the live line is redrawn in place. Before a message it ends, and the next epoch starts a new line below.
    Elsewhere it is written once, at the end.
    """

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        self._bar: Progress | None = None
        self._tasks: dict[Any, Any] = {}
        self._known: dict[str, float] = {}

    def log(self, sentence: str) -> None:
        """Print a message below the line."""
        if self.quiet:
            return
        if output.error_console.is_terminal:
            self.end()
        output.note(sentence)

    def on_epoch(self, report: EpochReport) -> None:
        """Show the metrics of an epoch."""
        if self._bar is None:
            # Not earlier, or errors at the start would be printed below an empty line.
            self._bar = _bar(quiet=self.quiet)
            self._bar.start()
        if report.phase not in self._tasks or report.epoch == 0:
            self._tasks[report.phase] = self._bar.add_task(report.phase, total=report.num_epochs, metrics="")
            self._known.clear()
        self._known.update(report.metrics)  # metrics of the last validation are kept
        taken = max(map(len, self._tasks)) + 20 + 2 * len(str(report.num_epochs)) + 1 + 7 + 4
        metrics = progress_metrics(self._known, output.error_console.width - taken)
        self._bar.update(self._tasks[report.phase], completed=report.epoch + 1, metrics=metrics)

    def end(self) -> None:
        """End the line. The next epoch starts a new one."""
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
        TextColumn("{task.fields[metrics]}", style="cyan", table_column=Column(no_wrap=True)),
        console=output.error_console,
        disable=quiet,
    )


def progress_metrics(metrics: Mapping[str, float], room: int) -> str:
    """Training loss and validation accuracy, as far as known and as they fit into this number of characters."""
    shown = ""
    for name, called in (("train_loss", "loss"), ("val_accuracy", "val accuracy")):
        if name in metrics:
            longer = f"{shown}  {called} {metrics[name]:.3f}".strip()
            shown = longer if len(longer) <= room else shown
    return shown
