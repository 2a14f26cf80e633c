"""Build the Lightning task of one phase of a training: model, loss and loaders."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from actionprep.datasets.split_choice import is_multi_label
from actionprep.errors import SetupError, UserError
from actionprep.training.loop.training_plan import TrainingPlan
from actionprep.training.recipes import Recipe
from actionprep.training.run import Phase

if TYPE_CHECKING:
    from torch import nn

    from actionprep.training.datasets import SnippetDataset
    from actionprep.training.inputs.base import ProductReader
    from actionprep.training.loop.task import ClassifierTask


def make_task(plan: TrainingPlan, reader: ProductReader, phase: Phase, *, start: Path | None = None) -> ClassifierTask:
    """Build the Lightning task of one phase.

    Args:
        plan: Plan of the training.
        reader: Reader of the input product.
        phase: Phase of the training.
        start: File with initial weights. None, or a missing file: fresh weights from the seed of the recipe.

    Returns:
        The task.
    """
    from actionprep.training.checkpoints import read_safely
    from actionprep.training.datasets import SnippetLoader
    from actionprep.training.loop.task import ClassifierTask

    recipe = plan.recipe
    train_rows, val_rows = plan.rows(phase)

    def loader(rows: np.ndarray, *, train: bool) -> SnippetLoader:
        return SnippetLoader(
            _dataset(plan, reader, rows, train=train),
            batch=recipe.batch,
            shuffle=train,
            balanced=train and recipe.sampler == "balanced",
            workers=recipe.workers,
        )

    card = plan.card(reader, phase)
    model = fresh_model(recipe, card)
    if start is not None and start.exists():
        model.load_state_dict(read_safely(start)["state_dict"])
    if recipe.channels_last:
        channels_last(model)
    if recipe.compile:
        _check_compiler()
        model.compile()
    return ClassifierTask(
        model,
        recipe,
        loader(train_rows, train=True),
        loader(val_rows, train=False) if len(val_rows) else None,
        multi_label=is_multi_label(plan.table),
        card=card,
        num_epochs=plan.num_epochs(phase),
    )


def fresh_model(
    recipe: Recipe, card: Mapping[str, Any], weights: Callable[[nn.Module], object] | None = None
) -> nn.Module:
    """Build the model of a card with fresh weights from the seed of the recipe, then apply `weights` to it."""
    import torch

    from actionprep.training.checkpoints import make_model

    torch.manual_seed(recipe.seed)
    model = make_model(card)
    if weights is not None:
        weights(model)
    return model


def check_model(plan: TrainingPlan, reader: ProductReader) -> nn.Module:
    """Build the model without weights, on the meta device.

    Raises:
        UserError: If a size, frozen parameter or number of frames is invalid.
    """
    import torch

    from actionprep.training.checkpoints import make_model
    from actionprep.training.loop.optimizers import freeze, make_optimizer

    with torch.device("meta"):
        model = make_model(plan.card(reader, plan.phases[0]))
    _check_frames(plan, reader, model)
    freeze(model, plan.recipe.optimizer.freeze)
    make_optimizer(model, plan.recipe.optimizer)
    return model


def _check_frames(plan: TrainingPlan, reader: ProductReader, model: nn.Module) -> None:
    """Raise UserError if clips are too short for the joint features of the model."""
    from actionprep.training.models.skeleton_features import SkeletonFeatures

    num_frames = reader.model_sizes().get("num_frames")
    for features in model.modules():
        if isinstance(features, SkeletonFeatures) and num_frames is not None and num_frames < features.min_frames:
            raise UserError(
                f"The recipe '{plan.recipe.name}' uses only {', '.join(features.groups)}, which require at least "
                f"{features.min_frames} time steps, but input.frames is {num_frames}. Raise input.frames, or add features, "
                "for example --set 'sizes.features=[\"coordinates\"]'."
            )


def channels_last(model: nn.Module) -> None:
    """Convert the weights of all 2D and 3D convolutions to channels-last layout, which their outputs then follow."""
    import torch

    layouts = {4: torch.channels_last, 5: torch.channels_last_3d}
    for module in model.modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Conv3d)):
            weight = module.weight
            weight.data = weight.data.contiguous(memory_format=layouts[weight.ndim])


def _check_compiler() -> None:
    if not any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "clang++", "cl")):
        raise SetupError(
            "compile = true requires a C++ compiler (g++, clang++, or the one in CXX), and none was found. Install one, or "
            "train with --set compile=false, which gives the same numbers up to rounding."
        )


def _dataset(plan: TrainingPlan, reader: ProductReader, rows: np.ndarray, *, train: bool) -> SnippetDataset:
    from actionprep.training.datasets import SnippetDataset

    recipe = plan.recipe
    return SnippetDataset(
        plan.store, plan.table, rows=rows, train=train, seed=recipe.seed, targets=recipe.targets, reader=reader
    )
