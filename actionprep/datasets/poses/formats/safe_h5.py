"""Read untrusted HDF5 files: no links to other files, no bombs, no endless loops, and errors that name the file."""

from __future__ import annotations

import atexit
import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actionprep.datasets.poses.formats.safe_npz import FREE_BYTES, MAX_RATIO
from actionprep.errors import InputError, UserError, explained_read_errors

# What h5py raises for damaged content.
_DAMAGE = (OSError, ValueError, TypeError, KeyError, RuntimeError, OverflowError, MemoryError, AttributeError)


@contextmanager
def open_h5(path: str | Path) -> Iterator[H5]:
    """Open an HDF5 file for reading.

    Raises:
        UserError: If there is no such file.
        InputError: If it is damaged, or if it refers to other files.
    """
    import h5py

    path = Path(path)
    if not path.is_file():
        raise UserError(f"No HDF5 file at {path}.")
    with explained_read_errors(path), path.open("rb") as file:
        file.read(1)
    _check_for_loops(path)
    try:
        with h5py.File(path, "r") as opened:
            yield H5(opened, path)
    except _DAMAGE as error:
        if isinstance(error, UserError):
            raise
        raise InputError(f"{path} is not a sound HDF5 file: {error}.") from None


class _Checker:
    """A process that reads the structure of files; see `h5_check.py`."""

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
            script = Path(__file__).with_name("h5_check.py")
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


def _check_for_loops(path: Path) -> None:
    """Raise InputError for a file on which the HDF5 library loops or crashes, which no exception would show."""
    with explained_read_errors(path):
        ends = _checker.ends(path)
    if not ends:
        raise InputError(
            f"{path} is not a sound HDF5 file: the HDF5 library crashed on its structure or did not read it within "
            f"{_CHECK_S:g} s. Copy it again, or export it again."
        )


class H5:
    """An open HDF5 file, of which only data within the file are read."""

    def __init__(self, file: Any, path: Path) -> None:
        self._file, self.path = file, path

    def names(self, group: str = "/") -> tuple[str, ...]:
        """Names in a group; empty if there is no such group."""
        node = self._find(group)
        return tuple(node) if hasattr(node, "keys") else ()

    def __contains__(self, name: str) -> bool:
        return self._find(name) is not None

    def attributes(self, name: str = "/") -> dict[str, Any]:
        """Attributes of a group or array."""
        return dict(self._existing(name).attrs)

    def read(self, name: str) -> NDArray[Any]:
        """Read an array.

        Raises:
            InputError: If there is no such array, if it is in another file, or if it unpacks to far more than the file.
        """
        array = self._existing(name)
        if not hasattr(array, "dtype") or array.shape is None:
            raise InputError(f"'{name}' in {self.path} is no array.")
        if array.is_virtual or array.external:
            raise InputError(f"'{name}' in {self.path} is stored in another file, which is not read.")
        size = int(np.prod(array.shape, dtype=object)) * array.dtype.itemsize
        if size > max(FREE_BYTES, MAX_RATIO * self.path.stat().st_size):
            raise InputError(
                f"'{name}' in {self.path} unpacks to {size / 1e6:.0f} MB, more than {MAX_RATIO} times the file. "
                "Nothing was read."
            )
        return np.asarray(array[()])

    def target(self, name: str) -> str:
        """Return the name that a link within the file leads to; of an array or group, its own name.

        Raises:
            InputError: If the link leads to another file.
        """
        import h5py

        parent, _, last = name.strip("/").rpartition("/")
        group = self._existing(parent or "/")
        link = group.get(last, getlink=True) if isinstance(group, h5py.Group) else None
        if isinstance(link, h5py.SoftLink):
            path = str(link.path)
            return path.strip("/") if path.startswith("/") else f"{parent}/{path}"
        if isinstance(link, h5py.ExternalLink):
            raise InputError(f"'{name}' in {self.path} is a link to another file, which is not followed.")
        return name

    def dimensions(self, name: str) -> tuple[str, ...]:
        """Return the names of the dimensions of an array; "" for those without a dimension scale."""
        scales = self._existing(name).dims
        return tuple(str(scale[0].name).rpartition("/")[2] if len(scale) else "" for scale in scales)

    def texts(self, name: str) -> list[str]:
        """Read a list of texts."""
        values = np.atleast_1d(self.read(name)).reshape(-1)
        return [value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value) for value in values]

    def _existing(self, name: str) -> Any:
        node = self._find(name)
        if node is None:
            raise InputError(f"{self.path} has no '{name}'. It has {', '.join(self.names()) or 'nothing'}.")
        return node

    def _find(self, name: str) -> Any:
        import h5py

        node: Any = self._file
        for part in name.strip("/").split("/"):
            if not part:
                continue
            if not isinstance(node, h5py.Group):
                return None
            link = node.get(part, getlink=True)
            if link is None:
                return None
            if not isinstance(link, h5py.HardLink):
                raise InputError(f"'{name}' in {self.path} is a link, which is not followed.")
            node = node[part]
        return node
