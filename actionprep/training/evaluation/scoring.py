"""What a model says of snippets, averaged over variants and with views left out or states carried."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from actionprep.errors import UserError
from actionprep.training.checkpoints import Checkpoint, check_state
from actionprep.training.evaluation import metrics
from actionprep.training.evaluation.frame_scores import FrameScores, mean_over_variants
from actionprep.training.loop import memory
from actionprep.training.loop.recurrent_state import States, in_turns, windows_before
from actionprep.training.split_choice import is_multi_label

if TYPE_CHECKING:
    from actionprep.datasets.products.snippets import SnippetTable
    from actionprep.training.datasets import SnippetDataset


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
    instants: FrameScores | None = None


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
    from actionprep.training.loop.losses import clip_logits

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


def predicted_of(probabilities: np.ndarray, *, several: bool) -> np.ndarray:
    """Codes (S), or with several labels zeros and ones (S, C) by the threshold of one half."""
    return (probabilities >= 0.5).astype(np.uint8) if several else probabilities.argmax(axis=1)


def actual_of(table: SnippetTable, rows: np.ndarray) -> np.ndarray:
    """Codes (S) of these snippets, or with several labels zeros and ones (S, C)."""
    return table.target[rows] if is_multi_label(table) else table.label[rows].astype(np.int64)
