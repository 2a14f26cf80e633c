"""Late fusion: what several trained runs say pooled, with temperatures and weights that val chooses."""

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
    """The runs of a fusion; how their probabilities are scaled before they are pooled, with which weights, and how.

    weights (R,) sum to 1; temperatures (R,), 1 where a run's probabilities stay as they are. why: where both are from.
    by_val: whether val chose them.
    """

    runs: tuple[Run, ...]
    weights: tuple[float, ...]
    temperatures: tuple[float, ...]
    why: str
    by_val: bool = False
    pool: Pool = "log"


@dataclass(frozen=True)
class Fused:
    """What fusing gave: the folder with the files of a test, the runs, their weights and what test.json holds."""

    folder: Path
    mixture: Mixture
    tested: dict[str, Any]

    @property
    def weights(self) -> tuple[float, ...]:
        """Of the runs, in their order."""
        return self.mixture.weights


def fuse(
    runs: Sequence[Run | str | Path],
    folder: str | Path,
    *,
    weights: Weighting = "val",
    device: str = "auto",
    log: Callable[[str], None] = lambda _: None,
) -> Fused:
    """Pool the probabilities of runs on the same snippets and split, and keep what a test keeps in a folder.

    weights: "val": those that make the val snippets most probable, as models score them that were not trained on them,
             each run's probabilities scaled by the temperature of its test first: one that is less sure than it is right
             would count too little; "equal"; or one a run. A run that was not tested yet is tested.

    The pool is the logarithmic one (see `pooling.pooled`).

    Raises UserError when there are fewer than two runs, when their snippets, classes or splits differ, and for weights
    that are no finite numbers or none above 0.
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
    said = np.stack([saved_arrays(run, kind)[kind].astype(np.float64) for run in opened])
    several = bool(opened[0].facts["several_labels"])
    together = pooled(said, np.array(mixture.weights), mixture.pool, multi_label=several)
    rows = np.array(opened[0].facts["split"]["rows"]["test"], np.int64)
    tested = _kept(Path(folder), table, rows, together)
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
    """Fuse cross-validations fold by fold; returns what folds.json of the new folder holds.

    folders: of 'actiontrain fit --folds', or of one seed of a sweep over folds or stored splits, each with fold-01,
             fold-02, … (split-NAME, …); those of one name leave out the same snippets.

    Folds are one test over all their snippets; of stored splits the figure is the mean over them, as in `compare`.
    """
    from actionprep.training.evaluation.result_files import saved_arrays
    from actionprep.training.experiments.folds import over_folds, over_splits

    names = [fold_names(one) for one in folders]
    if len({tuple(one) for one in names}) != 1 or not names[0]:
        raise UserError(
            "Cross-validations are fused fold by fold, and these have different folds: "
            + "; ".join(f"{one} has {len(found)}" for one, found in zip(folders, names, strict=True))
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
        made = fuse([Path(one) / name for one in folders], below(folder, name), weights=weights, device=device, log=log)
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
    named = [source_from(Path(folder), Path(one)) for one in folders]
    document = {"folds": rows, "summary": summary, "runs": named}
    outer = Run(Path(folder))
    outer.write_table("folds.csv", rows)
    outer.write_json("folds.json", document)
    return document


def fold_names(folder: str | Path) -> list[str]:
    """Names of the runs of a cross-validation, or of a sweep's runs on stored splits; none where the folder is neither."""
    found = [path.parent.name for path in Path(folder).glob("*/" + FACTS)]
    found += [path.parent.name for path in Path(folder).glob("*/" + FUSION)]
    return sorted(name for name in found if name.startswith(("fold-", "split-")))


def read_fusion(folder: str | Path) -> Mixture | None:
    """What a fusion pools, its runs there or not; None when the folder is none."""
    path = Path(folder) / FUSION
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        named = [str(placed(Path(folder), one)) for one in found["runs"]]
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
        weights = tuple(map(float, found["weights"]))
        # Earlier fusions have no temperatures and no pool: they took the mean, at first of probabilities as they are.
        temperatures = tuple(map(float, found.get("temperatures", [1] * len(runs))))
        if not len(runs) == len(weights) == len(temperatures):
            raise ValueError(f"{len(runs)} runs, {len(weights)} weights, {len(temperatures)} temperatures")
        why = str(found["why"])
        # Earlier fusions say it in the sentence alone.
        by_val = bool(found.get("by_val", why.startswith("chosen on ")))
        pool: Pool = "log" if found.get("pool", "mean") == "log" else "mean"
        return Mixture(runs, weights, temperatures, why, by_val, pool)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error!r}). Fuse the runs again: actiontrain fuse RUN RUN …") from None


def fused_runs(folder: str | Path) -> Mixture | None:
    """What a fusion pools; None when the folder is none.

    Raises UserError that names the runs which are no longer where they were.
    """
    found = read_fusion(folder)
    if found is None:
        return None
    gone = [str(run.folder) for run in found.runs if not (run.folder / FACTS).is_file()]
    if gone:
        is_, it = ("is", "it") if len(gone) == 1 else ("are", "them")
        raise UserError(
            f"The fusion {folder} asks {len(found.runs)} runs, and {len(gone)} of them {is_} no longer there: "
            f"{', '.join(gone)}.\nPut {it} back, or fuse anew what there is: actiontrain fuse RUN RUN …"
        )
    return found


def run_tested(run: Run) -> dict[str, Any]:
    """What a run's test found; raises UserError where there was none."""
    found = run.tested
    if found is None:
        raise UserError(f"{run.folder} was not tested yet: actiontrain test {run.folder.name}")
    return found


def _common_table(runs: Sequence[Run]) -> SnippetTable:
    """The table of snippets that all runs share; raises UserError that says in what they differ."""
    from actionprep.training.datasets import read_table

    if len(runs) < 2:
        raise UserError("A fusion takes two runs or more: actiontrain fuse RUN RUN …")
    first, facts = runs[0], [run.facts for run in runs]
    stores = [open_store(run.store) for run in runs]
    digests = [store.item("snippets", one["snippets"]).digest for store, one in zip(stores, facts, strict=True)]
    for run, one, digest in zip(runs[1:], facts[1:], digests[1:], strict=True):
        if one["labels"] != facts[0]["labels"]:
            what = f"classes: {', '.join(facts[0]['labels'])} and {', '.join(one['labels'])}"
        elif digest != digests[0]:
            what = f"snippets: snippets/{facts[0]['snippets']} and snippets/{one['snippets']} are not the same table"
        elif one["split"]["rows"]["test"] != facts[0]["split"]["rows"]["test"]:
            what = "test parts: give both trainings the same --train-groups, --test-groups, --split or --seed"
        elif set(one["split"]["rows"]["train"]) & set(facts[0]["split"]["rows"]["test"]):
            what = "splits: one was trained on what the other is tested on"
        else:
            continue
        raise UserError(f"{first.folder} and {run.folder} cannot be fused, because they have different {what}.")
    return read_table(stores[0], facts[0]["snippets"])


def _check_weights(weights: Weighting, num_runs: int) -> None:
    if isinstance(weights, str):
        if weights not in ("val", "equal"):
            raise UserError(f"Weights are 'val', 'equal' or one number a run; got '{weights}'.")
        return
    fine = all(math.isfinite(one) and one >= 0 for one in weights) and 0 < sum(weights) < math.inf
    if len(weights) != num_runs or not fine:
        said = ", ".join(f"{one:g}" for one in weights)
        raise UserError(
            f"--weights takes one finite number a run, none below 0 and one above: {num_runs} runs, and got "
            f"{counted(len(weights), 'number')}: {said}."
        )


def _mixture(runs: Sequence[Run], table: SnippetTable, weights: Weighting, device: str) -> Mixture:
    as_they_are = (1.0,) * len(runs)
    if not isinstance(weights, str):
        return Mixture(tuple(runs), tuple(float(one) / sum(weights) for one in weights), as_they_are, "as given")
    if weights == "equal":
        return Mixture(tuple(runs), (1 / len(runs),) * len(runs), as_they_are, "equal, as asked for")
    parts = [run.facts["split"]["rows"]["val"] for run in runs]
    if not parts[0] or any(part != parts[0] for part in parts):
        raise UserError(
            "Weights are chosen on val, and these runs "
            + ("have no val part" if not any(parts) else "have different val parts")
            + ". Train them with the same one (--val 0.15), or fuse with --weights equal."
        )
    from actionprep.training.test import held_out_scores

    found = [held_out_scores(run, device=device) for run in runs]
    rows = found[0].rows
    several = bool(runs[0].facts["several_labels"])
    actual = table.target[rows] if several else table.label[rows].astype(np.int64)
    temperatures = tuple(float(run_tested(run)["calibration"]["temperature"]) for run in runs)
    scaled = [
        scaled_probabilities(one.variant_logits, temperature, multi_label=several)
        for one, temperature in zip(found, temperatures, strict=True)
    ]
    chosen = tuple(pool_weights(np.stack(scaled), actual).tolist())
    return Mixture(tuple(runs), chosen, temperatures, f"chosen on {len(rows)} val snippets", by_val=True)


def _kept(folder: Path, table: SnippetTable, rows: np.ndarray, probabilities: np.ndarray) -> dict[str, Any]:
    """Figures of the fused probabilities; the files of a test are written into the folder."""
    from actionprep.training.evaluation.scoring import Scores
    from actionprep.training.test import keep_scores

    if folder.exists() and any(folder.iterdir()) and not (folder / FUSION).exists():
        raise UserError(f"The folder {folder} is not empty. Name another one with --out.")
    folder.mkdir(parents=True, exist_ok=True)
    logits = np.log(np.maximum(probabilities, 1e-12))
    return keep_scores(Run(folder), table, Scores(rows, logits, probabilities, logits[None]))
