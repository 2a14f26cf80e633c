"""Predictions for each frame of a recording, from models that label every time step, and their metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from actionprep.datasets.frame_labels import FrameLabels
from actionprep.datasets.frame_times import frame_interval
from actionprep.datasets.windows import EPSILON_S
from actionprep.training.evaluation import metrics, segmental
from actionprep.training.evaluation.bootstrap import bootstrap

if TYPE_CHECKING:
    from actionprep.datasets.products.snippets import SnippetTable
    from actionprep.datasets.store.zarr_store import Store


@dataclass(frozen=True)
class FrameScores:
    """Predictions for the time steps of snippets.

    Attributes:
        time: Time of each step in seconds on the recording's clock, shape (S, T), increasing.
        probabilities: Mean over variants, shape (S, T, C).
    """

    time: np.ndarray
    probabilities: np.ndarray


def mean_over_variants(
    times: Sequence[np.ndarray], probabilities: Sequence[np.ndarray], valid: Sequence[np.ndarray]
) -> FrameScores:
    """Average variants of the same snippets at the time steps of the first variant.

    Every other variant contributes its nearest time step.

    Args:
        times: Time of each step in seconds, (S, T) per variant.
        probabilities: (S, T, C) per variant.
        valid: Steps with a frame, bool (S, T) per variant. Only these are used, unless a snippet has none.

    Returns:
        The averaged predictions.
    """
    total = np.zeros(probabilities[0].shape)
    for time, values, has_frame in zip(times, probabilities, valid, strict=True):
        usable = has_frame | ~has_frame.any(axis=1, keepdims=True)
        for row in range(len(total)):
            steps = np.flatnonzero(usable[row])
            total[row] += values[row, steps[nearest(time[row, steps], times[0][row])]]
    return FrameScores(times[0], total / len(times))


def nearest(time: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return the index in `time` (T,), increasing, nearest to each wanted time; the earlier one in a tie."""
    return np.searchsorted((time[1:] + time[:-1]) / 2, wanted, side="left")


def cells(onset: np.ndarray, offset: np.ndarray, scores: FrameScores) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Split windows into one interval per time step.

    An interval extends half-way to the neighboring time steps. The first and last extend to the ends of the window.

    Args:
        onset: Onset of each window in seconds, shape (S,).
        offset: Offset of each window in seconds, shape (S,).
        scores: Predictions for the time steps of the windows.

    Returns:
        Onset (P,), offset (P,) and probabilities (P, C) of the intervals, window after window. Empty ones are left out.
    """
    between = (scores.time[:, 1:] + scores.time[:, :-1]) / 2
    edges = np.concatenate([onset[:, None], between, offset[:, None]], axis=1)
    edges = np.clip(np.maximum.accumulate(edges, axis=1), onset[:, None], offset[:, None])
    first, last = edges[:, :-1].ravel(), edges[:, 1:].ravel()
    filled = last - first > EPSILON_S
    return first[filled], last[filled], scores.probabilities.reshape(len(first), -1)[filled]


def frame_times(store: Store, product: str, recording: str, views: Sequence[str]) -> np.ndarray:
    """Read the frame times of a recording from the first view that has the product.

    Args:
        store: Store to read.
        product: Product, or several joined by "+".
        recording: Recording name.
        views: Views in order of preference.

    Returns:
        Unique frame times in seconds, shape (F,); empty if the product has no frame times.
    """
    for view in views:
        for name in product.split("+"):
            if store.has(name, recording, view):
                item = store.item(name, recording, view)
                if "time" not in item:
                    return np.zeros(0)
                times = item["time"][:]
                return np.unique(times[np.isfinite(times)])
    return np.zeros(0)


def frame_rate(times: np.ndarray) -> float | None:
    """Return the frames per second of sorted frame times (F,) in seconds; None for fewer than two frames."""
    return 1 / frame_interval(times) if len(times) > 1 else None


def frame_rates(store: Store, product: str, recordings: Sequence[str], views: Sequence[str]) -> list[float]:
    """Return the lowest and the highest frame rate of recordings; empty if the product has no frame times."""
    rates = [frame_rate(frame_times(store, product, recording, views)) for recording in recordings]
    known = [rate for rate in rates if rate is not None]
    return [round(min(known), 3), round(max(known), 3)] if known else []


def windows_with_frames(
    store: Store, product: str, recording: str, views: Sequence[str], onset: np.ndarray, offset: np.ndarray
) -> np.ndarray:
    """Return which windows contain a frame in some view.

    A window between two frames contains the nearer one if that is at most 1.5 frame intervals away from its onset.

    Args:
        store: Store to read.
        product: Product, or several joined by "+".
        recording: Recording name.
        views: Views to look at.
        onset: Onset of each window in seconds, shape (W,).
        offset: Offset of each window in seconds, shape (W,).

    Returns:
        Bool of shape (W,); True for all if a product has no frame times.
    """
    with_frames = np.zeros(len(onset), bool)
    for view in views:
        for name in product.split("+"):
            if not store.has(name, recording, view):
                continue
            times = frame_times(store, name, recording, [view])
            if not len(times):
                return np.ones(len(onset), bool)
            first, last = np.searchsorted(times, [onset - EPSILON_S, offset - EPSILON_S])
            near = np.clip(np.searchsorted(times, onset), 1, max(len(times) - 1, 1))
            distance = np.abs(times[[near - 1, np.minimum(near, len(times) - 1)]] - onset).min(axis=0)
            interval = frame_interval(times)
            with_frames |= (last > first) | (distance <= 1.5 * interval + 1e-6)
    return with_frames


@dataclass(frozen=True)
class LabeledFrames:
    """The frames of one recording that are covered by windows and have known labels.

    Attributes:
        recording: Code of the recording.
        frame_index: Position of each frame among all frames of the recording, shape (F,).
        time: Frame times in seconds, shape (F,).
        probabilities: Mean over the windows that cover a frame, shape (F, C).
        target: True labels as zeros and ones, shape (F, C).
    """

    recording: int
    frame_index: np.ndarray
    time: np.ndarray
    probabilities: np.ndarray
    target: np.ndarray


def labeled_frames(
    scores: FrameScores,
    table: SnippetTable,
    rows: np.ndarray,
    labels: FrameLabels,
    times: Mapping[int, np.ndarray],
) -> list[LabeledFrames]:
    """Assign predictions to the frames of each recording.

    Each window contributes its time step nearest to the frame.

    Args:
        scores: Predictions for the time steps of the snippets.
        table: Table of snippets.
        rows: Row of each snippet in the table, shape (S,).
        labels: True labels over time.
        times: Frame times in seconds by the code of the recording.

    Returns:
        One entry per recording that has such frames.
    """
    recordings = []
    for code in np.unique(table.recording[rows]).tolist():
        time = times[code]
        total = np.zeros((len(time), len(table.labels)))
        count = np.zeros(len(time), np.int64)
        for snippet in np.flatnonzero(table.recording[rows] == code).tolist():
            ends = np.array([table.onset[rows[snippet]], table.offset[rows[snippet]]]) - EPSILON_S
            first, last = np.searchsorted(time, ends).tolist()
            total[first:last] += scores.probabilities[snippet, nearest(scores.time[snippet], time[first:last])]
            count[first:last] += 1
        target, known = labels.at(code, time)
        index = np.flatnonzero((count > 0) & known)
        if len(index):
            mean = total[index] / count[index, None]
            recordings.append(LabeledFrames(code, index, time[index], mean, target[index]))
    return recordings


def frame_metrics(
    frames: Sequence[LabeledFrames], table: SnippetTable, *, multi_label: bool, repeats: int = 1000
) -> dict[str, Any]:
    """Compute metrics over all frames, with intervals over resampled recordings.

    Segments of the background do not count.

    Args:
        frames: Predictions and true labels of each recording.
        table: Table of snippets, which defines the labels and the background.
        multi_label: Whether a frame can have several labels.
        repeats: Number of resampled test sets.

    Returns:
        `metrics` (accuracy, macro F1, segmental F1 at each overlap and, with one label per frame, the edit score),
        their `intervals`, `classes` with one row per class, `num_frames` and `num_recordings`.
    """
    background = None if table.background is None else table.labels.index(table.background)
    counts = _Counts.of(frames, len(table.labels), multi_label=multi_label, background=background)
    unit_weights = np.ones((1, len(frames)), np.int64)
    values = {name: float(value[0]) for name, value in counts.metrics(unit_weights).items()}
    intervals = bootstrap(values, counts.metrics, np.arange(len(frames)), shares=("accuracy",), repeats=repeats)
    correct, predicted, actual = counts.labels.sum(axis=0)
    return {
        "num_frames": int(counts.frames.sum()),
        "num_recordings": len(frames),
        "metrics": values,
        "intervals": {name: interval.as_json() for name, interval in intervals.items()},
        "classes": [
            {
                "label": label,
                "frames": int(actual[code]),
                "precision": _share(correct[code], predicted[code]),
                "recall": _share(correct[code], actual[code]),
                "f1": _share(2 * correct[code], predicted[code] + actual[code]),
            }
            for code, label in enumerate(table.labels)
        ],
    }


def frame_rows(frames: Sequence[LabeledFrames], table: SnippetTable, *, multi_label: bool) -> list[dict[str, Any]]:
    """Return one row per frame: recording, time, true labels, predicted labels and the highest probability."""
    rows = []
    for recording in frames:
        predicted = _predicted(recording.probabilities, multi_label=multi_label)
        for index, time in enumerate(recording.time):
            rows.append(
                {
                    "recording": table.recordings[recording.recording],
                    "time": round(float(time), 6),
                    "actual": _names(table.labels, recording.target[index]),
                    "predicted": _names(table.labels, predicted[index]),
                    "probability": round(float(recording.probabilities[index].max()), 6),
                }
            )
    return rows


@dataclass(frozen=True)
class _Counts:
    """Counts of N recordings. All metrics of a set of recordings follow from their weighted sums.

    frames (N,) and correct (N,); labels (N, 3, C), see `metrics.label_counts`; matches (N, overlaps, 3), see
    `segmental.matches`; edit (N,) score, None with several labels per frame.
    """

    frames: np.ndarray
    correct: np.ndarray
    labels: np.ndarray
    matches: np.ndarray
    edit: np.ndarray | None

    @classmethod
    def of(
        cls, frames: Sequence[LabeledFrames], num_classes: int, *, multi_label: bool, background: int | None
    ) -> _Counts:
        labels, matches, edit, correct = [], [], [], []
        for recording in frames:
            target = recording.target
            predicted = _predicted(recording.probabilities, multi_label=multi_label)
            true_segments, predicted_segments = (
                _segments(values, recording.frame_index, multi_label=multi_label, background=background)
                for values in (target, predicted)
            )
            correct.append(int((target == predicted).all(axis=1).sum()))
            labels.append(metrics.label_counts(target, predicted))
            matches.append([segmental.matches(true_segments, predicted_segments, at) for at in segmental.OVERLAPS])
            edit.append(segmental.edit_score(true_segments, predicted_segments))
        return cls(
            np.array([len(recording.time) for recording in frames], np.int64),
            np.array(correct, np.int64),
            np.array(labels, np.int64).reshape(-1, 3, num_classes),
            np.array(matches, np.int64).reshape(-1, len(segmental.OVERLAPS), 3),
            None if multi_label else np.array(edit, np.float64),
        )

    def metrics(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Metrics (R,) under R integer weights (R, N) of the recordings."""
        labels = np.einsum("rn,nkc->rkc", weights, self.labels)
        matches = np.einsum("rn,nok->rok", weights, self.matches)
        values = {
            "accuracy": metrics.ratio(weights @ self.correct, weights @ self.frames),
            "macro_f1": np.array([metrics.macro_f1(counts) for counts in labels]),
        }
        if self.edit is not None:
            values["edit"] = metrics.ratio(weights @ self.edit, weights.sum(axis=1))
        for index, overlap in enumerate(segmental.OVERLAPS):
            matched, spurious, missed = matches[:, index].T
            values[f"segment_f1_{overlap * 100:.0f}"] = metrics.ratio(2 * matched, 2 * matched + spurious + missed)
        return values


def _segments(
    target: np.ndarray, frame_index: np.ndarray, *, multi_label: bool, background: int | None
) -> list[segmental.FrameSegment]:
    if not multi_label:
        return segmental.frame_segments(target.argmax(axis=1), frame_index, leave_out=background)
    # Labels are independent of each other: each has its own segments.
    return [
        segment
        for code in range(target.shape[1])
        if code != background
        for segment in segmental.frame_segments(np.where(target[:, code] > 0, code, -1), frame_index)
    ]


def _predicted(probabilities: np.ndarray, *, multi_label: bool) -> np.ndarray:
    """(F, C) zeros and ones: the most probable label, or every label with a probability of at least 0.5."""
    if multi_label:
        return (probabilities >= 0.5).astype(np.uint8)
    return metrics.one_hot(probabilities.argmax(axis=1), probabilities.shape[1])


def _names(labels: Sequence[str], target: np.ndarray) -> str:
    return " ".join(labels[code] for code in np.flatnonzero(target).tolist())


def _share(part: int, total: int) -> float:
    return float(part) / float(total) if total else float("nan")
