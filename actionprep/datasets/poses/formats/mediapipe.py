"""MediaPipe pose landmarks as people save them: npz with an array `landmarks`, or csv, long or wide."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from actionprep.datasets.poses.formats.content import check_span, numbers, size_of, whole_numbers
from actionprep.datasets.poses.formats.safe_npz import load_npz
from actionprep.datasets.poses.pixels import normalized_to_pixel_centers
from actionprep.datasets.poses.sequence import PoseItem, PoseSequence
from actionprep.datasets.poses.skeletons import skeleton
from actionprep.errors import InputError, UserError, nearest

_MOUTH = {"mouth_left": "left_mouth", "mouth_right": "right_mouth"}


def read_mediapipe(path: str | Path, *, image_size: Sequence[int] | None = None) -> Iterator[PoseItem]:
    """The poses in one file of MediaPipe landmarks, in px.

    npz: landmarks (T, 33, 3 to 5) or (T, M, 33, 3 to 5): x, y, z in shares of the image, then visibility and presence;
    image_size (2,): height, width. csv, long: columns frame, [person], landmark (name or number), x, y, [z],
    [visibility]; csv, wide: one row a frame with nose_x, nose_y, [nose_z], [nose_visibility], … The score is the
    visibility, 1 where the file has none; frames of NaN or left out are without people. z is dropped: it is no
    measured depth.

    image_size: (height, width) in px; needed where the file does not hold it.
    """
    path = Path(path)
    if path.suffix.lower() == ".npz":
        arrays = load_npz(path)
        if "landmarks" not in arrays:
            raise InputError(f"{path} holds no array 'landmarks'. It holds {', '.join(sorted(arrays)) or 'none'}.")
        landmarks = numbers(arrays["landmarks"], "'landmarks'", str(path))
        if landmarks.ndim == 3:
            landmarks = landmarks[:, None]
        size = image_size if image_size is not None else arrays.get("image_size")
        index = np.arange(len(landmarks))
    else:
        landmarks, index = _csv(path)
        size = image_size
    if landmarks.ndim != 4 or landmarks.shape[2] != 33 or not 2 <= landmarks.shape[3] <= 5:
        raise InputError(
            f"Landmarks in {path} must have the shape (frames, [persons], 33, 3 to 5), got {landmarks.shape}."
        )
    if size is None:
        raise UserError(
            f"MediaPipe landmarks are shares of the image, and {path} does not contain its size. Give "
            "image_size=(height, width)."
        )
    height, width = size_of(size, str(path))
    xy = landmarks[..., :2]
    seen = np.asarray(np.isfinite(xy).all(-1))
    visible = landmarks[..., 3] if landmarks.shape[-1] > 3 else np.ones(landmarks.shape[:-1])
    score = np.where(seen, np.nan_to_num(visible), 0)
    poses = PoseSequence.of(
        normalized_to_pixel_centers(xy, height=height, width=width, name="mediapipe"),
        score,
        skeleton="mediapipe33",
        image_size=(height, width),
        frame_index=index,
        where=str(path),
    )
    yield PoseItem(path.name.removesuffix(path.suffix), poses)


def _csv(path: Path) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    import pandas as pd

    try:
        table = pd.read_csv(path)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a readable csv file: {error}.") from None
    joints = list(skeleton("mediapipe33").joints)
    if "landmark" not in table.columns:
        return _wide(table, joints, path)
    for column in ("frame", "x", "y"):
        if column not in table.columns:
            raise InputError(f"{path} has no column '{column}'. It has {', '.join(map(str, table.columns))}.")
    where = str(path)
    persons = (
        whole_numbers(table["person"], "The column 'person'", where)
        if "person" in table.columns
        else np.zeros(len(table), np.int64)
    )
    if len(persons) and not 0 <= persons.min() <= persons.max() < 1000:
        raise InputError(f"The column 'person' in {path} must number persons from 0, got {persons.min()}.")
    known = {name: i for i, name in enumerate(joints)} | {old: joints.index(new) for old, new in _MOUTH.items()}
    places: list[int] = []
    for value in table["landmark"]:
        text = str(value).lower()
        if not (text.isdigit() and int(text) < 33) and text not in known:
            raise InputError(
                f"{path} names the landmark '{value}', which MediaPipe does not have.{nearest(text, known)}"
            )
        places.append(int(text) if text.isdigit() else known[text])
    frames = whole_numbers(table["frame"], "The column 'frame'", where)
    check_span(frames, where)
    index = np.arange(frames.min(), frames.max() + 1) if len(frames) else np.zeros(0, int)
    landmarks = np.full((len(index), int(persons.max(initial=0)) + 1, 33, 4), np.nan)
    for axis, name in enumerate(("x", "y", "z", "visibility")):
        values = numbers(table[name], f"The column '{name}'", where) if name in table.columns else np.float64(1)
        landmarks[frames - index[:1].sum(), persons, places, axis] = values
    return landmarks, index


def _wide(table: object, joints: list[str], path: Path) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    columns = {str(name).lower(): values for name, values in table.items()}  # type: ignore[attr-defined]
    for old, new in _MOUTH.items():
        columns.update({key.replace(old, new): columns[key] for key in list(columns) if key.startswith(old)})
    length = len(table)  # type: ignore[arg-type]
    landmarks = np.full((length, 1, 33, 4), np.nan)
    for place, joint in enumerate(joints):
        for column, ends in enumerate((("x",), ("y",), ("z",), ("visibility", "v", "score"))):
            key = next((f"{joint}_{end}" for end in ends if f"{joint}_{end}" in columns), None)
            if key is not None:
                landmarks[:, 0, place, column] = numbers(columns[key], f"The column '{key}'", str(path))
            elif column < 2:
                raise InputError(
                    f"{path} has no column '{joint}_{ends[0]}'. A wide file has x and y of all 33 landmarks."
                )
            else:
                landmarks[:, 0, place, column] = 1
    if "frame" not in columns:
        return landmarks, np.arange(length)
    return landmarks, whole_numbers(columns["frame"], "The column 'frame'", str(path))
