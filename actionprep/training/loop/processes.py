"""Processes of one training: which of them writes, and where its run lies."""

from __future__ import annotations

import os
import time
from pathlib import Path

from actionprep.errors import SetupError
from actionprep.training.run import FACTS, Run


def is_first_process() -> bool:
    """Whether this process is the one of its training that writes; the others only compute."""
    if "RANK" in os.environ:
        # torchrun numbers processes by itself, not by SLURM's order of nodes.
        return os.environ["RANK"] == "0"
    return all(os.environ.get(name, "0") == "0" for name in ("SLURM_PROCID", "LOCAL_RANK", "NODE_RANK"))


def shared_folder(folder: Path, *, several: bool) -> Path:
    """The run's folder, the same in all processes that one command starts, though each might name it by its own clock."""
    if not several:
        return folder
    if is_first_process():
        os.environ[_FOLDER_OF_ALL] = str(folder.resolve())
    return Path(os.environ.get(_FOLDER_OF_ALL, folder))


def wait_for_run(run: Run, seconds: float = 300.0) -> None:
    """Let the first process write the run's folder before the others read it."""
    until = time.monotonic() + seconds
    while not (run.folder / FACTS).exists():
        if time.monotonic() > until:
            raise SetupError(
                f"The first process of this training has not made {run.folder} in {seconds:.0f} s. On several machines "
                "the folder must be on a disk that all of them see."
            )
        time.sleep(0.2)


_FOLDER_OF_ALL = "ACTIONPREP_RUN_FOLDER"
