"""Find the recording, and the view, that a name in a table or an annotation file means."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import PurePosixPath

from actionprep.datasets.recordings import View
from actionprep.datasets.video_suffixes import without_video_suffix

_FOREIGN = re.compile(r"[a-z]:|[a-z][a-z0-9+.-]*://|/|\.\.(/|$)", re.IGNORECASE)
"""Start of a path that begins elsewhere than the study: a drive, a URL, the root, or a folder above."""


@dataclass(frozen=True, slots=True)
class _Target:
    """What one name can mean.

    Attributes:
        recording: Id of the recording.
        view: Id of the view, if the name is that of a video.
        is_full: Whether the name is the full id or path, not only its end.
        is_sufficient: Whether the name is long enough for what remains of a path of another machine.
    """

    recording: str
    view: str | None
    is_full: bool
    is_sufficient: bool


@dataclass(frozen=True, slots=True)
class _Match:
    recording: str
    view: str | None
    is_exact: bool
    is_complete: bool
    num_parts: int

    @property
    def rank(self) -> tuple[bool, bool, int]:
        """Larger for better matches: exact, nothing dropped, more parts."""
        return self.is_exact, self.is_complete, self.num_parts


@dataclass(frozen=True)
class ResolvedNames:
    """What the names of one table mean.

    Attributes:
        found: Recording, and view if the name is that of a video, by name. Names that mean none, or several, are absent.
        problems: For the other names, why they mean no recording, to end a sentence with.
    """

    found: Mapping[str, tuple[str, str | None]] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RecordingNames:
    """Names of the recordings of a study.

    A name is a recording's id, the path of one of its videos with or without its suffix, or the end of one of them, as
    long as only one recording has it. A relative path must match completely: `siteB/take_1` never means
    `siteA/take_1`. Of an absolute path, a URL or a path that leads out of the study, leading folders are dropped,
    because annotation tools write paths of the machine they ran on; what remains must contain the id.
    """

    by_name: Mapping[str, frozenset[_Target]]

    @classmethod
    def of(cls, recordings: Iterable[str], views: Iterable[View], *, videos: str = "") -> RecordingNames:
        """Collect the names of recordings and of the files of their views.

        Args:
            recordings: Ids of the recordings.
            views: Their views.
            videos: Folder of the videos, as the paths of the views begin. It is the same for all recordings, so the name
                of a file directly in it is enough.
        """
        by_name: dict[str, set[_Target]] = {}

        def add(name: str, recording: str, view: str | None, num_required: int) -> None:
            parts = _parts(name)
            for start in range(len(parts)):
                target = _Target(recording, view, start == 0, len(parts) - start >= num_required)
                by_name.setdefault("/".join(parts[start:]), set()).add(target)

        for id in recordings:
            add(id, id, None, len(_parts(id)))
        views = list(views)
        folders = [_parts(view.path)[:-1] for view in views]
        num_common = _num_common(folders)
        base = _parts(videos)
        for view in views:
            parts = _parts(view.path)
            top = _parts(view.recording)[:1]
            # What distinguishes recordings must be in the name: their folders, and the id where the path contains it.
            starts = [at for at, part in enumerate(parts[len(base) :], len(base)) if [part] == top]
            num_required = len(parts) - min(num_common, starts[-1] if starts else num_common)
            for name in {view.path, str(PurePosixPath(view.path).with_suffix(""))}:
                add(name, view.recording, view.id, num_required)
        return cls({name: frozenset(targets) for name, targets in by_name.items()})

    def find(self, name: str) -> tuple[str, str | None] | None:
        """Return the recording and, if the name is that of a video, its view; None if none or several match."""
        match = self._match(name)
        return None if isinstance(match, str) else (match.recording, match.view)

    def problem(self, name: str) -> str:
        """Return why a name means no recording, to end a sentence with; empty if it means one."""
        match = self._match(name)
        return match if isinstance(match, str) else ""

    def resolve(self, names: Iterable[str]) -> ResolvedNames:
        """Find what the names of one table mean.

        Where several names that end alike lead to one recording, the exact ones count. If none is exact, the longest
        match counts, if there is only one; relative paths, of which nothing is dropped, come first.
        """
        matches: dict[str, _Match] = {}
        problems: dict[str, str] = {}
        for name in dict.fromkeys(names):
            match = self._match(name)
            if isinstance(match, str):
                problems[name] = match
            else:
                matches[name] = match
        alike: dict[tuple[str, str], list[str]] = {}
        for name, match in matches.items():
            alike.setdefault((match.recording, _stem(name)), []).append(name)
        resolved = {}
        for name, match in matches.items():
            better = [
                other
                for other in alike[match.recording, _stem(name)]
                if not match.is_exact and _normalized(other) != _normalized(name) and matches[other].rank >= match.rank
            ]
            if better:
                problems[name] = (
                    f"which could mean recording '{match.recording}', as '{better[0]}' in the same table does"
                )
            else:
                resolved[name] = (match.recording, match.view)
        return ResolvedNames(resolved, problems)

    def _match(self, name: str) -> _Match | str:
        """What a name means, or why it means nothing."""
        text = name.strip().replace("\\", "/")
        is_foreign = _FOREIGN.match(text) is not None
        parts = _parts(text)
        for start in range(len(parts) if is_foreign else min(1, len(parts))):
            rest = "/".join(parts[start:])
            for key in dict.fromkeys((rest, without_video_suffix(rest))):
                targets = self.by_name.get(key, frozenset())
                full = {target for target in targets if target.is_full}
                if is_foreign:
                    targets = frozenset(target for target in targets if target.is_sufficient)
                targets = frozenset(full & targets) or targets
                if not targets:
                    continue
                recordings = {target.recording for target in targets}
                if len(recordings) > 1:
                    return f"which may be any of {len(recordings)} recordings of this study"
                views = {target.view for target in targets}
                view = views.pop() if len(views) == 1 else None
                return _Match(recordings.pop(), view, bool(full) and start == 0, not is_foreign, len(parts) - start)
        recordings = self._recordings_of_file(parts[-1]) if is_foreign and parts else set()
        if len(recordings) == 1:
            return (
                f"which is no recording of this study; only its file name fits '{recordings.pop()}'. If that is "
                f"meant, write "
                "this id instead of the path"
            )
        return "which is no recording of this study"

    def _recordings_of_file(self, name: str) -> set[str]:
        targets = self.by_name.get(name, frozenset()) | self.by_name.get(without_video_suffix(name), frozenset())
        return {target.recording for target in targets}


def _parts(path: str) -> list[str]:
    """Parts of a path without its drive, scheme and dots, in one Unicode form."""
    text = unicodedata.normalize("NFC", re.sub(r"^([a-z]:|[a-z][a-z0-9+.-]*://)", "", path, flags=re.IGNORECASE))
    parts = [part for part in text.split("/") if part not in ("", ".")]
    while parts and parts[0] == "..":
        parts.pop(0)
    return parts


def _num_common(paths: list[list[str]]) -> int:
    """Number of leading parts that all paths share."""
    return sum(1 for _ in takewhile(lambda parts: len(set(parts)) == 1, zip(*paths, strict=False)))


def _normalized(name: str) -> str:
    return without_video_suffix(unicodedata.normalize("NFC", name.strip().replace("\\", "/").removeprefix("./")))


def _stem(name: str) -> str:
    return _normalized(name).rpartition("/")[2]
