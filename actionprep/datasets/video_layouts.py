"""Find the videos of a study and what is known of its recordings, by class folders, a pattern or a table."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from actionprep.datasets.annotations import (
    SEGMENT_FORMATS,
    AnnotatedRow,
    RowError,
    UnknownFormatError,
    UnmappedColumnsError,
    is_no_preset_file,
    normalize_label,
    parse_interval,
    parse_time,
    read_annotations,
    resembling_formats,
    segment_formats,
)
from actionprep.datasets.cameras import calibration_files
from actionprep.datasets.discovery import SPLIT_NAMES, VIDEO_SUFFIXES, Discovery, NoVideosError
from actionprep.datasets.file_names import pattern_of_paths, reader_of_names
from actionprep.datasets.findings import Finding
from actionprep.datasets.names_to_ids import FIELDS, NOT_TEXT, id_of_name, is_text
from actionprep.datasets.natural_order import natural_key
from actionprep.datasets.recording_names import RecordingNames
from actionprep.datasets.recordings import Recording, View
from actionprep.datasets.study import StudyFolder, StudySettings
from actionprep.datasets.tables import encoding_findings, read_csv, require_columns, text_encoding
from actionprep.datasets.video_suffixes import is_video_file
from actionprep.datasets.videos_in_tables import TableFiles
from actionprep.datasets.view_files import add_readings
from actionprep.datasets.view_reading import IMAGE_SUFFIXES, number_of
from actionprep.errors import UserError, name_list, nearest
from actionprep.json_values import counted

_NOT_MEDIA = (
    *("", ".csv", ".doc", ".docx", ".eaf", ".h5", ".hdf5", ".html", ".ini", ".json", ".jsonl", ".log", ".mat", ".md"),
    *(".npy", ".npz", ".ods", ".parquet", ".pdf", ".pfsx", ".pkl", ".py", ".sh", ".skeleton", ".srt", ".toml", ".tsv"),
    *(".txt", ".vtt", ".xls", ".xlsx", ".xml", ".yaml", ".yml", ".zip"),
)
"""Suffixes of files that nobody expects to be read as videos."""


def discover(folder: StudyFolder, settings: StudySettings) -> Discovery:
    """Find videos by the layout, then add what tables and annotation files contain.

    Raises:
        UserError: If there are no videos, with what was searched for and where, or if a table is wrong.
    """
    with text_encoding(settings.encoding):
        return _discover(folder, settings)


def _discover(folder: StudyFolder, settings: StudySettings) -> Discovery:
    if settings.layout == "poses":
        from actionprep.datasets.poses.skeleton_data_sets import discover_poses

        discovery = discover_poses(folder, settings)
    else:
        find = {"folder-per-class": _by_class_folder, "views": _by_pattern, "csv": _by_table}[settings.layout]
        discovery = find(folder, settings)
        add_readings(discovery, folder, settings)
    discovery.views.sort(key=lambda view: (natural_key(view.recording), natural_key(view.id)))
    discovery.recordings.sort(key=lambda recording: natural_key(recording.id))
    names = names_of(discovery.recordings, discovery.views, folder, settings)
    if settings.recordings is not None:
        _add_attributes(discovery, names, folder, settings)
    discovery.recordings = [_with_normal_forms(recording) for recording in discovery.recordings]
    if settings.offsets is not None:
        discovery.views = _with_offsets(discovery, names, folder, settings.offsets)
    _read_segments(discovery, folder, settings)
    return discovery


def names_of(
    recordings: Iterable[Recording], views: Iterable[View], folder: StudyFolder, settings: StudySettings
) -> RecordingNames:
    """Collect the names that tables may use for recordings."""
    base = folder.relative(folder.resolve(settings.videos))
    return RecordingNames.of([recording.id for recording in recordings], views, videos=base)


def videos_below(folder: StudyFolder, settings: StudySettings) -> list[Path]:
    """List all files below the study folder that are named like videos, relative to it, without our own output."""
    return _list_videos(folder, settings, folder.root).videos if folder.root.is_dir() else []


def holds_text(path: Path) -> bool:
    """Return whether a small file is empty or begins with text, as a pointer of Git LFS or an error page does.

    Reads only the first bytes, and nothing of a large file: a scan checks whether that is a video.
    """
    if not path.is_file() or path.stat().st_size > _SMALL:
        return False
    try:
        with open(path, "rb") as file:
            head = file.read(512)
    except OSError:
        return False  # a scan reports why it cannot be read
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.end < len(head):  # more than a letter that the last byte cuts
            return False
        text = head[: error.start].decode("utf-8")
    return all(letter.isprintable() or letter in "\t\n\r\ufeff" for letter in text)


_SMALL = 1 << 16


def tables_of(folder: StudyFolder, settings: StudySettings) -> list[Path]:
    """List the existing files that a scan reads besides videos: settings, tables and annotations."""
    videos = folder.resolve(settings.videos)
    tables = [folder.settings_file]
    for given, beside in ((settings.csv, videos), (settings.recordings, videos), (settings.offsets, folder.root)):
        if given is not None:
            tables += [path for path in (folder.resolve(given), beside / given) if path.is_file()][:1]
    if settings.calibration is not None and folder.resolve(settings.calibration).exists():
        tables += calibration_files(folder.resolve(settings.calibration))
    options = annotation_options(folder, settings)
    named = [Path(options["format"])] if not is_no_preset_file(options["format"]) else []
    named += [options["classes"]] if options["classes"] is not None else []
    annotations = list(annotation_files(folder, settings.segments, may_be_missing=True))
    folders = dict.fromkeys(parent for path in annotations for parent in (path.parent, path.parent.parent))
    names = sorted(_class_files(settings)) if folders else []
    named += [parent / name for parent in folders for name in names]
    tables += [path for path in named if path.is_file()]
    return list(dict.fromkeys([*tables, *annotations]))


def _class_files(settings: StudySettings) -> set[str]:
    """Names of files that have names of classes and no annotations."""
    if settings.segment_format in SEGMENT_FORMATS:
        return set(SEGMENT_FORMATS.find(settings.segment_format).class_files)
    return {name for format in segment_formats().values() for name in format.class_files}


def annotation_files(folder: StudyFolder, wanted: Sequence[str], *, may_be_missing: bool = False) -> dict[Path, bool]:
    """List the files that paths, folders and glob patterns mean.

    Args:
        folder: The study.
        wanted: Paths, folders and patterns, as in study.segments.
        may_be_missing: Leave out what does not exist.

    Returns:
        Each file, and whether it is named itself, not only its folder or a pattern.

    Raises:
        UserError: If one of them means no file.
    """
    suffixes = {suffix for format in segment_formats().values() for suffix in format.suffixes}
    files: dict[Path, bool] = {}
    for name in wanted:
        path = folder.resolve(name)
        is_named = path.is_file()
        if path.is_dir():
            matching = sorted(
                file for file in path.rglob("*") if file.suffix.lower() in suffixes and file.name[0] != "."
            )
        elif is_named:
            matching = [path]
        else:
            base = Path(path.anchor) if Path(name).is_absolute() else folder.root
            matching = sorted(base.glob(str(path.relative_to(base)))) if any(mark in name for mark in "*?[") else []
        if not matching and not may_be_missing:
            raise UserError(
                f"No annotation files at {path}, which study.segments names. It may be a file, a folder with "
                f"{', '.join(sorted(suffixes))} files, or a pattern such as 'annotations/*.csv'."
            )
        for file in matching:
            files[file] = files.get(file, False) or is_named
    return files


def annotation_options(folder: StudyFolder, settings: StudySettings) -> dict[str, Any]:
    """Return the arguments of `read_annotations` that the settings of a study give."""
    format, classes = settings.segment_format, settings.segment_classes
    return {
        "format": format if is_no_preset_file(format) else str(folder.resolve(format)),
        "columns": settings.segment_columns,
        "classes": None if classes is None else folder.resolve(classes),
    }


def _read_segments(discovery: Discovery, folder: StudyFolder, settings: StudySettings) -> None:
    """Read the annotation files; in folders, files of no annotation format are reported and left out."""
    files = annotation_files(folder, settings.segments)
    unused: list[UserError] = []
    beside = _class_files(settings)
    for path, is_named in files.items():
        if not is_named and path.name in beside:
            continue
        try:
            rows = read_annotations(path, **annotation_options(folder, settings))
        except (UnknownFormatError, UnmappedColumnsError) as error:
            is_table = isinstance(error, UnmappedColumnsError) and path.suffix.lower() != ".txt"
            if is_named or is_table:
                raise
            unused.append(error)
            message = "is in a folder of annotations and of no annotation format"
            discovery.findings.append(Finding("file not used", folder.relative(path), message))
            continue
        discovery.rows[folder.relative(path)] = rows
        discovery.findings += encoding_findings(path, folder.relative(path))
    if unused and not discovery.rows:
        raise unused[0]


def propose_pattern(folder: StudyFolder, settings: StudySettings) -> str | None:
    """Propose a pattern of the layout "views" for videos that look like several cameras of the same recordings.

    The names of the files, or of their folders, must contain a word for a camera and its number, and each recording
    must have at least two views.

    Returns:
        The pattern, such as `{recording}/cam{view}.mp4`; None if the names do not look so.
    """
    base = folder.resolve(settings.videos)
    files = _list_videos(folder, settings, base).videos if base.is_dir() else []
    if len(files) < 2:
        return None
    words = {match[1] for file in files for match in _CAMERA.finditer(file.as_posix())}
    suffixes = {file.suffix for file in files}
    suffix = suffixes.pop() if len(suffixes) == 1 else ".*"
    for word in sorted(words, key=natural_key):
        camera = f"{word}{{view}}"
        for pattern in (
            f"{camera}{suffix}",
            f"{{recording}}/{camera}{suffix}",
            f"{camera}/{{recording}}{suffix}",
            *(f"{{recording}}{mark}{camera}{suffix}" for mark in "_-. "),
            *(f"{camera}{mark}{{recording}}{suffix}" for mark in "_-. "),
        ):
            matches = [pattern_of_paths(pattern).fullmatch(file.as_posix()) for file in files]
            fields = [match.groupdict() for match in matches if match is not None]
            views = Counter(values.get("recording") for values in fields)
            if len(fields) == len(files) and min(views.values()) > 1 and all(f["view"].isdecimal() for f in fields):
                return pattern
    return None


_CAMERA = re.compile(r"(?<![^\W\d_])((?:camera|cam|view|gopro|kamera|angle|c|v)[-_ ]?)(?=\d)", re.IGNORECASE)
"""A word for a camera before a number, in the name of a file or folder."""


def _by_class_folder(folder: StudyFolder, settings: StudySettings) -> Discovery:
    base = _videos_folder(folder, settings)
    listing = _list_videos(folder, settings, base)
    files, others = listing.videos, [*listing.others, *listing.not_text]
    if not files:
        raise NoVideosError(
            f"No videos in {base}: looked there and below for <class>/<clip> with {', '.join(VIDEO_SUFFIXES)}, found "
            f"{_some_files(others)}.",
            _image_folders_remedy(listing)
            or f"Set study.videos in {folder.settings_file} to the folder of your videos.",
        )
    tops = {file.parts[0] for file in files if len(file.parts) > 1}
    # Published data sets have {train,val,test}/<class>/<clip>.
    has_splits = bool(tops) and all(top.lower() in SPLIT_NAMES for top in tops)
    splits = {file.parts[0] for file in files if len(file.parts) > 2 and file.parts[0].lower() in SPLIT_NAMES}
    if splits and not has_splits:
        stray = sorted(tops - {top for top in tops if top.lower() in SPLIT_NAMES}, key=natural_key)
        raise UserError(
            f"{base} has the folders {_listed(sorted(splits, key=natural_key))} of a split, with a folder per class in "
            f"each, and beside them {_listed(stray)}, which is no split. Move that elsewhere, so that the folders "
            f"in {'these' if len(splits) > 1 else 'it'} are the classes. If all of them are classes, set "
            'layout = "views" and pattern = "{label}/{recording}.*" under [study] in '
            f"{folder.settings_file.name}."
        )
    discovery = Discovery([], [], findings=_not_text(folder, base, listing))
    discovery.findings += _unused_files(folder, base, listing.others)
    for file in files:
        id = _id_of_listed(base, file)
        folders = list(file.parts[:-1])
        split = SPLIT_NAMES[folders.pop(0).lower()] if has_splits and folders else None
        discovery.recordings.append(Recording(id, label=folders[0] if folders else None, split=split))
        discovery.views.append(View(id, "0", folder.relative(base / file)))
    return discovery


def _by_pattern(folder: StudyFolder, settings: StudySettings) -> Discovery:
    base = _videos_folder(folder, settings)
    fields_of = reader_of_names(settings.pattern)
    listing = _list_videos(folder, settings, base)
    videos, others = listing.videos, listing.others
    discovery = Discovery([], [], findings=_not_text(folder, base, listing))
    unused: list[Path] = []
    known: dict[str, dict[str, Any]] = {}
    files = [*((file, True) for file in videos), *((file, False) for file in others)]
    for file, is_video in sorted(files, key=lambda item: natural_key(item[0].as_posix())):
        values = fields_of(file.as_posix())
        if values is None:
            if is_video:
                message = f"does not match the pattern '{settings.pattern}'"
                discovery.findings.append(Finding("file not used", folder.relative(base / file), message))
            else:
                unused.append(file)
            continue
        id = id_of_name(values.pop("recording", "") or base.resolve().name)
        view = id_of_name(values.pop("view", "") or "0")
        discovery.views.append(View(id, view, folder.relative(base / file)))
        if "split" in values:
            values["split"] = _split_name(values["split"], str(base / file))
        before = known.setdefault(id, values)
        for name, value in values.items():
            if before[name] != value:
                message = (
                    f"views of recording '{id}' differ in {name}: '{before[name]}' and '{value}'; the first is used"
                )
                discovery.findings.append(Finding("conflicting labels", folder.relative(base / file), message))
    if not discovery.views:
        instead = (
            f"There {'is' if len(videos) == 1 else 'are'} {counted(len(videos), 'video')} that "
            f"{'does' if len(videos) == 1 else 'do'} not match, such as '{videos[0].as_posix()}'"
            if videos
            else f"There are {_some_files(others)}"
        )
        raise NoVideosError(
            f"No videos match the pattern '{settings.pattern}' below {base}. {instead}.",
            ("" if videos else _image_folders_remedy(listing))
            or f"Set study.pattern and study.videos in {folder.settings_file}.",
        )
    discovery.findings += _unused_files(folder, base, unused)
    discovery.recordings += [Recording(id, **values) for id, values in known.items()]
    return discovery


def _by_table(folder: StudyFolder, settings: StudySettings) -> Discovery:
    if settings.csv is None:
        raise UserError(
            f"Layout csv needs a table: set study.csv in {folder.settings_file}, or name it with --csv. It has one row "
            "per video or per segment, a column 'path', and optionally the columns recording, view, label, subject, "
            "session, split, onset and offset."
        )
    videos = folder.resolve(settings.videos)
    table = _table_path(folder, settings.csv, videos)
    try:
        columns, rows = read_csv(table, usual=_usual_columns(settings))
        require_columns(table, columns, {settings.path_column: "study.path_column (--path-column)"})
    except UserError as error:
        if presets := resembling_formats(table):
            raise UserError(_list_instead_of_table(table, presets, folder)) from error
        raise
    bases = [base for base in dict.fromkeys((videos, table.parent, folder.root)) if base.is_dir()]
    named = {
        "recording": settings.recording_column,
        "view": settings.view_column,
        **{name: getattr(settings, f"{name}_column") for name in FIELDS},
    }
    for name, column in named.items():
        if column not in columns and column != StudySettings.model_fields[f"{name}_column"].default:
            require_columns(table, columns, {column: f"study.{name}_column (--{name}-column)"})
    times = _time_columns(columns, settings.segment_columns)
    used = {settings.path_column, *named.values(), *(times[:2] if times else ())}
    source = folder.relative(table)

    discovery = Discovery([], [], findings=encoding_findings(table, source))
    values_of = _RecordingValues(table)
    paths: dict[str, dict[str, tuple[str, int]]] = {}
    segments: dict[str, set[AnnotatedRow]] = {}
    files = TableFiles.find([row[settings.path_column] for _, row in rows], bases)
    for line, row in rows:
        place = f"{source}:{line}"
        given = row[settings.path_column]
        path = files.paths.get(given) or _image_folder(given, bases, settings)
        if path is None:
            searched = ", ".join(str(base) for base in bases)
            message = files.problems.get(given) or f"no file '{given}' (looked in {searched})"
            discovery.findings.append(Finding("labels for an absent video", place, message))
            continue
        id = row.get(named["recording"], "") or _id_of_path(path, given, bases)
        values: dict[str, str] = {name: row[column] for name in FIELDS if row.get(column := named[name])}
        if times and row[times[0]]:
            try:
                segment = AnnotatedRow(
                    recording=id,
                    **parse_interval(row[times[0]], row[times[1]], times[3]),
                    label=values.get("label", ""),
                    unit=times[2],
                    line=line,
                )
            except ValueError as error:
                discovery.rows.setdefault(source, []).append(RowError(str(error), line))
                continue
            finally:
                values.pop("label", None)  # it is the segment's, not the recording's
            # A table with one row per view repeats each segment.
            if replace(segment, line=None) not in segments.setdefault(id, set()):
                segments[id].add(replace(segment, line=None))
                discovery.rows.setdefault(source, []).append(segment)
        if "split" in values:
            values["split"] = _split_name(values["split"], place)
        values_of.add(id, values, _other_columns(row, used), line)
        paths.setdefault(id, {}).setdefault(folder.relative(path), (row.get(named["view"], ""), line))
    if not paths:
        raise NoVideosError(
            f"No videos: none of the {len(rows)} files that {table} names in its column '{settings.path_column}' "
            f"exists (looked in {', '.join(str(base) for base in bases)}).",
            f"Set study.videos in {folder.settings_file} to the folder that the paths start from.",
        )
    discovery.findings += values_of.findings(source)
    discovery.recordings += [Recording(id, **values_of.values[id], extra=values_of.extra(id)) for id in paths]
    for id, videos_of_id in paths.items():
        ordered = sorted(videos_of_id, key=natural_key)
        for index, file in enumerate(ordered):
            view, line = videos_of_id[file]
            if not view and len(ordered) > 1 and named["recording"] not in columns:
                lines = ", ".join(str(videos_of_id[other][1]) for other in ordered)
                raise UserError(
                    f"Two recordings have the id '{id}': {', '.join(ordered)} ({source}, lines {lines}). Give them "
                    "ids in a column 'recording', or views in a column 'view'."
                )
            discovery.views.append(View(id, view or str(index), file))
    return discovery


def _usual_columns(settings: StudySettings) -> tuple[str, ...]:
    """Columns of the tables of videos and of recordings, as the settings name them."""
    own = (settings.path_column, settings.recording_column, settings.view_column)
    return (*own, *(getattr(settings, f"{name}_column") for name in FIELDS), "onset", "offset")


def _list_instead_of_table(table: Path, presets: Sequence[str], folder: StudyFolder) -> str:
    return (
        f"{table} is a list without a header, and layout csv needs a table with the column 'path'. It resembles "
        f"{', '.join(presets)}. Read it as annotations, and find the videos by a pattern:\n"
        f"  actionprep init --pattern '{{recording}}.*' --segments {folder.relative(table)} --segment-format {presets[0]}"
    )


def _add_attributes(discovery: Discovery, names: RecordingNames, folder: StudyFolder, settings: StudySettings) -> None:
    """Add subject, session, label, split and other columns of the table of recordings."""
    assert settings.recordings is not None
    table = _table_path(folder, settings.recordings, folder.resolve(settings.videos))
    columns, rows = read_csv(table, usual=_usual_columns(settings))
    key = settings.recording_column if settings.recording_column in columns else settings.path_column
    require_columns(table, columns, {key: "study.recording_column or study.path_column"})
    named = {name: getattr(settings, f"{name}_column") for name in FIELDS}
    source = folder.relative(table)
    discovery.findings += encoding_findings(table, source)
    resolved = names.resolve(row[key] for _, row in rows)
    values_of = _RecordingValues(table)
    for line, row in rows:
        match = resolved.found.get(row[key])
        if match is None:
            discovery.findings.append(_absent(f"{source}:{line}", row[key], resolved.problems))
            continue
        values: dict[str, str] = {name: row[column] for name, column in named.items() if row.get(column)}
        if "split" in values:
            values["split"] = _split_name(values["split"], f"{source}:{line}")
        values_of.add(match[0], values, _other_columns(row, {key, *named.values()}), line)
    discovery.findings += values_of.findings(source)
    discovery.recordings = [
        replace(
            recording,
            **values_of.values.get(recording.id, {}),
            extra={**recording.extra, **values_of.extra(recording.id)},
        )
        for recording in discovery.recordings
    ]


class _RecordingValues:
    """Values that the rows of a table give recordings; rows that contradict each other are an error."""

    def __init__(self, table: Path) -> None:
        self.table = table
        self.values: dict[str, dict[str, Any]] = {}
        self._lines: dict[tuple[str, str], int] = {}
        self._extra: dict[str, dict[str, set[str]]] = {}

    def add(self, id: str, values: Mapping[str, str], extra: Mapping[str, str], line: int) -> None:
        """Add one row. Raises UserError if another row gives the recording another label, subject, session or split."""
        known = self.values.setdefault(id, {})
        for name, value in values.items():
            before = known.setdefault(name, value)
            first = self._lines.setdefault((id, name), line)
            if value != before:
                raise UserError(
                    f"Lines {first} and {line} of {self.table} contradict each other: recording '{id}' has {name} "
                    f"'{before}' and '{value}'. Correct one of them, or give the rows different recordings."
                )
        for column, value in extra.items():
            self._extra.setdefault(id, {}).setdefault(column, set()).add(value)

    def extra(self, id: str) -> dict[str, str]:
        """Values of the other columns; columns that differ between rows of the recording do not describe it."""
        return {column: next(iter(values)) for column, values in self._extra.get(id, {}).items() if len(values) == 1}

    def findings(self, source: str) -> list[Finding]:
        """One finding for each column that differs between rows of one recording."""
        differing: dict[str, list[str]] = {}
        for id, columns in self._extra.items():
            for column, values in columns.items():
                if len(values) > 1:
                    differing.setdefault(column, []).append(id)
        return [
            Finding(
                "column not used",
                source,
                f"column '{column}' has several values for recording '{ids[0]}'"
                + (f" and {len(ids) - 1} more" if len(ids) > 1 else "")
                + "; it is left out there",
            )
            for column, ids in differing.items()
        ]


def _other_columns(row: Mapping[str, str], used: set[str]) -> dict[str, str]:
    return {column: value for column, value in row.items() if column and column not in used and value}


def _absent(place: str, name: str, problems: Mapping[str, str]) -> Finding:
    return Finding("labels for an absent video", place, f"'{name}', {problems[name]}")


def _with_offsets(discovery: Discovery, names: RecordingNames, folder: StudyFolder, offsets: str) -> list[View]:
    """Add offset and drift of the table; a row without a recording applies to that view of all recordings."""
    table = _table_path(folder, offsets, folder.root)
    columns, rows = read_csv(table, usual=("recording", "view", "offset", "drift"))
    require_columns(table, columns, {"view": "that column name", "offset": "that column name"})
    clocks: dict[tuple[str | None, str], tuple[float, float]] = {}
    lines: dict[tuple[str | None, str], int] = {}
    ids = {view.id for view in discovery.views}
    source = folder.relative(table)
    discovery.findings += encoding_findings(table, source)
    resolved = names.resolve(row["recording"] for _, row in rows if row.get("recording"))
    for line, row in rows:
        if row["view"] not in ids:
            known = ", ".join(sorted(ids, key=natural_key))
            raise UserError(
                f"Line {line} of {table} names view '{row['view']}', which no recording has. Views: {known}."
            )
        recording = None
        if row.get("recording"):
            match = resolved.found.get(row["recording"])
            if match is None:
                discovery.findings.append(_absent(f"{source}:{line}", row["recording"], resolved.problems))
                continue
            recording = match[0]
        try:
            clock = parse_time(row["offset"]), float(row.get("drift") or 0.0)
        except ValueError as error:
            raise UserError(f"Line {line} of {table}: {error}.") from None
        key = (recording, row["view"])
        if clocks.setdefault(key, clock) != clock:
            of_recording = "" if recording is None else f" of recording '{recording}'"
            raise UserError(
                f"Lines {lines[key]} and {line} of {table} contradict each other: view '{row['view']}'{of_recording} has "
                "two clocks. Correct one of them."
            )
        lines.setdefault(key, line)
    views = []
    for view in discovery.views:
        value = clocks.get((view.recording, view.id), clocks.get((None, view.id)))
        views.append(view if value is None else replace(view, offset=value[0], drift=value[1]))
    return views


def _with_normal_forms(recording: Recording) -> Recording:
    """Bring what is compared between recordings to one Unicode form."""
    forms: dict[str, Any] = {
        name: normalize_label(value) for name in FIELDS if (value := getattr(recording, name)) is not None
    }
    return replace(recording, **forms)


def _videos_folder(folder: StudyFolder, settings: StudySettings) -> Path:
    base = folder.resolve(settings.videos)
    if not folder.root.exists():
        # A study that is about to be made: the system cannot follow `..` through a folder that does not exist yet.
        base = Path(os.path.normpath(base))
    if not base.is_dir():
        raise NoVideosError(
            f"No videos: the folder {base} does not exist.",
            f"Put your videos there, or set study.videos in {folder.settings_file}.",
        )
    return base


@dataclass
class _Listing:
    """Files below a folder, relative to it; `not_text` are files and folders with names that no table can contain."""

    videos: list[Path] = field(default_factory=list)
    image_folders: list[Path] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    not_text: list[Path] = field(default_factory=list)


def _not_text(folder: StudyFolder, base: Path, listing: _Listing) -> list[Finding]:
    return [Finding("file not used", folder.relative(base / path), NOT_TEXT) for path in listing.not_text]


def _list_videos(folder: StudyFolder, settings: StudySettings, base: Path) -> _Listing:
    """List videos and other files below a folder, relative to it, in natural order; no hidden files, none of ours."""
    ours = {str(path.resolve()) for path in (folder.catalog, folder.runs, folder.quarantine)}
    # The store of these settings: the study's file may be about to be replaced, and be broken.
    if "://" not in settings.store:
        ours.add(str(folder.resolve(settings.store).resolve()))
    listing = _Listing()
    for path in _walk(base, ours, listing.not_text):
        (listing.videos if is_video_file(path) else listing.others).append(path.relative_to(base))
    numbered = Counter(path.parent for path in listing.others if number_of(path) is not None)
    listing.image_folders = [path for path, count in numbered.items() if count > 1]
    if settings.image_rate is not None:
        listing.videos += listing.image_folders
        listing.others = [
            path
            for path in listing.others
            if path.parent not in listing.image_folders or path.suffix.lower() not in IMAGE_SUFFIXES
        ]
    listing.videos.sort(key=lambda path: natural_key(path.as_posix()))
    return listing


def _walk(base: Path, leave_out: set[str], not_text: list[Path]) -> Iterator[Path]:
    seen: set[str] = set()
    for folder, below, files in os.walk(base, followlinks=True):
        real = os.path.realpath(folder)
        # A link to a folder above would never end.
        if real in seen:
            below.clear()
            continue
        seen.add(real)
        odd = [name for name in (*below, *files) if name[0] != "." and not is_text(name)]
        not_text += [Path(folder, name).relative_to(base) for name in sorted(odd)]
        below[:] = sorted(
            name
            for name in below
            if name[0] != "." and name not in odd and os.path.realpath(os.path.join(folder, name)) not in leave_out
        )
        yield from (Path(folder, name) for name in sorted(files) if name[0] != "." and name not in odd)


def _unused_files(folder: StudyFolder, base: Path, others: Iterable[Path]) -> list[Finding]:
    """Report files that may be meant as videos: images, and suffixes that are not in our list, with counts."""
    by_suffix: dict[str, list[Path]] = {}
    for file in others:
        suffix = file.suffix.lower()
        if suffix not in _NOT_MEDIA:
            by_suffix.setdefault(suffix, []).append(file)
    findings = []
    for suffix, files in sorted(by_suffix.items()):
        where = folder.relative(base / files[0])
        count = counted(len(files), "file")
        if suffix == ".gif":
            message = (
                f"{count} with the suffix .gif and a single image: animations are read as videos, still images are not"
            )
        elif suffix in IMAGE_SUFFIXES:
            folders = len({file.parent for file in files})
            message = (
                f"{count} with the suffix {suffix} in {counted(folders, 'folder')}: images are not read as "
                "videos; set image_rate under [study] to read each folder of numbered images as one video"
            )
        else:
            message = (
                f"{count} with the suffix {suffix}, which is not read as a video; convert such files, or name them in a "
                "table (layout csv) or a pattern (layout views)"
            )
        findings.append(Finding("file not used", where, message))
    return findings


def split_of(given: str) -> str | None:
    """Return train, val or test for what a table or folder calls a split; None if it is none."""
    return SPLIT_NAMES.get(given.strip().lower())


def _split_name(given: str, place: str) -> str:
    split = split_of(given)
    if split is None:
        raise UserError(
            f"Unknown split '{given}' ({place}).{nearest(given.lower(), SPLIT_NAMES)} Use train, val or test."
        )
    return split


def _time_columns(columns: list[str], names: Mapping[str, str]) -> Any:
    from actionprep.datasets.annotation_formats.plain_csv import segment_times

    return segment_times(names, columns)


def _table_path(folder: StudyFolder, given: str, beside: Path) -> Path:
    candidates = list(dict.fromkeys((folder.resolve(given), beside / given)))
    for path in candidates:
        if path.is_file():
            return path
    raise UserError(f"No table '{given}': looked for {' and '.join(str(path) for path in candidates)}.")


def _id_of_listed(base: Path, file: Path) -> str:
    """Return the id of a recording in a file, or in a folder of images, relative to the folder of the videos."""
    if file == Path():
        return id_of_name(base.resolve().name)
    is_folder = os.path.isdir(base / file)
    return id_of_name((file if is_folder else file.with_suffix("")).as_posix())


def _image_folder(given: str, bases: Sequence[Path], settings: StudySettings) -> Path | None:
    """Return the folder of images that a table names, if such folders are read as videos."""
    if settings.image_rate is None or not given or "\0" in given:
        return None
    return next((base / given for base in bases if os.path.isdir(base / given)), None)


def _image_folders_remedy(listing: _Listing) -> str:
    """Return how to read folders of images as videos; empty if there are none."""
    folders = listing.image_folders
    if not folders:
        return ""
    count = "1 folder" if len(folders) == 1 else f"{len(folders)} folders"
    return (
        f"{count} of numbered images, such as '{folders[0].as_posix()}', can be read as videos: set image_rate, in frames "
        "per second, under [study]."
    )


def _id_of_path(path: Path, given: str, bases: Iterable[Path]) -> str:
    """Return the relative path without its suffix, as other layouts name recordings."""
    absolute = Path(os.path.abspath(path))
    stem = Path(given) if os.path.isdir(path) else Path(given).with_suffix("")
    for base in bases:
        if absolute.is_relative_to(os.path.abspath(base)):
            relative = absolute.relative_to(os.path.abspath(base))
            return id_of_name((relative if os.path.isdir(path) else relative.with_suffix("")).as_posix())
    outside = PurePosixPath(os.path.normpath(stem))
    return id_of_name("/".join(part for part in outside.parts if part not in ("/", "..")))


def _listed(names: Sequence[str]) -> str:
    """Names for a message, at most three of them."""
    return name_list([f"'{name}'" for name in names], 3)


def _some_files(files: Sequence[Path]) -> str:
    if not files:
        return "no files at all"
    return f"{counted(len(files), 'other file')} ({name_list([file.as_posix() for file in files], 3)})"
