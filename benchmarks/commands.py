"""Commands with nothing to do beside an empty Typer program, and their processor time per row of the catalog.

    python -m benchmarks.commands [--rows 528 1000 10000 100000] [--rounds 3]

A row is a view with masks and point tracks, two items of the store. Videos and arrays are placeholders: these commands
read neither. Each command is a new process. The first number of rows is compared with the empty program; the others give
the processor time and the memory per row, by the difference from the first.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from actionprep.api import Study, settings_models
from actionprep.datasets.file_states import digest_of
from actionprep.datasets.scan import scan
from actionprep.datasets.store.metadata import group_text, group_text_with_checksum
from actionprep.datasets.study import StudySettings, init_study
from benchmarks.common import Results, interleaved
from benchmarks.start import EMPTY

PREP = [sys.executable, "-c", "from actionprep.cli import prep; prep()"]
COMMANDS = {
    "status": ["status"],
    "plan": ["plan", "tracks"],
    "build": ["build", "tracks"],
    "snippets": ["snippets"],
}
VIEWS = 8
NUM_FRAMES = 46


def probe(path: Path) -> Any:
    """Facts of a placeholder of a video."""
    return SimpleNamespace(
        codec="h264", pixel_format="yuv420p", width=320, height=240, rotation=0, time_base=Fraction(1, 15), start=0.0,
        file_start=0.0, times=np.arange(NUM_FRAMES) / 15, num_frames=NUM_FRAMES, fps=15.0, header_frames=NUM_FRAMES,
        duration=NUM_FRAMES / 15, digest=digest_of(path), stream=0, warnings=(),
    )  # fmt: skip


def make_study(folder: Path, num_rows: int) -> None:
    """Make a study with a scanned catalog and a store that its settings call up to date."""
    (folder / "videos").mkdir(parents=True)
    for row in range(num_rows):
        recording, view = divmod(row, VIEWS)
        path = folder / f"videos/{('left', 'right')[recording % 2]}_{recording:06}/cam{view}.mp4"
        path.parent.mkdir(exist_ok=True)
        path.write_text(str(row))
    labels = [f"{('left', 'right')[at % 2]}_{at:06},{('left', 'right')[at % 2]}" for at in range(-(-num_rows // VIEWS))]
    (folder / "recordings.csv").write_text("\n".join(["recording,label", *labels, ""]))
    named = {
        "layout": "views",
        "pattern": "{recording}/cam{view}.mp4",
        "recordings": "recordings.csv",
        "stages": ("tracks",),
    }
    settings = StudySettings.read(named, where="the benchmark")
    study = Study(init_study(folder, settings, chosen={"tracks": {"tracker": "lk"}}, models=settings_models()))
    scan(study.folder, study.folder.study, probe=probe)
    root = study.store.require_local()
    groups = set()
    for item in study.plan().items:
        attributes = {
            "arrays": {},
            "digest": item.fingerprint,
            "fingerprint": item.fingerprint,
            "item": {"product": item.key.product, "recording": item.key.recording, "view": item.key.view},
            "nbytes": 24,
            "provenance": item.provenance,
            "stage": {"num_windows": 1, "num_empty_windows": 0, "num_points": 9, "visible_share": 1.0},
        }
        place = root / item.key.path
        place.mkdir(parents=True)
        (place / "zarr.json").write_text(group_text_with_checksum(attributes))
        groups |= {place.parent, place.parent.parent}
    for group in groups:
        (group / "zarr.json").write_text(group_text({}))
    subprocess.run([*PREP, "snippets"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    time.sleep(0.2)  # so that the index trusts the time stamps
    study.store.snapshot()


def run(folder: Path, command: list[str]) -> tuple[float, float]:
    """Run a command; returns its processor time in seconds and its peak memory in MiB."""
    code = (
        "import resource, subprocess, sys\n"
        "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *command], cwd=folder, check=True, capture_output=True, text=True
    )
    seconds, memory = map(float, done.stdout.split())
    return seconds, memory


def main() -> int:
    """Run all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[528, 1000, 10_000, 100_000])
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    results = Results("commands", settings={"rounds": args.rounds, "rows": args.rows})
    with tempfile.TemporaryDirectory() as name:
        empty = Path(name) / "empty.py"
        empty.write_text(EMPTY)
        first = Path(name) / "first"
        make_study(first, args.rows[0])

        def call(command: list[str]) -> Callable[[], object]:
            return lambda: subprocess.run(command, cwd=first, check=True, stdout=subprocess.DEVNULL)

        sides = {"empty Typer program": call([sys.executable, str(empty), "one"])}
        sides |= {what: call([*PREP, *command]) for what, command in COMMANDS.items()}
        timed = interleaved(sides, rounds=args.rounds * 3)
        results.add(f"{args.rows[0]} rows", timed)
        for what in COMMANDS:
            pairs = zip(timed[what].seconds, timed["empty Typer program"].seconds, strict=True)
            results.mark(
                f"{2 * args.rows[0]} items: {what} / empty Typer program",
                statistics.median(ours / other for ours, other in pairs),
                at_most=3.0,
            )
        measured: dict[int, dict[str, tuple[float, float]]] = {}
        for rows in args.rows:
            folder = first if rows == args.rows[0] else Path(name) / str(rows)
            if folder != first:
                make_study(folder, rows)
            measured[rows] = {}
            for what, command in COMMANDS.items():
                runs = [run(folder, [*PREP, *command]) for _ in range(args.rounds)]
                measured[rows][what] = (
                    statistics.median(seconds for seconds, _ in runs),
                    statistics.median(memory for _, memory in runs),
                )
            if folder != first:
                shutil.rmtree(folder)
        for rows in args.rows[1:]:
            for what in COMMANDS:
                (seconds, memory), (base_seconds, base_memory) = measured[rows][what], measured[args.rows[0]][what]
                more = rows - args.rows[0]
                results.mark(
                    f"{rows} rows: {what}, ms of processor time per row",
                    (seconds - base_seconds) / more * 1e3,
                    at_most=0.2,
                )
                results.notes.append(
                    f"{rows} rows: {what} takes {seconds:.2f} s of processor time and {memory:.0f} MiB, "
                    f"{(memory - base_memory) / more * 1024:.1f} KiB per row"
                )
    results.save()
    for note in results.notes:
        print(note)
    return results.exit_code()


if __name__ == "__main__":
    raise SystemExit(main())
