"""Trainings are killed at random moments and resumed."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch
from training_fakes import make_store, tiny_recipe

from actionprep.training.checkpoints import read_safely
from actionprep.training.run import Run
from torture.common import Part, Trials, environment

SCRIPT = """
import sys
import torch
torch.set_num_threads(1)
from actionprep.training.fit import fit
from actionprep.datasets.split_choice import SplitChoice

split = SplitChoice(train=("1", "2", "3"), test=("4",))
fit(sys.argv[1], sys.argv[2], sys.argv[3], split=split, device="cpu", tensorboard=False, resume=True)
"""


def kill_fits(trials: Trials, folder: Path) -> None:
    """Kill trainings with dropout, mixup and averaged weights, and compare with an uninterrupted one."""
    store = make_store(folder / "store", subjects=4, repeats=2)
    recipe = tiny_recipe(epochs=16, ema=0.9, batch=2, checkpoint_minutes=5e-4, mixup=0.4, sizes__dropout=0.3)
    (folder / "recipe.toml").write_text(recipe.to_toml(), encoding="utf-8")

    def start(run: Path) -> subprocess.Popen[str]:
        words = [sys.executable, "-c", SCRIPT, str(store.path), str(folder / "recipe.toml"), str(run)]
        return subprocess.Popen(words, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def finish(run: Path) -> Run:
        process = start(run)
        errors = process.communicate(timeout=1800)[1]
        trials.check(process.returncode == 0, f"fit ended with {process.returncode}: {errors[-300:]}")
        return Run(run)

    expected = finish(folder / "uninterrupted")
    while trials.go_on:
        cut = Run(folder / "cut")
        while trials.go_on:
            process, rows = start(cut.folder), _rows(cut)
            # Imports take most of the time of a start: half of the kills wait for a new epoch.
            wanted = rows + trials.random.choice([0, 1])
            moment = time.monotonic() + trials.random.uniform(0, 1.0 if wanted > rows else 8.0)
            while process.poll() is None and (_rows(cut) < wanted or time.monotonic() < moment):
                time.sleep(0.002)
            if process.poll() is not None:
                break
            process.kill()
            process.wait()
            trials.done += 1
        resumed = finish(cut.folder)
        trials.facts["finished runs"] += 1
        states = [read_safely(run.last)["state_dict"] for run in (expected, resumed)]
        equal = states[0].keys() == states[1].keys() and all(torch.equal(states[0][k], states[1][k]) for k in states[0])
        trials.check(equal, "a resumed training has other weights")
        trials.check(_values(expected) == _values(resumed), "a resumed training has other metrics")
        shutil.rmtree(cut.folder)


def _rows(run: Run) -> int:
    path = run.folder / "metrics.csv"
    return len(path.read_bytes().splitlines()) if path.exists() else 0


def _values(run: Run) -> list[dict[str, object]]:
    """Metrics of all epochs, without times."""
    return [{name: value for name, value in row.items() if "second" not in name} for row in run.metrics]


PART = Part("a training is killed and resumed: weights and metrics of an uninterrupted one", "kills", 50, kill_fits)
