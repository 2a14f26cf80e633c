"""Read tables of points to track: one row per point, for all views or for named ones."""

from __future__ import annotations

import hashlib
import math
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from actionprep.datasets.annotations import parse_time
from actionprep.datasets.frame_times import frame_interval
from actionprep.datasets.tables import read_csv, require_columns
from actionprep.errors import InputError, UserError

_COLUMNS = ("recording", "view", "x", "y", "frame", "time")

EACH_WINDOW = -1
"""Frame of a point that starts in the seed frame of every window."""


@dataclass(frozen=True)
class QueryPoints:
    """Points to track in one view.

    Attributes:
        xy: Positions in pixels of the video, (0, 0) at the center of the first pixel, shape (P, 2), float32.
        frame: Frame in which each point starts, shape (P,), int64; `EACH_WINDOW` for the seed frame of every window.
    """

    xy: np.ndarray
    frame: np.ndarray

    def __len__(self) -> int:
        return len(self.frame)

    def facts(self) -> dict[str, object]:
        """Return what identifies the points, as plain values."""
        content = np.column_stack([self.xy.astype("<f8"), self.frame.astype("<f8")]).tobytes()
        return {"points": len(self), "digest": hashlib.sha256(content).hexdigest()}


@dataclass(frozen=True)
class _Row:
    """A row of a table; `recording` and `view` are empty where it is for all of them."""

    line: int
    recording: str
    view: str
    x: float
    y: float
    frame: str
    time: str


def read_query_points(
    path: Path, *, recording: str, view: str, times: np.ndarray, width: int, height: int
) -> QueryPoints:
    """Read the points of one view.

    The table has the columns x and y, and optionally recording, view, frame (from 0) or time (seconds on the recording's
    clock). A row without a recording or view is for all of them. A row without frame and time is a point that starts in
    the seed frame of every window.

    Args:
        path: The table.
        recording: Id of the recording.
        view: Id of the view.
        times: Frame times in seconds on the recording's clock, shape (T,).
        width: Width of the view in pixels.
        height: Height of the view in pixels.

    Returns:
        The points in the order of the table; none if it has no row for the view.

    Raises:
        UserError: If the table cannot be read, or a value is not a number.
        InputError: If a point is outside of the image or of the video.
    """
    try:
        state = path.stat()
    except OSError as error:
        raise UserError(
            f"Cannot read the points {path}: {error.strerror or error}. It is named by tracks.points."
        ) from None
    rows = [
        row
        for row in _rows(path, state.st_mtime_ns, state.st_size)
        if row.recording in ("", unicodedata.normalize("NFC", recording)) and row.view in ("", view)
    ]
    for row in rows:
        if not (-0.5 <= row.x < width - 0.5 and -0.5 <= row.y < height - 0.5):
            raise InputError(
                f"Line {row.line} of {path}: the point ({row.x:g}, {row.y:g}) is outside of the image of {width}x{height} "
                f"pixels of recording '{recording}', view {view}. x is from -0.5 to {width - 0.5:g}, y from -0.5 to "
                f"{height - 0.5:g}."
            )
    frames = [_frame_of(row, path, times) for row in rows]
    return QueryPoints(
        np.array([[row.x, row.y] for row in rows], np.float32).reshape(-1, 2), np.array(frames, np.int64).reshape(-1)
    )


@lru_cache(maxsize=4)
def _rows(path: Path, modified_ns: int, size: int) -> tuple[_Row, ...]:
    columns, table = read_csv(path, usual=_COLUMNS)
    require_columns(path, columns, {"x": "that column name", "y": "that column name"})
    rows = []
    for line, cells in table:
        if cells.get("frame") and cells.get("time"):
            raise UserError(f"Line {line} of {path} has a frame and a time. Give one of them.")
        rows.append(
            _Row(
                line,
                unicodedata.normalize("NFC", cells.get("recording", "")),
                cells.get("view", ""),
                _number(cells["x"], "x", line, path),
                _number(cells["y"], "y", line, path),
                cells.get("frame", ""),
                cells.get("time", ""),
            )
        )
    if not rows:
        raise UserError(f"The table of points {path} has no row.")
    return tuple(rows)


def _number(text: str, name: str, line: int, path: Path) -> float:
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"Line {line} of {path}: {name} is '{text}'; expected a number of pixels.")
    return value


def _frame_of(row: _Row, path: Path, times: np.ndarray) -> int:
    if row.frame:
        if not row.frame.isdecimal() or int(row.frame) >= len(times):
            raise InputError(
                f"Line {row.line} of {path}: the frame is '{row.frame}'; expected a number from 0 to {len(times) - 1}."
            )
        return int(row.frame)
    if not row.time:
        return EACH_WINDOW
    try:
        seconds = parse_time(row.time)
    except ValueError as error:
        raise UserError(f"Line {row.line} of {path}: {error}.") from None
    nearest = int(np.abs(times - seconds).argmin())
    if abs(times[nearest] - seconds) > frame_interval(times, default=0.0) / 2 + 1e-6:
        raise InputError(
            f"Line {row.line} of {path}: no frame is at {seconds:g} s; the video is from {times[0]:g} to {times[-1]:g} s."
        )
    return nearest
