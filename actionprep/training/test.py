"""Test a trained run once: predictions, figures with intervals, tables by class, subject and view."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from actionprep.datasets.instants import InstantLabels
from actionprep.datasets.store import Store
from actionprep.errors import EnvironmentProblem, UserError
from actionprep.training import calibration, memory, metrics
from actionprep.training.carry import States, in_turns, windows_before
from actionprep.training.checkpoints import Checkpoint, check_state, load_checkpoint
from actionprep.training.frame_scores import (
    InstantScores,
    LabelledFrames,
    frame_figures,
    frame_rows,
    frame_times,
    labelled_frames,
    mean_over_variants,
)
from actionprep.training.run import TESTED, VALIDATED, Run, input_digest, now

if TYPE_CHECKING:
    import torch

    from actionprep.datasets.snippets import SnippetTable
    from actionprep.training.datasets import SnippetDataset
    from actionprep.training.inputs.base import ProductReader

_WITH_INTERVAL = ("accuracy", "exact_match", "top5", "macro_f1", "micro_f1", "weighted_f1", "samples_f1", "map")

MOST_VIEW_SUBSETS = 255
"""Subsets of views beyond this many (more than 8 views) are not all tried: single views, pairs and all but one are."""


@dataclass(frozen=True)
class Scores:
    """What a model says of some snippets.

    rows (S) of the table; logits (S, C), the mean over variants; probabilities (S, C), the mean over variants of each
    one's probabilities; each (V, S, C), the logits of every variant. instants: where the model labels every instant.
    """

    rows: np.ndarray
    logits: np.ndarray
    probabilities: np.ndarray
    each: np.ndarray
    instants: InstantScores | None = None


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

    part:         what is scored; of another part than test the files lie in a folder of its name inside the run's.
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
            "'actiontrain fit "
            f"--run {run.folder} --resume'."
        )
    where = run.store if store is None else store
    store = where if isinstance(where, Store) else Store(where)
    table = read_table(store, facts["snippets"])
    checkpoint = load_checkpoint(run.best, device=str(torch_device(device)))
    checkpoint.check_labels(table.labels, where=f"snippets/{facts['snippets']} in {store.url}")
    rows = np.array(facts["split"]["rows"][part], np.int64)
    if not len(rows):
        raise UserError(
            f"The split of {run.folder} has no {part} part. Train with a share for it (--test 0.2) or with named "
            "groups "
            "(--test-subjects …)."
        )
    if input_digest(store, checkpoint.recipe.reads, facts["snippets"]) != facts["input_digest"]:
        raise UserError(
            f"The store {store.url} does not hold what {run.folder} was trained on (its digest differs), so its "
            "split does "
            "not hold either. Test with the store of the training, or train anew."
        )
    dataset = SnippetDataset(store, table, checkpoint.recipe.input, views=checkpoint.views or None, rows=rows)
    dataset.reader.to(torch_device(device))
    variants = checkpoint.recipe.test_variants
    carry = checkpoint.recipe.carry if carry is None else carry
    scores = score(checkpoint, dataset, variants=variants, carry=carry)
    found = _figures(scores, dataset, repeats=repeats)
    found |= {"part": part, "variants": variants, "checkpoint": checkpoint.path.name, "when": now()}
    frames = _frames(scores, dataset, checkpoint.recipe.reads)
    if frames is not None:
        several = _is_several(dataset)
        found["frames"] = {"carry": carry, **frame_figures(frames, table, several=several, repeats=repeats)}
    held_out = _held_out(run, dataset, np.array(facts["split"]["rows"]["val"], np.int64), device=device, carry=carry)
    calibrated = _calibration(found, scores, dataset, held_out)
    if view_subsets and len(dataset.views) > 1 and _leaves_out_views(dataset.reader):
        found["views"] = _by_views(checkpoint, dataset, variants=variants, carry=carry)
    kept = run if part == "test" else Run(run.folder / part)
    _keep(kept, found, scores, dataset)
    kept.write_array("calibrated.npy", calibrated.astype(np.float32))
    if frames is not None:
        kept.write_table("frames.csv", frame_rows(frames, table, several=_is_several(dataset)))
    if part == "test":
        from actionprep.training.report import write_report

        write_report(run)
    return found


def held_out_scores(run: Run, store: Store | str | Path | None = None, *, device: str = "auto") -> Scores:
    """What a model that was not trained on them says of a run's val snippets; raises UserError when there are none."""
    from actionprep.training.datasets import SnippetDataset, read_table

    facts = run.facts
    where = run.store if store is None else store
    store = where if isinstance(where, Store) else Store(where)
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
    dataset = _Table(table)
    found = _figures(scores, dataset, repeats=repeats)
    found |= {"part": "test", "when": now()}
    _calibration(found, scores, dataset, None)
    _keep(run, found, scores, dataset)
    return found


@dataclass(frozen=True)
class _Table:
    """All of a dataset that figures need."""

    table: SnippetTable


def _frames(scores: Scores, dataset: SnippetDataset, product: str) -> list[LabelledFrames] | None:
    """The recordings' frames with what the model says of them; None of a model that does not label every instant."""
    if scores.instants is None:
        return None
    table = dataset.table
    times = {
        code: frame_times(dataset.store, product, table.recordings[code], dataset.views)
        for code in np.unique(table.recording[scores.rows]).tolist()
    }
    return labelled_frames(scores.instants, table, scores.rows, InstantLabels.of(table), times)


def _held_out(
    run: Run, dataset: SnippetDataset, rows: np.ndarray, *, device: str, carry: bool
) -> tuple[str, Scores] | None:
    """Val as a model scores it that was not trained on it: before a refit, the best one of validation."""
    from actionprep.training.datasets import SnippetDataset

    if not len(rows):
        return None
    path = run.folder / VALIDATED
    checkpoint = load_checkpoint(path if path.exists() else run.best, device=str(torch_device(device)))
    val = SnippetDataset(dataset.store, dataset.table, rows=rows, reader=dataset.reader)
    return checkpoint.path.name, score(checkpoint, val, variants=checkpoint.recipe.test_variants, carry=carry)


def _calibration(
    found: dict[str, Any], scores: Scores, dataset: SnippetDataset | _Table, held_out: tuple[str, Scores] | None
) -> np.ndarray:
    """Add the calibration to what was found; returns the probabilities (S, C) after temperature scaling."""
    several = _is_several(dataset)
    actual = _actual(dataset, scores)
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
        val_actual = _actual(dataset, val)
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
            found["thresholds"] = dict(zip(dataset.table.labels, thresholds.tolist(), strict=True))
            found["figures_at_thresholds"] = metrics.summary(actual, at_them, scores.probabilities)
    found["calibration"] = about
    found["figures"]["calibration_error"] = about["error"]
    return probabilities


def _actual(dataset: SnippetDataset | _Table, scores: Scores) -> np.ndarray:
    """Codes (S), or with several labels zeros and ones (S, C)."""
    table = dataset.table
    return table.target[scores.rows] if _is_several(dataset) else table.label[scores.rows].astype(np.int64)


def _leaves_out_views(reader: ProductReader) -> bool:
    from actionprep.training.inputs.base import ProductReader

    return type(reader).without_views is not ProductReader.without_views


def _checked(score: Callable[..., Scores]) -> Callable[..., Scores]:
    """Let scoring take no more snippets at a time than training did; tell when memory runs out, and answers that are nan."""

    @functools.wraps(score)
    def scored(checkpoint: Checkpoint, dataset: SnippetDataset, *, batch: int = 32, **options: Any) -> Scores:
        batch = min(batch, checkpoint.recipe.batch)
        try:
            found = score(checkpoint, dataset, batch=batch, **options)
        except (RuntimeError, MemoryError) as error:
            if not memory.ran_out(error):
                raise
            device = next(checkpoint.model.parameters()).device.type
            tries = [f"train with a smaller batch ({batch} here), which tests use too"] if batch > 1 else []
            tries += ["test with --device cpu"] if device != "cpu" else []
            tries += ["let the model see fewer frames or smaller pictures"]
            raise UserError(
                f"Out of memory on {device} while {batch} snippet{'s were' if batch > 1 else ' was'} scored at a time "
                f"({memory.reason(error)}).\nTry one of: {'; '.join(tries)}."
            ) from None
        lost = found.rows[~np.isfinite(found.logits).all(axis=1)].tolist()
        if lost:
            table = dataset.table
            named = [f"{table.recordings[table.recording[row]]} at {table.onset[row]:.2f} s" for row in lost[:5]]
            raise UserError(
                f"{checkpoint.path.name} answers {len(lost)} of {len(found.rows)} snippets with what is no number: "
                f"{'; '.join(named)}{' …' if len(lost) > 5 else ''}.\n"
                + (
                    "Its weights are broken: train anew, with a lower rate or optimizer.gradient_clip."
                    if len(lost) == len(found.rows)
                    else "Their input must hold such numbers: look at these items with 'actionprep verify'."
                )
            )
        return found

    return scored


@_checked
def score(
    checkpoint: Checkpoint,
    dataset: SnippetDataset,
    *,
    variants: int = 1,
    keep_views: Sequence[bool] | None = None,
    carry: bool = False,
    batch: int = 32,
) -> Scores:
    """Score every snippet of a dataset, in order, averaged over variants; always the same.

    keep_views: leave the other views out.
    carry:      a window that begins where another one of the dataset ends goes on from the state after that one.

    Raises UserError when states are to be carried of a model that has none.
    """
    import torch

    from actionprep.training.datasets import SnippetDataset, SnippetLoader, model_inputs, to_device
    from actionprep.training.losses import clip_logits

    model: Any = checkpoint.model
    recipe = checkpoint.recipe
    if carry:
        check_state(recipe.model)
    device = next(model.parameters()).device
    several = bool(checkpoint.card["several_labels"])
    size = len(dataset.rows)
    before = windows_before(dataset.table, dataset.rows) if carry else np.full(size, -1)
    logits, probabilities = [], []
    instants: dict[str, list[np.ndarray]] = {"time": [], "probabilities": [], "valid": []}
    with torch.inference_mode():
        for variant in range(variants):
            states = States(before)
            part: dict[str, list[np.ndarray]] = {"number": [], "logits": [], **{name: [] for name in instants}}
            for turn in in_turns(before):
                now = SnippetDataset(dataset.store, dataset.table, rows=dataset.rows[turn], reader=dataset.reader)
                now.variant = variant
                done = 0
                for one in SnippetLoader(now, batch=batch, workers=recipe.workers):
                    numbers = turn[done : done + len(one["row"])]
                    done += len(numbers)
                    inputs = now.augmented(to_device(one, device))
                    if keep_views is not None:
                        inputs = dataset.reader.without_views(inputs, keep_views)
                    if carry:
                        start = states.at_start_of(numbers)
                        out, state = model.advance(**model_inputs(model, inputs), state=start)
                        states.keep(numbers, state)
                    else:
                        out = model(**model_inputs(model, inputs))
                    out, valid = out.float(), inputs.get("frame_valid")
                    part["number"].append(numbers)
                    part["logits"].append(clip_logits(out, valid).cpu().numpy())
                    if recipe.targets == "frame" and keep_views is None:
                        rows = dataset.rows[numbers].tolist()
                        values = out.cpu().numpy()
                        part["time"].append(dataset.reader.times(rows, now.draws(rows)))
                        part["probabilities"].append(metrics.sigmoid(values) if several else metrics.softmax(values))
                        there = np.ones(values.shape[:2], bool) if valid is None else valid.cpu().numpy()
                        part["valid"].append(there)
                states.forget(turn)
            order = np.argsort(np.concatenate(part["number"]))
            logits.append(np.concatenate(part["logits"])[order])
            probabilities.append(metrics.sigmoid(logits[-1]) if several else metrics.softmax(logits[-1]))
            for name, found in instants.items():
                found += [np.concatenate(part[name])[order]] if part[name] else []
    of_instants = None
    if instants["time"]:
        of_instants = mean_over_variants(instants["time"], instants["probabilities"], instants["valid"])
    return Scores(dataset.rows, np.mean(logits, axis=0), np.mean(probabilities, axis=0), np.stack(logits), of_instants)


def saved_arrays(run: Run) -> dict[str, np.ndarray]:
    """The arrays that `test` left in a run's folder, by name; recording holds a code for each snippet's recording."""
    import csv

    found = {
        name: np.load(run.folder / f"{name}.npy", allow_pickle=False)
        for name in ("actuals", "predictions", "logits", "probabilities")
    }
    with open(run.folder / "samples.csv", newline="", encoding="utf-8") as file:
        found["recording"] = np.array([row["recording"] for row in csv.DictReader(file)])
    return found


def predicted_of(probabilities: np.ndarray, *, several: bool) -> np.ndarray:
    """Codes (S), or with several labels zeros and ones (S, C) by the threshold of one half."""
    return (probabilities >= 0.5).astype(np.uint8) if several else probabilities.argmax(axis=1)


def _figures(scores: Scores, dataset: SnippetDataset | _Table, *, repeats: int) -> dict[str, Any]:
    table, rows = dataset.table, scores.rows
    several = _is_several(dataset)
    actual = _actual(dataset, scores)
    predicted = predicted_of(scores.probabilities, several=several)
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
    from actionprep.datasets.catalogue import natural_key

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


def _by_views(checkpoint: Checkpoint, dataset: SnippetDataset, *, variants: int, carry: bool) -> list[dict[str, Any]]:
    """Accuracy with each subset of the views, single views first."""
    num_views = len(dataset.views)
    sizes: Sequence[int] = range(1, num_views + 1)
    if 2**num_views - 1 > MOST_VIEW_SUBSETS:
        sizes = sorted({1, 2, num_views - 1, num_views})
    several = _is_several(dataset)
    rows = []
    for size in sizes:
        for chosen in itertools.combinations(range(num_views), size):
            keep = [view in chosen for view in range(num_views)]
            scores = score(checkpoint, dataset, variants=variants, keep_views=keep, carry=carry)
            table = dataset.table
            actual = table.target[scores.rows] if several else table.label[scores.rows]
            predicted = predicted_of(scores.probabilities, several=several)
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


def _keep(run: Run, found: Mapping[str, Any], scores: Scores, dataset: SnippetDataset | _Table) -> None:
    table, rows = dataset.table, scores.rows
    several = _is_several(dataset)
    actual = table.target[rows] if several else table.label[rows].astype(np.int64)
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


def _is_several(dataset: SnippetDataset | _Table) -> bool:
    from actionprep.training.parts import is_multi_label

    return is_multi_label(dataset.table)


def torch_device(device: str) -> torch.device:
    """The device of that name; auto is a GPU where there is one.

    Raises UserError for another name, EnvironmentProblem for a device that is not here.
    """
    import torch

    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", device):
        raise UserError(
            f"A device is auto, cpu, mps, cuda or cuda:N (the N-th GPU from 0), and '{device}' is none of them."
        )
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "auto":
        device = "cuda" if gpus else "cpu"
    found = torch.device(device)
    if found.type == "cuda" and (found.index or 0) >= gpus:
        what = f"finds {gpus} CUDA GPU(s), numbered from 0" if gpus else "finds no CUDA GPU here"
        raise EnvironmentProblem(
            f"device is {device}, and PyTorch {what}. Use --device {'cuda' if gpus else 'cpu'}"
            + (", or another number." if gpus else ", or install a CUDA build of PyTorch.")
        )
    if found.type == "mps" and not torch.backends.mps.is_available():
        raise EnvironmentProblem("device is mps, and PyTorch finds no Apple GPU here. Use --device cpu.")
    return found
