"""Files of a store, on a local disk or behind an fsspec URL, for reading."""

from __future__ import annotations

import errno
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

from actionprep.datasets.paths import check_link, walk
from actionprep.datasets.store.index import Signature
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
    def walk(self, path: str) -> Iterator[tuple[str, list[str], list[str]]]:
        """Walk folders from a path, as `os.walk` does.

        Yields:
            Path, names of the folders (none that begin with a dot) and names of the files in it. As with `os.walk`,
            folders that are taken out of the list are not visited.
        """

    def signature(self, path: str) -> Signature | None:
        """State of a file, which changes with its content; None where there is none, or where none is known."""
        return None

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

    def signature(self, path: str) -> Signature | None:
        """State of a file, through symbolic links."""
        return Signature.of(f"{self.root}/{path}")

    def folders(self, path: str) -> list[str]:
        """Names of the folders in a folder, symbolic links to folders included."""
        try:
            with os.scandir(self.root / path) as entries:
                return sorted(entry.name for entry in entries if entry.name[0] != "." and entry.is_dir())
        except (FileNotFoundError, NotADirectoryError):
            return []

    def walk(self, path: str) -> Iterator[tuple[str, list[str], list[str]]]:
        """Walk folders from a path, through symbolic links to folders: each folder comes once, and loops end.

        Raises:
            SetupError: For a link to something that is not there, in a folder with files that are left in the list.
        """
        check_link(self.root / path)
        for folder, names, files in walk(self.root / path):
            names[:] = [name for name in names if name[0] != "."]
            relative = folder.relative_to(self.root).as_posix()
            yield "" if relative == "." else relative, names, files

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
            return zarr.open_group(self._source(), mode="r").store_path
        except (FileNotFoundError, IsADirectoryError):
            raise UserError(f"No store at {self.url}.") from None

    def _source(self) -> Any:
        """What zarr-python opens: the URL, or a local archive, of which it lists no folders behind a zip:: URL."""
        scheme, chained, inner = self.url.partition("::")
        if not chained or scheme != "zip" or ("://" in inner and not inner.startswith("file://")):
            return self.url
        from zarr.storage import ZipStore

        try:
            return ZipStore(inner.removeprefix("file://"), mode="r")
        except (FileNotFoundError, BadZipFile) as error:
            raise UserError(f"No store at {self.url}: {error}.") from None

    def read(self, path: str) -> bytes | None:
        """Bytes of a file."""
        from zarr.core.sync import sync

        buffer = sync((self._root / path).get())
        return None if buffer is None else bytes(buffer.to_bytes())

    def folders(self, path: str) -> list[str]:
        """Names of the folders in a folder."""
        from zarr.core.sync import sync

        place = self._root / path

        async def names() -> list[str]:
            return [name async for name in place.store.list_dir(place.path)]

        # A listing gives files too, of which a store has only these two kinds beside its folders.
        folders = {name.rstrip("/") for name in sync(names())}
        return sorted(name for name in folders if name and name[0] != "." and name != "zarr.json")

    def walk(self, path: str) -> Iterator[tuple[str, list[str], list[str]]]:
        """Walk folders from a path."""
        names = self.folders(path)
        yield path, names, []
        for name in names:
            yield from self.walk(f"{path}/{name}" if path else name)

    def open_array(self, path: str) -> Any:
        """The array at a path, opened by zarr-python."""
        import zarr

        return zarr.open_array(self._root.store, path=f"{self._root.path}/{path}".strip("/"), mode="r")
