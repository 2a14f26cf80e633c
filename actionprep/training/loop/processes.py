"""Processes of one training: which one writes, and the shared folder of the run."""

from __future__ import annotations

import os
import time
from pathlib import Path

from actionprep.errors import SetupError
from actionprep.training.run import FACTS, Run


def is_first_process() -> bool:
    """Return whether this is the process of a training that writes files. The others only compute."""
    if "RANK" in os.environ:
        # torchrun numbers processes itself, independent of SLURM's order of nodes.
        return os.environ["RANK"] == "0"
    return all(os.environ.get(name, "0") == "0" for name in ("SLURM_PROCID", "LOCAL_RANK", "NODE_RANK"))


def shared_folder(folder: Path, *, multiple: bool) -> Path:
    """Return the folder of a run, the same in all processes of one command, although each has its own clock."""
    if not multiple:
        return folder
    if is_first_process():
        os.environ[_FOLDER_VARIABLE] = str(folder.resolve())
    return Path(os.environ.get(_FOLDER_VARIABLE, folder))


def wait_for_run(run: Run, seconds: float = 300.0) -> None:
    """Wait until the first process has written the folder of the run.

    Raises:
        SetupError: If that takes longer than `seconds`.
    """
    deadline = time.monotonic() + seconds
    while not (run.folder / FACTS).exists():
        if time.monotonic() > deadline:
            raise SetupError(
                f"The first process of this training has not created {run.folder} within {seconds:.0f} s. With several "
                "machines, the folder must be on a shared disk."
            )
        time.sleep(0.2)


_FOLDER_VARIABLE = "ACTIONPREP_RUN_FOLDER"
