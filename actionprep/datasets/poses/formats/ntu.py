"""NTU RGB+D `.skeleton` files: up to several Kinect v2 bodies a frame, 25 joints each, as text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from actionprep.datasets.poses.formats.content import Damaged, going_on
from actionprep.datasets.poses.sequence import PoseItem, PoseSequence
from actionprep.errors import InputError, UserError

_NAME = re.compile(r"S(\d{3})C(\d{3})P(\d{3})R(\d{3})A(\d{3})")
_COLUMNS = {"world": (0, 1, 2), "depth": (3, 4), "color": (5, 6)}
_SIZES = {"world": None, "depth": (424, 512), "color": (1080, 1920)}
# Kinect's tracking state: not tracked, inferred, tracked.
_STATE = np.array([0.0, 0.5, 1.0], np.float32)

# Training subjects of the published protocols: Shahroudy et al., CVPR 2016; Liu et al., TPAMI 2019.
XSUB60 = frozenset({1, 2, 4, 5, 8, 9, 13, 14, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38})
XSUB120 = XSUB60 | frozenset(
    {45, 46, 47, 49, 50, 52, 53, 54, 55, 56, 57, 58, 59, 70, 74, 78, 80, 81, 82, 83, 84, 85, 86, 89}
    | {91, 92, 93, 94, 95, 97, 98, 100, 103}
)


def read_ntu(
    path: str | Path,
    *,
    coordinates: Literal["world", "color", "depth"] = "world",
    damaged: Damaged | None = None,
) -> Iterator[PoseItem]:
    """Every `.skeleton` file in a folder, or one file.

    coordinates: "world" is x, y, z in meters; "color" and "depth" are px of the color (1920x1080) or depth (512x424)
    image. Scores follow Kinect's tracking state: 0 not tracked, 0.5 inferred, 1 tracked. Each body of the file is one
    slot, with its order of first appearance as track id. Names of the form SsssCcccPpppRrrrAaaa give label (0-based),
    subject, view and the splits of the published protocols: xsub_train/val and xview_train/val for actions 1 to 60,
    xsub120 and xset120 for all.

    damaged: called for each file that cannot be read; without it, the first error is raised.
    """
    root = Path(path)
    if coordinates not in _COLUMNS:
        raise UserError(f"coordinates must be world, color or depth, got '{coordinates}'.")
    files = [root] if root.is_file() else sorted(root.rglob("*.skeleton"))
    if not files:
        raise UserError(f"No .skeleton file in {root}.")
    for file in files:
        name = (file.relative_to(root).as_posix() if root.is_dir() else file.name).removesuffix(".skeleton")
        with going_on(name, damaged):
            yield _item(file, name, coordinates)


def _item(file: Path, name: str, coordinates: str) -> PoseItem:
    keypoints, score, track, extra = _read(file, _COLUMNS[coordinates])
    poses = PoseSequence.of(
        keypoints, score, skeleton="ntu25", track_id=track, image_size=_SIZES[coordinates], where=str(file)
    )
    match = _NAME.search(file.name)
    if match is None:
        return PoseItem(name, poses, extra=extra)
    setup, camera, person, replication, action = (int(value) for value in match.groups())
    return PoseItem(
        name,
        poses,
        view=str(camera),
        label=action - 1,
        subject=subject_of(file.name),
        splits=_splits(setup, camera, person, action),
        extra={**extra, "setup": setup, "replication": replication},
    )


def subject_of(name: str) -> str | None:
    """Return the subject in the name of an NTU recording, such as P001 of S001C001P001R001A001; None for other names."""
    match = _NAME.search(name)
    return None if match is None else f"P{match[3]}"


def _splits(setup: int, camera: int, person: int, action: int) -> tuple[str, ...]:
    def part(train: bool) -> str:
        return "train" if train else "val"

    splits = [f"xsub120_{part(person in XSUB120)}", f"xset120_{part(setup % 2 == 0)}"]
    if action <= 60:
        splits = [f"xsub_{part(person in XSUB60)}", f"xview_{part(camera != 1)}", *splits]
    return tuple(splits)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"'{text}' is no count")
    return int(text)


def _read(
    file: Path, columns: tuple[int, ...]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64], dict[str, list[str]]]:
    lines = iter(enumerate(file.read_text(encoding="ascii", errors="replace").splitlines(), 1))
    number = 0

    def take(what: str, count: int | None = None) -> list[str]:
        nonlocal number
        for number, line in lines:
            fields = line.split()
            if fields:
                if count is not None and len(fields) != count:
                    raise InputError(f"Line {number} of {file} has {len(fields)} values; expected {count} for {what}.")
                return fields
        raise InputError(f"{file} ends after line {number}, where {what} should follow. The file is cut short.")

    bodies: dict[str, int] = {}
    rows: list[tuple[int, int, NDArray[np.float64]]] = []
    try:
        frames = _count(take("the number of frames", 1)[0])
        for frame in range(frames):
            for _ in range(_count(take(f"the number of bodies of frame {frame}", 1)[0])):
                body = bodies.setdefault(take("a body's line", 10)[0], len(bodies))
                joints = int(take("the number of joints", 1)[0])
                if joints != 25:
                    raise InputError(f"Line {number} of {file} has {joints} joints; NTU RGB+D has 25.")
                values = np.array([take("a joint", 12) for _ in range(25)], np.float64)
                rows.append((frame, body, values))
    except ValueError as error:
        raise InputError(f"Line {number} of {file} is not what a .skeleton file holds there: {error}.") from None
    slots = max(1, len(bodies))
    keypoints = np.zeros((frames, slots, 25, len(columns)), np.float32)
    score = np.zeros((frames, slots, 25), np.float32)
    track = np.full((frames, slots), -1, np.int64)
    for frame, body, values in rows:
        place = values[:, list(columns)]
        sound = np.asarray(np.isfinite(values[:, 11]) & (np.abs(place) < 1e9).all(-1))
        state = np.where(sound, values[:, 11], 0).clip(0, 2).astype(int)
        keypoints[frame, body] = np.where(sound[:, None], place, 0)
        score[frame, body] = np.where(sound, _STATE[state], 0)
        track[frame, body] = body
    return keypoints, score, track, {"body_ids": list(bodies)}
