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
    """An error whose text is meant for the person at the keyboard; commands print it without a traceback.

    exit_code: what a command ends with.
    """

    exit_code = 1


class UserError(ActionprepError, ValueError):
    """Something was asked for that cannot be done as asked: a wrong option, name, file or combination."""

    exit_code = 2


class SetupError(ActionprepError, RuntimeError):
    """The machine lacks something (a backend, weights, room on the disk): work stops at once, no input is blamed."""


class InputError(ActionprepError):
    """One input is damaged or unusable: its item is quarantined and the build of the others continues.

    frame: index of the frame at which it happened, where known; backend: what was reading or computing; derived: only
    the consequence of another problem of the same view.
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
"""Backend of the problems that `read_error` makes: another try may succeed."""

_CANNOT_READ = "cannot be read: "


def read_error(path: str | Path, error: OSError) -> InputError:
    """Make the problem of an input that the system cannot read.

    Args:
        path: The file.
        error: What the system reported.

    Returns:
        A problem with the system's words. The file itself may be sound, so it is read again by the next command.
    """
    name = errno.errorcode.get(error.errno or 0, "")
    code = f" ({name})" if name else ""
    return InputError(f"{path}: {_CANNOT_READ}{error.strerror or error}{code}", backend=READ_ERROR)


def is_read_error(reason: str) -> bool:
    """Whether a reason without its path is one of `read_error`."""
    return reason.startswith(_CANNOT_READ)


@contextmanager
def explained_read_errors(path: str | Path) -> Iterator[None]:
    """Turn an error of the system while an input is read into the InputError of `read_error`.

    Libraries raise OSError without an error number for content that they do not understand: those pass.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise read_error(error.filename if isinstance(error.filename, str) else path, error) from error


def nearest(word: str, known: Iterable[str]) -> str:
    """Name the nearest known word: " Did you mean 'stride'?", or "" when none is near.

    Dashes at the start and between words do not count: they would make all options alike.
    """
    names: dict[str, str] = {}
    for name in known:
        names.setdefault(_letters(name), name)
    matches = difflib.get_close_matches(_letters(word), list(names), n=1, cutoff=0.65)
    return f" Did you mean '{names[matches[0]]}'?" if matches else ""


def _letters(word: str) -> str:
    return word.lstrip("-").replace("-", "").replace("_", "").casefold()


def nearest_few(word: str, known: Iterable[str], *, count: int = 3) -> list[str]:
    """The known words that are like this one, the nearest first; none where none is near."""
    names = list(known)
    found = difflib.get_close_matches(word, names, n=max(len(names), 1), cutoff=0.0)
    # Half of the letters alike, or the word is a part of it, as "tcn" is of "skeleton-tcn".
    return [one for one in found if word in one or difflib.SequenceMatcher(None, one, word).ratio() >= 0.5][:count]


def name_list(names: Sequence[str], limit: int = 6) -> str:
    """Join names for a message: "a, b, c and 4 more" if there are more than `limit`."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


@contextmanager
def explained_disk_errors(place: Path) -> Iterator[None]:
    """Turn an error of the disk that is written to, or a move between two disks, into a SetupError with advice."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise SetupError(
                f"No room left on the disk of {place} ({error.strerror}). Every committed item is whole.\n"
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
                "A part of the store may lie on another disk behind a symbolic link to its folder; a folder that is mounted "
                "into the store cannot. Replace the mount by a link, or set 'store' under [study] in actionprep.toml to a "
                "folder that is on one disk as a whole."
            ) from error
        if error.errno == errno.EFBIG:
            raise SetupError(
                f"{error.filename or place} would become larger than the system allows ({error.strerror}).\n"
                "Raise the limit ('ulimit -f'), or use a disk that takes larger files: FAT32 ends at 4 GiB."
            ) from error
        if error.errno == errno.EIO:
            raise SetupError(
                f"The disk of {place} fails ({error.strerror}). Every committed item is whole.\n"
                "Look at the disk or its connection, then run the same command again."
            ) from error
        if error.errno in _NO_FOLDER and (obstacle := file_on_the_way(error.filename)) is not None:
            raise SetupError(
                f"{obstacle} is a file, where a folder is expected. Move it away, then run the same command again."
            ) from error
        raise


def file_on_the_way(path: object) -> Path | None:
    """The first part of a path that is there and is no folder; None where all are, or the path is none."""
    if not isinstance(path, str | Path):
        return None
    parts = [Path(path), *Path(path).parents]
    return next((part for part in reversed(parts) if part.exists() and not part.is_dir()), None)


def discard(path: Path) -> None:
    """Delete a draft where there is one; an error of that must not hide the error that left the draft behind."""
    with suppress(OSError):
        path.unlink(missing_ok=True)
