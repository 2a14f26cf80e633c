"""Motion with random bursts, and the motion energy that cameras with other clocks measure of it."""

from __future__ import annotations

import numpy as np

from actionprep.pipeline.synchronization.signals import Signal, motion_energy

STEP = 0.005


def bursts(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """Distance moved until each multiple of STEP; the speed varies within about 0.1 s."""
    level = np.exp(rng.normal(size=int(seconds / STEP)))
    width = np.arange(-60, 61) / 16
    kernel = np.exp(-0.5 * width**2)
    speed = np.convolve(level, kernel / kernel.sum(), mode="same") ** 4
    return np.cumsum(speed) * STEP


def seen_from(
    rng: np.random.Generator, path: np.ndarray, *, fps: float, offset: float = 0.0, drift: float = 0.0
) -> Signal:
    """Motion energy on the clock of a camera that drops 2 % of its frames: true time = offset + its time * (1 + drift)."""
    grid = np.arange(len(path)) * STEP
    true = np.arange(rng.uniform(2, 3), grid[-1] - 3, 1 / fps)
    true = true[rng.random(len(true)) >= 0.02]
    change = np.diff(np.interp(true, grid, path)) * np.exp(0.05 * rng.normal(size=len(true) - 1))
    return motion_energy((true - offset) / (1 + drift * 1e-6), change)
