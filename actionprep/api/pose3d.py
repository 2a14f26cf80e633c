"""Triangulate the poses of calibrated views, and check their clocks and names by epipolar geometry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from actionprep.datasets.alignment import frames_near
from actionprep.datasets.atomic_files import atomic_file
from actionprep.datasets.cameras import Camera, cameras_of_views, read_calibration
from actionprep.datasets.frame_times import frame_interval
from actionprep.datasets.poses.sequence import PoseSequence
from actionprep.datasets.triangulation import epipolar_distances, triangulate
from actionprep.errors import UserError

if TYPE_CHECKING:
    from actionprep.api.study import Study

MAX_SHIFT = 0.5
"""Largest shift of a clock that is tried, in s."""
_BETTER = 0.6
"""Another shift or camera is reported if its epipolar distance is at most this share."""


@dataclass(frozen=True, slots=True)
class Pose3D:
    """Joints of one person in space.

    Attributes:
        recording: Id of the recording.
        time: (T,) seconds on the recording's clock; the frames of the first view.
        xyz: Joints in `unit`, shape (T, K, 3); NaN where fewer than two views agree.
        error: Mean reprojection error in pixels, shape (T, K); NaN likewise.
        num_views: Number of views that each joint is computed from, shape (T, K).
        skeleton: Layout of the K joints.
        unit: Unit of the calibration, such as "m"; empty if unknown.
        views: The views.
        view_error: Median reprojection error of each view in pixels, over joints that it contributes to.
        epipolar: Median distance from epipolar lines in pixels, for each pair of views.
        warnings: Views with a clock or a camera that does not fit the others.
    """

    recording: str
    time: np.ndarray
    xyz: np.ndarray
    error: np.ndarray
    num_views: np.ndarray
    skeleton: str
    unit: str
    views: tuple[str, ...]
    view_error: Mapping[str, float]
    epipolar: Mapping[tuple[str, str], float]
    warnings: tuple[str, ...]


def pose3d(
    study: Study,
    recording: str,
    calibration: str | Path,
    *,
    views: Sequence[str | int] = (),
    min_score: float = 0.3,
    max_error: float = 20.0,
) -> Pose3D:
    """Triangulate the stored poses of the first person of each view.

    Views are compared at the frame times of the first one; the others use their nearest frame. Epipolar distances check
    clocks and names: a view that fits its neighbors much better when it is shifted in time, or with the camera of another
    view, is reported.

    Args:
        study: The study, with the product pose.
        recording: Id of the recording.
        calibration: Calibration file with positions of the cameras.
        views: Views; all with poses and a camera if empty.
        min_score: Joints with a lower score are left out.
        max_error: While the mean reprojection error of a joint in pixels exceeds this, its worst view is left out.

    Returns:
        The joints in space.

    Raises:
        UserError: If fewer than two views have 2D poses and a camera, or layouts differ.
    """
    from actionprep.datasets.store.keys import ItemKey

    catalog = study.catalog
    recording = catalog.recording(recording).id
    wanted = {catalog.view(recording, name).id for name in views}
    known = {
        view.id: view
        for view in catalog.views_of(recording)
        if (not wanted or view.id in wanted) and study.store.metadata(ItemKey("pose", recording, view.id)) is not None
    }
    sizes = {name: (view.width, view.height) for name, view in known.items()}
    cameras, findings = cameras_of_views(read_calibration(calibration), sizes, where=str(calibration))
    if len(cameras) < 2:
        reasons = "".join(f"\n  {finding.message}" for finding in findings)
        raise UserError(
            f"Recording '{recording}' has {len(cameras)} views with poses and a camera in {calibration}; 'pose3d' needs "
            f"two. Run 'actionprep pose', or name another calibration.{reasons}"
        )
    poses = {camera.view: study.poses(recording, view=camera.view) for camera in cameras}
    layouts = {view_poses.skeleton for view_poses in poses.values()}
    if len(layouts) > 1 or any(view_poses.dimensions != 2 for view_poses in poses.values()):
        raise UserError(
            f"The poses of recording '{recording}' must be 2D and of one layout; found {', '.join(sorted(layouts))}."
        )
    times = {name: known[name].times[view_poses.frame_index] for name, view_poses in poses.items()}
    time = times[cameras[0].view]
    xy, score = _sampled(poses, times, time, min_score)
    flat = (len(cameras), -1)
    triangulated = triangulate(cameras, xy.reshape(*flat, 2), score.reshape(flat), max_error=max_error)
    shape = score.shape[1:]
    view_error = {}
    for camera, pixels, used in zip(cameras, xy.reshape(*flat, 2), triangulated.used, strict=True):
        distance = np.linalg.norm(camera.project(triangulated.xyz[used]) - pixels[used], axis=-1)
        view_error[camera.view] = float(np.median(distance)) if used.any() else float("nan")
    return Pose3D(
        recording=recording,
        time=time,
        xyz=triangulated.xyz.reshape(*shape, 3),
        error=triangulated.error.reshape(shape),
        num_views=triangulated.used.sum(axis=0).reshape(shape),
        skeleton=layouts.pop(),
        unit=cameras[0].unit,
        views=tuple(camera.view for camera in cameras),
        view_error=view_error,
        epipolar={
            (a.view, b.view): _median(a, b, xy[i], score[i], xy[j], score[j])
            for (i, a), (j, b) in combinations(enumerate(cameras), 2)
        },
        warnings=(*_wrong_clocks(cameras, poses, times, min_score), *_wrong_cameras(cameras, xy, score)),
    )


def save_pose3d(result: Pose3D, path: str | Path) -> Path:
    """Write joints in space as an npz file with time, xyz, error, num_views, skeleton and unit."""
    path = Path(path)
    with atomic_file(path) as draft, open(draft, "wb") as file:
        np.savez_compressed(
            file, time=result.time, xyz=result.xyz.astype(np.float32), error=result.error.astype(np.float32),
            num_views=result.num_views, skeleton=result.skeleton, unit=result.unit,
        )  # fmt: skip
    return path


def _sampled(
    poses: Mapping[str, PoseSequence], times: Mapping[str, np.ndarray], time: np.ndarray, min_score: float
) -> tuple[np.ndarray, np.ndarray]:
    """Joints (V, T, K, 2) and weights (V, T, K) of the first person, at common times; weight 0 without a frame."""
    xy, score = [], []
    for name, view_poses in poses.items():
        index, error = frames_near(times[name], time)
        near = error <= 0.75 * frame_interval(times[name]) + 1e-6
        weight = view_poses.score[index, 0].astype(np.float64)
        xy.append(view_poses.keypoints[index, 0, :, :2].astype(np.float64))
        score.append(np.where(near[:, None] & (weight >= min_score), weight, 0.0))
    return np.array(xy), np.array(score)


def _median(
    a: Camera, b: Camera, xy_a: np.ndarray, score_a: np.ndarray, xy_b: np.ndarray, score_b: np.ndarray
) -> float:  # fmt: skip
    both = (score_a > 0) & (score_b > 0)
    return float(np.nanmedian(epipolar_distances(a, b, xy_a[both], xy_b[both]))) if both.any() else float("nan")


def _mean_distance(view: int, camera: Camera, cameras: Sequence[Camera], xy: np.ndarray, score: np.ndarray) -> float:
    """Mean over the other views of the median epipolar distance, if a view had this camera."""
    values = [
        _median(camera, other, xy[view], score[view], xy[k], score[k])
        for k, other in enumerate(cameras)
        if k != view and other.view != camera.view
    ]
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else float("nan")


def _wrong_clocks(
    cameras: Sequence[Camera], poses: Mapping[str, PoseSequence], times: Mapping[str, np.ndarray], min_score: float
) -> list[str]:
    warnings = []
    for view, camera in enumerate(cameras):
        time = times[camera.view]
        interval = frame_interval(time)
        steps = np.arange(-int(MAX_SHIFT / interval), int(MAX_SHIFT / interval) + 1) if interval > 0 else np.zeros(1)
        distances = {}
        for shift in steps * interval:
            moved = {**times, camera.view: time + shift}
            xy, score = _sampled(poses, moved, time, min_score)
            distances[float(shift)] = _mean_distance(view, camera, cameras, xy, score)
        finite = {shift: value for shift, value in distances.items() if np.isfinite(value)}
        if not finite or 0.0 not in finite:
            continue
        best = min(finite, key=lambda shift: (finite[shift], abs(shift)))
        if finite[best] < _BETTER * finite[0.0]:
            warnings.append(
                f"view '{camera.view}' fits the others better if its times are changed by {best:+.3f} s: epipolar distance "
                f"{finite[best]:.1f} px instead of {finite[0.0]:.1f} px. Check its clock with 'actionprep sync'"
            )
    return warnings


def _wrong_cameras(cameras: Sequence[Camera], xy: np.ndarray, score: np.ndarray) -> list[str]:
    """Pairs of views that fit much better with their cameras exchanged."""

    def total(order: Sequence[Camera]) -> float:
        values = [
            _median(order[i], order[j], xy[i], score[i], xy[j], score[j])
            for i, j in combinations(range(len(order)), 2)
        ]  # fmt: skip
        return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")

    own = total(cameras)
    best: tuple[float, str] | None = None
    for i, j in combinations(range(len(cameras)), 2):
        order = list(cameras)
        order[i], order[j] = order[j], order[i]
        value = total(order)
        if value < _BETTER * own and (best is None or value < best[0]):
            best = (
                value,
                (
                    f"views '{cameras[i].view}' and '{cameras[j].view}' fit better with each other's camera: epipolar "
                    f"distance {value:.1f} px instead of {own:.1f} px. Check the names of the views"
                ),
            )
    return [] if best is None else [best[1]]
