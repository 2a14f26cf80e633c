"""Accuracy of clock estimates on synthetic views with known offsets, drifts and dropped frames.

    python benchmarks/sync.py --cases 200

Prints one JSON document. A case is one pair of views. It is right if the offset error is at most half a frame and the
drift error at most 20 ppm, and unsure if the estimate is.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np

from actionprep.pipeline.synchronization.pairs import estimate_pair
from actionprep.pipeline.synchronization.signals import Signal, motion_energy

RATES = (24.0, 25.0, 29.97, 30.0, 50.0, 60.0)


def speed(rng: np.random.Generator, seconds: float, *, step: float = 0.002) -> tuple[np.ndarray, np.ndarray]:
    """Speed of a moving person: bursts with random onsets and lengths, and band-limited variation, every `step` s."""
    grid = np.arange(0, seconds, step)
    width = int(0.06 / step)
    kernel = np.exp(-0.5 * (np.arange(-4 * width, 4 * width + 1) / width) ** 2)
    noise = np.convolve(rng.normal(size=len(grid)), kernel / np.sqrt((kernel**2).sum()), mode="same")
    active = np.zeros(len(grid))
    at = 0.0
    while at < seconds:
        at += rng.exponential(2.0)
        length = rng.uniform(0.5, 4.0)
        active[(grid >= at) & (grid < at + length)] = rng.uniform(0.5, 2.0)
        at += length
    return grid, 0.05 + np.convolve(active, kernel / kernel.sum(), mode="same") * np.exp(0.6 * noise)


def view(
    rng: np.random.Generator,
    grid: np.ndarray,
    common: np.ndarray,
    *,
    fps: float,
    offset: float,
    drift: float,
    dropped: float,
    private: float,
    seconds: tuple[float, float],
) -> Signal:
    """Motion energy that a camera with this clock measures: the common motion, motion only it sees, and noise."""
    own = speed(rng, float(grid[-1]) + 0.1)[1][: len(grid)]
    mixed = common * rng.uniform(0.5, 2) + private * own * rng.uniform(0.5, 2)
    path = np.concatenate([[0], np.cumsum((mixed[1:] + mixed[:-1]) / 2 * np.diff(grid))])
    true = np.arange(seconds[0] + rng.uniform(0, 1 / fps), seconds[1], 1 / fps)
    true = true[np.concatenate([[True], rng.random(len(true) - 1) >= dropped])]
    travelled = np.interp(true, grid, path)
    change = np.diff(travelled) * np.exp(0.05 * rng.normal(size=len(true) - 1)) + 0.002 * rng.random(len(true) - 1)
    return motion_energy((true - offset) / (1 + drift * 1e-6), change)


def case(seed: int, *, seconds: float, private: float, dropped: float = 0.02) -> dict[str, float | bool]:
    """Make one pair of views and compare the estimate with the truth."""
    rng = np.random.default_rng(seed)
    grid, common = speed(rng, seconds + 8)
    fps = rng.choice(RATES, 2)
    offset, drift = float(rng.uniform(-2, 2)), float(rng.uniform(-200, 200))
    cut = [(3 + rng.uniform(0, 2), seconds + 3 + rng.uniform(-2, 2)) for _ in fps]
    a = view(rng, grid, common, fps=fps[0], offset=0, drift=0, dropped=dropped, private=private, seconds=cut[0])
    b = view(
        rng, grid, common, fps=fps[1], offset=offset, drift=drift, dropped=dropped, private=private, seconds=cut[1]
    )
    start = time.perf_counter()
    estimate = estimate_pair(a, b)
    spent = time.perf_counter() - start
    found = estimate.drift
    sure = estimate.sure and found is not None
    frame = 1 / float(min(fps))
    true_times = offset + b.time * (1 + drift * 1e-6)
    own_times = estimate.offset + b.time * (1 + (found or 0.0) * 1e-6)
    return {
        "sure": sure,
        "right": abs(estimate.offset - offset) <= frame / 2 and abs((found or 0.0) - drift) <= 20,
        "offset_error": abs(estimate.offset - offset),
        "drift_error": abs((found or 0.0) - drift),
        "aligned": float((np.abs(own_times - true_times) <= frame / 2).mean()),
        "confidence": estimate.confidence,
        "seconds": spent,
    }


def measure(cases: int, *, seconds: float, private: float, first_seed: int = 0) -> dict[str, float]:
    """Run cases with seeds from `first_seed` on and summarize them."""
    rows = [case(first_seed + seed, seconds=seconds, private=private) for seed in range(cases)]
    sure = [row for row in rows if row["sure"]]
    return {
        "cases": cases,
        "recording_s": seconds,
        "private_motion": private,
        "right_and_sure": sum(bool(row["right"]) for row in sure),
        "wrong_and_sure": sum(not row["right"] for row in sure),
        "unsure": cases - len(sure),
        "median_offset_error_ms": 1e3 * float(np.median([row["offset_error"] for row in sure]))
        if sure
        else float("nan"),
        "median_drift_error_ppm": float(np.median([row["drift_error"] for row in sure])) if sure else float("nan"),
        "aligned_within_half_frame": float(np.mean([row["aligned"] for row in sure])) if sure else 0.0,
        "median_seconds": float(np.median([row["seconds"] for row in rows])),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--seconds", type=float, nargs="+", default=[300.0])
    parser.add_argument("--private", type=float, nargs="+", default=[0.5])
    given = parser.parse_args()
    print(json.dumps(
        [measure(given.cases, seconds=s, private=p) for s in given.seconds for p in given.private], indent=2
    ))  # fmt: skip
