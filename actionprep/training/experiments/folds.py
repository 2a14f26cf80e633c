"""Cross-validation: a run for each fold, and one table over all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from actionprep.datasets.paths import below
from actionprep.datasets.store.zarr_store import Store
from actionprep.training.evaluation.bootstrap import SeedAnswers, intervals
from actionprep.training.fit import fit
from actionprep.training.loop.progress import Told, silent
from actionprep.training.loop.training_plan import as_recipe_wants, resolve_recipe
from actionprep.training.recipes import Recipe
from actionprep.training.run import Run
from actionprep.training.split_choice import SplitChoice, check_train, choose_folds

if TYPE_CHECKING:
    from actionprep.datasets.splits import By


@dataclass(frozen=True)
class FoldRuns:
    """The runs of a cross-validation and their figures.

    rows:    for each fold its group, number of test snippets, accuracy and macro F1.
    summary: accuracy and macro F1 over all test snippets of all folds together, with intervals over recordings, and the
             mean and spread over those folds that have a figure (a fold without any label has no macro F1), with their
             number.
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
    tell: Told | None = None,
    resume: bool = False,
    **options: Any,
) -> FoldRuns:
    """Cross-validate: train and test a run for each fold, and one table over all.

    by, num_folds: every subject (session, recording) is in test once; num_folds None leaves one out at a time. The
    runs lie in fold-01, fold-02, … of the folder, the table in folds.csv and folds.json. resume: folds that are done
    are not trained again. Other options as for `fit`.
    """
    from actionprep.training.datasets import read_table
    from actionprep.training.evaluation.result_files import saved_arrays
    from actionprep.training.test import run_test

    tell = tell or silent
    store = (store if isinstance(store, Store) else Store(store)).snapshot()
    # All folds have the same, also where a recipe that it names is edited meanwhile.
    chosen = resolve_recipe(store, recipe, tell).self_contained()
    table = read_table(store, snippets)
    folds = choose_folds(table, as_recipe_wants(split, chosen), by=by, num_folds=num_folds)
    for parts in folds:
        check_train(table, parts.split)
    folder = Path(run_folder)
    runs, rows, arrays = [], [], []
    for number, parts in enumerate(folds, start=1):
        tell(f"Fold {number} of {len(folds)}: {parts.why}")
        run = fit(
            store,
            chosen,
            below(folder, f"fold-{number:02d}"),
            snippets=snippets,
            split=parts,
            resume=resume,
            tell=tell,
            **options,
        )
        found = run.tested if resume and run.tested is not None else run_test(run, store)
        assert found is not None
        runs.append(run)
        rows.append(
            {
                "fold": number,
                by: " + ".join(parts.split.groups["test"]),
                "snippets": found["num_samples"],
                "accuracy": found["figures"]["accuracy"],
                "macro_f1": found["figures"]["macro_f1"],
            }
        )
        arrays.append(saved_arrays(run))
    summary = over_folds(arrays, rows)
    outer = Run(folder)
    outer.write_table("folds.csv", rows)
    outer.write_json("folds.json", {"by": by, "folds": rows, "summary": summary, "recipe": chosen.name})
    return FoldRuns(folder, tuple(runs), tuple(rows), summary)


def over_folds(arrays: Sequence[Mapping[str, np.ndarray]], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Figures over the test snippets of all folds together, and their mean and spread over the folds."""
    from actionprep.training.evaluation import metrics

    actual, predicted = (np.concatenate([one[name] for one in arrays]) for name in ("actuals", "predictions"))
    groups = np.concatenate([one["recording"] for one in arrays])
    num_classes = arrays[0]["probabilities"].shape[1]
    drawn = metrics.bootstrap(lambda at: metrics.accuracy(actual[at], predicted[at]), len(actual), groups=groups)
    return {
        "num_samples": len(actual),
        "accuracy": metrics.where_it_varies(drawn, len(np.unique(groups)), is_share=True).as_json(),
        "macro_f1": metrics.f1_scores(actual, predicted, num_classes)["macro_f1"],
        "over_folds": {name: _spread(rows, name, "folds") for name in ("accuracy", "macro_f1")},
    }


def over_splits(
    arrays: Sequence[Mapping[str, np.ndarray]], rows: Sequence[Mapping[str, Any]], *, num_samples: int
) -> dict[str, Any]:
    """The mean over stored splits, as `compare` gives it, and their spread; num_samples: test snippets, each once."""
    answers = [SeedAnswers.of([one], str(row["split"])) for one, row in zip(arrays, rows, strict=True)]
    accuracy, macro_f1, _ = intervals(answers, repeats=1000)
    return {
        "num_samples": num_samples,
        "accuracy": accuracy.as_json(),
        "macro_f1": macro_f1.value,
        "over_splits": {name: _spread(rows, name, "splits") for name in ("accuracy", "macro_f1")},
    }


def _spread(rows: Sequence[Mapping[str, Any]], name: str, counted: str) -> dict[str, Any]:
    """Mean and spread of a figure over those rows that have it, with their number."""
    from actionprep.training.evaluation import metrics

    given = np.array([row[name] for row in rows], np.float64)
    there = given[~np.isnan(given)]
    mean, deviation = metrics.mean_and_spread(there.tolist()) if len(there) else (float("nan"), float("nan"))
    return {"mean": mean, "std": deviation, counted: len(there)}
