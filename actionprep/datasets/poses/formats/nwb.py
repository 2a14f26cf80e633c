"""NWB files with pose estimates of the extension ndx-pose."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actionprep.datasets.natural_order import natural_key
from actionprep.datasets.poses.formats.content import Damaged, check_times, going_on, numbers
from actionprep.datasets.poses.formats.safe_h5 import H5, open_h5
from actionprep.datasets.poses.individuals import track_id_array
from actionprep.datasets.poses.sequence import PoseItem, PoseSequence
from actionprep.datasets.poses.skeletons import layout_of_names
from actionprep.datasets.poses.skeletons import skeleton as layout_of
from actionprep.errors import InputError


def read_nwb(
    path: str | Path,
    *,
    skeleton: str | None = None,
    image_size: Sequence[int] | None = None,
    damaged: Damaged | None = None,
) -> Iterator[PoseItem]:
    """Read the pose estimates of one NWB file.

    Every `PoseEstimation` in a processing module is an individual. Those of one module with equal times are the
    individuals of one recording, named by the file, with "/module" if several modules have poses. Joints are the nodes
    of the skeleton that it links to, or the series in order of their names. NaN is missing, and the score is the
    confidence. Frames count from 0, and times are those of the file.

    Args:
        path: The file.
        skeleton: Layout of the joints; without it, the layout of the file's skeleton.
        image_size: Height and width in pixels.
        damaged: Called for each recording that cannot be read; without it, the first error is raised.

    Yields:
        One item per processing module with poses.

    Raises:
        InputError: If the file is damaged or has no pose estimates.
    """
    path = Path(path)
    with open_h5(path) as file:
        modules: dict[str, list[str]] = {}
        for module in file.names("processing"):
            for name in sorted(_of_type(file, f"processing/{module}", "PoseEstimation"), key=natural_key):
                modules.setdefault(module, []).append(f"processing/{module}/{name}")
        if not modules:
            raise InputError(
                f"{path} has no PoseEstimation of ndx-pose in its processing modules. It has "
                f"{', '.join(file.names('processing')) or 'no modules'}."
            )
        for module, groups in modules.items():
            recording = path.stem if len(modules) == 1 else f"{path.stem}/{module}"
            with going_on(recording, damaged):
                yield _item(file, groups, recording, skeleton, image_size)


def _of_type(file: H5, group: str, kind: str) -> list[str]:
    """Names of the groups of a neurodata type in a group; links are left out."""
    matches = []
    for name in file.names(group):
        path = f"{group}/{name}"
        if file.target(path) == path and _text(file.attributes(path).get("neurodata_type")) == kind:
            matches.append(name)
    return matches


def _item(
    file: H5, groups: Sequence[str], recording: str, skeleton: str | None, image_size: Sequence[int] | None
) -> PoseItem:
    joints, limbs = _skeleton(file, groups[0])
    people = [_individual(file, group, joints) for group in groups]
    times = [time for _, _, time in people]
    if any(len(time) != len(times[0]) or not np.allclose(time, times[0]) for time in times):
        raise InputError(f"The individuals of '{recording}' in {file.path} have different times.")
    axes = {points.shape[-1] for points, _, _ in people}
    if len(axes) > 1:
        raise InputError(f"{file.path} has joints in 2D and in 3D.")
    points = np.stack([points for points, _, _ in people], 1)
    score = np.where(np.isfinite(points).all(-1), np.stack([score for _, score, _ in people], 1), 0)
    if skeleton is not None and layout_of(skeleton).num_joints != len(joints):
        raise InputError(
            f"{file.path} has {len(joints)} nodes, and skeleton '{skeleton}' has {layout_of(skeleton).num_joints} joints."
        )
    layout = skeleton or layout_of_names(joints, name="nwb", limbs=limbs, source=file.path.name).name
    names = [group.rpartition("/")[2] for group in groups]
    poses = PoseSequence.of(
        points,
        score,
        skeleton=layout,
        track_id=track_id_array(names, score),
        image_size=image_size,
        time=check_times(times[0], str(file.path)),
        where=f"'{recording}' in {file.path}",
    )
    return PoseItem(recording, poses, extra={"individuals": names})


def _skeleton(file: H5, group: str) -> tuple[list[str], list[tuple[int, int]]]:
    """Joints and limbs of a PoseEstimation: those of its skeleton as far as they have series."""
    series = sorted(_of_type(file, group, "PoseEstimationSeries"), key=natural_key)
    if not series:
        raise InputError(f"'{group}' in {file.path} has no PoseEstimationSeries.")
    body = file.target(f"{group}/skeleton") if "skeleton" in file.names(group) else group
    if f"{body}/nodes" not in file:
        return series, []
    nodes = file.texts(f"{body}/nodes")
    if len(set(nodes)) != len(nodes) or set(series) - set(nodes):
        return series, []
    joints = [node for node in nodes if node in series]
    edges = file.read(f"{body}/edges") if f"{body}/edges" in file else np.zeros((0, 2), np.int64)
    if edges.ndim != 2 or edges.shape[1] != 2 or edges.dtype.kind not in "iu" or (edges >= len(nodes)).any():
        return joints, []
    pairs = [(nodes[a], nodes[b]) for a, b in edges.astype(np.int64).tolist()]
    return joints, [(joints.index(a), joints.index(b)) for a, b in pairs if a in joints and b in joints]


def _individual(
    file: H5, group: str, joints: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Points (T, K, C), scores (T, K) and times (T) of one PoseEstimation."""
    lost = [joint for joint in joints if joint not in file.names(group)]
    if lost:
        raise InputError(f"'{group}' in {file.path} has no series '{lost[0]}', unlike the first individual.")
    columns = [_series(file, f"{group}/{joint}") for joint in joints]
    shapes = {points.shape for points, _ in columns}
    if len(shapes) > 1:
        raise InputError(f"The series in '{group}' of {file.path} have different shapes: {sorted(shapes)}.")
    points = np.stack([points for points, _ in columns], 1)
    score = np.stack([score for _, score in columns], 1)
    return points, score, _times(file, f"{group}/{joints[0]}", len(points))


def _series(file: H5, path: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    points = numbers(file.read(f"{path}/data"), f"'{path}/data'", str(file.path))
    if points.ndim != 2 or points.shape[1] not in (2, 3):
        raise InputError(f"'{path}/data' in {file.path} has the shape {points.shape}; expected (frames, 2 or 3).")
    about = file.attributes(f"{path}/data")
    scale = numbers([about.get("conversion", 1.0), about.get("offset", 0.0)], "conversion and offset", str(file.path))
    points = points * scale[0] + scale[1]
    if f"{path}/confidence" not in file:
        return points, np.ones(len(points))
    score = numbers(file.read(f"{path}/confidence"), f"'{path}/confidence'", str(file.path))
    if score.shape != (len(points),):
        raise InputError(f"'{path}/confidence' in {file.path} has the shape {score.shape}; expected ({len(points)},).")
    return points, np.where(np.isnan(score), 0, score)


def _times(file: H5, path: str, num_frames: int) -> NDArray[np.float64]:
    """Times of a series in seconds: its timestamps, those that it links to, or a start and a rate."""
    for _ in range(8):  # series link to the times of others
        if "timestamps" not in file.names(path):
            break
        target = file.target(f"{path}/timestamps")
        if target == f"{path}/timestamps":
            time = numbers(file.read(target), f"'{target}'", str(file.path))
            if time.shape != (num_frames,):
                raise InputError(f"'{target}' in {file.path} has the shape {time.shape}; expected ({num_frames},).")
            return time
        path = target.rpartition("/")[0]
    if "starting_time" not in file.names(path):
        raise InputError(f"'{path}' in {file.path} has neither timestamps nor starting_time.")
    start = numbers(file.read(f"{path}/starting_time"), "starting_time", str(file.path)).reshape(-1)
    rate = numbers([file.attributes(f"{path}/starting_time").get("rate", 0.0)], "the rate", str(file.path)).reshape(-1)
    if start.size != 1 or rate.size != 1 or not rate[0] > 0:
        raise InputError(f"'{path}/starting_time' in {file.path} needs one start and a rate above 0.")
    times: np.ndarray = start[0] + np.arange(num_frames) / rate[0]
    return times


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
