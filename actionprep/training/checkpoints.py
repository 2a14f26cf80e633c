"""Checkpoints: what they tell of themselves, and loading them without running code of theirs."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actionprep.errors import UserError
from actionprep.training.recipes import Recipe, check_product

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from actionprep.datasets.products.snippets import SnippetTable
    from actionprep.training.inputs.base import ProductReader
    from actionprep.training.models.registry import ModelCard

SCHEMA = 1


@dataclass(frozen=True)
class Checkpoint:
    """A trained model with what is needed to use it.

    card: recipe (tables), labels, views, sizes (what the model was built with), several_labels, snippets (how windows
    were cut), snippet_seconds (how long those of the training were: shortest, median, longest; not in earlier ones),
    pipeline (how the input was made), versions.
    """

    path: Path
    card: dict[str, Any]
    model: nn.Module

    @property
    def recipe(self) -> Recipe:
        """The recipe that it was trained with."""
        where = f"the checkpoint {self.path}"
        return Recipe.from_tables(self.card["recipe"], where=where).as_recorded(where)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits."""
        return tuple(self.card["labels"])

    @property
    def views(self) -> tuple[str, ...]:
        """Names of the views, in the order of the view axis."""
        return tuple(self.card["views"])

    def check_labels(self, labels: Sequence[str], *, where: str) -> None:
        """Raise UserError when the classes are not those of the training, in their order."""
        if tuple(labels) == self.labels:
            return
        if sorted(labels) == sorted(self.labels):
            what = "has the same classes in another order"
        else:
            new = [label for label in labels if label not in self.labels]
            gone = [label for label in self.labels if label not in labels]
            what = "has other classes: " + "; ".join(
                f"{kind} {', '.join(names)}" for kind, names in (("new", new), ("missing", gone)) if names
            )
        raise UserError(
            f"{where} {what}.\nThe checkpoint {self.path} was trained on {', '.join(self.labels)}, in this order. "
            "Make the snippets with these labels (actionprep snippets --labels …), or train anew."
        )


def card_of(
    recipe: Recipe,
    table: SnippetTable,
    views: Sequence[str],
    reader: ProductReader,
    *,
    rows: np.ndarray,
    pipeline: Mapping[str, Any],
    phase: str,
) -> dict[str, Any]:
    """What a checkpoint tells of itself, as plain values; rows: of the table, those that it was trained on."""
    import numpy as np

    from actionprep.training.run import versions
    from actionprep.training.split_choice import is_multi_label

    seconds = (table.offset - table.onset)[rows]
    return {
        "schema": SCHEMA,
        "recipe": recipe.to_tables(),
        "labels": list(table.labels),
        "views": list(views),
        "sizes": model_sizes(recipe, reader),
        "several_labels": is_multi_label(table),
        "snippets": dict(table.settings),
        "snippet_seconds": dict(
            zip(("shortest", "median", "longest"), np.quantile(seconds, [0, 0.5, 1]).tolist(), strict=True)
        ),
        "pipeline": dict(pipeline),
        "phase": phase,
        "versions": versions(recipe),
    }


def model_sizes(recipe: Recipe, reader: ProductReader) -> dict[str, Any]:
    """Settings that the model is built with: its preset's, under what the input decides, under what the recipe says.

    Raises UserError when the recipe says otherwise than the input what only the data can decide.
    """
    from actionprep.training.models.registry import model_card, model_settings

    card = model_card(recipe.model)
    check_product(recipe.name, recipe.model, recipe.product)
    known = model_settings(recipe.model)
    from_input = {name: value for name, value in reader.model_sizes().items() if name in known}
    wrong = [
        name
        for name, value in from_input.items()
        if name not in _INTERPOLATED and name in recipe.sizes and recipe.sizes[name] != value
    ]
    if wrong:
        said = "; ".join(
            f"sizes.{name} is {recipe.sizes[name]!r}, and the input has {from_input[name]!r}" for name in wrong
        )
        raise UserError(
            f"The recipe '{recipe.name}' builds its model '{recipe.model}' for another input than it reads: {said}. Leave "
            f"{' and '.join(f'sizes.{name}' for name in wrong)} out: the {recipe.product} and the settings under [input] "
            "decide that."
        )
    if recipe.targets == "frame" and card.labels_frames == "optional":
        from_input["per_frame"] = True
    # The preset's too: a later version may give the name another preset, and this run must open as it was.
    return {**card.sizes, **from_input, **recipe.sizes}


_INTERPOLATED = ("num_frames", "image_size")
"""Sizes for which positions are learned; those of other clips are interpolated."""


def check_abilities(recipe: Recipe) -> None:
    """Raise UserError, naming what can, when the recipe asks of its model or its input what that cannot do."""
    from actionprep.training.inputs.base import find_input
    from actionprep.training.models.registry import model_card

    card = model_card(recipe.model)
    if recipe.targets == "frame" and card.labels_frames == "never":
        raise UserError(
            f"The recipe '{recipe.name}' is to learn the labels of every instant (targets = \"frame\"), and its model "
            f"'{recipe.model}' gives one answer a snippet. Recipes that label every instant: "
            f"{', '.join(_recipes_whose(lambda one: one.labels_frames != 'never'))}. Or train on the labels of whole "
            "snippets: --set targets=snippet."
        )
    if getattr(recipe.input, "merge", "max") == "separate" and not card.separate_persons:
        raise UserError(
            f"The recipe '{recipe.name}' keeps a volume for each person (input.merge = \"separate\"), and its model "
            f"'{recipe.model}' reads one for all. Recipes that read a volume for each: "
            f"{', '.join(_recipes_whose(lambda one: one.separate_persons))}. Or put them side by side in the channels: "
            "--set input.merge=channels."
        )
    if recipe.cutmix is not None and not find_input(recipe.product).cuts:
        raise UserError(
            f"The recipe '{recipe.name}' asks for CutMix (cutmix = {recipe.cutmix:g}), which needs places or instants to "
            f"cut at, and samples of '{recipe.product}' have none in common. Blend whole samples instead: --set cutmix=none "
            f"mixup={recipe.mixup or recipe.cutmix:g}."
        )
    if recipe.carry:
        check_state(recipe.model)


def check_state(model: str) -> None:
    """Raise UserError, naming recipes that can, when a model cannot go on from the state in which a window left it."""
    from actionprep.training.models.registry import model_card

    if not model_card(model).keeps_state:
        raise UserError(
            f"The model '{model}' sees each window by itself and has no state to carry from one to the next. Recipes that "
            f"have: {', '.join(_recipes_whose(lambda one: one.keeps_state))}. Leave carry out."
        )


def _recipes_whose(can: Callable[[ModelCard], bool]) -> list[str]:
    from actionprep.training.models.registry import model_card
    from actionprep.training.recipes import find_recipe, recipe_names

    return [name for name in recipe_names() if can(model_card(find_recipe(name).model))]


def make_model(card: Mapping[str, Any]) -> nn.Module:
    """The model of a card, with fresh weights; one of pictures behind what turns stored bytes into what it wants."""
    from actionprep.training.models.registry import build_model, model_card

    recipe = card["recipe"]
    name = recipe["recipe"]["model"]
    model = build_model(name, num_classes=len(card["labels"]), **card["sizes"])
    pixels = model_card(name).pixels
    if pixels is None:
        return model
    from actionprep.training.models.pixels import PixelClassifier

    channels = recipe["input"].get("channels", "rgb")
    return PixelClassifier(model, pixels, channels=channels, multi_label=bool(card["several_labels"]))


def load_checkpoint(path: str | Path, *, device: str = "cpu") -> Checkpoint:
    """A checkpoint of ours with its model in evaluation, its averaged weights where it has them.

    Only tensors and plain values are read: a file that would run code is refused, not tried in another way.

    Raises UserError for a missing, damaged, foreign or unsafe file.
    """
    path = Path(path)
    content = read_safely(path)
    card = content.get("actionprep") if isinstance(content, dict) else None
    if not isinstance(card, dict) or not isinstance(content.get("state_dict"), dict):
        raise UserError(
            f"{path} is no checkpoint of actiontrain: it does not say which recipe and classes it is for. Give "
            "best.ckpt or last.ckpt of a run; published weights are for 'actiontrain fit --weights'."
        )
    check_card(card, path)
    model = make_model(card)
    weights = averaged_weights(content["state_dict"])
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(
            f"The weights in {path} are not those of the model that it names, {card['recipe']['recipe']['model']}: "
            f"{_first_of(str(error))}.\nThe model may be another one in the actionprep that trained them (run.json beside "
            "them names its version): use that one, or train anew."
        ) from None
    return Checkpoint(path, card, model.to(device).eval())


def _first_of(differences: str, most: int = 3) -> str:
    """PyTorch's list of differences, of which there may be one for every weight, in a sentence."""
    lines = [line.strip().rstrip(".") for line in differences.splitlines()[1:]]
    more = f"; and {len(lines) - most} more" if len(lines) > most else ""
    return "; ".join(lines[:most]) + more


_CARD: dict[str, type] = {
    "recipe": dict, "labels": list, "views": list, "sizes": dict, "several_labels": bool, "snippets": dict, "pipeline": dict,
}  # fmt: skip


def check_card(card: Mapping[str, Any], path: Path) -> None:
    """Raise UserError when the card is of a newer version, lacks something, or holds it in another form."""
    if isinstance(card.get("schema"), int) and card["schema"] > SCHEMA:
        raise UserError(
            f"{path} was written by a newer actionprep (schema {card['schema']}, known {SCHEMA}). Update with: pip "
            "install --upgrade actionprep"
        )
    bad = [name for name, kind in _CARD.items() if not isinstance(card.get(name), kind)]
    named = None if bad else card["recipe"].get("recipe")
    bad += ["recipe.recipe.model"] if not bad and not (isinstance(named, dict) and "model" in named) else []
    bad += ["pipeline.stages"] if not bad and not isinstance(card["pipeline"].get("stages"), dict) else []
    if bad:
        raise UserError(
            f"{path} does not tell all that is needed to use it: {', '.join(bad)} missing or in another form. It was "
            "changed after the training, or another program wrote it. Take the run's own best.ckpt, or train anew."
        )


def averaged_weights(state: Mapping[str, Any]) -> dict[str, Any]:
    """The model's weights out of a training's state: the running mean where there is one."""
    prefix = "average.model." if any(name.startswith("average.model.") for name in state) else "model."
    return {
        name.removeprefix(prefix).removeprefix("_orig_mod."): values
        for name, values in state.items()
        if name.startswith(prefix)
    }


def read_safely(path: Path) -> Any:
    """Read a checkpoint file: tensors and plain values.

    Raises:
        UserError: If the file is missing, damaged (every part of its archive is compared with its checksum), or holds
            more than tensors and plain values.
    """
    import torch

    from actionprep.datasets.zip_checksums import zip_damage
    from actionprep.training.models.published.weight_files import DAMAGED, read_error_reason

    if not path.is_file():
        raise UserError(f"There is no checkpoint {path}. A run's best.ckpt appears with its first validated epoch.")
    damage = zip_damage(path)
    if damage is not None:
        raise UserError(
            f"{path} is damaged: {damage}. It is not used, because its weights may have changed.\nRestore the file from a "
            "copy, use another checkpoint (best.ckpt or last.ckpt of a run), or train again."
        )
    try:
        with warnings.catch_warnings():
            # PyTorch warns of pickle protocols that it then refuses.
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"(Trying to load[^\n]*|Unsupported (?!operand)[^\n]*)", str(error))
        with open(path, "rb") as file:
            is_plain_pickle = file.read(1) == b"\x80"
        if found is None and not is_plain_pickle:
            raise UserError(
                f"{path} cannot be read as a checkpoint: it is damaged, cut off, or another kind of file."
            ) from None
        reason = found[1] if found else "a pickle that PyTorch did not write"
        raise UserError(
            f"{path} was not loaded: besides weights and plain values it holds objects, and opening those could run "
            f"code that somebody put there.\nGet the file from its source again, or save it there anew as a state_dict. "
            f"(PyTorch: {reason})"
        ) from None
    except DAMAGED as error:
        raise UserError(
            f"{path} cannot be read as a checkpoint: {read_error_reason(path, error)}. It is damaged, cut off, or another "
            "kind of file."
        ) from None
