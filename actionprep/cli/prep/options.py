"""Options that several commands of `actionprep` share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from actionprep.cli import output
from actionprep.cli.options import Number, Text, Texts, YesNo

if TYPE_CHECKING:
    from actionprep.api import Study
    from actionprep.pipeline.view_tasks import Workers

ViewsOption = Annotated[
    Texts,
    typer.Option(
        "--views",
        help="Views by name or number: --views 0 1 3 6. A number means the view with that number in its name.",
    ),
]
RecordingsOption = Annotated[
    Texts, typer.Option("--recording", help="Process only these recordings: --recording ID1 ID2. (default: all)")
]
WorkersOption = Annotated[
    Number,
    typer.Option(
        "--workers",
        min=0,
        help="Number of processes; 0 uses this process. (default: this process, and one per core once that is faster)",
    ),
]
SchedulerOption = Annotated[
    Text,
    typer.Option("--scheduler", help="Use the Dask scheduler at this address (tcp://…) instead of local processes."),
]
SlurmOption = Annotated[
    Texts,
    typer.Option(
        "--slurm", help="Run in SLURM jobs. Options of a job as key=value, such as queue=cpu cores=4 memory=16GB."
    ),
]
RetryOption = Annotated[bool, typer.Option("--retry", help="Try quarantined items again.")]
SaveOption = Annotated[
    bool, typer.Option("--save", help="Write options that differ from actionprep.toml into it; its comments stay.")
]
ResetOption = Annotated[
    bool, typer.Option("--reset", help="Rebuild what options of earlier commands made, with the settings of the file.")
]
SkipOption = Annotated[
    YesNo, typer.Option("--skip-incomplete/--no-skip-incomplete", help="Skip recordings that lack a selected view.")
]


def opened_study(study: Path | None) -> Study:
    """Open the study. Prints a message if the study is scanned automatically."""
    from actionprep.api import open_study

    return open_study(study, log=output.warn)


def workers_of(count: int | None, scheduler: str | None, slurm: list[str] | None) -> Workers:
    """Choose the workers: local processes (default: one per core, as needed), a running scheduler, or SLURM jobs."""
    from actionprep.errors import UserError
    from actionprep.pipeline.view_tasks import Workers
    from actionprep.pipeline.workload import usable_cores

    options = None
    if slurm:
        wrong = [word for word in slurm if "=" not in word]
        if wrong:
            raise UserError(f"--slurm expects key=value options, such as queue=cpu; got {wrong[0]!r}.")
        options = {
            key: int(value) if value.isdecimal() else value for key, value in (word.split("=", 1) for word in slurm)
        }
    return Workers(usable_cores() if count is None else count, scheduler, options, as_needed=count is None)
