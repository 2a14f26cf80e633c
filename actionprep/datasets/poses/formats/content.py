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
    """Hand an InputError of one recording to `damaged`; without it, the problem is raised.

    An error of the system while its file is read is such a problem.
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
    """An array of numbers, None as NaN; InputError for text, objects and rows that differ in length."""
    try:
        array = np.asarray(values)
        if array.dtype.kind not in "biufO":
            raise TypeError
        # Numbers that JSON writes with too many digits become infinite, and are refused as that.
        return array.astype(np.float64)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{what} in {where} must be numbers in rows of one length.") from None


def whole_numbers(values: Any, what: str, where: str) -> NDArray[np.int64]:
    """An array of whole numbers; InputError for all else."""
    array = numbers(values, what, where)
    if not (np.isfinite(array) & (np.abs(array) < 2**62)).all() or (array != np.floor(array)).any():
        raise InputError(f"{what} in {where} must be whole numbers.")
    return array.astype(np.int64)


def whole(value: Any, what: str, where: str) -> int:
    """One whole number; InputError for all else."""
    array = whole_numbers(value, what, where)
    if array.ndim:
        raise InputError(f"{what} in {where} must be one number, got {array.size}.")
    return int(array)


def size_of(value: Any, where: str) -> tuple[int, int]:
    """An image size (height, width) in px; InputError for all else."""
    sides = numbers(value, "The image size", where)
    if sides.shape != (2,) or not np.isfinite(sides).all() or (sides < 1).any() or (sides > 2**31).any():
        raise InputError(f"The image size in {where} must be (height, width) in pixels, got {np.asarray(value)}.")
    return int(sides[0]), int(sides[1])


def check_offsets(offsets: Any, num_frames: int, num_items: int, what: str, where: str) -> NDArray[np.int64]:
    """Where each item begins, and at last the end; InputError where they do not cut the frames into the items."""
    cuts = whole_numbers(offsets, what, where)
    if cuts.shape != (num_items + 1,) or cuts[0] != 0 or cuts[-1] != num_frames or (np.diff(cuts) < 0).any():
        raise InputError(f"{what} in {where} do not cut {num_frames} frames into {num_items} clips.")
    return cuts


def check_span(frames: NDArray[np.int64], where: str) -> None:
    """Frame numbers that can be those of one recording; InputError for such as would fill the memory with gaps."""
    if len(frames) and frames.max() - frames.min() > 1000 + 100 * len(frames):
        raise InputError(
            f"{where} has {len(frames)} rows, of frames {frames.min()} to {frames.max()}. Numbers that far apart are not "
            "those of frames."
        )


def check_times(time: NDArray[np.float64], where: str) -> NDArray[np.float64]:
    """Times that rise from frame to frame; InputError for all else."""
    if not np.isfinite(time).all() or (np.diff(time) <= 0).any():
        raise InputError(f"The times in {where} must be finite and rise from frame to frame.")
    return time
