"""Score point tracks against known ones, with the measures of TAP-Vid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

THRESHOLDS = (1, 2, 4, 8, 16)


@dataclass(frozen=True, slots=True)
class TrackScores:
    """How near tracks are to the truth; every figure is a share in [0, 1] over all points and frames that count.

    within              for each threshold of 1, 2, 4, 8, 16 px: share of the truly visible positions that are nearer
    delta_average       mean of `within`
    jaccard             for each threshold: hits / (truly visible positions + false alarms), where a hit is visible in
                        both and near enough, and a false alarm is called visible, but is hidden or too far off
    average_jaccard     mean of `jaccard`
    occlusion_accuracy  share of the positions where visible or hidden is told rightly
    survival            mean share of a point's frames before it is for the first time 50 px or more off
    num_points          points with at least one position that counts
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

    xy, true_xy            (T, N, 2) px of a picture of `size` = (height, width)
    visible, true_visible  (T, N) bool
    counts                 (T, N) bool: the positions to score; leave out the frame of the query and unlabeled frames

    Doersch et al., "TAP-Vid: A Benchmark for Tracking Any Point in a Video", NeurIPS 2022, section 3: thresholds after
    scaling to 256x256, strictly nearer counts. Survival: Zheng et al., "PointOdyssey", ICCV 2023, section 4 (failure
    at 50 px at that scale).

    Raises ValueError when nothing counts or shapes differ.
    """
    if not xy.shape == true_xy.shape == (*visible.shape, 2) or not visible.shape == true_visible.shape == counts.shape:
        raise ValueError(
            f"Tracks and truth differ in shape: xy {xy.shape} and {true_xy.shape}, "
            f"visible {visible.shape} and {true_visible.shape}, counts {counts.shape}."
        )
    if not (counts & true_visible).any():
        raise ValueError("There is nothing to score: no position that counts is truly visible.")
    height, width = size
    offset = (xy - true_xy) * np.array([256 / width, 256 / height])
    distance = np.linalg.norm(np.where(counts[..., None], offset, 0), axis=-1)
    truth = true_visible & counts
    said = visible & counts
    within, jaccard = {}, {}
    for threshold in THRESHOLDS:
        near = distance < threshold
        within[threshold] = float((near & truth).sum() / truth.sum())
        hits = (said & truth & near).sum()
        false_alarms = (said & ~(truth & near)).sum()
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
