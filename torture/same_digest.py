"""Builds with different numbers of workers and start methods give the same bytes."""

from __future__ import annotations

import shutil
from pathlib import Path

from actionprep.datasets.store.zarr_store import Store
from torture.common import STAGES, Part, Trials, run, small_study

WAYS = [("0", "spawn"), *((count, method) for method in ("spawn", "forkserver", "fork") for count in ("1", "2", "4"))]


def build_in_ways(trials: Trials, folder: Path) -> None:
    """Build one study in each way, with the stages in random order."""
    study = small_study(folder, recordings=6, frames=40)
    study.build(*STAGES)
    store, expected = study.store.require_local(), study.store.digest()
    for number in trials:
        workers, method = WAYS[number % len(WAYS)]
        shutil.rmtree(store)
        stages = trials.random.sample(STAGES, len(STAGES))
        variables = {"DASK_DISTRIBUTED__WORKER__MULTIPROCESSING_METHOD": method}
        done = run("prep", study.root, "build", *stages, "--workers", workers, **variables)
        way = f"{workers} workers, {method}, {' '.join(stages)}"
        trials.facts[f"{workers} workers, {method}"] += 1
        if trials.check(done.returncode == 0, f"{way}: {done.stderr[-300:]}"):
            trials.check(Store(str(store)).digest() == expected, f"another digest with {way}")


PART = Part(
    "builds with 0, 1, 2 and 4 workers, by spawn, forkserver and fork, in any order: one digest",
    "builds",
    2 * len(WAYS),
    build_in_ways,
)
