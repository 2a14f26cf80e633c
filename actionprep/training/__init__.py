"""Train, test and apply action classifiers on a store. Heavy packages are imported on first use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__all__ = ["Recipe", "Run", "SnippetDataset", "SplitChoice", "find_recipe", "run_test"]

if TYPE_CHECKING:
    from actionprep.datasets.split_choice import SplitChoice
    from actionprep.training.datasets import SnippetDataset
    from actionprep.training.recipes import Recipe, find_recipe
    from actionprep.training.run import Run
    from actionprep.training.test import run_test

_HOMES = {
    "SnippetDataset": "training.datasets",
    "SplitChoice": "datasets.split_choice",
    "Recipe": "training.recipes",
    "find_recipe": "training.recipes",
    "Run": "training.run",
    "run_test": "training.test",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"actionprep.{_HOMES[name]}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
