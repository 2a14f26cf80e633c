"""netCDF files of movement: poses datasets of xarray."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actionprep.datasets.poses.formats.content import check_times, numbers, size_of, whole_numbers
from actionprep.datasets.poses.formats.safe_h5 import H5, open_h5
from actionprep.datasets.poses.individuals import track_id_array
from actionprep.datasets.poses.sequence import PoseItem, PoseSequence
from actionprep.datasets.poses.skeletons import layout_of_names
from actionprep.datasets.poses.skeletons import skeleton as layout_of
from actionprep.errors import InputError

_DIMENSIONS = ("time", "space", "keypoints", "individuals")


def read_netcdf(
    path: str | Path, *, skeleton: str | None = None, image_size: Sequence[int] | None = None
) -> Iterator[PoseItem]:
    """Read one poses dataset of movement.

    The file is netCDF 4. `position` has the dimensions time, space, keypoints and individuals in any order, in pixels,
    with NaN for missing joints. `confidence` is the score; joints without a confidence have score 1. Frame numbers are
    the coordinate `frame`, if `actionprep export netcdf` wrote the file, or the times if `time_unit` is frames.
    Otherwise frames count from 0. Seconds are the times of the frames.

    Args:
        path: The file.
        skeleton: Layout of the joints; without it, the layout of the keypoints in the file.
        image_size: Height and width in pixels.

    Yields:
        One item, with the name of the file.

    Raises:
        InputError: If the file is damaged or no poses dataset.
    """
    path = Path(path)
    with path.open("rb") as file:
        if file.read(3) == b"CDF":
            raise InputError(f"{path} is netCDF 3. Write it as netCDF 4: ds.to_netcdf(path, engine='h5netcdf').")
    with open_h5(path) as opened:
        yield _item(opened, skeleton, image_size)


def _item(file: H5, skeleton: str | None, image_size: Sequence[int] | None) -> PoseItem:
    lost = [name for name in ("position", *_DIMENSIONS) if name not in file]
    if lost:
        raise InputError(
            f"{file.path} is no poses dataset of movement: it has no '{lost[0]}'. It has "
            f"{', '.join(file.names()) or 'nothing'}."
        )
    space, joints, names = file.texts("space"), file.texts("keypoints"), file.texts("individuals")
    if space not in (["x", "y"], ["x", "y", "z"]):
        raise InputError(f"'space' in {file.path} is {', '.join(space)}; expected x, y or x, y, z.")
    raw_time = numbers(file.read("time"), "'time'", str(file.path))
    sizes = (len(raw_time), len(space), len(joints), len(names))
    points = _array(file, "position", _DIMENSIONS, sizes).transpose(0, 3, 2, 1)
    finite = np.isfinite(points).all(-1)
    score = np.ones(points.shape[:3])
    if "confidence" in file:
        known = _array(file, "confidence", ("time", "keypoints", "individuals"), (sizes[0], *sizes[2:]))
        # movement fills confidences with NaN if the source has none.
        score = np.where(np.isnan(known), 1.0, known).transpose(0, 2, 1)
    score = np.where(finite, score, 0)
    facts = file.attributes()
    in_frames = _text(facts.get("time_unit")) == "frames"
    if "frame" in file:
        index = whole_numbers(file.read("frame"), "'frame'", str(file.path))
    else:
        index = whole_numbers(raw_time, "'time'", str(file.path)) if in_frames else np.arange(len(raw_time))
    if skeleton is None:
        layout = layout_of_names(joints, name="netcdf", limbs=_limbs(file), source=file.path.name).name
    elif layout_of(skeleton).num_joints != len(joints):
        raise InputError(
            f"{file.path} has {len(joints)} keypoints, and skeleton '{skeleton}' has {layout_of(skeleton).num_joints} "
            "joints."
        )
    else:
        layout = skeleton
    size = size_of(facts["image_size"], str(file.path)) if "image_size" in facts else image_size
    poses = PoseSequence.of(
        points,
        score,
        skeleton=layout,
        track_id=track_id_array(names, score),
        image_size=size if len(space) == 2 else None,
        frame_index=index,
        time=None if in_frames else check_times(raw_time, str(file.path)),
        where=str(file.path),
    )
    return PoseItem(file.path.stem, poses, extra={"individuals": names})


def _array(file: H5, name: str, dimensions: Sequence[str], sizes: Sequence[int]) -> NDArray[np.float64]:
    """Read an array with its dimensions in this order."""
    values = numbers(file.read(name), f"'{name}'", str(file.path))
    stored = file.dimensions(name)
    if sorted(stored) != sorted(dimensions):
        raise InputError(
            f"'{name}' in {file.path} has the dimensions {', '.join(stored)}; expected {', '.join(dimensions)}."
        )
    values = values.transpose([stored.index(dimension) for dimension in dimensions])
    if values.shape != tuple(sizes):
        raise InputError(f"'{name}' in {file.path} has the shape {values.shape}; expected {tuple(sizes)}.")
    return values


def _limbs(file: H5) -> list[tuple[int, int]]:
    """The edges that `actionprep export netcdf` writes, as pairs of positions."""
    edges = np.asarray(file.attributes("position").get("skeleton_edges", ()))
    if edges.dtype.kind not in "iu" or edges.size % 2:
        return []
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2).tolist()]


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
