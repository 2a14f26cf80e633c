"""Ground truth of point tracks: files of TAP-Vid, and tables of labeled points."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from actionprep.errors import InputError, UserError


@dataclass(frozen=True, slots=True)
class TrackTruth:
    """True positions of points in one video.

    Attributes:
        name: Name of the video.
        xy: Positions in pixels of the frames, shape (T, N, 2); (0, 0) is the center of the first pixel.
        visible: Visibility, bool of shape (T, N).
        labeled: Positions with a label, bool of shape (T, N).
        frames: RGB frames (T, H, W, 3) uint8, if the file contains them.
    """

    name: str
    xy: np.ndarray
    visible: np.ndarray
    labeled: np.ndarray
    frames: np.ndarray | None = None


def read_tapvid(path: str | Path) -> Iterator[TrackTruth]:
    """Read a file of TAP-Vid: a pickle of videos, or an npz of one video.

    A video has `points` (N, T, 2) as fractions of width and height, where (0, 0) is the corner of the first pixel,
    `occluded` (N, T) and `video` (T, H, W, 3) uint8. Videos whose frames are JPEG files are not read. Pickles are
    parsed without running anything in them.

    Raises:
        UserError: If there is no such file.
        InputError: If the file is damaged, or has other contents.

    References:
        Doersch et al., "TAP-Vid: A Benchmark for Tracking Any Point in a Video", NeurIPS 2022.
    """
    from actionprep.datasets.poses.formats.safe_npz import load_npz
    from actionprep.datasets.poses.formats.safe_pickle import load_pickle

    path = Path(path)
    if path.suffix == ".npz":
        yield _video(path.stem, load_npz(path), path)
        return
    content = load_pickle(path)
    if isinstance(content, list):
        content = {f"{path.stem}_{at:04d}": video for at, video in enumerate(content)}
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: expected TAP-Vid's dict or list of videos, got {type(content).__name__}.")
    if "points" in content:
        content = {path.stem: content}
    for name, video in content.items():
        yield _video(str(name), video, path)


def read_point_table(path: str | Path, *, num_frames: int, name: str = "") -> TrackTruth:
    """Read labeled points from a csv file with the columns frame, point (or joint), x, y and visible.

    Args:
        path: The table; x and y in pixels, frame from 0, visible 0 or 1. Frames without a row are not labeled.
        num_frames: Number of frames T of the video.
        name: Name of the video. Default: that of the file.

    Raises:
        UserError: If a column or the file is missing.
        InputError: If a value is wrong or a frame is outside of the video.
    """
    from actionprep.datasets.tables import read_csv

    path = Path(path)
    columns, rows = read_csv(path, usual=("frame", "point", "joint", "x", "y", "visible"))
    key = "point" if "point" in columns else "joint"
    missing = [column for column in ("frame", key, "x", "y", "visible") if column not in columns]
    if missing:
        raise UserError(
            f"{path} has no column '{missing[0]}'. Columns of a table of points: frame, point (or joint), x, y, visible."
        )
    points = {value: at for at, value in enumerate(dict.fromkeys(row[key] for _, row in rows))}
    shape = (num_frames, len(points))
    xy, visible, labeled = np.zeros((*shape, 2)), np.zeros(shape, bool), np.zeros(shape, bool)
    for line, row in rows:
        try:
            frame, x, y, shown = int(row["frame"]), float(row["x"]), float(row["y"]), int(row["visible"])
        except ValueError as error:
            raise InputError(f"Line {line} of {path}: {error}.") from None
        if not 0 <= frame < num_frames:
            raise InputError(f"Line {line} of {path} names frame {frame}, but the video has {num_frames} frames.")
        at = (frame, points[row[key]])
        xy[at], visible[at], labeled[at] = (x, y), bool(shown), True
    return TrackTruth(name or path.stem, xy, visible, labeled)


def _video(name: str, video: Any, path: Path) -> TrackTruth:
    missing = [key for key in ("points", "occluded", "video") if not isinstance(video, Mapping) or key not in video]
    if missing:
        raise InputError(f"{path}: video '{name}' has no array '{missing[0]}'. TAP-Vid: points, occluded, video.")
    points, occluded, frames = (video[key] for key in ("points", "occluded", "video"))
    if not isinstance(frames, np.ndarray) or frames.ndim != 4 or frames.dtype != np.uint8:
        raise InputError(
            f"{path}: frames of video '{name}' are not an array (T, H, W, 3) uint8. Decode JPEG frames first, as "
            "TAP-Vid's own reader does."
        )
    points, hidden = np.asarray(points, np.float64), np.asarray(occluded, bool)
    if points.shape != (*hidden.shape, 2) or hidden.shape[1] != len(frames):
        raise InputError(
            f"{path}: shapes of video '{name}' do not fit: points {points.shape}, occluded {hidden.shape}, frames "
            f"{frames.shape}. Expected (N, T, 2), (N, T), (T, H, W, 3)."
        )
    height, width = frames.shape[1:3]
    # TAP-Vid's (0, 0) is the corner of the first pixel, ours is its center.
    xy = (points * np.array([width, height]) - 0.5).transpose(1, 0, 2)
    return TrackTruth(name, xy, ~hidden.T, np.ones(hidden.T.shape, bool), frames)
