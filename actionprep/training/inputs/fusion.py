"""Inputs of several recipes side by side, for a model that joins their features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

from actionprep.errors import UserError
from actionprep.settings import option
from actionprep.training.inputs.base import (
    Batch,
    InputSettings,
    ProductReader,
    available_products,
    build_hint,
    find_input,
)
from actionprep.training.inputs.rng import Draws

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from actionprep.datasets.products.snippets import SnippetTable
    from actionprep.datasets.store.zarr_store import Store
    from actionprep.training.recipes import Recipe


class FusionInput(InputSettings):
    """Recipes with inputs and models to join."""

    recipes: tuple[str, ...] = option(
        ("view-transformer", "i3d-small"),
        "Recipes to join, by name or path.",
        names="file",
        known=lambda recipes: not any(name.endswith(".toml") for name in recipes),
        min_length=2,
    )
    parts: dict[str, dict[str, Any]] = option(
        {},
        "Written when a training starts, not by hand: model and input of each recipe at that time, so that the run does "
        "not change later. Recipes that are missing here are read by name or path.",
    )

    @classmethod
    def read(cls, values: dict[str, Any], *, where: str) -> Self:
        """Validate plain values; see `Settings.read`."""
        parts = values.get("parts")
        if isinstance(parts, Mapping) and all(isinstance(part, Mapping) for part in parts.values()):
            # The errors of a part name its keys only if they do not pass through the validation of this model.
            values = {
                **values,
                "parts": {name: _tables_of(_part_recipe(name, tables)) for name, tables in parts.items()},
            }
        return super().read(values, where=where)


class FusionReader(ProductReader):
    """Batches of several inputs of the same snippets. The arrays of recipe i are called part<i>_<name>.

    Each part is sampled and augmented as in its recipe, with separate random numbers.
    """

    product: ClassVar[str] = "fusion"
    # A rectangle of frames and a time span of points are not the same piece of a sample.
    cuts = False
    Settings = FusionInput
    settings: FusionInput

    def __init__(self, settings: FusionInput, store: Store, table: SnippetTable, views: Sequence[str]) -> None:
        super().__init__(settings, store, table, views)
        self.recipes = recipes_of(settings)
        self.parts = [find_input(recipe.product)(recipe.input, store, table, views) for recipe in self.recipes]
        for recipe, part in zip(self.recipes, self.parts, strict=True):
            if part.mirror_codes() is not None:
                raise UserError(
                    f"The recipe '{recipe.name}' mirrors samples. In a fusion, each part would be mirrored independently. "
                    "Set input.flip = 0 in a recipe file and name that file instead."
                )
        self.in_memory = all(part.in_memory for part in self.parts)

    def read(self, rows: Sequence[int], draws: Draws | None = None) -> Batch:  # noqa: D102
        return self._join_parts([part.read(rows, _part_draws(draws, index)) for index, part in enumerate(self.parts)])

    def augment(self, batch: Batch, draws: Draws) -> Batch:  # noqa: D102
        augmented = [
            part.augment(arrays, Draws(draws.seed + 7919 * index, draws.epoch, draws.rows, variant=draws.variant))
            for index, (part, arrays) in enumerate(zip(self.parts, self._split_parts(batch), strict=True))
        ]
        return {**_shared_arrays(batch), **self._join_parts(augmented)}

    def mix(self, batch: Batch, partner: Tensor, share: Tensor) -> Batch:  # noqa: D102
        mixed = [
            part.mix(arrays, partner, share) for part, arrays in zip(self.parts, self._split_parts(batch), strict=True)
        ]
        return {**_shared_arrays(batch), **self._join_parts(mixed)}

    def evidence(self, batch: Batch) -> Tensor:
        """Return which samples have evidence in some part."""
        parts = [part.evidence(arrays).cpu() for part, arrays in zip(self.parts, self._split_parts(batch), strict=True)]
        return torch_any(parts)

    def collate(self, samples: Sequence[Batch]) -> Batch:  # noqa: D102
        split_samples = [self._split_parts(sample) for sample in samples]
        return self._join_parts(
            [part.collate([sample[index] for sample in split_samples]) for index, part in enumerate(self.parts)]
        )

    def to(self, device: torch.device) -> None:  # noqa: D102
        for part in self.parts:
            part.to(device)

    def meanings(self) -> dict[str, str]:  # noqa: D102
        parts = [part.meanings() for part in self.parts]
        return {f"part{index}_{name}": text for index, part in enumerate(parts) for name, text in part.items()}

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
        return "+".join(dict.fromkeys(recipe.reads for recipe in recipes_of(settings)))

    @classmethod
    def self_contained(cls, settings: Any) -> Any:  # noqa: D102
        parts = {name: _tables_of(recipe) for name, recipe in zip(settings.recipes, recipes_of(settings), strict=True)}
        return settings.with_changes({"parts": parts}, where="[input] of the recipe")

    @classmethod
    def check_store(cls, settings: Any, store: Store, *, training: bool = False) -> None:  # noqa: D102
        for name, recipe in zip(settings.recipes, recipes_of(settings), strict=True):
            product = recipe.reads
            if not store.items(product):
                raise UserError(
                    f"This fusion joins '{name}', which reads '{product}', but the store {store.url} "
                    f"{available_products(store)}.\n{build_hint(product)}"
                    + (f", or {_alternative_part(name, recipe, store)}." if training else ".")
                )

    @classmethod
    def span(cls, store: Store, recording: str, views: Sequence[str]) -> tuple[float, float]:  # noqa: D102
        from actionprep.training.inputs.base import products

        spans = []
        for product in sorted({key.product for key in store.items() if key.recording == recording}):
            if product in products():
                spans.append(find_input(product).span(store, recording, views))
        if not spans:
            raise UserError(f"Recording '{recording}' has no product that a fusion reads in {store.url}.")
        # Only the time that all parts cover can be predicted.
        return max(start for start, _ in spans), min(end for _, end in spans)

    def _join_parts(self, parts: Sequence[Batch]) -> Batch:
        return {f"part{index}_{name}": values for index, arrays in enumerate(parts) for name, values in arrays.items()}

    def _split_parts(self, batch: Batch) -> list[Batch]:
        prefixes = [f"part{index}_" for index in range(len(self.parts))]
        return [
            {name.removeprefix(prefix): values for name, values in batch.items() if name.startswith(prefix)}
            for prefix in prefixes
        ]


def torch_any(flags: Sequence[Tensor]) -> Tensor:
    """Join flags (B,) with a logical or."""
    import torch

    return torch.stack(list(flags)).any(0)


def recipes_of(settings: FusionInput) -> list[Recipe]:
    """Return the recipes to join, from the settings if they contain them, else by name or path.

    Raises:
        UserError: If one of them is a fusion.
    """
    from actionprep.training.recipes import find_recipe

    # A fusion has one prediction per snippet, whatever its parts are trained on.
    fixed = {"targets": "snippet", "carry": False, "monitor": "val_loss"}
    recipes = [
        _part_recipe(name, settings.parts[name]) if name in settings.parts else find_recipe(name).changed(fixed)
        for name in settings.recipes
    ]
    for recipe in recipes:
        if recipe.product == FusionReader.product:
            raise UserError(f"The recipe '{recipe.name}' is a fusion. Name the recipes that it joins instead.")
    return recipes


def _tables_of(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """Plain values of what determines a part of a fusion; `_part_recipe` reads them."""
    tables = recipe.to_tables()
    named = {key: tables["recipe"][key] for key in ("name", "model", "product")}
    return {"recipe": named, "sizes": tables["sizes"], "input": tables["input"]}


def _part_recipe(name: str, tables: Mapping[str, Any]) -> Recipe:
    from actionprep.training.recipes import Recipe

    return Recipe.from_tables(tables, where=f"input.parts of '{name}'")


def _alternative_part(name: str, recipe: Recipe, store: Store) -> str:
    """Suggest a replacement for a recipe if its product is missing."""
    alternative = find_input(recipe.product).alternative(store)
    if alternative is None:
        return "name recipes of available products in input.recipes (actiontrain recipes)"
    fields = find_input(alternative).Settings.model_fields
    removed = [f"input.{key}" for key in type(recipe.input).model_fields if key not in fields]
    changes = f'product = "{alternative}"' + (f" and without {' and '.join(removed)}" if removed else "")
    if name.endswith(".toml"):
        return f"change {name} to {changes}"
    return (
        f"save the output of 'actiontrain recipes {name}' as a file with {changes}, and name that file in input.recipes "
        f"instead of {name}"
    )


def _part_draws(draws: Draws | None, index: int) -> Draws | None:
    return None if draws is None else Draws(draws.seed + 7919 * index, draws.epoch, draws.rows, variant=draws.variant)


def _shared_arrays(batch: Batch) -> Batch:
    return {name: values for name, values in batch.items() if not name.startswith("part")}
