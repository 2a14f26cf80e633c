"""PySKL pickles, 2D and 3D: a dict with `split` {name: ids} and `annotations` [dict a recording].

The schema is that of PySKL's data documentation (Duan et al., PySKL, ACM MM 2022): frame_dir, total_frames, label,
keypoint (M, T, V, C), keypoint_score (M, T, V) in 2D, img_shape and original_shape (height, width). Read with a
restricted unpickler.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from actionprep.datasets.poses.formats.content import NAME_LAYOUT, Damaged, going_on, numbers, size_of, whole
from actionprep.datasets.poses.formats.ntu import subject_of
from actionprep.datasets.poses.formats.safe_pickle import in_memory, load_pickle
from actionprep.datasets.poses.sequence import PoseItem, PoseSequence
from actionprep.datasets.poses.skeletons import layout_of_names
from actionprep.datasets.poses.skeletons import skeleton as layout_of
from actionprep.errors import InputError, UserError

_2D = {17: "coco17", 18: "coco18", 25: "body25", 133: "coco_wholebody", 15: "jhmdb15"}
_3D = {25: "ntu25", 20: "kinect20", 17: "h36m17"}
_KNOWN = (
    "frame_dir", "filename", "total_frames", "label", "keypoint", "keypoint_score", "img_shape", "original_shape",
    "joints",
)  # fmt: skip


def read_pyskl(
    path: str | Path,
    *,
    skeleton: str | None = None,
    image_size: Sequence[int] | None = None,
    damaged: Damaged | None = None,
) -> Iterator[PoseItem]:
    """Read all annotations of a PySKL pickle, with the names of the splits that list them.

    Ids are not changed, including dots. Half-precision values are read exactly. In files without scores (3D), joints that
    are not all zeros have score 1. The slot of a person is its track id. A list of annotations without splits is read too.
    One annotation is in memory at a time.

    Args:
        path: The pickle.
        skeleton: Layout of the joints. None infers it from the number of joints: 17 in 2D is coco17, 25 in 3D is ntu25.
        image_size: Height and width in pixels, for files without img_shape.
        damaged: Called with the id and the error of each invalid annotation. None raises the first error.

    Yields:
        One item per annotation.

    Raises:
        InputError: If the pickle contains more than data, is damaged, or does not follow the schema.
    """
    items = PySKLItems(path, skeleton=skeleton, image_size=image_size)
    for name in items:
        with going_on(name, damaged):
            yield items[name]


class PySKLItems(Mapping[str, PoseItem]):
    """Annotations of a PySKL pickle by id, read from the file on access.

    Only names and positions of the arrays are kept in memory. Arguments and errors are those of `read_pyskl`; an invalid
    annotation raises InputError on access.
    """

    def __init__(
        self, path: str | Path, *, skeleton: str | None = None, image_size: Sequence[int] | None = None
    ) -> None:
        self._path = Path(path)
        self._skeleton, self._image_size = skeleton, image_size
        _check_pickle(self._path)
        content = load_pickle(self._path, later=True)
        if isinstance(content, list):
            content = {"annotations": content, "split": {}}
        if not isinstance(content, dict) or not isinstance(content.get("annotations"), list):
            raise InputError(
                f"{path} is not a PySKL file: expected a dict with 'annotations' and 'split', or a list of annotations."
            )
        self._members = _members(in_memory(content.get("split")) or {}, self._path)
        self._annotations: dict[str, tuple[int, dict[str, Any]]] = {}
        for number, annotation in enumerate(content["annotations"]):
            name = _name(annotation, number, self._path)
            if name in self._annotations:
                raise InputError(f"{path} has the id '{name}' twice.")
            self._annotations[name] = number, annotation
        lost = [name for name in self._members if name not in self._annotations]
        if lost:
            raise InputError(f"{len(lost)} ids in the splits of {path} have no annotation; the first is '{lost[0]}'.")

    def __getitem__(self, name: str) -> PoseItem:
        number, annotation = self._annotations[name]
        return _item(in_memory(annotation), number, self._members, self._skeleton, self._image_size, self._path)

    def __contains__(self, name: object) -> bool:
        return name in self._annotations

    def __iter__(self) -> Iterator[str]:
        return iter(self._annotations)

    def __len__(self) -> int:
        return len(self._annotations)


def _members(splits: Any, path: Path) -> dict[str, list[str]]:
    """Return the splits of each id."""
    members: dict[str, list[str]] = {}
    if not isinstance(splits, dict):
        raise InputError(f"'split' in {path} must be a dict of name: list of ids, got {type(splits).__name__}.")
    for name, ids in splits.items():
        if not isinstance(ids, list | tuple | set | np.ndarray):
            raise InputError(f"The split '{name}' in {path} must be a list of ids, got {type(ids).__name__}.")
        for item_id in ids:
            members.setdefault(str(item_id), []).append(str(name))
    return members


def _check_pickle(path: Path) -> None:
    """Raise UserError if the file is an npz; the message names the format that reads it."""
    from actionprep.datasets.poses.formats import npz_format

    if not path.is_file() or not zipfile.is_zipfile(path):
        return
    fits = npz_format(path)
    hint = f"Its arrays are those of '{fits}': name that format." if fits else "None of the formats has such arrays."
    raise UserError(f"{path} is an npz (a zip archive of arrays), and PySKL's files are pickles. {hint}")


def _name(annotation: Any, number: int, path: Path) -> str:
    if not isinstance(annotation, dict):
        raise InputError(f"Annotation {number} of {path} is a {type(annotation).__name__}, not a dict.")
    name = annotation.get("frame_dir", annotation.get("filename"))
    if name is None:
        raise InputError(
            f"Annotation {number} of {path} has no 'frame_dir'. It has {', '.join(map(str, annotation)) or 'nothing'}."
        )
    return str(name)


def _item(
    annotation: dict[str, Any],
    number: int,
    members: Mapping[str, list[str]],
    skeleton: str | None,
    image_size: Sequence[int] | None,
    path: Path,
) -> PoseItem:
    recording = _name(annotation, number, path)
    where = f"'{recording}' in {path}"
    if "keypoint" not in annotation:
        raise InputError(f"Annotation {number} of {path} has no 'keypoint'. It has {', '.join(map(str, annotation))}.")
    keypoint = annotation["keypoint"]
    keypoint = keypoint if isinstance(keypoint, np.ndarray) else numbers(keypoint, "'keypoint'", where)
    if keypoint.ndim != 4 or keypoint.dtype.kind not in "fiu":
        raise InputError(
            f"'keypoint' of {where} must have the shape (persons, frames, joints, 2 or 3), got {keypoint.shape} of "
            f"{keypoint.dtype}."
        )
    total = annotation.get("total_frames")
    if total is not None and whole(total, "'total_frames'", where) != keypoint.shape[1]:
        raise InputError(f"{where} has total_frames {total}, but its keypoints have {keypoint.shape[1]} frames.")
    layout = skeleton or _named_layout(annotation, keypoint.shape[3], where)
    layout = layout or (_3D if keypoint.shape[3] == 3 else _2D).get(keypoint.shape[2])
    if layout is None:
        raise UserError(
            f"{where} has {keypoint.shape[2]} joints in {keypoint.shape[3]}D, which is no known layout. Name it "
            f"{NAME_LAYOUT}."
        )
    score = annotation.get("keypoint_score")
    shape = annotation.get("img_shape", annotation.get("original_shape"))
    keypoints = keypoint.transpose(1, 0, 2, 3)
    scores = None
    if score is not None:
        scores = numbers(score, "'keypoint_score'", where)
        if scores.shape != keypoint.shape[:3]:
            raise InputError(
                f"'keypoint_score' of {where} must have the shape {keypoint.shape[:3]} (persons, frames, joints), got "
                f"{scores.shape}."
            )
        # Persons that are absent are stored as zeros with any score.
        scores = np.where((keypoints != 0).any(-1), scores.transpose(1, 0, 2), 0)
    size = image_size if shape is None else size_of(shape, where)
    poses = PoseSequence.of(keypoints, scores, skeleton=layout, image_size=size, where=where)
    poses = replace(poses, track_id=np.where(poses.present, np.arange(poses.num_persons), -1))
    label = annotation.get("label")
    return PoseItem(
        recording,
        poses,
        label=label if label is None or isinstance(label, str) else whole(label, "'label'", where),
        subject=subject_of(recording),
        splits=tuple(members.get(recording, ())),
        extra={key: value for key, value in annotation.items() if key not in _KNOWN},
    )


def _named_layout(annotation: dict[str, Any], dimensions: int, where: str) -> str | None:
    """The layout of the names in `joints`, which `write_pyskl` adds where the number of joints would mislead."""
    joints = annotation.get("joints")
    if joints is None:
        return None
    if not isinstance(joints, list) or not joints or not all(isinstance(joint, str) for joint in joints):
        raise InputError(f"'joints' of {where} must be a list of names.")
    return layout_of_names(joints, name=f"pyskl{dimensions}d", source=where).name


def write_pyskl(
    path: str | Path, items: Iterable[PoseItem], *, half: bool = False, labels: Sequence[str] | None = None
) -> int:
    """Write items as a PySKL pickle, with the splits that they name, and return their number.

    Persons are ordered by track id; absent persons are zeros. Labels that are words become their index in `labels`
    (default: all labels sorted), as PySKL wants numbers. half: keypoints and scores in half precision, as the
    published files are. Scores and img_shape are left out where they are not known or the poses are 3D.
    """
    items = list(items)
    words = sorted({item.label for item in items if isinstance(item.label, str)}) if labels is None else list(labels)
    kind = np.float16 if half else np.float32
    annotations: list[dict[str, Any]] = []
    split: dict[str, list[str]] = {}
    for item in items:
        poses = item.poses
        keypoint, score = _by_track(poses)
        entry: dict[str, Any] = {
            "frame_dir": item.recording,
            "total_frames": poses.num_frames,
            "label": _number(item, words),
            "keypoint": keypoint.astype(kind),
        }
        if poses.dimensions == 2:
            entry["keypoint_score"] = score.astype(kind)
        usual = (_3D if poses.dimensions == 3 else _2D).get(poses.num_joints)
        if layout_of(poses.skeleton).joints != (layout_of(usual).joints if usual else ()):
            entry["joints"] = list(layout_of(poses.skeleton).joints)
        if poses.image_size is not None:
            entry["img_shape"] = entry["original_shape"] = poses.image_size
        annotations.append(entry)
        for name in item.splits:
            split.setdefault(name, []).append(item.recording)
    with Path(path).open("wb") as file:
        pickle.dump({"split": split, "annotations": annotations}, file, protocol=4)
    return len(annotations)


def _by_track(poses: PoseSequence) -> tuple[np.ndarray, np.ndarray]:
    ids = [int(track) for track in np.unique(poses.track_id[poses.present]) if track >= 0]
    if not ids or (poses.present & (poses.track_id < 0)).any():
        return poses.keypoints.transpose(1, 0, 2, 3), poses.score.transpose(1, 0, 2)
    keypoint = np.zeros((len(ids), poses.num_frames, poses.num_joints, poses.dimensions), np.float32)
    score = np.zeros(keypoint.shape[:3], np.float32)
    for place, track in enumerate(ids):
        t, m = np.nonzero(poses.present & (poses.track_id == track))
        keypoint[place, t], score[place, t] = poses.keypoints[t, m], poses.score[t, m]
    return keypoint, score


def _number(item: PoseItem, words: Sequence[str]) -> int:
    if isinstance(item.label, int):
        return item.label
    if item.label is None:
        raise UserError(f"Recording '{item.recording}' has no label, and a PySKL annotation needs one.")
    if item.label not in words:
        raise UserError(
            f"Recording '{item.recording}' has the label '{item.label}', which is not among the labels given."
        )
    return words.index(item.label)
