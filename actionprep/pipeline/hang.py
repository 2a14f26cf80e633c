"""End a process whose task makes no progress, such as a decoder in an endless loop."""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

# How much later a hang is ended that keeps Python's lock, if another thread of this process should print a message first.
_GRACE_S = 5.0

_lock = threading.RLock()
_watches: list[HangWatch] = []


class HangWatch:
    """Ends this process if `note` is not called for a time.

    A thread outside of Python ends it, so that this also works while C code keeps Python's global lock. Before that, it
    writes the traceback of all threads to a file. A process may have several watches.
    """

    def __init__(self, timeout: float, traceback: IO[bytes], *, grace: float = 0.0) -> None:
        """Begin to watch; `hang_watch` is the public way.

        Args:
            timeout: Seconds without progress.
            traceback: Receives the traceback.
            grace: Seconds more that C code with Python's lock may take.
        """
        self.timeout = timeout
        self.traceback = traceback
        self.limit = timeout + grace
        self.noted = time.monotonic()

    def note(self) -> None:
        """Note that the task makes progress."""
        now = time.monotonic()
        # Arming starts a thread: a block of frames may take less time than that.
        if now - self.noted > min(1.0, self.timeout / 20):
            with _lock:
                self.noted = now
                _arm()


def _arm() -> None:
    """Set the alarm of this process, of which there is only one, for the watch that ends first."""
    if not _watches:
        faulthandler.cancel_dump_traceback_later()
        return
    first = min(_watches, key=lambda watch: watch.noted + watch.limit)
    left = max(first.noted + first.limit - time.monotonic(), 0.01)
    faulthandler.dump_traceback_later(left, exit=True, file=first.traceback)


@contextmanager
def hang_watch(
    mark: os.PathLike[str] | None, timeout: float, *, message: str | None = None
) -> Iterator[HangWatch | None]:
    """End this process if the task in the block makes no progress.

    Args:
        mark: A file that receives the traceback of a process that ends. None: nothing is watched.
        timeout: Seconds without progress; 0: nothing is watched.
        message: Printed to the terminal before the process ends, for a process that a person started.
    """
    if mark is None or timeout <= 0:
        yield None
        return
    with open(mark, "wb") as traceback:
        watch = HangWatch(timeout, traceback, grace=0.0 if message is None else _GRACE_S)
        done = threading.Event()
        if message is not None:
            threading.Thread(target=_end_with, args=(message, watch, done), name="hang-watch", daemon=True).start()
        with _lock:
            _watches.append(watch)
            _arm()
        try:
            yield watch
        finally:
            done.set()
            with _lock:
                _watches.remove(watch)
                _arm()


def _end_with(message: str, watch: HangWatch, done: threading.Event) -> None:
    while not done.wait(max(0.0, watch.noted + watch.timeout - time.monotonic())):
        if time.monotonic() >= watch.noted + watch.timeout:
            # A progress bar may have hidden the cursor.
            shown = "\x1b[?25h\n" if sys.stderr.isatty() else ""
            os.write(2, f"{shown}{message}\n".encode())
            os._exit(1)
