"""Import poses: a skeleton data set without videos, or poses of the videos of a study."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from actionprep.api.study import Study, settings_models
from actionprep.datasets.study import StudyFolder
from actionprep.errors import ActionprepError, UserError

if TYPE_CHECKING:
    from actionprep.datasets.recordings import Recording
    from actionprep.pipeline.engine import BuildReport, Progress
    from actionprep.pipeline.view_tasks import Workers


@dataclass(frozen=True)
class ImportedPoses:
    """Result of `import_poses`.

    Attributes:
        study: The study.
        report: Report of the build.
        splits: Names of the official splits that were stored.
        refused_splits: Official splits that do not fit these recordings, with the reason.
    """

    study: Study
    report: BuildReport
    splits: tuple[str, ...] = ()
    refused_splits: Mapping[str, str] = field(default_factory=dict)


def import_poses(
    folder: str | Path,
    paths: Sequence[str | Path],
    *,
    format: str = "auto",
    skeleton: str = "",
    coordinates: str = "",
    image_size: Sequence[int] | None = None,
    fps: float | None = None,
    labels: str | Path | None = None,
    recording: str | None = None,
    workers: int | Workers = 0,
    progress: Progress | None = None,
) -> ImportedPoses:
    """Import existing poses into a store.

    In a study of videos, the poses are aligned with the frames of the videos. Otherwise the files are a skeleton data set
    without videos: a study with the layout "poses" is created or extended, and its catalog gets the recordings, subjects,
    labels and official splits. Each official split becomes a stored split with the published test part and a val part that
    is split off train. The options are written into actionprep.toml, so that 'actionprep scan' and 'actionprep pose'
    repeat the import.

    Args:
        folder: Folder of the study.
        paths: Files or folders of a skeleton data set; in a study of videos, one pattern with {recording} and {view}.
        format: Format of the poses (see `list_formats`); "auto" detects it from the files.
        skeleton: Layout of the joints, if the files do not name it.
        coordinates: Which coordinates to read, if the files have several.
        image_size: Height and width of the images in pixels, if the files do not contain them.
        fps: Frames per second, if the files have no times.
        labels: Text file with one class name per line, if the classes in the files are numbers.
        recording: Recording of a study of videos that the poses belong to; None: all.
        workers: Number of processes; 0 uses this process.
        progress: Called with the progress of the build.

    Returns:
        The study, the report of the build, and the official splits.

    Raises:
        UserError: If there is nothing to read, or if the options do not fit the format, or if a file has the poses of one
            recording and it is not clear which.
        InputError: If the data set is damaged.
    """
    from actionprep.datasets.poses.formats import FORMATS
    from actionprep.datasets.study import SETTINGS_FILE, StudySettings, init_study

    FORMATS.check(format, also=("auto",))
    if format == "auto":
        _refuse_annotations(paths)
    root = Path(folder).expanduser()
    place = StudyFolder(root)
    # Paths of a command are relative to the current folder, paths in the settings to the study.
    layout = _path_in_settings(place, skeleton) if skeleton.endswith(".toml") else skeleton
    given = {
        "pose_format": None if format == "auto" else format,
        "pose_skeleton": layout or None,
        "pose_coordinates": coordinates or None,
        "pose_image_size": None if image_size is None else tuple(int(side) for side in image_size),
        "pose_fps": fps,
        "pose_labels": None if labels is None else _path_in_settings(place, labels),
    }
    chosen = {key: value for key, value in given.items() if value is not None}
    if (root / SETTINGS_FILE).is_file() and place.study.layout != "poses":
        study = Study(place)
        useless = [name for name, value in (("image size", image_size), ("fps", fps), ("labels", labels)) if value]
        if useless:
            raise UserError(
                f"{root} is a study of videos, which contain these values: leave out {', '.join(useless)}. They are for "
                "skeleton data sets without videos."
            )
        chosen_pose = _choice_for_videos(study, paths, format, layout, coordinates)
        named = _recordings_to_import(study, chosen_pose, recording)
        plan = study.plan("pose", overrides={"pose": chosen_pose}, recordings=named)
        report = study.carry_out(plan, workers=workers, progress=progress)
        if not named and (report.built or report.done):
            _record(study, chosen_pose)
        return ImportedPoses(study, report)
    if recording is not None:
        raise UserError(
            f"--recording names a recording of a study of videos, and {root} is no study of videos. Leave it out."
        )
    missing = [path for path in paths if not Path(path).expanduser().exists()]
    if not paths:
        raise UserError("Name the files to import.")
    if missing and "{recording}" in str(missing[0]):
        raise UserError(
            f"'{missing[0]}' is a pattern for the recordings of a study of videos, but {root} is not a study of videos. "
            "Create a study of the videos first ('actionprep init'), or name a file or folder of a skeleton data set."
        )
    if missing:
        raise UserError(f"No pose file or folder at {missing[0]}, relative to {Path.cwd()}.")
    files = tuple(_path_in_settings(place, path) for path in paths)
    with _settings_kept_on(ActionprepError, place):
        if place.settings_file.is_file():
            known = place.study.poses
            for key, value in {**chosen, "poses": (*known, *(file for file in files if file not in known))}.items():
                place.change("study", key, value)
            study = Study(place)
        else:
            settings = StudySettings.read(
                {"layout": "poses", "poses": files, "stages": ("pose", "snippets"), **chosen}, where="actionprep import"
            )
            notes = {"pose": "backend: the poses are imported; this study has no videos."}
            tables = {"pose": {"backend": "import"}}
            study = Study(init_study(root, settings, chosen=tables, models=settings_models(), notes=notes))
        study.scan()
    report = study.build("pose", workers=workers, progress=progress)
    return ImportedPoses(study, report, *store_official_splits(study))


def _refuse_annotations(paths: Sequence[str | Path]) -> None:
    """Raise UserError for files with annotations, which are no poses."""
    from actionprep.datasets.annotations import SEGMENT_FORMATS, annotation_format_of
    from actionprep.datasets.poses.formats import detect_format

    for path in map(Path, paths):
        # A format that is recognized by its content; coco and pose-csv are what other json and csv files are taken for.
        if not path.is_file() or detect_format(path) not in (None, "coco", "pose-csv"):
            continue
        name = annotation_format_of(path)
        if name is not None:
            raise UserError(
                f"{path} has annotations ({name}: {SEGMENT_FORMATS.find(name).description}), not poses, and import reads "
                f"poses. Name it in actionprep.toml as [study] segments = \"{path}\", then run 'actionprep scan'. For a "
                f"new study: actionprep init --segments {shlex.quote(str(path))}"
            )


@contextmanager
def _settings_kept_on(error: type[ActionprepError], place: StudyFolder) -> Iterator[Callable[[], None]]:
    """Restore the settings file after this error, so that it does not name files that could not be read.

    A folder that was created for it is removed. Yields a function that restores the file without an error.
    """
    was_there = place.root.exists()
    before = place.settings_file.read_bytes() if place.settings_file.is_file() else None

    def put_back() -> None:
        if before is not None:
            place.settings_file.write_bytes(before)
        else:
            place.settings_file.unlink(missing_ok=True)
        if not was_there and place.root.is_dir() and not any(place.root.iterdir()):
            place.root.rmdir()
        for cached in ("tables", "study"):
            place.__dict__.pop(cached, None)

    try:
        yield put_back
    except error:
        put_back()
        raise


def _choice_for_videos(
    study: Study, paths: Sequence[str | Path], format: str, skeleton: str, coordinates: str
) -> dict[str, str]:
    """Return the settings of [pose] by which the poses of a study of videos are read from a pattern."""
    if len(paths) != 1:
        raise UserError(
            f"{study.root} is a study of videos: give one pattern with {{recording}} and {{view}} for the paths of the "
            f"poses, such as 'openpose/{{recording}}/{{view}}'; got {len(paths)} paths."
        )
    from actionprep.pipeline.pose_backends.files import check_pattern

    pattern = str(paths[0])
    check_pattern(pattern)
    views = study.select().views
    if len(views) > 1 and "{recording}" not in pattern and "{view}" not in pattern and not Path(pattern).is_file():
        raise UserError(
            f"'{pattern}' is the same folder of poses for all {len(views)} views of this study. Put {{recording}} and "
            "{view} where the path differs, such as 'openpose/{recording}/{view}'."
        )
    return {
        "backend": "import",
        "files": _path_in_settings(study.folder, pattern),
        "format": format,
        "file_skeleton": skeleton,
        "coordinates": coordinates,
    }


def _recordings_to_import(study: Study, chosen: Mapping[str, str], recording: str | None) -> tuple[str, ...]:
    """Return the recordings that the files are for; empty for all."""
    from actionprep.datasets.poses.skeletons import layout_in
    from actionprep.pipeline.plan import view_source
    from actionprep.pipeline.pose_backends.files import recordings_named_by_files

    views = study.select().views
    if recording is not None:
        recording = study.catalog.recording(recording).id
        views = tuple(view for view in views if view.recording == recording)
    root = str(study.root.resolve())
    named = recordings_named_by_files(
        [view_source(study.catalog, view, root) for view in views],
        chosen["files"],
        format=chosen["format"],
        skeleton=layout_in(chosen["file_skeleton"], root),
        coordinates=chosen["coordinates"],
    )
    return named if recording is None else (recording,)


def _record(study: Study, chosen: Mapping[str, str]) -> None:
    """Write the options of an import into actionprep.toml, so that 'actionprep pose' repeats it."""
    settings = study.settings["pose"]
    for key, value in chosen.items():
        if getattr(settings, key) != value:
            study.folder.change("pose", key, value)
    stages = _stages_with_pose(study)
    if stages != study.folder.study.stages:
        study.folder.change("study", "stages", stages)
    study.__dict__.pop("settings", None)


def _path_in_settings(folder: StudyFolder, path: str | Path) -> str:
    """Convert a path relative to the current folder to a path in the settings, relative to the study.

    A relative path stays relative, so that study and poses can be moved together.
    """
    given = Path(path).expanduser()
    if given.is_absolute():
        return folder.relative(given)
    return Path(os.path.relpath(given, folder.root)).as_posix()


def _stages_with_pose(study: Study) -> tuple[str, ...]:
    """Return the stages of [study] with pose. It replaces tracks, unless they were requested or are in the store."""
    stages = study.folder.study.stages
    if "pose" in stages:
        return stages
    if "stages" not in study.folder.tables.get("study", {}) and not study.store.items("tracks"):
        stages = tuple(name for name in stages if name != "tracks")
    return ("pose", *stages)


def store_official_splits(study: Study) -> tuple[tuple[str, ...], dict[str, str]]:
    """Store a split for each official split of a study: the published test part, and a val part that is split off train.

    Val consists of some subjects of train. If subjects are unknown, it consists of the recordings of train that another
    split of the same kind tests (split2 for split1), because such splits do not divide a source; else of some recordings.

    Args:
        study: The study.

    Returns:
        Names of the stored splits, and the reasons why others could not be stored, by name.
    """
    from actionprep.datasets.poses.skeleton_data_sets import official_splits

    catalog = study.catalog
    stored: list[str] = []
    refused: dict[str, str] = {}
    names = official_splits(catalog.recordings)
    for index, name in enumerate(names):
        train = [recording for recording in catalog.recordings if recording.extra.get(name) == "train"]
        subjects = {recording.subject for recording in train}
        by_subject = None not in subjects and len(subjects) > 2
        # Splits of another kind divide the takes of one source: xview splits by camera what xsub keeps together.
        candidates = () if by_subject else (*names[index + 1 :], *names[:index])
        others = [other for other in candidates if _kind(other) == _kind(name)]
        overrides = {
            "name": name, "by": "column", "column": name, "val": 0.2, "train": 0.8, "test": 0.0, "allow_single": True,
            "val_by": "subject" if by_subject else "recording",
            "val_column": next((other for other in others if _is_a_val(train, other)), None),
            "train_groups": (), "val_groups": (), "test_groups": (),
        }  # fmt: skip
        try:
            study.build("split", overrides={"split": overrides})
        except UserError as error:
            refused[name] = str(error)
        else:
            stored.append(name)
    return tuple(stored), refused


def _is_a_val(train: Sequence[Recording], column: str) -> bool:
    """Whether the test part of a column can be the val part of these recordings: all classes, and at most half of them.

    All recordings must have a part in the column, because one without may share a source with its test part.
    """
    parts = {
        part: [recording.label for recording in train if recording.extra.get(column) == part]
        for part in ("train", "test")
    }
    tested, others = parts["test"], parts["train"]
    return len(tested) + len(others) == len(train) and len(tested) <= len(others) and set(tested) == set(others)


def _kind(name: str) -> str:
    """Return the name of a split without its number."""
    return name.rstrip("0123456789")
