"""Builds are killed at random moments and restarted until they are done."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from actionprep.datasets.store.zarr_store import Store
from torture.common import STAGES, Part, Trials, leftovers, run, small_study, start


def kill_builds(trials: Trials, folder: Path) -> None:
    """Kill the builder, and compare the store of each build that finishes with an uninterrupted one."""
    study = small_study(folder, recordings=8, frames=40)
    begun = time.monotonic()
    study.build(*STAGES)
    expected, longest = study.store.digest(), time.monotonic() - begun + 4
    store = study.store.require_local()
    shutil.rmtree(store)
    committed: set[str] = set()
    while trials.go_on:
        workers = trials.random.choice([None, 0, 1, 2])
        options = () if workers is None else ("--workers", str(workers))
        process = start("prep", study.root, "build", *STAGES, *options)
        time.sleep(trials.random.uniform(0.3, longest))
        if process.poll() is None:
            process.kill()
            process.wait()
            trials.done += 1
            if store.exists():
                now = {key.path for key in Store(str(store)).items()}
                trials.check(committed <= now, f"committed items are gone: {sorted(committed - now)[:3]}")
                committed = now
        else:
            errors = process.communicate()[1]
            trials.check(process.returncode == 0, f"a build ended with {process.returncode}: {errors[-300:]}")
            _compare(trials, store, expected)
            shutil.rmtree(store)
            committed = set()
    finished = run("prep", study.root, "build", *STAGES, "--workers", "0")
    trials.check(finished.returncode == 0, f"the last build failed: {finished.stderr[-300:]}")
    _compare(trials, store, expected)


def _compare(trials: Trials, store: Path, expected: str) -> None:
    trials.facts["finished builds"] += 1
    trials.check(Store(str(store)).digest() == expected, "a resumed build has another digest")
    trials.check(not leftovers(store), f"a finished build left {leftovers(store)[:3]}")


PART = Part(
    "a build is killed and restarted: one digest, nothing left, no committed item lost", "kills", 200, kill_builds
)
