"""Score masks against ground truth with the region and boundary measures of DAVIS."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class MaskScores:
    """Accuracy of masks over frames.

    Attributes:
        j_mean: Mean intersection over union.
        j_recall: Fraction of frames with an intersection over union above 0.5.
        j_decay: Mean of the first quarter of the frames minus mean of the last quarter.
        f_mean: Mean F-measure of boundaries.
        f_recall: Fraction of frames with a boundary F-measure above 0.5.
        f_decay: As `j_decay`, for boundaries.
        num_frames: Number of frames.
    """

    j_mean: float
    j_recall: float
    j_decay: float
    f_mean: float
    f_recall: float
    f_decay: float
    num_frames: int

    @property
    def j_and_f(self) -> float:
        """Mean of `j_mean` and `f_mean`."""
        return (self.j_mean + self.f_mean) / 2


def score_masks(masks: np.ndarray, truth: np.ndarray) -> MaskScores:
    """Score the masks of one object in the frames of one video.

    Args:
        masks: Predicted masks, bool of shape (T, H, W).
        truth: True masks, bool of shape (T, H, W).

    Raises:
        ValueError: If the shapes differ or there are no frames.

    References:
        Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation", CVPR 2016.
    """
    if masks.shape != truth.shape or masks.ndim != 3 or not len(masks):
        raise ValueError(f"Masks {masks.shape} and truth {truth.shape} must have one shape (T, H, W), with T > 0.")
    region = np.array([region_similarity(ours, true) for ours, true in zip(masks, truth, strict=True)])
    boundary = np.array([boundary_accuracy(ours, true) for ours, true in zip(masks, truth, strict=True)])
    (j_mean, j_recall, j_decay), (f_mean, f_recall, f_decay) = _statistics(region), _statistics(boundary)
    return MaskScores(j_mean, j_recall, j_decay, f_mean, f_recall, f_decay, len(masks))


def region_similarity(mask: np.ndarray, truth: np.ndarray) -> float:
    """Intersection over union (J) of two masks (H, W); 1 if both are empty."""
    union = int((mask | truth).sum())
    return float((mask & truth).sum() / union) if union else 1.0


def boundary_accuracy(mask: np.ndarray, truth: np.ndarray, *, tolerance: float = 0.008) -> float:
    """F-measure (F) of the boundaries of two masks (H, W).

    Args:
        mask: Predicted mask, bool.
        truth: True mask, bool.
        tolerance: Distance at which boundaries match, as a share of the image diagonal; rounded up to pixels.

    Returns:
        Harmonic mean of precision and recall; 1 if both boundaries are empty, 0 if one is.
    """
    import cv2

    radius = int(np.ceil(tolerance * np.hypot(*mask.shape)))
    ours, true = _boundary(mask), _boundary(truth)
    if not ours.any() or not true.any():
        return float(not ours.any() and not true.any())
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disk = (x**2 + y**2 <= radius**2).astype(np.uint8)
    near_true, near_ours = (cv2.dilate(edge.astype(np.uint8), disk).astype(bool) for edge in (true, ours))
    precision, recall = (ours & near_true).sum() / ours.sum(), (true & near_ours).sum() / true.sum()
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def _boundary(mask: np.ndarray) -> np.ndarray:
    """Pixels that differ from the right, lower or lower right neighbor; pixels outside of the image are ignored."""
    padded = np.pad(mask.astype(bool), ((0, 1), (0, 1)), mode="edge")
    here = padded[:-1, :-1]
    edge = (here ^ padded[:-1, 1:]) | (here ^ padded[1:, :-1]) | (here ^ padded[1:, 1:])
    edge[-1, -1] = False
    return np.asarray(edge)


def _statistics(values: np.ndarray) -> tuple[float, float, float]:
    """Mean, recall at 0.5 and decay, as the tools of DAVIS compute them."""
    cuts = np.round(np.linspace(1, len(values), 5) + 1e-10).astype(int) - 1
    quarters = [values[cuts[at] : cuts[at + 1] + 1] for at in range(4)]
    return float(values.mean()), float((values > 0.5).mean()), float(quarters[0].mean() - quarters[3].mean())
