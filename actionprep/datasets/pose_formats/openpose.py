"""OpenPose output: a folder of JSON files, one a frame, each with any number of people."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actionprep.datasets.pose_formats import natural_key, read_json
from actionprep.datasets.poses import PoseItem, PoseSequence, pack_persons
from actionprep.datasets.skeletons import convert
from actionprep.errors import InputProblem, UserError

_FRAME = re.compile(r"^(?P<stem>.*?)[._-]?(?P<frame>\d+)(?:_keypoints)?$")
_BODIES = {25: "body25", 18: "coco18"}
_PARTS = (("hand_left_keypoints_2d", 21), ("hand_right_keypoints_2d", 21), ("face_keypoints_2d", 70))


def read_openpose(path: str | Path, *, image_size: Sequence[int] | None = None) -> Iterator[PoseItem]:
    """Every recording in a folder, and in its sub-folders, of OpenPose JSON files.

    Files of one folder whose names differ in their last number only are one recording, ordered by that number;
    numbers that are left out are frames without people. BODY_25 and COCO are told by the number of joints. Where any
    person has hands or a face, all people come as `openpose137` (a COCO body is placed in it, its feet missing).
    People are not linked over frames: person ids are those of nobody (-1), slots follow the file.

    image_size: (height, width) of the video in px; the files do not hold it.
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
        yield _recording(recording, frames, image_size)


def _recording(recording: str, files: dict[int, Path], image_size: Sequence[int] | None) -> PoseItem:
    first, last = min(files), max(files)
    frames = [_people(files[number]) if number in files else [] for number in range(first, last + 1)]
    bodies = {len(body) for people in frames for body, _ in people}
    unknown = bodies - _BODIES.keys()
    if unknown or len(bodies) > 1:
        raise InputProblem(
            f"'{recording}' has people with {', '.join(map(str, sorted(bodies)))} body joints; expected 25 "
            "(BODY_25) or 18 (COCO) throughout."
        )
    layout = _BODIES[bodies.pop()] if bodies else "body25"
    whole = any(part is not None for people in frames for _, parts in people for part in parts)
    if whole:
        people = [[_whole(body, parts, layout) for body, parts in one] for one in frames]
        layout = "openpose137"
    else:
        people = [[body for body, _ in one] for one in frames]
    keypoints, score = pack_persons(people, 137 if whole else {"body25": 25, "coco18": 18}[layout])
    poses = PoseSequence.of(
        keypoints,
        score,
        skeleton=layout,
        image_size=image_size,
        frame_index=np.arange(first, last + 1),
        where=f"OpenPose recording '{recording}'",
    )
    missing = [number for number in range(first, last + 1) if number not in files]
    return PoseItem(recording, poses, extra={"frames_without_file": missing})


_Person = tuple[NDArray[np.float32], list[NDArray[np.float32] | None]]


def _people(file: Path) -> list[_Person]:
    content = read_json(file)
    if not isinstance(content, dict) or not isinstance(content.get("people"), list):
        raise InputProblem(f"{file} has no list 'people'; it is not OpenPose output.")
    return [
        (_triples(person, "pose_keypoints_2d", file), [_part(person, key, size, file) for key, size in _PARTS])
        for person in content["people"]
    ]


def _triples(person: dict[str, Any], key: str, file: Path) -> NDArray[np.float32]:
    values = person.get(key) or []
    try:
        flat = np.asarray(values, np.float32)
    except (TypeError, ValueError):
        raise InputProblem(f"'{key}' in {file} must be numbers.") from None
    if flat.ndim != 1 or len(flat) % 3 or not np.isfinite(flat).all():
        raise InputProblem(f"'{key}' in {file} must be finite x, y, confidence triples, got {flat.size} values.")
    return flat.reshape(-1, 3)


def _part(person: dict[str, Any], key: str, size: int, file: Path) -> NDArray[np.float32] | None:
    part = _triples(person, key, file)
    if len(part) not in (0, size):
        raise InputProblem(f"'{key}' in {file} has {len(part)} points; expected {size}.")
    return part if len(part) else None


def _whole(body: NDArray[np.float32], parts: list[NDArray[np.float32] | None], layout: str) -> NDArray[np.float32]:
    if layout == "coco18":
        points, score, _ = convert(body[:, :2], body[:, 2], "coco18", "body25")
        body = np.concatenate([points, score[:, None]], 1)
    filled = [
        np.zeros((size, 3), np.float32) if part is None else part for part, (_, size) in zip(parts, _PARTS, strict=True)
    ]
    return np.concatenate([body, *filled])
