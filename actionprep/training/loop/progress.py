"""What a training tells while it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from actionprep.training.run import Phase


@dataclass(frozen=True)
class EpochReport:
    """What a progress display is told after each epoch: figures by name, such as train_loss and val_accuracy."""

    phase: Phase
    epoch: int
    num_epochs: int
    figures: Mapping[str, float]


Log = Callable[[str], None]


def silent(sentence: str) -> None:
    """Tell nobody."""
