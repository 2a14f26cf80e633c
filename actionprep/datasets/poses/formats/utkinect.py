"""UTKinect-style text: joints_<recording>.txt with one row a frame, and actionLabel.txt with the segments."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from actionprep.datasets.poses.formats.content import Damaged, going_on
from actionprep.datasets.poses.sequence import PoseItem, PoseSequence
from actionprep.errors import InputError, UserError

_HEADER = re.compile(r"^\s*(s\d+_e\d+)\s*$")
_SEGMENT = re.compile(r"^\s*([A-Za-z][\w ]*?)\s*:\s*(\S+)\s+(\S+)\s*$")


def read_utkinect(path: str | Path, *, segments: bool = True, damaged: Damaged | None = None) -> Iterator[PoseItem]:
    """Read every recording of a folder of joints_<recording>.txt, in meters, 20 joints in the order of kinect20.

    A row is a frame number and 60 coordinates (Xia, Chen and Aggarwal, CVPR workshops 2012). Frame numbers may leave
    gaps. Where a number repeats, as in all 20 published recordings, its first row counts; the others are counted in
    `extra["num_repeated_frames"]`. The subject is the s.. part of the name.

    Args:
        path: The folder, or one file.
        segments: With actionLabel.txt in the folder or above it, make an item <recording>/<number>-<label> of each
            labeled segment, frames inclusive. Segments that the file marks NaN are left out and listed in
            `extra["unlabeled"]` of the recording's other items. Otherwise a recording is an item.
        damaged: Called for each file that cannot be read, instead of raising its error.

    Yields:
        One item per segment or recording.

    Raises:
        UserError: If there is no such file.
        InputError: If a file is damaged.
    """
    root = Path(path)
    files = [root] if root.is_file() else sorted(root.rglob("joints_*.txt"))
    if not files:
        raise UserError(f"No joints_<recording>.txt in {root}.")
    folder = root.parent if root.is_file() else root
    labels_file = next(
        (place / "actionLabel.txt" for place in (folder, folder.parent) if (place / "actionLabel.txt").is_file()), None
    )
    labels = _labels(labels_file) if labels_file is not None and segments else {}
    for file in files:
        recording = file.stem.removeprefix("joints_")
        with going_on(recording, damaged):
            yield from _items(file, recording, labels.get(recording), labels_file)


def _items(
    file: Path, recording: str, labels: list[tuple[str, tuple[int, int] | None]] | None, labels_file: Path | None
) -> Iterator[PoseItem]:
    index, points, repeated = _rows(file)
    seen = (points != 0).any(-1)
    subject = match[1] if (match := re.match(r"(s\d+)", recording)) else None
    poses = PoseSequence.of(
        points,
        seen.astype(np.float32),
        skeleton="kinect20",
        track_id=np.where(seen.any(-1), 0, -1)[:, None],
        frame_index=index,
        where=str(file),
    )
    if labels is None:
        yield PoseItem(recording, poses, subject=subject, extra={"num_repeated_frames": len(repeated)})
        return
    unlabeled = [label for label, span in labels if span is None]
    for number, (label, span) in enumerate(labels):
        if span is None:
            continue
        inside = np.flatnonzero((index >= span[0]) & (index <= span[1]))
        if not len(inside):
            raise InputError(
                f"{labels_file} labels frames {span[0]} to {span[1]} of '{recording}' as {label}, and {file} has "
                "none of them."
            )
        extra = {
            "frames": span,
            "unlabeled": unlabeled,
            "num_repeated_frames": sum(span[0] <= frame <= span[1] for frame in repeated),
        }
        yield PoseItem(
            f"{recording}/{number:02d}-{label}", poses.take(inside), label=label, subject=subject, extra=extra
        )


def _rows(file: Path) -> tuple[NDArray[np.int64], NDArray[np.float64], list[int]]:
    """Frame numbers in rising order, points (T, 20, 3) of the first row of each, and the number of every other row."""
    rows: dict[int, NDArray[np.float64]] = {}
    repeated: list[int] = []
    for number, line in enumerate(file.read_text(encoding="ascii", errors="replace").splitlines(), 1):
        fields = line.split()
        if not fields:
            continue
        if len(fields) != 61:
            raise InputError(
                f"Line {number} of {file} has {len(fields)} values; expected a frame number and 60 coordinates."
            )
        try:
            frame, values = int(float(fields[0])), np.array(fields[1:], np.float64)
        except (ValueError, OverflowError) as error:
            raise InputError(f"Line {number} of {file} must hold numbers: {error}.") from None
        if frame not in rows:
            rows[frame] = values
        else:
            repeated.append(frame)
    if not rows:
        raise InputError(f"{file} has no frames.")
    index = np.array(sorted(rows), np.int64)
    return index, np.stack([rows[int(frame)] for frame in index]).reshape(-1, 20, 3), repeated


def _labels(file: Path) -> dict[str, list[tuple[str, tuple[int, int] | None]]]:
    labels: dict[str, list[tuple[str, tuple[int, int] | None]]] = {}
    current: list[tuple[str, tuple[int, int] | None]] | None = None
    for number, line in enumerate(file.read_text(encoding="ascii", errors="replace").splitlines(), 1):
        if header := _HEADER.match(line):
            current = labels.setdefault(header[1], [])
        elif segment := _SEGMENT.match(line):
            if current is None:
                raise InputError(f"Line {number} of {file} is a segment before any recording's name.")
            label, first, last = segment.groups()
            if "nan" in (first.lower(), last.lower()):
                current.append((label, None))
                continue
            if not (first.isdecimal() and last.isdecimal()) or int(first) > int(last):
                raise InputError(f"Line {number} of {file} must be 'label: first last', got '{line.strip()}'.")
            current.append((label, (int(first), int(last))))
        elif line.strip():
            raise InputError(
                f"Line {number} of {file} is neither a recording's name nor 'label: first last': '{line.strip()}'."
            )
    return labels
