"""Score point tracks against ground truth with the metrics of TAP-Vid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from actionprep.pipeline.trackers.tracker import PointTracker

THRESHOLDS = (1, 2, 4, 8, 16)
"""Distances in pixels at 256x256."""


@dataclass(frozen=True, slots=True)
class TrackScores:
    """Accuracy of tracks. Metrics are fractions in [0, 1] over all scored positions.

    Attributes:
        within: For each threshold, fraction of the truly visible positions with a smaller error.
        delta_average: Mean of `within`.
        jaccard: For each threshold, true positives / (truly visible positions + false positives). A true positive is
            visible in both and within the threshold. A false positive is predicted visible, but hidden or farther away.
        average_jaccard: Mean of `jaccard`.
        occlusion_accuracy: Fraction of positions with correctly predicted visibility.
        survival: Fraction of a point's frames before its error first reaches 50 px, averaged over points.
        num_points: Number of points with at least one scored position.
    """

    within: dict[int, float]
    delta_average: float
    jaccard: dict[int, float]
    average_jaccard: float
    occlusion_accuracy: float
    survival: float
    num_points: int


def score_tracks(
    xy: np.ndarray,
    visible: np.ndarray,
    true_xy: np.ndarray,
    true_visible: np.ndarray,
    counts: np.ndarray,
    *,
    size: tuple[int, int],
) -> TrackScores:
    """Score tracks at 256x256.

    Positions are scaled to 256x256 before they are compared with the thresholds [1]_. A position is within a threshold
    if its error is strictly smaller. A track fails at an error of 50 px at that scale [2]_.

    Args:
        xy: Tracked positions in pixels, shape (T, N, 2).
        visible: Predicted visibility, bool of shape (T, N).
        true_xy: True positions in pixels, shape (T, N, 2).
        true_visible: True visibility, bool of shape (T, N).
        counts: Positions to score, bool of shape (T, N). Exclude the frame of the query and unlabeled frames.
        size: Height and width of the frames in pixels.

    Returns:
        The scores.

    Raises:
        ValueError: If shapes differ, or if no scored position is visible.

    References:
        .. [1] Doersch et al., "TAP-Vid: A Benchmark for Tracking Any Point in a Video", NeurIPS 2022, section 3.
        .. [2] Zheng et al., "PointOdyssey", ICCV 2023, section 4.
    """
    if not xy.shape == true_xy.shape == (*visible.shape, 2) or not visible.shape == true_visible.shape == counts.shape:
        raise ValueError(
            f"Tracks and truth differ in shape: xy {xy.shape} and {true_xy.shape}, "
            f"visible {visible.shape} and {true_visible.shape}, counts {counts.shape}."
        )
    if not (counts & true_visible).any():
        raise ValueError("There is nothing to score: no position selected by `counts` is truly visible.")
    height, width = size
    offset = (xy - true_xy) * np.array([256 / width, 256 / height])
    distance = np.linalg.norm(np.where(counts[..., None], offset, 0), axis=-1)
    truth = true_visible & counts
    predicted = visible & counts
    within, jaccard = {}, {}
    for threshold in THRESHOLDS:
        near = distance < threshold
        within[threshold] = float((near & truth).sum() / truth.sum())
        hits = (predicted & truth & near).sum()
        false_alarms = (predicted & ~(truth & near)).sum()
        jaccard[threshold] = float(hits / (truth.sum() + false_alarms))
    lost = np.logical_or.accumulate(truth & (distance >= 50), axis=0)
    scored = counts.any(axis=0)
    alive = (counts & ~lost).sum(axis=0)[scored] / counts.sum(axis=0)[scored]
    return TrackScores(
        within=within,
        delta_average=float(np.mean(list(within.values()))),
        jaccard=jaccard,
        average_jaccard=float(np.mean(list(jaccard.values()))),
        occlusion_accuracy=float((visible == true_visible)[counts].mean()),
        survival=float(alive.mean()),
        num_points=int(scored.sum()),
    )


QueryMode = Literal["first", "strided"]
"""Which points are queries [TAP-Vid]: each point where it is first visible, or all visible points of every 5th frame."""
STRIDE = 5


def make_queries(
    true_xy: np.ndarray, true_visible: np.ndarray, labeled: np.ndarray, *, mode: QueryMode
) -> tuple[np.ndarray, np.ndarray]:
    """Choose queries as TAP-Vid does.

    Args:
        true_xy: True positions in pixels, shape (T, N, 2).
        true_visible: True visibility, bool of shape (T, N).
        labeled: Positions with a label, bool of shape (T, N).
        mode: "first" starts each point in the first frame that shows it and scores later frames. "strided" starts all
            points that are visible in every 5th frame and scores all other frames.

    Returns:
        Queries (Q, 3) as (frame, x, y), and the index of the true point of each, shape (Q,).
    """
    shown = true_visible & labeled
    if mode == "first":
        points = np.flatnonzero(shown.any(axis=0))
        frames = shown[:, points].argmax(axis=0)
    else:
        frames, points = np.nonzero(shown[::STRIDE])
        frames = frames * STRIDE
    return np.concatenate([frames[:, None], true_xy[frames, points]], axis=1).astype(np.float64), points


def score_tracker(
    tracker: PointTracker,
    frames: Sequence[np.ndarray],
    true_xy: np.ndarray,
    true_visible: np.ndarray,
    labeled: np.ndarray,
    *,
    mode: QueryMode = "first",
) -> TrackScores:
    """Track the queries of one video and score the tracks.

    Args:
        tracker: The tracker.
        frames: T frames as the tracker needs them.
        true_xy: True positions in pixels of these frames, shape (T, N, 2).
        true_visible: True visibility, bool of shape (T, N).
        labeled: Positions with a label, bool of shape (T, N).
        mode: See `make_queries`.

    Raises:
        ValueError: If no point is visible in a frame that can be a query.
    """
    from actionprep.datasets.products.tracks import visible

    queries, points = make_queries(true_xy, true_visible, labeled, mode=mode)
    if not len(queries):
        raise ValueError("There is nothing to score: no labeled point is visible in a frame of a query.")
    tracks = tracker.track(frames, queries, both_ways=mode == "strided")
    seen = visible(tracks.visibility, tracks.confidence, rule=tracker.visible_rule, above=tracker.visible_above)
    time, start = np.arange(len(frames))[:, None], queries[:, 0]
    counts = labeled[:, points] & (time > start if mode == "first" else time != start)
    height, width = frames[0].shape[:2]
    return score_tracks(
        tracks.xy, seen, true_xy[:, points], true_visible[:, points], counts, size=(height, width)
    )  # fmt: skip


def mean_scores(scores: Sequence[TrackScores]) -> TrackScores:
    """Average the scores of videos, each with the same weight, as TAP-Vid does; numbers of points are added."""

    def mean(name: str) -> float:
        return float(np.mean([getattr(score, name) for score in scores]))

    def means(name: str) -> dict[int, float]:
        return {at: float(np.mean([getattr(score, name)[at] for score in scores])) for at in THRESHOLDS}

    return TrackScores(
        within=means("within"),
        delta_average=mean("delta_average"),
        jaccard=means("jaccard"),
        average_jaccard=mean("average_jaccard"),
        occlusion_accuracy=mean("occlusion_accuracy"),
        survival=mean("survival"),
        num_points=sum(score.num_points for score in scores),
    )


@dataclass(frozen=True, slots=True)
class TrackConsistency:
    """Quality of tracks without ground truth.

    Attributes:
        survival: Fraction of the frames after a query that a point stays visible without a break, averaged over points.
        visible: Fraction of these frames in which points are visible.
        forward_backward: Median distance in pixels at 256x256 between queries and where points return to, if they are
            tracked back from their last visible frame.
        num_points: Number of points.
    """

    survival: float
    visible: float
    forward_backward: float
    num_points: int


def measure_consistency(
    tracker: PointTracker, frames: Sequence[np.ndarray], queries: np.ndarray
) -> TrackConsistency:  # fmt: skip
    """Track points forward and back again.

    Args:
        tracker: The tracker.
        frames: T frames as the tracker needs them.
        queries: Queries (Q, 3) as (frame, x, y) in pixels of these frames; at least one before the last frame.

    References:
        Kalal, Mikolajczyk and Matas, "Forward-Backward Error: Automatic Detection of Tracking Failures", ICPR 2010.
    """
    from actionprep.datasets.products.tracks import visible

    queries = queries[queries[:, 0] < len(frames) - 1]
    if not len(queries):
        raise ValueError("There is nothing to measure: no query is before the last frame.")
    tracks = tracker.track(frames, queries, both_ways=False)
    seen = visible(tracks.visibility, tracks.confidence, rule=tracker.visible_rule, above=tracker.visible_above)
    start = queries[:, 0].astype(int)
    after = np.arange(len(frames))[:, None] > start
    alive = np.logical_and.accumulate(seen | ~after, axis=0) & after
    points = np.arange(len(queries))
    last = start + alive.sum(axis=0)
    # Tracked back through the reversed video, which every tracker can do.
    end = len(frames) - 1
    back = np.concatenate([(end - last)[:, None], tracks.xy[last, points]], axis=1)
    returned = tracker.track(list(frames[::-1]), back, both_ways=False).xy[end - start, points]
    height, width = frames[0].shape[:2]
    error = np.linalg.norm((returned - queries[:, 1:]) * np.array([256 / width, 256 / height]), axis=1)
    moved = last > start
    return TrackConsistency(
        survival=float((alive.sum(axis=0) / after.sum(axis=0)).mean()),
        visible=float((seen & after).sum() / after.sum()),
        forward_backward=float(np.median(error[moved])) if moved.any() else float("nan"),
        num_points=len(queries),
    )
