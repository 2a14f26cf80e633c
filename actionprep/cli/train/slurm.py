"""The command that writes a job script."""

from __future__ import annotations

from typing import Annotated

import typer

from actionprep.cli import output
from actionprep.cli.options import DebugOption, Text, Texts, Where


def slurm(
    words: Annotated[
        Texts, typer.Argument(help="Options of 'actiontrain fit', after two dashes: -- --recipe i3d.")
    ] = None,
    run: Annotated[str, typer.Option("--run", help="Name of the run, and of the job.")] = "slurm-run",
    nodes: Annotated[int, typer.Option("--nodes", help="Machines.")] = 1,
    gpus: Annotated[int, typer.Option("--gpus", help="GPUs, and processes, on each; 0 trains on CPUs.")] = 1,
    cpus: Annotated[int, typer.Option("--cpus", help="CPU cores of each process.")] = 4,
    time: Annotated[Text, typer.Option("--time", help="Longest time, as 12:00:00 or 2-00:00:00.")] = None,
    memory: Annotated[Text, typer.Option("--memory", help="Memory of each machine, as 64G.")] = None,
    partition: Annotated[Text, typer.Option("--partition", help="Partition of the cluster.")] = None,
    account: Annotated[Text, typer.Option("--account", help="Account that pays.")] = None,
    setup: Annotated[
        Texts, typer.Option("--setup", help="A shell line before the training: --setup 'source venv/bin/activate'.")
    ] = None,
    option: Annotated[
        Texts, typer.Option("--option", help="One more #SBATCH line: --option=--constraint=a100.")
    ] = None,
    out: Annotated[Where, typer.Option("--out", "-o", help="The file. (default: it is printed)")] = None,
    debug: DebugOption = False,
) -> None:
    """Write a SLURM job script that trains with torchrun, on one or several machines, and goes on when requeued."""
    from actionprep.training.run import write_text
    from actionprep.training.slurm import SlurmJob, job_script

    job = SlurmJob(
        run, nodes, gpus, cpus, time, memory, partition, account, tuple(setup or ()), tuple(option or ())
    )  # fmt: skip
    text = job_script(job, words or [])
    if out is None:
        print(text, end="")
        return
    write_text(out, text)
    output.note(f"Wrote {out}")
    output.print_next(f"sbatch {out}", "hands it to the cluster, in the study's folder")
