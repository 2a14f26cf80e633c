"""Find HDF5 files on which the HDF5 library loops forever or crashes."""

from __future__ import annotations

import atexit
import json
import os
import select
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from actionprep.errors import InputError, explained_read_errors


class _Checker:
    """A process that reads the structure of files; see `hdf5_structure.py`."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._owner = 0
        self._checked: dict[str, tuple[tuple[int, int, int], bool]] = {}

    def ends(self, path: Path) -> bool:
        """Whether reading the structure of a file ends in time. A file that did not change is read once."""
        state = path.stat()
        version = (state.st_ino, state.st_size, state.st_mtime_ns)
        known = self._checked.get(str(path))
        if known is not None and known[0] == version:
            return known[1]
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(os.path.realpath(path)) + "\n")
            process.stdin.flush()
        except OSError:
            return True  # the process died on an earlier file; the reader itself meets what is wrong
        answered, _, _ = select.select([process.stdout], [], [], _CHECK_S)
        ends = bool(answered) and bool(process.stdout.readline())  # an empty line: the process crashed
        if not ends:
            self.stop()
        if len(self._checked) > _MOST_CHECKED:
            self._checked.clear()
        self._checked[str(path)] = version, ends
        return ends

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None or self._owner != os.getpid() or self._process.poll() is not None:
            script = Path(__file__).with_name("hdf5_structure.py")
            self._process = subprocess.Popen(
                [sys.executable, "-I", str(script)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            self._owner = os.getpid()
        return self._process

    def stop(self) -> None:
        """End the process, if this process started it."""
        if self._process is not None and self._owner == os.getpid():
            with suppress(OSError):
                self._process.kill()
            self._process.communicate()
        self._process = None


_checker = _Checker()
atexit.register(_checker.stop)
_CHECK_S = 30.0  # includes the start of the process on a busy machine
_MOST_CHECKED = 10_000


def check_for_loops(path: Path) -> None:
    """Raise InputError for a file on which the HDF5 library loops or crashes, which no exception would show."""
    with explained_read_errors(path):
        ends = _checker.ends(path)
    if not ends:
        raise InputError(
            f"{path} is not a sound HDF5 file: the HDF5 library crashed on its structure or did not read it within "
            f"{_CHECK_S:g} s. Copy it again, or export it again."
        )
