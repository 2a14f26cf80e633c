"""Build a plan: one task per view, in this process or on Dask, with quarantine, a failure budget and a lock."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from actionprep.datasets.store.keys import ItemKey
from actionprep.datasets.store.lock import BuildLock, Claim, hold
from actionprep.datasets.store.zarr_store import Mark, Store
from actionprep.errors import ActionprepError
from actionprep.pipeline.fault_log import InternalError, explained_faults
from actionprep.pipeline.index import find_stage
from actionprep.pipeline.plan import Plan, PlannedItem, ViewTask, plan_study_item
from actionprep.pipeline.quarantine import Quarantine
from actionprep.pipeline.stage import ArrayStage
from actionprep.pipeline.timings import Timings
from actionprep.pipeline.view_tasks import TaskOutcome, Workers, run_task
from actionprep.pipeline.workload import Workload, usable_cores

if TYPE_CHECKING:
    from actionprep.datasets.catalog import Catalog

__all__ = ["BuildReport", "BuildStoppedError", "InternalError", "Progress", "TaskOutcome", "Workers", "build"]

# Fewer failures than this never stop a job: in a small study one bad file is already a large share.
MIN_FAILURES = 5
# How often the index of the store is written during a build, in seconds.
INDEX_S = 60.0
# File in .partial that exists while a task runs in this process. It stays if the process dies.
HERE = "running-here"


@dataclass
class BuildReport:
    """Result of a build.

    Attributes:
        built: Items that were built.
        done: Number of items that were up to date.
        quarantined: Items that cannot be built, with the reason.
        blocked: Items with a quarantined input, with the reason.
        num_frames: Number of decoded frames.
        concealed: Number of frames that the decoder concealed.
        missing: Number of frames that repeat the last good one.
        nbytes: Bytes of array content that was written.
        seconds: Duration of the build.
        timings: Where the time of the tasks went.
        notes: Notes of the plan.
    """

    built: list[ItemKey] = field(default_factory=list)
    done: int = 0
    quarantined: dict[ItemKey, str] = field(default_factory=dict)
    blocked: dict[ItemKey, str] = field(default_factory=dict)
    num_frames: int = 0
    concealed: int = 0
    missing: int = 0
    nbytes: int = 0
    seconds: float = 0.0
    timings: Timings = field(default_factory=Timings)
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every wanted item is in the store."""
        return not self.quarantined and not self.blocked


Progress = Callable[[TaskOutcome, BuildReport], None]


class BuildStoppedError(ActionprepError):
    """More tasks failed than the failure budget allows. Built items stay."""


def build(
    plan: Plan,
    catalog: Catalog,
    store: Store,
    quarantine: Quarantine,
    *,
    workers: Workers = Workers(),
    failure_budget: float = 0.2,
    item_timeout: float = 600.0,
    log_folder: Path | None = None,
    lock_path: Path | None = None,
    progress: Progress | None = None,
) -> BuildReport:
    """Build all items that a plan marks for building.

    Whatever is raised, every committed item stays and the next build continues from there.

    Args:
        plan: What to build.
        catalog: Recordings, views and segments.
        store: Store to write to.
        quarantine: Failures are added to it.
        workers: Where tasks run.
        failure_budget: Share of the tasks that may fail before the build stops.
        item_timeout: Seconds without progress after which the item of a hanging worker process is ended and quarantined; 0:
            never. With `workers.count` of 0, nothing is ended: this process may do other work.
        log_folder: Folder for tracebacks of faults of the program.
        lock_path: Lock file; that of the store when None.
        progress: Called after each task with its outcome and the report so far.

    Raises:
        SetupError: If the machine lacks something; immediately.
        BuildStoppedError: If more tasks fail than the budget allows.
        InternalError: For a fault of the program, with the path of the traceback.
        UserError: While another builder holds the lock.
    """
    report = BuildReport(done=plan.count("done"), notes=plan.notes)
    for item in plan.items:
        if item.action == "quarantined":
            report.quarantined[item.key] = item.why
        elif item.action == "blocked":
            report.blocked[item.key] = item.why
    begun = indexed = time.perf_counter()
    with hold(store.lock() if lock_path is None else BuildLock(lock_path)) as lock, store.claimed(lock.claim):
        fatal_here = _mark_here(store).exists()
        store.clear_partial()
        failures = _Failures(failure_budget, len(plan.view_tasks))
        with _outcomes(
            plan.view_tasks, store, workers, log_folder, lock.claim, item_timeout, fatal_here=fatal_here
        ) as outcomes:
            for outcome in outcomes:
                lock.claim.require_held()
                _note(outcome, report, quarantine, failures)
                report.seconds = time.perf_counter() - begun
                if time.perf_counter() - indexed > INDEX_S:
                    store.snapshot()  # writes the index
                    indexed = time.perf_counter()
                if progress is not None:
                    progress(outcome, report)
        for name, settings in plan.study_stages:
            with explained_faults(f"{name} of the whole study", log_folder):
                _build_study_item(
                    plan_study_item(catalog, store, name, settings, force=plan.forced), catalog, store, report
                )
        if report.built or report.quarantined:
            store.snapshot()  # writes the index
            store.clear_partial()
    report.seconds = time.perf_counter() - begun
    return report


def _build_study_item(item: PlannedItem, catalog: Catalog, store: Store, report: BuildReport) -> None:
    if item.action == "done":
        return
    stage = find_stage(item.key.product)
    assert issubclass(stage, ArrayStage)
    with store.write(
        item.key.product, item.key.recording, fingerprint=item.fingerprint, provenance=item.provenance
    ) as writer:
        stage.build(item.settings, catalog, store, writer)
    report.built.append(item.key)
    report.nbytes += writer.nbytes


def _note(outcome: TaskOutcome, report: BuildReport, quarantine: Quarantine, failures: _Failures) -> None:
    for item in outcome.items:
        if item.problem is None:
            quarantine.clear(item.key)
            report.built.append(item.key)
            report.nbytes += item.nbytes
        else:
            quarantine.add(item.key, item.problem, fingerprint=item.fingerprint)
            report.quarantined[item.key] = item.problem.reason
    report.num_frames += outcome.num_frames
    report.timings.add(outcome.timings)
    report.concealed += outcome.concealed
    report.missing += outcome.missing
    # A stage whose input failed adds nothing to the cause.
    failures.note(
        {
            item.key: item.problem.reason
            for item in outcome.items
            if item.problem is not None and not item.problem.derived
        }
    )


class _Failures:
    """Counts failed tasks against the budget."""

    def __init__(self, budget: float, num_tasks: int) -> None:
        self._budget = budget
        self._num_tasks = num_tasks
        self._failed = 0
        self._reasons: dict[str, list[str]] = {}

    def note(self, reasons: dict[ItemKey, str]) -> None:
        if not reasons:
            return
        self._failed += 1
        for kind, reason in {_kind_of(key, reason): reason for key, reason in reasons.items()}.items():
            self._reasons.setdefault(kind, []).append(reason)
        if self._failed >= MIN_FAILURES and self._failed > self._budget * self._num_tasks:
            worst = max(self._reasons.values(), key=len)
            raise BuildStoppedError(
                f"Stopped: {self._failed} of {self._num_tasks} views failed, more than the failure budget of "
                f"{self._budget:.0%} allows. Most frequent ({len(worst)} times): {worst[0]}\n"
                "'actionprep status' lists them. Fix the cause, or raise 'failure_budget' under [study], and run again."
            )


def _kind_of(key: ItemKey, reason: str) -> str:
    """A reason without names and numbers of its item, so that equal causes are counted together."""
    return re.sub(r"\S*/\S*|\d+", "…", reason.replace(key.recording, "…"))


@contextmanager
def _outcomes(
    tasks: tuple[ViewTask, ...],
    store: Store,
    workers: Workers,
    log_folder: Path | None,
    claim: Claim,
    item_timeout: float,
    *,
    fatal_here: bool,
) -> Iterator[Iterator[TaskOutcome]]:
    """Run tasks on the workers, and yield outcomes as they arrive.

    `fatal_here` states that an earlier build died while it ran a task in its own process. Worker processes then take that
    risk.
    """
    local = workers.scheduler is None and workers.slurm is None
    as_needed = local and workers.as_needed and workers.count > 0
    if not tasks:
        yield iter(())
    elif local and not (as_needed and fatal_here) and (workers.count == 0 or len(tasks) == 1):
        mark = _mark_here(store) if as_needed else None
        yield (_in_this_process(task, store, log_folder, claim, mark=mark, item_timeout=item_timeout) for task in tasks)
    elif as_needed and not fatal_here:
        with closing(_here_then_on_workers(tasks, store, workers, log_folder, claim, item_timeout)) as outcomes:
            yield outcomes
    else:
        from actionprep.pipeline.cluster import dask_outcomes

        with dask_outcomes(tasks, store, workers, log_folder, claim, item_timeout) as outcomes:
            yield outcomes


class _WorkersPayError(ActionprepError):
    """Raised within a task that worker processes will do instead, because they finish the job earlier."""


def _here_then_on_workers(
    tasks: tuple[ViewTask, ...],
    store: Store,
    workers: Workers,
    log_folder: Path | None,
    claim: Claim,
    item_timeout: float,
) -> Generator[TaskOutcome]:
    """Run tasks in this process until worker processes would finish the rest earlier, then start those."""
    load = Workload([_amount(task) for task in tasks], count=workers.count, cores=usable_cores())
    num_done = 0

    def stop_if_workers_pay() -> None:
        if load.workers_pay():
            raise _WorkersPayError

    with suppress(_WorkersPayError):
        for task in tasks:
            watched = _watched_frames(task, load, stop_if_workers_pay)
            outcome = _in_this_process(
                task, store, log_folder, claim, mark=_mark_here(store), progress=watched, item_timeout=item_timeout
            )
            num_done += 1
            load.finish()
            yield outcome
            stop_if_workers_pay()
    if num_done < len(tasks):
        from actionprep.pipeline.cluster import dask_outcomes

        with dask_outcomes(tasks[num_done:], store, workers, log_folder, claim, item_timeout) as outcomes:
            yield from outcomes


def _watched_frames(task: ViewTask, load: Workload, check: Callable[[], None]) -> Callable[[int], None]:
    """Return a function that is called with the number of frames after each block of a task."""
    num_frames = 0

    def after_block(count: int) -> None:
        nonlocal num_frames
        num_frames += count
        load.advance(num_frames / max(1, task.source.num_frames))
        check()

    return after_block


def _amount(task: ViewTask) -> float:
    """Work of a task for a comparison with others: pixels of the view, or its frames if it has no video."""
    source = task.source
    return max(1.0, float(source.num_frames) * max(1, source.height * source.width))


def _mark_here(store: Store) -> Mark:
    return store.mark(HERE)


def _in_this_process(
    task: ViewTask,
    store: Store,
    log_folder: Path | None,
    claim: Claim,
    *,
    mark: Mark | None = None,
    progress: Callable[[int], None] | None = None,
    item_timeout: float = 0.0,
) -> TaskOutcome:
    with explained_faults(f"{task.source.recording}, view {task.source.view}", log_folder):
        # With nothing else running, FFmpeg may use the cores itself.
        return run_task(
            task, store.url, threads=0, claim=claim, mark=mark, progress=progress, item_timeout=item_timeout
        )
