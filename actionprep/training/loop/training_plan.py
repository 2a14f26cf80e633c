"""What decides a training: store, recipe, snippets, views and split."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from actionprep.datasets.store.zarr_store import Store
from actionprep.training.loop.progress import Told
from actionprep.training.loop.recurrent_state import windows_before
from actionprep.training.recipes import Recipe, choose_recipe, find_recipe
from actionprep.training.run import Phase, input_digest, mixtures, now, pipeline_of, versions
from actionprep.training.split_choice import (
    Parts,
    SplitChoice,
    check_train,
    choose_parts,
    describe,
    groups_of,
    is_multi_label,
    joined,
)

if TYPE_CHECKING:
    from torch import nn

    from actionprep.datasets.products.snippets import SnippetTable
    from actionprep.datasets.splits import SplitAssignment
    from actionprep.training.inputs.base import ProductReader


@dataclass(frozen=True)
class Plan:
    """Everything that a training is decided by."""

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
    ) -> Plan:
        """The plan of a new training; raises UserError when recipe and store do not fit, or train has no two classes."""
        from actionprep.training.checkpoints import check_abilities
        from actionprep.training.datasets import choose_views, read_table
        from actionprep.training.inputs.base import find_input

        recipe = recipe.self_contained()
        check_abilities(recipe)
        table = read_table(store, snippets)
        find_input(recipe.product).check_store(recipe.input, store, training=True)
        if isinstance(split, SplitChoice):
            parts = choose_parts(store, table, as_recipe_wants(split, recipe))
        elif isinstance(split, Parts):
            parts = split
        else:
            parts = Parts(split, split.by, "the given split")
        check_train(table, parts.split)
        return cls(store, recipe, snippets, table, choose_views(store, recipe.reads, table, views), parts)

    def in_precision(self, device: str, model: nn.Module) -> Plan:
        """Return the same plan with a precision that the device computes the model in.

        Raises:
            UserError: If it cannot compute the model in the precision that the recipe asks for.
        """
        from actionprep.training.loop.devices import torch_device
        from actionprep.training.loop.precision import with_precision

        if self.recipe.precision == "32-true":
            return self
        return replace(self, recipe=with_precision(self.recipe, torch_device(device), model))

    def with_note(self, note: str) -> Plan:
        """The same plan, in whose split there is one more thing to know."""
        split = self.parts.split
        return replace(self, parts=replace(self.parts, split=replace(split, notes=(*split.notes, note))))

    @property
    def sentences(self) -> list[str]:
        """What is about to happen, for who started it."""
        views = f", views {', '.join(self.views)}" if len(self.views) > 1 else ""
        return [
            f"{len(self.table.labels)} classes: {', '.join(self.table.labels)}{views}",
            self.parts.why,
            *describe(self.parts, self.table),
            *mixtures(self.store, self.recipe.reads, self.views),
            *self._more_epochs(),
            *self._nothing_carried(),
        ]

    def _more_epochs(self) -> list[str]:
        """A sentence where min_steps takes more epochs than the recipe has."""
        recipe, num_epochs = self.recipe, self.num_epochs(self.phases[0])
        if num_epochs == recipe.epochs:
            return []
        return [
            f"So few snippets: {num_epochs} epochs instead of {recipe.epochs}, to make min_steps = {recipe.min_steps} steps "
            "(--set min_steps=0 leaves the epochs as they are)"
        ]

    def _nothing_carried(self) -> list[str]:
        """A sentence where state is to be carried and no window of train follows on another one."""
        if not self.recipe.carry or (windows_before(self.table, self.parts.split.train) >= 0).any():
            return []
        return [
            "carry = true does nothing here: no window in train begins where another one ends. Cut them with a length that "
            "is a multiple of the stride, and at most half of a recording (actionprep snippets --length 1000 --stride 500)"
        ]

    def facts(self) -> dict[str, Any]:
        """What run.json says of it."""
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
            "versions": versions(),
            "started": now(),
            "state": {"phase": self.phases[0], "complete": False},
        }

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The phases, in their order."""
        return ("validate", "refit") if self.recipe.refit and len(self.parts.split.val) else ("validate",)

    def rows(self, phase: Phase) -> tuple[np.ndarray, np.ndarray]:
        """Rows to train on and rows to validate on."""
        split = self.parts.split
        return (joined(split), np.zeros(0, np.int64)) if phase == "refit" else (split.train, split.val)

    def num_epochs(self, phase: Phase) -> int:
        """The recipe's epochs, or more where these would be too few steps."""
        recipe, num_snippets = self.recipe, len(self.rows(phase)[0])
        per_epoch = math.ceil(math.ceil(num_snippets / recipe.batch) / recipe.accumulate)
        return max(recipe.epochs, math.ceil(recipe.min_steps / max(per_epoch, 1)))

    def make_reader(self) -> ProductReader:
        """What reads the recipe's product."""
        from actionprep.training.inputs.base import find_input

        return find_input(self.recipe.product)(self.recipe.input, self.store, self.table, self.views)

    def card(self, reader: ProductReader, phase: Phase) -> dict[str, Any]:
        """What a checkpoint of this training says of itself."""
        from actionprep.training.checkpoints import card_of

        pipeline = pipeline_of(self.store, self.recipe.reads)
        rows, _ = self.rows(phase)
        return card_of(self.recipe, self.table, self.views, reader, rows=rows, pipeline=pipeline, phase=phase)


def resolve_recipe(store: Store, recipe: Recipe | str, tell: Told) -> Recipe:
    """A recipe by its name or path; of "auto" the one that suits the store, and why, is told."""
    if isinstance(recipe, Recipe):
        return recipe
    if recipe == "auto":
        choice = choose_recipe(store)
        tell(f"Recipe {choice.recipe.name}: {choice.why}")
        return choice.recipe
    return find_recipe(recipe)


def as_recipe_wants(split: SplitChoice, recipe: Recipe) -> SplitChoice:
    """The same choice with val carved out by recording, where the recipe asks for that."""
    return replace(split, val_by="recording") if recipe.val_by == "recording" else split
