"""The commands `actiontrain models` and `actiontrain recipes`."""

from __future__ import annotations

from typing import Annotated

import typer

from actionprep.cli import output
from actionprep.cli.options import DebugOption, JsonOption, Text


def models(json: JsonOption = False, debug: DebugOption = False) -> None:
    """List all models with their input, size and source."""
    from actionprep.training.models.model_size import model_size
    from actionprep.training.models.registry import MODELS

    cards = MODELS.working()
    sizes = {name: model_size(name) for name in cards}
    if json:
        output.print_json(
            [
                {
                    "name": name,
                    "product": card.product,
                    "input_shape": card.shape_text,
                    "num_classes": card.num_classes,
                    "parameters": sizes[name].parameters,
                    "flops": sizes[name].flops,
                    "source": card.source,
                    "faults_fixed": list(card.faults_fixed),
                }
                for name, card in cards.items()
            ]
        )
        return
    hidden = output.print_table(
        "Models",
        ("name", "product", "input", "parameters", "GFLOPs", "source"),
        [
            (
                name,
                card.product,
                " ".join(f"{axis}{size}" for axis, size in card.input_shape),
                f"{sizes[name].parameters:,}",
                f"{sizes[name].flops / 1e9:,.1f}",
                card.source,
            )
            for name, card in cards.items()
        ],
        whole=("name", "parameters", "GFLOPs", "product", "input"),
    )
    _note_hidden(hidden)
    output.print_next("actiontrain recipes", "lists the recipes that train these models")
    for error in MODELS.broken().values():
        output.warn(str(error))


def recipes(
    name: Annotated[
        Text, typer.Argument(help="Print this recipe as TOML. Save it, edit it and pass the file to --recipe.")
    ] = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """List all recipes with a short description, or print one as TOML."""
    from actionprep.training.recipes import RECIPES, find_recipe

    if name is not None:
        recipe = find_recipe(name)
        if json:
            output.print_json(recipe.to_tables())
        else:
            output.print_text(recipe.to_toml(), end="")
            output.print_next("actiontrain fit --recipe FILE.toml", "trains with an edited copy", to_stderr=True)
        return
    known = [find_recipe(name) for name in sorted(RECIPES.working())]
    if json:
        output.print_json(
            [
                {"name": recipe.name, "model": recipe.model, "product": recipe.product, "doc": recipe.doc}
                for recipe in known
            ]
        )
    else:
        rows = [(recipe.name, recipe.product, _first_sentence(recipe.doc)) for recipe in known]
        _note_hidden(output.print_table("Recipes", ("name", "product", "description"), rows, whole=("name", "product")))
        for error in RECIPES.broken().values():
            output.warn(str(error))
        output.print_next("actiontrain recipes NAME", "prints a recipe with its full description")


def _first_sentence(text: str) -> str:
    return text.partition(". ")[0].removesuffix(".") + "."


def _note_hidden(columns: list[str]) -> None:
    if columns:
        output.note(f"Not shown at this width: {', '.join(columns)}. Use --json for all columns.")
