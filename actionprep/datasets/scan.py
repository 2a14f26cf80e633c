"""Fill the catalog: find the videos, read each once by packets, hold annotations and views against them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from actionprep.datasets.alignment import align_recording
from actionprep.datasets.annotations import RecordingNames, check_segments
from actionprep.datasets.catalog import Catalog
from actionprep.datasets.catalog_tables import views_from_table, views_to_table
from actionprep.datasets.findings import Finding, FindingKind
from actionprep.datasets.paths import no_link
from actionprep.datasets.recordings import Recording, View
from actionprep.datasets.segments import Segment
from actionprep.datasets.study import StudyFolder, StudySettings
from actionprep.datasets.video_layouts import discover
from actionprep.errors import InputError, UserError
from actionprep.settings import canonical_json

NOT_ALIGNED: Final = "views not aligned"
DRIFTING: Final = "views drift apart"
"""Kinds of findings about how the views of a recording lie to each other."""


class VideoFactsLike(Protocol):
    """What probing a video gives (see `actionprep.pipeline.probe`)."""

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


Probe = Callable[[Path], VideoFactsLike]


@dataclass(frozen=True)
class ScanProgress:
    """How far a scan is: videos read of those to read, how many of them cannot be read, and the last one."""

    done: int
    total: int
    unreadable: int
    path: str


@dataclass(frozen=True)
class ScanReport:
    """What a scan did.

    num_probed:   videos that were read now; num_reused: those that had not changed since the last scan.
    num_unusable: annotated segments that were left out.
    """

    catalog: Catalog
    num_probed: int
    num_reused: int
    num_unusable: int

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What is worth telling, also kept in the catalog."""
        return self.catalog.findings

    @property
    def unreadable(self) -> tuple[View, ...]:
        """Views whose file cannot be read; each has its reason."""
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
    """Read every video of a study once by packets and write the catalog; inputs are never changed.

    settings: the study's own when None.
    probe:    gives the facts of one video, or raises InputError for one that cannot be read, which is then kept as
              unreadable.
    workers:  threads that read.
    progress: called after each video that is read.
    again:    also read files whose size and time of change are those of the last scan.

    Interrupted, it keeps what it has read for the next scan.

    Raises UserError when there are no videos, two recordings have one id, or a table is wrong.
    """
    settings = folder.study if settings is None else settings
    found = discover(folder, settings)
    folder.rename_former_catalog()
    Catalog(tuple(found.recordings), tuple(found.views))  # wrong ids stop here, before hours of reading
    known = {} if again else _views_before(folder)
    views, todo = [], []
    for view in found.views:
        if not view.has_video:
            views.append(_on_clock(view, settings))
            continue
        before = known.get(view.path)
        size, mtime = _size_and_time(folder.root / view.path)
        reusable = before is not None and before.status == "ok" and before.file_start is not None
        if before is not None and reusable and (before.size_bytes, before.mtime_ns) == (size, mtime):
            same = replace(before, recording=view.recording, id=view.id, offset=view.offset, drift=view.drift)
            views.append(_on_clock(same, settings))
        else:
            todo.append(replace(view, size_bytes=size, mtime_ns=mtime))
    num_reused = sum(view.has_video for view in views)
    probed = _probe_all(todo, folder, probe, workers=workers, progress=progress)
    views = sorted([*views, *(_on_clock(view, settings) for view in probed)], key=_position(found.views))

    catalog = Catalog(tuple(found.recordings), tuple(views))
    names = RecordingNames.of([recording.id for recording in found.recordings], views)
    by_recording = {recording.id: catalog.views_of(recording.id) for recording in found.recordings}
    findings = list(found.findings)
    segments: dict[str, list[Segment]] = {}
    num_unusable = 0
    for source, rows in found.rows.items():
        stem = names.find(Path(source).stem)
        checked = check_segments(rows, source=source, names=names, views=by_recording, only=stem and stem[0])
        findings += checked.findings
        num_unusable += checked.num_unusable
        for recording, of_one in checked.segments.items():
            segments.setdefault(recording, []).extend(of_one)
    in_time = {
        recording: tuple(sorted(of_one, key=lambda one: (one.onset, one.offset)))
        for recording, of_one in segments.items()
    }
    findings += _about_views(views)
    broken = {view.recording for view in views if not view.has_video and not view.digest}
    findings += _about_labels([one for one in found.recordings if one.id not in broken], in_time)
    catalog = replace(catalog, segments=in_time)
    findings += _about_alignment(catalog, settings.tolerance)
    catalog = replace(catalog, findings=tuple(findings))
    catalog.write(folder.catalog)
    no_link(_settings_read(folder)).write_text(scan_settings(settings), encoding="utf-8")
    _partial(folder).unlink(missing_ok=True)
    return ScanReport(catalog, len(todo), num_reused, num_unusable)


_NOT_READ = ("name", "allow_misaligned", "stages", "views", "skip_incomplete", "failure_budget", "store")
"""Settings of [study] that change nothing of what a scan finds."""


def scan_settings(settings: StudySettings) -> str:
    """The settings that a scan depends on, as text that is equal for equal ones."""
    return canonical_json(settings.model_dump(mode="json", exclude=set(_NOT_READ)))


def read_with(folder: StudyFolder) -> str:
    """`scan_settings` of the last scan; empty where that is not known."""
    place = _settings_read(folder)
    return place.read_text(encoding="utf-8") if place.is_file() else ""


def _settings_read(folder: StudyFolder) -> Path:
    return folder.catalog / "settings.json"


def _probe_all(
    views: Sequence[View],
    folder: StudyFolder,
    probe: Probe,
    *,
    workers: int,
    progress: Callable[[ScanProgress], None] | None,
) -> list[View]:
    """Facts of all these views; what is done when it is interrupted is kept for the next scan."""
    done: list[View] = []
    num_unreadable = 0
    num_threads = max(1, workers)
    pool = ThreadPoolExecutor(num_threads, thread_name_prefix="scan")
    waiting: dict[Future[View], View] = {}
    queue = iter(views)
    try:
        while True:
            # Only a few are handed out at a time, so that an interruption waits for few.
            while len(waiting) < 2 * num_threads and (view := next(queue, None)) is not None:
                waiting[pool.submit(_probed, view, folder.root / view.path, probe)] = view
            if not waiting:
                break
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                waiting.pop(future)
                done.append(future.result())
                num_unreadable += done[-1].status != "ok"
                if progress is not None:
                    progress(ScanProgress(len(done), len(views), num_unreadable, done[-1].path))
    except BaseException:
        with suppress(OSError):  # the interruption matters more than what could not be kept
            _keep_partial(folder, done)
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    return done


def _probed(view: View, path: Path, probe: Probe) -> View:
    try:
        facts = probe(path)
    except InputError as problem:
        return replace(view, status="unreadable", reason=problem.reason.removeprefix(f"{path}: "))
    except OSError as error:
        return replace(view, status="unreadable", reason=f"cannot be opened: {error.strerror or error}")
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


def _views_before(folder: StudyFolder) -> dict[str, View]:
    """Views of the last scan, and of one that was interrupted since, by path."""
    views: list[View] = []
    # A catalog that is absent, damaged or of another version is made anew.
    with suppress(UserError):
        views += Catalog.read(folder.catalog).views
    if _partial(folder).exists():
        import pyarrow as pa
        import pyarrow.parquet as pq

        with suppress(OSError, pa.ArrowException, TypeError, KeyError):
            views += views_from_table(pq.ParquetFile(_partial(folder)).read())
    return {view.path: view for view in views}


def _keep_partial(folder: StudyFolder, views: Sequence[View]) -> None:
    import pyarrow.parquet as pq

    if not views:
        return
    folder.catalog.mkdir(parents=True, exist_ok=True)
    draft = no_link(_partial(folder).with_suffix(".tmp"))
    pq.write_table(views_to_table(views), draft)
    os.replace(draft, _partial(folder))


def _partial(folder: StudyFolder) -> Path:
    return folder.catalog / ".interrupted-scan.parquet"


def _size_and_time(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return -1, -1  # probing says why
    return found.st_size, found.st_mtime_ns


def _position(views: Sequence[View]) -> Callable[[View], int]:
    order = {(view.recording, view.id): place for place, view in enumerate(views)}
    return lambda view: order[view.recording, view.id]


def _about_views(views: Iterable[View]) -> list[Finding]:
    found = []
    by_digest: dict[str, list[str]] = {}
    for view in views:
        if view.status != "ok":
            kind: FindingKind = "unreadable video"
            if not view.has_video:
                # Poses that were read have a digest.
                kind = "poses without people" if view.digest else "unreadable poses"
            found.append(Finding(kind, view.path, view.reason))
        found += [Finding("video warning", view.path, warning) for warning in view.warnings]
        if view.digest:
            by_digest.setdefault(view.digest, []).append(view.path)
    for paths in by_digest.values():
        if len(paths) > 1:
            message = f"has the same bytes as {', '.join(paths[1:])}; splits keep them together"
            found.append(Finding("same video twice", paths[0], message))
    return found


def _about_labels(recordings: Sequence[Recording], segments: dict[str, tuple[Segment, ...]]) -> list[Finding]:
    found = []
    counts: Counter[str] = Counter()
    last: dict[str, str] = {}
    for recording in recordings:
        of_one = segments.get(recording.id, ())
        labels = [segment.label for segment in of_one] or ([recording.label] if recording.label is not None else [])
        if not labels:
            found.append(Finding("video without label", recording.id, "has neither a label nor segments"))
        counts.update(labels)
        last |= dict.fromkeys(labels, recording.id)
    for label, count in sorted(counts.items()):
        if count == 1:
            message = f"class '{label}' has one sample only: it cannot be both trained and tested"
            found.append(Finding("class with one sample", last[label], message))
    return found


def _about_alignment(catalog: Catalog, tolerance: float) -> list[Finding]:
    found = []
    for recording in catalog.recordings:
        alignment = align_recording(catalog, recording.id, tolerance=tolerance)
        if alignment is not None:
            found += [Finding(NOT_ALIGNED, recording.id, problem) for problem in alignment.problems]
            found += [Finding(DRIFTING, recording.id, drift) for drift in alignment.drifts]
    return found
