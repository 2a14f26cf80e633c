"""The commands that list models and recipes."""

from __future__ import annotations

from typing import Annotated

import typer

from actionprep.cli import output
from actionprep.cli.options import DebugOption, JsonOption, Text


def models(json: JsonOption = False, debug: DebugOption = False) -> None:
    """List every model with what it reads, its size and its source."""
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
    out = output.print_table(
        "Models",
        ("name", "product", "input", "parameters", "GFLOPs", "source"),
        [
            (
                name,
                card.product,
                card.shape_text,
                f"{sizes[name].parameters:,}",
                f"{sizes[name].flops / 1e9:,.1f}",
                card.source,
            )
            for name, card in cards.items()
        ],
        whole=("name", "parameters", "GFLOPs", "product"),
    )
    if out:
        output.note(f"No room at this width for {', '.join(out)}: --json tells them.")
    for error in MODELS.broken().values():
        output.warn(str(error))


def recipes(
    name: Annotated[
        Text, typer.Argument(help="Print this recipe as TOML, ready to change and give to --recipe.")
    ] = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """List the recipes, with a sentence of each, or print one whole."""
    from actionprep.training.recipes import RECIPES, find_recipe

    if name is not None:
        recipe = find_recipe(name)
        if json:
            output.print_json(recipe.to_tables())
        else:
            output.print_text(recipe.to_toml(), end="")
        return
    found = [find_recipe(one) for one in sorted(RECIPES.working())]
    if json:
        output.print_json(
            [{"name": one.name, "model": one.model, "product": one.product, "doc": one.doc} for one in found]
        )
    else:
        rows = [(one.name, one.product, _first_sentence(one.doc)) for one in found]
        out = output.print_table("Recipes", ("name", "product", "what"), rows, whole=("name", "product"))
        if out:
            output.note(f"No room at this width for {', '.join(out)}: --json tells them.")
        for error in RECIPES.broken().values():
            output.warn(str(error))
        output.print_next("actiontrain recipes NAME", "prints one whole, with all that is to be said of it")


def _first_sentence(text: str) -> str:
    return text.partition(". ")[0].removesuffix(".") + "."
