"""Predict the snippets of a dataset with a checkpoint."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from actionprep.datasets.split_choice import is_multi_label
from actionprep.errors import UserError, name_list
from actionprep.json_values import counted
from actionprep.training.checkpoints import Checkpoint, check_state
from actionprep.training.evaluation import metrics
from actionprep.training.evaluation.frame_scores import FrameScores, mean_over_variants
from actionprep.training.loop import memory
from actionprep.training.loop.recurrent_state import States, previous_windows, rounds_of

if TYPE_CHECKING:
    from actionprep.datasets.products.snippets import SnippetTable
    from actionprep.training.datasets import SnippetDataset


@dataclass(frozen=True)
class Scores:
    """Predictions for S snippets.

    Attributes:
        rows: Row of each snippet in the table, shape (S,).
        logits: Mean over variants, shape (S, C).
        probabilities: Mean over variants of the probabilities, shape (S, C).
        variant_logits: Logits of each of V variants, shape (V, S, C).
        steps: Predictions for each time step; None unless the model labels every time step.
        evidence: Whether each snippet shows anything (points, people or frames), shape (S,). None: all do. A snippet
            without evidence has no predicted label.
    """

    rows: np.ndarray
    logits: np.ndarray
    probabilities: np.ndarray
    variant_logits: np.ndarray
    steps: FrameScores | None = None
    evidence: np.ndarray | None = None

    @property
    def num_without_evidence(self) -> int:
        """Number of snippets that show nothing and therefore have no predicted label."""
        return 0 if self.evidence is None else int((~self.evidence).sum())


def _checked(score: Callable[..., Scores]) -> Callable[..., Scores]:
    """Limit the batch to that of the training; explain lack of memory and logits that are not finite."""

    @functools.wraps(score)
    def scored(checkpoint: Checkpoint, dataset: SnippetDataset, *, batch: int = 32, **options: Any) -> Scores:
        batch = min(batch, checkpoint.recipe.batch)
        try:
            scores = score(checkpoint, dataset, batch=batch, **options)
        except (RuntimeError, MemoryError) as error:
            if not memory.ran_out(error):
                raise
            device = next(checkpoint.model.parameters()).device.type
            remedies = [f"train with a smaller batch ({batch} here), which tests use too"] if batch > 1 else []
            remedies += ["test with --device cpu"] if device != "cpu" else []
            remedies += ["use fewer or smaller frames"]
            raise UserError(
                f"Out of memory on {device} while scoring {counted(batch, 'snippet')} at a time "
                f"({memory.reason(error)}).\nTry one of: {'; '.join(remedies)}."
            ) from None
        bad_rows = scores.rows[~np.isfinite(scores.logits).all(axis=1)].tolist()
        if bad_rows:
            table = dataset.table
            named = [f"{table.recordings[table.recording[row]]} at {table.onset[row]:.2f} s" for row in bad_rows[:5]]
            raise UserError(
                f"{checkpoint.path.name} produced non-finite logits (NaN or infinite) for {len(bad_rows)} of "
                f"{len(scores.rows)} snippets: {name_list(named, 5)}.\n"
                + (
                    "Its weights are broken. Train again with a lower learning rate or with optimizer.gradient_clip."
                    if len(bad_rows) == len(scores.rows)
                    else "The inputs of these snippets probably contain such values. Check them with 'actionprep verify'."
                )
            )
        return scores

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
    """Predict every snippet of a dataset, in order.

    The result is deterministic.

    Args:
        checkpoint: Checkpoint with its model.
        dataset: Snippets to predict.
        variants: Number of variants (frames or crops) of each snippet to average over.
        keep_views: Which of the views to use, one flag per view. None: all.
        carry: Start a window that follows another one of the dataset from the recurrent state at the end of that one.
        batch: Snippets per batch, at most the batch size of the training.

    Returns:
        Predictions, averaged over variants.

    Raises:
        UserError: If `carry` is set and the model has no recurrent state, if memory runs out, or if a logit is not
            finite.
    """
    import torch

    from actionprep.training.datasets import SnippetDataset, SnippetLoader, model_inputs, to_device
    from actionprep.training.loop.losses import clip_logits

    model: Any = checkpoint.model
    recipe = checkpoint.recipe
    if carry:
        check_state(recipe.model)
    device = next(model.parameters()).device
    multi_label = bool(checkpoint.card["several_labels"])
    size = len(dataset.rows)
    before = previous_windows(dataset.table, dataset.rows) if carry else np.full(size, -1)
    logits, probabilities = [], []
    evidence = np.zeros(size, bool)
    steps: dict[str, list[np.ndarray]] = {"time": [], "probabilities": [], "valid": []}
    with torch.inference_mode():
        for variant in range(variants):
            states = States(before)
            collected: dict[str, list[np.ndarray]] = {"number": [], "logits": [], **{name: [] for name in steps}}
            for round_positions in rounds_of(before):
                part = SnippetDataset(
                    dataset.store, dataset.table, rows=dataset.rows[round_positions], reader=dataset.reader
                )
                part.variant = variant
                done = 0
                for batch_data in SnippetLoader(part, batch=batch, workers=recipe.workers):
                    positions = round_positions[done : done + len(batch_data["row"])]
                    done += len(positions)
                    inputs = part.augmented(to_device(batch_data, device))
                    if keep_views is not None:
                        inputs = dataset.reader.without_views(inputs, keep_views)
                    evidence[positions] |= dataset.reader.evidence(inputs).cpu().numpy()
                    if carry:
                        start = states.at_start_of(positions)
                        logits_now, state = model.advance(**model_inputs(model, inputs), state=start)
                        states.keep(positions, state)
                    else:
                        logits_now = model(**model_inputs(model, inputs))
                    logits_now, valid = logits_now.float(), inputs.get("frame_valid")
                    collected["number"].append(positions)
                    collected["logits"].append(clip_logits(logits_now, valid).cpu().numpy())
                    if recipe.targets == "frame" and keep_views is None:
                        rows = dataset.rows[positions].tolist()
                        values = logits_now.cpu().numpy()
                        collected["time"].append(dataset.reader.times(rows, part.draws(rows)))
                        collected["probabilities"].append(
                            metrics.sigmoid(values) if multi_label else metrics.softmax(values)
                        )
                        has_frame = np.ones(values.shape[:2], bool) if valid is None else valid.cpu().numpy()
                        collected["valid"].append(has_frame)
                states.forget(round_positions)
            order = np.argsort(np.concatenate(collected["number"]))
            logits.append(np.concatenate(collected["logits"])[order])
            probabilities.append(metrics.sigmoid(logits[-1]) if multi_label else metrics.softmax(logits[-1]))
            for name, parts in steps.items():
                parts += [np.concatenate(collected[name])[order]] if collected[name] else []
    frame_scores = None
    if steps["time"]:
        frame_scores = mean_over_variants(steps["time"], steps["probabilities"], steps["valid"])
    return Scores(
        dataset.rows,
        np.mean(logits, axis=0),
        np.mean(probabilities, axis=0),
        np.stack(logits),
        frame_scores,
        None if evidence.all() else evidence,
    )


def predicted_of(probabilities: np.ndarray, *, multi_label: bool, evidence: np.ndarray | None = None) -> np.ndarray:
    """Return the predicted labels of snippets.

    Args:
        probabilities: Predicted probabilities, shape (S, C).
        multi_label: Whether a snippet can have several labels.
        evidence: Whether each snippet shows anything, shape (S,). None: all do.

    Returns:
        The most probable code (S,), -1 without evidence; with several labels zeros and ones (S, C): the probabilities
        of at least 0.5, none without evidence.
    """
    if multi_label:
        seen = True if evidence is None else evidence[:, None]
        return ((probabilities >= 0.5) & seen).astype(np.uint8)
    predicted = probabilities.argmax(axis=1)
    return predicted if evidence is None else np.where(evidence, predicted, -1)


def actual_of(table: SnippetTable, rows: np.ndarray) -> np.ndarray:
    """Return the codes (S,) of snippets or, with several labels, zeros and ones (S, C)."""
    return table.target[rows] if is_multi_label(table) else table.label[rows].astype(np.int64)
