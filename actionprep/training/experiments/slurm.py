"""SLURM job script of a training: torchrun on every node, resumable after a requeue."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from actionprep.errors import UserError

_TIME = re.compile(r"^(\d+|\d+:\d\d|\d+:\d\d:\d\d|\d+-\d+(:\d\d(:\d\d)?)?)$")
_MEMORY = re.compile(r"^\d+[KMGT]?$")


@dataclass(frozen=True)
class SlurmJob:
    """Resources that a training requests from SLURM.

    Attributes:
        run: Name of the run; a requeued job resumes the run of that name.
        nodes: Number of nodes.
        gpus: Processes per node, one per GPU; 0 runs one process per node on its CPUs.
        cpus: CPU cores per process.
        time: Time limit in SLURM's notation, such as "12:00:00" or "2-00:00:00".
        memory: Memory per node, such as "64G".
        partition: Partition to submit to.
        account: Account to charge.
        setup: Shell lines before the training, such as `source venv/bin/activate` or `module load cuda`.
        options: Additional #SBATCH options, such as "--constraint=a100".
        port: Port on which the processes meet.
    """

    run: str
    nodes: int = 1
    gpus: int = 1
    cpus: int = 4
    time: str | None = None
    memory: str | None = None
    partition: str | None = None
    account: str | None = None
    setup: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    port: int = 29400


def job_script(job: SlurmJob, fit: Sequence[str]) -> str:
    """Write a job script for sbatch that runs `actiontrain fit`.

    Args:
        job: Requested resources.
        fit: Arguments of `actiontrain fit`.

    Returns:
        Text of the script.

    Raises:
        UserError: If a request is malformed, or if the arguments contain an option that the script sets itself.
    """
    _check(job, fit)
    processes = max(job.gpus, 1)
    requests = {
        "job-name": job.run,
        "nodes": job.nodes,
        "ntasks-per-node": 1,
        "cpus-per-task": job.cpus * processes,
        "gpus-per-node": job.gpus or None,
        "mem": job.memory,
        "time": job.time,
        "partition": job.partition,
        "account": job.account,
        "output": f"{job.run}-%j.log",
    }
    head = [f"#SBATCH --{name}={value}" for name, value in requests.items() if value is not None]
    head += ["#SBATCH --requeue", "#SBATCH --open-mode=append", *(f"#SBATCH {option}" for option in job.options)]
    arguments = ["fit", *fit, "--run", job.run, "--resume", "--device", "cuda" if job.gpus else "cpu"]
    arguments += ["--devices", str(processes), "--nodes", str(job.nodes)]
    lines = [
        "#!/bin/bash",
        *head,
        "",
        "set -euo pipefail",
        *job.setup,
        f"export OMP_NUM_THREADS={job.cpus}",
        "# Since version 22.05, srun does not inherit --cpus-per-task of the job.",
        'export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"',
    ]
    if job.nodes * processes == 1:
        return "\n".join([*lines, "", f"srun actiontrain {shlex.join(arguments)}"]) + "\n"
    torchrun = [
        "srun torchrun",
        f"--nnodes={job.nodes}",
        f"--nproc-per-node={processes}",
        '--rdzv-id="$SLURM_JOB_ID"',
        "--rdzv-backend=c10d",
        f'--rdzv-endpoint="$head_node:{job.port}"',
        f"--no-python actiontrain {shlex.join(arguments)}",
    ]
    return (
        "\n".join(
            [
                *lines,
                "# All processes meet at the first node of the job.",
                'head_node=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
                "",
                " \\\n  ".join(torchrun),
            ]
        )
        + "\n"
    )


_OURS = ("--run", "--resume", "--device", "--devices", "--nodes", "--threads")


def _check(job: SlurmJob, fit: Sequence[str]) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", job.run):
        raise UserError(
            "The run name is also the name of the job and of its files. It may contain letters, digits and . _ -, and "
            f"starts with a letter or digit; got {job.run!r}."
        )
    for name, minimum in (("nodes", 1), ("gpus", 0), ("cpus", 1)):
        if getattr(job, name) < minimum:
            raise UserError(f"--{name} must be at least {minimum}, got {getattr(job, name)}.")
    if job.time is not None and not _TIME.match(job.time):
        raise UserError(
            "--time must be minutes, hours:minutes:seconds or days-hours:minutes:seconds (12:00:00, 2-00:00:00); got "
            f"{job.time!r}."
        )
    if job.memory is not None and not _MEMORY.match(job.memory):
        raise UserError(f"--memory must be a number followed by K, M, G or T (64G), per node; got {job.memory!r}.")
    bad = [option for option in job.options if not option.startswith("--")]
    if bad:
        raise UserError(
            f"--option must be an option of sbatch, for example --option=--constraint=a100; got {bad[0]!r}."
        )
    conflicting = [argument for argument in fit if argument.partition("=")[0] in _OURS]
    if conflicting:
        raise UserError(
            f"The job script sets {conflicting[0]} itself. Remove it after -- and use the options of 'actiontrain slurm' "
            "(--run, --nodes, --gpus, --cpus)."
        )
