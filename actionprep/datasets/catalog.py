"""The catalog: tables of the recordings, views and segments of a study, stored as Parquet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actionprep.datasets.alignment import MeasuredAlignment
from actionprep.datasets.cameras import Camera
from actionprep.datasets.catalog_tables import make_tables, read_tables, write_tables
from actionprep.datasets.findings import Finding
from actionprep.datasets.natural_order import natural_key
from actionprep.datasets.paths import name_problem
from actionprep.datasets.recordings import Recording, View
from actionprep.datasets.segments import Segment
from actionprep.datasets.view_ids import view_of, views_of_ids, views_with_number
from actionprep.errors import UserError, name_list, nearest

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class ViewSelection:
    """The views that a command works on.

    Attributes:
        views: Readable views, recording by recording.
        unreadable: Requested views that cannot be read.
        skipped: Recordings that are left out because they lack a requested view.
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

    Attributes:
        recordings: The recordings.
        views: Their views.
        segments: Segments by recording id, in the order of time.
        findings: What the last scan reported.
        alignment: Which pairs of views are aligned, as the last scan measured it; None if no scan did.
        cameras: Calibrated cameras of views, from `study.calibration`. They apply to all recordings.

    Raises:
        UserError: If two recordings have the same id, two views of a recording have the same id, an id cannot be a path
            in the store, or one recording's id is a folder of another's.
    """

    recordings: tuple[Recording, ...]
    views: tuple[View, ...]
    segments: Mapping[str, tuple[Segment, ...]] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    alignment: MeasuredAlignment | None = None
    cameras: tuple[Camera, ...] = ()

    def __post_init__(self) -> None:
        _check_ids(self.recordings, self.views)

    def __len__(self) -> int:
        return len(self.recordings)

    def recording(self, id: str) -> Recording:
        """Return one recording; raises UserError naming the nearest id."""
        if id not in self._recordings:
            raise UserError(
                f"No recording '{id}'.{nearest(id, self._recordings)} Available: {name_list(list(self._recordings))}."
            )
        return self._recordings[id]

    def views_of(self, recording: str) -> tuple[View, ...]:
        """Return the views of a recording in the natural order of their ids, unreadable ones included."""
        return self._views.get(recording, ())

    def view(self, recording: str, id: str | int) -> View:
        """Return one view by its name or number (see `view_of`); raises UserError listing the available ones."""
        self.recording(recording)
        name = view_of(str(id), self.view_names)
        for view in self.views_of(recording):
            if view.id == name:
                return view
        raise UserError(self._no_view(str(id), recording, may_skip=False))

    def segments_of(self, recording: str) -> tuple[Segment, ...]:
        """Return the segments of a recording in the order of time."""
        return self.segments.get(recording, ())

    def resolve(self, path: str, root: str | Path) -> Path:
        """Return the path of a view's file, given the study folder."""
        return Path(root, path)

    @cached_property
    def view_names(self) -> tuple[str, ...]:
        """Ids of the views of all recordings, in natural order."""
        return tuple(sorted({view.id for view in self.views}, key=natural_key))

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Labels of recordings and segments, in natural order."""
        labels = {recording.label for recording in self.recordings if recording.label is not None}
        labels |= {segment.label for segments in self.segments.values() for segment in segments}
        return tuple(sorted(labels, key=natural_key))

    def select_views(self, ids: Sequence[str | int] = (), *, skip_incomplete: bool = False) -> ViewSelection:
        """Select views of every recording.

        Args:
            ids: Names or numbers of views (see `view_of`); all views if empty. Each means the same camera in every
                recording.
            skip_incomplete: Leave out recordings that lack one of the views or cannot read it.

        Raises:
            UserError: If an id means no view, a view is given twice or, unless `skip_incomplete`, a recording lacks one.
        """
        wanted = views_of_ids(ids, self.view_names, no_view=lambda id: self._no_view(id, None))
        chosen: list[View] = []
        unreadable: list[View] = []
        skipped: list[str] = []
        for recording in self.recordings:
            own = {view.id: view for view in self.views_of(recording.id)}
            lacking = [id for name, id in wanted.items() if name not in own]
            if lacking and not skip_incomplete:
                raise UserError(self._no_view(lacking[0], recording.id))
            views = [own[name] for name in wanted if name in own] if wanted else list(own.values())
            broken = [view for view in views if view.status != "ok"]
            if lacking or (skip_incomplete and broken):
                skipped.append(recording.id)
                continue
            chosen += [view for view in views if view.status == "ok"]
            unreadable += broken
        return ViewSelection(tuple(chosen), tuple(unreadable), tuple(skipped))

    def span(self, recording: str, *, views: Iterable[str] | None = None) -> tuple[float, float] | None:
        """Return the time that all readable views of a recording cover, in seconds; None if there is none.

        Args:
            recording: Id of the recording.
            views: Names of the views to consider; all if None.
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

    def camera(self, view: str) -> Camera:
        """Return the calibrated camera of a view, by its id; raises UserError if there is none."""
        for camera in self.cameras:
            if camera.view == view:
                return camera
        known = ", ".join(camera.view for camera in self.cameras) or "none; set study.calibration"
        raise UserError(f"No calibrated camera for view '{view}'. Calibrated views: {known}.")

    def to_frames(self) -> dict[str, pd.DataFrame]:
        """Return the tables recordings, views and segments as pandas data frames."""
        tables = self._tables()
        return {name: tables[name].to_pandas() for name in ("recordings", "views", "segments")}

    def write(self, folder: str | Path) -> None:
        """Write the tables; each file is complete or unchanged. Raises SetupError if the disk refuses."""
        write_tables(self._tables(), Path(folder))

    @classmethod
    def read(cls, folder: str | Path) -> Catalog:
        """Read the tables.

        Raises:
            UserError: If there are none, a newer actionprep wrote them, or they are not of one scan.
        """
        return cls(*read_tables(Path(folder)))

    def _tables(self) -> dict[str, Any]:
        return make_tables(self.recordings, self.views, self.segments, self.findings, self.alignment, self.cameras)

    @cached_property
    def _recordings(self) -> dict[str, Recording]:
        return {recording.id: recording for recording in self.recordings}

    @cached_property
    def _views(self) -> dict[str, tuple[View, ...]]:
        views_of: dict[str, list[View]] = {}
        for view in self.views:
            views_of.setdefault(view.recording, []).append(view)
        return {id: tuple(sorted(views, key=lambda view: natural_key(view.id))) for id, views in views_of.items()}

    def _no_view(self, id: str, recording: str | None, *, may_skip: bool = True) -> str:
        """The error for an id that means no view of a recording, or of the study if `recording` is None."""
        matching = views_with_number(id, self.view_names)
        is_ambiguous = recording is None and len(matching) > 1
        problem = f"'{id}' may be view {' or '.join(matching)}" if is_ambiguous else f"No view '{id}'"
        # Where no recording has the view, the first one stands for all.
        shown = recording if recording is not None else self.recordings[0].id if self.recordings else ""
        others = " or any other" if recording is None and len(self) > 1 else ""
        views = self.views_of(shown) if recording is not None or len(self) == 1 else self._examples()
        skip = ""
        if recording is not None and may_skip:
            skip = ", or skip recordings that lack one with --skip-incomplete"
        return (
            f"{problem} in recording '{shown}'{others}. Available views: {', '.join(view.id for view in views)}"
            f"{_file_names(views)}.\nSelect views with --views{skip}."
        )

    def _examples(self) -> list[View]:
        """One view of each name, of the first recording that has it."""
        first: dict[str, View] = {}
        for view in self.views:
            first.setdefault(view.id, view)
        return [first[name] for name in self.view_names]


_SHOWN_FILES = 8
"""Files that an error lists before it shortens the list to the first and the last."""


def _file_names(views: Sequence[View]) -> str:
    """Names of files for a message; with their folder where the names alone are equal."""
    names = [Path(view.path).name for view in views]
    if len(set(names)) < len(names):
        names = ["/".join(Path(view.path).parts[-2:]) for view in views]
    if not names:
        return ""
    return f" ({', '.join(names)})" if len(names) <= _SHOWN_FILES else f" ({names[0]} … {names[-1]})"


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
                    f"'{id}' ({', '.join(paths.get(id, ()))}) is in; one's products would be inside the other's in the "
                    "store. Rename one."
                )
    seen: dict[tuple[str, str], str] = {}
    for view in views:
        if view.recording not in ids:
            raise UserError(
                f"View '{view.id}' ({view.path}) belongs to recording '{view.recording}', which does not exist."
            )
        key = (view.recording, view.id)
        if key in seen:
            raise UserError(
                f"Two files for view '{view.id}' of recording '{view.recording}': {seen[key]} and {view.path}. They "
                "would get the same id: rename one, or distinguish them with the pattern or a view column."
            )
        seen[key] = view.path
        _check_id("view", view.id, view.path)
        if "/" in view.id:
            raise UserError(f"View id '{view.id}' ({view.path}) has a slash; the id of a view is a single name.")


def _check_id(what: str, id: str, path: str) -> None:
    # The store ignores names that begin with a dot; Zarr reserves "zarr.json" and names that begin with two underscores.
    bad = [part for part in id.split("/") if not part or part[0] == "." or part[:2] == "__" or part == "zarr.json"]
    if bad or "\\" in id or "\0" in id:
        raise UserError(
            f"{id!r} cannot be the id of a {what} ({path}): its parts must not be empty, begin with '.' or '__', or "
            "contain a backslash. Rename the file, or give an id in a table."
        )
    if problem := name_problem(id):
        raise UserError(
            f"{id!r:.80} cannot be the id of a {what} ({path:.80}): {problem}. Rename the file, or give an id in a table."
        )
