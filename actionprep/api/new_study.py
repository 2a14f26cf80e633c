"""Make a folder a study, from own videos or from the rendered sample."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actionprep.api.study import Study, settings_models
from actionprep.datasets.study import StudyFolder
from actionprep.errors import UserError, nearest
from actionprep.json_values import counted

if TYPE_CHECKING:
    from actionprep.datasets.annotations import UnmappedColumnsError
    from actionprep.datasets.study import StudySettings

Ask = Callable[[str, Sequence[str], str], str]
"""Asks a question: the text, the possible answers and the proposed one; returns the answer."""

_NO_COLUMN = "-"

_USUAL_COLUMNS = {
    "recording": ("recording", "video", "file", "filename", "media", "clip", "path", "name", "id"),
    "onset": ("onset", "start", "begin", "from", "start_time", "t_start", "time_start", "start (s)"),
    "offset": ("offset", "stop", "end", "to", "end_time", "stop_time", "t_end", "time_end", "stop (s)"),
    "label": ("label", "behavior", "behaviour", "action", "class", "event", "activity", "what", "code"),
}
"""Names of columns that are proposed for a field, and never used without a confirmation."""

_FIELDS = (
    *("recording", "onset", "offset", "label", "layer", "annotator", "split"),
    *(f"{time}_{unit}" for time in ("onset", "offset") for unit in ("s", "ms", "frame")),
)


def make_study(
    folder: str | Path, given: Mapping[str, Any], *, force: bool = False, ask: Ask | None = None
) -> tuple[Study, list[str]]:
    """Make a folder a study, with the best backends that this machine has written into its settings.

    Args:
        folder: The folder.
        given: Keys of [study]; the layout follows from them if it is not among them.
        force: Write the settings also if there is a settings file, or if no video is found.
        ask: Asks whether to use a proposed pattern, and which columns of an annotation table to read; None if nobody can
            be asked: then the notes contain the proposals.

    Returns:
        The study, and notes for the user.

    Raises:
        UserError: If keys or values are wrong, no videos are found, or the folder is a study.
    """
    from actionprep.datasets.study import StudySettings, init_study
    from actionprep.pipeline.doctor import best_pose_backend, best_tracker

    given = dict(given)
    has_layout = "layout" in given
    if not has_layout:
        given["layout"] = "csv" if "csv" in given else "views" if "pattern" in given else "folder-per-class"
    study = StudySettings.read(given, where="actionprep init")
    place = StudyFolder(Path(folder).expanduser())
    if place.settings_file.exists() and not force:
        init_study(folder, study)  # reports it, before backends are detected
    notes = []
    if "pattern" not in given and (study.layout == "views" or not has_layout) and study.layout != "csv":
        study, pattern_notes = _with_pattern(place, study, ask, has_layout=has_layout, has_videos="videos" in given)
        notes += pattern_notes
    study, column_notes = _with_columns(place, study, ask)
    # Segments that cannot be read yet are in the notes; the videos are looked for all the same.
    listed = study.model_copy(update={"segments": ()}) if column_notes else study
    described = _describe_videos(place, listed, force=force)
    tracker, why = best_tracker()
    backend, why_pose = best_pose_backend()
    reasons = {"tracks": f"tracker: {why}", "pose": f"backend: {why_pose}"}
    chosen = {"tracks": {"tracker": tracker}, "pose": {"backend": backend}}
    made = init_study(folder, study, chosen=chosen, models=settings_models(), notes=reasons, force=force)
    return Study(made), [
        *described,
        *notes,
        *column_notes,
        f"Layout {study.layout}. Tracker '{tracker}': {why} Change it under [tracks].",
        f"Pose backend '{backend}': {why_pose} Change it under [pose].",
    ]


def parse_columns(given: Sequence[str]) -> dict[str, str]:
    """Parse FIELD=COLUMN, as in study.segment_columns.

    Raises:
        UserError: If a field does not exist, or a text has another form.
    """
    columns = {}
    for text in given:
        field, _, column = text.partition("=")
        if field not in _FIELDS or not column:
            hint = nearest(field, _FIELDS) if column else ""
            raise UserError(
                f"--segment-columns takes FIELD=COLUMN, such as onset=Start; got '{text}'.{hint} Fields: "
                f"{', '.join(_FIELDS)}."
            )
        columns[field] = column
    return columns


def _with_pattern(
    folder: StudyFolder, study: StudySettings, ask: Ask | None, *, has_layout: bool, has_videos: bool
) -> tuple[StudySettings, list[str]]:
    """Use a proposed pattern of the layout "views", if the user chose that layout or confirms; otherwise report it."""
    from actionprep.datasets.video_layouts import propose_pattern

    if not has_videos and not folder.resolve(study.videos).is_dir():
        study_here = study.model_copy(update={"videos": "."})
    else:
        study_here = study
    pattern = propose_pattern(folder, study_here)
    if pattern is None:
        return study, []
    proposed = study_here.model_copy(update={"layout": "views", "pattern": pattern})
    if has_layout:
        return proposed, [f"Pattern '{pattern}', from the names of the videos. Change it under [study]."]
    question = f"The names of the videos look like several cameras of the same recordings. Use the pattern '{pattern}'?"
    if ask is None:
        options = f"--videos {shlex.quote(study_here.videos)} --layout views --pattern {shlex.quote(pattern)}"
        return study, [
            "The names of the videos look like several cameras of the same recordings, and each video is a recording of "
            f"its own now. To make them views: actionprep init --force {options}"
        ]
    return (proposed, []) if ask(question, ("yes", "no"), "yes") == "yes" else (study, [])


def _with_columns(folder: StudyFolder, study: StudySettings, ask: Ask | None) -> tuple[StudySettings, list[str]]:
    """Ask for the columns of annotation tables, and the formats of lists, that cannot be read, or report them."""
    from actionprep.datasets.annotations import AmbiguousListError, UnmappedColumnsError, read_annotations
    from actionprep.datasets.tables import text_encoding
    from actionprep.datasets.video_layouts import annotation_files, annotation_options

    for path in annotation_files(folder, study.segments, may_be_missing=True):
        if path.suffix.lower() == ".txt" and folder.relative(path) not in study.segments:
            continue  # a text beside annotations
        try:
            with text_encoding(study.encoding):
                read_annotations(path, **annotation_options(folder, study))
        except AmbiguousListError as error:
            if folder.relative(path) not in study.segments:
                continue  # a text beside annotations
            if ask is None:
                return study, [f"The segments cannot be read yet: {error}"]
            question = f"{path.name} is a list without a header. Which format does it have?"
            study = study.model_copy(update={"segment_format": ask(question, error.presets, error.presets[0])})
        except UnmappedColumnsError as error:
            if ask is None:
                return study, [_unmapped(folder, error, study)]
            study = _asked_columns(path, error.columns, study, ask)
            with text_encoding(study.encoding):
                read_annotations(path, **annotation_options(folder, study))
    return study, []


def _asked_columns(path: Path, columns: Sequence[str], study: StudySettings, ask: Ask) -> StudySettings:
    """Ask for the column of each field, and for the unit of times that may be no seconds."""
    mapped = dict(study.segment_columns)
    for field, column in _proposed_columns(columns).items():
        answers = (*columns, *((_NO_COLUMN,) if field == "recording" else ()))
        answer = ask(f"{path.name}: which column has the {field}?", answers, column or answers[-1])
        if answer != _NO_COLUMN:
            mapped[field] = answer
    times = [mapped["onset"], mapped["offset"]]
    if _has_large_numbers(path, times, study.encoding):
        unit = ask(f"{path.name}: the times are large whole numbers. What is their unit?", ("ms", "frame", "s"), "ms")
        for field in ("onset", "offset") if unit != "s" else ():
            mapped[f"{field}_{unit}"] = mapped.pop(field)
    return study.model_copy(update={"segment_columns": mapped})


def _proposed_columns(columns: Sequence[str]) -> dict[str, str | None]:
    """Propose a column for each field; None for a field without one."""
    by_name = {column.strip().casefold(): column for column in columns}
    return {
        field: next((by_name[name] for name in names if name in by_name), None)
        for field, names in _USUAL_COLUMNS.items()
    }


_LARGEST_S = 10_000
"""Times in whole numbers above this one are rarely seconds."""


def _has_large_numbers(path: Path, columns: Sequence[str | None], encoding: str) -> bool:
    """Whether all times of a table are whole numbers, and some too large for seconds."""
    from actionprep.datasets.tables import read_csv, text_encoding

    with text_encoding(encoding):
        _, rows = read_csv(path)
    texts = [row[column] for _, row in rows for column in columns if column is not None and row[column]]
    is_whole = all(text.isascii() and text.isdecimal() for text in texts)
    return is_whole and any(len(text) > 15 or int(text) > _LARGEST_S for text in texts)


def _unmapped(folder: StudyFolder, error: UnmappedColumnsError, study: StudySettings) -> str:
    proposed = _proposed_columns(error.columns)
    times = {field: proposed[field] for field in ("onset", "offset")}
    suffix = note = ""
    if _has_large_numbers(error.path, list(times.values()), study.encoding):
        suffix = "_ms"
        note = "\nThe times are large whole numbers: milliseconds, or frames (onset_frame and offset_frame)."
    mapping = " ".join(
        f"{field}{suffix if field in times else ''}={shlex.quote(column or 'COLUMN')}"
        for field, column in proposed.items()
    )
    columns = ", ".join(f"'{column}'" for column in error.columns)
    return (
        f"The segments of {error.path} cannot be read yet: no column for {', '.join(error.missing)}; it has {columns}.\n"
        f"Set segment_columns under [study] in {folder.settings_file}, or run the same command again with\n"
        f"  --force --segment-columns {mapping}{note}"
    )


def _describe_videos(folder: StudyFolder, study: StudySettings, *, force: bool) -> list[str]:
    """Describe the videos that these settings find; raises UserError if there are none, unless forced."""
    from actionprep.datasets.discovery import NoVideosError
    from actionprep.datasets.findings import group_findings
    from actionprep.datasets.video_layouts import discover, holds_text, videos_below

    try:
        discovery = discover(folder, study)
    except NoVideosError as error:
        if force:
            return [f"{error.searched} The settings are written anyway: put the videos there, or change [study]."]
        others = videos_below(folder, study)
        number = f"{'is' if len(others) == 1 else 'are'} {counted(len(others), 'video')}"
        hint = (
            f"There {number} elsewhere in {folder.root}, such as '{others[0].as_posix()}'. "
            "Name the place with --videos (--videos . for <class>/<clip> in this folder), --pattern or --csv."
            if others
            else "Put them there, or name their place with --videos, --pattern or --csv."
        )
        raise UserError(
            f"{error.searched}\n{hint}\nNothing was written; --force writes the settings without videos."
        ) from None
    texts = [] if study.layout == "poses" else [view for view in discovery.views if holds_text(folder.root / view.path)]
    videos = [view for view in discovery.views if view not in texts]
    count = len({view.recording for view in videos})
    text = f"Found {counted(len(videos), 'video')} of {counted(count, 'recording')}."
    if texts:
        is_one = len(texts) == 1
        text += (
            f" {len(texts)} more file{' is' if is_one else 's are'} named like {'one' if is_one else 'them'} but "
            f"{'is' if is_one else 'are'} empty or text, such as '{texts[0].path}'."
        )
    groups = group_findings(discovery.findings)
    notes = [f"{group.kind}: {group.where}: {group.message}" for group in groups[:_SHOWN]]
    more = len(groups) - _SHOWN
    return [text, *notes, *([f"and {more} more, which 'actionprep scan' lists"] if more > 0 else [])]


_SHOWN = 8
"""Findings that a new study reports."""


def make_demo(
    folder: str | Path,
    *,
    seed: int = 0,
    recordings: int | None = None,
    workers: int = 2,
    progress: Callable[[int, int, str], None] | None = None,
) -> Study:
    """Render the sample study and make its folder a study; its tracker is `lk`, which every machine has.

    Raises:
        UserError: If the folder is a study.
    """
    from actionprep.datasets.study import SETTINGS_FILE, StudySettings, init_study
    from actionprep.sample import make_sample_study

    if (Path(folder) / SETTINGS_FILE).exists():
        raise UserError(f"{folder} is already a study. Name a new folder, or delete that one.")
    options = {} if recordings is None else {"recordings": recordings}
    make_sample_study(Path(folder), seed=seed, workers=workers, progress=progress, **options)
    study = StudySettings(
        layout="views",
        videos="videos",
        pattern="{recording}/cam{view}.mp4",
        recordings="recordings.csv",
        segments=("segments.csv",),
        offsets="views.csv",
        tolerance=0.1,  # the slowest camera has ten frames per second
    )
    # Fewer time steps, points and epochs than the recipe's: the demo should take minutes.
    changes = {"epochs": 24, "batch": 8, "test_variants": 4, "input.frames": 16, "input.points": 64}
    chosen: dict[str, dict[str, object]] = {"tracks": {"tracker": "lk"}, "train": {"changes": changes}}
    made = Study(init_study(folder, study, chosen=chosen, models=settings_models()))
    made.scan()
    return made
