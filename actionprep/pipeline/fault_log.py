"""Report faults of the program in one sentence, and write the traceback to a log."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from actionprep.datasets.paths import no_link
from actionprep.errors import ActionprepError, explained_disk_errors
from actionprep.json_values import printable


class InternalError(ActionprepError):
    """Raised for a fault of the program, not of the input. The message names the file with the traceback."""


@contextmanager
def explained_faults(where: str, log_folder: Path | None) -> Iterator[None]:
    """Convert unexpected exceptions to InternalError, and write their traceback to a log.

    Args:
        where: Item in work, for the message.
        log_folder: Folder of the log. None: the message refers to a traceback printed before it.

    Raises:
        InternalError: If an exception occurs that is not an ActionprepError.
    """
    try:
        yield
    except ActionprepError:
        raise
    except Exception as error:
        text = "".join(traceback.format_exception(error))
        location = "the traceback above" if log_folder is None else str(write_log(log_folder, "fault", where, text))
        raise InternalError(
            f"A fault in the program while working on {where}: {type(error).__name__}: {error}\n"
            f"The traceback is in {location}. Items built before are complete. Please report this with that file."
        ) from error


def write_log(folder: Path, kind: str, where: str, text: str) -> Path:
    """Write a traceback to a new file and return its path.

    Args:
        folder: Folder of the logs, which is created if it does not exist.
        kind: First word of the file name.
        where: Item in work.
        text: The traceback.
    """
    path = folder / f"{kind}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    with explained_disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        no_link(path).write_text(printable(f"{where}\n\n{text}"), encoding="utf-8")
    return path
