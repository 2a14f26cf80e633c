"""Carry a plan out: one task a view, in this process or on Dask, with quarantine, a failure budget and a lock."""

from __future__ import annotations

import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actionprep.datasets.lock import build_lock
from actionprep.datasets.store import ItemKey, Store
from actionprep.errors import ActionprepError, EnvironmentProblem, InputProblem, explained_disk_errors
from actionprep.pipeline.passes import ItemOutcome, decode_pass
from actionprep.pipeline.plan import Plan, PlannedItem, ViewTask, plan_study_item
from actionprep.pipeline.quarantine import Quarantine
from actionprep.pipeline.stage import ArrayStage, ViewStage, find_stage

if TYPE_CHECKING:
    from actionprep.datasets.catalogue import Catalogue

# Fewer failures than this never stop a job: in a small study one bad file is already a large share.
MIN_FAILURES = 5


@dataclass(frozen=True)
class Workers:
    """Where tasks run.

    count:     processes on this machine; 0 runs in this process, for debugging and for scripts.
    scheduler: address of a running Dask cluster ("tcp://…") instead.
    slurm:     options for dask_jobqueue.SLURMCluster instead, such as {"queue": "cpu", "cores": 8, "memory": "32GB"}.
    """

    count: int = 0
    scheduler: str | None = None
    slurm: dict[str, Any] | None = None


@dataclass(frozen=True)
class TaskOutcome:
    """What one view task did."""

    items: tuple[ItemOutcome, ...]
    num_frames: int
    concealed: int
    missing: int
    seconds: float


@dataclass
class BuildReport:
    """What a build did, item for item."""

    built: list[ItemKey] = field(default_factory=list)
    done: int = 0
    quarantined: dict[ItemKey, str] = field(default_factory=dict)
    blocked: dict[ItemKey, str] = field(default_factory=dict)
    num_frames: int = 0
    concealed: int = 0
    missing: int = 0
    nbytes: int = 0
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether every wanted item is in the store."""
        return not self.quarantined and not self.blocked


Progress = Callable[[TaskOutcome, BuildReport], None]


class BuildStopped(ActionprepError):
    """The failure budget is spent; what was built stays."""


class BugFound(ActionprepError):
    """A fault of the program, not of the input: carries the place of the traceback."""


def build(
    plan: Plan,
    catalogue: Catalogue,
    store: Store,
    quarantine: Quarantine,
    *,
    workers: Workers = Workers(),
    failure_budget: float = 0.2,
    log_folder: Path | None = None,
    lock_path: Path | None = None,
    progress: Progress | None = None,
) -> BuildReport:
    """Make everything that the plan calls for.

    failure_budget: share of the tasks that may fail before the job stops.

    Raises EnvironmentProblem at once when the machine lacks something, BuildStopped when the budget is spent, BugFound
    with the place of the traceback for a fault of the program, UserError while another builder holds the lock.
    Whatever is raised, every committed item stays and the next build goes on from there.
    """
    report = BuildReport(done=plan.count("done"))
    for item in plan.items:
        if item.action == "quarantined":
            report.quarantined[item.key] = item.why
        elif item.action == "blocked":
            report.blocked[item.key] = item.why
    if lock_path is None:
        assert store.path is not None
        lock_path = store.path / ".lock"
    begun = time.perf_counter()
    with build_lock(lock_path):
        store.clear_partial()
        failures = _Failures(failure_budget, len(plan.view_tasks))
        with _outcomes(plan.view_tasks, store, workers, log_folder) as outcomes:
            for outcome in outcomes:
                _note(outcome, report, quarantine, failures)
                report.seconds = time.perf_counter() - begun
                if progress is not None:
                    progress(outcome, report)
        for name, settings in plan.study_stages:
            _build_study_item(
                plan_study_item(catalogue, store, name, settings, force=plan.forced), catalogue, store, report
            )
        store.clear_partial()
    report.seconds = time.perf_counter() - begun
    return report


def run_task(task: ViewTask, store_url: str, *, threads: int = 1, builder: int | None = None) -> TaskOutcome:
    """Make all items of one view: one decode pass, or two where a stage needs a finished product of the first.

    builder: process id whose end also ends this worker process, so that a killed job leaves no orphan writing.

    Problems of the input become outcomes; everything else is raised.
    """
    _prepare_worker(builder, threads)
    store = Store(store_url)
    begun = time.perf_counter()
    outcomes: dict[str, ItemOutcome] = {}
    frames = concealed = missing = 0
    waiting = list(task.items)
    while waiting:
        ready = [item for item in waiting if _is_ready(item, waiting)]
        waiting = [item for item in waiting if item not in ready]
        usable = []
        for item in ready:
            stage = find_stage(item.key.product)
            failed = [one.product for one in stage.inputs(item.settings) if _failed(outcomes, one.product)]
            if failed:
                problem = InputProblem(f"its input '{failed[0]}' could not be made", derived=True)
                outcomes[item.key.product] = ItemOutcome(item.key, item.fingerprint, problem)
            else:
                usable.append(item)
        framed = [item for item in usable if _reads_frames(item)]
        for item in usable:
            if item not in framed:
                outcomes[item.key.product] = _build_view_item(item, task, store)
        if framed:
            made = decode_pass(task.source, framed, store, threads=threads)
            outcomes.update({one.key.product: one for one in made.items})
            frames, concealed, missing = frames + made.num_frames, concealed + made.concealed, missing + made.missing
    seconds = time.perf_counter() - begun
    return TaskOutcome(tuple(outcomes.values()), frames, concealed, missing, seconds)


def _is_ready(item: PlannedItem, waiting: list[PlannedItem]) -> bool:
    """Whether nothing that must be finished before this item is still waiting to be made."""
    pending = {other.key.product: other for other in waiting}
    for one in find_stage(item.key.product).inputs(item.settings):
        other = pending.get(one.product)
        if other is not None:
            both_framed = _reads_frames(item) and _reads_frames(other)
            if not (one.live and both_framed and _is_ready(other, waiting)):
                return False
    return True


def _reads_frames(item: PlannedItem) -> bool:
    return find_stage(item.key.product).reads_frames(item.settings)


def _failed(outcomes: dict[str, ItemOutcome], product: str) -> bool:
    return product in outcomes and outcomes[product].problem is not None


def _build_view_item(item: PlannedItem, task: ViewTask, store: Store) -> ItemOutcome:
    stage = find_stage(item.key.product)
    assert issubclass(stage, ViewStage)
    key = item.key
    try:
        done = {one.product: store.item(one.product, key.recording, key.view) for one in stage.inputs(item.settings)}
        with store.write(
            key.product, key.recording, key.view, fingerprint=item.fingerprint, provenance=item.provenance
        ) as writer:
            stage.build(item.settings, task.source, writer, done)
        return ItemOutcome(key, item.fingerprint, nbytes=writer.nbytes)
    except InputProblem as problem:
        return ItemOutcome(key, item.fingerprint, problem)


def _build_study_item(item: PlannedItem, catalogue: Catalogue, store: Store, report: BuildReport) -> None:
    if item.action == "done":
        return
    stage = find_stage(item.key.product)
    assert issubclass(stage, ArrayStage)
    with store.write(
        item.key.product, item.key.recording, fingerprint=item.fingerprint, provenance=item.provenance
    ) as writer:
        stage.build(item.settings, catalogue, store, writer)
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
    report.concealed += outcome.concealed
    report.missing += outcome.missing
    # A stage whose input failed adds nothing to the cause.
    failures.note(
        [item.problem.reason for item in outcome.items if item.problem is not None and not item.problem.derived]
    )


class _Failures:
    """Counts failed tasks against the budget."""

    def __init__(self, budget: float, num_tasks: int) -> None:
        self._budget = budget
        self._num_tasks = num_tasks
        self._failed = 0
        self._reasons: dict[str, int] = {}

    def note(self, reasons: list[str]) -> None:
        if not reasons:
            return
        self._failed += 1
        for reason in set(reasons):
            self._reasons[reason] = self._reasons.get(reason, 0) + 1
        if self._failed >= MIN_FAILURES and self._failed > self._budget * self._num_tasks:
            worst, count = max(self._reasons.items(), key=lambda pair: pair[1])
            raise BuildStopped(
                f"Stopped: {self._failed} of {self._num_tasks} views failed, more than the failure budget of "
                f"{self._budget:.0%} allows. Most frequent ({count} times): {worst}\n"
                "'actionprep status' lists them. Mend the cause, or raise 'failure_budget' under [study], and run again."
            )


@contextmanager
def _outcomes(
    tasks: tuple[ViewTask, ...], store: Store, workers: Workers, log_folder: Path | None
) -> Iterator[Iterator[TaskOutcome]]:
    """Run tasks where `workers` says; yields outcomes as they come."""
    local = workers.scheduler is None and workers.slurm is None
    if not tasks:
        yield iter(())
    elif local and (workers.count == 0 or len(tasks) == 1):
        # With nothing else running, FFmpeg may use the cores itself.
        yield (_explained(task, log_folder, partial(run_task, task, store.url, threads=0)) for task in tasks)
    else:
        with _dask_client(workers, len(tasks)) as client:
            yield _dask_outcomes(client, tasks, store, log_folder, local=local)


def _explained(task: ViewTask, log_folder: Path | None, run: Callable[[], TaskOutcome]) -> TaskOutcome:
    try:
        return run()
    except ActionprepError:
        raise
    except Exception as error:
        where = f"{task.source.recording}, view {task.source.view}"
        text = "".join(traceback.format_exception(error))
        place = "the traceback above" if log_folder is None else str(_log(log_folder, where, text))
        raise BugFound(
            f"A fault in the program while working on {where}: {type(error).__name__}: {error}\n"
            f"The traceback is in {place}. What was built is whole; please report this with that file."
        ) from error


def _log(folder: Path, where: str, text: str) -> Path:
    with explained_disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"fault-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    path.write_text(f"{where}\n\n{text}")
    return path


@contextmanager
def _dask_client(workers: Workers, num_tasks: int) -> Iterator[Any]:
    import dask
    import distributed

    with ExitStack() as stack:
        # A worker that dies takes its task with it: once may be chance, twice is the input.
        stack.enter_context(dask.config.set({"distributed.scheduler.allowed-failures": 1}))
        stack.enter_context(dask.config.set({"distributed.worker.daemon": True}))
        if workers.scheduler is not None:
            try:
                client = distributed.Client(workers.scheduler, timeout="20s", set_as_default=False)
            except (OSError, ValueError) as error:
                raise EnvironmentProblem(
                    f"No Dask scheduler answers at {workers.scheduler} ({error}).\n"
                    "Start one with 'dask scheduler', or leave --scheduler out to work on this machine."
                ) from error
        elif workers.slurm is not None:
            cluster = stack.enter_context(_slurm_cluster(workers.slurm, workers.count))
            client = distributed.Client(cluster, set_as_default=False)
        else:
            with _deaf_to_ctrl_c():
                cluster = distributed.LocalCluster(
                    n_workers=min(workers.count, num_tasks),
                    threads_per_worker=1,
                    processes=True,
                    dashboard_address=None,
                    # Its HTTP server cannot be left out: any free port, or a second build would warn about 8787.
                    scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
                    memory_limit=0,
                    silence_logs=50,
                )
            stack.enter_context(cluster)
            client = distributed.Client(cluster, set_as_default=False)
        stack.enter_context(client)
        yield client


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Processes started inside ignore Ctrl-C: the builder alone decides how to stop, and stops them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _slurm_cluster(options: dict[str, Any], jobs: int) -> Any:
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError:
        raise EnvironmentProblem(
            "--slurm needs dask-jobqueue, which is not installed.\nInstall it with: pip install 'actionprep[slurm]'"
        ) from None
    cluster = SLURMCluster(**options)
    cluster.scale(jobs=max(1, jobs))
    return cluster


def _dask_outcomes(
    client: Any, tasks: tuple[ViewTask, ...], store: Store, log_folder: Path | None, *, local: bool
) -> Iterator[TaskOutcome]:
    from distributed import as_completed
    from distributed.scheduler import KilledWorker

    builder = os.getpid() if local else None
    # Longest first, so that the last minutes are not one worker on one long video.
    ordered = sorted(tasks, key=lambda task: -task.num_frames)
    resources = {"GPU": 1} if any(_needs_gpu(task) for task in ordered) and not local else None
    futures = {
        client.submit(run_task, task, store.url, builder=builder, pure=False, resources=resources): task
        for task in ordered
    }
    for future in as_completed(list(futures), loop=client.loop):
        task = futures.pop(future)
        try:
            yield _explained(task, log_folder, future.result)
        except BugFound as bug:
            if not isinstance(bug.__cause__, KilledWorker):
                raise
            problem = InputProblem(
                "the worker process died twice on this view (out of memory, or a crash in a decoder)"
            )
            yield TaskOutcome(
                tuple(ItemOutcome(item.key, item.fingerprint, problem) for item in task.items), 0, 0, 0, 0.0
            )


def _needs_gpu(task: ViewTask) -> bool:
    return any(str(getattr(item.settings, "device", "cpu")).startswith("cuda") for item in task.items)


_watched: set[int] = set()


def _prepare_worker(builder: int | None, threads: int) -> None:
    """One thread a worker for the libraries that would take all cores, and an end when the builder ends."""
    if threads == 1:
        import cv2

        cv2.setNumThreads(1)
    if builder is None or builder in _watched or builder == os.getpid():
        return
    _watched.add(builder)

    def watch() -> None:
        while _exists(builder):
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, name="builder-watch", daemon=True).start()


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
