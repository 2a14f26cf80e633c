"""Several builders start on one store, and owners of the lock are killed."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from actionprep.datasets.store.zarr_store import Store
from torture.common import STAGES, Part, Trials, leftovers, run, small_study, start


def race_builders(trials: Trials, folder: Path) -> None:
    """Start two to four builders almost at the same time; half of the time, kill the first one."""
    study = small_study(folder, recordings=6, frames=40)
    study.build(*STAGES)
    store, expected = study.store.require_local(), study.store.digest()
    for number in trials:
        shutil.rmtree(store)
        builders = []
        for _ in range(trials.random.choice([2, 2, 3, 4])):
            builders.append(start("prep", study.root, "build", *STAGES, "--workers", "0"))
            time.sleep(trials.random.choice([0.0, 0.0, trials.random.uniform(0, 1.0)]))
        if number % 2:
            time.sleep(trials.random.uniform(0.5, 2.5))
            builders[0].kill()
        for builder in builders:
            errors = builder.communicate(timeout=600)[1]
            refused = builder.returncode == 2 and "Another builder is using this store: process" in errors
            killed = number % 2 == 1 and builder is builders[0] and builder.returncode == -9
            trials.facts["refused"] += refused
            trials.facts["killed"] += killed
            trials.facts["finished"] += builder.returncode == 0
            expected_end = refused or killed or builder.returncode == 0
            trials.check(expected_end, f"a builder ended with {builder.returncode}: {errors[-600:]}")
        done = run("prep", study.root, "build", *STAGES, "--workers", "0")  # replaces the lock of a killed builder
        trials.check(done.returncode == 0, f"the next build failed: {done.stderr[-300:]}")
        trials.check(Store(str(store)).digest() == expected, "another digest after a race of builders")
        trials.check(not leftovers(store), f"builders left {leftovers(store)[:3]}")


PART = Part(
    "2 to 4 builders start at once, and owners are killed: others are refused or take over, one digest",
    "races",
    50,
    race_builders,
)
