"""How windows of a recording and labeled segments meet: coverage, intersection over union, share of the segment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from actionprep.datasets.segments import Segment
from actionprep.datasets.windows import EPSILON_S


@dataclass(frozen=True, slots=True)
class Overlap:
    """How one window and one label meet.

    coverage:      share of the window that the label's segments cover, each instant counted once, in [0, 1].
    iou:           intersection over union with the best single segment, in [0, 1].
    segment_share: share of a single segment that lies in the window, of the segment where it is largest, in [0, 1].
    """

    label: str
    coverage: float
    iou: float
    segment_share: float


def overlaps(window_s: tuple[float, float], segments: Sequence[Segment]) -> list[Overlap]:
    """Overlap of one window with every label that touches it, largest coverage first.

    window_s: onset and offset in seconds on the recording's clock, half open: [onset, offset).
    Touching is not overlapping. Annotations of one label may overlap each other.

    Raises ValueError when the window or a segment is empty or runs backwards.
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
    found = [
        Overlap(label, float(coverage[0, code]), float(iou[0, code]), float(share[0, code]))
        for code, label in enumerate(labels)
        if coverage[0, code] > 0
    ]
    return sorted(found, key=lambda overlap: (-overlap.coverage, overlap.label))


def overlap_arrays(
    onset: np.ndarray,
    offset: np.ndarray,
    segment_onset: np.ndarray,
    segment_offset: np.ndarray,
    segment_label: np.ndarray,
    *,
    num_labels: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coverage, iou and segment share of many windows of one recording with every label.

    onset, offset                  (S,) float64 s: windows, half open.
    segment_onset, segment_offset  (G,) float64 s: segments, half open; segment_label (G,) codes below num_labels.
    Returns three arrays (S, num_labels) float64 as `Overlap` explains them.

    Less than a nanosecond in common is touching, not overlapping: times in seconds are rounded.
    Each segment visits only the windows that it meets, so long recordings with many short segments stay cheap.

    Raises ValueError when a window or a segment is empty or runs backwards.
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

    order = np.argsort(onset, kind="stable")
    starts, ends = onset[order], offset[order]
    # With ends that only grow, as of windows of one length, the windows that a segment meets are one slice.
    latest = np.maximum.accumulate(ends)
    length = ends - starts

    def met(first: float, last: float) -> slice:
        return slice(int(np.searchsorted(latest, first, "right")), int(np.searchsorted(starts, last, "left")))

    def shared(at: slice, first: float, last: float) -> np.ndarray:
        both = np.minimum(ends[at], last) - np.maximum(starts[at], first)
        return np.where(both > EPSILON_S, both, 0.0)

    for label in np.unique(segment_label):
        of_label = segment_label == label
        firsts, lasts = segment_onset[of_label], segment_offset[of_label]
        for first, last in zip(firsts.tolist(), lasts.tolist(), strict=True):
            at = met(first, last)
            both = shared(at, first, last)
            union = np.maximum(ends[at], last) - np.minimum(starts[at], first)
            rows = order[at]
            ratio = np.where(both > 0, both / union, 0.0)
            iou[rows, label] = np.maximum(iou[rows, label], ratio)
            share[rows, label] = np.maximum(share[rows, label], both / (last - first))
        for begin, end in zip(*_union(firsts, lasts), strict=True):
            at = met(begin, end)
            both = shared(at, begin, end)
            coverage[order[at], label] += both / length[at]
    return np.minimum(coverage, 1.0), np.minimum(iou, 1.0), np.minimum(share, 1.0)


def _union(onset: np.ndarray, offset: np.ndarray) -> tuple[list[float], list[float]]:
    """Disjoint intervals that cover the same instants, in order of time."""
    order = np.argsort(onset, kind="stable")
    onset, reach = onset[order], np.maximum.accumulate(offset[order])
    begins = np.concatenate([[True], onset[1:] > reach[:-1]])
    firsts = onset[begins]
    lasts = reach[np.append(np.flatnonzero(begins)[1:] - 1, len(reach) - 1)]
    return firsts.tolist(), lasts.tolist()
