"""Trials with a limit of time and number, a seed and a results file; studies and commands that the parts share."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recordings import moving_square, write_video

from actionprep.api import Study, make_study
from benchmarks.common import machine
from torture import ROOT

RESULTS = Path(__file__).resolve().parent / "results"
MAX_FAILURES = 10
"""A part stops after this many failures."""

LEFTOVERS = (".partial", ".lock")


@dataclass(frozen=True)
class Part:
    """A kind of fault.

    Attributes:
        what: What happens, and what must hold, as one line of the results.
        unit: Name of the trials: "kills", "flipped bits", ….
        count: Number of trials of a full run.
        run: Runs the trials in an empty folder.
    """

    what: str
    unit: str
    count: int
    run: Callable[[Trials, Path], None]


@dataclass
class Trials:
    """Trials of a part: count them, collect failures, and stop at a limit.

    Attributes:
        count: Maximum number of trials.
        seconds: Maximum time.
        random: Random numbers of the seed of this run.
        done: Number of trials so far.
        failures: What did not hold.
        facts: Other counts and measured values for the results.
    """

    count: int
    seconds: float
    random: random.Random
    done: int = 0
    failures: list[str] = field(default_factory=list)
    facts: Counter[str] = field(default_factory=Counter)
    begun: float = field(default_factory=time.monotonic)

    @property
    def go_on(self) -> bool:
        """Whether there is time for another trial."""
        return (
            self.done < self.count
            and time.monotonic() - self.begun < self.seconds
            and len(self.failures) < MAX_FAILURES
        )

    def __iter__(self) -> Iterator[int]:
        """Yield the numbers of trials; each counts as done when the next one starts."""
        while self.go_on:
            yield self.done
            self.done += 1

    def check(self, holds: bool, failure: str) -> bool:
        """Record a failure unless a condition holds."""
        if not holds:
            self.failures.append(failure)
            print(f"FAILED after {self.done} trials: {failure}", flush=True)
        return holds


def run_part(name: str, part: Part, folder: Path, *, count: int | None, seconds: float, seed: int) -> dict[str, Any]:
    """Run a part and return the values of its results file."""
    trials = Trials(part.count if count is None else count, seconds, random.Random(seed))
    part.run(trials, folder)
    result = {
        "part": name,
        "what": part.what,
        "unit": part.unit,
        "full_count": part.count,
        "count": trials.done,
        "failures": trials.failures,
        "facts": dict(trials.facts),
        "seed": seed,
        "seconds": round(time.monotonic() - trials.begun, 1),
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
    }
    print(f"{name}: {trials.done} {part.unit}, {len(trials.failures)} failures, {result['seconds']} s", flush=True)
    return result


def write_result(result: dict[str, Any]) -> Path:
    """Write the results file of a part."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{result['part']}.json"
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return path


def environment(**variables: str) -> dict[str, str]:
    """Environment of commands: this checkout and one thread per library."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "fixtures")])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "200", **variables}


def command(program: str, study: Path, *words: str) -> list[str]:
    """Return the command line of `actionprep` ("prep") or `actiontrain` ("train") for a study."""
    return [
        *(sys.executable, "-c", f"from actionprep.cli import {program}; {program}()"),
        *(*words, "--study", str(study)),
    ]


def run(program: str, study: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        command(program, study, *words), env=environment(**variables), capture_output=True, text=True, timeout=1800
    )


def start(program: str, study: Path, *words: str, **variables: str) -> subprocess.Popen[str]:
    """Start a command. Its output is discarded except for errors."""
    return subprocess.Popen(
        command(program, study, *words),
        env=environment(**variables),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def small_study(root: Path, *, recordings: int = 3, frames: int = 24, height: int = 48, width: int = 64) -> Study:
    """Create a study of short clips with small settings of masks, tracks and low-resolution frames."""
    for number in range(recordings):
        label = "left" if number % 2 else "right"
        clip = moving_square(frames, height=height, width=width, speed=1 + number % 5, seed=number)
        write_video(root / "videos" / label / f"clip_{number}.mp4", clip)
    study, _ = make_study(root, {}, force=True)
    for name, value in {"grid": 4, "window": 8, "stride": 4}.items():
        study.folder.change("tracks", name, value)
    study.folder.change("lowres", "sizes", (16,))
    study.scan()
    return study


STAGES = ("tracks", "lowres", "snippets")


def leftovers(store: Path) -> list[str]:
    """Return drafts, marks and locks in a store, which no finished build leaves."""
    return [str(path.relative_to(store)) for name in LEFTOVERS for path in store.rglob(name)]


def descendants(pid: int) -> list[int]:
    """Return the processes that a process has started, directly or not."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found, waiting = [], [pid]
    while waiting:
        new = children.get(waiting.pop(), [])
        found += new
        waiting += new
    return found
