"""Test a range of the epochs of a run, whose checkpoints `keep_epochs` kept."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from actionprep.datasets.split_choice import is_multi_label
from actionprep.datasets.store.opening import open_store
from actionprep.datasets.store.zarr_store import Store
from actionprep.errors import UserError
from actionprep.training.checkpoints import load_checkpoint
from actionprep.training.evaluation import metrics
from actionprep.training.evaluation.scoring import actual_of, predicted_of, score
from actionprep.training.loop.devices import torch_device
from actionprep.training.run import EPOCHS, Run
from actionprep.training.test import part_dataset


def run_epoch_tests(
    run: Run | str | Path,
    store: Store | str | Path | None = None,
    *,
    epochs: Sequence[int] | None = None,
    part: Literal["test", "val", "train"] = "test",
    device: str = "auto",
    carry: bool | None = None,
) -> list[dict[str, Any]]:
    """Test kept checkpoints on one part of the split, and write epochs/PART.csv.

    Args:
        run: Run or its folder.
        store: Store of the training; None: as recorded.
        epochs: Epochs, counted from 1; None: all kept ones.
        part: Part of the split.
        device: Device of the models.
        carry: Whether to carry the state of the model from window to window; None: as in the recipe.

    Returns:
        `epoch` and the metrics of each checkpoint, in the order of the epochs.

    Raises:
        UserError: If a checkpoint was not kept, the part is empty or the store has changed.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    kept = run.kept_epochs
    if not kept:
        raise UserError(
            f"{run.folder} has no checkpoints of single epochs. Train with --keep-epochs, then test a range of them."
        )
    chosen = kept if epochs is None else sorted(set(epochs))
    missing = sorted(set(chosen) - set(kept))
    if missing or not chosen:
        raise UserError(
            f"{run.folder / EPOCHS} has no checkpoint of epoch {missing[0] if missing else 1}. Available epochs: "
            f"{kept[0]} to {kept[-1]}."
        )
    store = open_store(run.store if store is None else store).snapshot()
    where = torch_device(device)
    dataset = None
    rows = []
    for epoch in chosen:
        checkpoint = load_checkpoint(run.epoch_checkpoint(epoch), device=str(where))
        if dataset is None:
            dataset = part_dataset(run, store, checkpoint, part)
            dataset.reader.to(where)
        recipe = checkpoint.recipe
        scores = score(
            checkpoint, dataset, variants=recipe.test_variants, carry=recipe.carry if carry is None else carry
        )
        actual = actual_of(dataset.table, scores.rows)
        predicted = predicted_of(
            scores.probabilities, multi_label=is_multi_label(dataset.table), evidence=scores.evidence
        )
        rows.append({"epoch": epoch, **metrics.summary(actual, predicted, scores.probabilities)})
    run.write_table(f"{EPOCHS}/{part}.csv", rows)
    return rows


def parse_epochs(text: str, kept: Sequence[int]) -> list[int]:
    """Parse a range of epochs.

    Args:
        text: "all", one epoch, "FIRST-LAST", or "FIRST-LAST:STEP", counted from 1; the last is included.
        kept: Epochs with a checkpoint, which "all" selects.

    Raises:
        UserError: If the text has another form.
    """
    if text == "all":
        return list(kept)
    match = re.fullmatch(r"(\d{1,6})(?:-(\d{1,6})(?::(\d{1,6}))?)?", text, re.ASCII)
    first, last, step = (int(group or 0) for group in match.groups()) if match else (0, 0, 0)
    last, step = last or first, step or 1
    if not 1 <= first <= last:
        raise UserError(f"--epochs expects all, an epoch, or a range such as 10-50 or 10-50:5; got '{text}'.")
    return list(range(first, last + 1, step))
