"""Files of a store, on a local disk or behind an fsspec URL, for reading."""

from __future__ import annotations

import errno
import os
from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path
from typing import Any

from actionprep.errors import SetupError, UserError

_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR}


class StoreFiles(ABC):
    """Reads files and lists folders by their path in the store; "" is the store itself."""

    @abstractmethod
    def read(self, path: str) -> bytes | None:
        """Bytes of a file: None where there is none, and nothing (b"") where the disk cannot read it."""

    @abstractmethod
    def folders(self, path: str) -> list[str]:
        """Names of the folders in a folder, sorted, without those that begin with a dot."""

    @abstractmethod
    def open_array(self, path: str) -> Any:
        """The array at a path, opened by zarr-python."""


class LocalFiles(StoreFiles):
    """Files of a store on a local disk."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, path: str) -> bytes | None:
        """Bytes of a file; raises SetupError where the system refuses to open it."""
        try:
            return (self.root / path).read_bytes()
        except OSError as error:
            if error.errno in _ABSENT:
                return None
            if error.errno == errno.EIO:
                return b""
            raise SetupError(f"Cannot read {self.root / path}: {error.strerror}.") from error

    def folders(self, path: str) -> list[str]:
        """Names of the folders in a folder; links to folders do not count."""
        try:
            with os.scandir(self.root / path) as entries:
                return sorted(
                    entry.name for entry in entries if entry.name[0] != "." and entry.is_dir(follow_symlinks=False)
                )
        except (FileNotFoundError, NotADirectoryError):
            return []

    def open_array(self, path: str) -> Any:
        """The array at a path, opened by zarr-python."""
        import zarr

        return zarr.open_array(str(self.root / path), mode="r")


class RemoteFiles(StoreFiles):
    """Files of a store behind a URL that zarr-python opens."""

    def __init__(self, url: str) -> None:
        """Raises UserError when there is no Zarr hierarchy."""
        self.url = url

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self.url}

    @cached_property
    def _root(self) -> Any:
        import zarr

        try:
            return zarr.open_group(self.url, mode="r").store_path
        except FileNotFoundError:
            raise UserError(f"No store at {self.url}.") from None

    def read(self, path: str) -> bytes | None:
        """Bytes of a file."""
        from zarr.core.sync import sync

        found = sync((self._root / path).get())
        return None if found is None else bytes(found.to_bytes())

    def folders(self, path: str) -> list[str]:
        """Names of the folders in a folder."""
        from zarr.core.sync import sync

        place = self._root / path

        async def names() -> list[str]:
            return [name async for name in place.store.list_dir(place.path)]

        # A listing gives files too, of which a store has only these two kinds beside its folders.
        found = {name.rstrip("/") for name in sync(names())}
        return sorted(name for name in found if name and name[0] != "." and name != "zarr.json")

    def open_array(self, path: str) -> Any:
        """The array at a path, opened by zarr-python."""
        import zarr

        return zarr.open_array(self.url, path=path, mode="r")
