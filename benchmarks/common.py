"""Shared code of the benchmarks: interleaved timing, facts about the machine, one results file each."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
PACKAGES = ("numpy", "av", "opencv-python-headless", "zarr", "numcodecs", "h5py", "torch", "lightning", "dask", "numba")


@dataclass(frozen=True)
class Side:
    """One of the compared implementations, with its wall time per round in seconds."""

    name: str
    seconds: tuple[float, ...]
    work: float = 1.0
    unit: str = "runs"

    @property
    def median(self) -> float:
        """Median seconds per round."""
        return statistics.median(self.seconds)

    @property
    def rate(self) -> float:
        """Work per second at the median (frames/s, clips/s, …)."""
        return self.work / self.median

    def as_json(self) -> dict[str, Any]:
        """Plain values for the results file."""
        return {
            "median_s": round(self.median, 6),
            "fastest_s": round(min(self.seconds), 6),
            "rounds_s": [round(value, 6) for value in self.seconds],
            f"{self.unit}_per_s": round(self.rate, 2),
        }


@dataclass(frozen=True)
class Mark:
    """A target: the value must be at least, or at most, the bound."""

    what: str
    value: float
    bound: float
    at_least: bool = True

    @property
    def met(self) -> bool:
        """Whether the target is reached."""
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    def __str__(self) -> str:
        sense = "at least" if self.at_least else "at most"
        return f"{'ok ' if self.met else 'MISSED'} {self.what}: {self.value:.3g} ({sense} {self.bound:g})"


@dataclass
class Results:
    """Results of one benchmark. `save` writes benchmarks/results/<name>.json and prints a summary."""

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    groups: dict[str, dict[str, Side]] = field(default_factory=dict)
    marks: list[Mark] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, group: str, sides: Mapping[str, Side]) -> None:
        """Add a group of sides that were timed together."""
        self.groups[group] = dict(sides)

    def mark(self, what: str, value: float, *, at_least: float | None = None, at_most: float | None = None) -> None:
        """Add a value with its target.

        Raises:
            ValueError: Unless exactly one of `at_least` and `at_most` is given.
        """
        if (at_least is None) == (at_most is None):
            raise ValueError("Give exactly one of at_least and at_most.")
        bound = at_least if at_least is not None else at_most
        self.marks.append(Mark(what, float(value), float(bound), at_least=at_least is not None))  # type: ignore[arg-type]

    def save(self, folder: Path | None = None) -> Path:
        """Write the results file, with machine and versions, and print a summary."""
        path = (folder or RESULTS) / f"{self.name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "benchmark": self.name,
            "date": time.strftime("%Y-%m-%d"),
            "machine": machine(),
            "versions": versions(),
            "settings": self.settings,
            "groups": {g: {n: side.as_json() for n, side in sides.items()} for g, sides in self.groups.items()},
            "marks": [{**asdict(mark), "value": round(mark.value, 4), "met": mark.met} for mark in self.marks],
            "notes": self.notes,
        }
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        for group, sides in self.groups.items():
            print(group)
            for side in sides.values():
                print(f"  {side.name:44s} {side.median * 1e3:10.2f} ms {side.rate:12.1f} {side.unit}/s")
        for mark in self.marks:
            print(mark)
        print(f"written to {path}")
        return path

    def exit_code(self) -> int:
        """0 if every target is reached, else 1."""
        return 0 if all(mark.met for mark in self.marks) else 1


def interleaved(
    sides: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 7,
    warmup: int = 1,
    work: float | Mapping[str, float] = 1.0,
    unit: str = "runs",
    before: Callable[[], object] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Side]:
    """Time all sides alternately in each round, so that drift of the machine affects them equally.

    Every second round runs the sides in reverse order. work: number of frames (clips, steps, …) per call, for all sides or
    per side; before: called untimed before each call, to clean up; clock: function that returns seconds.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(-warmup, rounds):
        order = list(sides) if turn % 2 == 0 else list(sides)[::-1]
        for name in order:
            if before is not None:
                before()
            start = clock()
            sides[name]()
            if turn >= 0:
                seconds[name].append(clock() - start)
    amounts = work if isinstance(work, Mapping) else dict.fromkeys(sides, work)
    return {name: Side(name, tuple(values), amounts[name], unit) for name, values in seconds.items()}


def speed_ratio(ours: Side, theirs: Side) -> float:
    """Ratio of our rate to theirs: the median over rounds of the ratio within a round."""
    per_round = [
        (ours.work / mine) / (theirs.work / other) for mine, other in zip(ours.seconds, theirs.seconds, strict=True)
    ]
    return statistics.median(per_round)


def machine() -> dict[str, Any]:
    """CPU model, usable cores, memory and system of this machine."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "load_at_end": [round(value, 2) for value in os.getloadavg()],
    }


def versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Version of each installed package."""
    found = {"python": sys.version.split()[0]}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    for line in lines:
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()
