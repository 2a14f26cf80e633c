"""Score poses against ground truth: percentage of correct keypoints, and average precision as COCO computes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

COCO_SIGMAS = np.array([26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89]) / 1000
"""Standard deviation of annotations of COCO's 17 joints, relative to the root of the area."""
OKS_THRESHOLDS = np.linspace(0.5, 0.95, 10)
AREAS = {"all": (0.0, 1e10), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
"""Ranges of the area of people in square pixels."""
_RECALLS = np.linspace(0, 1, 101)


@dataclass(frozen=True, slots=True)
class TruePerson:
    """An annotated person.

    Attributes:
        xyv: Joints (K, 3): x and y in pixels, and 0 where the joint is not labeled.
        area: Area of the person in square pixels.
        box: Left, top, width and height in pixels.
        ignore: Do not count matches with this person: a crowd, or one without labeled joints.
        crowd: Several people, matched by any number of detections.
    """

    xyv: np.ndarray
    area: float
    box: tuple[float, float, float, float]
    ignore: bool = False
    crowd: bool = False


@dataclass(frozen=True, slots=True)
class DetectedPerson:
    """A detected person: joints (K, 2) in pixels, and a score."""

    xy: np.ndarray
    score: float


@dataclass(frozen=True, slots=True)
class ImagePair:
    """Annotated and detected people of one image."""

    truth: Sequence[TruePerson]
    detected: Sequence[DetectedPerson]


def correct_keypoints(
    xy: np.ndarray, true_xy: np.ndarray, labeled: np.ndarray, size: np.ndarray, *, thresholds: Sequence[float]
) -> dict[float, float]:
    """Compute the percentage of correct keypoints (PCK), as fractions.

    Args:
        xy: Estimated joints in pixels, shape (P, K, 2); NaN where a joint was not detected, which counts as wrong.
        true_xy: True joints in pixels, shape (P, K, 2).
        labeled: Joints to score, bool of shape (P, K).
        size: Size of each person in pixels, shape (P,), such as the longer side of the box.
        thresholds: Largest errors of a correct joint, as shares of the size.

    Returns:
        For each threshold the fraction of the labeled joints within it.

    Raises:
        ValueError: If no joint is labeled.

    References:
        Yang and Ramanan, "Articulated Human Detection with Flexible Mixtures of Parts", TPAMI 2013.
    """
    if not labeled.any():
        raise ValueError("There is nothing to score: no joint is labeled.")
    error = np.linalg.norm(xy - true_xy, axis=-1) / np.maximum(size, 1e-9)[:, None]
    error = np.where(np.isnan(error), np.inf, error)[labeled]
    return {threshold: float((error <= threshold).mean()) for threshold in thresholds}


def coco_similarity(detected: np.ndarray, person: TruePerson, sigmas: np.ndarray) -> np.ndarray:
    """Object keypoint similarity of detections with one annotated person.

    Without labeled joints it is computed from the distance to the box, enlarged by its own size on each side, as COCO
    does.

    Args:
        detected: Joints of D detections, shape (D, K, 2).
        person: The annotated person.
        sigmas: Standard deviation per joint, shape (K,).

    Returns:
        Similarities (D,) in [0, 1].

    References:
        https://cocodataset.org/#keypoints-eval and pycocotools' `computeOks`.
    """
    labeled = person.xyv[:, 2] > 0
    if labeled.any():
        offset = detected[:, labeled] - person.xyv[labeled, :2]
        sigmas = sigmas[labeled]
    else:
        left, top, width, height = person.box
        low = np.array([left - width, top - height])
        high = np.array([left + 2 * width, top + 2 * height])
        offset = np.maximum(low - detected, 0) + np.maximum(detected - high, 0)
    error = (offset**2).sum(-1) / ((2 * sigmas) ** 2) / (person.area + np.spacing(1)) / 2
    return np.asarray(np.exp(-error).mean(axis=1))


def average_precision(
    images: Sequence[ImagePair], *, sigmas: np.ndarray = COCO_SIGMAS, max_people: int = 20
) -> dict[str, float]:
    """Compute COCO's keypoint metrics of one category.

    Args:
        images: Annotated and detected people of each image, in the order of the image ids.
        sigmas: Standard deviation per joint, shape (K,).
        max_people: Number of detections per image that count, those with the highest scores.

    Returns:
        "AP", "AP50", "AP75", "APM", "APL" and "AR", "AR50", "AR75", "ARM", "ARL", in [0, 1]; NaN without a person
        of that size.
    """
    prepared = [_prepared(image, sigmas, max_people) for image in images]
    tables = {name: _precision_recall(prepared, limits) for name, limits in AREAS.items()}
    metrics = {}
    for kind, letter in ((0, "AP"), (1, "AR")):
        values = {name: table[kind] for name, table in tables.items()}
        metrics[letter] = _mean(values["all"])
        metrics[f"{letter}50"], metrics[f"{letter}75"] = _mean(values["all"][0]), _mean(values["all"][5])
        metrics[f"{letter}M"], metrics[f"{letter}L"] = _mean(values["medium"]), _mean(values["large"])
    return metrics


@dataclass(frozen=True, slots=True)
class _Prepared:
    truth: Sequence[TruePerson]
    scores: np.ndarray
    areas: np.ndarray
    similarity: np.ndarray  # (D, G)


def _prepared(image: ImagePair, sigmas: np.ndarray, max_people: int) -> _Prepared:
    order = np.argsort([-person.score for person in image.detected], kind="mergesort")[:max_people]
    people = [image.detected[at] for at in order]
    xy = np.array([person.xy for person in people], np.float64).reshape(len(people), len(sigmas), 2)
    span = np.ptp(xy, axis=1) if len(people) else np.zeros((0, 2))
    similarity = [coco_similarity(xy, person, sigmas) for person in image.truth]
    return _Prepared(
        image.truth,
        np.array([person.score for person in people]),
        span.prod(axis=1),
        np.array(similarity).T.reshape(len(people), len(image.truth)),
    )


def _precision_recall(images: Sequence[_Prepared], limits: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Interpolated precision (thresholds, recalls) and final recall (thresholds,); empty if nobody is in the range."""
    scores, matched, ignored, num_true = [], [], [], 0
    for image in images:
        outside = np.array(
            [person.ignore or not limits[0] <= person.area <= limits[1] for person in image.truth], bool
        )  # fmt: skip
        num_true += int((~outside).sum())
        hit, skip = _matches(image, outside)
        unmatched_outside = ~hit & ((image.areas < limits[0]) | (image.areas > limits[1]))
        scores.append(image.scores)
        matched.append(hit)
        ignored.append(skip | unmatched_outside)
    if not num_true:
        return np.empty((10, 0)), np.empty(10) * np.nan
    order = np.argsort(-np.concatenate(scores), kind="mergesort")
    hits, skips = np.concatenate(matched, axis=1)[:, order], np.concatenate(ignored, axis=1)[:, order]
    right, wrong = (hits & ~skips).cumsum(axis=1), (~hits & ~skips).cumsum(axis=1)
    precision, recall = np.zeros((len(OKS_THRESHOLDS), len(_RECALLS))), np.zeros(len(OKS_THRESHOLDS))
    for row, (tp, fp) in enumerate(zip(right, wrong, strict=True)):
        if not len(tp):
            continue
        reached = tp / num_true
        recall[row] = reached[-1]
        best = np.maximum.accumulate((tp / (tp + fp + np.spacing(1)))[::-1])[::-1]
        at = np.searchsorted(reached, _RECALLS, side="left")
        precision[row] = np.where(at < len(best), best[np.minimum(at, len(best) - 1)], 0)
    return precision, recall


def _matches(image: _Prepared, outside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Greedy matches of detections by score: which match, and which match somebody to ignore; (thresholds, D) each."""
    num_detected, num_true = image.similarity.shape
    hit, skip = (np.zeros((len(OKS_THRESHOLDS), num_detected), bool) for _ in range(2))
    order = np.argsort(outside, kind="mergesort")
    for row, threshold in enumerate(OKS_THRESHOLDS):
        taken = np.zeros(num_true, bool)
        for detection in range(num_detected):
            best, choice = min(threshold, 1 - 1e-10), -1
            for person in order:
                if taken[person] and not image.truth[person].crowd:
                    continue
                if choice >= 0 and not outside[choice] and outside[person]:
                    break
                if image.similarity[detection, person] >= best:
                    best, choice = image.similarity[detection, person], person
            if choice >= 0:
                taken[choice] = hit[row, detection] = True
                skip[row, detection] = outside[choice]
    return hit, skip


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values)) if np.size(values) and not np.isnan(values).all() else float("nan")
