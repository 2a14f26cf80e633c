"""Test a trained run once: predictions, figures with intervals, tables by class, subject and view."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from actionprep.datasets.frame_labels import FrameLabels
from actionprep.datasets.paths import below
from actionprep.datasets.store.opening import open_store
from actionprep.datasets.store.zarr_store import Store
from actionprep.errors import UserError
from actionprep.training.checkpoints import Checkpoint, load_checkpoint
from actionprep.training.evaluation import metrics
from actionprep.training.evaluation.frame_scores import (
    LabeledFrames,
    frame_metrics,
    frame_rows,
    frame_times,
    labeled_frames,
)
from actionprep.training.evaluation.result_files import write_tested
from actionprep.training.evaluation.scoring import Scores, actual_of, predicted_of, score
from actionprep.training.evaluation.summary import add_calibration, metrics_of
from actionprep.training.loop.devices import torch_device
from actionprep.training.run import VALIDATED, Run, input_digest, now
from actionprep.training.split_choice import is_multi_label

if TYPE_CHECKING:
    from actionprep.datasets.products.snippets import SnippetTable
    from actionprep.training.datasets import SnippetDataset
    from actionprep.training.inputs.base import ProductReader


MOST_VIEW_SUBSETS = 255
"""Subsets of views beyond this many (more than 8 views) are not all tried: single views, pairs and all but one are."""


def run_test(
    run: Run | str | Path,
    store: Store | str | Path | None = None,
    *,
    part: Literal["test", "val", "train"] = "test",
    device: str = "auto",
    view_subsets: bool = True,
    carry: bool | None = None,
    repeats: int = 1000,
) -> dict[str, Any]:
    """Score the best checkpoint of a run on a part of its split, and keep everything in the run's folder.

    part:         what is scored; of another part than test the files lie in a folder of its name inside the run's. Val is
                  scored with the weights before a refit, which was on val too; on train every model was trained.
    store:        where the snippets are; None: where the training found them.
    view_subsets: also score every subset of the views, where there are several.
    carry:        let a window go on from the state in which the model left the window before; None: as the recipe says.
    repeats:      resampled test sets of the intervals.

    Returns what test.json holds: figures, their intervals, the tables by subject, view and class, and the calibration,
    with what validation snippets mend of it: a temperature, and thresholds of labels where a snippet may have several.
    Of a model that labels every instant also the figures of the recordings' frames.

    Raises UserError when the part is empty, or the classes or the store are not those of the training.
    """
    from actionprep.training.datasets import SnippetDataset, read_table

    run = run if isinstance(run, Run) else Run.open(run)
    facts = run.facts
    if not run.is_complete:
        raise UserError(
            f"The training in {run.folder} is not complete (phase {facts['state']['phase']}). Go on with "
            f"'actiontrain fit --run {run.folder} --resume'."
        )
    where = run.store if store is None else store
    store = open_store(where).snapshot()
    table = read_table(store, facts["snippets"])
    checkpoint = load_checkpoint(_not_refit(run) if part == "val" else run.best, device=str(torch_device(device)))
    checkpoint.check_labels(table.labels, where=f"snippets/{facts['snippets']} in {store.url}")
    rows = np.array(facts["split"]["rows"][part], np.int64)
    if not len(rows):
        raise UserError(
            f"The split of {run.folder} has no {part} part. Train with a share for it (--test 0.2) or with named "
            "groups (--test-subjects …)."
        )
    if input_digest(store, checkpoint.recipe.reads, facts["snippets"]) != facts["input_digest"]:
        raise UserError(
            f"The store {store.url} does not hold what {run.folder} was trained on (its digest differs), so its "
            "split does not hold either. Test with the store of the training, or train anew."
        )
    dataset = SnippetDataset(store, table, checkpoint.recipe.input, views=checkpoint.views or None, rows=rows)
    dataset.reader.to(torch_device(device))
    variants = checkpoint.recipe.test_variants
    carry = checkpoint.recipe.carry if carry is None else carry
    scores = score(checkpoint, dataset, variants=variants, carry=carry)
    found = metrics_of(scores, table, repeats=repeats)
    trained_on = part == "train" or (part == "val" and checkpoint.card.get("phase") == "refit")
    found |= {
        "part": part,
        "trained_on": trained_on,
        "variants": variants,
        "checkpoint": checkpoint.path.name,
        "when": now(),
    }
    frames = _frames(scores, dataset, checkpoint.recipe.reads)
    if frames is not None:
        multi_label = is_multi_label(table)
        found["frames"] = {"carry": carry, **frame_metrics(frames, table, multi_label=multi_label, repeats=repeats)}
    val = np.array(facts["split"]["rows"]["val"], np.int64)
    held_out = (
        (checkpoint.path.name, scores) if part == "val" else _held_out(run, dataset, val, device=device, carry=carry)
    )
    calibrated = add_calibration(found, scores, table, held_out)
    if view_subsets and len(dataset.views) > 1 and _leaves_out_views(dataset.reader):
        found["views"] = _by_views(checkpoint, dataset, variants=variants, carry=carry)
    kept = run if part == "test" else Run(below(run.folder, part))
    kept.write_array("calibrated.npy", calibrated.astype(np.float32))
    if frames is not None:
        kept.write_table("frames.csv", frame_rows(frames, table, multi_label=is_multi_label(table)))
    write_tested(kept, found, scores, table)
    if part == "test":
        from actionprep.training.evaluation.report import write_report

        write_report(run)
    return found


def held_out_scores(run: Run, store: Store | str | Path | None = None, *, device: str = "auto") -> Scores:
    """What a model that was not trained on them says of a run's val snippets; raises UserError when there are none."""
    from actionprep.training.datasets import SnippetDataset, read_table

    facts = run.facts
    where = run.store if store is None else store
    store = open_store(where).snapshot()
    table = read_table(store, facts["snippets"])
    rows = np.array(facts["split"]["rows"]["val"], np.int64)
    recipe = run.recipe
    dataset = SnippetDataset(store, table, recipe.input, views=facts["views"] or None, rows=rows)
    dataset.reader.to(torch_device(device))
    found = _held_out(run, dataset, rows, device=device, carry=recipe.carry)
    if found is None:
        raise UserError(f"{run.folder} has no val part. Train with a share for it: --val 0.15.")
    return found[1]


def keep_scores(run: Run, table: SnippetTable, scores: Scores, *, repeats: int = 1000) -> dict[str, Any]:
    """Figures of scores that came about in another way, and the files of a test in the run's folder."""
    found = metrics_of(scores, table, repeats=repeats)
    found |= {"part": "test", "when": now()}
    add_calibration(found, scores, table, None)
    write_tested(run, found, scores, table)
    return found


def _frames(scores: Scores, dataset: SnippetDataset, product: str) -> list[LabeledFrames] | None:
    """The recordings' frames with what the model says of them; None of a model that does not label every instant."""
    if scores.steps is None:
        return None
    table = dataset.table
    times = {
        code: frame_times(dataset.store, product, table.recordings[code], dataset.views)
        for code in np.unique(table.recording[scores.rows]).tolist()
    }
    return labeled_frames(scores.steps, table, scores.rows, FrameLabels.of(table), times)


def _held_out(
    run: Run, dataset: SnippetDataset, rows: np.ndarray, *, device: str, carry: bool
) -> tuple[str, Scores] | None:
    """Val as a model scores it that was not trained on it: before a refit, the best one of validation."""
    from actionprep.training.datasets import SnippetDataset

    if not len(rows):
        return None
    checkpoint = load_checkpoint(_not_refit(run), device=str(torch_device(device)))
    val = SnippetDataset(dataset.store, dataset.table, rows=rows, reader=dataset.reader)
    return checkpoint.path.name, score(checkpoint, val, variants=checkpoint.recipe.test_variants, carry=carry)


def _not_refit(run: Run) -> Path:
    """The checkpoint of validation: before a refit, or the best one."""
    path = run.folder / VALIDATED
    return path if path.exists() else run.best


def _leaves_out_views(reader: ProductReader) -> bool:
    from actionprep.training.inputs.base import ProductReader

    return type(reader).without_views is not ProductReader.without_views


def _by_views(checkpoint: Checkpoint, dataset: SnippetDataset, *, variants: int, carry: bool) -> list[dict[str, Any]]:
    """Accuracy with each subset of the views, single views first."""
    num_views = len(dataset.views)
    sizes: Sequence[int] = range(1, num_views + 1)
    if 2**num_views - 1 > MOST_VIEW_SUBSETS:
        sizes = sorted({1, 2, num_views - 1, num_views})
    table = dataset.table
    multi_label = is_multi_label(table)
    rows = []
    for size in sizes:
        for chosen in itertools.combinations(range(num_views), size):
            keep = [view in chosen for view in range(num_views)]
            scores = score(checkpoint, dataset, variants=variants, keep_views=keep, carry=carry)
            actual = actual_of(table, scores.rows)
            predicted = predicted_of(scores.probabilities, multi_label=multi_label)
            rows.append(
                {
                    "views": " ".join(dataset.views[view] for view in chosen),
                    "num_views": size,
                    "snippets": len(scores.rows),
                    "accuracy": metrics.accuracy(actual, predicted),
                    "macro_f1": metrics.f1_scores(actual, predicted, len(table.labels))["macro_f1"],
                }
            )
    return rows
