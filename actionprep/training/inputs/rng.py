"""Random numbers of samples: functions of (seed, epoch, sample) and of nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

_ORDER, _SAMPLE, _TEST = range(3)


class Draws:
    """Random numbers for a batch of samples, each from a stream of its own.

    A sample gets the same numbers in whichever batch, worker or process it is read, as long as it is asked for the
    same draws in the same order.

    variant: None in training; in testing the number of the variant, from 1 (variant 0 is the center, without draws).
    """

    def __init__(self, seed: int, epoch: int, rows: Sequence[int], *, variant: int | None = None) -> None:
        self.seed = seed
        self.epoch = epoch
        self.rows = tuple(int(row) for row in rows)
        self.variant = variant
        kind, turn = (_SAMPLE, epoch) if variant is None else (_TEST, variant)
        self._streams = [_stream(seed, kind, turn, row) for row in self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def uniform(self, low: float = 0.0, high: float = 1.0, *, shape: tuple[int, ...] = ()) -> Tensor:
        """(B, *shape) float32, uniform in [low, high)."""
        import torch

        drawn = np.stack([stream.random(shape, np.float32) for stream in self._streams]) if self._streams else ()
        return torch.from_numpy(np.asarray(drawn, np.float32)) * (high - low) + low

    def order(self, size: int, *, keep: int | None = None) -> Tensor:
        """(B, keep) int64: for each sample the first `keep` of a random order of 0 … size - 1."""
        import torch

        return torch.from_numpy(np.stack([stream.permutation(size)[:keep] for stream in self._streams]))


def epoch_order(seed: int, epoch: int, size: int) -> np.ndarray:
    """(size,) int64: the order of the samples in one epoch."""
    return _stream(seed, _ORDER, epoch, 0).permutation(size)


def balanced_order(seed: int, epoch: int, weights: np.ndarray) -> np.ndarray:
    """(size,) int64: as many draws as there are samples, with replacement, each as often as its weight says."""
    stream = _stream(seed, _ORDER, epoch, 1)
    return stream.choice(len(weights), len(weights), p=weights / weights.sum())


def step_seed(seed: int, step: int) -> int:
    """Seed of what a model draws itself in one training step (dropout), so that a resumed run draws the same."""
    return int(np.random.SeedSequence([seed & 0xFFFFFFFF, 3, step]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _stream(seed: int, kind: int, turn: int, row: int) -> np.random.Generator:
    # Philox is counter-based: making a stream costs microseconds, and streams of different keys are independent.
    key = np.array([((seed & 0xFFFFFFFF) << 32) | (kind << 28) | (turn & 0xFFFFFFF), row], np.uint64)
    return np.random.Generator(np.random.Philox(key=key))
