"""Random numbers of samples, which depend only on (seed, epoch, sample)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

_ORDER, _SAMPLE, _TEST = range(3)


class Draws:
    """Random numbers for a batch of samples, each from a separate stream.

    A sample gets the same numbers in every batch, worker and process, if the same methods are called in the same order.

    Args:
        seed: Seed.
        epoch: Index of the epoch.
        rows: Row of each sample in the table.
        variant: None in training; in a test the number of the variant, from 1 (variant 0 is the center, without draws).
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
        """Draw uniform numbers in [low, high), float32 of shape (B, *shape)."""
        import torch

        drawn = np.stack([stream.random(shape, np.float32) for stream in self._streams]) if self._streams else ()
        return torch.from_numpy(np.asarray(drawn, np.float32)) * (high - low) + low

    def order(self, size: int, *, keep: int | None = None) -> Tensor:
        """Draw the first `keep` elements of a random order of 0 … size - 1, int64 of shape (B, keep)."""
        import torch

        return torch.from_numpy(np.stack([stream.permutation(size)[:keep] for stream in self._streams]))


def epoch_order(seed: int, epoch: int, size: int) -> np.ndarray:
    """Return the order of the samples in an epoch, int64 of shape (size,)."""
    return _stream(seed, _ORDER, epoch, 0).permutation(size)


def balanced_order(seed: int, epoch: int, weights: np.ndarray) -> np.ndarray:
    """Draw as many samples as there are, with replacement, in proportion to the weights, int64 of shape (size,)."""
    stream = _stream(seed, _ORDER, epoch, 1)
    return stream.choice(len(weights), len(weights), p=weights / weights.sum())


def step_seed(seed: int, step: int) -> int:
    """Return the seed of random numbers that a model draws in one training step (dropout), equal in a resumed run."""
    return int(np.random.SeedSequence([seed & 0xFFFFFFFF, 3, step]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _stream(seed: int, kind: int, turn: int, row: int) -> np.random.Generator:
    # Philox is counter-based: creating a stream takes microseconds, and streams of different keys are independent.
    key = np.array([((seed & 0xFFFFFFFF) << 32) | (kind << 28) | (turn & 0xFFFFFFF), row], np.uint64)
    return np.random.Generator(np.random.Philox(key=key))
