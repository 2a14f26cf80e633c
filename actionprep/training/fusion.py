"""Late fusion: pool the predictions of several trained runs, with temperatures and weights chosen on val."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from actionprep.datasets.paths import below
from actionprep.datasets.store.opening import open_store
from actionprep.errors import UserError
from actionprep.json_values import counted
from actionprep.training.evaluation.calibration import scaled_probabilities
from actionprep.training.evaluation.pooling import Pool, pool_weights, pooled
from actionprep.training.run import FACTS, FUSION, Run, may_name, now, placed, source_from

if TYPE_CHECKING:
    from actionprep.datasets.products.snippets import SnippetTable

Weighting = Literal["val", "equal"] | Sequence[float]


@dataclass(frozen=True)
class Mixture:
    """The runs of a fusion with their weights and temperatures.

    Attributes:
        runs: The runs.
        weights: Weight of each run, shape (R,); they sum to 1.
        temperatures: Temperature of each run's probabilities before pooling, shape (R,); 1 leaves them unchanged.
        why: How weights and temperatures were chosen, for messages.
        by_val: Whether they were chosen on val.
        pool: Kind of pool.
    """

    runs: tuple[Run, ...]
    weights: tuple[float, ...]
    temperatures: tuple[float, ...]
    why: str
    by_val: bool = False
    pool: Pool = "log"


@dataclass(frozen=True)
class Fused:
    """Result of a fusion: the folder with the files of a test, the runs with their weights, and the content of test.json."""

    folder: Path
    mixture: Mixture
    tested: dict[str, Any]

    @property
    def weights(self) -> tuple[float, ...]:
        """Weights of the runs, in their order."""
        return self.mixture.weights


def fuse(
    runs: Sequence[Run | str | Path],
    folder: str | Path,
    *,
    weights: Weighting = "val",
    device: str = "auto",
    log: Callable[[str], None] = lambda _: None,
) -> Fused:
    """Pool the probabilities of runs on the same snippets and split, and write the files of a test to a folder.

    The pool is logarithmic (see `pooling.pooled`). Runs without a test are tested first.

    Args:
        runs: Runs or their folders, at least two.
        folder: Folder to write to.
        weights: "val" chooses the weights that maximize the likelihood of the val snippets, scored with weights before a
            refit. The probabilities of each run are scaled by the temperature of its test first, because an underconfident
            run would count too little. "equal" gives all runs the same weight. Numbers set one weight per run.
        device: Device of the models.
        log: Receives progress messages.

    Returns:
        The fusion and its test.

    Raises:
        UserError: If there are fewer than two runs, if their snippets, classes or splits differ, or if a weight is
            negative or not finite, or all are 0.
    """
    from actionprep.training.evaluation.report import write_report
    from actionprep.training.evaluation.result_files import saved_arrays
    from actionprep.training.test import run_test

    _check_weights(weights, len(runs))
    opened = [run if isinstance(run, Run) else Run.open(run) for run in runs]
    table = _common_table(opened)
    for run in opened:
        if run.tested is None:
            log(f"Testing {run.folder}")
            run_test(run, device=device, view_subsets=False)
    mixture = _mixture(opened, table, weights, device)
    for run, share, temperature in zip(opened, mixture.weights, mixture.temperatures, strict=True):
        log(f"{share:.3f}  {run.folder}" + (f"  at temperature {temperature:.2f}" if temperature != 1 else ""))
    log(f"Weights: {mixture.why}")
    kind = "calibrated" if mixture.by_val else "probabilities"
    probabilities = np.stack([saved_arrays(run, kind)[kind].astype(np.float64) for run in opened])
    several = bool(opened[0].facts["several_labels"])
    together = pooled(probabilities, np.array(mixture.weights), mixture.pool, multi_label=several)
    rows = np.array(opened[0].facts["split"]["rows"]["test"], np.int64)
    tested = _write_scores(Path(folder), table, rows, together)
    target = Run(Path(folder))
    tested["alone"] = [
        {
            "run": source_from(target.folder, run.folder),
            "weight": share,
            "temperature": temperature,
            "accuracy": run_tested(run)["metrics"]["accuracy"],
        }
        for run, share, temperature in zip(opened, mixture.weights, mixture.temperatures, strict=True)
    ]
    target.write_json("test.json", tested)
    target.write_json(
        FUSION,
        {
            "runs": [source_from(target.folder, run.folder) for run in opened],
            "weights": mixture.weights,
            "temperatures": mixture.temperatures,
            "why": mixture.why,
            "by_val": mixture.by_val,
            "pool": mixture.pool,
            "when": now(),
        },
    )
    write_report(target)
    return Fused(Path(folder), mixture, tested)


def fuse_folds(
    folders: Sequence[str | Path],
    folder: str | Path,
    *,
    weights: Weighting = "val",
    device: str = "auto",
    log: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Fuse cross-validations fold by fold.

    The metrics of folds are computed over the snippets of all folds. Those of stored splits are averaged over the splits,
    as in `compare`.

    Args:
        folders: Folders of 'actiontrain fit --folds', or of one seed of a sweep over folds or stored splits. Each contains
            fold-01, fold-02, … (or split-NAME, …); runs of the same name must have the same test snippets.
        folder: Folder to write to.
        weights: As in `fuse`.
        device: Device of the models.
        log: Receives progress messages.

    Returns:
        The content of folds.json of the new folder.

    Raises:
        UserError: If the folders have different folds, or as `fuse`.
    """
    from actionprep.training.evaluation.result_files import saved_arrays
    from actionprep.training.experiments.folds import over_folds, over_splits

    names = [fold_names(path) for path in folders]
    if len({tuple(folds) for folds in names}) != 1 or not names[0]:
        raise UserError(
            "Cross-validations are fused fold by fold, but these have different folds: "
            + "; ".join(f"{path} has {len(folds)}" for path, folds in zip(folders, names, strict=True))
            + "."
        )
    rows: list[dict[str, Any]] = []
    arrays = []
    tested_rows: set[int] = set()
    of_splits = names[0][0].startswith("split-")
    for number, name in enumerate(names[0], start=1):
        count = f"{number} of {len(names[0])}"
        called = {"split": name.removeprefix("split-")} if of_splits else {"fold": number}
        log(f"Split {called['split']} ({count})" if of_splits else f"Fold {count}")
        made = fuse(
            [Path(path) / name for path in folders], below(folder, name), weights=weights, device=device, log=log
        )
        metrics = made.tested["metrics"]
        rows.append(
            {
                **called,
                "snippets": made.tested["num_samples"],
                "accuracy": metrics["accuracy"],
                "macro_f1": metrics["macro_f1"],
                "weights": " ".join(f"{share:.3f}" for share in made.weights),
            }
        )
        arrays.append(saved_arrays(Run(made.folder)))
        tested_rows |= set(made.mixture.runs[0].facts["split"]["rows"]["test"])
    summary = over_splits(arrays, rows, num_samples=len(tested_rows)) if of_splits else over_folds(arrays, rows)
    named = [source_from(Path(folder), Path(path)) for path in folders]
    document = {"folds": rows, "summary": summary, "runs": named}
    outer = Run(Path(folder))
    outer.write_table("folds.csv", rows)
    outer.write_json("folds.json", document)
    return document


def fold_names(folder: str | Path) -> list[str]:
    """Return the names of the runs of a cross-validation, or of a sweep on stored splits; empty for other folders."""
    names = [path.parent.name for path in Path(folder).glob("*/" + FACTS)]
    names += [path.parent.name for path in Path(folder).glob("*/" + FUSION)]
    return sorted(name for name in names if name.startswith(("fold-", "split-")))


def read_fusion(folder: str | Path) -> Mixture | None:
    """Read a fusion, even if its runs no longer exist; None if the folder is not a fusion."""
    path = Path(folder) / FUSION
    if not path.is_file():
        return None
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        named = [str(placed(Path(folder), run)) for run in document["runs"]]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error!r}). Fuse the runs again: actiontrain fuse RUN RUN …") from None
    foreign = [name for name in named if not may_name(Path(folder), name)]
    if foreign:
        raise UserError(
            f"{path} names runs outside the folder of its study, so they are not read: {', '.join(foreign)}. If they are "
            "yours, move them into the study, and fuse them again: actiontrain fuse RUN RUN …"
        )
    try:
        runs = tuple(Run(Path(name)) for name in named)
        weights = tuple(map(float, document["weights"]))
        # Fusions of earlier versions have no temperatures and no pool: they averaged, at first without temperatures.
        temperatures = tuple(map(float, document.get("temperatures", [1] * len(runs))))
        if not len(runs) == len(weights) == len(temperatures):
            raise ValueError(f"{len(runs)} runs, {len(weights)} weights, {len(temperatures)} temperatures")
        why = str(document["why"])
        # Fusions of earlier versions record it only in the sentence.
        by_val = bool(document.get("by_val", why.startswith("chosen on ")))
        pool: Pool = "log" if document.get("pool", "mean") == "log" else "mean"
        return Mixture(runs, weights, temperatures, why, by_val, pool)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error!r}). Fuse the runs again: actiontrain fuse RUN RUN …") from None


def fused_runs(folder: str | Path) -> Mixture | None:
    """Read a fusion; None if the folder is not a fusion.

    Raises:
        UserError: If a run no longer exists.
    """
    mixture = read_fusion(folder)
    if mixture is None:
        return None
    gone = [str(run.folder) for run in mixture.runs if not (run.folder / FACTS).is_file()]
    if gone:
        is_, it = ("is", "it") if len(gone) == 1 else ("are", "them")
        raise UserError(
            f"The fusion {folder} pools {len(mixture.runs)} runs, but {len(gone)} of them {is_} missing: "
            f"{', '.join(gone)}.\nRestore {it}, or fuse the remaining runs: actiontrain fuse RUN RUN …"
        )
    return mixture


def run_tested(run: Run) -> dict[str, Any]:
    """Return the test of a run; raises UserError if it was not tested."""
    result = run.tested
    if result is None:
        raise UserError(f"{run.folder} was not tested yet: actiontrain test {run.folder.name}")
    return result


def _common_table(runs: Sequence[Run]) -> SnippetTable:
    """Read the table of snippets that all runs share; raises UserError with the difference if they do not."""
    from actionprep.training.datasets import read_table

    if len(runs) < 2:
        raise UserError("A fusion needs at least two runs: actiontrain fuse RUN RUN …")
    first, facts = runs[0], [run.facts for run in runs]
    stores = [open_store(run.store) for run in runs]
    digests = [
        store.item("snippets", recorded["snippets"]).digest for store, recorded in zip(stores, facts, strict=True)
    ]
    for run, other, digest in zip(runs[1:], facts[1:], digests[1:], strict=True):
        if other["labels"] != facts[0]["labels"]:
            what = f"classes: {', '.join(facts[0]['labels'])} and {', '.join(other['labels'])}"
        elif digest != digests[0]:
            what = f"snippets: snippets/{facts[0]['snippets']} and snippets/{other['snippets']} are not the same table"
        elif other["split"]["rows"]["test"] != facts[0]["split"]["rows"]["test"]:
            what = "test parts: give both trainings the same --train-groups, --test-groups, --split or --seed"
        elif set(other["split"]["rows"]["train"]) & set(facts[0]["split"]["rows"]["test"]):
            what = "splits: one was trained on test snippets of the other"
        else:
            continue
        raise UserError(f"{first.folder} and {run.folder} cannot be fused, because they have different {what}.")
    return read_table(stores[0], facts[0]["snippets"])


def _check_weights(weights: Weighting, num_runs: int) -> None:
    if isinstance(weights, str):
        if weights not in ("val", "equal"):
            raise UserError(f"Expected weights 'val', 'equal' or one number per run, got '{weights}'.")
        return
    fine = all(math.isfinite(weight) and weight >= 0 for weight in weights) and 0 < sum(weights) < math.inf
    if len(weights) != num_runs or not fine:
        given = ", ".join(f"{weight:g}" for weight in weights)
        raise UserError(
            f"--weights needs one finite number per run, none below 0 and at least one above 0: {num_runs} runs, got "
            f"{counted(len(weights), 'number')}: {given}."
        )


def _mixture(runs: Sequence[Run], table: SnippetTable, weights: Weighting, device: str) -> Mixture:
    unscaled = (1.0,) * len(runs)
    if not isinstance(weights, str):
        return Mixture(tuple(runs), tuple(float(weight) / sum(weights) for weight in weights), unscaled, "as given")
    if weights == "equal":
        return Mixture(tuple(runs), (1 / len(runs),) * len(runs), unscaled, "equal, as requested")
    parts = [run.facts["split"]["rows"]["val"] for run in runs]
    if not parts[0] or any(part != parts[0] for part in parts):
        raise UserError(
            "Weights are chosen on val, but these runs "
            + ("have no val part" if not any(parts) else "have different val parts")
            + ". Train them with the same one (--val 0.15), or fuse with --weights equal."
        )
    from actionprep.training.test import held_out_scores

    scores = [held_out_scores(run, device=device) for run in runs]
    rows = scores[0].rows
    several = bool(runs[0].facts["several_labels"])
    actual = table.target[rows] if several else table.label[rows].astype(np.int64)
    temperatures = tuple(float(run_tested(run)["calibration"]["temperature"]) for run in runs)
    scaled = [
        scaled_probabilities(score.variant_logits, temperature, multi_label=several)
        for score, temperature in zip(scores, temperatures, strict=True)
    ]
    chosen = tuple(pool_weights(np.stack(scaled), actual).tolist())
    return Mixture(tuple(runs), chosen, temperatures, f"chosen on {len(rows)} val snippets", by_val=True)


def _write_scores(folder: Path, table: SnippetTable, rows: np.ndarray, probabilities: np.ndarray) -> dict[str, Any]:
    """Compute the metrics of the fused probabilities and write the files of a test to the folder."""
    from actionprep.training.evaluation.scoring import Scores
    from actionprep.training.test import keep_scores

    if folder.exists() and any(folder.iterdir()) and not (folder / FUSION).exists():
        raise UserError(f"The folder {folder} is not empty. Name another one with --out.")
    folder.mkdir(parents=True, exist_ok=True)
    logits = np.log(np.maximum(probabilities, 1e-12))
    return keep_scores(Run(folder), table, Scores(rows, logits, probabilities, logits[None]))
