"""Progress messages of a training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from actionprep.training.run import Phase


@dataclass(frozen=True)
class EpochReport:
    """Progress after an epoch, for progress displays.

    Attributes:
        phase: Phase of the training.
        epoch: Index of the epoch, from 0.
        num_epochs: Number of epochs of the phase.
        metrics: Metrics of the epoch by name, such as train_loss and val_accuracy.
    """

    phase: Phase
    epoch: int
    num_epochs: int
    metrics: Mapping[str, float]


Log = Callable[[str], None]


def silent(sentence: str) -> None:
    """Discard a progress message."""
