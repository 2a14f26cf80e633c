"""Find a study's videos and what is known of its recordings, by class folders, a pattern or a table."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from actionprep.datasets.annotations import (
    AnnotatedRow,
    RecordingNames,
    RowError,
    parse_time,
    read_annotations,
    segment_formats,
)
from actionprep.datasets.findings import Finding
from actionprep.datasets.names import NOT_TEXT, id_of_name, is_text
from actionprep.datasets.natural_order import natural_key
from actionprep.datasets.recordings import Recording, View
from actionprep.datasets.study import StudyFolder, StudySettings
from actionprep.datasets.tables import encoding_findings, read_csv, require_columns
from actionprep.errors import UserError, nearest

VIDEO_SUFFIXES = (
    *(".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg"),
    *(".mts", ".ogv", ".ts", ".webm", ".wmv"),
)

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "eval"), "test"),
}

_FIELDS = ("label", "subject", "session", "split")


class NoVideosError(UserError):
    """There are no videos where they were looked for.

    looked: the sentences that say what was looked for, where, and what was found instead; `remedy` says what to do in a
    study that has its settings file.
    """

    def __init__(self, looked: str, remedy: str) -> None:
        super().__init__(f"{looked} {remedy}")
        self.looked = looked


@dataclass
class Discovery:
    """What a layout found, before any video is read.

    views: with their path and nothing else; those of poses whole. rows: annotated rows by the file that they stand in.
    """

    recordings: list[Recording]
    views: list[View]
    rows: dict[str, list[AnnotatedRow | RowError]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


def discover(folder: StudyFolder, settings: StudySettings) -> Discovery:
    """Find videos by the layout, then add what tables and annotation files say.

    Raises UserError when there are no videos, saying what was looked for and where, or when a table is wrong.
    """
    if settings.layout == "poses":
        from actionprep.datasets.poses.skeleton_data_sets import discover_poses

        found = discover_poses(folder, settings)
    else:
        find = {"folder-per-class": _by_class_folder, "views": _by_pattern, "csv": _by_table}[settings.layout]
        found = find(folder, settings)
    found.views.sort(key=lambda view: (natural_key(view.recording), natural_key(view.id)))
    found.recordings.sort(key=lambda recording: natural_key(recording.id))
    names = RecordingNames.of([recording.id for recording in found.recordings], found.views)
    if settings.recordings is not None:
        _add_attributes(found, names, folder, settings)
    if settings.offsets is not None:
        found.views = _with_offsets(found, names, folder, settings.offsets)
    for path in annotation_files(folder, settings.segments):
        rows = read_annotations(path, format=settings.segment_format, columns=settings.segment_columns)
        found.rows[folder.relative(path)] = rows
        found.findings += encoding_findings(path, folder.relative(path))
    return found


def videos_below(folder: StudyFolder, settings: StudySettings) -> list[Path]:
    """All files below the study folder that are named as videos are, relative to it; not what we made."""
    return _list_videos(folder, settings, folder.root).videos if folder.root.is_dir() else []


def holds_text(path: Path) -> bool:
    """Whether a small file is empty or begins with text, as a pointer or an error page that is named like a video does.

    Reads no more than its first bytes, and of a large file nothing: whether it is a video, a scan finds out.
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
        if error.end < len(head):  # not just a letter that the last byte cuts
            return False
        text = head[: error.start].decode("utf-8")
    return all(letter.isprintable() or letter in "\t\n\r\ufeff" for letter in text)


_SMALL = 1 << 16


def tables_of(folder: StudyFolder, settings: StudySettings) -> list[Path]:
    """The files besides the videos that a scan reads, as far as they are there: settings, tables, annotations."""
    videos = folder.resolve(settings.videos)
    found = [folder.settings_file]
    for given, beside in ((settings.csv, videos), (settings.recordings, videos), (settings.offsets, folder.root)):
        if given is not None:
            found += [path for path in (folder.resolve(given), beside / given) if path.is_file()][:1]
    return [*found, *annotation_files(folder, settings.segments)]


def annotation_files(folder: StudyFolder, wanted: Sequence[str]) -> list[Path]:
    """The files that paths, folders and glob patterns mean; raises UserError for one that means none."""
    suffixes = {suffix for one in segment_formats().values() for suffix in one.suffixes}
    files: list[Path] = []
    for name in wanted:
        path = folder.resolve(name)
        if path.is_dir():
            found = sorted(file for file in path.rglob("*") if file.suffix.lower() in suffixes and file.name[0] != ".")
        elif path.is_file():
            found = [path]
        else:
            base = Path(path.anchor) if Path(name).is_absolute() else folder.root
            found = sorted(base.glob(str(path.relative_to(base)))) if any(mark in name for mark in "*?[") else []
        if not found:
            raise UserError(
                f"No annotation files at {path}, which study.segments names. It may be a file, a folder with "
                f"{', '.join(sorted(suffixes))} files, or a pattern such as 'annotations/*.csv'."
            )
        files += [file for file in found if file not in files]
    return files


def pattern_of_paths(pattern: str) -> re.Pattern[str]:
    """A pattern of the layout "views" as a regular expression with its fields as groups.

    Raises UserError for a field that does not exist.
    """
    known = ("recording", "view", *_FIELDS)
    parts = []
    used: set[str] = set()
    for part in re.split(r"(\{[^{}]*\}|\*\*|\*)", pattern.strip("/")):
        if part.startswith("{"):
            name = part[1:-1]
            if name not in known:
                raise UserError(
                    f"Unknown field '{part}' in the pattern '{pattern}'.{nearest(name, known)} "
                    f"Fields: {', '.join(f'{{{one}}}' for one in known)}."
                )
            text = ".+" if name == "recording" else "[^/]+?"
            parts.append(f"(?P={name})" if name in used else f"(?P<{name}>{text})")
            used.add(name)
        else:
            parts.append({"*": "[^/]*", "**": ".*"}.get(part) or re.escape(part))
    return re.compile("".join(parts))


def _by_class_folder(folder: StudyFolder, settings: StudySettings) -> Discovery:
    base = _videos_folder(folder, settings)
    listing = _list_videos(folder, settings, base)
    files, others = listing.videos, [*listing.others, *listing.not_text]
    if not files:
        raise NoVideosError(
            f"No videos in {base}: looked there and below for <class>/<clip> with {', '.join(VIDEO_SUFFIXES)}, found "
            f"{_some_files(others)}.",
            f"Set study.videos in {folder.settings_file} to the folder of your videos.",
        )
    tops = {file.parts[0] for file in files if len(file.parts) > 1}
    # {train,val,test}/<class>/<clip>, as published data sets lie.
    has_splits = bool(tops) and all(top.lower() in SPLIT_NAMES for top in tops)
    found = Discovery([], [], findings=_not_text(folder, base, listing))
    for file in files:
        id = id_of_name(file.with_suffix("").as_posix())
        folders = list(file.parts[:-1])
        split = SPLIT_NAMES[folders.pop(0).lower()] if has_splits and folders else None
        found.recordings.append(Recording(id, label=folders[0] if folders else None, split=split))
        found.views.append(View(id, "0", folder.relative(base / file)))
    return found


def _by_pattern(folder: StudyFolder, settings: StudySettings) -> Discovery:
    base = _videos_folder(folder, settings)
    match = pattern_of_paths(settings.pattern)
    listing = _list_videos(folder, settings, base)
    videos, others = listing.videos, listing.others
    found = Discovery([], [], findings=_not_text(folder, base, listing))
    known: dict[str, dict[str, Any]] = {}
    for file in sorted([*videos, *others], key=lambda file: natural_key(file.as_posix())):
        fields = match.fullmatch(file.as_posix())
        if fields is None:
            if file in videos:
                found.findings.append(
                    Finding(
                        "file not used",
                        folder.relative(base / file),
                        f"does not match the pattern '{settings.pattern}'",
                    )
                )
            continue
        values = fields.groupdict()
        id = id_of_name(values.pop("recording", None) or base.resolve().name)
        view = id_of_name(values.pop("view", None) or "0")
        found.views.append(View(id, view, folder.relative(base / file)))
        if "split" in values:
            values["split"] = _split_name(values["split"], str(base / file))
        before = known.setdefault(id, values)
        for name, value in values.items():
            if before[name] != value:
                message = (
                    f"views of recording '{id}' differ in {name}: '{before[name]}' and '{value}'; the first is used"
                )
                found.findings.append(Finding("conflicting labels", folder.relative(base / file), message))
    if not found.views:
        there = (
            f"There are {len(videos)} videos that do not match, such as '{videos[0].as_posix()}'"
            if videos
            else f"There are {_some_files(others)}"
        )
        raise NoVideosError(
            f"No videos match the pattern '{settings.pattern}' below {base}. {there}.",
            f"Set study.pattern and study.videos in {folder.settings_file}.",
        )
    found.recordings += [Recording(id, **values) for id, values in known.items()]
    return found


def _by_table(folder: StudyFolder, settings: StudySettings) -> Discovery:
    if settings.csv is None:
        raise UserError(
            f"Layout csv needs a table: set study.csv in {folder.settings_file}, or name it with --csv. It has a row "
            "a video (or a row a segment), with a column 'path' and perhaps recording, view, label, subject, session, "
            "split, onset, offset."
        )
    videos = folder.resolve(settings.videos)
    table = _table_path(folder, settings.csv, videos)
    columns, rows = read_csv(table)
    require_columns(table, columns, {settings.path_column: "study.path_column (--path-column)"})
    bases = [base for base in dict.fromkeys((videos, table.parent, folder.root)) if base.is_dir()]
    named = {
        "recording": settings.recording_column,
        "view": settings.view_column,
        **{name: getattr(settings, f"{name}_column") for name in _FIELDS},
    }
    for name, column in named.items():
        if column not in columns and column != StudySettings.model_fields[f"{name}_column"].default:
            require_columns(table, columns, {column: f"study.{name}_column (--{name}-column)"})
    times = _time_columns(columns, settings.segment_columns)
    used = {settings.path_column, *named.values(), *(times[:2] if times else ())}
    source = folder.relative(table)

    found = Discovery([], [], findings=encoding_findings(table, source))
    known: dict[str, dict[str, Any]] = {}
    paths: dict[str, dict[str, tuple[str, int]]] = {}
    segments: dict[str, set[AnnotatedRow]] = {}
    absent = 0
    for line, row in rows:
        place = f"{source}:{line}"
        given = row[settings.path_column]
        path = _existing(given, bases) if given else None
        if path is None:
            absent += 1
            looked = ", ".join(str(base) for base in bases)
            found.findings.append(
                Finding("labels for an absent video", place, f"no file '{given}' (looked in {looked})")
            )
            continue
        id = row.get(named["recording"], "") or _id_of_path(path, given, bases)
        values: dict[str, Any] = {name: row.get(named[name]) or None for name in _FIELDS}
        if times and row[times[0]]:
            try:
                segment = AnnotatedRow(
                    recording=id,
                    onset=parse_time(row[times[0]]) * times[3],
                    offset=parse_time(row[times[1]]) * times[3],
                    label=values["label"] or "",
                    unit=times[2],
                    line=line,
                )
            except ValueError as error:
                found.rows.setdefault(source, []).append(RowError(str(error), line))
                continue
            finally:
                values["label"] = None  # it is the segment's, not the recording's
            # A table with a row for each view repeats each segment.
            if replace(segment, line=None) not in segments.setdefault(id, set()):
                segments[id].add(replace(segment, line=None))
                found.rows.setdefault(source, []).append(segment)
        if values["split"] is not None:
            values["split"] = _split_name(values["split"], place)
        extra = {column: value for column, value in row.items() if column and column not in used and value}
        before = known.setdefault(id, {**values, "extra": extra})
        for name, value in values.items():
            if before[name] is None:
                before[name] = value
            elif value is not None and value != before[name]:
                message = f"recording '{id}' has {name} '{before[name]}' and '{value}'; the first is used"
                found.findings.append(Finding("conflicting labels", place, message))
        there = paths.setdefault(id, {})
        there.setdefault(folder.relative(path), (row.get(named["view"], ""), line))
    if not known:
        raise NoVideosError(
            f"No videos: none of the {len(rows)} files that {table} names in its column '{settings.path_column}' is "
            f"there (looked in {', '.join(str(base) for base in bases)}).",
            f"Set study.videos in {folder.settings_file} to the folder that the paths start from.",
        )
    found.recordings += [Recording(id, **values) for id, values in known.items()]
    for id, files in paths.items():
        ordered = sorted(files, key=natural_key)
        for number, file in enumerate(ordered):
            view, line = files[file]
            if not view and len(files) > 1 and named["recording"] not in columns:
                lines = ", ".join(str(files[one][1]) for one in ordered)
                raise UserError(
                    f"Two recordings have the id '{id}': {', '.join(ordered)} ({source}, lines {lines}). Give them "
                    "ids in a column 'recording', or views in a column 'view'."
                )
            found.views.append(View(id, view or str(number), file))
    return found


def _add_attributes(found: Discovery, names: RecordingNames, folder: StudyFolder, settings: StudySettings) -> None:
    """Subject, session, label, split and other columns of the table of recordings."""
    assert settings.recordings is not None
    table = _table_path(folder, settings.recordings, folder.resolve(settings.videos))
    columns, rows = read_csv(table)
    key = settings.recording_column if settings.recording_column in columns else settings.path_column
    require_columns(table, columns, {key: "study.recording_column or study.path_column"})
    named = {name: getattr(settings, f"{name}_column") for name in _FIELDS}
    source = folder.relative(table)
    found.findings += encoding_findings(table, source)
    by_id = {recording.id: recording for recording in found.recordings}
    for line, row in rows:
        match = names.find(row[key])
        if match is None:
            message = f"no one recording of this study is meant by '{row[key]}'"
            found.findings.append(Finding("labels for an absent video", f"{source}:{line}", message))
            continue
        recording = by_id[match[0]]
        values: dict[str, Any] = {name: row[column] for name, column in named.items() if row.get(column)}
        if "split" in values:
            values["split"] = _split_name(values["split"], f"{source}:{line}")
        extra = {
            column: value
            for column, value in row.items()
            if column and value and column != key and column not in named.values()
        }
        by_id[match[0]] = replace(recording, **values, extra={**recording.extra, **extra})
    found.recordings = [by_id[recording.id] for recording in found.recordings]


def _with_offsets(found: Discovery, names: RecordingNames, folder: StudyFolder, offsets: str) -> list[View]:
    """Views with the offset and drift of the table; a row without a recording is for that view of all recordings."""
    table = _table_path(folder, offsets, folder.root)
    columns, rows = read_csv(table)
    require_columns(table, columns, {"view": "that column name", "offset": "that column name"})
    given: dict[tuple[str | None, str], tuple[float, float]] = {}
    ids = {view.id for view in found.views}
    source = folder.relative(table)
    found.findings += encoding_findings(table, source)
    for line, row in rows:
        if row["view"] not in ids:
            known = ", ".join(sorted(ids, key=natural_key))
            raise UserError(
                f"Line {line} of {table} names view '{row['view']}', which no recording has. Views: {known}."
            )
        recording = None
        if row.get("recording"):
            match = names.find(row["recording"])
            if match is None:
                message = f"no one recording of this study is meant by '{row['recording']}'"
                found.findings.append(Finding("labels for an absent video", f"{source}:{line}", message))
                continue
            recording = match[0]
        try:
            given[recording, row["view"]] = (parse_time(row["offset"]), float(row.get("drift") or 0.0))
        except ValueError as error:
            raise UserError(f"Line {line} of {table}: {error}.") from None
    views = []
    for view in found.views:
        value = given.get((view.recording, view.id), given.get((None, view.id)))
        views.append(view if value is None else replace(view, offset=value[0], drift=value[1]))
    return views


def _videos_folder(folder: StudyFolder, settings: StudySettings) -> Path:
    base = folder.resolve(settings.videos)
    if not folder.root.exists():
        # A study that is about to be made: the system knows no way through a folder that is not there yet.
        base = Path(os.path.normpath(base))
    if not base.is_dir():
        raise NoVideosError(
            f"No videos: there is no folder {base}.",
            f"Put your videos there, or set study.videos in {folder.settings_file}.",
        )
    return base


@dataclass
class _Listing:
    """Files below a folder, relative to it; not_text: files and folders with names that no table can hold."""

    videos: list[Path] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    not_text: list[Path] = field(default_factory=list)


def _not_text(folder: StudyFolder, base: Path, listing: _Listing) -> list[Finding]:
    return [Finding("file not used", folder.relative(base / path), NOT_TEXT) for path in listing.not_text]


def _list_videos(folder: StudyFolder, settings: StudySettings, base: Path) -> _Listing:
    """Videos and other files below a folder, relative to it, in natural order; not hidden ones, nor what we made."""
    ours = {str(path.resolve()) for path in (folder.catalog, folder.runs, folder.quarantine)}
    # The store of these settings: those in the study's file may be about to be replaced, and be broken.
    if "://" not in settings.store:
        ours.add(str(folder.resolve(settings.store).resolve()))
    listing = _Listing()
    for path in _walk(base, ours, listing.not_text):
        relative = path.relative_to(base)
        (listing.videos if path.suffix.lower() in VIDEO_SUFFIXES else listing.others).append(relative)
    listing.videos.sort(key=lambda path: natural_key(path.as_posix()))
    return listing


def _walk(base: Path, leave_out: set[str], not_text: list[Path]) -> Iterator[Path]:
    seen: set[str] = set()
    for here, below, files in os.walk(base, followlinks=True):
        real = os.path.realpath(here)
        # A link to a folder above would never end.
        if real in seen:
            below.clear()
            continue
        seen.add(real)
        odd = [name for name in (*below, *files) if name[0] != "." and not is_text(name)]
        not_text += [Path(here, name).relative_to(base) for name in sorted(odd)]
        below[:] = sorted(
            name
            for name in below
            if name[0] != "." and name not in odd and os.path.realpath(os.path.join(here, name)) not in leave_out
        )
        yield from (Path(here, name) for name in sorted(files) if name[0] != "." and name not in odd)


def _split_name(given: str, place: str) -> str:
    if given.lower() not in SPLIT_NAMES:
        raise UserError(
            f"Unknown split '{given}' ({place}).{nearest(given.lower(), SPLIT_NAMES)} Use train, val or test."
        )
    return SPLIT_NAMES[given.lower()]


def _time_columns(columns: list[str], names: Mapping[str, str]) -> Any:
    from actionprep.datasets.annotation_formats.plain_csv import segment_times

    return segment_times(names, columns)


def _table_path(folder: StudyFolder, given: str, beside: Path) -> Path:
    candidates = list(dict.fromkeys((folder.resolve(given), beside / given)))
    for path in candidates:
        if path.is_file():
            return path
    raise UserError(f"No table '{given}': looked for {' and '.join(str(path) for path in candidates)}.")


def _existing(given: str, bases: Sequence[Path]) -> Path | None:
    return next((base / given for base in bases if (base / given).is_file()), None)


def _id_of_path(path: Path, given: str, bases: Iterable[Path]) -> str:
    """Relative path without the extension, as other layouts name recordings."""
    absolute = Path(os.path.abspath(path))
    for base in bases:
        if absolute.is_relative_to(os.path.abspath(base)):
            return id_of_name(absolute.relative_to(os.path.abspath(base)).with_suffix("").as_posix())
    outside = PurePosixPath(os.path.normpath(given)).with_suffix("")
    return id_of_name("/".join(part for part in outside.parts if part not in ("/", "..")))


def _some_files(files: Sequence[Path]) -> str:
    if not files:
        return "no files at all"
    return (
        f"{len(files)} other files ({', '.join(file.as_posix() for file in files[:3])}{' …' if len(files) > 3 else ''})"
    )
