"""Plan of a training: store, recipe, snippets, views and split."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from actionprep.datasets.split_choice import (
    Parts,
    SplitChoice,
    check_train,
    choose_parts,
    describe,
    groups_of,
    is_multi_label,
    joined,
)
from actionprep.datasets.store.zarr_store import Store
from actionprep.json_values import counted
from actionprep.training.loop.progress import Log
from actionprep.training.loop.recurrent_state import previous_windows
from actionprep.training.recipes import Recipe, choose_recipe, find_recipe
from actionprep.training.run import Phase, input_digest, mixed_inputs, now, pipeline_of, versions

if TYPE_CHECKING:
    from torch import nn

    from actionprep.datasets.products.snippets import SnippetTable
    from actionprep.datasets.splits import SplitAssignment
    from actionprep.training.inputs.base import ProductReader


IMBALANCE = 3
"""Ratio of the largest to the smallest class in train from which the imbalance is reported."""


@dataclass(frozen=True)
class TrainingPlan:
    """Everything that determines a training.

    Attributes:
        store: Store with the snippets and the input product.
        recipe: Recipe.
        snippets: Name of the table of snippets.
        table: Table of snippets.
        views: Views that the model sees, in order.
        parts: Split into train, val and test.
    """

    store: Store
    recipe: Recipe
    snippets: str
    table: SnippetTable
    views: tuple[str, ...]
    parts: Parts

    @classmethod
    def make(
        cls,
        store: Store,
        recipe: Recipe,
        *,
        snippets: str,
        split: SplitChoice | SplitAssignment | Parts,
        views: Sequence[str | int] | None,
    ) -> TrainingPlan:
        """Plan a new training.

        Args:
            store: Store with the snippets and the input product.
            recipe: Recipe.
            snippets: Name of the table of snippets.
            split: How the snippets are divided, or the split itself.
            views: Views to use; None: all.

        Returns:
            The plan.

        Raises:
            UserError: If recipe and store do not fit, or if the train part has fewer than two classes.
        """
        from actionprep.training.checkpoints import check_abilities
        from actionprep.training.datasets import choose_views, read_table
        from actionprep.training.inputs.base import find_input

        recipe = recipe.self_contained()
        check_abilities(recipe)
        table = read_table(store, snippets)
        find_input(recipe.product).check_store(recipe.input, store, training=True)
        if isinstance(split, SplitChoice):
            parts = choose_parts(store, table, with_val_by_of(split, recipe))
        elif isinstance(split, Parts):
            parts = split
        else:
            parts = Parts(split, split.by, "the given split")
        check_train(table, parts.split)
        return cls(store, recipe, snippets, table, choose_views(store, recipe.reads, table, views), parts)

    def in_precision(self, device: str, model: nn.Module) -> TrainingPlan:
        """Return the same plan with a precision that the device computes the model in.

        Raises:
            UserError: If it cannot compute the model in the precision that the recipe asks for.
        """
        from actionprep.training.loop.devices import torch_device
        from actionprep.training.loop.precision import with_precision

        if self.recipe.precision == "32-true":
            return self
        return replace(self, recipe=with_precision(self.recipe, torch_device(device), model))

    def with_note(self, note: str) -> TrainingPlan:
        """Return the same plan with another note on its split."""
        split = self.parts.split
        return replace(self, parts=replace(self.parts, split=replace(split, notes=(*split.notes, note))))

    @property
    def sentences(self) -> list[str]:
        """Messages that describe the training before it starts."""
        views = f", views {', '.join(self.views)}" if len(self.views) > 1 else ""
        return [
            f"{counted(len(self.table.labels), 'class')}: {', '.join(self.table.labels)}{views}",
            self.parts.why,
            *describe(self.parts, self.table),
            *mixed_inputs(self.store, self.recipe.reads, self.views),
            *self._class_imbalance(),
            *self._more_epochs(),
            *self._nothing_carried(),
        ]

    def _class_imbalance(self) -> list[str]:
        """A message if the train part has many more snippets of one class than of another."""
        counts = self.table.target[self.parts.split.train].sum(axis=0, dtype=np.int64)
        present = np.flatnonzero(counts)
        if len(present) < 2 or counts[present].max() < IMBALANCE * counts[present].min():
            return []
        most, least = present[counts[present].argmax()], present[counts[present].argmin()]
        labels, recipe = self.table.labels, self.recipe
        handled = []
        if recipe.loss.class_weights != "none":
            handled.append(f"weights classes (loss.class_weights = {recipe.loss.class_weights})")
        if recipe.sampler == "balanced":
            handled.append("draws classes equally often (sampler = balanced)")
        action = (
            f"The recipe {' and '.join(handled)}"
            if handled
            else "The recipe does not compensate for it, so rare classes may be missed: --set loss.class_weights=balanced "
            "or --set sampler=balanced"
        )
        return [
            f"Train is imbalanced: {counted(int(counts[most]), 'snippet')} of {labels[most]}, {counts[least]} of "
            f"{labels[least]}. {action}"
        ]

    def _more_epochs(self) -> list[str]:
        """A message if min_steps requires more epochs than the recipe has."""
        recipe, num_epochs = self.recipe, self.num_epochs(self.phases[0])
        if num_epochs == recipe.epochs:
            return []
        return [
            f"Training {counted(num_epochs, 'epoch', 'epochs')} instead of {recipe.epochs}, because there are few snippets "
            f"and min_steps is {recipe.min_steps} (--set min_steps=0 keeps the epochs of the recipe)"
        ]

    def _nothing_carried(self) -> list[str]:
        """A message if the state should be carried and no window of train continues another one."""
        if not self.recipe.carry or (previous_windows(self.table, self.parts.split.train) >= 0).any():
            return []
        return [
            "carry = true has no effect: no window in train starts where another one ends. Create windows with a length "
            "that is a multiple of the stride and at most half of a recording (actionprep snippets --length 1000 --stride "
            "500)"
        ]

    def facts(self) -> dict[str, Any]:
        """Return the contents of run.json."""
        split = self.parts.split
        return {
            "schema": 1,
            "store": str(self.store.path.resolve()) if self.store.path is not None else self.store.url,
            "store_digest": self.store.digest(),
            "input_digest": input_digest(self.store, self.recipe.reads, self.snippets),
            "snippets": self.snippets,
            "snippets_digest": self.store.item("snippets", self.snippets).digest,
            "labels": list(self.table.labels),
            "views": list(self.views),
            "several_labels": is_multi_label(self.table),
            "seed": self.recipe.seed,
            "split": {
                "by": self.parts.by,
                "why": self.parts.why,
                "stored": self.parts.stored,
                "folds": self.parts.folds,
                "seed": split.seed,
                "groups": {part: list(names) for part, names in split.groups.items()},
                "shown": {
                    part: {"by": by, "names": list(names)}
                    for part, (by, names) in groups_of(self.parts, self.table).items()
                },
                "rows": {part: split.rows(part).tolist() for part in ("train", "val", "test")},
                "notes": list(split.notes),
            },
            "pipeline": pipeline_of(self.store, self.recipe.reads),
            "snippet_settings": self.table.settings,
            "versions": versions(self.recipe),
            "started": now(),
            "state": {"phase": self.phases[0], "complete": False},
        }

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The phases in order."""
        return ("validate", "refit") if self.recipe.refit and len(self.parts.split.val) else ("validate",)

    def rows(self, phase: Phase) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows to train on and the rows to validate on."""
        split = self.parts.split
        return (joined(split), np.zeros(0, np.int64)) if phase == "refit" else (split.train, split.val)

    def num_epochs(self, phase: Phase) -> int:
        """Return the epochs of the recipe, or more if these give fewer than min_steps steps."""
        recipe, num_snippets = self.recipe, len(self.rows(phase)[0])
        per_epoch = math.ceil(math.ceil(num_snippets / recipe.batch) / recipe.accumulate)
        return max(recipe.epochs, math.ceil(recipe.min_steps / max(per_epoch, 1)))

    def make_reader(self) -> ProductReader:
        """Create the reader of the recipe's input product."""
        from actionprep.training.inputs.base import find_input

        return find_input(self.recipe.product)(self.recipe.input, self.store, self.table, self.views)

    def card(self, reader: ProductReader, phase: Phase) -> dict[str, Any]:
        """Return the description that checkpoints of this training contain."""
        from actionprep.training.checkpoints import card_of

        pipeline = pipeline_of(self.store, self.recipe.reads)
        rows, _ = self.rows(phase)
        return card_of(self.recipe, self.table, self.views, reader, rows=rows, pipeline=pipeline, phase=phase)


def resolve_recipe(store: Store, recipe: Recipe | str, log: Log) -> Recipe:
    """Resolve a recipe by name or path. For "auto", choose the best one for the store and log the choice."""
    if isinstance(recipe, Recipe):
        return recipe
    if recipe == "auto":
        choice = choose_recipe(store)
        log(f"Recipe {choice.recipe.name}: {choice.why}")
        return choice.recipe
    return find_recipe(recipe)


def with_val_by_of(split: SplitChoice, recipe: Recipe) -> SplitChoice:
    """Return the choice with val split off by recording if the recipe requires that."""
    return replace(split, val_by="recording") if recipe.val_by == "recording" else split
