"""Builds of 1 to 64 short clips with the default, `--workers 0` and `--workers 2`, each in a new process.

    python -m benchmarks.jobs [--clips 1 4 16 64] [--rounds 3]

Each clip is a view of the rendered sample study. The command is `actionprep track --grid 20` with tracker `lk` in a study
without items; start-up is included.
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

PREP = [sys.executable, "-c", "from actionprep.cli import prep; prep()"]
VIEWS = 4


def build(folder: Path, num_clips: int, workers: int | None) -> Callable[[], None]:
    """Return a function that tracks points in some clips with a new process."""
    recordings = sorted(path.name for path in (folder / "videos").iterdir())[: -(-num_clips // VIEWS)]
    command = [*PREP, "track", "--grid", "20", "--recording", *recordings]
    command += ["--views", *(str(view) for view in range(min(num_clips, VIEWS)))]
    command += [] if workers is None else ["--workers", str(workers)]

    def run() -> None:
        shutil.rmtree(folder / "store", ignore_errors=True)
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)

    return run


def main() -> int:
    """Run all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    results = Results("jobs", settings={"rounds": args.rounds})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "study"
        make_demo(folder, recordings=-(-max(args.clips) // VIEWS))
        for clips in args.clips:
            ways = {"default": None, "--workers 0": 0, "--workers 2": 2}
            sides = interleaved(
                {way: build(folder, clips, workers) for way, workers in ways.items()},
                rounds=args.rounds,
                work=clips,
                unit="clips",
            )
            results.add(f"{clips} clips", sides)
            rounds = zip(*(sides[way].seconds for way in ways), strict=True)
            results.mark(
                f"{clips} clips: default / better of --workers 0 and 2",
                statistics.median(default / min(here, there) for default, here, there in rounds),
                at_most=1.15,
            )
    results.save()
    return results.exit_code()


if __name__ == "__main__":
    raise SystemExit(main())
