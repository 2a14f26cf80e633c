"""Figures of scores: how good, with intervals, by class and by group, and how well calibrated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from actionprep.training.evaluation import calibration, metrics
from actionprep.training.evaluation.scoring import Scores, actual_of, predicted_of
from actionprep.training.split_choice import is_multi_label

if TYPE_CHECKING:
    from actionprep.datasets.products.snippets import SnippetTable


def metrics_of(scores: Scores, table: SnippetTable, *, repeats: int) -> dict[str, Any]:
    """Figures over all snippets with their intervals, and the tables by class, subject and session.

    repeats: resampled test sets of the intervals.
    """
    rows = scores.rows
    actual = actual_of(table, rows)
    predicted = predicted_of(scores.probabilities, several=is_multi_label(table))
    groups = table.recording[rows]
    num_classes = len(table.labels)
    figures = metrics.summary(actual, predicted, scores.probabilities)

    def interval(name: str) -> dict[str, float]:
        if name == "map":
            weights = metrics.bootstrap_weights(len(rows), groups=groups, repeats=repeats)
            of_draws = [metrics.mean_average_precision(actual, scores.probabilities, one) for one in weights]
            drawn = metrics.interval_of(figures[name], np.concatenate(of_draws).tolist())
            return metrics.where_it_varies(drawn, len(np.unique(groups)), is_share=False).as_json()

        def figure(at: np.ndarray) -> float:
            if name in ("accuracy", "exact_match"):
                return metrics.accuracy(actual[at], predicted[at])
            if name == "top5":
                return metrics.top_k(actual[at], scores.probabilities[at], 5)
            return metrics.f1_scores(actual[at], predicted[at], num_classes)[name]

        drawn = metrics.bootstrap(figure, len(rows), groups=groups, repeats=repeats)
        is_share = name in ("accuracy", "exact_match", "top5")
        return metrics.where_it_varies(drawn, len(np.unique(groups)), is_share=is_share).as_json()

    each = metrics.per_class(actual, predicted, scores.probabilities)
    found: dict[str, Any] = {
        "num_samples": len(rows),
        "num_recordings": len(np.unique(groups)),
        "figures": figures,
        "intervals": {name: interval(name) for name in _WITH_INTERVAL if name in figures},
        "classes": [
            {
                "label": label,
                "support": int(each.support[code]),
                "precision": float(each.precision[code]),
                "recall": float(each.recall[code]),
                "f1": float(each.f1[code]),
                "average_precision": float(each.average_precision[code]),
            }
            for code, label in enumerate(table.labels)
        ],
    }
    for name, values in (("subjects", table.subjects), ("sessions", table.sessions)):
        of_row = np.array(values, object)[groups]
        if all(of_row) and len(set(of_row)) >= 1:
            found[name] = _by_group(of_row, actual, predicted, num_classes)
    return found


def _by_group(group: np.ndarray, actual: np.ndarray, predicted: np.ndarray, num_classes: int) -> list[dict[str, Any]]:
    from actionprep.datasets.natural_order import natural_key

    rows = []
    for name in sorted(set(group.tolist()), key=natural_key):
        at = group == name
        rows.append(
            {
                "name": name,
                "snippets": int(at.sum()),
                "accuracy": metrics.accuracy(actual[at], predicted[at]),
                "macro_f1": metrics.f1_scores(actual[at], predicted[at], num_classes)["macro_f1"],
            }
        )
    return rows


def add_calibration(
    found: dict[str, Any], scores: Scores, table: SnippetTable, held_out: tuple[str, Scores] | None
) -> np.ndarray:
    """Add the calibration to what was found; returns the probabilities (S, C) after temperature scaling.

    held_out: the checkpoint's name and its scores of the val snippets, which the temperature is fitted to.
    """
    several = is_multi_label(table)
    actual = actual_of(table, scores.rows)
    plain = calibration.reliability(actual, scores.probabilities)
    about: dict[str, Any] = {
        "error": plain.error,
        "negative_log_likelihood": calibration.negative_log_likelihood(actual, scores.probabilities),
        "bins": plain.rows(),
        "temperature": 1.0,
    }
    probabilities = scores.probabilities
    if held_out is not None:
        name, val = held_out
        val_actual = actual_of(table, val.rows)
        temperature = calibration.fit_temperature(val.each, val_actual)
        probabilities = calibration.scaled_probabilities(scores.each, temperature, several=several)
        scaled = calibration.reliability(actual, probabilities)
        about |= {
            "temperature": temperature,
            "from": f"{name} on {len(val.rows)} val snippets",
            "scaled_error": scaled.error,
            "scaled_negative_log_likelihood": calibration.negative_log_likelihood(actual, probabilities),
            "scaled_bins": scaled.rows(),
        }
        if several:
            thresholds = calibration.choose_thresholds(val_actual, val.probabilities)
            at_them = (scores.probabilities >= thresholds).astype(np.uint8)
            found["thresholds"] = dict(zip(table.labels, thresholds.tolist(), strict=True))
            found["figures_at_thresholds"] = metrics.summary(actual, at_them, scores.probabilities)
    found["calibration"] = about
    found["figures"]["calibration_error"] = about["error"]
    return probabilities


_WITH_INTERVAL = ("accuracy", "exact_match", "top5", "macro_f1", "micro_f1", "weighted_f1", "samples_f1", "map")
