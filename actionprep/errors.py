"""The errors that users see: each says what was expected, what came, where, and what to do."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}
_NO_WRITING = {errno.EROFS, errno.EACCES, errno.EPERM}


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
    """One input is damaged or unusable: its item is quarantined and its neighbors go on.

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


def nearest(word: str, known: Iterable[str]) -> str:
    """A sentence part that names the nearest known word: " Did you mean 'stride'?", or "" when nothing is near."""
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" Did you mean '{found[0]}'?" if found else ""


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
    """Turn a full or read-only disk into an SetupError that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise SetupError(
                f"No room left on the disk of {place} ({error.strerror}). Every committed item is whole.\n"
                "Free some space, then run the same command again: it goes on where it stopped."
            ) from error
        if error.errno in _NO_WRITING:
            raise SetupError(
                f"Cannot write to {error.filename or place} ({error.strerror}).\n"
                "Make it writable, or set 'store' under [study] in actionprep.toml to a folder that is."
            ) from error
        raise
