"""MediaPipe pose landmarks as people save them: npz with an array `landmarks`, or csv, long or wide."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actionprep.datasets.poses.formats.content import check_span, numbers, size_of, whole_numbers
from actionprep.datasets.poses.formats.safe_npz import load_npz
from actionprep.datasets.poses.pixels import normalized_to_pixel_centers
from actionprep.datasets.poses.sequence import PoseItem, PoseSequence
from actionprep.datasets.poses.skeletons import skeleton
from actionprep.errors import InputError, UserError, nearest

# Columns of long files by their plain names.
_COLUMNS = {
    **dict.fromkeys(("frame", "frameid", "frameindex", "frameidx", "frameno", "framenumber"), "frame"),
    **dict.fromkeys(("landmark", "landmarkid", "landmarkindex", "landmarkidx", "landmarkname"), "landmark"),
    **{name: name for name in ("x", "y", "z", "visibility", "person")},
}
_NUMBERED = re.compile(
    r"(?P<axis>x|y|z|v|visibility)_?(?P<number>\d+)"
    r"|(?:pose_)?(?:l|lm|landmark_?|pose)?_?(?P<number2>\d+)_(?P<axis2>x|y|z|v|visibility)"
)
_AXES = {"v": "visibility"}
_MOUTH = {"mouth_left": "left_mouth", "mouth_right": "right_mouth"}


def read_mediapipe(path: str | Path, *, image_size: Sequence[int] | None = None) -> Iterator[PoseItem]:
    """Read the poses in one file of MediaPipe landmarks, in pixels.

    npz: landmarks (T, 33, 3 to 5) or (T, M, 33, 3 to 5): x, y, z in shares of the image, then visibility and presence;
    image_size (2,): height, width.

    csv, long: one row per landmark with frame, [person], landmark (name or number from 0), x, y, [z], [visibility]. The
    names of the columns are compared without case and punctuation: Frame,LandmarkID,X,Y is read too.

    csv, wide: one row per frame with nose_x, nose_y, [nose_z], [nose_visibility], …; or with numbers: x1, y1, z1, v1 up
    to 33 (with those of the face after it, as holistic models write them), x_0, L0_x, landmark_0_x up to 32. A frame is
    the number in the column `frame`, otherwise that of the row.

    The score is the visibility, 1 where the file has none. Frames of NaN, or left out, have no person. z is dropped,
    because it is no measured depth.

    Args:
        path: The file.
        image_size: Height and width in pixels; needed where the file does not have them.

    Yields:
        One item, with the name of the file.

    Raises:
        InputError: If the file is damaged or of another form.
        UserError: If the size of the image is not known.
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
    table.columns = [_COLUMNS.get(_plain(name), str(name).strip()) for name in table.columns]
    if table.columns.duplicated().any():
        raise InputError(f"{path} has the column '{table.columns[table.columns.duplicated()][0]}' twice.")
    if "landmark" not in table.columns:
        return _wide(_with_names(table, joints, path), joints, path)
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
        if not (text.isdecimal() and int(text) < 33) and text not in known:
            raise InputError(
                f"{path} names the landmark '{value}', which MediaPipe does not have.{nearest(text, known)}"
            )
        places.append(int(text) if text.isdecimal() else known[text])
    frames = whole_numbers(table["frame"], "The column 'frame'", where)
    check_span(frames, where)
    index = np.arange(frames.min(), frames.max() + 1) if len(frames) else np.zeros(0, int)
    landmarks = np.full((len(index), int(persons.max(initial=0)) + 1, 33, 4), np.nan)
    for axis, name in enumerate(("x", "y", "z", "visibility")):
        values = numbers(table[name], f"The column '{name}'", where) if name in table.columns else np.float64(1)
        landmarks[frames - index[:1].sum(), persons, places, axis] = values
    return landmarks, index


def _plain(name: object) -> str:
    return re.sub(r"[^a-z0-9]", "", str(name).lower())


def _with_names(table: Any, joints: list[str], path: Path) -> Any:
    """Columns with the numbers of landmarks, renamed to their names; others stay."""
    columns_of: dict[str, tuple[int, str]] = {}
    for name in table.columns:
        match = _NUMBERED.fullmatch(str(name).lower())
        if match is not None:
            axis = match["axis"] or match["axis2"]
            columns_of[str(name)] = int(match["number"] or match["number2"]), _AXES.get(axis, axis)
    if not columns_of:
        return table
    numbers_of = {number for number, _ in columns_of.values()}
    # x1 … x33 count from 1; x0 … x32 from 0.
    first = 0 if 0 in numbers_of else 1
    if not set(range(first, first + 33)) <= numbers_of:
        raise InputError(
            f"{path} has landmarks {min(numbers_of)} to {max(numbers_of)}; expected {first} to {first + 32} of a pose."
        )
    named = {
        name: f"{joints[number - first]}_{axis}"
        for name, (number, axis) in columns_of.items()
        if number - first < len(joints)
    }
    return table[[name for name in table.columns if name in named or str(name) not in columns_of]].rename(columns=named)


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
