"""Test a trained run: predictions, metrics with intervals, tables by class, subject and view."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from actionprep.datasets.frame_labels import FrameLabels
from actionprep.datasets.paths import below, safe_name
from actionprep.datasets.split_choice import is_multi_label
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

if TYPE_CHECKING:
    from actionprep.datasets.products.snippets import SnippetTable
    from actionprep.training.datasets import SnippetDataset
    from actionprep.training.inputs.base import ProductReader


MOST_VIEW_SUBSETS = 255
"""Largest number of subsets of views to test (8 views). With more, only single views, pairs and all but one are tested."""


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
    """Test the best checkpoint of a run on a part of its split, or on another store, and write the result.

    Args:
        run: Run or its folder.
        store: Store of the snippets; None: that of the training. Of another store, all labeled snippets are tested.
        part: Part of the split to test. Results of other parts than test are written to a folder of that name inside the
            run's. Val is scored with the weights before a refit; every model was trained on train.
        device: Device of the model.
        view_subsets: Whether to test every subset of the views too, if there are several.
        carry: Whether to carry the state of the model from window to window; None: as in the recipe.
        repeats: Number of resampled test sets of the intervals.

    Returns:
        The content of test.json: metrics, their intervals, tables by subject, view and class, and the calibration, with a
        temperature and, if a snippet can have several labels, thresholds from val. If the model labels every time step,
        also metrics of the frames.

    Raises:
        UserError: If the part is empty, if the store of the training has changed, or if another store has other classes
            or was built with other settings.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    facts = run.facts
    if not run.is_complete:
        raise UserError(
            f"The training in {run.folder} is not complete (phase {facts['state']['phase']}). Resume it with "
            f"'actiontrain fit --run {run.folder} --resume'."
        )
    given, where = store, run.store if store is None else store
    store = open_store(where).snapshot()
    if given is not None and part == "test" and _is_other_store(run, store):
        checkpoint = load_checkpoint(run.best, device=str(torch_device(device)))
        return run_test_elsewhere(
            checkpoint,
            store,
            Run(other_test_folder(run, store)),
            snippets=facts["snippets"],
            device=device,
            view_subsets=view_subsets,
            carry=carry,
            repeats=repeats,
            trained=run,
        )
    checkpoint = load_checkpoint(_not_refit(run) if part == "val" else run.best, device=str(torch_device(device)))
    dataset = part_dataset(run, store, checkpoint, part)
    table = dataset.table
    dataset.reader.to(torch_device(device))
    variants = checkpoint.recipe.test_variants
    carry = checkpoint.recipe.carry if carry is None else carry
    scores = score(checkpoint, dataset, variants=variants, carry=carry)
    metrics = metrics_of(scores, table, repeats=repeats)
    trained_on = part == "train" or (part == "val" and checkpoint.card.get("phase") == "refit")
    metrics |= {
        "part": part,
        "trained_on": trained_on,
        "variants": variants,
        "checkpoint": checkpoint.path.name,
        "when": now(),
    }
    frames = _frames(scores, dataset, checkpoint.recipe.reads)
    if frames is not None:
        multi_label = is_multi_label(table)
        metrics["frames"] = {"carry": carry, **frame_metrics(frames, table, multi_label=multi_label, repeats=repeats)}
    val = np.array(facts["split"]["rows"]["val"], np.int64)
    held_out = (
        (checkpoint.path.name, scores) if part == "val" else _held_out(run, dataset, val, device=device, carry=carry)
    )
    calibrated = add_calibration(metrics, scores, table, held_out)
    if view_subsets and len(dataset.views) > 1 and _leaves_out_views(dataset.reader):
        metrics["views"] = _by_views(checkpoint, dataset, variants=variants, carry=carry)
    kept = run if part == "test" else Run(below(run.folder, part))
    kept.write_array("calibrated.npy", calibrated.astype(np.float32))
    if frames is not None:
        kept.write_table("frames.csv", frame_rows(frames, table, multi_label=is_multi_label(table)))
    write_tested(kept, metrics, scores, table)
    if part == "test":
        from actionprep.training.evaluation.report import write_report

        write_report(run)
    return metrics


def part_dataset(run: Run, store: Store, checkpoint: Checkpoint, part: str) -> SnippetDataset:
    """Open the snippets of a part of a run's split.

    Args:
        run: The run.
        store: Store of its training.
        checkpoint: Checkpoint of the run.
        part: "train", "val" or "test".

    Raises:
        UserError: If the part is empty, or if the store or its labels have changed since the training.
    """
    from actionprep.training.datasets import SnippetDataset, read_table

    facts = run.facts
    table = read_table(store, facts["snippets"])
    checkpoint.check_labels(table.labels, where=f"snippets/{facts['snippets']} in {store.url}")
    rows = np.array(facts["split"]["rows"][part], np.int64)
    if not len(rows):
        raise UserError(
            f"The split of {run.folder} has no {part} part. Train with a share for it (--test 0.2) or with named "
            "groups (--test-subjects …)."
        )
    if input_digest(store, checkpoint.recipe.reads, facts["snippets"]) != facts["input_digest"]:
        raise UserError(
            f"The store {store.url} has changed since {run.folder} was trained on it (its digest differs), so the split of "
            "the run does not apply. Restore it and test again, test on a newly labeled study with --store, or train again."
        )
    return SnippetDataset(store, table, checkpoint.recipe.input, views=checkpoint.views or None, rows=rows)


def run_test_elsewhere(
    checkpoint: Checkpoint,
    store: Store,
    into: Run,
    *,
    snippets: str = "default",
    device: str = "auto",
    view_subsets: bool = True,
    carry: bool | None = None,
    repeats: int = 1000,
    trained: Run | None = None,
) -> dict[str, Any]:
    """Test a checkpoint on all labeled snippets of a store that it was not trained on.

    Args:
        checkpoint: Checkpoint with its model.
        store: Store with the snippets and the product, built with the settings of the training.
        into: Folder for the files of the test.
        snippets: Name of the table of snippets.
        device: Device of the model.
        view_subsets: Whether to test every subset of the views too, if there are several.
        carry: Whether to carry the state of the model from window to window; None: as in the recipe.
        repeats: Number of resampled test sets of the intervals.
        trained: Run of the checkpoint, to count snippets of videos that it was trained on.

    Returns:
        The content of test.json.

    Raises:
        UserError: If the product or the snippets are missing, if the store has labels that the model does not know, or if it
            was built with other settings.
    """
    from actionprep.training.datasets import SnippetDataset, read_table
    from actionprep.training.inputs.base import find_input
    from actionprep.training.predict import check_pipeline

    recipe = checkpoint.recipe
    find_input(recipe.product).check_store(recipe.input, store)
    table = with_labels(read_table(store, snippets), checkpoint, where=f"snippets/{snippets} in {store.url}")
    check_pipeline(checkpoint, store)
    rows = np.flatnonzero(table.used)
    if not len(rows):
        raise UserError(
            f"snippets/{snippets} in {store.url} has no labeled snippet. Label it, and create the snippets again."
        )
    dataset = SnippetDataset(store, table, recipe.input, views=checkpoint.views or None, rows=rows)
    dataset.reader.to(torch_device(device))
    carry = recipe.carry if carry is None else carry
    scores = score(checkpoint, dataset, variants=recipe.test_variants, carry=carry)
    tested = metrics_of(scores, table, repeats=repeats)
    tested |= {
        "part": "test",
        "store": store.url,
        "trained_on": False,
        "seen_in_training": 0 if trained is None else _seen_in_training(trained, table, rows),
        "variants": recipe.test_variants,
        "checkpoint": checkpoint.path.name,
        "when": now(),
    }
    frames = _frames(scores, dataset, recipe.reads)
    multi_label = is_multi_label(table)
    if frames is not None:
        tested["frames"] = {"carry": carry, **frame_metrics(frames, table, multi_label=multi_label, repeats=repeats)}
        into.write_table("frames.csv", frame_rows(frames, table, multi_label=multi_label))
    add_calibration(tested, scores, table, None)
    if view_subsets and len(dataset.views) > 1 and _leaves_out_views(dataset.reader):
        tested["views"] = _by_views(checkpoint, dataset, variants=recipe.test_variants, carry=carry)
    write_tested(into, tested, scores, table)
    return tested


def other_test_folder(run: Run, store: Store) -> Path:
    """Return the folder for a test of a run on another store: test-NAME-HASH inside the run's."""
    path = Path(store.url)
    name = path.resolve().parent.name if path.name == "store" else path.stem
    digest = hashlib.sha256(store.url.encode()).hexdigest()[:6]
    return below(run.folder, f"test-{safe_name(name) or 'store'}-{digest}")


def with_labels(table: SnippetTable, checkpoint: Checkpoint, *, where: str) -> SnippetTable:
    """Return a table with the labels of a checkpoint, in their order.

    Args:
        table: Table of snippets, with the same labels or some of them, in any order.
        checkpoint: Checkpoint that defines the labels.
        where: What the table is, for the error.

    Raises:
        UserError: If a used snippet has a label that the checkpoint does not know.
    """
    labels = checkpoint.labels
    if table.labels == labels:
        return table
    present = table.target[table.used].any(axis=0)
    unknown = [label for code, label in enumerate(table.labels) if label not in labels and present[code]]
    if unknown:
        raise UserError(
            f"{where} has labels that the model does not know: {', '.join(unknown)}. The checkpoint {checkpoint.path} was "
            f"trained on {', '.join(labels)}.\nCreate the snippets with these labels (actionprep snippets --labels …)."
        )
    source = [table.labels.index(label) if label in table.labels else -1 for label in labels]
    codes = np.array([labels.index(label) if label in labels else -1 for label in table.labels], np.int32)

    def columns(values: np.ndarray) -> np.ndarray:
        padded = np.concatenate([values, np.zeros((len(values), 1), values.dtype)], axis=1)
        return padded[:, source]

    return replace(
        table,
        labels=labels,
        label=np.where(table.label >= 0, codes[np.maximum(table.label, 0)], table.label),
        target=columns(table.target),
        coverage=columns(table.coverage),
        iou=columns(table.iou),
        segment_share=columns(table.segment_share),
        segments=None
        if table.segments is None
        else replace(table.segments, label=np.where(table.segments.label >= 0, codes[table.segments.label], -1)),
    )


def _is_other_store(run: Run, store: Store) -> bool:
    """Whether a store is neither that of the training nor a copy of it."""
    facts = run.facts
    if store.has("snippets", facts["snippets"]) and facts["input_digest"] == input_digest(
        store, run.recipe.reads, facts["snippets"]
    ):
        return False
    return str(Path(run.recorded_store).resolve()) != str(Path(store.url).resolve())


def _seen_in_training(run: Run, table: SnippetTable, rows: np.ndarray) -> int:
    """Number of snippets with a video that the run was trained on; 0 if the store of the training cannot be read."""
    from actionprep.training.datasets import read_table

    facts = run.facts
    try:
        trained = read_table(open_store(run.store), facts["snippets"])
    except UserError:
        return 0
    parts = facts["split"]["rows"]
    codes = np.unique(trained.recording[np.array([*parts["train"], *parts["val"]], np.int64)]).tolist()
    files = {source for code in codes for source in (trained.sources[code] if trained.sources else ())}
    sources = table.sources or [()] * len(table.recordings)
    return sum(bool(files.intersection(sources[code])) for code in table.recording[rows].tolist())


def held_out_scores(run: Run, store: Store | str | Path | None = None, *, device: str = "auto") -> Scores:
    """Score the val snippets of a run with weights that were not trained on them; raises UserError if there are none."""
    from actionprep.training.datasets import SnippetDataset, read_table

    facts = run.facts
    where = run.store if store is None else store
    store = open_store(where).snapshot()
    table = read_table(store, facts["snippets"])
    rows = np.array(facts["split"]["rows"]["val"], np.int64)
    recipe = run.recipe
    dataset = SnippetDataset(store, table, recipe.input, views=facts["views"] or None, rows=rows)
    dataset.reader.to(torch_device(device))
    scores = _held_out(run, dataset, rows, device=device, carry=recipe.carry)
    if scores is None:
        raise UserError(f"{run.folder} has no val part. Train with a share for it: --val 0.15.")
    return scores[1]


def keep_scores(run: Run, table: SnippetTable, scores: Scores, *, repeats: int = 1000) -> dict[str, Any]:
    """Compute the metrics of given scores, and write the files of a test to the folder of a run."""
    metrics = metrics_of(scores, table, repeats=repeats)
    metrics |= {"part": "test", "when": now()}
    add_calibration(metrics, scores, table, None)
    write_tested(run, metrics, scores, table)
    return metrics


def _frames(scores: Scores, dataset: SnippetDataset, product: str) -> list[LabeledFrames] | None:
    """Predictions for the frames of the recordings; None if the model does not label every time step."""
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
    """Scores of val with weights that were not trained on it: those before a refit."""
    from actionprep.training.datasets import SnippetDataset

    if not len(rows):
        return None
    checkpoint = load_checkpoint(_not_refit(run), device=str(torch_device(device)))
    val = SnippetDataset(dataset.store, dataset.table, rows=rows, reader=dataset.reader)
    return checkpoint.path.name, score(checkpoint, val, variants=checkpoint.recipe.test_variants, carry=carry)


def _not_refit(run: Run) -> Path:
    """The best checkpoint of the validation, before a refit."""
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
            predicted = predicted_of(scores.probabilities, multi_label=multi_label, evidence=scores.evidence)
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
