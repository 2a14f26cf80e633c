"""Consecutive windows of a recording, for models that carry a recurrent state from window to window."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from actionprep.datasets.products.snippets import SnippetTable

DEPTH = 3
"""Number of windows before a training sample that are run to compute its initial state."""

# Onsets and offsets are sums of lengths and strides, so adjacent windows touch only up to rounding.
_TOUCHING_S = 1e-6


def previous_windows(table: SnippetTable, rows: np.ndarray) -> np.ndarray:
    """Find the window, among the given ones, that ends where each window starts.

    Of several candidates the longest is chosen. Overlapping windows form several parallel chains, each of which covers
    every moment at most once.

    Args:
        table: Table of snippets.
        rows: Rows of the windows in the table, shape (S,).

    Returns:
        Index into `rows` of the previous window, shape (S,); -1 without one.
    """
    recording, onset, offset = (getattr(table, name)[rows] for name in ("recording", "onset", "offset"))
    previous = np.full(len(rows), -1)
    for code in np.unique(recording).tolist():
        members = np.flatnonzero(recording == code)
        by_end = members[np.argsort(offset[members], kind="stable")]
        ends = offset[by_end]
        for window in members.tolist():
            low, high = np.searchsorted(ends, [onset[window] - _TOUCHING_S, onset[window] + _TOUCHING_S])
            candidates = [int(other) for other in by_end[low:high] if onset[other] < onset[window] - _TOUCHING_S]
            if candidates:
                previous[window] = min(candidates, key=lambda other: onset[other])
    return previous


def previous_chains(previous: np.ndarray, depth: int) -> np.ndarray:
    """Return the `depth` windows before each window, nearest first, (S, depth); -1 before the start of a chain."""
    chains = np.full((len(previous), depth), -1)
    window = np.arange(len(previous))
    for step in range(depth):
        window = np.where(window >= 0, previous[window], -1)
        chains[:, step] = window
    return chains


def rounds_of(previous: np.ndarray) -> list[np.ndarray]:
    """Split windows into rounds that can be computed together. A window comes one round after its previous window."""
    round_of = np.full(len(previous), -1)
    round_of[previous < 0] = 0
    rounds = [np.flatnonzero(round_of == 0)]
    while (round_of < 0).any():
        ready = np.flatnonzero((round_of < 0) & (round_of[previous] >= 0))
        round_of[ready] = len(rounds)
        rounds.append(ready)
    return [windows for windows in rounds if len(windows)]


class States:
    """States of a model at the end of windows, kept until the next window has used them.

    A state is a named tuple of tensors with the batch on the second axis, such as `LstmState`.
    """

    def __init__(self, previous: np.ndarray) -> None:
        self.previous = previous
        self._wanted = set(previous[previous >= 0].tolist())
        self._kept: dict[int, Any] = {}

    def at_start_of(self, windows: np.ndarray) -> Any:
        """Return the initial state of windows of one round; None at the start of their chains."""
        import torch

        if self.previous[windows[0]] < 0:
            return None
        parts = [self._kept[int(self.previous[window])] for window in windows]
        return type(parts[0])(*(torch.cat(values, 1) for values in zip(*parts, strict=True)))

    def keep(self, windows: np.ndarray, state: Any) -> None:
        """Store the state at the end of the windows that another window continues."""
        for index, window in enumerate(windows.tolist()):
            if window in self._wanted:
                self._kept[window] = type(state)(*(values[:, index : index + 1] for values in state))

    def forget(self, windows: np.ndarray) -> None:
        """Discard the initial states of the windows of a round."""
        for window in self.previous[windows].tolist():
            self._kept.pop(window, None)
