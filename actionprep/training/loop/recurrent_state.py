"""Windows of a recording one after the other, for models whose state goes on from window to window."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from actionprep.datasets.products.snippets import SnippetTable

DEPTH = 3
"""Windows before a sample that give the state which it is trained with."""

# Onsets and offsets are sums of lengths and strides: windows that touch do so but for rounding.
_TOUCHING_S = 1e-6


def windows_before(table: SnippetTable, rows: np.ndarray) -> np.ndarray:
    """(S,) for each of these rows the number of the one, among them, that ends where it begins; -1 where none does.

    Of several the longest. Windows that overlap form several chains side by side, in each of which no time is seen twice.
    """
    recording, onset, offset = (getattr(table, name)[rows] for name in ("recording", "onset", "offset"))
    found = np.full(len(rows), -1)
    for code in np.unique(recording).tolist():
        mine = np.flatnonzero(recording == code)
        by_end = mine[np.argsort(offset[mine], kind="stable")]
        ends = offset[by_end]
        for one in mine.tolist():
            low, high = np.searchsorted(ends, [onset[one] - _TOUCHING_S, onset[one] + _TOUCHING_S])
            before = [int(other) for other in by_end[low:high] if onset[other] < onset[one] - _TOUCHING_S]
            if before:
                found[one] = min(before, key=lambda other: onset[other])
    return found


def chains_before(before: np.ndarray, depth: int) -> np.ndarray:
    """(S, depth) the windows before each, the nearest first; -1 beyond the start of a chain."""
    found = np.full((len(before), depth), -1)
    here = np.arange(len(before))
    for step in range(depth):
        here = np.where(here >= 0, before[here], -1)
        found[:, step] = here
    return found


def in_turns(before: np.ndarray) -> list[np.ndarray]:
    """Numbers that can be worked on together, turn after turn: a window comes a turn after the one before it."""
    turn = np.full(len(before), -1)
    turn[before < 0] = 0
    found = [np.flatnonzero(turn == 0)]
    while (turn < 0).any():
        ready = np.flatnonzero((turn < 0) & (turn[before] >= 0))
        turn[ready] = len(found)
        found.append(ready)
    return [one for one in found if len(one)]


class States:
    """What a model remembers after each window, until the window after it has taken it over.

    A state is a named tuple of tensors with the batch on their second axis, as `LstmState`.
    """

    def __init__(self, before: np.ndarray) -> None:
        self.before = before
        self._wanted = set(before[before >= 0].tolist())
        self._kept: dict[int, Any] = {}

    def at_start_of(self, numbers: np.ndarray) -> Any:
        """The state that these windows, all of one turn, begin with; None at the start of their chains."""
        import torch

        if self.before[numbers[0]] < 0:
            return None
        parts = [self._kept[int(self.before[one])] for one in numbers]
        return type(parts[0])(*(torch.cat(values, 1) for values in zip(*parts, strict=True)))

    def keep(self, numbers: np.ndarray, state: Any) -> None:
        """Remember the state after these windows, of which others need it."""
        for at, one in enumerate(numbers.tolist()):
            if one in self._wanted:
                self._kept[one] = type(state)(*(values[:, at : at + 1] for values in state))

    def forget(self, numbers: np.ndarray) -> None:
        """Drop the states that the windows of a turn began with."""
        for one in self.before[numbers].tolist():
            self._kept.pop(one, None)
