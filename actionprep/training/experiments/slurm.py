"""The job script of a training under SLURM: torchrun on every node, and a training that goes on when it is requeued."""

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
    """One training as SLURM is asked for it.

    run: name of the run; a job that is requeued goes on with the run of that name.
    gpus: processes on each node, one a GPU; 0: one process a node, on its CPUs.
    cpus: CPU cores of each process. time: as SLURM writes it, "12:00:00" or "2-00:00:00".
    setup: shell lines before the training, such as `source venv/bin/activate` or `module load cuda`.
    options: more #SBATCH lines, as "--constraint=a100".
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
    """The text of a job script for sbatch that runs `actiontrain fit` with these words.

    Raises UserError when a request is not in SLURM's form, or the words say what the script itself says.
    """
    _check(job, fit)
    processes = max(job.gpus, 1)
    asked = {
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
    head = [f"#SBATCH --{name}={value}" for name, value in asked.items() if value is not None]
    head += ["#SBATCH --requeue", "#SBATCH --open-mode=append", *(f"#SBATCH {one}" for one in job.options)]
    words = ["fit", *fit, "--run", job.run, "--resume", "--device", "cuda" if job.gpus else "cpu"]
    words += ["--devices", str(processes), "--nodes", str(job.nodes)]
    lines = [
        "#!/bin/bash",
        *head,
        "",
        "set -euo pipefail",
        *job.setup,
        f"export OMP_NUM_THREADS={job.cpus}",
        "# Since version 22.05 srun does not take over the job's --cpus-per-task by itself.",
        'export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"',
    ]
    if job.nodes * processes == 1:
        return "\n".join([*lines, "", f"srun actiontrain {shlex.join(words)}"]) + "\n"
    torchrun = [
        "srun torchrun",
        f"--nnodes={job.nodes}",
        f"--nproc-per-node={processes}",
        '--rdzv-id="$SLURM_JOB_ID"',
        "--rdzv-backend=c10d",
        f'--rdzv-endpoint="$head_node:{job.port}"',
        f"--no-python actiontrain {shlex.join(words)}",
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
            f"The run's name becomes that of the job and of files: letters, digits, . _ -; got {job.run!r}."
        )
    for name, least in (("nodes", 1), ("gpus", 0), ("cpus", 1)):
        if getattr(job, name) < least:
            raise UserError(f"--{name} is at least {least}, got {getattr(job, name)}.")
    if job.time is not None and not _TIME.match(job.time):
        raise UserError(
            f"--time is minutes, hours:minutes:seconds or days-hours:minutes:seconds (12:00:00, 2-00:00:00); got "
            f"{job.time!r}."
        )
    if job.memory is not None and not _MEMORY.match(job.memory):
        raise UserError(f"--memory is a number with K, M, G or T (64G), for each node; got {job.memory!r}.")
    bad = [one for one in job.options if not one.startswith("--")]
    if bad:
        raise UserError(f"--option takes lines of SLURM's own, such as --option=--constraint=a100; got {bad[0]!r}.")
    given = [word for word in fit if word.partition("=")[0] in _OURS]
    if given:
        raise UserError(
            f"The job script itself sets {given[0]}: leave it out after --, and use the options of 'actiontrain slurm' "
            "(--run, --nodes, --gpus, --cpus)."
        )
