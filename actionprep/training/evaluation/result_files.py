"""The files that a test leaves in a run's folder, written and read."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from actionprep.errors import UserError
from actionprep.training.evaluation import metrics
from actionprep.training.evaluation.scoring import Scores, actual_of, predicted_of
from actionprep.training.run import BEST, TESTED, VALIDATED, Run
from actionprep.training.split_choice import is_multi_label

if TYPE_CHECKING:
    from actionprep.datasets.products.snippets import SnippetTable
    from actionprep.training.checkpoints import Checkpoint


ANSWERS = ("actuals", "predictions", "probabilities")
"""Arrays that every test leaves, those of fusions too."""


def write_tested(run: Run, found: Mapping[str, Any], scores: Scores, table: SnippetTable) -> None:
    """Write arrays, tables and test.json, which comes last."""
    rows = scores.rows
    several = is_multi_label(table)
    actual = actual_of(table, rows)
    predicted = predicted_of(scores.probabilities, several=several)
    num_classes = len(table.labels)
    run.write_array("actuals.npy", actual)
    run.write_array("predictions.npy", predicted)
    run.write_array("logits.npy", scores.logits.astype(np.float32))
    run.write_array("probabilities.npy", scores.probabilities.astype(np.float32))
    confusion = (
        metrics.multilabel_confusion(actual, predicted)
        if several
        else metrics.confusion_matrix(actual, predicted, num_classes)
    )
    run.write_array("confusion.npy", confusion)
    run.write_table("per_class.csv", found["classes"])

    def named(code: int) -> str:
        if several:
            return " ".join(table.labels[one] for one in np.flatnonzero(actual[code]))
        return table.labels[actual[code]]

    def said(code: int) -> str:
        if several:
            return " ".join(table.labels[one] for one in np.flatnonzero(predicted[code]))
        return table.labels[predicted[code]]

    run.write_table(
        "samples.csv",
        [
            {
                "row": int(row),
                "recording": table.recordings[table.recording[row]],
                "onset": float(table.onset[row]),
                "offset": float(table.offset[row]),
                "subject": table.subjects[table.recording[row]],
                "actual": named(at),
                "predicted": said(at),
                "probability": round(float(scores.probabilities[at].max()), 6),
            }
            for at, row in enumerate(rows)
        ],
    )
    for name in ("subjects", "sessions", "views"):
        if found.get(name):
            run.write_table(f"{name}.csv", found[name])
    run.write_json(TESTED, found)


def label_thresholds(checkpoint: Checkpoint) -> np.ndarray | None:
    """(C) The probabilities from which labels are best said, as val gave them in a test of this checkpoint's run.

    None where a snippet has one label, where the run was not tested or has no val part, and of a model that labels every
    instant: they are of the probabilities of whole snippets.
    """
    if not checkpoint.card["several_labels"] or checkpoint.recipe.targets == "frame":
        return None
    # All tests of a run choose them from the same val snippets, whichever part they score; of val itself they score the
    # weights before a refit.
    tests = {checkpoint.path.name, *((VALIDATED,) if checkpoint.path.name == BEST else ())}
    for folder in (checkpoint.path.parent, *(checkpoint.path.parent / part for part in ("val", "train"))):
        tested = Run(folder).tested or {}
        found = tested.get("thresholds")
        if found and tested.get("checkpoint") in tests and set(found) == set(checkpoint.labels):
            return np.array([found[label] for label in checkpoint.labels], float)
    return None


def saved_arrays(run: Run, *names: str) -> dict[str, np.ndarray]:
    """Arrays that `test` left in a run's folder, by name; recording holds the name of each snippet's recording.

    names: those of ANSWERS, and logits and calibrated where they are there, when left out.
    Raises UserError that names a file which is missing or damaged.
    """
    if not names:
        more = (name for name in ("logits", "calibrated") if (run.folder / f"{name}.npy").exists())
        names = (*ANSWERS, *more)
    found = {name: _array(run, f"{name}.npy") for name in names}
    found["recording"] = _recordings(run)
    sizes = {name: len(values) for name, values in found.items() if name != "logits"}
    if len(set(sizes.values())) > 1:
        said = ", ".join(f"{count} of {name}" for name, count in sizes.items())
        raise UserError(
            f"The files of the test in {run.folder} are not of one test: snippets are {said}. {run.how_to_test}"
        )
    return found


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
