"""Summary of a test: metrics with intervals, tables by class and group, and calibration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from actionprep.datasets.split_choice import is_multi_label
from actionprep.training.evaluation import calibration, metrics
from actionprep.training.evaluation.bootstrap import bootstrap
from actionprep.training.evaluation.scoring import Scores, actual_of, predicted_of

if TYPE_CHECKING:
    from actionprep.datasets.products.snippets import SnippetTable


def metrics_of(scores: Scores, table: SnippetTable, *, repeats: int) -> dict[str, Any]:
    """Compute metrics over all snippets, and tables by class, subject and session.

    Args:
        scores: Predictions for the snippets.
        table: Table of snippets with the true labels.
        repeats: Number of resampled test sets of the intervals.

    Returns:
        `num_samples`, `num_without_evidence` (snippets that show nothing; they have no predicted label and count as
        wrong), `num_recordings`, `metrics` by name, their `intervals` over resampled recordings, `classes`, and
        `subjects` and `sessions` where every snippet has one.
    """
    rows = scores.rows
    actual = actual_of(table, rows)
    predicted = predicted_of(scores.probabilities, multi_label=is_multi_label(table), evidence=scores.evidence)
    groups = table.recording[rows]
    num_classes = len(table.labels)
    values = metrics.summary(actual, predicted, scores.probabilities)
    intervals = bootstrap(
        {name: values[name] for name in _WITH_INTERVAL if name in values},
        lambda weights: metrics.weighted_summary(actual, predicted, scores.probabilities, weights),
        groups,
        shares=("accuracy", "exact_match", "top5"),
        repeats=repeats,
    )
    per_class = metrics.per_class(actual, predicted, scores.probabilities)
    result: dict[str, Any] = {
        "num_samples": len(rows),
        "num_without_evidence": scores.num_without_evidence,
        "num_recordings": len(np.unique(groups)),
        "metrics": values,
        "intervals": {name: interval.as_json() for name, interval in intervals.items()},
        "classes": [
            {
                "label": label,
                "support": int(per_class.support[code]),
                "precision": float(per_class.precision[code]),
                "recall": float(per_class.recall[code]),
                "f1": float(per_class.f1[code]),
                "average_precision": float(per_class.average_precision[code]),
            }
            for code, label in enumerate(table.labels)
        ],
    }
    for name, values_of_recording in (("subjects", table.subjects), ("sessions", table.sessions)):
        group = np.array(values_of_recording, object)[groups]
        if len(group) and all(group):
            result[name] = _by_group(group, actual, predicted, num_classes)
    return result


def _by_group(group: np.ndarray, actual: np.ndarray, predicted: np.ndarray, num_classes: int) -> list[dict[str, Any]]:
    from actionprep.datasets.natural_order import natural_key

    rows = []
    for name in sorted(set(group.tolist()), key=natural_key):
        members = group == name
        rows.append(
            {
                "name": name,
                "snippets": int(members.sum()),
                "accuracy": metrics.accuracy(actual[members], predicted[members]),
                "macro_f1": metrics.f1_scores(actual[members], predicted[members], num_classes)["macro_f1"],
            }
        )
    return rows


def add_calibration(
    result: dict[str, Any], scores: Scores, table: SnippetTable, held_out: tuple[str, Scores] | None
) -> np.ndarray:
    """Add `calibration` to a result of `metrics_of`, and thresholds if snippets can have several labels.

    Args:
        result: Result to extend in place.
        scores: Predictions for the test snippets.
        table: Table of snippets with the true labels.
        held_out: Name of the checkpoint and its predictions for the val snippets, to which the temperature and the
            thresholds are fitted. None: neither is fitted.

    Returns:
        Probabilities of the test snippets after temperature scaling, shape (S, C).
    """
    multi_label = is_multi_label(table)
    actual = actual_of(table, scores.rows)
    unscaled = calibration.reliability(actual, scores.probabilities)
    about: dict[str, Any] = {
        "error": unscaled.error,
        "negative_log_likelihood": calibration.negative_log_likelihood(actual, scores.probabilities),
        "bins": unscaled.rows(),
        "temperature": 1.0,
    }
    probabilities = scores.probabilities
    if held_out is not None:
        name, val = held_out
        val_actual = actual_of(table, val.rows)
        temperature = calibration.fit_temperature(val.variant_logits, val_actual)
        probabilities = calibration.scaled_probabilities(scores.variant_logits, temperature, multi_label=multi_label)
        scaled = calibration.reliability(actual, probabilities)
        about |= {
            "temperature": temperature,
            "from": f"{name} on {len(val.rows)} val snippets",
            "scaled_error": scaled.error,
            "scaled_negative_log_likelihood": calibration.negative_log_likelihood(actual, probabilities),
            "scaled_bins": scaled.rows(),
        }
        if multi_label:
            thresholds = calibration.choose_thresholds(val_actual, val.probabilities)
            predicted = (scores.probabilities >= thresholds).astype(np.uint8)
            result["thresholds"] = dict(zip(table.labels, thresholds.tolist(), strict=True))
            result["metrics_at_thresholds"] = metrics.summary(actual, predicted, scores.probabilities)
    result["calibration"] = about
    result["metrics"]["calibration_error"] = about["error"]
    return probabilities


_WITH_INTERVAL = ("accuracy", "exact_match", "top5", "macro_f1", "micro_f1", "weighted_f1", "samples_f1", "map")
