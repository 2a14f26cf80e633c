"""`actiontrain fit` from its start to its first batch, beside the import of Lightning's Trainer, each in a new process.

    python -m benchmarks.fit [--study FOLDER] [--rounds 5]

The other side imports `lightning.pytorch.Trainer` and reads every file of the tracks once. Without `--study`, the rendered
sample study is made with 16 recordings in eight views.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from actionprep.api import make_demo
from benchmarks.common import Results, interleaved

FIT = """
import os, sys
import actionprep.training.loop.task as task
from actionprep.cli import train

def stop(self, *arguments, **options):
    sys.stdout.flush()
    os._exit(0)

task.ClassifierTask.training_step = stop
sys.argv = ["actiontrain", "fit", "--run", sys.argv[1]]
train()
os._exit(1)
"""
BARE = """
from pathlib import Path
from lightning.pytorch import Trainer

for path in Path("store/tracks").rglob("*"):
    if path.is_file():
        path.read_bytes()
"""


def main() -> int:
    """Run all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    results = Results("fit", settings={"rounds": args.rounds})
    with tempfile.TemporaryDirectory() as name:
        study = args.study
        if study is None:
            study = Path(name) / "study"
            made = make_demo(study, recordings=16)
            made.build("tracks", overrides={"tracks": {"grid": 20}})
            made.build("snippets", overrides={"snippets": {"length": 1000.0, "iou": 0.5}})
        runs = iter(range(1_000_000))

        def call(code: str) -> Callable[[], object]:
            def run() -> None:
                command = [sys.executable, "-c", code, f"benchmark_{next(runs)}"]
                subprocess.run(command, cwd=study, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

            return run

        ours, theirs = "fit to its first batch", "import Trainer, read the tracks"
        sides = interleaved({ours: call(FIT), theirs: call(BARE)}, rounds=args.rounds)
        for folder in (study / "runs").glob("benchmark_*"):
            shutil.rmtree(folder)
        size = sum(path.stat().st_size for path in (study / "store/tracks").rglob("*") if path.is_file())
    results.add("start of a training", sides)
    results.notes.append(f"{size / 2**20:.0f} MiB of tracks, in the page cache")
    pairs = zip(sides[ours].seconds, sides[theirs].seconds, strict=True)
    results.mark(
        "fit to its first batch / import of Trainer and reading the tracks",
        statistics.median(mine / other for mine, other in pairs),
        at_most=1.3,
    )
    results.save()
    return results.exit_code()


if __name__ == "__main__":
    raise SystemExit(main())
