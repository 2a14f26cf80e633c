"""Run fault tests.

    python -m torture                              all parts, each with its full number of trials and at most 60 minutes
    python -m torture bits_flipped --count 100     one part with fewer trials

Each part writes torture/results/PART.json. `python docs/tables.py` then updates docs/failures.md.
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
import tempfile
from pathlib import Path

from torture.common import Part, run_part, write_result

PARTS = (
    *("builds_killed", "fits_killed", "workers_killed", "disk_full", "bits_flipped", "videos_mutated"),
    *("random_access", "same_digest", "memory_slope", "reader_during_build", "malicious_files", "readers_mutated"),
    "two_builders",
)


def main() -> int:
    """Run the named parts, or each part in a process of its own; 1 if something did not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help="Parts to run; all if none is named.")
    parser.add_argument("--count", type=int, help="Number of trials instead of that of a full run.")
    parser.add_argument("--seconds", type=float, default=3540.0, help="Maximum time of a part.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of the random numbers.")
    given = parser.parse_args()
    if len(given.parts) == 1:
        return _run_here(given.parts[0], count=given.count, seconds=given.seconds, seed=given.seed)
    codes = []
    for name in given.parts or PARTS:
        words = [sys.executable, "-m", "torture", name, "--seconds", str(given.seconds), "--seed", str(given.seed)]
        words += [] if given.count is None else ["--count", str(given.count)]
        codes.append(subprocess.run(words).returncode)
    return int(any(codes))


def _run_here(name: str, *, count: int | None, seconds: float, seed: int) -> int:
    part: Part = importlib.import_module(f"torture.{name}").PART
    with tempfile.TemporaryDirectory(prefix=f"torture-{name}-") as folder:
        result = run_part(name, part, Path(folder), count=count, seconds=seconds, seed=seed)
    if not result["count"]:
        print(f"No trials of {name} within {seconds:g} s: nothing is written. Give more --seconds.")
        return 1
    write_result(result)
    return int(bool(result["failures"]))


if __name__ == "__main__":
    sys.exit(main())
