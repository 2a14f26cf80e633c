"""Skeleton data sets without videos: every recording of the pose files, as recordings and views of the catalog."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from actionprep.datasets.discovery import SPLIT_NAMES, Discovery
from actionprep.datasets.findings import Finding
from actionprep.datasets.frame_times import frame_interval
from actionprep.datasets.names_to_ids import NOT_TEXT, id_of_name, is_text
from actionprep.datasets.poses.formats import FORMATS, detect_format, item_name, read_poses, reading_options
from actionprep.datasets.poses.sequence import PoseItem, PoseSequence
from actionprep.datasets.poses.skeletons import layout_in
from actionprep.datasets.recordings import Recording, View
from actionprep.datasets.study import StudyFolder, StudySettings
from actionprep.errors import InputError, UserError
from actionprep.settings import canonical_json

_UNSPLIT = "all"


def discover_poses(folder: StudyFolder, settings: StudySettings) -> Discovery:
    """Read every pose file of the study: recordings with subject, label and official splits, and one view for each.

    A split that the files name, such as xsub_train, becomes a column of the recordings: `extra["xsub"]` is "train". If a
    published split has train and val parts but no test part, results are reported on its val part, which becomes test.
    Recordings that are damaged, or without a joint in any frame, are listed as unreadable.

    Args:
        folder: Folder of the study.
        settings: Settings of the study.

    Returns:
        Recordings, views and findings.

    Raises:
        UserError: If there is nothing to read.
        InputError: If nothing in a file can be read.
    """
    if not settings.poses:
        raise UserError(
            f"Layout poses needs files: set study.poses in {folder.settings_file}, or run 'actionprep import FORMAT "
            "PATH …'."
        )
    labels = None if settings.pose_labels is None else _label_names(folder.resolve(settings.pose_labels))
    discovery = Discovery([], [])
    cameras: dict[str, str | None] = {}
    broken: list[tuple[View, InputError]] = []
    for source, format, prefix in _sources(folder, settings):
        if not is_text(folder.relative(source)):
            discovery.findings.append(Finding("file not used", folder.relative(source), NOT_TEXT))
            continue
        options = reading_options(
            format,
            skeleton=layout_in(settings.pose_skeleton, folder.root),
            coordinates=settings.pose_coordinates,
            image_size=settings.pose_image_size,
        )
        record_damage = _DamageRecorder(
            broken, prefix, folder.relative(source), canonical_json({"format": format, "options": options})
        )
        for item in read_poses(source, format, damaged=record_damage, **options):
            id = id_of_name(f"{prefix}{item.recording}")
            if not is_text(id):
                discovery.findings.append(Finding("file not used", f"{folder.relative(source)}: {id}", NOT_TEXT))
                continue
            # The views of a recording are separate items. Without views, a second item of that id is an error, raised later.
            if item.view is None or id not in cameras:
                discovery.recordings.append(_recording(id, item, labels, source))
            digest = poses_digest(item.poses)
            location = {"format": format, "item": item_name(item), "options": options, "digest": digest}
            reading = canonical_json(location)
            view = _view(id, item, folder.relative(source), reading, settings.pose_fps)
            cameras[id] = item.view if id not in cameras else None
            discovery.views.append(view)
    if broken and not discovery.views:
        raise broken[0][1]
    if all(camera is not None for camera in cameras.values()):
        # If each recording has one view, the camera in the file name is a property of the recording, not the id of a view.
        discovery.views = [replace(view, id="0") for view in discovery.views]
        discovery.recordings = [
            replace(recording, extra={**recording.extra, "camera": cameras[recording.id] or ""})
            for recording in discovery.recordings
        ]
    for view, _ in broken:
        if view.recording not in cameras:
            cameras[view.recording] = None
            discovery.recordings.append(Recording(view.recording))
            discovery.views.append(view)
        else:  # the recording has other, readable views
            discovery.findings.append(Finding("unreadable poses", view.path, view.reason))
    _name_test_parts(discovery)
    return discovery


@dataclass(frozen=True)
class _DamageRecorder:
    """Record damaged recordings of one source as unreadable views."""

    broken: list[tuple[View, InputError]]
    prefix: str
    path: str
    reading: str

    def __call__(self, recording: str, problem: InputError) -> None:
        id = id_of_name(f"{self.prefix}{recording}")
        view = View(id, "0", self.path, status="unreadable", reason=problem.reason, poses=self.reading)
        self.broken.append((view, problem))


def official_splits(recordings: Iterator[Recording] | tuple[Recording, ...]) -> tuple[str, ...]:
    """Names of the columns of these recordings that hold parts of a split."""
    values: dict[str, set[str]] = {}
    for recording in recordings:
        for name, value in recording.extra.items():
            values.setdefault(name, set()).add(value)
    return tuple(
        sorted(name for name, parts in values.items() if parts <= {"train", "val", "test"} and "train" in parts)
    )


def _sources(folder: StudyFolder, settings: StudySettings) -> Iterator[tuple[Path, str, str]]:
    """Yield each file or folder to read, with its format and the prefix of its recording ids."""
    for given in settings.poses:
        path = folder.resolve(given)
        if not path.exists():
            raise UserError(f"No poses at {path}, which study.poses in {folder.settings_file} names.")
        format = detect_format(path) if settings.pose_format == "auto" else settings.pose_format
        if format is None:
            raise UserError(
                f"The format of the poses at {path} is not known. Name it: {', '.join(FORMATS)} ('actionprep formats' "
                "describes them)."
            )
        each = FORMATS.find(format).each
        if path.is_file() or not each:
            yield path, format, ""
            continue
        files = sorted(path.rglob(each))
        if not files:
            raise UserError(f"No {each} in {path}, as the format '{format}' has.")
        for file in files:
            above = file.relative_to(path).parent.as_posix()
            yield file, format, "" if above == "." else f"{above}/"


def _recording(id: str, item: PoseItem, labels: list[str] | None, source: Path) -> Recording:
    label = item.label
    if labels is not None and isinstance(label, int):
        if not 0 <= label < len(labels):
            raise UserError(
                f"'{id}' in {source} has the class {label}, and study.pose_labels names {len(labels)} (0 to "
                f"{len(labels) - 1})."
            )
        label = labels[label]
    extra: dict[str, str] = {}
    part = None
    for name in item.splits:
        split, _, last = name.rpartition("_")
        if last.lower() in SPLIT_NAMES and split:
            extra[split] = SPLIT_NAMES[last.lower()]
        elif name.lower() in SPLIT_NAMES:
            part = SPLIT_NAMES[name.lower()]
        else:
            extra[name] = _UNSPLIT
    return Recording(id, subject=item.subject, label=None if label is None else str(label), split=part, extra=extra)


def _view(recording: str, item: PoseItem, path: str, reading: str, fps: float) -> View:
    poses = item.poses
    times = poses.time
    if times is None:
        times = (poses.frame_index - poses.frame_index[:1].sum()) / fps
    height, width = poses.image_size or (0, 0)
    empty = not bool(poses.present.any())
    return View(
        recording,
        item.view or "0",
        path,
        width=int(width),
        height=int(height),
        num_frames=poses.num_frames,
        fps=_rate(times, fps),
        duration=float(times[-1] - times[0] + 1 / fps) if len(times) else 0.0,
        start=0.0,
        offset=float(times[0]) if len(times) else 0.0,
        digest=poses_digest(poses),
        status="unreadable" if empty else "ok",
        reason=f"'{recording}' has no joint in any frame" if empty else "",
        frame_times=np.asarray(times - times[:1].sum(), np.float64),
        poses=reading,
    )


def poses_digest(poses: PoseSequence) -> str:
    """Hash of joints and scores: equal for the same recording in two files."""
    digest = hashlib.sha256(poses.skeleton.encode())
    for array in (poses.keypoints, poses.score):
        digest.update(str(array.shape).encode())
        digest.update(np.ascontiguousarray(array, "<f4").tobytes())
    return digest.hexdigest()


def _rate(times: Any, fps: float) -> float:
    return 1 / frame_interval(times, default=1 / fps)


def _label_names(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"Cannot read the classes' names in {path} (study.pose_labels): {error.strerror}.") from None
    names = [line.strip() for line in lines if line.strip()]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise UserError(f"{path} (study.pose_labels) names the class '{twice[0]}' twice.")
    return names


def _name_test_parts(discovery: Discovery) -> None:
    """Use the val part of a split as its test part if it has none."""
    columns = {name for recording in discovery.recordings for name in recording.extra}
    for column in columns:
        parts = {recording.extra.get(column) for recording in discovery.recordings} - {None}
        if "val" in parts and "test" not in parts:
            discovery.recordings = [
                replace(item, extra={**item.extra, column: "test"}) if item.extra.get(column) == "val" else item
                for item in discovery.recordings
            ]
            message = f"split '{column}' has a train and a val part and no test part: val is taken as test"
            discovery.findings.append(Finding("official split", column, message))
