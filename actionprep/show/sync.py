"""Draw estimated clocks of views, to check them by eye: signals on one clock, correlations, and lags over time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from actionprep.pipeline.synchronization.pairs import PairEstimate
from actionprep.pipeline.synchronization.signals import Signal
from actionprep.show.colors import LIGHT, unit
from actionprep.show.files import atomic_write

_SECONDS = 20.0
_MOST_PAIRS = 8


def draw_sync(
    signals: Mapping[str, Signal],
    clocks: Mapping[str, tuple[float, float] | None],
    pairs: Mapping[tuple[str, str], PairEstimate],
    path: Path,
    *,
    title: str,
) -> Path:
    """Draw the signals of all views with the estimated clocks, and per pair its correlation and its lags.

    Args:
        signals: Signal of each view on its present clock.
        clocks: Change of each view's clock: offset in s and drift in ppm; None if unsure, which is drawn dashed.
        pairs: Estimates of pairs; the first 8 are drawn.
        path: The .png file.
        title: Title of the image.

    Returns:
        The path.

    Raises:
        SetupError: If the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = dict(list(pairs.items())[:_MOST_PAIRS])
    height = 0.7 + 0.8 * len(signals) + 1.5 * len(shown)
    figure = Figure(figsize=(10, height), layout="constrained", facecolor=unit(LIGHT.ground))
    FigureCanvasAgg(figure)
    figure.suptitle(title, x=0.01, ha="left", color=unit(LIGHT.ink))
    grid = figure.add_gridspec(
        len(signals) + len(shown), 2, height_ratios=[0.8] * len(signals) + [1.5] * len(shown)
    )  # fmt: skip
    _draw_signals(figure, grid, signals, clocks)
    for row, ((a, b), pair) in enumerate(shown.items(), start=len(signals)):
        _draw_pair(figure.add_subplot(grid[row, 0]), figure.add_subplot(grid[row, 1]), a, b, pair)
    with atomic_write(path) as draft:
        figure.savefig(draft, dpi=110)
    return path


def _draw_signals(
    figure: Any, grid: Any, signals: Mapping[str, Signal], clocks: Mapping[str, tuple[float, float] | None]
) -> None:
    moved = {}
    for view, signal in signals.items():
        offset, drift = clocks[view] or (0.0, 0.0)
        moved[view] = offset + signal.time * (1 + drift * 1e-6)
    start = max(time[0] for time in moved.values())
    stop = min(time[-1] for time in moved.values())
    middle = (start + stop) / 2
    first = None
    for row, (view, signal) in enumerate(signals.items()):
        axes = figure.add_subplot(grid[row, :], sharex=first)
        first = first or axes
        axes.plot(
            moved[view], signal.value, color=unit(LIGHT.ink), linewidth=0.8, linestyle="-" if clocks[view] else "--"
        )
        axes.set_xlim(middle - _SECONDS / 2, middle + _SECONDS / 2)
        axes.set_ylabel(view if clocks[view] else f"{view}\nunsure", rotation=0, ha="right", va="center")
        axes.set_yticks([])
        axes.grid(axis="x", color=unit(LIGHT.line))
        axes.tick_params(labelbottom=row == len(signals) - 1)
    if first is not None:
        axes.set_xlabel("time on the common clock (s)")


def _draw_pair(left: Any, right: Any, a: str, b: str, pair: PairEstimate) -> None:
    left.plot(pair.lags, pair.correlation, color=unit(LIGHT.quiet), linewidth=0.8)
    left.axvline(pair.lag, color="tab:green" if pair.sure else "tab:red", linewidth=1)
    left.set_title(f"{b} to {a}: {'sure' if pair.sure else pair.reason}", fontsize=8, loc="left")
    left.set_ylim(-0.3, 1)
    left.set_xlabel("lag (s)", fontsize=8)
    left.set_ylabel("correlation", fontsize=8)
    if len(pair.window_time):
        milliseconds = 1e3 * (pair.window_lag - pair.lag)
        right.plot(pair.window_time[pair.agrees], milliseconds[pair.agrees], "o", color="tab:green", markersize=3)
        right.plot(pair.window_time[~pair.agrees], milliseconds[~pair.agrees], "x", color="tab:red", markersize=4)
        ends = np.array([pair.window_time.min(), pair.window_time.max()])
        right.plot(ends, (ends - pair.center) * (pair.drift or 0.0) * 1e-3, color=unit(LIGHT.ink), linewidth=0.8)
    drift = "drift unknown" if pair.drift is None else f"drift {pair.drift:+.1f} ppm"
    right.set_title(f"lag {pair.lag:+.4f} s, {drift}", fontsize=8, loc="left")
    right.set_xlabel("time (s)", fontsize=8)
    right.set_ylabel("lag - mean (ms)", fontsize=8)
