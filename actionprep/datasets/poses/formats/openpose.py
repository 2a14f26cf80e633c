"""OpenPose output: a folder of JSON files, one per frame, each with any number of persons."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actionprep.datasets.natural_order import natural_key
from actionprep.datasets.poses.formats import read_json
from actionprep.datasets.poses.formats.content import Damaged, going_on
from actionprep.datasets.poses.sequence import PoseItem, PoseSequence, pack_persons
from actionprep.datasets.poses.skeletons import convert
from actionprep.datasets.poses.skeletons import skeleton as layout_of
from actionprep.errors import InputError, UserError

_FRAME = re.compile(r"^(?P<stem>.*?)[._-]?(?P<frame>\d+)(?:_keypoints)?$")
# Bodies by their number of joints, which OpenPose and Pose2Sim write without names.
_BODIES = {18: "coco18", 25: "body25", 26: "halpe26"}
# A joint with a coordinate beyond, or with NaN, is missing.
_FAR = 1e9
_PARTS = (("hand_left_keypoints_2d", 21), ("hand_right_keypoints_2d", 21), ("face_keypoints_2d", 70))


def read_openpose(
    path: str | Path,
    *,
    skeleton: str | None = None,
    image_size: Sequence[int] | None = None,
    damaged: Damaged | None = None,
) -> Iterator[PoseItem]:
    """Read every recording in a folder, and in its subfolders, of OpenPose JSON files.

    Files of one folder whose names differ in their last number only are one recording, ordered by that number. Numbers
    without a file are frames without persons. If any person has hands or a face, all persons are read as `openpose137`
    (other bodies are converted to it, without the joints that they lack). Persons are not linked over frames: track ids
    are -1, and slots follow the file.

    Args:
        path: The folder, or one file.
        skeleton: coco18, body25, body25b or halpe26. Without it, 18 joints are coco18 and 26 joints are halpe26, as
            Pose2Sim and Sports2D write them. 25 joints are the layout with the shorter limbs, because OpenPose writes
            BODY_25 and its experimental BODY_25B alike, with their joints in different order. `extra` has the ratio:
            limb_length_ratio is that of the other layout to the selected one.
        image_size: Height and width of the video in pixels; the files do not contain it.
        damaged: Called for each recording that cannot be read; without it, the first error is raised.

    Yields:
        One item per recording.

    Raises:
        UserError: If there are no such files, or a file has no frame number.
        InputError: If a file is damaged.
    """
    root = Path(path)
    files = [root] if root.is_file() else sorted(root.rglob("*.json"), key=lambda file: natural_key(str(file)))
    groups: dict[str, dict[int, Path]] = {}
    for file in files:
        match = _FRAME.match(file.stem)
        if match is None:
            raise UserError(
                f"{file} has no frame number at the end of its name, as OpenPose writes it "
                "(name_000000000012_keypoints.json)."
            )
        folder = file.parent.relative_to(root).as_posix() if root.is_dir() else "."
        name = match["stem"] or file.parent.name
        recording = name if folder in (".", name, f"{name}_json") else f"{folder}/{name}"
        frames = groups.setdefault(recording, {})
        if int(match["frame"]) in frames:
            raise UserError(
                f"{file} and {frames[int(match['frame'])]} are both frame {int(match['frame'])} of '{recording}'."
            )
        frames[int(match["frame"])] = file
    if not groups:
        raise UserError(f"No OpenPose JSON file in {root}.")
    for recording, frames in groups.items():
        with going_on(recording, damaged):
            yield _recording(recording, frames, skeleton, image_size)


def _recording(
    recording: str, files: dict[int, Path], skeleton: str | None, image_size: Sequence[int] | None
) -> PoseItem:
    first, last = min(files), max(files)
    if last - first > 1000 + 100 * len(files):
        raise UserError(
            f"'{recording}' has {len(files)} files, numbered from {first} to {last}. Numbers that far apart are not "
            "those of frames; keep the files of one video under one name."
        )
    frames = [_people(files[number]) if number in files else [] for number in range(first, last + 1)]
    bodies = {len(body) for people in frames for body, _ in people}
    if bodies - _BODIES.keys() or len(bodies) > 1:
        raise InputError(
            f"'{recording}' has people with {', '.join(map(str, sorted(bodies)))} body joints; expected 25 "
            "(BODY_25, BODY_25B), 26 (HALPE_26) or 18 (COCO) throughout."
        )
    layout, ratio = _layout([body for people in frames for body, _ in people], skeleton, recording)
    whole = any(part is not None for people in frames for _, parts in people for part in parts)
    if whole:
        people = [[_whole(body, parts, layout) for body, parts in frame] for frame in frames]
        layout = "openpose137"
    else:
        people = [[body for body, _ in frame] for frame in frames]
    keypoints, score = pack_persons(people, layout_of(layout).num_joints)
    poses = PoseSequence.of(
        keypoints,
        score,
        skeleton=layout,
        image_size=image_size,
        frame_index=np.arange(first, last + 1),
        where=f"OpenPose recording '{recording}'",
    )
    missing = [number for number in range(first, last + 1) if number not in files]
    return PoseItem(
        recording, poses, extra={"frames_without_file": missing, "limb_length_ratio": ratio, "file_per_frame": True}
    )


def _layout(bodies: list[NDArray[np.float32]], wanted: str | None, recording: str) -> tuple[str, float | None]:
    """The layout of a recording's bodies, and how much longer the limbs of another candidate are."""
    count = len(bodies[0]) if bodies else 25
    if wanted is not None:
        name = layout_of(wanted).name
        if name not in ("coco18", "body25", "body25b", "halpe26") or (bodies and layout_of(name).num_joints != count):
            raise UserError(f"'{recording}' has bodies of {count} joints, which are not those of '{wanted}'.")
        return name, None
    if count != 25:
        return _BODIES[count], None
    lengths = {name: _limb_length(bodies, name) for name in ("body25", "body25b")}
    if not all(lengths.values()):
        return "body25", None
    best, other = sorted(lengths, key=lambda name: lengths[name])
    return best, round(lengths[other] / lengths[best], 2)


def _limb_length(bodies: list[NDArray[np.float32]], name: str) -> float:
    """Mean length of a limb in shares of its body's size, over limbs whose joints are both seen."""
    lengths: list[float] = []
    ends = np.array(layout_of(name).limbs)
    for body in bodies:
        seen = body[:, 2] > 0
        size = float(np.ptp(body[seen, :2], axis=0).max()) if seen.any() else 0.0
        if size > 0:
            first, last = body[ends[:, 0]], body[ends[:, 1]]
            both = (first[:, 2] > 0) & (last[:, 2] > 0)
            lengths += (np.linalg.norm(first[both, :2] - last[both, :2], axis=1) / size).tolist()
    return float(np.mean(lengths)) if lengths else 0.0


_Person = tuple[NDArray[np.float32], list[NDArray[np.float32] | None]]


def _people(file: Path) -> list[_Person]:
    content = read_json(file)
    people = content.get("people") if isinstance(content, dict) else None
    if not isinstance(people, list) or not all(isinstance(person, dict) for person in people):
        raise InputError(f"{file} has no list 'people' of objects; it is not OpenPose output.")
    return [
        (_triples(person, "pose_keypoints_2d", file), [_part(person, key, size, file) for key, size in _PARTS])
        for person in people
    ]


def _triples(person: dict[str, Any], key: str, file: Path) -> NDArray[np.float32]:
    values = person.get(key) or []
    try:
        flat = np.asarray(values, np.float64)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"'{key}' in {file} must be numbers.") from None
    if flat.ndim != 1 or len(flat) % 3:
        raise InputError(f"'{key}' in {file} must be triples of x, y and confidence, got {flat.size} values.")
    joints = flat.reshape(-1, 3)
    return np.where((np.abs(joints) < _FAR).all(-1, keepdims=True), joints, 0).astype(np.float32)


def _part(person: dict[str, Any], key: str, size: int, file: Path) -> NDArray[np.float32] | None:
    part = _triples(person, key, file)
    if len(part) not in (0, size):
        raise InputError(f"'{key}' in {file} has {len(part)} points; expected {size}.")
    return part if len(part) else None


def _whole(body: NDArray[np.float32], parts: list[NDArray[np.float32] | None], layout: str) -> NDArray[np.float32]:
    if layout != "body25":
        points, score, _ = convert(body[:, :2], body[:, 2], layout, "body25")
        body = np.concatenate([points, score[:, None]], 1)
    filled = [
        np.zeros((size, 3), np.float32) if part is None else part for part, (_, size) in zip(parts, _PARTS, strict=True)
    ]
    return np.concatenate([body, *filled])
