"""Inputs of several recipes side by side, for a model that joins their features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

from actionprep.errors import UserError
from actionprep.settings import option
from actionprep.training.inputs.base import Batch, InputSettings, ProductReader, find_input, how_to_make, what_it_has
from actionprep.training.inputs.rng import Draws

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from actionprep.datasets.products.snippets import SnippetTable
    from actionprep.datasets.store.zarr_store import Store
    from actionprep.training.recipes import Recipe


class FusionInput(InputSettings):
    """Which recipes' inputs and models are joined."""

    recipes: tuple[str, ...] = option(
        ("view-transformer", "i3d-small"),
        "Recipes, by name or path, whose inputs are read and whose models are joined.",
        names="file",
        known=lambda recipes: not any(name.endswith(".toml") for name in recipes),
        min_length=2,
    )
    parts: dict[str, dict[str, Any]] = option(
        {},
        "Written when a training begins, not by hand: model and input of each of these recipes as they were then, so that "
        "the run stays what it is. Recipes that are not in here are read by name or path.",
    )

    @classmethod
    def read(cls, values: dict[str, Any], *, where: str) -> Self:
        """Validate plain values; see `Settings.read`."""
        parts = values.get("parts")
        if isinstance(parts, Mapping) and all(isinstance(one, Mapping) for one in parts.values()):
            # The errors of a part name its keys only when they do not pass through this model's validation.
            values = {**values, "parts": {name: _tables_of(_held(name, tables)) for name, tables in parts.items()}}
        return super().read(values, where=where)


class FusionReader(ProductReader):
    """Batches of several inputs of the same snippets: the arrays of recipe i are called part<i>_<name>.

    Each part is sampled and augmented as its recipe says, from random numbers of its own.
    """

    product: ClassVar[str] = "fusion"
    # A rectangle of pictures and a span of time of points are not the same piece of a sample.
    cuts = False
    Settings = FusionInput
    settings: FusionInput

    def __init__(self, settings: FusionInput, store: Store, table: SnippetTable, views: Sequence[str]) -> None:
        super().__init__(settings, store, table, views)
        self.recipes = recipes_of(settings)
        self.parts = [find_input(one.product)(one.input, store, table, views) for one in self.recipes]
        for recipe, part in zip(self.recipes, self.parts, strict=True):
            if part.mirror_codes() is not None:
                raise UserError(
                    f"The recipe '{recipe.name}' mirrors samples, and in a fusion every part would do so for itself. Set "
                    "its input.flip = 0 in a recipe file of your own, and name that."
                )
        self.in_memory = all(part.in_memory for part in self.parts)

    def read(self, rows: Sequence[int], draws: Draws | None = None) -> Batch:  # noqa: D102
        return self._joined([part.read(rows, _own(draws, at)) for at, part in enumerate(self.parts)])

    def augment(self, batch: Batch, draws: Draws) -> Batch:  # noqa: D102
        changed = [
            part.augment(arrays, Draws(draws.seed + 7919 * at, draws.epoch, draws.rows, variant=draws.variant))
            for at, (part, arrays) in enumerate(zip(self.parts, self._apart(batch), strict=True))
        ]
        return {**_others(batch), **self._joined(changed)}

    def mix(self, batch: Batch, partner: Tensor, share: Tensor) -> Batch:  # noqa: D102
        mixed = [part.mix(one, partner, share) for part, one in zip(self.parts, self._apart(batch), strict=True)]
        return {**_others(batch), **self._joined(mixed)}

    def collate(self, samples: Sequence[Batch]) -> Batch:  # noqa: D102
        apart = [self._apart(sample) for sample in samples]
        return self._joined([part.collate([one[at] for one in apart]) for at, part in enumerate(self.parts)])

    def to(self, device: torch.device) -> None:  # noqa: D102
        for part in self.parts:
            part.to(device)

    def meanings(self) -> dict[str, str]:  # noqa: D102
        parts = [part.meanings() for part in self.parts]
        return {f"part{at}_{name}": text for at, part in enumerate(parts) for name, text in part.items()}

    def model_sizes(self) -> dict[str, Any]:  # noqa: D102
        from actionprep.training.checkpoints import model_sizes

        return {
            "parts": [
                {
                    "model": recipe.model,
                    "sizes": model_sizes(recipe, part),
                    "channels": getattr(recipe.input, "channels", "rgb"),
                }
                for recipe, part in zip(self.recipes, self.parts, strict=True)
            ]
        }

    @classmethod
    def reads(cls, settings: Any) -> str:  # noqa: D102
        return "+".join(dict.fromkeys(one.reads for one in recipes_of(settings)))

    @classmethod
    def self_contained(cls, settings: Any) -> Any:  # noqa: D102
        parts = {name: _tables_of(one) for name, one in zip(settings.recipes, recipes_of(settings), strict=True)}
        return settings.with_changes({"parts": parts}, where="[input] of the recipe")

    @classmethod
    def check_store(cls, settings: Any, store: Store, *, training: bool = False) -> None:  # noqa: D102
        for name, one in zip(settings.recipes, recipes_of(settings), strict=True):
            product = one.reads
            if not store.items(product):
                raise UserError(
                    f"This fusion joins '{name}', which reads '{product}', and the store {store.url} {what_it_has(store)}.\n"
                    f"{how_to_make(product)}" + (f", or {_other_part(name, one, store)}." if training else ".")
                )

    @classmethod
    def span(cls, store: Store, recording: str, views: Sequence[str]) -> tuple[float, float]:  # noqa: D102
        from actionprep.training.inputs.base import products

        found = []
        for product in sorted({key.product for key in store.items() if key.recording == recording}):
            if product in products():
                found.append(find_input(product).span(store, recording, views))
        if not found:
            raise UserError(f"Recording '{recording}' has nothing that a fusion reads in {store.url}.")
        # What one part alone covers, the others cannot say anything of.
        return max(start for start, _ in found), min(end for _, end in found)

    def _joined(self, parts: Sequence[Batch]) -> Batch:
        return {f"part{at}_{name}": values for at, one in enumerate(parts) for name, values in one.items()}

    def _apart(self, batch: Batch) -> list[Batch]:
        return [
            {name.removeprefix(f"part{at}_"): values for name, values in batch.items() if name.startswith(f"part{at}_")}
            for at in range(len(self.parts))
        ]


def recipes_of(settings: FusionInput) -> list[Recipe]:
    """The recipes that are joined, as the settings hold them, else by name or path.

    Raises UserError when one is a fusion itself.
    """
    from actionprep.training.recipes import find_recipe

    # A fusion answers once a snippet, whatever its parts learn by themselves.
    alike = {"targets": "snippet", "carry": False, "monitor": "val_loss"}
    found = [
        _held(name, settings.parts[name]) if name in settings.parts else find_recipe(name).changed(alike)
        for name in settings.recipes
    ]
    for one in found:
        if one.product == FusionReader.product:
            raise UserError(f"The recipe '{one.name}' is a fusion itself: name its recipes instead.")
    return found


def _tables_of(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """What of a recipe decides its part in a fusion, as plain values; `_held` reads them back."""
    tables = recipe.to_tables()
    named = {key: tables["recipe"][key] for key in ("name", "model", "product")}
    return {"recipe": named, "sizes": tables["sizes"], "input": tables["input"]}


def _held(name: str, tables: Mapping[str, Any]) -> Recipe:
    from actionprep.training.recipes import Recipe

    return Recipe.from_tables(tables, where=f"input.parts of '{name}'")


def _other_part(name: str, recipe: Recipe, store: Store) -> str:
    """What to join instead of a recipe whose product the store lacks."""
    other = find_input(recipe.product).instead(store)
    if other is None:
        return "name recipes for what there is in input.recipes (actiontrain recipes)"
    known = find_input(other).Settings.model_fields
    without = [f"input.{key}" for key in type(recipe.input).model_fields if key not in known]
    changed = f'product = "{other}"' + (f" and without {' and '.join(without)}" if without else "")
    if name.endswith(".toml"):
        return f"change {name} to have {changed}"
    return (
        f"keep what 'actiontrain recipes {name}' prints as a file of your own, with {changed}, and name that file in "
        f"input.recipes instead of {name}"
    )


def _own(draws: Draws | None, at: int) -> Draws | None:
    return None if draws is None else Draws(draws.seed + 7919 * at, draws.epoch, draws.rows, variant=draws.variant)


def _others(batch: Batch) -> Batch:
    return {name: values for name, values in batch.items() if not name.startswith("part")}
