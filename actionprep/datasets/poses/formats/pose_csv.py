"""Our csv of poses: one row per joint."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actionprep.datasets.poses.formats.content import (
    NAME_LAYOUT,
    Damaged,
    check_span,
    check_times,
    going_on,
    numbers,
    whole_numbers,
)
from actionprep.datasets.poses.sequence import PoseItem, PoseSequence
from actionprep.datasets.poses.skeletons import Skeleton, match_layout, skeleton_names
from actionprep.datasets.poses.skeletons import skeleton as layout_of
from actionprep.errors import InputError, UserError, nearest


def read_pose_csv(
    path: str | Path,
    *,
    skeleton: str | None = None,
    image_size: Sequence[int] | None = None,
    damaged: Damaged | None = None,
) -> Iterator[PoseItem]:
    """Every recording in a csv file with these columns.

    frame, joint (name), x, y                              required
    z, score, person (0, 1, …), time, recording, view, label, subject, split     optional

    One row is one joint of one person in one frame. Rows that are left out are missing joints; frames that are left out
    between the first and the last are frames without people. `person` is kept as the track id.
    skeleton: the layout; without it, the file's joint names must be those of a known layout, in any order.
    damaged: called for each recording that cannot be read; without it, the first error is raised.
    """
    import pandas as pd

    path = Path(path)
    try:
        table = pd.read_csv(
            path, dtype={"recording": str, "joint": str, "subject": str, "label": str, "split": str, "view": str}
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a readable csv file: {error}.") from None
    for column in ("frame", "joint", "x", "y"):
        if column not in table.columns:
            raise InputError(f"{path} has no column '{column}'. It has {', '.join(map(str, table.columns))}.")
    unnamed = np.flatnonzero(table["joint"].isna())
    if len(unnamed):
        raise InputError(f"Row {unnamed[0] + 2} of {path} has no joint. Each row needs the name of one.")
    layout_used = (
        layout_of(skeleton) if skeleton else _layout_with(list(dict.fromkeys(table["joint"].astype(str))), path)
    )
    for row, joint in enumerate(table["joint"]):
        if joint not in layout_used.joints:
            raise InputError(
                f"Row {row + 2} of {path} names the joint '{joint}', which '{layout_used.name}' does not "
                f"have.{nearest(str(joint), layout_used.joints)}"
            )
    if "recording" not in table.columns:
        table["recording"] = path.name.removesuffix(path.suffix)
    keys = ["recording", "view"] if "view" in table.columns else ["recording"]
    for _, rows in table.groupby(keys, sort=False, dropna=False):
        recording = str(rows["recording"].iloc[0])
        with going_on(recording, damaged):
            yield _item(rows, recording, layout_used, skeleton or layout_used.name, image_size, path)


def _layout_with(names: list[str], path: Path) -> Skeleton:
    """The layout that has just these joints; UserError that names those that come near."""
    layouts = [layout_of(name) for name in skeleton_names()]
    fitting = (
        [match_layout(names)]
        if match_layout(names)
        else [candidate for candidate in layouts if set(candidate.joints) == set(names)]
    )
    if len(fitting) == 1 and fitting[0] is not None:
        return fitting[0]
    having = [candidate.name for candidate in layouts if set(names) <= set(candidate.joints)]
    if having:
        raise UserError(
            f"{path} names {len(names)} joints, and no known layout has just these. Layouts that have them all: "
            f"{', '.join(having)}. Name one {NAME_LAYOUT}."
        )
    near = max(layouts, key=lambda candidate: (len(set(names) & set(candidate.joints)), -candidate.num_joints))
    odd = next(name for name in names if name not in near.joints)
    share = len(set(names) & set(near.joints))
    most = f" '{near.name}' has {share} of them, but no '{odd}'.{nearest(odd, near.joints)}" if share else ""
    raise UserError(
        f"The joint names in {path} are those of no known layout.{most} Correct them, or name the layout {NAME_LAYOUT}; "
        "a custom TOML file works."
    )


def _item(
    rows: Any, recording: str, skeleton: Skeleton, layout: str, image_size: Sequence[int] | None, path: Path
) -> PoseItem:
    where = f"{path}, recording '{recording}',"

    def column(name: str) -> NDArray[np.float64]:
        return numbers(rows[name], f"The column '{name}'", where)

    frames = whole_numbers(rows["frame"], "The column 'frame'", where)
    check_span(frames, where)
    person = np.zeros(len(rows), np.int64)
    if "person" in rows.columns:
        person = whole_numbers(rows["person"], "The column 'person'", where)
    ids = np.unique(person)
    place = (frames - frames.min(), np.searchsorted(ids, person), np.array([skeleton.index(j) for j in rows["joint"]]))
    if len(np.unique(np.stack(place), axis=1).T) != len(rows):
        raise InputError(f"{path} has a joint of one person in one frame twice, in recording '{recording}'.")
    xyz = np.stack([column(axis) for axis in ("x", "y", "z") if axis in rows.columns], -1)
    shape = (int(frames.max() - frames.min()) + 1, len(ids), skeleton.num_joints)
    keypoints = np.zeros((*shape, xyz.shape[-1]))
    keypoints[place] = xyz
    score = np.zeros(shape)
    values = column("score") if "score" in rows.columns else np.ones(len(rows))
    score[place] = np.where(np.isnan(xyz).any(-1), 0, values)
    index = np.arange(frames.min(), frames.max() + 1)
    time = None
    if "time" in rows.columns:
        known = dict(zip(frames.tolist(), column("time").tolist(), strict=True))
        if len(known) != len(index) or np.isnan(list(known.values())).any():
            raise InputError(
                f"{path} gives the time of some frames only; give it in every row, and a row for every frame."
            )
        time = check_times(np.array([known[frame] for frame in index.tolist()]), where)
    poses = PoseSequence.of(
        keypoints,
        score,
        skeleton=layout,
        track_id=np.where((score > 0).any(-1), ids, -1),
        image_size=image_size,
        frame_index=index,
        time=time,
        where=str(path),
    )
    first = {
        name: None if name not in rows.columns or rows[name].isna().iloc[0] else str(rows[name].iloc[0])
        for name in ("view", "label", "subject", "split")
    }
    return PoseItem(
        recording,
        poses,
        view=first["view"],
        label=first["label"],
        subject=first["subject"],
        splits=(first["split"],) if first["split"] else (),
    )
