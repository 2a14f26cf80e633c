"""Worker processes of builds are killed at random moments."""

from __future__ import annotations

import os
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path

from actionprep.datasets.store.zarr_store import Store
from torture.common import STAGES, Part, Trials, descendants, leftovers, run, small_study, start


def kill_workers(trials: Trials, folder: Path) -> None:
    """Kill a random worker of builds with four, again and again, while each build runs."""
    study = small_study(folder, recordings=16, frames=80)
    study.build(*STAGES)
    store, expected = study.store.require_local(), study.store.digest()
    while trials.go_on:
        shutil.rmtree(store)
        process = start("prep", study.root, "build", *STAGES, "--workers", "4")
        while process.poll() is None:
            time.sleep(trials.random.uniform(0.1, 1.0))
            # Processes that are being started do not work on an item yet.
            busy = list((store / ".partial").glob("running-*"))
            workers = [pid for pid in descendants(process.pid) if _is_worker(pid)]
            if busy and workers and trials.go_on:
                with suppress(ProcessLookupError):
                    os.kill(trials.random.choice(workers), signal.SIGKILL)
                    trials.done += 1
        errors = process.communicate()[1]
        trials.facts["builds"] += 1
        blamed = list(study.quarantine)
        trials.facts["items quarantined"] += len(blamed)
        trials.check(process.returncode in (0, 1), f"a build ended with {process.returncode}: {errors[-300:]}")
        trials.check("Traceback" not in errors, f"a build printed a traceback: {errors[-300:]}")
        for entry in blamed:
            known = "died on it twice" in entry.reason or "could not be built" in entry.reason
            trials.check(known, f"quarantined without that reason: {entry.reason}")
        finished = run("prep", study.root, "build", *STAGES, "--retry", "--workers", "0")
        trials.check(finished.returncode == 0, f"the last build failed: {finished.stderr[-300:]}")
        trials.check(Store(str(store)).digest() == expected, "a build with killed workers has another digest")
        trials.check(not leftovers(store), f"a finished build left {leftovers(store)[:3]}")


def _is_worker(pid: int) -> bool:
    try:
        return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


PART = Part(
    "a worker of a build with 4 is killed: complete, or quarantined because it died twice; one digest after --retry",
    "kills",
    50,
    kill_workers,
)
