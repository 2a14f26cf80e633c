"""The catalogue: the tables of recordings, views and segments of a study, kept as Parquet."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from actionprep.datasets.findings import Finding
from actionprep.datasets.segments import Segment
from actionprep.errors import EnvironmentProblem, UserError, nearest

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 1
_EXTRA = "extra_"


@dataclass(frozen=True)
class Recording:
    """One event in time, seen by one or more cameras.

    id:    relative path plus name, with slashes.
    label: of the whole recording, for clips that were cut to one action.
    split: the part that was given for it: train, val or test.
    extra: other columns of the table that it came from.
    """

    id: str
    subject: str | None = None
    session: str | None = None
    label: str | None = None
    split: str | None = None
    extra: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class View:
    """One camera's video of a recording.

    path:          relative to the study folder, or absolute; with slashes.
    width, height: of the displayed picture in pixels, after rotation (degrees).
    start:         time stamp of the first frame in the container, in s.
    offset, drift: recording's clock = offset (s) + view's time * (1 + drift * 1e-6).
    frame_times:   (T,) float64 s from the first frame, as the packets say.
    poses:         for a view without video: how its poses are read from path, a JSON object; "" for a video.
    header_frames: what the container's header states, where it states it.
    digest:        hash of the file's bytes.
    status:        "unreadable" with a reason, or "ok", perhaps with warnings.
    """

    recording: str
    id: str
    path: str
    codec: str = ""
    pixel_format: str = ""
    width: int = 0
    height: int = 0
    rotation: int = 0
    num_frames: int = 0
    header_frames: int | None = None
    fps: float = 0.0
    time_base: str = ""
    start: float = 0.0
    offset: float = 0.0
    drift: float = 0.0
    duration: float = 0.0
    stream: int = 0
    digest: str = ""
    size_bytes: int = 0
    mtime_ns: int = 0
    status: Literal["ok", "unreadable"] = "ok"
    reason: str = ""
    warnings: tuple[str, ...] = ()
    frame_times: np.ndarray = field(default_factory=lambda: np.empty(0), compare=False, repr=False)
    poses: str = ""

    @property
    def has_video(self) -> bool:
        """Whether there are frames to decode; a view may have nothing but poses."""
        return not self.poses

    @property
    def times(self) -> np.ndarray:
        """(T,) float64: frame times in seconds on the recording's clock."""
        return self.offset + self.frame_times * (1 + self.drift * 1e-6)

    @property
    def frame_duration(self) -> float:
        """Median time from frame to frame in seconds; what the last frame is taken to last."""
        if len(self.frame_times) > 1:
            return float(np.median(np.diff(self.frame_times)))
        return 1 / self.fps if self.fps > 0 else 0.0

    @property
    def span(self) -> tuple[float, float]:
        """From the first frame to the end of the last, in seconds on the recording's clock."""
        times = self.times
        return (float(times[0]), float(times[-1]) + self.frame_duration) if len(times) else (self.offset, self.offset)


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

    @property
    def recordings(self) -> tuple[str, ...]:
        """Ids of the recordings, in order."""
        return tuple(dict.fromkeys(view.recording for view in self.views))


@dataclass(frozen=True)
class Catalogue:
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
        name = self._view_name(str(id))
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

        An id is a view's name, or else its 0-based index among all view names of the study in natural order, so that it
        means the same camera in every recording.

        skip_incomplete: leave out recordings that lack one of the views or cannot read it.

        Raises UserError for an id that no recording has and, unless skip_incomplete, for a recording that lacks one.
        """
        wanted: dict[str, str] = {}
        for id in map(str, ids):
            name = self._view_name(id)
            if name is None:
                raise UserError(self._no_view(id, None))
            if wanted.get(name, id) != id:
                raise UserError(
                    f"'{wanted[name]}' and '{id}' both mean view '{name}': a number is a view's name where there is "
                    "such "
                    f"a name, else its index from 0. The views are {', '.join(self.view_names)}."
                )
            wanted[name] = id
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
        return {name: table.to_pandas() for name, table in _tables(self).items() if name != "findings"}

    def write(self, folder: str | Path) -> None:
        """Write the tables; each file is replaced whole. Raises EnvironmentProblem when the disk refuses."""
        import pyarrow.parquet as pq

        folder = Path(folder)
        tables = _tables(self)
        stamp = _content_stamp(tables)
        drafts: list[tuple[Path, Path]] = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, table in tables.items():
                metadata = {"actionprep_schema": str(SCHEMA), "actionprep_catalogue": stamp}
                place = folder / f"{name}.parquet"
                draft = folder / f".{name}.{os.getpid()}.parquet"
                drafts.append((draft, place))
                pq.write_table(table.replace_schema_metadata(metadata), draft, compression="zstd")
                with open(draft, "rb") as file:
                    os.fsync(file.fileno())
            for draft, place in drafts:
                os.replace(draft, place)
        except OSError as error:
            raise EnvironmentProblem(
                f"Cannot write the catalogue in {folder}: {error.strerror or error}. Free some room or make the folder "
                "writable, then run 'actionprep scan' again."
            ) from error
        finally:
            for draft, _ in drafts:
                draft.unlink(missing_ok=True)

    @classmethod
    def read(cls, folder: str | Path) -> Catalogue:
        """Read the tables.

        Raises UserError when there are none, when a newer actionprep wrote them, or when they do not belong together.
        """
        folder = Path(folder)
        if not (folder / "recordings.parquet").exists():
            raise UserError(f"No catalogue in {folder}. Run 'actionprep scan' first: it reads the videos and fills it.")
        found = {
            name: _read_table(folder / f"{name}.parquet") for name in ("recordings", "views", "segments", "findings")
        }
        stamps = {table.schema.metadata.get(b"actionprep_catalogue") for table in found.values()}
        if len(stamps) != 1:
            raise UserError(
                f"The tables in {folder} are not of one scan: writing them was interrupted. Run 'actionprep scan' "
                "again."
            )
        rows = {name: table.drop_columns("frame_times") if name == "views" else table for name, table in found.items()}
        segments: dict[str, list[Segment]] = {}
        for row in rows["segments"].to_pylist():
            segments.setdefault(row.pop("recording"), []).append(Segment(**row))
        return cls(
            tuple(_recording_from(row) for row in rows["recordings"].to_pylist()),
            views_from_table(found["views"]),
            {recording: tuple(of_one) for recording, of_one in segments.items()},
            tuple(Finding(**row) for row in rows["findings"].to_pylist()),
        )

    @cached_property
    def _recordings(self) -> dict[str, Recording]:
        return {recording.id: recording for recording in self.recordings}

    @cached_property
    def _views(self) -> dict[str, tuple[View, ...]]:
        found: dict[str, list[View]] = {}
        for view in self.views:
            found.setdefault(view.recording, []).append(view)
        return {id: tuple(sorted(views, key=lambda view: natural_key(view.id))) for id, views in found.items()}

    def _view_name(self, id: str) -> str | None:
        if id in self.view_names:
            return id
        return self.view_names[int(id)] if id.isdecimal() and int(id) < len(self.view_names) else None

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


def natural_key(text: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key that puts "cam2" before "cam10"; equal only for equal texts."""
    parts = re.split(r"(\d+)", text)
    numbers = tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part)
    return (*numbers, (-1, 0, text))


def views_to_table(views: Sequence[View]) -> Any:
    """Views as an Arrow table, frame times as a list column."""
    import pyarrow as pa

    types = {
        "num_frames": pa.int64(),
        "header_frames": pa.int64(),
        "fps": pa.float64(),
        "start": pa.float64(),
        "offset": pa.float64(),
        "drift": pa.float64(),
        "duration": pa.float64(),
        "size_bytes": pa.int64(),
        "mtime_ns": pa.int64(),
        "warnings": pa.list_(pa.string()),
    }
    small = ("width", "height", "rotation", "stream")
    columns: dict[str, Any] = {}
    for one in fields(View):
        if one.name == "frame_times":
            continue
        values = [getattr(view, one.name) for view in views]
        columns[one.name] = pa.array(values, types.get(one.name, pa.int32() if one.name in small else pa.string()))
    lengths = np.array([len(view.frame_times) for view in views], np.int64)
    flat = np.concatenate([view.frame_times for view in views]) if views else np.empty(0)
    limits = np.concatenate([[0], np.cumsum(lengths)])
    columns["frame_times"] = pa.LargeListArray.from_arrays(pa.array(limits, pa.int64()), pa.array(flat, pa.float64()))
    return pa.table(columns)


def views_from_table(table: Any) -> tuple[View, ...]:
    """The reverse of `views_to_table`."""
    times = table.column("frame_times").combine_chunks()
    if table.num_rows == 0:
        return ()
    flat = times.values.to_numpy(zero_copy_only=False)
    limits = times.offsets.to_numpy(zero_copy_only=False)
    views = []
    rows = table.drop_columns("frame_times").to_pylist()
    for row, (first, last) in zip(rows, pairwise(limits), strict=True):
        row["warnings"] = tuple(row["warnings"])
        row["poses"] = row.get("poses") or ""
        views.append(View(**row, frame_times=flat[first:last]))
    return tuple(views)


def _tables(catalogue: Catalogue) -> dict[str, Any]:
    import pyarrow as pa

    recordings = catalogue.recordings
    columns = {
        name: pa.array([getattr(recording, name) for recording in recordings], pa.string())
        for name in ("id", "subject", "session", "label", "split")
    }
    for key in sorted({key for recording in recordings for key in recording.extra}):
        columns[_EXTRA + key] = pa.array([recording.extra.get(key) for recording in recordings], pa.string())
    flat = [(id, segment) for id in sorted(catalogue.segments) for segment in catalogue.segments[id]]
    segments = {"recording": pa.array([id for id, _ in flat], pa.string())}
    for name, kind in (
        ("onset", pa.float64()),
        ("offset", pa.float64()),
        ("label", pa.string()),
        ("layer", pa.string()),
        ("annotator", pa.string()),
    ):
        segments[name] = pa.array([getattr(segment, name) for _, segment in flat], kind)
    findings = {
        name: pa.array([getattr(finding, name) for finding in catalogue.findings], pa.string())
        for name in ("kind", "where", "message")
    }
    return {
        "recordings": pa.table(columns),
        "views": views_to_table(catalogue.views),
        "segments": pa.table(segments),
        "findings": pa.table(findings),
    }


def _content_stamp(tables: Mapping[str, Any]) -> str:
    import pyarrow as pa

    stamp = hashlib.sha256()
    for name, table in tables.items():
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        stamp.update(name.encode())
        stamp.update(sink.getvalue())
    return stamp.hexdigest()[:32]


def _read_table(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(path).read()
    except (OSError, pa.ArrowInvalid) as error:
        first = str(error).split("\n")[0]
        raise UserError(
            f"Cannot read the catalogue's {path}: {first}. Run 'actionprep scan' to make it anew."
        ) from None
    schema = int((table.schema.metadata or {}).get(b"actionprep_schema", b"0"))
    if schema > SCHEMA:
        raise UserError(
            f"{path} was written by a newer actionprep: it has schema {schema}, this version reads up to {SCHEMA}. "
            "Upgrade actionprep, or run 'actionprep scan' to make the catalogue anew with this version."
        )
    if schema < 1:
        raise UserError(f"{path} is not a table of a catalogue. Run 'actionprep scan' to make it anew.")
    return table


def _recording_from(row: dict[str, Any]) -> Recording:
    extra = {key.removeprefix(_EXTRA): row.pop(key) for key in list(row) if key.startswith(_EXTRA)}
    return Recording(**row, extra={key: value for key, value in extra.items() if value is not None})


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
                "would "
                "get one id: rename one, or tell them apart by the pattern or a view column."
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
            f"'{id}' cannot be the id of a {what} ({path}): its parts must not be empty, begin with '.' or '__', or "
            "hold a "
            "backslash. Rename the file, or give an id in a table."
        )
