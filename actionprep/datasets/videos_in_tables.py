"""Find the video files that a table names, also in the spelling of another machine."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from actionprep.datasets.video_suffixes import VIDEO_SUFFIXES

_FOREIGN = re.compile(r"[a-z]:|[a-z][a-z0-9+.-]*://|/", re.IGNORECASE)
"""Start of a path of another machine: a drive, a URL, or the root."""


@dataclass(frozen=True)
class TableFiles:
    """Files that a table names.

    Attributes:
        paths: The existing file, by what the table calls it.
        problems: For other names, why their file is not used, if there is more to report than that it does not exist.
    """

    paths: Mapping[str, Path] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def find(cls, names: Iterable[str], bases: Sequence[Path]) -> TableFiles:
        """Find the files of the names of one table.

        A name may have backslashes, lack the suffix of a video, or be in another Unicode form than the file. Of an
        absolute path that does not exist, leading folders are dropped until the rest exists below a base. Two paths
        that would become one file this way are not used.

        Args:
            names: Paths as the table has them.
            bases: Folders that relative paths start from, the first one that has the file counts.
        """
        folders = _Folders()
        paths: dict[str, Path] = {}
        shortened: set[str] = set()
        problems: dict[str, str] = {}
        for name in dict.fromkeys(names):
            path, is_shortened = _file(name, bases, folders)
            if path is None:
                continue
            paths[name] = path
            if is_shortened:
                shortened.add(name)
        by_file: dict[Path, list[str]] = {}
        for name, path in paths.items():
            by_file.setdefault(path, []).append(name)
        for path, rivals in by_file.items():
            for name in rivals:
                others = [other for other in rivals if other != name]
                if name in shortened and others:
                    problems[name] = f"'{name}' and '{others[0]}' both look like {path}; a path that is exact is used"
                    del paths[name]
        return cls(paths, problems)


def _file(name: str, bases: Sequence[Path], folders: _Folders) -> tuple[Path | None, bool]:
    """The file that a name means, and whether leading folders were dropped."""
    if not name or "\0" in name:
        return None, False
    for base in bases:
        if os.path.isfile(base / name):  # False also for a name that no disk takes
            return base / name, False
    text = name.replace("\\", "/")
    for base in bases:
        path = folders.find(base, text)
        if path is not None:
            return path, False
    if _FOREIGN.match(text):
        parts = [part for part in re.sub(r"^([a-z]:|[a-z][a-z0-9+.-]*://)", "", text, flags=re.I).split("/") if part]
        for start in range(len(parts)):
            for base in bases:
                path = folders.find(base, "/".join(parts[start:]))
                if path is not None:
                    return path, True
    return None, False


class _Folders:
    """Names in folders, each folder listed once, to find files by Unicode form and without a suffix."""

    def __init__(self) -> None:
        self._listings: dict[Path, dict[str, list[str]]] = {}

    def find(self, base: Path, relative: str) -> Path | None:
        """The file at a relative path; None if there is none, or several videos have that name without suffix."""
        if relative.startswith("/") or ":" in relative.split("/")[0]:
            return None
        path = base
        *above, last = [part for part in relative.split("/") if part not in ("", ".")] or [""]
        for part in above:
            if part == ".." or os.path.isdir(path / part):
                path = path / part
                continue
            named = self._names(path).get(unicodedata.normalize("NFC", part), [])
            if len(named) != 1:
                return None
            path = path / named[0]
        if not last:
            return None
        names = self._names(path).get(unicodedata.normalize("NFC", last), [])
        files = [path / name for name in names if os.path.isfile(path / name)]
        return files[0] if len(files) == 1 else None

    def _names(self, folder: Path) -> dict[str, list[str]]:
        if folder not in self._listings:
            listing: dict[str, list[str]] = {}
            try:
                names = sorted(entry.name for entry in folder.iterdir())
            except OSError:
                names = []
            for name in names:
                listing.setdefault(unicodedata.normalize("NFC", name), []).append(name)
            for name in names:
                stem, dot, suffix = name.rpartition(".")
                stem = unicodedata.normalize("NFC", stem)
                if stem and f"{dot}{suffix.lower()}" in VIDEO_SUFFIXES and stem not in names:
                    listing.setdefault(stem, []).append(name)
            self._listings[folder] = listing
        return self._listings[folder]
