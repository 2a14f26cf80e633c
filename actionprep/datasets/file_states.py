"""Notice that a file has changed, by its size, times and inode, and by its content where one of these differs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from actionprep.datasets.atomic_files import write_text


@dataclass(frozen=True, slots=True)
class FileState:
    """State of a file at one time.

    A modification time alone does not show a change: `cp -p`, `unzip` and `rsync -t` restore older ones.

    Attributes:
        size: Bytes; -1 if the file does not exist.
        mtime_ns: Modification time.
        ctime_ns: Time of the last change of content or attributes.
        inode: Number of the file in its file system.
    """

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> FileState:
        """Return the state of a file."""
        try:
            stat = path.stat()
        except OSError:
            return cls(-1, -1, -1, -1)
        return cls(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)

    @property
    def exists(self) -> bool:
        """Whether the file existed."""
        return self.size >= 0


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_states(files: Iterable[tuple[str, Path]], path: Path) -> None:
    """Write state and digest of files as JSON, by the given names."""
    document = {}
    for name, file in files:
        state = FileState.of(file)
        if state.exists:
            document[name] = {**asdict(state), "sha256": digest_of(file)}
    write_text(path, json.dumps(document, indent=1))


def changed_file(files: Mapping[str, Path], path: Path, *, ignore: str = "") -> str:
    """Find a file that has changed since `write_states`.

    Args:
        files: The files of today, by name.
        path: What `write_states` wrote.
        ignore: Name of a file that is not compared.

    Returns:
        The first change, as the beginning of a sentence; empty if there is none.
    """
    try:
        recorded = json.loads(path.read_text(encoding="utf-8"))
        before = {
            str(name): (FileState(*(int(entry[key]) for key in FileState.__slots__)), str(entry["sha256"]))
            for name, entry in recorded.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "The last scan did not record the state of its tables"
    for name in before.keys() - {ignore}:
        if name not in files or not FileState.of(files[name]).exists:
            return f"{name} was removed since the last scan"
    for name, file in files.items():
        if name == ignore:
            continue
        if name not in before:
            return f"{name} is new since the last scan"
        state, digest = before[name]
        if FileState.of(file) != state and digest_of(file) != digest:
            return f"{name} has changed since the last scan"
    return ""
