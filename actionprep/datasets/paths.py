"""Resolve names and paths that come from data: what is read, written or deleted stays below its root."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from actionprep.errors import SetupError, UserError

MAX_NAME_BYTES = 255
MAX_PATH_BYTES = 4095
"""Bytes of one part and of a whole path that common file systems allow."""

MAX_NAMES_BYTES = 2048
"""Bytes of a relative path that comes from data, so that there is room for its root and the files below it."""

_MAX_SAFE_BYTES = 150
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")
_UNSAFE = re.compile(r'[\x00-\x1f\x7f-\x9f\u2028\u2029<>:"|?*/\\]+')


def below(root: str | Path, *names: str, follow_links: bool = False) -> Path:
    """Join names that come from data to a folder, and refuse those that lead out of it.

    Args:
        root: Folder that the path must stay in. It may be a link itself: the user chose it.
        names: Names or relative paths with slashes.
        follow_links: Allow symbolic links below `root` that lead out of it. For places where users put such links, as in
            the store; otherwise a link that leads out is refused too.

    Returns:
        The joined path, not resolved.

    Raises:
        UserError: If a name is empty, absolute, too long, has a NUL or a part `.` or `..`, or leads out through a link.
    """
    root = Path(root)
    for name in names:
        problem = name_problem(name)
        if problem:
            raise UserError(
                f"{_shown(name)} cannot name a file or folder below {root}: {problem}. Correct the name where it comes from "
                "(a store, run, checkpoint, archive or table), or delete that entry."
            )
    path = root.joinpath(*names)
    if len(os.fsencode(path)) > MAX_PATH_BYTES:
        raise UserError(
            f"The path of {_shown(names[-1])} below {root} has {len(os.fsencode(path))} bytes, and at most "
            f"{MAX_PATH_BYTES} are possible. Shorten the names."
        )
    if not follow_links:
        real_path, real_root = _resolved(path), _resolved(root)
        if not real_path.is_relative_to(real_root):
            raise UserError(
                f"{path} leads through a symbolic link to {real_path}, which is not in {real_root}. Nothing is read or "
                "written there. Replace the link by the file or folder itself, or delete the link."
            )
    return path


def name_problem(name: str) -> str:
    """Return why a relative path with slashes cannot name something below a folder; empty if it can."""
    if is_plain(name):
        return ""
    if not name:
        return "it is empty"
    if "\0" in name:
        return "it has a NUL character"
    if name.startswith("/") or "\\" in name:
        return "it has a backslash" if "\\" in name else "it is an absolute path"
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts):
        return "its parts must not be empty, '.' or '..'"
    if len(os.fsencode(name)) > MAX_NAMES_BYTES:
        return f"it has {len(os.fsencode(name))} bytes, and at most {MAX_NAMES_BYTES} are possible"
    longest = max(len(os.fsencode(part)) for part in parts)
    if longest > MAX_NAME_BYTES:
        return f"it has a part of {longest} bytes, and at most {MAX_NAME_BYTES} are possible"
    return ""


def is_plain(name: str) -> bool:
    """Return whether a relative path is short, of ASCII letters, digits, `_`, `-` and `.`, without parts `.` and `..`.

    Most names are, and a plan checks hundreds of thousands. Other names can be valid as well; see `name_problem`.
    """
    return len(name) <= MAX_NAME_BYTES and _PLAIN.fullmatch(name) is not None


def safe_name(text: str) -> str:
    """Return a file name for a text that comes from data, such as a recording's id.

    Slashes, control characters and characters that some file systems refuse become underscores, dots at the beginning
    are removed. A long name is cut and ends in a hash of the full text, so that two long names stay different.
    """
    name = _UNSAFE.sub("_", text).lstrip(".") or "_"
    if len(os.fsencode(name)) > _MAX_SAFE_BYTES:
        code = hashlib.sha256(os.fsencode(text)).hexdigest()[:8]
        name = f"{os.fsencode(name)[: _MAX_SAFE_BYTES - 9].decode(errors='ignore')}-{code}"
    return name


def safe_names(texts: Iterable[str]) -> dict[str, str]:
    """Return a different file name for each text that comes from data, also where letters differ in case only.

    Args:
        texts: Texts such as labels. Each counts once.

    Returns:
        Text → `safe_name` of the text, which ends in a hash of the text if the name is taken.
    """
    names: dict[str, str] = {}
    taken: set[str] = set()
    for text in dict.fromkeys(texts):
        name = safe_name(text)
        if name.casefold() in taken:
            name = f"{name}-{hashlib.sha256(os.fsencode(text)).hexdigest()[:8]}"
        taken.add(name.casefold())
        names[text] = name
    return names


def no_link(path: Path) -> Path:
    """Remove a symbolic link at a path and return the path: what is written next does not reach the link's target.

    Opening a path for writing follows a link, and would replace the content of the file that it leads to.
    """
    if path.is_symlink():
        path.unlink()
    return path


def walk(root: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Walk folders as `os.walk` does, through symbolic links to folders too.

    Each folder comes once: under its own name if it is below `root`, otherwise under the
    first link in the order of names. Links to folders that `root` lies in are loops and are left out.

    Args:
        root: Folder to start from.

    Yields:
        Path, names of the folders and names of the files in it. As with `os.walk`, names that are removed from the list
        of folders are not visited. Links that are removed from the list of files are not checked.

    Raises:
        SetupError: If a link leads to something that does not exist, such as a disk that is not mounted: its content
            would count as lost.
    """
    real_root = _resolved(root)
    seen: set[tuple[int, int]] = set()
    waiting = [root]
    while waiting:
        links: list[Path] = []
        for top in waiting:
            for folder, below_it, files in os.walk(top):
                status = os.stat(folder)
                identity = status.st_dev, status.st_ino
                if identity in seen:
                    below_it.clear()
                    continue
                seen.add(identity)
                path = Path(folder)
                below_it.sort()
                yield path, below_it, files
                for name in files:
                    if name != "zarr.json" and not name.startswith(".") and (path / name).is_symlink():
                        check_link(path / name)
                links += [path / name for name in below_it if (path / name).is_symlink()]
        waiting = sorted(link for link in links if not real_root.is_relative_to(_resolved(link)))


def check_link(path: Path) -> None:
    """Raise SetupError for a symbolic link to something that does not exist."""
    if path.is_symlink() and not path.exists():
        raise SetupError(
            f"{path} is a symbolic link to {os.readlink(path)}, which does not exist or leads back to itself.\n"
            "Mount the disk that it is on, or delete the link: its content then counts as never built."
        )


def _resolved(path: Path) -> Path:
    # `Path.resolve` raises RuntimeError for loops of links, which `os.path.realpath` leaves as they are.
    return Path(os.path.realpath(path))


def _shown(name: str) -> str:
    """Return a name from data for a message: control characters escaped, long names cut."""
    text = repr(name)
    return text if len(text) <= 80 else f"{text[:60]}…' ({len(name)} characters)"
