"""The catalog: the tables of recordings, views and segments of a study, kept as Parquet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actionprep.datasets.catalog_tables import make_tables, read_tables, write_tables
from actionprep.datasets.findings import Finding
from actionprep.datasets.natural_order import natural_key
from actionprep.datasets.paths import name_problem
from actionprep.datasets.recordings import Recording, View
from actionprep.datasets.segments import Segment
from actionprep.datasets.view_ids import view_of, views_of_ids
from actionprep.errors import UserError, nearest

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class ViewSelection:
    """The views that a command works on.

    views:      readable ones, recording by recording.
    unreadable: asked for, but their file cannot be read.
    skipped:    recordings left out because they lack a view that was asked for.
    """

    views: tuple[View, ...]
    unreadable: tuple[View, ...] = ()
    skipped: tuple[str, ...] = ()

    def restricted_to(self, recordings: Iterable[str]) -> ViewSelection:
        """The same selection with only some recordings, by id."""
        ids = set(recordings)
        return ViewSelection(
            tuple(view for view in self.views if view.recording in ids),
            tuple(view for view in self.unreadable if view.recording in ids),
            tuple(name for name in self.skipped if name in ids),
        )

    @property
    def recordings(self) -> tuple[str, ...]:
        """Ids of the recordings, in order."""
        return tuple(dict.fromkeys(view.recording for view in self.views))


@dataclass(frozen=True)
class Catalog:
    """All recordings with their views and segments.

    segments: by recording id, in the order of time.
    findings: what the last scan found worth telling.

    Raises UserError when two recordings have one id, two views of a recording have one id, an id cannot name a place in
    the store, or one recording's id is a folder on the way to another's.
    """

    recordings: tuple[Recording, ...]
    views: tuple[View, ...]
    segments: Mapping[str, tuple[Segment, ...]] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()

    def __post_init__(self) -> None:
        _check_ids(self.recordings, self.views)

    def __len__(self) -> int:
        return len(self.recordings)

    def recording(self, id: str) -> Recording:
        """One recording; raises UserError naming the nearest id."""
        if id not in self._recordings:
            some = ", ".join(list(self._recordings)[:5])
            raise UserError(f"No recording '{id}'.{nearest(id, self._recordings)} There are {len(self)}: {some} …")
        return self._recordings[id]

    def views_of(self, recording: str) -> tuple[View, ...]:
        """Views of a recording in the natural order of their ids, also unreadable ones."""
        return self._views.get(recording, ())

    def view(self, recording: str, id: str | int) -> View:
        """One view by its name or 0-based index; raises UserError listing those that there are."""
        self.recording(recording)
        name = view_of(str(id), self.view_names)
        for view in self.views_of(recording):
            if view.id == name:
                return view
        raise UserError(self._no_view(str(id), recording, may_skip=False))

    def segments_of(self, recording: str) -> tuple[Segment, ...]:
        """Segments of a recording in the order of time."""
        return self.segments.get(recording, ())

    def resolve(self, path: str, root: str | Path) -> Path:
        """Where a view's file is, given the study folder."""
        return Path(root) / path

    @cached_property
    def view_names(self) -> tuple[str, ...]:
        """Ids of views over all recordings, in natural order."""
        return tuple(sorted({view.id for view in self.views}, key=natural_key))

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Labels of recordings and segments, in natural order."""
        found = {recording.label for recording in self.recordings if recording.label is not None}
        found |= {segment.label for segments in self.segments.values() for segment in segments}
        return tuple(sorted(found, key=natural_key))

    def select_views(self, ids: Sequence[str | int] = (), *, skip_incomplete: bool = False) -> ViewSelection:
        """The views with these ids of every recording; without ids all views.

        The ids are names of views, or else all of them 0-based indices among all view names of the study in natural order,
        so that each means the same camera in every recording.

        skip_incomplete: leave out recordings that lack one of the views or cannot read it.

        Raises UserError for an id that no recording has, for a view that is given twice and, unless skip_incomplete, for a
        recording that lacks one.
        """
        wanted = views_of_ids(ids, self.view_names, no_view=lambda id: self._no_view(id, None))
        chosen: list[View] = []
        unreadable: list[View] = []
        skipped: list[str] = []
        for recording in self.recordings:
            there = {view.id: view for view in self.views_of(recording.id)}
            lacking = [id for name, id in wanted.items() if name not in there]
            if lacking and not skip_incomplete:
                raise UserError(self._no_view(lacking[0], recording.id))
            views = [there[name] for name in wanted if name in there] if wanted else list(there.values())
            broken = [view for view in views if view.status != "ok"]
            if lacking or (skip_incomplete and broken):
                skipped.append(recording.id)
                continue
            chosen += [view for view in views if view.status == "ok"]
            unreadable += broken
        return ViewSelection(tuple(chosen), tuple(unreadable), tuple(skipped))

    def span(self, recording: str, *, views: Iterable[str] | None = None) -> tuple[float, float] | None:
        """The time that all readable views of a recording cover, in seconds; None when there is no such time.

        views: only these, by name.
        """
        wanted = None if views is None else set(views)
        spans = [
            view.span
            for view in self.views_of(recording)
            if view.status == "ok" and view.num_frames and (wanted is None or view.id in wanted)
        ]
        if not spans:
            return None
        onset, offset = max(span[0] for span in spans), min(span[1] for span in spans)
        return (onset, offset) if offset > onset else None

    def to_frames(self) -> dict[str, pd.DataFrame]:
        """The tables as pandas data frames: recordings, views, segments."""
        return {name: table.to_pandas() for name, table in self._tables().items() if name != "findings"}

    def write(self, folder: str | Path) -> None:
        """Write the tables; each file is replaced whole. Raises SetupError when the disk refuses."""
        write_tables(self._tables(), Path(folder))

    @classmethod
    def read(cls, folder: str | Path) -> Catalog:
        """Read the tables.

        Raises UserError when there are none, when a newer actionprep wrote them, or when they do not belong together.
        """
        return cls(*read_tables(Path(folder)))

    def _tables(self) -> dict[str, Any]:
        return make_tables(self.recordings, self.views, self.segments, self.findings)

    @cached_property
    def _recordings(self) -> dict[str, Recording]:
        return {recording.id: recording for recording in self.recordings}

    @cached_property
    def _views(self) -> dict[str, tuple[View, ...]]:
        found: dict[str, list[View]] = {}
        for view in self.views:
            found.setdefault(view.recording, []).append(view)
        return {id: tuple(sorted(views, key=lambda view: natural_key(view.id))) for id, views in found.items()}

    def _no_view(self, id: str, recording: str | None, *, may_skip: bool = True) -> str:
        if recording is None:
            # No recording has it: the first one stands for all.
            where = f"recording '{self.recordings[0].id}'" + (" or any other" if len(self) > 1 else "")
            whose, views = "It has" if len(self) == 1 else "There are", self.view_names
            files = ""
            if len(self) == 1:
                files = _file_names(self.views_of(self.recordings[0].id))
            return (
                f"No view '{id}' in {where}. {whose} views {', '.join(views)}{files}.\nName some of these with --views."
            )
        there = self.views_of(recording)
        skip = ", or add --skip-incomplete to leave out recordings that lack one" if may_skip else ""
        return (
            f"No view '{id}' in recording '{recording}'. It has views {', '.join(view.id for view in there)}"
            f"{_file_names(there)}.\n"
            f"Name some of these with --views{skip}."
        )


def _file_names(views: Sequence[View]) -> str:
    names = [Path(view.path).name for view in views]
    return f" ({names[0]} … {names[-1]})" if len(names) > 1 else f" ({names[0]})" if names else ""


def _check_ids(recordings: Sequence[Recording], views: Sequence[View]) -> None:
    paths: dict[str, list[str]] = {}
    for view in views:
        paths.setdefault(view.recording, []).append(view.path)
    ids = set()
    for recording in recordings:
        id = recording.id
        if id in ids:
            files = ", ".join(sorted(paths.get(id, ()))) or "no file"
            raise UserError(
                f"Two recordings have the id '{id}' ({files}). An id names one recording: rename a file, or give a "
                "recording column."
            )
        ids.add(id)
        _check_id("recording", id, ", ".join(paths.get(id, ())))
    for id in sorted(ids):
        parts = id.split("/")
        for end in range(1, len(parts)):
            above = "/".join(parts[:end])
            if above in ids:
                raise UserError(
                    f"Recording '{above}' ({', '.join(paths.get(above, ()))}) has the name of a folder that recording "
                    f"'{id}' ({', '.join(paths.get(id, ()))}) is in; their products would lie in each other in the "
                    "store. Rename one."
                )
    seen: dict[tuple[str, str], str] = {}
    for view in views:
        if view.recording not in ids:
            raise UserError(
                f"View '{view.id}' ({view.path}) belongs to recording '{view.recording}', which is not there."
            )
        key = (view.recording, view.id)
        if key in seen:
            raise UserError(
                f"Two files for view '{view.id}' of recording '{view.recording}': {seen[key]} and {view.path}. They "
                "would get one id: rename one, or tell them apart by the pattern or a view column."
            )
        seen[key] = view.path
        _check_id("view", view.id, view.path)
        if "/" in view.id:
            raise UserError(f"View id '{view.id}' ({view.path}) has a slash; a view's id is one name.")


def _check_id(what: str, id: str, path: str) -> None:
    # The store skips names that begin with a dot, Zarr reserves "zarr.json" and names that begin with two underscores.
    bad = [part for part in id.split("/") if not part or part[0] == "." or part[:2] == "__" or part == "zarr.json"]
    if bad or "\\" in id or "\0" in id:
        raise UserError(
            f"{id!r} cannot be the id of a {what} ({path}): its parts must not be empty, begin with '.' or '__', or "
            "hold a backslash. Rename the file, or give an id in a table."
        )
    if problem := name_problem(id):
        raise UserError(
            f"{id!r:.80} cannot be the id of a {what} ({path:.80}): {problem}. Rename the file, or give an id in a table."
        )
