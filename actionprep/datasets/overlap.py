"""Measure the overlap of windows and labeled segments: coverage, intersection over union, share of the segment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from actionprep.datasets.segments import Segment

_TOUCHING_US = 0.5


@dataclass(frozen=True, slots=True)
class Overlap:
    """Overlap of one window with the segments of one label.

    Attributes:
        label: Class name.
        coverage: Fraction of the window covered by the label's segments, in [0, 1]. Overlapping segments count once.
        iou: Intersection over union with the best single segment, in [0, 1].
        segment_share: Largest fraction of a single segment that lies in the window, in [0, 1].
    """

    label: str
    coverage: float
    iou: float
    segment_share: float


def overlaps(window_s: tuple[float, float], segments: Sequence[Segment]) -> list[Overlap]:
    """Compute the overlap of a window with every label that touches it.

    Args:
        window_s: Onset and offset in seconds on the recording's clock, half open: [onset, offset).
        segments: Annotated segments; segments of one label may overlap each other.

    Returns:
        One entry per label with a positive overlap, largest coverage first.

    Raises:
        ValueError: If the window or a segment is empty or reversed.
    """
    labels = sorted({segment.label for segment in segments})
    coverage, iou, share = overlap_arrays(
        np.array([window_s[0]]),
        np.array([window_s[1]]),
        np.array([segment.onset for segment in segments], np.float64),
        np.array([segment.offset for segment in segments], np.float64),
        np.array([labels.index(segment.label) for segment in segments], np.int64),
        num_labels=len(labels),
    )
    present = [
        Overlap(label, float(coverage[0, code]), float(iou[0, code]), float(share[0, code]))
        for code, label in enumerate(labels)
        if coverage[0, code] > 0
    ]
    return sorted(present, key=lambda overlap: (-overlap.coverage, overlap.label))


def overlap_arrays(
    onset: np.ndarray,
    offset: np.ndarray,
    segment_onset: np.ndarray,
    segment_offset: np.ndarray,
    segment_label: np.ndarray,
    *,
    num_labels: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute the overlap of many windows of one recording with every label.

    Less than half a microsecond in common is touching, not overlapping. Each segment visits only the windows that it
    meets, so long recordings with many short segments stay cheap.

    Args:
        onset: Starts of the windows in seconds, (S,) float64.
        offset: Ends of the windows, not included, (S,) float64.
        segment_onset: Starts of the segments, (G,) float64.
        segment_offset: Ends of the segments, not included, (G,) float64.
        segment_label: Label of each segment, (G,) integers below `num_labels`.
        num_labels: Number of labels, C.

    Returns:
        Coverage, IoU and segment share as in `Overlap`, three arrays (S, C) float64.

    Raises:
        ValueError: If a window or a segment is empty or reversed.
    """
    onset, offset = np.asarray(onset, np.float64), np.asarray(offset, np.float64)
    for what, first, last in (("window", onset, offset), ("segment", segment_onset, segment_offset)):
        wrong = np.flatnonzero(~(last > first))
        if len(wrong):
            raise ValueError(
                f"A {what} must end after it starts, not run from {first[wrong[0]]} to {last[wrong[0]]} s."
            )
    coverage, iou, share = (np.zeros((len(onset), num_labels)) for _ in range(3))
    if not len(onset) or not len(segment_onset):
        return coverage, iou, share

    onset, offset, segment_onset, segment_offset = map(_in_microseconds, (onset, offset, segment_onset, segment_offset))
    order = np.argsort(onset, kind="stable")
    starts, ends = onset[order], offset[order]
    # Where ends only grow, as those of windows of one length, the windows that a segment meets are one slice.
    latest = np.maximum.accumulate(ends)
    length = ends - starts

    def met(first: float, last: float) -> slice:
        return slice(int(np.searchsorted(latest, first, "right")), int(np.searchsorted(starts, last, "left")))

    def shared(windows: slice, first: float, last: float) -> np.ndarray:
        common = np.minimum(ends[windows], last) - np.maximum(starts[windows], first)
        return np.where(common > _TOUCHING_US, common, 0.0)

    for label in np.unique(segment_label):
        of_label = segment_label == label
        firsts, lasts = segment_onset[of_label], segment_offset[of_label]
        for first, last in zip(firsts.tolist(), lasts.tolist(), strict=True):
            windows = met(first, last)
            common = shared(windows, first, last)
            union = np.maximum(ends[windows], last) - np.minimum(starts[windows], first)
            rows = order[windows]
            iou[rows, label] = np.maximum(iou[rows, label], common / union)
            share[rows, label] = np.maximum(share[rows, label], common / (last - first))
        for begin, end in zip(*_union(firsts, lasts), strict=True):
            windows = met(begin, end)
            coverage[order[windows], label] += shared(windows, begin, end)
    coverage[order] /= length[:, None]
    return np.minimum(coverage, 1.0), np.minimum(iou, 1.0), np.minimum(share, 1.0)


def _in_microseconds(times_s: np.ndarray) -> np.ndarray:
    """Convert seconds to microseconds, float64. Times that only rounding keeps from a whole number become it.

    Differences of whole numbers are exact, so windows and segments of whole microseconds are compared exactly.
    """
    times = np.asarray(times_s, np.float64) * 1e6
    whole = np.rint(times)
    rounding = 1e-3 + 4 * np.finfo(np.float64).eps * np.abs(times)
    return np.where(np.abs(times - whole) <= rounding, whole, times)


def _union(onset: np.ndarray, offset: np.ndarray) -> tuple[list[float], list[float]]:
    """Merge intervals that overlap or touch, in order of time."""
    order = np.argsort(onset, kind="stable")
    onset, reach = onset[order], np.maximum.accumulate(offset[order])
    begins = np.concatenate([[True], onset[1:] > reach[:-1]])
    firsts = onset[begins]
    lasts = reach[np.append(np.flatnonzero(begins)[1:] - 1, len(reach) - 1)]
    return firsts.tolist(), lasts.tolist()
