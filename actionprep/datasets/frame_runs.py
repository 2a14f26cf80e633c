"""Convert labels of frames to runs of frames with one label."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T", bound=Hashable)


def runs_of_labels(labels: Sequence[T]) -> list[tuple[int, int, T]]:
    """Return the runs of equal labels.

    Args:
        labels: One label per frame.

    Returns:
        First frame, end (not included) and label of each run, in order.
    """
    runs: list[tuple[int, int, T]] = []
    start = 0
    for index in range(1, len(labels) + 1):
        if index == len(labels) or labels[index] != labels[start]:
            runs.append((start, index, labels[start]))
            start = index
    return runs


def runs_of_columns(active: np.ndarray) -> list[tuple[int, int, int]]:
    """Return the runs of frames in which each column is set.

    Args:
        active: Whether each frame has each label, (T, C) bool.

    Returns:
        First frame, end (not included) and column of each run, by column and time.
    """
    edges = np.diff(np.pad(active.astype(np.int8), ((1, 1), (0, 0))), axis=0)
    runs = []
    for column in range(active.shape[1]):
        starts, ends = np.flatnonzero(edges[:, column] > 0), np.flatnonzero(edges[:, column] < 0)
        runs += [(int(start), int(end), column) for start, end in zip(starts, ends, strict=True)]
    return runs
