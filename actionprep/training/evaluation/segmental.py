"""Figures of labels over time: segments that were found, by their overlap, and their order (numpy only).

Segmental F1 and edit score: Lea et al., "Temporal Convolutional Networks for Action Segmentation and Detection", CVPR 2017,
section 4.1; as MS-TCN (Abu Farha and Gall, CVPR 2019) and those after it report them, but as shares instead of per cents.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

OVERLAPS = (0.10, 0.25, 0.50)
"""Least intersection over union at which a segment counts as found, by which the F1 are named."""


class Stretch(NamedTuple):
    """Frames first … last - 1 of one label."""

    label: int
    first: int
    last: int


def stretches(codes: np.ndarray, place: np.ndarray | None = None, *, leave_out: int | None = None) -> list[Stretch]:
    """Runs of equal codes (T), in order; those of the label `leave_out`, and below 0, are left out.

    place (T): where the frames stand in their recording, rising; a run ends where one is missing. None: side by side.
    """
    codes = np.asarray(codes)
    if not len(codes):
        return []
    place = np.arange(len(codes)) if place is None else np.asarray(place)
    begins = np.flatnonzero((np.diff(codes) != 0) | (np.diff(place) != 1)) + 1
    edges = [0, *begins.tolist(), len(codes)]
    found = [
        Stretch(int(codes[first]), int(place[first]), int(place[last - 1]) + 1)
        for first, last in itertools.pairwise(edges)
    ]
    return [one for one in found if one.label >= 0 and one.label != leave_out]


def matches(actual: Sequence[Stretch], predicted: Sequence[Stretch], overlap: float) -> tuple[int, int, int]:
    """Segments that are found, said wrongly, and missed.

    A predicted segment is right when the true one of its label with which it has the largest intersection over union
    reaches `overlap` with it, and no earlier one has found that already: a segment that is cut up is found once.
    """
    taken: set[int] = set()
    for one in predicted:
        best, largest = -1, 0.0
        for number, other in enumerate(actual):
            common = min(one.last, other.last) - max(one.first, other.first)
            if other.label == one.label and common > 0:
                iou = common / (max(one.last, other.last) - min(one.first, other.first))
                if iou > largest:
                    best, largest = number, iou
        if best >= 0 and largest >= overlap and best not in taken:
            taken.add(best)
    return len(taken), len(predicted) - len(taken), len(actual) - len(taken)


def f1_of(found: int, wrong: int, missed: int) -> float:
    """2 · found / (2 · found + wrong + missed); nan without any segment."""
    total = 2 * found + wrong + missed
    return 2 * found / total if total else float("nan")


def edit_score(actual: Sequence[Stretch], predicted: Sequence[Stretch]) -> float:
    """1 - Levenshtein distance of the labels in their order / the longer count; 1 where neither has a segment."""
    mine, theirs = [one.label for one in actual], [one.label for one in predicted]
    longest = max(len(mine), len(theirs))
    if not longest:
        return 1.0
    row = list(range(len(theirs) + 1))
    for at, label in enumerate(mine, start=1):
        before, row[0] = row[0], at
        for column, other in enumerate(theirs, start=1):
            before, row[column] = row[column], min(row[column] + 1, row[column - 1] + 1, before + (label != other))
    return 1.0 - row[-1] / longest
