"""Cross-validation: one run per fold, and one table of all folds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from actionprep.datasets.paths import below
from actionprep.datasets.split_choice import SplitChoice, check_train, choose_folds
from actionprep.datasets.store.opening import open_store
from actionprep.datasets.store.zarr_store import Store
from actionprep.errors import UserError
from actionprep.training.evaluation.bootstrap import SeedAnswers, bootstrap, intervals
from actionprep.training.fit import fit
from actionprep.training.loop.progress import Log, silent
from actionprep.training.loop.training_plan import resolve_recipe, with_val_by_of
from actionprep.training.recipes import Recipe
from actionprep.training.run import FINAL, Run

if TYPE_CHECKING:
    from actionprep.datasets.splits import By


@dataclass(frozen=True)
class FoldRuns:
    """Runs of a cross-validation and their metrics.

    Attributes:
        folder: Folder with the runs.
        runs: One run per fold.
        rows: Per fold its group, number of test snippets, accuracy and macro F1.
        summary: Accuracy, with an interval over recordings, and macro F1 of the test snippets of all folds together.
            Also mean and standard deviation over the folds that have the metric, with their number. A fold without any
            label has no macro F1.
    """

    folder: Path
    runs: tuple[Run, ...]
    rows: tuple[dict[str, Any], ...]
    summary: dict[str, Any]


def fit_folds(
    store: Store | str | Path,
    recipe: Recipe | str = "auto",
    run_folder: str | Path = "run",
    *,
    by: By = "subject",
    num_folds: int | None = None,
    snippets: str = "default",
    split: SplitChoice = SplitChoice(),
    log: Log | None = None,
    resume: bool = False,
    final: bool = False,
    **options: Any,
) -> FoldRuns:
    """Cross-validate: train and test one run per fold.

    The runs are written to fold-01, fold-02, … inside the folder, the table to folds.csv and folds.json.

    Args:
        store: Store with the snippets.
        recipe: Recipe or its name.
        run_folder: Folder of the runs.
        by: What is left out: every subject (session, recording) is in the test part once.
        num_folds: Number of folds; None leaves one subject (session, recording) out at a time.
        snippets: Name of the table of snippets.
        split: How the rest of each fold is divided into train and val.
        log: Function that receives progress messages.
        resume: Keep finished folds and resume an interrupted one.
        final: Whether to train one more run on the recordings of all folds, without test part, in the folder `final`.
        options: Further options of `fit`.

    Returns:
        The runs and their metrics.
    """
    from actionprep.training.datasets import read_table
    from actionprep.training.evaluation.result_files import saved_arrays
    from actionprep.training.test import run_test

    log = log or silent
    store = open_store(store).snapshot()
    # All folds use the same recipe, even if its file is edited meanwhile.
    chosen = resolve_recipe(store, recipe, log).self_contained()
    table = read_table(store, snippets)
    folds = choose_folds(table, with_val_by_of(split, chosen), by=by, num_folds=num_folds)
    for parts in folds:
        check_train(table, parts.split)
    folder = Path(run_folder)
    runs, rows, arrays = [], [], []
    for number, parts in enumerate(folds, start=1):
        log(f"Fold {number} of {len(folds)}: {parts.why}")
        run = fit(
            store,
            chosen,
            below(folder, f"fold-{number:02d}"),
            snippets=snippets,
            split=parts,
            resume=resume,
            log=log,
            **options,
        )
        tested = run.tested if resume and run.tested is not None else run_test(run, store)
        assert tested is not None
        runs.append(run)
        rows.append(
            {
                "fold": number,
                by: " + ".join(parts.split.groups["test"]),
                "snippets": tested["num_samples"],
                "accuracy": tested["metrics"]["accuracy"],
                "macro_f1": tested["metrics"]["macro_f1"],
            }
        )
        arrays.append(saved_arrays(run))
    summary = over_folds(arrays, rows)
    outer = Run(folder)
    outer.write_table("folds.csv", rows)
    outer.write_json("folds.json", {"by": by, "folds": rows, "summary": summary, "recipe": chosen.name})
    if final:
        log("Final model, on the recordings of all folds")
        everything = replace(split, by=by, test_share=0.0, train=(), val=(), test=(), stored=None)
        fit(store, chosen, below(folder, FINAL), snippets=snippets, split=everything, resume=resume, log=log, **options)
    return FoldRuns(folder, tuple(runs), tuple(rows), summary)


@dataclass(frozen=True)
class JointResult:
    """Result of all folds of a cross-validation together.

    Attributes:
        folder: Folder of the cross-validation.
        labels: Names of the classes.
        rows: Per fold its group, number of test snippets, accuracy and macro F1.
        summary: See `FoldRuns`.
        confusion: Test snippets of all folds by actual class (row) and predicted class (column), shape (C, C). With
            several labels per snippet, see `metrics.multilabel_confusion`, shape (C, 2, 2).
    """

    folder: Path
    labels: tuple[str, ...]
    rows: tuple[dict[str, Any], ...]
    summary: dict[str, Any]
    confusion: np.ndarray


def joint_result(folder: str | Path) -> JointResult:
    """Read the tests of a cross-validation and pool them.

    Args:
        folder: Folder of 'actiontrain fit --folds'.

    Raises:
        UserError: If folds.json or the test of a fold is missing or damaged.
    """
    from actionprep.training.evaluation import metrics
    from actionprep.training.evaluation.result_files import saved_arrays
    from actionprep.training.fusion import fold_names

    folder = Path(folder)
    try:
        document = json.loads((folder / "folds.json").read_text(encoding="utf-8"))
        rows, summary = tuple(document["folds"]), document["summary"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder / 'folds.json'} cannot be read ({error!r}). Complete the cross-validation: actiontrain fit --folds … "
            f"--run {folder.name} --resume"
        ) from None
    runs = [Run(folder / name) for name in fold_names(folder)]
    if not runs:
        raise UserError(f"{folder} contains no folds: expected fold-01, fold-02, … or split-NAME.")
    labels = runs[0].labels
    arrays = [saved_arrays(run, "actuals", "predictions") for run in runs]
    actual, predicted = (np.concatenate([test[name] for test in arrays]) for name in ("actuals", "predictions"))
    if actual.ndim == 2:
        confusion = metrics.multilabel_confusion(actual, predicted)
    else:
        confusion = metrics.confusion_matrix(actual, predicted, len(labels))
    return JointResult(folder, labels, rows, summary, confusion)


def over_folds(arrays: Sequence[Mapping[str, np.ndarray]], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Compute metrics over the test snippets of all folds together, and their mean and spread over the folds.

    Args:
        arrays: Saved arrays of the test of each fold.
        rows: Row of each fold with `accuracy` and `macro_f1`.

    Returns:
        The summary of `FoldRuns`.
    """
    from actionprep.training.evaluation import metrics

    actual, predicted = (np.concatenate([test[name] for test in arrays]) for name in ("actuals", "predictions"))
    groups = np.concatenate([test["recording"] for test in arrays])
    num_classes = arrays[0]["probabilities"].shape[1]
    accuracy = {"accuracy": metrics.accuracy(actual, predicted)}
    correct = actual == predicted
    correct = correct.all(axis=1) if correct.ndim == 2 else correct
    intervals = bootstrap(
        accuracy,
        lambda weights: {"accuracy": metrics.ratio(weights @ correct, weights.sum(axis=1))},
        np.unique(groups, return_inverse=True)[1],
        shares=("accuracy",),
    )
    return {
        "num_samples": len(actual),
        "accuracy": intervals["accuracy"].as_json(),
        "macro_f1": metrics.f1_scores(actual, predicted, num_classes)["macro_f1"],
        "over_folds": {name: _spread(rows, name, "folds") for name in ("accuracy", "macro_f1")},
    }


def over_splits(
    arrays: Sequence[Mapping[str, np.ndarray]], rows: Sequence[Mapping[str, Any]], *, num_samples: int
) -> dict[str, Any]:
    """Compute the mean over stored splits, as `compare` does, and the spread over the splits.

    Args:
        arrays: Saved arrays of the test on each split.
        rows: Row of each split with `split`, `accuracy` and `macro_f1`.
        num_samples: Number of test snippets of all splits, each counted once.

    Returns:
        `num_samples`, `accuracy` with its interval, `macro_f1` and `over_splits` with mean and standard deviation.
    """
    answers = [SeedAnswers.of([test], str(row["split"])) for test, row in zip(arrays, rows, strict=True)]
    accuracy, macro_f1, _ = intervals(answers, repeats=1000)
    return {
        "num_samples": num_samples,
        "accuracy": accuracy.as_json(),
        "macro_f1": macro_f1.value,
        "over_splits": {name: _spread(rows, name, "splits") for name in ("accuracy", "macro_f1")},
    }


def _spread(rows: Sequence[Mapping[str, Any]], name: str, counted: str) -> dict[str, Any]:
    """Mean and standard deviation of a metric over the rows that have it, with their number."""
    from actionprep.training.evaluation import metrics

    values = np.array([row[name] for row in rows], np.float64)
    defined = values[~np.isnan(values)]
    mean, deviation = metrics.mean_and_spread(defined.tolist()) if len(defined) else (float("nan"), float("nan"))
    return {"mean": mean, "std": deviation, counted: len(defined)}
