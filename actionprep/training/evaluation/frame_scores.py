"""What a model that labels every instant says of a recording's frames, and how right that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from actionprep.datasets.frame_labels import FrameLabels
from actionprep.datasets.windows import EPSILON_S
from actionprep.training.evaluation import metrics, segmental

if TYPE_CHECKING:
    from actionprep.datasets.products.snippets import SnippetTable
    from actionprep.datasets.store.zarr_store import Store


@dataclass(frozen=True)
class FrameScores:
    """What a model says of the instants of snippets.

    time (S, T) s, rising; probabilities (S, T, C), the mean over variants.
    """

    time: np.ndarray
    probabilities: np.ndarray


def mean_over_variants(
    times: Sequence[np.ndarray], probabilities: Sequence[np.ndarray], valid: Sequence[np.ndarray]
) -> FrameScores:
    """Variants of the same snippets, each looked at where the first one looks: at its own nearest instant.

    times (S, T), probabilities (S, T, C), valid (S, T) bool of each variant: instants that have a frame; of a snippet
    without any, all are taken.
    """
    total = np.zeros(probabilities[0].shape)
    for time, values, there in zip(times, probabilities, valid, strict=True):
        some = there | ~there.any(axis=1, keepdims=True)
        for row in range(len(total)):
            own = np.flatnonzero(some[row])
            total[row] += values[row, own[nearest(time[row, own], times[0][row])]]
    return FrameScores(times[0], total / len(times))


def nearest(time: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Positions in `time` (T), rising, of the instants nearest to those wanted, the earlier of equal ones."""
    return np.searchsorted((time[1:] + time[:-1]) / 2, wanted, side="left")


def cells(onset: np.ndarray, offset: np.ndarray, scores: FrameScores) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Windows (S) as parts around their instants: onset (P), offset (P) and probabilities (P, C), window after window.

    A part reaches half-way to the instants beside it, the first and last to the ends of the window.
    """
    between = (scores.time[:, 1:] + scores.time[:, :-1]) / 2
    edges = np.concatenate([onset[:, None], between, offset[:, None]], axis=1)
    edges = np.clip(np.maximum.accumulate(edges, axis=1), onset[:, None], offset[:, None])
    first, last = edges[:, :-1].ravel(), edges[:, 1:].ravel()
    some = last - first > EPSILON_S
    return first[some], last[some], scores.probabilities.reshape(len(first), -1)[some]


def frame_times(store: Store, product: str, recording: str, views: Sequence[str]) -> np.ndarray:
    """(F,) s: the frames of the first of these views that a product has, as far as it knows them, each once."""
    for view in views:
        for one in product.split("+"):
            if store.has(one, recording, view):
                item = store.item(one, recording, view)
                if "time" not in item:
                    return np.zeros(0)
                times = item["time"][:]
                return np.unique(times[np.isfinite(times)])
    return np.zeros(0)


@dataclass(frozen=True)
class LabeledFrames:
    """The frames of one recording that windows cover and whose labels are known.

    place (F) number among all frames of the recording; time (F) s; probabilities (F, C), the mean over the windows;
    target (F, C) zeros and ones.
    """

    recording: int
    place: np.ndarray
    time: np.ndarray
    probabilities: np.ndarray
    target: np.ndarray


def labeled_frames(
    scores: FrameScores,
    table: SnippetTable,
    rows: np.ndarray,
    labels: FrameLabels,
    times: dict[int, np.ndarray],
) -> list[LabeledFrames]:
    """Frames of each recording of these snippets, with what the model says of them: at the nearest instant of each window.

    times: the frames of each recording by its code.
    """
    found = []
    for code in np.unique(table.recording[rows]).tolist():
        time = times[code]
        total = np.zeros((len(time), len(table.labels)))
        count = np.zeros(len(time), np.int64)
        for at in np.flatnonzero(table.recording[rows] == code).tolist():
            ends = np.array([table.onset[rows[at]], table.offset[rows[at]]]) - EPSILON_S
            first, last = np.searchsorted(time, ends).tolist()
            total[first:last] += scores.probabilities[at, nearest(scores.time[at], time[first:last])]
            count[first:last] += 1
        target, known = labels.at(code, time)
        place = np.flatnonzero((count > 0) & known)
        mean = total[place] / count[place, None]
        found.append(LabeledFrames(code, place, time[place], mean, target[place]))
    return [one for one in found if len(one.place)]


def frame_metrics(
    frames: Sequence[LabeledFrames], table: SnippetTable, *, several: bool, repeats: int = 1000
) -> dict[str, Any]:
    """Figures over all frames: accuracy, macro F1, segmental F1 at each overlap, and with one label the edit score.

    Segments of the background do not count. Intervals are over recordings drawn anew.
    """
    background = None if table.background is None else table.labels.index(table.background)
    each = [_Recording.of(one, several=several, background=background) for one in frames]

    def figures(at: Sequence[int]) -> dict[str, float]:
        some = [each[number] for number in at]
        count = sum(one.count for one in some)
        found = {
            "accuracy": sum(one.right for one in some) / count if count else float("nan"),
            "macro_f1": metrics.macro_f1(np.sum([one.hits for one in some], axis=0)) if some else float("nan"),
        }
        if not several:
            found["edit"] = float(np.mean([one.edit for one in some])) if some else float("nan")
        for number, overlap in enumerate(segmental.OVERLAPS):
            counts = np.sum([one.matches[number] for one in some], axis=0) if some else (0, 0, 0)
            found[f"segment_f1_{overlap * 100:.0f}"] = segmental.f1_of(*(int(one) for one in counts))
        return found

    everything = figures(range(len(each)))
    drawn = np.random.default_rng(0).integers(0, max(len(each), 1), (repeats, len(each)))
    resampled = [figures(at.tolist()) for at in drawn] if each else []
    hits = np.sum([one.hits for one in each], axis=0) if each else np.zeros((3, len(table.labels)), np.int64)
    return {
        "num_frames": sum(one.count for one in each),
        "num_recordings": len(each),
        "figures": everything,
        "intervals": {
            name: metrics.interval_of(value, [one[name] for one in resampled]).as_json()
            for name, value in everything.items()
        },
        "classes": [
            {
                "label": label,
                "frames": int(hits[2, code]),
                "precision": _share(hits[0, code], hits[1, code]),
                "recall": _share(hits[0, code], hits[2, code]),
                "f1": _share(2 * hits[0, code], hits[1, code] + hits[2, code]),
            }
            for code, label in enumerate(table.labels)
        ],
    }


def frame_rows(frames: Sequence[LabeledFrames], table: SnippetTable, *, several: bool) -> list[dict[str, Any]]:
    """A row a frame: recording, time, what it shows, what the model says, and how sure it is."""
    rows = []
    for one in frames:
        said = _said(one.probabilities, several=several)
        for number, time in enumerate(one.time):
            rows.append(
                {
                    "recording": table.recordings[one.recording],
                    "time": round(float(time), 6),
                    "actual": _names(table.labels, one.target[number]),
                    "predicted": _names(table.labels, said[number]),
                    "probability": round(float(one.probabilities[number].max()), 6),
                }
            )
    return rows


@dataclass(frozen=True)
class _Recording:
    """Counts of one recording, which those of several are sums of, and its edit score."""

    count: int
    right: int
    hits: np.ndarray
    matches: list[tuple[int, int, int]]
    edit: float

    @classmethod
    def of(cls, frames: LabeledFrames, *, several: bool, background: int | None) -> _Recording:
        said = _said(frames.probabilities, several=several)
        if several:
            # Labels are independent of each other: each has segments of its own.
            actual, predicted = (
                [
                    one
                    for code in range(values.shape[1])
                    if code != background
                    for one in segmental.stretches(np.where(values[:, code] > 0, code, -1), frames.place)
                ]
                for values in (frames.target, said)
            )
        else:
            actual, predicted = (
                segmental.stretches(values.argmax(axis=1), frames.place, leave_out=background)
                for values in (frames.target, said)
            )
        return cls(
            len(frames.place),
            int((frames.target == said).all(axis=1).sum()),
            metrics.hits(frames.target, said),
            [segmental.matches(actual, predicted, overlap) for overlap in segmental.OVERLAPS],
            segmental.edit_score(actual, predicted),
        )


def _said(probabilities: np.ndarray, *, several: bool) -> np.ndarray:
    """(F, C) zeros and ones: the most probable label, or all from one half."""
    if several:
        return (probabilities >= 0.5).astype(np.uint8)
    return metrics.one_hot(probabilities.argmax(axis=1), probabilities.shape[1])


def _names(labels: Sequence[str], target: np.ndarray) -> str:
    return " ".join(labels[code] for code in np.flatnonzero(target).tolist())


def _share(part: int, whole: int) -> float:
    return float(part) / float(whole) if whole else float("nan")
