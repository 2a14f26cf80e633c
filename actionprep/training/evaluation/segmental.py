"""Metrics of labels over time: segmental F1 and edit score (NumPy only).

Lea et al., "Temporal Convolutional Networks for Action Segmentation and Detection", CVPR 2017, section 4.1. MS-TCN (Abu
Farha and Gall, CVPR 2019) and later work report both in percent; here they are shares in [0, 1].
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

OVERLAPS = (0.10, 0.25, 0.50)
"""Minimum intersection over union for a match. Each threshold names one segmental F1 (F1@10, F1@25, F1@50)."""


class FrameSegment(NamedTuple):
    """Consecutive frames of one label: `first` to `last - 1`."""

    label: int
    first: int
    last: int


def frame_segments(
    codes: np.ndarray, frame_index: np.ndarray | None = None, *, leave_out: int | None = None
) -> list[FrameSegment]:
    """Split the labels of frames into runs of equal labels.

    Args:
        codes: Label code of each frame, shape (T,). Negative codes belong to no segment.
        frame_index: Position of each frame in its recording, shape (T,), increasing. A segment ends where a frame is
            missing. None: the frames are consecutive.
        leave_out: Label code without segments, such as that of the background.

    Returns:
        Segments in temporal order.
    """
    codes = np.asarray(codes)
    if not len(codes):
        return []
    frame_index = np.arange(len(codes)) if frame_index is None else np.asarray(frame_index)
    starts = np.flatnonzero((np.diff(codes) != 0) | (np.diff(frame_index) != 1)) + 1
    edges = [0, *starts.tolist(), len(codes)]
    segments = [
        FrameSegment(int(codes[first]), int(frame_index[first]), int(frame_index[last - 1]) + 1)
        for first, last in itertools.pairwise(edges)
    ]
    return [segment for segment in segments if segment.label >= 0 and segment.label != leave_out]


def matches(actual: Sequence[FrameSegment], predicted: Sequence[FrameSegment], overlap: float) -> tuple[int, int, int]:
    """Count matched, spurious and missed segments.

    A predicted segment is compared with the true segment of its label that has the largest intersection over union. It
    matches if that is at least `overlap` and no earlier prediction matches the same segment. A true segment that is
    predicted in several pieces is therefore matched once.

    Args:
        actual: True segments.
        predicted: Predicted segments in temporal order.
        overlap: Minimum intersection over union.

    Returns:
        Number of matched (true positive), spurious (false positive) and missed (false negative) segments.
    """
    matched: set[int] = set()
    for prediction in predicted:
        best, largest = -1, 0.0
        for index, truth in enumerate(actual):
            common = min(prediction.last, truth.last) - max(prediction.first, truth.first)
            if truth.label == prediction.label and common > 0:
                iou = common / (max(prediction.last, truth.last) - min(prediction.first, truth.first))
                if iou > largest:
                    best, largest = index, iou
        if best >= 0 and largest >= overlap:
            matched.add(best)
    return len(matched), len(predicted) - len(matched), len(actual) - len(matched)


def f1_of(matched: int, spurious: int, missed: int) -> float:
    """Compute F1 = 2 · matched / (2 · matched + spurious + missed); NaN without any segment."""
    total = 2 * matched + spurious + missed
    return 2 * matched / total if total else float("nan")


def edit_score(actual: Sequence[FrameSegment], predicted: Sequence[FrameSegment]) -> float:
    """Compute how well the order of segments agrees, independent of their length.

    Args:
        actual: True segments.
        predicted: Predicted segments.

    Returns:
        1 - Levenshtein distance of the two label sequences / length of the longer one; 1 if both are empty.
    """
    rows, columns = [segment.label for segment in actual], [segment.label for segment in predicted]
    longest = max(len(rows), len(columns))
    if not longest:
        return 1.0
    distance = list(range(len(columns) + 1))
    for row, label in enumerate(rows, start=1):
        diagonal, distance[0] = distance[0], row
        for column, other in enumerate(columns, start=1):
            substitution = diagonal + (label != other)
            diagonal = distance[column]
            distance[column] = min(distance[column] + 1, distance[column - 1] + 1, substitution)
    return 1.0 - distance[-1] / longest
