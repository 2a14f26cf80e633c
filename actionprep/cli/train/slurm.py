"""The command `actiontrain slurm`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from actionprep.cli import output
from actionprep.cli.options import DebugOption, Text, Texts, Where
from actionprep.cli.train.choices import CHANGES
from actionprep.cli.train.options import changes_of, given_of


def slurm(
    context: typer.Context,
    words: Annotated[
        Texts, typer.Argument(help="Options of 'actiontrain fit', after two dashes: -- --recipe i3d.")
    ] = None,
    run: Annotated[str, typer.Option("--run", help="Name of the run, and of the job.")] = "slurm-run",
    nodes: Annotated[int, typer.Option("--nodes", help="Number of machines.")] = 1,
    gpus: Annotated[int, typer.Option("--gpus", help="GPUs (and processes) per machine; 0 trains on CPUs.")] = 1,
    cpus: Annotated[int, typer.Option("--cpus", help="CPU cores per process.")] = 4,
    time: Annotated[Text, typer.Option("--time", help="Time limit, such as 12:00:00 or 2-00:00:00.")] = None,
    memory: Annotated[Text, typer.Option("--memory", help="Memory per machine, such as 64G.")] = None,
    partition: Annotated[Text, typer.Option("--partition", help="Partition of the cluster.")] = None,
    account: Annotated[Text, typer.Option("--account", help="Account to charge.")] = None,
    setup: Annotated[
        Texts, typer.Option("--setup", help="Shell line before training: --setup 'source venv/bin/activate'.")
    ] = None,
    option: Annotated[
        Texts, typer.Option("--option", help="Additional #SBATCH line: --option=--constraint=a100.")
    ] = None,
    out: Annotated[Where, typer.Option("--out", "-o", help="Output file. (default: print the script)")] = None,
    debug: DebugOption = False,
) -> None:
    """Write a SLURM job script that trains with torchrun on one or more machines and resumes when requeued."""
    from actionprep.training.experiments.slurm import SlurmJob, job_script
    from actionprep.training.run import write_text

    job = SlurmJob(
        run, nodes, gpus, cpus, time, memory, partition, account, tuple(setup or ()), tuple(option or ())
    )  # fmt: skip
    text = job_script(job, words or [])
    _check_fit(context, words or [])
    if out is None:
        output.print_text(text, end="")
        output.print_next("sbatch FILE", "submits the saved script; --out FILE saves it", to_stderr=True)
        return
    write_text(out, text)
    output.note(f"Wrote {out}")
    output.print_next(f"sbatch {out}", "submits the job; run it in the folder of the study")


def _check_fit(context: typer.Context, words: list[str]) -> None:
    """Check the options of 'actiontrain fit' now, instead of when the job starts.

    A recipe file is not checked, because it may exist only on the cluster.

    Raises:
        UserError: If 'actiontrain fit' would refuse the options.
    """
    from actionprep.training.recipes import find_recipe

    group: Any = context.find_root().command
    given = group.get_command(context.find_root(), "fit").make_context("fit", words, parent=context.find_root()).params
    changes = changes_of(given["changes"])
    if given["recipe"] is not None and not given["recipe"].endswith(".toml"):
        find_recipe(given["recipe"]).changed({**changes, **given_of(epochs=given["epochs"])}, where=CHANGES)
