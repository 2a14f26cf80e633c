"""Result files of a test: write them into the folder of a run, and read them."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from actionprep.datasets.split_choice import is_multi_label
from actionprep.errors import UserError
from actionprep.training.evaluation import metrics
from actionprep.training.evaluation.scoring import Scores, actual_of, predicted_of
from actionprep.training.run import BEST, TESTED, VALIDATED, Run

if TYPE_CHECKING:
    from actionprep.datasets.products.snippets import SnippetTable
    from actionprep.training.checkpoints import Checkpoint


ANSWERS = ("actuals", "predictions", "probabilities")
"""Arrays that every test writes, including tests of fusions."""


def write_tested(run: Run, result: Mapping[str, Any], scores: Scores, table: SnippetTable) -> None:
    """Write the arrays, the tables and finally test.json.

    Args:
        run: Run to write to.
        result: Result of `summary.metrics_of`.
        scores: Predictions for the test snippets.
        table: Table of snippets.
    """
    rows = scores.rows
    multi_label = is_multi_label(table)
    actual = actual_of(table, rows)
    predicted = predicted_of(scores.probabilities, multi_label=multi_label, evidence=scores.evidence)
    num_classes = len(table.labels)
    run.write_array("actuals.npy", actual)
    run.write_array("predictions.npy", predicted)
    run.write_array("logits.npy", scores.logits.astype(np.float32))
    run.write_array("probabilities.npy", scores.probabilities.astype(np.float32))
    confusion = (
        metrics.multilabel_confusion(actual, predicted)
        if multi_label
        else metrics.confusion_matrix(actual, predicted, num_classes)
    )
    run.write_array("confusion.npy", confusion)
    run.write_table("per_class.csv", result["classes"])

    def names(answers: np.ndarray, position: int) -> str:
        if multi_label:
            return " ".join(table.labels[code] for code in np.flatnonzero(answers[position]))
        return table.labels[answers[position]] if answers[position] >= 0 else ""

    run.write_table(
        "samples.csv",
        [
            {
                "row": int(row),
                "recording": table.recordings[table.recording[row]],
                "onset": float(table.onset[row]),
                "offset": float(table.offset[row]),
                "subject": table.subjects[table.recording[row]],
                "actual": names(actual, position),
                "predicted": names(predicted, position),
                "probability": round(float(scores.probabilities[position].max()), 6),
                "evidence": int(scores.evidence is None or scores.evidence[position]),
            }
            for position, row in enumerate(rows)
        ],
    )
    for name in ("subjects", "sessions", "views"):
        if result.get(name):
            run.write_table(f"{name}.csv", result[name])
    run.write_json(TESTED, result)


def label_thresholds(checkpoint: Checkpoint) -> np.ndarray | None:
    """Read the per-label thresholds that a test of this checkpoint's run tuned on the val snippets.

    Args:
        checkpoint: Checkpoint inside the folder of its run.

    Returns:
        Thresholds in the order of the labels, shape (C,). None if a snippet has one label, if the run was not tested or
        has no val part, or if the model labels every time step, because the thresholds apply to probabilities of full
        snippets.
    """
    if not checkpoint.card["several_labels"] or checkpoint.recipe.targets == "frame":
        return None
    # Every test of a run tunes them on the same val snippets, whichever part it scores. A test of the val part itself uses
    # the weights before a refit.
    tests = {checkpoint.path.name, *((VALIDATED,) if checkpoint.path.name == BEST else ())}
    for folder in (checkpoint.path.parent, *(checkpoint.path.parent / part for part in ("val", "train"))):
        tested = Run(folder).tested or {}
        thresholds = tested.get("thresholds")
        if thresholds and tested.get("checkpoint") in tests and set(thresholds) == set(checkpoint.labels):
            return np.array([thresholds[label] for label in checkpoint.labels], float)
    return None


def saved_arrays(run: Run, *names: str) -> dict[str, np.ndarray]:
    """Read arrays that a test wrote into the folder of a run.

    Args:
        run: Tested run or fusion.
        names: Arrays to read. Default: those of `ANSWERS`, and `logits` and `calibrated` if present.

    Returns:
        Arrays by name, and `recording` with the recording name of each snippet.

    Raises:
        UserError: If a file is missing or damaged, or if the files belong to different tests.
    """
    if not names:
        optional = (name for name in ("logits", "calibrated") if (run.folder / f"{name}.npy").exists())
        names = (*ANSWERS, *optional)
    arrays = {name: _array(run, f"{name}.npy") for name in names}
    arrays["recording"] = _recordings(run)
    sizes = {name: len(values) for name, values in arrays.items() if name != "logits"}
    if len(set(sizes.values())) > 1:
        sizes_text = ", ".join(f"{name} {count}" for name, count in sizes.items())
        raise UserError(
            f"The result files in {run.folder} belong to different tests. Their numbers of snippets differ: {sizes_text}. "
            f"{run.how_to_test}"
        )
    return arrays


def _array(run: Run, name: str) -> np.ndarray:
    path = run.folder / name
    try:
        values: np.ndarray = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"{path} is missing. {run.how_to_test}") from None
    except (ValueError, EOFError, OSError) as error:
        raise UserError(f"{path} is damaged: {error}. {run.how_to_test}") from None
    return values


def _recordings(run: Run) -> np.ndarray:
    path = run.folder / "samples.csv"
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return np.array([row["recording"] for row in csv.DictReader(file)])
    except FileNotFoundError:
        raise UserError(f"{path} is missing. {run.how_to_test}") from None
    except KeyError:
        raise UserError(f"{path} is damaged: it has no column 'recording'. {run.how_to_test}") from None
    except (ValueError, OSError, csv.Error) as error:
        raise UserError(f"{path} is damaged: {error}. {run.how_to_test}") from None
