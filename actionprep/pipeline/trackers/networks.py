"""What trackers with a network share: hashes of code and weights, reading weights, the device, and messages."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from actionprep.datasets.zip_checksums import zip_damage
from actionprep.errors import UserError


def device_of(setting: str) -> str:
    """Return the device of the setting `device`, where auto is cuda if there is a GPU."""
    import torch

    if setting == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return setting


def read_weights(weights: Path, title: str, expected: str, url: str) -> Any:
    """Read a checkpoint without running code from it.

    Args:
        weights: The file.
        title: The model, for messages.
        expected: Name of the file as its authors publish it.
        url: Where the file is published.

    Returns:
        The content of the checkpoint, on the CPU.

    Raises:
        UserError: The file is damaged, contains more than weights, or is not a checkpoint.
    """
    import torch

    damage = zip_damage(weights)
    if damage is not None:
        raise UserError(f"{weights} is damaged: {damage}. Download it again from {url}.")
    try:
        return torch.load(weights, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise UserError(
            f"{weights} was not loaded: it contains more than weights, or is not a checkpoint, and loading it could "
            f"run code. Expected the file {expected} of {title} as its authors publish it. "
            f"Get it from {url}. ({str(error).splitlines()[0]})"
        ) from None
    except (RuntimeError, EOFError, OSError) as error:
        raise UserError(
            f"{weights} cannot be read as a checkpoint: {(str(error) or 'it ends early').splitlines()[0]} "
            f"Expected the file {expected} of {title}. Download it again from {url}."
        ) from None


def missing(title: str, what: str, looked_for: str, remedies: Iterable[str]) -> str:
    """Return the message about missing code or weights; `what` is "code" or "weights"."""
    return (
        f"{title} needs its {what}, which {'was' if what == 'code' else 'were'} not found.\n"
        f"  looked for   {looked_for}\n"
        f"  do one of    {' · '.join(remedies)}\n"
        f"  or use       --tracker lk, which needs no weights"
    )


def hash_of_file(file: Path) -> str:
    """Return the SHA-256 of a file, computed once for each time of change."""
    return _hash_of_file(file, file.stat().st_mtime_ns)


@lru_cache(maxsize=8)
def _hash_of_file(file: Path, mtime_ns: int) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hash_of_code(folder: Path, files: Iterable[Path]) -> str:
    """Return the SHA-256 of the names and contents of files in a folder."""
    parts = [f"{file.relative_to(folder).as_posix()} {hashlib.sha256(file.read_bytes()).hexdigest()}" for file in files]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
