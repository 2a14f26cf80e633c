"""The line that shows how a training goes on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from actionprep.cli import output


@contextmanager
def progress_of_epochs(*, quiet: bool) -> Iterator[Any]:
    """A context that gives a function for each epoch's figures, shown on one live line."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.table import Column

    bar = Progress(
        TextColumn("{task.description}", table_column=Column(no_wrap=True)),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}", style="cyan", table_column=Column(no_wrap=True)),
        console=output.error_console,
        disable=quiet,
    )
    tasks: dict[Any, Any] = {}
    known: dict[str, float] = {}

    def on_epoch(report: Any) -> None:
        bar.start()  # not before, or an error of the beginning would stand below an empty line
        if report.phase not in tasks or report.epoch == 0:
            tasks[report.phase] = bar.add_task(report.phase, total=report.num_epochs, figures="")
            known.clear()
        known.update(report.figures)  # validation's stay until the next one
        taken = len(report.phase) + 20 + 2 * len(str(report.num_epochs)) + 1 + 7 + 4
        figures = progress_figures(known, output.error_console.width - taken)
        bar.update(tasks[report.phase], completed=report.epoch + 1, figures=figures)

    try:
        yield on_epoch
    finally:
        if tasks:
            bar.stop()


def progress_figures(figures: Mapping[str, float], room: int) -> str:
    """Loss and accuracy in val, as far as they are known and fit into so many characters."""
    shown = ""
    for name, called in (("train_loss", "loss"), ("val_accuracy", "val accuracy")):
        if name in figures:
            longer = f"{shown}  {called} {figures[name]:.3f}".strip()
            shown = longer if len(longer) <= room else shown
    return shown
