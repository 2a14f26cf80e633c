"""MSR Action3D skeletons: text files of one sequence each, or one npz with all of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actionprep.datasets.poses.formats.content import Damaged, check_offsets, going_on, whole_numbers
from actionprep.datasets.poses.formats.safe_npz import load_npz
from actionprep.datasets.poses.sequence import PoseItem, PoseSequence
from actionprep.errors import InputError, UserError

# The 20 actions of Li, Zhang and Liu, CVPR workshops 2010, in the order of their numbers.
ACTIONS = (
    "high arm wave", "horizontal arm wave", "hammer", "hand catch", "forward punch", "high throw", "draw X", "draw "
    "tick",
    "draw circle", "hand clap", "two hand wave", "side boxing", "bend", "forward kick", "side kick", "jogging",
    "tennis swing", "tennis serve", "golf swing", "pickup and throw",
)  # fmt: skip
_NAME = re.compile(r"a(\d+)_s(\d+)_e(\d+)_skeleton(?:3D)?$")
# The files' joint order, given for every joint of kinect20 (derived from which arm and leg move in one-sided actions).
_ORDER = (6, 3, 2, 19, 0, 7, 9, 11, 1, 8, 10, 12, 4, 13, 15, 17, 5, 14, 16, 18)


def read_msr_action3d(path: str | Path, *, damaged: Damaged | None = None) -> Iterator[PoseItem]:
    """Every sequence, joints in the order of kinect20.

    Coordinates are meters: x to the person's right, y up, z away from the camera.

    Text: a<action>_s<subject>_e<instance>_skeleton3D.txt, 20 rows a frame of x, y, z, confidence. npz: joints_xyzc
    (frames, 20, 4), offsets, action, subject, instance. Joints that are all zeros are missing and get score 0. The
    others get score 1: the confidence column is mostly 0 or 1 without relation to the error, so it is kept in `extra`
    instead.
    Splits: cross-subject, odd subjects train. Frames without any joint are kept, as frames without a person; a
    sequence of nothing but such frames (a13_s09_e02 in the original) is yielded with `extra["empty"]`.

    damaged: called for each sequence that cannot be read; without it, the first error is raised.
    """
    root = Path(path)
    if root.suffix == ".npz":
        arrays = load_npz(root, ["joints_xyzc", "offsets", "action", "subject", "instance"])
        joints = arrays["joints_xyzc"]
        if joints.ndim != 3 or joints.shape[1:] != (20, 4) or joints.dtype.kind not in "fiu":
            raise InputError(f"{root} must hold numbers joints_xyzc (frames, 20, 4), got {joints.shape}.")
        names = [whole_numbers(arrays[name], f"'{name}'", str(root)) for name in ("action", "subject", "instance")]
        count = names[0].size
        if any(column.shape != (count,) for column in names):
            raise InputError(f"'action', 'subject' and 'instance' in {root} must have one number a sequence.")
        offsets = check_offsets(arrays["offsets"], len(joints), count, "'offsets'", str(root))
        for i, (first, last) in enumerate(pairwise(offsets)):
            action, subject, instance = (int(column[i]) for column in names)
            with going_on(_id(action, subject, instance), damaged):
                yield _item(joints[first:last], action, subject, instance, where=f"sequence {i} of {root}")
        return
    files = [root] if root.is_file() else sorted(root.rglob("a*_s*_e*_skeleton*.txt"))
    if not files:
        raise UserError(f"No a<action>_s<subject>_e<instance>_skeleton3D.txt in {root}.")
    for file in files:
        match = _NAME.match(file.stem)
        if match is None:
            raise UserError(f"{file} is not named a<action>_s<subject>_e<instance>_skeleton3D.txt.")
        action, subject, instance = (int(value) for value in match.groups())
        with going_on(_id(action, subject, instance), damaged):
            yield _item(_text(file), action, subject, instance, where=str(file))


def _id(action: int, subject: int, instance: int) -> str:
    return f"a{action:02d}_s{subject:02d}_e{instance:02d}"


def _text(file: Path) -> NDArray[np.float64]:
    try:
        values = np.array(file.read_text(encoding="ascii", errors="replace").split(), np.float64)
    except ValueError as error:
        raise InputError(f"{file} must hold numbers only: {error}.") from None
    if len(values) == 0 or len(values) % 80:
        raise InputError(
            f"{file} has {len(values)} numbers; a frame is 20 rows of 4, so it is cut short or not of this format."
        )
    return values.reshape(-1, 20, 4)


def _item(joints: NDArray[np.floating[Any]], action: int, subject: int, instance: int, *, where: str) -> PoseItem:
    if not 1 <= action <= len(ACTIONS):
        raise InputError(f"{where} has the action number {action}; MSR Action3D has 1 to {len(ACTIONS)}.")
    points = joints[:, list(_ORDER), :3]
    seen = (points != 0).any(-1) & np.isfinite(points).all(-1)
    present = seen.any(-1)
    poses = PoseSequence.of(
        points,
        seen.astype(np.float32),
        skeleton="kinect20",
        track_id=np.where(present, 0, -1)[:, None],
        where=where,
    )
    return PoseItem(
        _id(action, subject, instance),
        poses,
        label=ACTIONS[action - 1],
        subject=f"s{subject:02d}",
        splits=("cross_subject_train" if subject % 2 else "cross_subject_test",),
        extra={
            "action": action,
            "instance": instance,
            "empty": not bool(present.any()),
            "confidence": joints[:, list(_ORDER), 3],
        },
    )
