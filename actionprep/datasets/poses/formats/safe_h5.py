"""Read untrusted HDF5 files: no links to other files, no bombs, no endless loops, and errors that name the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actionprep.datasets.hdf5_loops import check_for_loops
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
    check_for_loops(path)
    try:
        with h5py.File(path, "r") as opened:
            yield H5(opened, path)
    except _DAMAGE as error:
        if isinstance(error, UserError):
            raise
        raise InputError(f"{path} is not a sound HDF5 file: {error}.") from None


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
