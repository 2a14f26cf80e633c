"""Files of a store in an S3 bucket, through obstore: read, list, write with conditions, delete."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

from actionprep.datasets.store.files import StoreFiles
from actionprep.datasets.store.index import Signature
from actionprep.errors import SetupError, UserError

SCHEME = "s3://"

# Requests that run at the same time. Each waits for the network most of the time.
_CONCURRENT = 16
# How long a request is sent again before the storage counts as gone, in seconds. All requests may be repeated: content does
# not change under its name, and builders that wait for a conditional write check what it left.
RETRY_S = 60.0
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0
# A shard of 32 MiB passes a connection of 300 kB/s in this time.
_TIMEOUT = "120s"

_Result = TypeVar("_Result")
_Argument = TypeVar("_Argument")


class ExistsError(Exception):
    """A conditional write failed: the object exists, or it is no longer the one that was read."""


class ObjectFiles(StoreFiles):
    """Objects below s3://BUCKET/PREFIX. Endpoint, region and keys come from the variables AWS_*.

    It has a folder where objects have a common prefix. Objects are replaced as a whole, so a reader sees the old content
    or the new one.
    """

    def __init__(self, url: str) -> None:
        """Describe the place.

        Raises:
            UserError: If the URL has no bucket.
            SetupError: If obstore is not installed.
        """
        self.url = url.rstrip("/")
        parts = urlsplit(self.url)
        self._bucket, self._prefix = parts.netloc, parts.path.strip("/")
        if not self._bucket:
            raise UserError(f"The store {url} names no bucket. Write s3://BUCKET/FOLDER.")
        try:
            import obstore.store  # noqa: F401
        except ImportError:
            raise SetupError(
                f"The store {self.url} needs obstore, which is not installed.\n"
                "Install it with: pip install 'actionprep[s3]'"
            ) from None

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_objects"}

    @cached_property
    def _objects(self) -> Any:
        from obstore.store import S3Store

        with self._explained():
            return S3Store(
                self._bucket,
                prefix=self._prefix or None,
                client_options={"allow_http": True, "timeout": _TIMEOUT},
                retry_config={"max_retries": 0},
            )

    def read(self, path: str) -> bytes | None:
        """Content of an object; None where there is none."""
        try:
            return self._try(lambda: bytes(self._objects.get(path).bytes()))
        except FileNotFoundError:
            return None

    def read_end(self, path: str, nbytes: int) -> tuple[bytes, int] | None:
        """The last bytes of an object and its full size; None where there is none."""

        def get() -> tuple[bytes, int]:
            result = self._objects.get(path, options={"range": {"suffix": nbytes}})
            return bytes(result.bytes()), int(result.meta["size"])

        try:
            return self._try(get)
        except FileNotFoundError:
            return None

    def read_range(self, path: str, start: int, stop: int) -> bytes | None:
        """A part of an object; None where there is none."""
        try:
            return self._try(lambda: bytes(self._objects.get_range(path, start=start, end=stop)))
        except FileNotFoundError:
            return None

    def read_tagged(self, path: str) -> tuple[bytes, str, float] | None:
        """Content, tag (ETag) and time of the last change in seconds since 1970, by the clock of the storage."""

        def get() -> tuple[bytes, str, float]:
            result = self._objects.get(path)
            return bytes(result.bytes()), str(result.meta["e_tag"]), result.meta["last_modified"].timestamp()

        try:
            return self._try(get)
        except FileNotFoundError:
            return None

    def read_many(self, paths: Iterable[str]) -> Iterator[bytes | None]:
        """Contents of objects, in the order of their paths."""
        return _concurrently(self.read, paths)

    def exists(self, path: str) -> bool:
        """Whether there is an object."""
        return self.signature(path) is not None

    def signature(self, path: str) -> Signature | None:
        """State of an object; None where there is none."""
        try:
            return _signature(self._try(lambda: self._objects.head(path)))
        except FileNotFoundError:
            return None

    def write(self, path: str, content: bytes, *, condition: Literal["absent"] | None = None) -> None:
        """Write an object.

        Args:
            path: Its path.
            content: Its content.
            condition: "absent" writes only where there is no object.

        Raises:
            ExistsError: If the condition does not hold.
        """
        mode: Any = "overwrite" if condition is None else "create"
        self._put(path, content, mode)

    def replace(self, path: str, content: bytes, tag: str) -> None:
        """Write an object only if it still has this tag; raises ExistsError if it does not."""
        self._put(path, content, {"e_tag": tag})

    def upload(self, folder: Path, path: str) -> None:
        """Write all files of a folder of this machine below a path."""

        def send(file: Path) -> None:
            self.write(f"{path}/{file.relative_to(folder).as_posix()}", file.read_bytes())

        for _ in _concurrently(send, [file for file in sorted(folder.rglob("*")) if file.is_file()], workers=4):
            pass

    def delete(self, paths: Iterable[str]) -> None:
        """Delete objects; those that do not exist count as deleted."""
        paths = list(paths)
        for start in range(0, len(paths), 1000):
            self._try(partial(self._objects.delete, paths[start : start + 1000]))

    def delete_below(self, path: str, *, keep: str | None = None) -> None:
        """Delete all objects below a path, except the one at `keep`."""
        self.delete(name for name in self.signatures(path) if name != keep)

    def folders(self, path: str) -> list[str]:
        """Names of the folders in a folder, sorted, without those that begin with a dot."""
        return [name for name in self.all_folders(path) if name[0] != "."]

    def all_folders(self, path: str) -> list[str]:
        """Names of the folders in a folder, sorted."""
        listed = self._try(lambda: self._objects.list_with_delimiter(path or None))
        return sorted(prefix.rstrip("/").rpartition("/")[2] for prefix in listed["common_prefixes"])

    def names(self, path: str) -> list[str]:
        """Names of the objects directly in a folder, sorted."""
        listed = self._try(lambda: self._objects.list_with_delimiter(path or None))
        return sorted(entry["path"].rpartition("/")[2] for entry in listed["objects"])

    def signatures(self, path: str) -> dict[str, Signature]:
        """States of all objects below a path, by their sorted paths."""

        def entries() -> list[Any]:
            return [entry for part in self._objects.list(path or None) for entry in part]

        return {entry["path"]: _signature(entry) for entry in sorted(self._try(entries), key=lambda each: each["path"])}

    def walk(self, path: str) -> Iterator[tuple[str, list[str], list[str]]]:
        """Walk folders from a path, as `os.walk` does, without those that begin with a dot."""
        listed = self._try(lambda: self._objects.list_with_delimiter(path or None))
        names = sorted(prefix.rstrip("/").rpartition("/")[2] for prefix in listed["common_prefixes"])
        names = [name for name in names if name[0] != "."]
        yield path, names, sorted(entry["path"].rpartition("/")[2] for entry in listed["objects"])
        for name in names:
            yield from self.walk(f"{path}/{name}" if path else name)

    def open_array(self, path: str) -> Any:
        """The array at a path, opened by zarr-python."""
        import zarr
        from zarr.storage import ObjectStore

        return zarr.open_array(ObjectStore(self._objects, read_only=True), path=path, mode="r")

    def _put(self, path: str, content: bytes, mode: Any) -> None:
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        def put() -> None:
            # One request for each object: an interrupted upload of many parts would stay, and no listing shows it.
            self._objects.put(path, content, mode=mode, use_multipart=False)

        try:
            self._try(put)
        except (AlreadyExistsError, PreconditionError) as error:
            raise ExistsError(path) from error

    def _try(self, request: Callable[[], _Result]) -> _Result:
        """Send a request, again if the connection or the server fails; the last failure is a SetupError."""
        from obstore.exceptions import GenericError

        until, pause = time.monotonic() + RETRY_S, _FIRST_PAUSE_S
        with self._explained():
            while True:
                try:
                    return request()
                except GenericError:
                    if time.monotonic() > until:
                        raise
                time.sleep(pause * random.uniform(0.5, 1.5))
                pause = min(2 * pause, _LONGEST_PAUSE_S)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        from obstore.exceptions import (
            AlreadyExistsError,
            BaseError,
            PermissionDeniedError,
            PreconditionError,
            UnauthenticatedError,
        )

        try:
            yield
        except (AlreadyExistsError, PreconditionError):
            raise
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise SetupError(
                f"The storage refuses access to {self.url}: {_first_line(error)}\n"
                "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to keys that may read, list, write and delete there."
            ) from error
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error):
                raise SetupError(
                    f"There is no bucket '{self._bucket}' for the store {self.url}. Create it with the tool of your "
                    "storage, or correct 'store' in actionprep.toml."
                ) from error
            raise
        except BaseError as error:
            raise SetupError(
                f"The storage of {self.url} does not answer as expected: {_first_line(error)}\n"
                "Check the network and the variables AWS_ENDPOINT_URL and AWS_REGION. Committed items are complete: the "
                "same command resumes."
            ) from error


def _concurrently(
    work: Callable[[_Argument], _Result], arguments: Iterable[_Argument], *, workers: int = _CONCURRENT
) -> Iterator[_Result]:
    arguments = list(arguments)
    if len(arguments) < 2:
        yield from map(work, arguments)
        return
    with ThreadPoolExecutor(min(workers, len(arguments))) as pool:
        yield from pool.map(work, arguments)


def _signature(entry: Any) -> Signature:
    """Describe an object as the index describes files. The tag changes with the content, so it takes the inode's place."""
    tag = int(hashlib.sha256(str(entry["e_tag"]).encode()).hexdigest()[:15], 16)
    return Signature(tag, int(entry["size"]), int(entry["last_modified"].timestamp() * 1e9), 0)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:300]
