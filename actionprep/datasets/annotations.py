"""Read annotated segments from files of many formats and check them against the recordings of a study."""

from __future__ import annotations

import itertools
import math
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np

from actionprep.datasets.findings import Finding
from actionprep.datasets.recording_names import RecordingNames
from actionprep.datasets.recordings import View
from actionprep.datasets.segments import Segment
from actionprep.datasets.tables import decode_head, header_of
from actionprep.datasets.timecodes import Timecode
from actionprep.errors import UserError, name_list
from actionprep.json_values import counted
from actionprep.registry import Entry, Registry


@dataclass(frozen=True, slots=True)
class AnnotatedRow:
    """One segment as a file has it.

    Attributes:
        recording: Name in the file: an id, a path, or a file name of one of the recording's videos. None where the
            file is about one recording and does not name it.
        onset: Start, in `unit`. Frames count from 0.
        offset: End, in `unit`, not included.
        label: Class name.
        layer: Tier or attribute that the label belongs to.
        annotator: Name of the person.
        unit: Seconds or frames.
        line: Line in the file, where it has lines.
        label_from_layer: Whether the file has no label here and the layer's name is used.
        alternatives: Further names of the recording, each with the seconds to add to the times if that name is used.
        split: The split that the file gives the recording, in the file's own words; None if it gives none.
        is_point: Whether the row is an event without length; `study.point_length` gives it one.
        joined: Files that play one after the other on one time line, and the row's file among them; None if the times
            begin with the row's file.
        not_used: What the file has about the row and the label leaves out, such as "modifiers"; "" for nothing.
        timecode: Onset and offset where the file has time codes hh:mm:ss:ff; they replace `onset` and `offset`.
        is_full_clip: Whether the row is about the full recording, and its times mean nothing. Its label may be empty.
    """

    recording: str | None
    onset: float
    offset: float
    label: str
    layer: str = ""
    annotator: str = ""
    unit: Literal["s", "frame"] = "s"
    line: int | None = None
    label_from_layer: bool = False
    alternatives: tuple[tuple[str, float], ...] = ()
    split: str | None = None
    is_point: bool = False
    joined: JoinedFiles | None = None
    not_used: str = ""
    timecode: tuple[Timecode, Timecode] | None = None
    is_full_clip: bool = False


@dataclass(frozen=True, slots=True)
class JoinedFiles:
    """Media files whose times run on from one to the next, while the annotation file does not have their lengths.

    Attributes:
        files: Names of the files in their order.
        index: Which of them the row is about.
        total_s: Length of all of them in seconds, to check that none is missing.
    """

    files: tuple[str, ...]
    index: int
    total_s: float


class RowError(ValueError):
    """A row that a format cannot read, with its line in the file."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason)
        self.line = line


class UnknownFormatError(UserError):
    """A file is of no annotation format."""


class AmbiguousListError(UnknownFormatError):
    """A list without a header could have several formats.

    Attributes:
        path: The file.
        presets: Names of the formats that it resembles.
    """

    def __init__(self, path: Path, presets: Sequence[str]) -> None:
        number = "the preset" if len(presets) == 1 else "the presets"
        super().__init__(
            f"{path} is a list without a header. It resembles {number} {', '.join(presets)}. Name the right one with "
            f"study.segment_format in actionprep.toml, or with 'actionprep init --segments {path.name} --segment-format "
            f"{presets[0]}'. 'actionprep formats NAME' prints a preset, to copy into a TOML file and change."
        )
        self.path = path
        self.presets = tuple(presets)


class UnmappedColumnsError(UserError):
    """A csv lacks the columns that a segment needs, or has them under names that are not known.

    Attributes:
        path: The file.
        columns: Its columns.
        missing: Names of the fields that no column was found for: onset, offset and label.
    """

    def __init__(self, path: Path, columns: Sequence[str], missing: Sequence[str]) -> None:
        from actionprep.datasets.tables import csv_columns

        super().__init__(
            f"{path} has no column for {', '.join(missing)}. A csv with segments needs the columns onset and offset (or "
            "onset_ms and offset_ms, onset_frame and offset_frame) and label; it has "
            f"{csv_columns(columns)}. Name others with study.segment_columns in actionprep.toml, or with 'actionprep "
            "init --segment-columns onset=COLUMN offset=COLUMN label=COLUMN'."
        )
        self.path = path
        self.columns = tuple(columns)
        self.missing = tuple(missing)


@dataclass(frozen=True)
class SegmentFormat:
    """A format of annotation files.

    Attributes:
        name: Value of `study.segment_format`.
        description: One line for lists of formats.
        suffixes: Suffixes that files in a folder of annotations have.
        recognizes: Whether a file has this format, from its path and the first 64 KiB of its text.
        read: Reads the rows of a file, given the column names of `study.segment_columns`. It yields a `RowError` for a
            row that cannot be read, so that the other rows are used.
        with_classes: Returns the format with the class names of a text file; None where a file has the names itself.
        class_files: Names of files beside the annotations that have the names of classes.
        resembles: Whether the first rows of a file could have this format, although `recognizes` cannot decide it.
        times: Unit of the times in a file, its first number and whether the end is included, and time 0.
    """

    name: str
    description: str
    suffixes: tuple[str, ...]
    recognizes: Callable[[Path, str], bool]
    read: Callable[[Path, Mapping[str, str]], Iterator[AnnotatedRow | RowError]]
    with_classes: Callable[[Path], SegmentFormat] | None = None
    class_files: tuple[str, ...] = ()
    resembles: Callable[[Path, str], bool] | None = None
    times: str = ""


def _add_list_presets() -> None:
    """Register the list formats that come with the package."""
    from actionprep.datasets.annotation_formats.lists import PRESETS, list_format

    for path in sorted(PRESETS.glob("*.toml")):
        SEGMENT_FORMATS[path.stem] = list_format(path)


_FOLDER = "actionprep.datasets.annotation_formats"

SEGMENT_FORMATS: Registry[SegmentFormat] = Registry(
    "annotation format",
    "actionprep.annotation_formats",
    (
        Entry("activitynet", f"{_FOLDER}.activitynet:FORMAT"),
        Entry("boris", f"{_FOLDER}.boris:PROJECT"),
        Entry("boris-modifiers", f"{_FOLDER}.boris:PROJECT_WITH_MODIFIERS"),
        Entry("boris-table", f"{_FOLDER}.boris_table:TABLE"),
        Entry("boris-table-modifiers", f"{_FOLDER}.boris_table:TABLE_WITH_MODIFIERS"),
        Entry("charades", f"{_FOLDER}.charades:FORMAT"),
        Entry("csv", f"{_FOLDER}.plain_csv:FORMAT"),
        Entry("cvat", f"{_FOLDER}.cvat:FORMAT"),
        Entry("datavyu", f"{_FOLDER}.datavyu:FORMAT"),
        Entry("bento", f"{_FOLDER}.bento:FORMAT"),
        Entry("elan", f"{_FOLDER}.elan:DOCUMENT"),
        Entry("elan-export", f"{_FOLDER}.elan_export:EXPORT"),
        Entry("jabs", f"{_FOLDER}.jabs:FORMAT"),
        Entry("label-studio", f"{_FOLDER}.label_studio:FORMAT"),
        Entry("praat", f"{_FOLDER}.praat:FORMAT"),
        Entry("feral", f"{_FOLDER}.feral:FORMAT"),
        Entry("ms-tcn", f"{_FOLDER}.ms_tcn:FORMAT"),
        Entry("one-hot", f"{_FOLDER}.one_hot:FORMAT"),
        Entry("simba-targets", f"{_FOLDER}.simba_targets:FORMAT"),
        Entry("solomon", f"{_FOLDER}.solomon:FORMAT"),
        Entry("something-something", f"{_FOLDER}.something_something:FORMAT"),
        Entry("tinyvirat", f"{_FOLDER}.tinyvirat:FORMAT"),
        Entry("via", f"{_FOLDER}.via:FORMAT"),
        Entry("via-project", f"{_FOLDER}.via_project:FORMAT"),
        Entry("vtrace", f"{_FOLDER}.vtrace:FORMAT"),
    ),
    plural="Formats",
    instance_of="actionprep.datasets.annotations:SegmentFormat",
    fill=_add_list_presets,
)
"""Annotation formats by the name that `study.segment_format` takes."""


def is_no_preset_file(name: Any) -> bool:
    """Return whether a format is named, instead of a TOML file with a list preset."""
    return not str(name).endswith(".toml")


def segment_formats() -> dict[str, SegmentFormat]:
    """Return all formats that can be used by name, plain csv last because it recognizes what is left."""
    return dict(sorted(SEGMENT_FORMATS.working().items(), key=lambda item: (item[0] == "csv", item[0])))


def read_annotations(
    path: Path, *, format: str = "auto", columns: Mapping[str, str] | None = None, classes: Path | None = None
) -> list[AnnotatedRow | RowError]:
    """Read all rows of an annotation file.

    Args:
        path: The file.
        format: Name of a format, path of a TOML file with a list preset, or "auto" to recognize the format.
        columns: Column names that differ from the usual ones, as in `study.segment_columns`. A table that has the
            columns named for times is read as csv.
        classes: Text file with the names of classes, for formats that have numbers.

    Returns:
        Segments and unreadable rows in the order of the file.

    Raises:
        UserError: If the file cannot be read, the format does not exist, or the file does not have that format.
    """
    head = _head_of(path)
    reader = _detected(path, head, columns or {}) if format == "auto" else find_segment_format(format)
    if classes is not None and reader.with_classes is not None:
        reader = reader.with_classes(classes)
    try:
        return list(reader.read(path, columns or {}))
    except OSError as error:
        raise UserError(f"Cannot read annotations {path}: {error.strerror or error}.") from None
    except (ValueError, LookupError, OverflowError, RecursionError) as error:
        if format == "auto" and reader.name == "csv" and (presets := _resembling(path, head)):
            raise AmbiguousListError(path, presets) from None
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} is not a valid '{reader.name}' annotation file: {error}.") from None


def find_segment_format(name: str) -> SegmentFormat:
    """Return the annotation format of a name, or the list preset in a TOML file.

    Raises:
        UserError: If there is no such format, or the file is not a list preset.
    """
    if is_no_preset_file(name):
        return SEGMENT_FORMATS.find(name)
    from actionprep.datasets.annotation_formats.lists import list_format

    return list_format(Path(name))


def _detected(path: Path, head: str, columns: Mapping[str, str]) -> SegmentFormat:
    from actionprep.datasets.annotation_formats.plain_csv import is_mapped

    formats = segment_formats()
    recognizing = [form for form in formats.values() if form.recognizes(path, head)]
    if not recognizing:
        if presets := _resembling(path, head):
            raise AmbiguousListError(path, presets)
        broken = "".join(f"\n{error}" for error in SEGMENT_FORMATS.broken().values())
        raise UnknownFormatError(
            f"Cannot detect the annotation format of {path}. Formats: "
            f"{'; '.join(f'{form.name} ({form.description})' for form in formats.values())}. Name one with "
            f"study.segment_format, or name the columns of a csv with study.segment_columns.{broken}"
        )
    return recognizing[-1] if recognizing[-1].name == "csv" and is_mapped(columns, header_of(head)) else recognizing[0]


def _head_of(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return decode_head(file.read(1 << 16))
    except OSError as error:
        raise UserError(f"Cannot read annotations {path}: {error.strerror or error}.") from None


def annotation_format_of(path: Path) -> str | None:
    """Return the name of the annotation format of a file; None if no format recognizes it.

    Raises:
        UserError: If the file cannot be read.
    """
    from actionprep.datasets.annotation_formats.plain_csv import has_segments

    head = _head_of(path)
    recognizing = [name for name, form in segment_formats().items() if form.recognizes(path, head)]
    # The csv reader tries every table.
    return next((name for name in recognizing if name != "csv" or has_segments(head)), None)


def resembling_formats(path: Path) -> list[str]:
    """Return the names of the formats of lists without header that a file could have.

    Raises:
        UserError: If the file cannot be read.
    """
    head = _head_of(path)
    recognized = [name for name, form in segment_formats().items() if name != "csv" and form.recognizes(path, head)]
    return recognized or _resembling(path, head)


def _resembling(path: Path, head: str) -> list[str]:
    """Names of the formats that the first rows of a file could have."""
    return [
        name for name, form in segment_formats().items() if form.resembles is not None and form.resembles(path, head)
    ]


@dataclass
class CheckedSegments:
    """Usable segments and reports about the others.

    Attributes:
        segments: Segments by recording, in order of time.
        splits: For each recording the splits that rows give it, each with the line of its first row.
        labels: Label of full recordings, with the line of its row. Several labels of one recording are segments instead.
        findings: What the user should know.
        num_unusable: Number of rows that are left out.
    """

    segments: dict[str, tuple[Segment, ...]] = field(default_factory=dict)
    splits: dict[str, dict[str, int | None]] = field(default_factory=dict)
    labels: dict[str, tuple[str, int | None]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    num_unusable: int = 0


def check_segments(
    rows: Sequence[AnnotatedRow | RowError],
    *,
    source: str,
    names: RecordingNames,
    views: Mapping[str, Sequence[View]],
    only: tuple[str, str | None] | None = None,
    point_length_s: float | None = None,
) -> CheckedSegments:
    """Keep the rows that can be used and report the others.

    Times of a row that names a video are on that view's clock and are converted to the recording's clock. A segment
    without label or length, or entirely outside the recording, is left out. One that begins or ends outside is kept
    as it is and reported.

    Args:
        rows: Rows of one file.
        source: Name of the file, for reports.
        names: Resolves names in the file.
        views: Views by recording.
        only: Recording of rows that name none, and the view whose frames they count, if the file is about one view.
        point_length_s: Length of segments that begin at events without length, in seconds; None leaves such events out
            and reports their number.
    """
    checked = CheckedSegments()
    kept: dict[str, list[Segment]] = {}
    absent: Counter[tuple[str, str]] = Counter()
    first_line: dict[tuple[str, str], int | None] = {}
    without_label: Counter[str] = Counter()
    points: Counter[str] = Counter()
    not_used: Counter[str] = Counter()
    linked: set[tuple[str, ...]] = set()
    of_clips: dict[str, list[AnnotatedRow]] = {}
    rates = _rates_by_view(views)
    matches = [_find(row, names, views) if isinstance(row, AnnotatedRow) else None for row in rows]
    # Names of other recordings may look like one of this study: of several such names the exact one counts.
    resolved = names.resolve(match.name for match in matches if match is not None and match.name is not None)
    for row, row_match in zip(rows, matches, strict=True):
        line = row.line
        try:
            if isinstance(row, RowError):
                raise row
            match = row_match
            if row.recording is None and only is not None:
                match = _Match(None, only[0], only[1] if row.unit == "frame" else None)
            if match is None or match.name in resolved.problems:
                problem = resolved.problems.get(match.name or "") if match is not None else None
                key = _names_of(row), problem or names.problem(row.recording or "")
                absent[key] += 1
                first_line.setdefault(key, line)
                continue
            if row.joined is not None:
                match = replace(match, shift=match.shift - _start_of(row.joined, names, views))
            if row.is_point:
                if point_length_s is None:
                    points[row.label] += 1
                    checked.num_unusable += 1
                    continue
                row = replace(row, offset=row.onset + point_length_s)
            if row.not_used:
                not_used[row.not_used] += 1
            if row.split:
                checked.splits.setdefault(match.recording, {}).setdefault(row.split, line)
            if match.others:
                linked.add((match.recording, *match.others))
            if row.is_full_clip:
                of_clips.setdefault(match.recording, []).append(row)
                continue
            segment, note = _on_recording_clock(row, match, views.get(match.recording, ()), rates)
        except RowError as error:
            checked.num_unusable += 1
            checked.findings.append(Finding("unusable segment", _where(source, line), str(error)))
            continue
        if note is not None:
            checked.findings.append(Finding("segment past the end", _where(source, line), note))
        if row.label_from_layer:
            without_label[row.layer] += 1
        kept.setdefault(match.recording, []).append(segment)
    for recording, clip_rows in of_clips.items():
        try:
            segments = _of_full_clip(recording, clip_rows, views.get(recording, ()), source)
        except RowError as error:
            checked.num_unusable += 1
            checked.findings.append(Finding("unusable segment", _where(source, error.line), str(error)))
            continue
        if len(segments) == 1:
            checked.labels[recording] = segments[0].label, clip_rows[0].line
        else:
            kept.setdefault(recording, []).extend(segments)
    for (name, problem), count in absent.items():
        checked.num_unusable += count
        where = _where(source, first_line[name, problem])
        message = f"{count} {'segment' if count == 1 else 'segments'} of {name}, {problem}"
        checked.findings.append(Finding("labels for an absent video", where, message))
    for layer, count in without_label.items():
        what = "1 annotation has no value and gets" if count == 1 else f"{count} annotations have no value and get"
        checked.findings.append(Finding("label from tier", source, f"{what} the name of the tier, '{layer}', as label"))
    if points:
        listed = name_list([f"{label} {count}" for label, count in points.items()])
        message = (
            f"{counted(points.total(), 'point event')} without length ({listed}) left out; study.point_length = 500 makes "
            "segments of 500 ms of them"
        )
        checked.findings.append(Finding("point events", source, message))
    for what, count in not_used.items():
        checked.findings.append(Finding("detail not used", source, f"{counted(count, 'segment')} with {what}"))
    for recording, *others in sorted(linked):
        checked.findings.append(
            Finding(
                "several recordings linked",
                source,
                f"it links files of recordings '{recording}' and {', '.join(map(repr, others))}; its segments count for "
                f"'{recording}'. Group these files as views of one recording, or annotate each in its own file",
            )
        )
    checked.segments = {recording: tuple(sorted(segments, key=_order)) for recording, segments in kept.items()}
    return checked


def _of_full_clip(recording: str, rows: Sequence[AnnotatedRow], views: Sequence[View], source: str) -> list[Segment]:
    """Return one segment over the full recording for each of its labels.

    Raises:
        RowError: If the recording needs a length and has no readable view.
        UserError: If rows give the recording different labels.
    """
    labels: dict[int | None, dict[str, AnnotatedRow]] = {}
    for row in rows:
        if label := normalize_label(row.label):
            labels.setdefault(row.line, {}).setdefault(label, row)
    (first, own), *others = labels.items() or ((None, {}),)
    for line, other in others:
        if other.keys() != own.keys():
            raise UserError(
                f"{_where(source, first)} and {_where(source, line)} contradict each other: recording '{recording}' has "
                f"label {_listed(own)} and {_listed(other)}. Correct one of them."
            )
    readable = [view for view in views if view.status == "ok" and view.num_frames]
    if len(own) > 1 and not readable:
        raise RowError(f"its labels {_listed(own)} need a readable video of recording '{recording}'", first)
    onset = min((view.span[0] for view in readable), default=0.0)
    offset = max((view.span[1] for view in readable), default=0.0)
    return [Segment(onset, offset, label, row.layer, row.annotator) for label, row in own.items()]


def _listed(labels: Iterable[str]) -> str:
    return " and ".join(f"'{label}'" for label in labels)


@dataclass(frozen=True, slots=True)
class _Match:
    """Recording and view that a row is about.

    Attributes:
        name: Name that was found; None for a file about one recording.
        recording: Id of the recording.
        view: Id of the view where the name is that of a video.
        shift: Seconds to add to the times of the row.
        others: Further recordings that the row names.
    """

    name: str | None
    recording: str
    view: str | None
    shift: float = 0.0
    others: tuple[str, ...] = ()


def _find(row: AnnotatedRow, names: RecordingNames, views: Mapping[str, Sequence[View]]) -> _Match | None:
    """Find the recording of a row: of several names a video's own file name counts first, then the first known name."""
    if row.recording is None:
        return None
    matches: list[_Match] = []
    for name, shift in ((row.recording, 0.0), *row.alternatives):
        match = names.find(name)
        if match is not None:
            matches.append(_Match(name, *match, shift))
    own = [match for match in matches if _is_file_of(match, views.get(match.recording, ()))]
    if not matches:
        return None
    best, *others = own or matches
    recordings = dict.fromkeys(match.recording for match in others if match.recording != best.recording)
    return replace(best, others=tuple(recordings))


def _start_of(joined: JoinedFiles, names: RecordingNames, views: Mapping[str, Sequence[View]]) -> float:
    """Return when a row's file begins on the time line of its files, in s, from the lengths of the study's videos.

    Raises:
        RowError: If a length is unknown, or the files do not add up to the total length.
    """
    if joined.index == 0:
        return 0.0
    lengths = []
    for name in joined.files:
        match = names.find(name)
        view = next(
            (
                candidate
                for candidate in views.get(match[0], ())
                if match[1] in (None, candidate.id) and candidate.num_frames
            )
            if match
            else iter(()),
            None,
        )
        if view is None:
            raise RowError(
                f"its times count from the start of '{joined.files[0]}', and the length of '{name}' is not known, because "
                "the study has no such video. Annotate with the project file (.boris), which has all lengths"
            )
        lengths.append(view.frame_times[-1] + view.frame_duration)
    if abs(sum(lengths) - joined.total_s) > 0.5:
        raise RowError(
            f"its times count from the start of '{joined.files[0]}': the files {', '.join(joined.files)} last "
            f"{sum(lengths):.3f} s together, and the observation {joined.total_s:.3f} s, so a file without events is "
            "missing. Annotate with the project file (.boris), which has all files"
        )
    return float(sum(lengths[: joined.index]))


def _is_file_of(match: _Match, views: Sequence[View]) -> bool:
    """Whether a name is the file name of a view, with its suffix: sound of the same name is another file."""
    file_name = PurePosixPath((match.name or "").replace("\\", "/")).name
    return any(PurePosixPath(view.path).name == file_name for view in views if match.view in (None, view.id))


def _names_of(row: AnnotatedRow) -> str:
    if row.recording is None:
        return "(the file names no recording)"
    names = dict.fromkeys(
        [row.recording, *(PurePosixPath(name.replace("\\", "/")).name for name, _ in row.alternatives)]
    )
    first, *others = names
    others = [name for name in others if name != PurePosixPath(first).name]
    return " or ".join(f"'{name}'" for name in (first, *others))


def _on_recording_clock(
    row: AnnotatedRow, match: _Match, views: Sequence[View], rates: Mapping[str, float]
) -> tuple[Segment, str | None]:
    """Check a row, and convert its times to the recording's clock.

    Returns:
        The segment, and a note where it begins or ends outside the recording.

    Raises:
        RowError: If the row cannot be used.
    """
    line = row.line
    readable = [view for view in views if view.status == "ok" and view.num_frames]
    named = next((view for view in views if view.id == match.view), None)
    if row.timecode is not None:
        row = _in_frames(row, row.timecode, readable if named is None else [named])
    onset, offset = row.onset + match.shift, row.offset + match.shift
    if not (math.isfinite(onset) and math.isfinite(offset)):
        raise RowError(f"times {onset} to {offset} are not finite", line)
    if onset == offset:
        raise RowError(f"it has no length: it starts and ends at {onset:g} {row.unit}", line)
    if offset < onset:
        raise RowError(f"it ends at {offset:g} {row.unit}, before it starts at {onset:g} {row.unit}", line)
    if not row.label.strip():
        raise RowError("it has no label", line)
    if row.unit == "frame":
        if named is not None and named not in readable:
            raise RowError(f"its frame numbers need the video {named.path}, which cannot be read", line)
        if not readable:
            raise RowError(f"its frame numbers need a readable video of recording '{match.recording}'", line)
        if named is None:
            _check_rates(row, match.recording, views, rates)
        view = named or readable[0]
        if onset >= view.num_frames or offset <= 0:
            raise RowError(
                f"frames {onset:g} to {offset:g} lie outside {view.path}, which has {view.num_frames} frames", line
            )
        onset, offset = _frame_time(view, onset), _frame_time(view, offset)
    elif named is not None:
        onset, offset = ((named.offset + time * (1 + named.drift * 1e-6)) for time in (onset, offset))
    note = None
    if readable:
        first, last = min(view.span[0] for view in readable), max(view.span[1] for view in readable)
        slack = max(view.frame_duration for view in readable)
        spans = f"recording '{match.recording}', which runs from {first:.3f} to {last:.3f} s"
        if onset >= last or offset <= first:
            raise RowError(f"{onset:.3f} to {offset:.3f} s lies outside {spans}", line)
        if onset < first - slack or offset > last + slack:
            note = f"{onset:.3f} to {offset:.3f} s goes beyond {spans}; it is kept as it is"
    return Segment(onset, offset, normalize_label(row.label), row.layer, row.annotator), note


def _in_frames(row: AnnotatedRow, timecode: tuple[Timecode, Timecode], views: Sequence[View]) -> AnnotatedRow:
    """Return a row with frame numbers for its time codes."""
    rate = next((rate for view in views if (rate := _rate(view))), 0.0)
    if not rate:
        raise RowError(f"time code {timecode[0]} needs a readable video with a frame rate", row.line)
    try:
        onset, offset = (code.frame_number(rate) for code in timecode)
    except ValueError as error:
        raise RowError(str(error), row.line) from None
    return replace(row, onset=onset, offset=offset, unit="frame", timecode=None)


def _check_rates(row: AnnotatedRow, recording: str, views: Sequence[View], rates: Mapping[str, float]) -> None:
    """Raise RowError for frame numbers that mean different times in the views of a recording."""
    known = {view.id: _rate(view) or rates.get(view.id, 0.0) for view in views}
    what = f"frames {row.onset:g} to {row.offset:g} of recording '{recording}'"
    advice = "Name the file of a view in the column of the recording, or give times in seconds"
    unknown = [view for view in views if not known[view.id]]
    if unknown:
        raise RowError(
            f"{what} may count frames of {unknown[0].path}, which cannot be read, so its frame rate is not known. "
            f"{advice}",
            row.line,
        )
    shortest = min((view.span[1] - view.span[0] for view in views if view.num_frames > 1), default=1.0)
    tolerance = max(_RATE_TOLERANCE, _CLOCK_STEP_S / shortest)
    if max(known.values()) > min(known.values()) * (1 + tolerance):
        listed = ", ".join(f"'{id}' {rate:g}" for id, rate in known.items())
        raise RowError(f"{what} mean different times in its views (frames/s: {listed}). {advice}", row.line)


_RATE_TOLERANCE = 5e-4  # 29.97 and 30 frames/s differ by 1e-3
_CLOCK_STEP_S = 2e-3  # containers that count milliseconds do not show the rate of a short clip better than this


def _rate(view: View) -> float:
    if view.status != "ok" or not view.num_frames:
        return 0.0
    return view.fps or (1 / view.frame_duration if view.frame_duration > 0 else 0.0)


def _rates_by_view(views: Mapping[str, Sequence[View]]) -> dict[str, float]:
    """Frame rate of each view id, where all its readable videos in the study have one rate; else it is left out."""
    rates: dict[str, list[float]] = {}
    for view in itertools.chain.from_iterable(views.values()):
        if rate := _rate(view):
            rates.setdefault(view.id, []).append(rate)
    return {id: min(of_id) for id, of_id in rates.items() if max(of_id) <= min(of_id) * (1 + _RATE_TOLERANCE)}


def normalize_label(label: str) -> str:
    """Return a label without surrounding spaces, in the composed Unicode form (NFC).

    macOS writes file names in the decomposed form; without this, one class would be two that look alike.
    """
    return unicodedata.normalize("NFC", label.strip())


def parse_interval(onset: str, offset: str, scale: float = 1.0) -> dict[str, Any]:
    """Parse the two times of a row.

    Args:
        onset: A time for `parse_time`, or a time code hh:mm:ss:ff.
        offset: Likewise; both are time codes, or neither.
        scale: Factor to seconds, or to frames.

    Returns:
        The arguments onset and offset of `AnnotatedRow`, and timecode if they are time codes.

    Raises:
        ValueError: If a text is not a time.
    """
    first, last = Timecode.parse(onset), Timecode.parse(offset)
    if first is not None and last is not None:
        return {"onset": 0.0, "offset": 0.0, "timecode": (first, last)}
    return {"onset": parse_time(onset) * scale, "offset": parse_time(offset) * scale}


def parse_time(text: str) -> float:
    """Parse a time such as "83.5", "83,5", "1:23.5", "00:01:23.500" or "00:01:23,500".

    Returns:
        Seconds.

    Raises:
        ValueError: If the text is not a time.
    """
    parts = text.strip().replace(",", ".").split(":")
    if not 1 <= len(parts) <= 3 or not all(parts):
        raise ValueError(f"'{text}' is not a time. Give seconds or HH:MM:SS.mmm")
    negative = parts[0].startswith("-")
    try:
        *larger, seconds = parts
        total = float(seconds.lstrip("-") if not larger else seconds)
        for power, part in enumerate(reversed(larger), start=1):
            total += int(part.lstrip("-")) * 60**power
    except ValueError:
        raise ValueError(f"'{text}' is not a time. Give seconds or HH:MM:SS.mmm") from None
    return -total if negative else total


def _frame_time(view: View, frame: float) -> float:
    """Start of a frame on the recording's clock; frames outside the video have the length of the others."""
    limits = np.append(view.times, view.span[1])
    inside = min(max(frame, 0), view.num_frames)
    return float(np.interp(inside, np.arange(len(limits)), limits)) + (frame - inside) * view.frame_duration


def _order(segment: Segment) -> tuple[float, float, str, str, str]:
    return segment.onset, segment.offset, segment.layer, segment.label, segment.annotator


def _where(source: str, line: int | None) -> str:
    return source if line is None else f"{source}:{line}"
