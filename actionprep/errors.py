"""Errors for users. Each names what was expected, what was found, where, and what to do."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}
_NO_WRITING = {errno.EROFS, errno.EACCES, errno.EPERM}
_NO_FOLDER = {errno.ENOTDIR, errno.EEXIST, errno.EISDIR}


class ActionprepError(Exception):
    """Base class of errors with a message for users. Commands print it without a traceback.

    Attributes:
        exit_code: Exit code of the command.
    """

    exit_code = 1


class UserError(ActionprepError, ValueError):
    """A request that cannot be fulfilled: an invalid option, name, file or combination."""

    exit_code = 2


class SetupError(ActionprepError, RuntimeError):
    """Something is missing on this machine (a backend, weights, disk space). The build stops; no item is quarantined."""


class InputError(ActionprepError):
    """One input is damaged or unusable: its item is quarantined and the build of the others continues.

    Attributes:
        reason: What is wrong.
        frame: Index of the frame, if known.
        backend: What was reading or computing.
        derived: Whether the error only follows from another error of the same view.
    """

    def __init__(
        self, reason: str, *, frame: int | None = None, backend: str | None = None, derived: bool = False
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.frame = frame
        self.backend = backend
        self.derived = derived

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_input_error, (self.reason, self.frame, self.backend, self.derived)


def _rebuild_input_error(reason: str, frame: int | None, backend: str | None, derived: bool) -> InputError:
    # Exceptions with keyword-only arguments do not survive pickling between worker processes by themselves.
    return InputError(reason, frame=frame, backend=backend, derived=derived)


READ_ERROR = "read error"
"""Backend of errors from `read_error`, which may not occur on another attempt."""

_CANNOT_READ = "cannot be read: "


def read_error(path: str | Path, error: OSError) -> InputError:
    """Create the error of an input that the operating system cannot read.

    Args:
        path: The file.
        error: Error of the system.

    Returns:
        An error with the message of the system. The file may be intact, so the next command reads it again.
    """
    name = errno.errorcode.get(error.errno or 0, "")
    code = f" ({name})" if name else ""
    return InputError(f"{path}: {_CANNOT_READ}{error.strerror or error}{code}", backend=READ_ERROR)


def is_read_error(reason: str) -> bool:
    """Return whether a reason, without its path, comes from `read_error`."""
    return reason.startswith(_CANNOT_READ)


@contextmanager
def explained_read_errors(path: str | Path) -> Iterator[None]:
    """Turn an error of the system while an input is read into the InputError of `read_error`.

    Libraries raise OSError without an error number for invalid content; these errors are not changed.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise read_error(error.filename if isinstance(error.filename, str) else path, error) from error


def nearest(word: str, known: Iterable[str]) -> str:
    """Suggest the nearest known word: " Did you mean 'stride'?", or "" if none is similar.

    Dashes are ignored, because they would make all options similar.
    """
    names: dict[str, str] = {}
    for name in known:
        names.setdefault(_letters(name), name)
    matches = difflib.get_close_matches(_letters(word), list(names), n=1, cutoff=0.65)
    return f" Did you mean '{names[matches[0]]}'?" if matches else ""


def _letters(word: str) -> str:
    return word.lstrip("-").replace("-", "").replace("_", "").casefold()


def nearest_few(word: str, known: Iterable[str], *, count: int = 3) -> list[str]:
    """Return the known words that are similar to a word, nearest first."""
    names = list(known)
    matches = difflib.get_close_matches(word, names, n=max(len(names), 1), cutoff=0.0)
    # Half of the letters match, or the word is part of the name, as "tcn" is of "skeleton-tcn".
    return [name for name in matches if word in name or difflib.SequenceMatcher(None, name, word).ratio() >= 0.5][
        :count
    ]


def name_list(names: Sequence[str], limit: int = 6) -> str:
    """Join names for a message: "a, b, c and 4 more" if there are more than `limit`."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def first_lines(lines: Iterable[str], limit: int = 8) -> list[str]:
    """Return the lines of a message, or the first `limit` and "and 4 more"."""
    lines = list(lines)
    return lines if len(lines) <= limit else [*lines[:limit], f"and {len(lines) - limit} more"]


@contextmanager
def explained_disk_errors(place: Path) -> Iterator[None]:
    """Turn a disk error during writing into a SetupError with advice."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise SetupError(
                f"No space left on the disk of {place} ({error.strerror}). Committed items are complete.\n"
                "Free some space, then run the same command again: it resumes where it stopped."
            ) from error
        if error.errno in _NO_WRITING:
            raise SetupError(
                f"Cannot write to {error.filename or place} ({error.strerror}).\n"
                "Make it writable, or set 'store' under [study] in actionprep.toml to a folder that is."
            ) from error
        if error.errno == errno.EXDEV:
            raise SetupError(
                f"Cannot move {error.filename} to {error.filename2 or place}: they are on different disks or mounts.\n"
                "A folder of the store can be a symbolic link to another disk, but not a mount. Replace the mount by a "
                "link, or set 'store' under [study] in actionprep.toml to a folder on a single disk."
            ) from error
        if error.errno == errno.EFBIG:
            raise SetupError(
                f"{error.filename or place} would become larger than the system allows ({error.strerror}).\n"
                "Raise the limit ('ulimit -f'), or use a disk that supports larger files: the limit of FAT32 is 4 GiB."
            ) from error
        if error.errno == errno.EIO:
            raise SetupError(
                f"The disk of {place} reports an error ({error.strerror}). Committed items are complete.\n"
                "Check the disk and its connection, then run the same command again."
            ) from error
        if error.errno in _NO_FOLDER and (obstacle := file_on_the_way(error.filename)) is not None:
            raise SetupError(
                f"{obstacle} is a file, but must be a folder. Move it away, then run the same command again."
            ) from error
        raise


def file_on_the_way(path: object) -> Path | None:
    """Return the first part of a path that exists and is not a folder; None if there is none."""
    if not isinstance(path, str | Path):
        return None
    parts = [Path(path), *Path(path).parents]
    return next((part for part in reversed(parts) if part.exists() and not part.is_dir()), None)


def discard(path: Path) -> None:
    """Delete a draft, if any. Errors are ignored, so that they do not hide the error that left the draft behind."""
    with suppress(OSError):
        path.unlink(missing_ok=True)
