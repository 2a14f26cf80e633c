"""Read checkpoints and their model cards, without running code from the file."""

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

    Attributes:
        path: File of the checkpoint.
        card: `recipe` (tables), `labels`, `views`, `sizes` (settings that the model was built with), `several_labels`,
            `snippets` (how windows were cut), `snippet_seconds` (shortest, median and longest snippet of the training, in
            seconds; missing in earlier versions), `pipeline` (how the input was made), `versions`.
        model: The model with its weights.
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
        """Raise UserError if the classes or their order differ from the training."""
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
            "Make the snippets with these labels (actionprep snippets --labels …), or train again."
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
    """Build the model card of a checkpoint, as plain values; `rows` are the rows of the table that it was trained on."""
    import numpy as np

    from actionprep.datasets.split_choice import is_multi_label
    from actionprep.training.evaluation.frame_scores import frame_rates
    from actionprep.training.run import versions

    seconds = (table.offset - table.onset)[rows]
    codes = np.unique(table.recording[rows])[:_MAX_RATES].tolist()
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
        "frame_rates": frame_rates(reader.store, recipe.reads, [table.recordings[code] for code in codes], views),
        "pipeline": dict(pipeline),
        "phase": phase,
        "versions": versions(recipe),
    }


_MAX_RATES = 32
"""Maximum number of training recordings that are read for the frame rates in a checkpoint."""


def model_sizes(recipe: Recipe, reader: ProductReader) -> dict[str, Any]:
    """Return the settings to build the model with: its preset, overridden by the input, overridden by the recipe.

    Args:
        recipe: Recipe of the training.
        reader: Reader of the product, which determines sizes such as the number of points.

    Returns:
        Settings by name.

    Raises:
        UserError: If the recipe sets a size that only the data can determine to another value.
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
        differences = "; ".join(
            f"sizes.{name} is {recipe.sizes[name]!r}, but the input has {from_input[name]!r}" for name in wrong
        )
        raise UserError(
            f"The recipe '{recipe.name}' builds its model '{recipe.model}' for another input than it reads: {differences}. "
            f"Leave {' and '.join(f'sizes.{name}' for name in wrong)} out: the {recipe.product} and the settings under "
            "[input] determine it."
        )
    if recipe.targets == "frame" and card.labels_frames == "optional":
        from_input["per_frame"] = True
    # Record the preset's sizes too: a later version may change the preset, and this run must still load.
    return {**card.sizes, **from_input, **recipe.sizes}


_INTERPOLATED = ("num_frames", "image_size")
"""Sizes with learned position embeddings, which are interpolated for clips of another size."""


def check_abilities(recipe: Recipe) -> None:
    """Raise UserError if the model or the input does not support what the recipe requests; it names alternatives."""
    from actionprep.training.inputs.base import find_input
    from actionprep.training.models.registry import model_card

    card = model_card(recipe.model)
    if recipe.targets == "frame" and card.labels_frames == "never":
        raise UserError(
            f"The recipe '{recipe.name}' trains on labels per time step (targets = \"frame\"), but its model "
            f"'{recipe.model}' predicts one label per snippet. Recipes that predict labels per time step: "
            f"{', '.join(_recipes_with(lambda card: card.labels_frames != 'never'))}. Or train on labels per snippet: "
            "--set targets=snippet."
        )
    if getattr(recipe.input, "merge", "max") == "separate" and not card.separate_persons:
        raise UserError(
            f"The recipe '{recipe.name}' keeps one volume per person (input.merge = \"separate\"), but its model "
            f"'{recipe.model}' reads one volume for all persons. Recipes that read one volume per person: "
            f"{', '.join(_recipes_with(lambda card: card.separate_persons))}. Or concatenate them along the channels: "
            "--set input.merge=channels."
        )
    if recipe.cutmix is not None and not find_input(recipe.product).cuts:
        raise UserError(
            f"The recipe '{recipe.name}' uses CutMix (cutmix = {recipe.cutmix:g}), which cuts samples along a common space "
            f"or time axis, and samples of '{recipe.product}' have none. Use mixup instead: --set cutmix=none "
            f"mixup={recipe.mixup or recipe.cutmix:g}."
        )
    if recipe.carry:
        check_state(recipe.model)


def check_state(model: str) -> None:
    """Raise UserError if a model cannot carry its state from window to window; it names recipes that can."""
    from actionprep.training.models.registry import model_card

    if not model_card(model).keeps_state:
        raise UserError(
            f"The model '{model}' has no state to carry from one window to the next. Recipes with a recurrent state: "
            f"{', '.join(_recipes_with(lambda card: card.keeps_state))}. Leave carry out."
        )


def _recipes_with(can: Callable[[ModelCard], bool]) -> list[str]:
    from actionprep.training.models.registry import model_card
    from actionprep.training.recipes import find_recipe, recipe_names

    return [name for name in recipe_names() if can(model_card(find_recipe(name).model))]


def make_model(card: Mapping[str, Any]) -> nn.Module:
    """Build the model of a card with new weights; a pixel model is wrapped in the conversion of stored bytes."""
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
    """Load a checkpoint of actiontrain.

    Only tensors and plain values are read: a file that would run code is refused.

    Args:
        path: File of the checkpoint.
        device: Device of the model.

    Returns:
        The checkpoint with its model in evaluation mode and, if it has them, its averaged weights.

    Raises:
        UserError: If the file is missing, damaged, unsafe, or not a checkpoint of actiontrain.
    """
    path = Path(path)
    content = read_safely(path)
    card = content.get("actionprep") if isinstance(content, dict) else None
    if not isinstance(card, dict) or not isinstance(content.get("state_dict"), dict):
        raise UserError(
            f"{path} is not a checkpoint of actiontrain: it has no recipe and no classes. Give "
            "best.ckpt or last.ckpt of a run; published weights are for 'actiontrain fit --weights'."
        )
    check_card(card, path)
    model = make_model(card)
    weights = averaged_weights(content["state_dict"])
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(
            f"The weights in {path} do not fit the model that it names, {card['recipe']['recipe']['model']}: "
            f"{_first_of(str(error))}.\nThe version of actionprep that trained them may have another model (run.json next "
            "to them names the version): use that version, or train again."
        ) from None
    return Checkpoint(path, card, model.to(device).eval())


def _first_of(differences: str, most: int = 3) -> str:
    """Shorten PyTorch's list of differing weights to one sentence."""
    lines = [line.strip().rstrip(".") for line in differences.splitlines()[1:]]
    more = f"; and {len(lines) - most} more" if len(lines) > most else ""
    return "; ".join(lines[:most]) + more


_CARD: dict[str, type] = {
    "recipe": dict, "labels": list, "views": list, "sizes": dict, "several_labels": bool, "snippets": dict, "pipeline": dict,
}  # fmt: skip


def check_card(card: Mapping[str, Any], path: Path) -> None:
    """Raise UserError if the card has a newer schema, or if an entry is missing or has another type."""
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
            f"{path} cannot be used: {', '.join(bad)} missing or of another type. It was "
            "changed after the training, or another program wrote it. Use best.ckpt of the run, or train again."
        )


def averaged_weights(state: Mapping[str, Any]) -> dict[str, Any]:
    """Extract the model's weights from the state of a training: the running average if it exists."""
    prefix = "average.model." if any(name.startswith("average.model.") for name in state) else "model."
    return {
        name.removeprefix(prefix).removeprefix("_orig_mod."): values
        for name, values in state.items()
        if name.startswith(prefix)
    }


def read_safely(path: Path) -> Any:
    """Read a checkpoint file: tensors and plain values.

    Raises:
        UserError: If the file is missing, damaged (every part of its archive is compared with its checksum), or contains
            more than tensors and plain values.
    """
    import torch

    from actionprep.datasets.zip_checksums import zip_damage
    from actionprep.training.models.published.weight_files import DAMAGED, read_error_reason

    if not path.is_file():
        raise UserError(f"No checkpoint {path}. A run has best.ckpt after its first validated epoch.")
    damage = zip_damage(path)
    if damage is not None:
        raise UserError(
            f"{path} is damaged: {damage}. It is not used, because its weights may have changed.\nRestore the file from a "
            "copy, use another checkpoint (best.ckpt or last.ckpt of a run), or train again."
        )
    try:
        with warnings.catch_warnings():
            # PyTorch warns about pickle protocols before it refuses them.
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        match = re.search(r"(Trying to load[^\n]*|Unsupported (?!operand)[^\n]*)", str(error))
        with open(path, "rb") as file:
            is_plain_pickle = file.read(1) == b"\x80"
        if match is None and not is_plain_pickle:
            raise UserError(
                f"{path} cannot be read as a checkpoint: it is damaged, cut off, or another kind of file."
            ) from None
        reason = match[1] if match else "a pickle that PyTorch did not write"
        raise UserError(
            f"{path} was not loaded: besides weights and plain values it contains objects, and loading them could run "
            f"malicious code.\nGet the file from its source again, or save it there again as a state_dict. "
            f"(PyTorch: {reason})"
        ) from None
    except DAMAGED as error:
        raise UserError(
            f"{path} cannot be read as a checkpoint: {read_error_reason(path, error)}. It is damaged, cut off, or another "
            "kind of file."
        ) from None
