"""Check numbers, sizes and frames of untrusted files, and continue after a damaged recording."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actionprep.errors import InputError, read_error

# How a user names the layout of the joints of a file.
NAME_LAYOUT = "with --skeleton of 'actionprep import' (skeleton=… in Python, pose.file_skeleton for poses of videos)"

# Called with the name and the error of each recording that cannot be read; the others are still read.
Damaged = Callable[[str, InputError], None]


@contextmanager
def going_on(recording: str, damaged: Damaged | None) -> Iterator[None]:
    """Pass an InputError of one recording to `damaged`, or raise it if `damaged` is None.

    System errors while the file is read are converted to InputErrors.
    """
    try:
        try:
            yield
        except OSError as error:
            if error.errno is None:
                raise
            raise read_error(error.filename or recording, error) from error
    except InputError as problem:
        if damaged is None:
            raise
        damaged(recording, problem)


def numbers(values: Any, what: str, where: str) -> NDArray[np.float64]:
    """Convert values to an array of numbers, with NaN for None; raises InputError for text, objects and ragged rows."""
    try:
        array = np.asarray(values)
        if array.dtype.kind not in "biufO":
            raise TypeError
        # Numbers of JSON that are too large become infinite, which is an error later.
        return array.astype(np.float64)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{what} in {where} must be numbers in rows of one length.") from None


def whole_numbers(values: Any, what: str, where: str) -> NDArray[np.int64]:
    """Convert values to an array of integers; raises InputError for other values."""
    array = numbers(values, what, where)
    if not (np.isfinite(array) & (np.abs(array) < 2**62)).all() or (array != np.floor(array)).any():
        raise InputError(f"{what} in {where} must be whole numbers.")
    return array.astype(np.int64)


def whole(value: Any, what: str, where: str) -> int:
    """Convert a value to an integer; raises InputError for other values."""
    array = whole_numbers(value, what, where)
    if array.ndim:
        raise InputError(f"{what} in {where} must be one number, got {array.size}.")
    return int(array)


def size_of(value: Any, where: str) -> tuple[int, int]:
    """Convert a value to an image size (height, width) in pixels; raises InputError for other values."""
    sides = numbers(value, "The image size", where)
    if sides.shape != (2,) or not np.isfinite(sides).all() or (sides < 1).any() or (sides > 2**31).any():
        raise InputError(f"The image size in {where} must be (height, width) in pixels, got {np.asarray(value)}.")
    return int(sides[0]), int(sides[1])


def check_offsets(offsets: Any, num_frames: int, num_items: int, what: str, where: str) -> NDArray[np.int64]:
    """Check offsets of items, shape (N + 1,); raises InputError if they do not divide the frames into the items."""
    cuts = whole_numbers(offsets, what, where)
    if cuts.shape != (num_items + 1,) or cuts[0] != 0 or cuts[-1] != num_frames or (np.diff(cuts) < 0).any():
        raise InputError(f"{what} in {where} do not cut {num_frames} frames into {num_items} clips.")
    return cuts


def check_span(frames: NDArray[np.int64], where: str) -> None:
    """Check frame numbers of a recording; raises InputError for gaps so large that they would fill the memory."""
    if len(frames) and frames.max() - frames.min() > 1000 + 100 * len(frames):
        raise InputError(
            f"{where} has {len(frames)} rows, of frames {frames.min()} to {frames.max()}. Numbers that far apart are not "
            "those of frames."
        )


def check_times(time: NDArray[np.float64], where: str) -> NDArray[np.float64]:
    """Check that times are finite and increasing; raises InputError otherwise."""
    if not np.isfinite(time).all() or (np.diff(time) <= 0).any():
        raise InputError(f"The times in {where} must be finite and rise from frame to frame.")
    return time
