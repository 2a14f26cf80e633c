"""Fill the catalog: find the videos, read the packets of each once, check annotations and alignment."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any, Final, Protocol

import numpy as np

from actionprep.datasets.alignment import align_recording, measure_alignment
from actionprep.datasets.annotations import AnnotatedRow, CheckedSegments, RowError, check_segments, normalize_label
from actionprep.datasets.atomic_files import atomic_file
from actionprep.datasets.cameras import Camera, cameras_of_views, read_calibration
from actionprep.datasets.catalog import Catalog
from actionprep.datasets.catalog_tables import (
    read_with_checksum,
    views_from_table,
    views_to_table,
    write_with_checksum,
)
from actionprep.datasets.file_states import FileState, write_states
from actionprep.datasets.findings import Finding, FindingKind, write_findings
from actionprep.datasets.natural_order import natural_key
from actionprep.datasets.paths import no_link
from actionprep.datasets.recording_names import RecordingNames
from actionprep.datasets.recordings import Recording, View
from actionprep.datasets.segments import Segment
from actionprep.datasets.study import StudyFolder, StudySettings
from actionprep.datasets.video_layouts import discover, names_of, split_of, tables_of
from actionprep.datasets.view_reading import WHOLE_FILE, Reading, content_digest, state_of
from actionprep.errors import InputError, UserError, read_error
from actionprep.json_values import counted
from actionprep.settings import canonical_json

NOT_ALIGNED: Final = "views not aligned"
DRIFTING: Final = "views drift apart"
"""Kinds of findings about the alignment of the views of a recording."""


class VideoFactsLike(Protocol):
    """What a probe returns for a video (see `actionprep.pipeline.probe`)."""

    @property
    def codec(self) -> str: ...  # noqa: D102
    @property
    def pixel_format(self) -> str: ...  # noqa: D102
    @property
    def width(self) -> int: ...  # noqa: D102
    @property
    def height(self) -> int: ...  # noqa: D102
    @property
    def rotation(self) -> int: ...  # noqa: D102
    @property
    def time_base(self) -> Any: ...  # noqa: D102
    @property
    def start(self) -> float: ...  # noqa: D102
    @property
    def file_start(self) -> float: ...  # noqa: D102
    @property
    def times(self) -> np.ndarray: ...  # noqa: D102
    @property
    def num_frames(self) -> int: ...  # noqa: D102
    @property
    def fps(self) -> float: ...  # noqa: D102
    @property
    def header_frames(self) -> int | None: ...  # noqa: D102
    @property
    def duration(self) -> float: ...  # noqa: D102
    @property
    def digest(self) -> str: ...  # noqa: D102
    @property
    def stream(self) -> int: ...  # noqa: D102
    @property
    def warnings(self) -> Sequence[str]: ...  # noqa: D102


Probe = Callable[..., VideoFactsLike]
"""Reads the facts of a file: takes its path, and a `Reading` with absolute paths where that is not the default."""


@dataclass(frozen=True)
class ScanProgress:
    """Progress of a scan.

    Attributes:
        done: Videos read so far.
        total: Videos to read.
        unreadable: Videos that cannot be read, so far.
        path: The last video.
    """

    done: int
    total: int
    unreadable: int
    path: str


@dataclass(frozen=True)
class ScanReport:
    """Result of a scan.

    Attributes:
        catalog: The new catalog.
        num_probed: Videos that were read.
        num_reused: Videos that have not changed since the last scan.
        num_unusable: Annotated segments that were left out.
    """

    catalog: Catalog
    num_probed: int
    num_reused: int
    num_unusable: int

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What the scan reports; also in the catalog."""
        return self.catalog.findings

    @property
    def unreadable(self) -> tuple[View, ...]:
        """Views that cannot be read; each has its reason."""
        return tuple(view for view in self.catalog.views if view.status != "ok")


def scan(
    folder: StudyFolder,
    settings: StudySettings | None = None,
    *,
    probe: Probe,
    workers: int = 4,
    progress: Callable[[ScanProgress], None] | None = None,
    again: bool = False,
) -> ScanReport:
    """Read the packets of every video of a study once and write the catalog; inputs are never changed.

    An interrupted scan keeps what it has read for the next one.

    Args:
        folder: The study.
        settings: Settings of [study]; the study's own if None.
        probe: Returns the facts of one video, or raises InputError; such a video stays in the catalog as unreadable.
        workers: Threads that read.
        progress: Called after each video that is read.
        again: Also read files that have not changed since the last scan.

    Raises:
        UserError: If there are no videos, two recordings have the same id, or a table is wrong.
    """
    settings = folder.study if settings is None else settings
    # Before anything is read: a table that changes while the scan runs is noticed by the next command.
    tables = [(folder.relative(path), path) for path in tables_of(folder, settings)]
    discovery = discover(folder, settings)
    folder.rename_former_catalog()
    Catalog(tuple(discovery.recordings), tuple(discovery.views))  # wrong ids stop here, before hours of reading
    known = {} if again else _views_before(folder)
    views, todo = [], []
    for view in discovery.views:
        if not view.has_video:
            views.append(view)
            continue
        state = _file_state(folder.root, view)
        before = known.get((view.path, view.reading))
        if before is not None and _is_same(before, state):
            views.append(with_state(_reused(before, view), state))
        else:
            todo.append(with_state(view, state))
    probed, num_same = _probe_all(todo, folder, probe, known, workers=workers, progress=progress)
    num_reused = sum(view.has_video for view in views) + num_same
    views = sorted([*views, *probed], key=_position(discovery.views))
    views = [_on_clock(view, settings) for view in views]

    catalog = Catalog(tuple(discovery.recordings), tuple(views))
    names = names_of(discovery.recordings, views, folder, settings)
    checked = _check_rows(discovery.rows, catalog, names, settings.point_length)
    recordings, about_splits = _with_splits(discovery.recordings, checked)
    recordings, about_clips = _with_labels(recordings, checked)
    catalog = replace(catalog, recordings=recordings, segments=_in_time(checked.values()))
    findings = [*discovery.findings, *chain.from_iterable(each.findings for each in checked.values())]
    findings += [*about_splits, *about_clips]
    findings += _about_views(views)
    broken = {view.recording for view in views if not view.has_video and not view.digest}
    findings += _about_labels([recording for recording in recordings if recording.id not in broken], catalog.segments)
    findings += _about_alignment(catalog, settings.tolerance)
    cameras, about_cameras = _cameras(folder, settings, views)
    findings += about_cameras
    alignment = measure_alignment(catalog, tolerance=settings.tolerance)
    catalog = replace(catalog, findings=tuple(findings), alignment=alignment, cameras=tuple(cameras))
    catalog.write(folder.catalog)
    write_findings(findings, findings_file(folder))
    write_states(tables, tables_file(folder))
    no_link(_settings_read(folder)).write_text(scan_settings(settings), encoding="utf-8")
    _partial(folder).unlink(missing_ok=True)
    num_unusable = sum(each.num_unusable for each in checked.values())
    return ScanReport(catalog, len(todo) - num_same, num_reused, num_unusable)


def findings_file(folder: StudyFolder) -> Path:
    """Return the csv file with all findings of the last scan."""
    return folder.catalog / "findings.csv"


def tables_file(folder: StudyFolder) -> Path:
    """Return the file with the state of the tables that the last scan read."""
    return folder.catalog / "tables.json"


_NOT_READ = (
    "name",
    "allow_misaligned",
    "stages",
    "views",
    "skip_incomplete",
    "failure_budget",
    "item_timeout",
    "store",
)
"""Settings of [study] that do not affect a scan."""


def scan_settings(settings: StudySettings) -> str:
    """Return the settings that a scan depends on, as text that is equal for equal settings."""
    return canonical_json(settings.model_dump(mode="json", exclude=set(_NOT_READ)))


def read_with(folder: StudyFolder) -> str:
    """Return `scan_settings` of the last scan; empty if they are not known."""
    path = _settings_read(folder)
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def has_changed(root: Path, view: View) -> bool:
    """Return whether a view's file may be another than the one that was scanned, by its state alone."""
    if view.mtime_ns == 0:  # no scan recorded a state: poses, or a catalog that a program wrote
        return False
    return not _is_same(view, _file_state(root, view))


def _file_state(root: Path, view: View) -> FileState:
    if not view.reading.parts:
        with suppress(OSError):
            status = os.stat(os.path.join(root, view.path))
            if stat.S_ISREG(status.st_mode):
                return FileState(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
    return state_of(root / view.path, [root / part for part in view.reading.parts])


def _is_same(view: View, state: FileState) -> bool:
    """Whether a view's file is in the state of the last scan; catalogs before version 0.2 have no inodes."""
    before = _state_of(view)
    if before.inode == 0:
        return (state.size, state.mtime_ns) == (before.size, before.mtime_ns)
    return state == before


def _settings_read(folder: StudyFolder) -> Path:
    return folder.catalog / "settings.json"


def _state_of(view: View) -> FileState:
    return FileState(view.size_bytes, view.mtime_ns, view.ctime_ns, view.inode)


def with_state(view: View, state: FileState) -> View:
    """Return a view with the state of its file."""
    return replace(
        view, size_bytes=state.size, mtime_ns=state.mtime_ns, ctime_ns=max(state.ctime_ns, 0), inode=max(state.inode, 0)
    )


def _reused(before: View, view: View) -> View:
    """Combine the facts of the last scan with the current recording, id, path and clock of an unchanged view."""
    return replace(before, recording=view.recording, id=view.id, path=view.path, offset=view.offset, drift=view.drift)


def _probe_all(
    views: Sequence[View],
    folder: StudyFolder,
    probe: Probe,
    known: Mapping[tuple[str, Reading], View],
    *,
    workers: int,
    progress: Callable[[ScanProgress], None] | None,
) -> tuple[list[View], int]:
    """Read all these views, and count those with the content of the last scan; keeps what is done when interrupted."""
    done: list[View] = []
    num_unreadable = num_same = 0
    num_threads = max(1, workers)
    pool = ThreadPoolExecutor(num_threads, thread_name_prefix="scan")
    waiting: dict[Future[tuple[View, bool]], View] = {}
    queue = iter(views)
    try:
        while True:
            # Only a few are submitted at a time, so that an interruption waits for few.
            while len(waiting) < 2 * num_threads and (view := next(queue, None)) is not None:
                before = known.get((view.path, view.reading))
                waiting[pool.submit(_probed, view, folder.root, probe, before)] = view
            if not waiting:
                break
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                waiting.pop(future)
                view, is_same = future.result()
                done.append(view)
                num_same += is_same
                num_unreadable += done[-1].status != "ok"
                if progress is not None:
                    progress(ScanProgress(len(done), len(views), num_unreadable, done[-1].path))
    except BaseException:
        with suppress(OSError):  # the interruption matters more than what cannot be kept
            _keep_partial(folder, done)
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    return done, num_same


def _probed(view: View, root: Path, probe: Probe, before: View | None) -> tuple[View, bool]:
    """Facts of a view, and whether its file has the content of the last scan."""
    path = root / view.path
    parts = [root / part for part in view.reading.parts]
    try:
        is_same_size = before is not None and before.size_bytes == view.size_bytes
        if before is not None and is_same_size and before.digest == content_digest(path, parts):
            return with_state(_reused(before, view), _state_of(view)), True
        return _with_facts(view, root, probe), False
    except InputError as problem:
        return replace(view, status="unreadable", reason=problem.reason.removeprefix(f"{path}: ")), False
    except FileNotFoundError as error:
        return replace(view, status="unreadable", reason=f"cannot be opened: {error.strerror or error}"), False
    except OSError as error:
        return replace(
            view, status="unreadable", reason=read_error(path, error).reason.removeprefix(f"{path}: ")
        ), False


def _with_facts(view: View, root: Path, probe: Probe) -> View:
    path, reading = root / view.path, view.reading
    if reading != WHOLE_FILE or path.is_dir():
        facts = probe(path, reading.at(root))
    else:
        facts = probe(path)
    if facts.num_frames == 0:
        return replace(view, status="unreadable", reason="has no video frames")
    return replace(
        view,
        codec=facts.codec,
        pixel_format=facts.pixel_format,
        width=int(facts.width),
        height=int(facts.height),
        rotation=int(facts.rotation),
        num_frames=int(facts.num_frames),
        header_frames=facts.header_frames or None,
        fps=float(facts.fps),
        time_base=str(facts.time_base),
        start=float(facts.start),
        file_start=float(facts.file_start),
        duration=float(facts.duration),
        stream=int(facts.stream),
        digest=facts.digest,
        warnings=tuple(facts.warnings),
        frame_times=np.asarray(facts.times, np.float64),
    )


def _on_clock(view: View, settings: StudySettings) -> View:
    return replace(view, offset=view.offset + view.time_of_first_frame(settings.clock))


def _views_before(folder: StudyFolder) -> dict[tuple[str, Reading], View]:
    """Views whose facts can be reused, by path and reading: of the last scan, and of one that was interrupted since.

    Unreadable videos are read again, and so are those in a catalog of an earlier version, which lacks facts.
    """
    views: list[View] = []
    # A catalog that is absent, damaged or of another version is written again.
    with suppress(UserError):
        views += Catalog.read(folder.catalog).views
    if _partial(folder).exists():
        with suppress(UserError, TypeError, LookupError, ValueError, AttributeError):
            views += views_from_table(read_with_checksum(_partial(folder)))
    reusable = (view for view in views if view.status == "ok" and view.file_start is not None)
    return {(view.path, view.reading): view for view in reusable}


def _cameras(folder: StudyFolder, settings: StudySettings, views: Sequence[View]) -> tuple[list[Camera], list[Finding]]:
    """Read the calibration of the settings, and match its cameras with the views."""
    if settings.calibration is None:
        return [], []
    path = folder.resolve(settings.calibration)
    sizes: dict[str, tuple[int, int]] = {}
    crops: dict[str, tuple[int, int, int, int]] = {}
    for view in sorted(views, key=lambda view: natural_key(view.id)):
        if not any(sizes.get(view.id, (0, 0))):
            sizes[view.id] = view.width, view.height
        if view.reading.crop:
            x, y, width, height = view.reading.crop
            crops.setdefault(view.id, (x, y, width, height))
    return cameras_of_views(read_calibration(path), sizes, where=folder.relative(path), crops=crops)


def _keep_partial(folder: StudyFolder, views: Sequence[View]) -> None:
    if not views:
        return
    folder.catalog.mkdir(parents=True, exist_ok=True)
    with atomic_file(_partial(folder)) as draft:
        write_with_checksum(views_to_table(views), draft)


def _partial(folder: StudyFolder) -> Path:
    return folder.catalog / ".interrupted-scan.parquet"


def _check_rows(
    rows: Mapping[str, Sequence[AnnotatedRow | RowError]],
    catalog: Catalog,
    names: RecordingNames,
    point_length_ms: float | None,
) -> dict[str, CheckedSegments]:
    """Check the annotated rows of each file."""
    views = {recording.id: catalog.views_of(recording.id) for recording in catalog.recordings}
    recording_of = recordings_of_files(rows, names)
    length_s = None if point_length_ms is None else point_length_ms / 1000
    return {
        source: check_segments(
            own, source=source, names=names, views=views, only=recording_of.get(source), point_length_s=length_s
        )
        for source, own in rows.items()
    }


def recordings_of_files(sources: Iterable[str], names: RecordingNames) -> dict[str, tuple[str, str | None]]:
    """The recording, and possibly view, that each annotation file is about by its own name, for rows that name none.

    The longest end of the path counts. Where files lie in folders as the recordings do, `siteB/take_1.csv` is not about
    `siteA/take_1`.
    """
    by_folder: dict[str, tuple[str, str | None]] = {}
    by_name: dict[str, tuple[str, str | None]] = {}
    for source in sources:
        parts = PurePosixPath(source).with_suffix("").parts
        ends = ["/".join(parts[start:]) for start in range(len(parts)) if parts[start] not in ("/", "..")]
        matches = [(end, match) for end in ends if (match := names.find(end)) is not None]
        if matches:
            end, (recording, view) = matches[0]
            is_bare = "/" in recording and "/" not in end
            (by_name if is_bare else by_folder)[source] = (recording, view)
    in_folders = any("/" in recording for recording, _ in by_folder.values())
    return by_folder if in_folders else {**by_folder, **by_name}


def _in_time(checked: Iterable[CheckedSegments]) -> dict[str, tuple[Segment, ...]]:
    """Segments of all files by recording, in the order of time."""
    segments: dict[str, list[Segment]] = {}
    for each in checked:
        for recording, own in each.segments.items():
            segments.setdefault(recording, []).extend(own)
    return {
        recording: tuple(sorted(own, key=lambda segment: (segment.onset, segment.offset)))
        for recording, own in segments.items()
    }


def _with_splits(
    recordings: Sequence[Recording], checked: Mapping[str, CheckedSegments]
) -> tuple[tuple[Recording, ...], list[Finding]]:
    """Add the splits that annotation files give, such as ActivityNet's subset; the split of a table or folder wins.

    Raises:
        UserError: If rows give one recording several splits.
    """
    findings: list[Finding] = []
    given: dict[str, tuple[str, str]] = {}
    unknown: dict[tuple[str, str], int] = {}
    for source, each in checked.items():
        for id, splits in each.splits.items():
            for name, line in splits.items():
                place = source if line is None else f"{source}:{line}"
                split = split_of(name)
                if split is None:
                    unknown[source, name] = unknown.get((source, name), 0) + 1
                    continue
                before, first = given.setdefault(id, (split, place))
                if before != split:
                    raise UserError(
                        f"{first} and {place} contradict each other: recording '{id}' has split '{before}' and '{split}'. "
                        "Correct one of them."
                    )
    for (source, name), count in unknown.items():
        message = f"split '{name}' of {counted(count, 'recording')} is none of train, val and test; it is not used"
        findings.append(Finding("unknown split", source, message))
    changed = []
    for recording in recordings:
        split, place = given.get(recording.id, (recording.split, ""))
        if recording.split is not None and split != recording.split:
            message = f"recording '{recording.id}' has split '{recording.split}' and here '{split}'; the first is used"
            findings.append(Finding("conflicting labels", place, message))
        changed.append(replace(recording, split=recording.split or split))
    return tuple(changed), findings


def _with_labels(
    recordings: Sequence[Recording], checked: Mapping[str, CheckedSegments]
) -> tuple[tuple[Recording, ...], list[Finding]]:
    """Add the labels that annotation files give full recordings; the label of a table or folder wins."""
    findings: list[Finding] = []
    labels = {recording.id: recording.label for recording in recordings}
    for source, each in checked.items():
        for id, (label, line) in each.labels.items():
            before = labels[id]
            if before is None:
                labels[id] = label
            elif normalize_label(before) != label:
                place = source if line is None else f"{source}:{line}"
                message = f"recording '{id}' has label '{before}' and here '{label}'; the first is used"
                findings.append(Finding("conflicting labels", place, message))
    return tuple(replace(recording, label=labels[recording.id]) for recording in recordings), findings


def _position(views: Sequence[View]) -> Callable[[View], int]:
    order = {(view.recording, view.id): index for index, view in enumerate(views)}
    return lambda view: order[view.recording, view.id]


def _about_views(views: Iterable[View]) -> list[Finding]:
    findings = []
    by_digest: dict[str, list[str]] = {}
    for view in views:
        if view.status != "ok":
            kind: FindingKind = "unreadable video"
            if not view.has_video:
                # Poses that were read have a digest.
                kind = "poses without people" if view.digest else "unreadable poses"
            findings.append(Finding(kind, view.path, view.reason))
        findings += [Finding("video warning", view.path, warning) for warning in view.warnings]
        if view.digest and view.path not in by_digest.get(view.digest, ()):  # crops share a file
            by_digest.setdefault(view.digest, []).append(view.path)
    for paths in by_digest.values():
        if len(paths) > 1:
            message = f"has the same bytes as {', '.join(paths[1:])}; splits keep them together"
            findings.append(Finding("same video twice", paths[0], message))
    return findings


def _about_labels(recordings: Sequence[Recording], segments: Mapping[str, tuple[Segment, ...]]) -> list[Finding]:
    findings = []
    counts: Counter[str] = Counter()
    last: dict[str, str] = {}
    for recording in recordings:
        own = segments.get(recording.id, ())
        labels = [segment.label for segment in own] or ([recording.label] if recording.label is not None else [])
        if not labels:
            findings.append(Finding("video without label", recording.id, "has neither a label nor segments"))
        counts.update(labels)
        last |= dict.fromkeys(labels, recording.id)
    for label, count in sorted(counts.items()):
        if count == 1:
            message = f"class '{label}' has one sample only: it cannot be both trained and tested"
            findings.append(Finding("class with one sample", last[label], message))
    alike: dict[str, list[str]] = {}
    for label in sorted(counts):
        alike.setdefault("".join(label.casefold().split()), []).append(label)
    for labels in alike.values():
        if len(labels) > 1:
            shown = ", ".join(f"'{label}' ({counts[label]})" for label in labels)
            message = f"classes {shown} differ in case or spaces only; they are kept apart"
            findings.append(Finding("similar labels", last[labels[0]], message))
    return findings


def _about_alignment(catalog: Catalog, tolerance: float) -> list[Finding]:
    findings = []
    for recording in catalog.recordings:
        alignment = align_recording(catalog, recording.id, tolerance=tolerance)
        if alignment is not None:
            findings += [Finding(NOT_ALIGNED, recording.id, problem) for problem in alignment.problems]
            findings += [Finding(DRIFTING, recording.id, drift) for drift in alignment.drifts]
    return findings
