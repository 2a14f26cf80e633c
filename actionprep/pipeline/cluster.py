"""Run view tasks on Dask: on processes of this machine, a running cluster, or SLURM jobs."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actionprep.errors import InputError, SetupError
from actionprep.pipeline.decode_pass import ItemOutcome, derived_error
from actionprep.pipeline.fault_log import explained_faults, write_log
from actionprep.pipeline.index import find_stage
from actionprep.pipeline.plan import PlannedItem, ViewTask
from actionprep.pipeline.timings import Timings
from actionprep.pipeline.view_tasks import TaskOutcome, Workers, run_task

if TYPE_CHECKING:
    from actionprep.datasets.store.lock import Claim
    from actionprep.datasets.store.zarr_store import Mark, Store

# How long canceled tasks of a cluster may take to stop.
GIVE_UP_S = 20.0
# How long to wait for an answer of a scheduler, and for the first worker of its cluster.
ANSWER_S = 20.0
FIRST_WORKER_S = 30.0
# How long local worker processes may take to restart after all of them died. On a busy machine this is slow.
REVIVAL_S = 120.0
# How long a running scheduler may be without any worker. Its workers are restarted by others.
ABSENCE_S = 600.0
# Maximum number of workers that die before they start a task, without a suspect. More deaths are not the video's fault.
MAX_EARLY_DEATHS = 5

_LOOK_S = 1.0

_DIED = "the worker process died on it twice, the second time alone (out of memory, or a crash in a decoder)"


@contextmanager
def dask_outcomes(
    tasks: tuple[ViewTask, ...],
    store: Store,
    workers: Workers,
    log_folder: Path | None,
    claim: Claim,
    item_timeout: float,
) -> Iterator[Iterator[TaskOutcome]]:
    """Run the tasks and yield their outcomes as they finish. Leaving the block early cancels the others."""
    with _client(workers, tasks) as client:
        local = workers.scheduler is None and workers.slurm is None
        work = _Work(
            client, store, log_folder, claim, item_timeout, local=local, waits_for_jobs=workers.slurm is not None
        )
        try:
            yield work.outcomes(tasks)
        except BaseException:
            work.give_up()
            raise


class _Work:
    """Tasks of one build on a Dask cluster."""

    def __init__(
        self,
        client: Any,
        store: Store,
        log_folder: Path | None,
        claim: Claim,
        item_timeout: float,
        *,
        local: bool,
        waits_for_jobs: bool = False,
    ) -> None:
        self._waits_for_jobs, self._saw_workers = waits_for_jobs, True
        self._client, self._store, self._log_folder, self._local = client, store, log_folder, local
        self._claim, self._item_timeout = claim, item_timeout
        self._running: dict[Any, tuple[ViewTask, Mark]] = {}
        self._early_deaths: Counter[tuple[str, str]] = Counter()
        self._group = f"actionprep-{uuid.uuid4().hex}"

    def outcomes(self, tasks: tuple[ViewTask, ...]) -> Iterator[TaskOutcome]:
        """Yield one outcome per task.

        When a worker process dies, all its tasks are lost. Tasks that it had not started are submitted again. A task that
        it had started is a suspect: suspects run again after all others, one item at a time.
        """
        from distributed import as_completed

        # Longest first, so that the last minutes are not one worker on one long video.
        futures = as_completed(
            [self._submit(task) for task in sorted(tasks, key=lambda task: -task.num_frames)], loop=self._client.loop
        )
        suspects = []
        for future in self._done(futures):
            task, mark = self._running.pop(future)
            outcome = self._result(future, task)
            if outcome is not None:
                yield outcome
            elif mark.exists():
                mark.unlink(missing_ok=True)
                suspects.append(task)
            else:
                self._note_early_deaths(task, len(suspects))
                futures.add(self._submit(task))
        for task in suspects:
            yield self._one_by_one(task)

    def _done(self, futures: Any) -> Iterator[Any]:
        """Yield futures as they finish; raises SetupError if all worker processes are gone and none comes back."""
        alive = looked = time.monotonic()
        limit = REVIVAL_S if self._local else ABSENCE_S
        while not futures.is_empty():
            if futures.has_ready():
                yield next(futures)
                continue
            # As often as Dask itself looks.
            time.sleep(0.1)
            now = time.monotonic()
            if self._has_workers(since=now - looked):
                alive = now
            elif now - alive > limit:
                raise SetupError(
                    f"All worker processes have died, and none has restarted for {limit:.0f} s. The videos are not the "
                    "cause.\nCheck the memory of the machine and what else runs on it, or run with '--workers 0'. Finished "
                    "items are complete: the same command resumes the build."
                )
            if now - looked > _LOOK_S:
                looked = now
                if self._local:
                    _revive(self._client.cluster)

    def _has_workers(self, *, since: float) -> bool:
        """Whether the cluster has a worker. A scheduler elsewhere is asked again when `since` exceeds a second.

        Jobs of a queue may wait for long, so their workers always count as present.
        """
        if self._local:
            return bool(self._client.cluster.scheduler.workers)
        if self._waits_for_jobs:
            return True
        if since > _LOOK_S:
            with suppress(OSError, TimeoutError):
                self._saw_workers = bool(self._client.scheduler_info()["workers"])
        return self._saw_workers

    def give_up(self) -> None:
        """Cancel unfinished tasks and wait until they no longer write."""
        marks = [mark for _, mark in self._running.values()]
        with suppress(OSError, TimeoutError):  # the cluster may be the reason to stop
            self._client.cancel(list(self._running), force=True)
        until = time.monotonic() + GIVE_UP_S
        # Local processes end with the cluster.
        while not self._local and any(mark.exists() for mark in marks) and time.monotonic() < until:
            time.sleep(0.1)

    def _submit(self, task: ViewTask) -> Any:
        mark = self._store.mark(f"running-{uuid.uuid4().hex}")
        future = self._client.submit(
            run_task,
            task,
            self._store.url if self._local or self._store.path is None else str(self._store.path.resolve()),
            builder=os.getpid() if self._local else None,
            mark=mark,
            claim=self._claim,
            on_cluster=True,
            item_timeout=self._item_timeout,
            # Dask submits only as many tasks of one group as workers can start; the others wait.
            key=(self._group, f"{task.source.recording}/{task.source.view}", mark.name),
            pure=False,
            resources={"GPU": 1} if _needs_gpu(task) and not self._local else None,
        )
        self._running[future] = task, mark
        return future

    def _result(self, future: Any, task: ViewTask) -> TaskOutcome | None:
        """Return the outcome of a task; None if its process died."""
        from distributed import CancelledError, KilledWorker
        from distributed.comm import CommClosedError

        with explained_faults(f"{task.source.recording}, view {task.source.view}", self._log_folder):
            try:
                outcome: TaskOutcome = future.result()
            except KilledWorker:
                return None
            except (CancelledError, CommClosedError) as error:
                raise SetupError(
                    f"The Dask cluster dropped the tasks ({error}): its scheduler has ended, or somebody canceled them.\n"
                    "Finished items are complete. Restart the cluster, then run the same command to resume."
                ) from error
        return outcome

    def _one_by_one(self, task: ViewTask) -> TaskOutcome:
        """Build the items of a suspect one at a time, with no other task running, to find the one that kills its process."""
        from distributed import as_completed

        made: dict[str, ItemOutcome] = {}
        parts = []
        for item in task.items:
            problem = self._failed_input(item, made)
            if problem is None:
                future = self._submit(replace(task, items=(item,)))
                list(self._done(as_completed([future], loop=self._client.loop)))
                part = self._result(future, task)
                _, mark = self._running.pop(future)
                if part is not None:
                    parts.append(part)
                    made[item.key.product] = part.items[0]
                    continue
                problem = self._death(item, mark)
                mark.unlink(missing_ok=True)
            made[item.key.product] = ItemOutcome(item.key, item.fingerprint, problem)
        frames, concealed, missing = (
            max((getattr(part, name) for part in parts), default=0) for name in ("num_frames", "concealed", "missing")
        )
        timings = Timings()
        for part in parts:
            timings.add(part.timings)
        return TaskOutcome(tuple(made.values()), frames, concealed, missing, timings.total, timings)

    def _death(self, item: PlannedItem, mark: Mark) -> InputError:
        """Return the error of an item after its process ended. A hang has left its traceback, which is logged."""
        try:
            traceback = Path(mark).read_text(encoding="utf-8", errors="replace")
        except OSError:
            traceback = ""
        if not traceback:
            return InputError(_DIED)
        reason = f"no progress for {self._item_timeout:g} s when it ran alone (item_timeout), so its process was ended"
        if self._log_folder is not None:
            log = write_log(self._log_folder, "hang", str(item.key), traceback)
            reason += f"; {self._log_folder.name}/{log.name} contains the traceback"
        return InputError(reason)

    def _failed_input(self, item: PlannedItem, made: dict[str, ItemOutcome]) -> InputError | None:
        for source in find_stage(item.key.product).inputs(item.settings):
            if source.product in made and made[source.product].problem is not None:
                return derived_error(source.product)
        return None

    def _note_early_deaths(self, task: ViewTask, num_suspects: int) -> None:
        view = (task.source.recording, task.source.view)
        self._early_deaths[view] += 1
        if self._early_deaths[view] > MAX_EARLY_DEATHS + num_suspects:
            raise SetupError(
                f"Worker processes died {self._early_deaths[view]} times before they started {'/'.join(view)}. The videos "
                "are not the cause.\nCheck their logs and the memory of the machine, or run with '--workers 0'."
            )


def _revive(cluster: Any) -> None:
    """Replace worker processes that a local cluster has lost.

    A worker that dies before its nanny has registered it is not restarted, and the cluster forgets it after a while.
    Without workers the build would wait forever.
    """
    if len(cluster.workers) < len(cluster.worker_spec):
        cluster.scale(len(cluster.worker_spec))


@contextmanager
def _client(workers: Workers, tasks: tuple[ViewTask, ...]) -> Iterator[Any]:
    import dask
    import distributed

    with ExitStack() as stack:
        # Report the first death of a worker: the cause is found here.
        stack.enter_context(dask.config.set({"distributed.scheduler.allowed-failures": 0}))
        stack.enter_context(dask.config.set({"distributed.worker.daemon": True}))
        # A suspended worker, as on a sleeping laptop, is not dead: the connection of a dead one ends.
        stack.enter_context(dask.config.set({"distributed.scheduler.worker-ttl": None}))
        # Dask would make worker processes return memory to the system with each freed buffer. For buffers of frames this
        # costs more time than decoding: each is mapped, filled with zeros and unmapped again.
        environ = dask.config.get("distributed.nanny.pre-spawn-environ")
        kept = {name: value for name, value in environ.items() if name != "MALLOC_TRIM_THRESHOLD_"}
        stack.enter_context(dask.config.set({"distributed.nanny.pre-spawn-environ": kept}))
        # A lost connection is reported in one message here, not by the logs of each part of Dask.
        stack.enter_context(_silent("distributed", "tornado", "asyncio"))
        if workers.scheduler is not None:
            client = stack.enter_context(_client_of(workers.scheduler))
            _require_workers(client, workers.scheduler, tasks)
        elif workers.slurm is not None:
            cluster = stack.enter_context(_slurm_cluster(workers.slurm, workers.count))
            client = stack.enter_context(distributed.Client(cluster, set_as_default=False))
        else:
            with _ignore_ctrl_c():
                cluster = distributed.LocalCluster(
                    n_workers=min(workers.count, len(tasks)),
                    threads_per_worker=1,
                    processes=True,
                    dashboard_address=None,
                    # The HTTP server cannot be disabled: use any free port, or a second build would warn about 8787.
                    scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
                    memory_limit=0,
                    silence_logs=50,
                )
            stack.enter_context(cluster)
            client = stack.enter_context(distributed.Client(cluster, set_as_default=False))
        yield client


@contextmanager
def _silent(*names: str) -> Iterator[None]:
    """Silence these loggers below the level CRITICAL."""
    loggers = [logging.getLogger(name) for name in logging.root.manager.loggerDict if name.split(".")[0] in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _client_of(address: str) -> Any:
    import distributed

    try:
        return distributed.Client(address, timeout=ANSWER_S, set_as_default=False)
    except (OSError, ValueError) as error:
        raise SetupError(
            f"No Dask scheduler answers at {address} ({error}).\n"
            "Start one with 'dask scheduler', or leave --scheduler out to work on this machine."
        ) from error


def _require_workers(client: Any, address: str, tasks: tuple[ViewTask, ...]) -> None:
    """Raise SetupError if the cluster has no workers for these tasks, which would then wait forever."""
    with suppress(TimeoutError):
        client.wait_for_workers(1, timeout=FIRST_WORKER_S)
    # Newer versions of Dask return only a few workers by default.
    ask = partial(client.scheduler_info, n_workers=-1)
    try:
        workers = ask()["workers"].values()
    except TypeError:
        workers = client.scheduler_info()["workers"].values()
    if not workers:
        raise SetupError(
            f"The Dask scheduler at {address} has no workers.\nStart some with 'dask worker {address}', then run the "
            "same command again."
        )
    needy = sum(map(_needs_gpu, tasks))
    if needy and not any(worker.get("resources", {}).get("GPU") for worker in workers):
        raise SetupError(
            f'{needy} views need a GPU (device = "cuda"), but no worker of the Dask scheduler at {address} has '
            f"one.\nStart workers with 'dask worker {address} --resources GPU=1', or set the device to cpu or auto."
        )


@contextmanager
def _ignore_ctrl_c() -> Iterator[None]:
    """Make processes that start in this block ignore Ctrl-C: the builder stops them."""
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
        raise SetupError(
            "--slurm needs dask-jobqueue, which is not installed.\nInstall it with: pip install 'actionprep[slurm]'"
        ) from None
    cluster = SLURMCluster(**options)
    cluster.scale(jobs=max(1, jobs))
    return cluster


def _needs_gpu(task: ViewTask) -> bool:
    return any(str(getattr(item.settings, "device", "cpu")).startswith("cuda") for item in task.items)
