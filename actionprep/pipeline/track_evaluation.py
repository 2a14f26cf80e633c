"""Score point tracks against ground truth with the metrics of TAP-Vid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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
