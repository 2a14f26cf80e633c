"""Estimate during a build whether worker processes would finish the rest of it earlier."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

START_S = 2.5
"""Seconds from the decision for worker processes to their first task: imports, a scheduler, and one process per core."""

PROBE_S = 1.0
"""Seconds of work to measure before the decision. Shorter measurements are dominated by one block or one file."""

THREADS_COST = 1.2
"""Processor time of one process with a thread per core, relative to processes with a single thread each.

Measured with `lk`: 1.13 to 1.25. The threads of a process wait for each other.
"""


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def speedup_of_workers(busy_cores: float, *, count: int, num_tasks: int, cores: int) -> float:
    """Estimate how many times faster worker processes do work that this process keeps `busy_cores` busy with.

    Args:
        busy_cores: Cores that this process uses on average: processor time divided by wall time.
        count: Number of workers.
        num_tasks: Number of tasks; each runs on one worker.
        cores: Number of cores of the machine.
    """
    most = float(min(count, num_tasks))
    return most if busy_cores <= 0 else min(most, THREADS_COST * cores / busy_cores)


class Workload:
    """Measure the tasks of a job that run in this process, and compare the rest with the start of workers.

    The time until the first block of frames of the first task does not count: it imports libraries and loads weights.
    """

    def __init__(
        self,
        amounts: Sequence[float],
        *,
        count: int,
        cores: int,
        clock: Callable[[], float] = time.perf_counter,
        cpu_clock: Callable[[], float] = time.process_time,
    ) -> None:
        """Begin a job.

        Args:
            amounts: Work of each task in one unit, such as pixels to decode, in the order in which they run.
            count: Number of workers that could be started.
            cores: Number of cores of the machine.
            clock: Returns wall time in seconds.
            cpu_clock: Returns the processor time of this process in seconds.
        """
        self._amounts, self._count, self._cores = list(amounts), count, cores
        self._clock, self._cpu_clock = clock, cpu_clock
        self._finished = 0
        self._current = 0.0
        self._origin: tuple[float, float, float] | None = None

    def advance(self, share: float) -> None:
        """Note that this share of the current task is done, in [0, 1]."""
        self._current = self._amounts[self._finished] * min(share, 1.0)
        self._begin_measuring()

    def finish(self) -> None:
        """Note that the current task is done."""
        self._finished, self._current = self._finished + 1, 0.0
        self._begin_measuring()

    def workers_pay(self) -> bool:
        """Return whether workers would finish the rest earlier, even if they repeat the current task from its start."""
        if self._origin is None:
            return False
        began, began_cpu, began_done = self._origin
        seconds, done = self._clock() - began, self._done() - began_done
        if seconds < PROBE_S or done <= 0:
            return False
        tasks_left = len(self._amounts) - self._finished
        speedup = speedup_of_workers(
            (self._cpu_clock() - began_cpu) / seconds, count=self._count, num_tasks=tasks_left, cores=self._cores
        )
        here = seconds / done * (sum(self._amounts) - self._done())
        there = START_S + seconds / done * sum(self._amounts[self._finished :]) / max(speedup, 1.0)
        return there < here

    def _begin_measuring(self) -> None:
        if self._origin is None:
            self._origin = self._clock(), self._cpu_clock(), self._done()

    def _done(self) -> float:
        return sum(self._amounts[: self._finished]) + self._current
