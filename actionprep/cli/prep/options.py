"""Options that several commands of `actionprep` have, and what they stand for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from actionprep.cli import output
from actionprep.cli.options import Number, Text, Texts, YesNo

if TYPE_CHECKING:
    from actionprep.api import Study
    from actionprep.pipeline.tasks import Workers

ViewsOption = Annotated[
    Texts, typer.Option("--views", help="Views by name or 0-based index, any number of them: --views 0 1 3 6.")
]
WorkersOption = Annotated[
    Number, typer.Option("--workers", min=0, help="Processes; 0 works in this one. (default: one a core)")
]
SchedulerOption = Annotated[
    Text, typer.Option("--scheduler", help="Address of a running Dask scheduler, tcp://…, instead of local processes.")
]
SlurmOption = Annotated[
    Texts,
    typer.Option(
        "--slurm", help="Work in SLURM jobs: options of a job as key=value, such as queue=cpu cores=4 memory=16GB."
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
    YesNo, typer.Option("--skip-incomplete/--no-skip-incomplete", help="Leave out recordings that lack a wanted view.")
]


def opened_study(study: Path | None) -> Study:
    """The study to work on; it says so when it scans by itself."""
    from actionprep.api import open_study

    return open_study(study, tell=output.warn)


def workers_of(count: int | None, scheduler: str | None, slurm: list[str] | None) -> Workers:
    """Who works: processes here, a running scheduler, or SLURM jobs; without a word one process a core."""
    import os

    from actionprep.errors import UserError
    from actionprep.pipeline.tasks import Workers

    options = None
    if slurm:
        wrong = [one for one in slurm if "=" not in one]
        if wrong:
            raise UserError(f"--slurm takes key=value options, such as queue=cpu; got {wrong[0]!r}.")
        options = {key: int(value) if value.isdigit() else value for key, value in (one.split("=", 1) for one in slurm)}
    if count is None:
        count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Workers(count, scheduler, options)
