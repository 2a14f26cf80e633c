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
from actionprep.pipeline.fault_log import explained_faults
from actionprep.pipeline.index import find_stage
from actionprep.pipeline.passes import ItemOutcome, derived_error
from actionprep.pipeline.plan import PlannedItem, ViewTask
from actionprep.pipeline.tasks import TaskOutcome, Workers, run_task

if TYPE_CHECKING:
    from actionprep.datasets.store.lock import LockClaim
    from actionprep.datasets.store.zarr_store import Store

# How long a cluster's tasks may take to notice that they are not wanted any more.
GIVE_UP_S = 20.0
# How long to wait for an answer of a scheduler, and for the first worker of a cluster that is said to be running.
ANSWER_S = 20.0
FIRST_WORKER_S = 30.0
# How long processes of our own may take to begin again after all of them died: starting one takes seconds, many on a
# machine that is busy.
REVIVAL_S = 120.0
# A task whose workers died so often before they began it, and of whom nobody else is suspected, is not to blame.
MAX_STILLBORN = 5

_DIED = "the worker process died on it twice, the second time alone (out of memory, or a crash in a decoder)"


@contextmanager
def dask_outcomes(
    tasks: tuple[ViewTask, ...], store: Store, workers: Workers, log_folder: Path | None, claim: LockClaim
) -> Iterator[Iterator[TaskOutcome]]:
    """Run the tasks; yields their outcomes as they come. Leaving the block early gives up what is not done."""
    with _client(workers, tasks) as client:
        work = _Work(client, store, log_folder, claim, local=workers.scheduler is None and workers.slurm is None)
        try:
            yield work.outcomes(tasks)
        except BaseException:
            work.give_up()
            raise


class _Work:
    """Tasks of one build on a Dask cluster."""

    def __init__(self, client: Any, store: Store, log_folder: Path | None, claim: LockClaim, *, local: bool) -> None:
        assert store.path is not None
        self._client, self._store, self._log_folder, self._local = client, store, log_folder, local
        self._claim = claim
        self._marks = store.path.resolve() / ".partial"
        self._running: dict[Any, tuple[ViewTask, Path]] = {}
        self._stillborn: Counter[tuple[str, str]] = Counter()
        self._group = f"actionprep-{uuid.uuid4().hex}"

    def outcomes(self, tasks: tuple[ViewTask, ...]) -> Iterator[TaskOutcome]:
        """One outcome a task.

        A process that dies takes along whatever it was given. A task that it had not begun is handed out again. One that
        it had begun is a suspect: those are run once more when all others are done, each item alone.
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
                self._note_stillborn(task, len(suspects))
                futures.add(self._submit(task))
        for task in suspects:
            yield self._one_by_one(task)

    def _done(self, futures: Any) -> Iterator[Any]:
        """Futures as they are done; raises SetupError where no process of this machine is left to do them."""
        alive = looked = time.monotonic()
        while not futures.is_empty():
            if futures.has_ready():
                yield next(futures)
                continue
            # As often as Dask itself looks.
            time.sleep(0.1)
            now = time.monotonic()
            if not self._local or self._client.cluster.scheduler.workers:
                alive = now
            elif now - alive > REVIVAL_S:
                raise SetupError(
                    f"All worker processes have ended, and none has begun again for {REVIVAL_S:.0f} s, so no video is to "
                    "blame.\nLook at the memory of the machine and at what else runs on it, or see what happens with "
                    "'--workers 0'. What was finished is whole: the same command goes on there."
                )
            if self._local and now - looked > 1:
                looked = now
                _revive(self._client.cluster)

    def give_up(self) -> None:
        """Cancel what is not done, and wait until nothing of it writes any more."""
        marks = [mark for _, mark in self._running.values()]
        with suppress(OSError, TimeoutError):  # the cluster may be why we give up
            self._client.cancel(list(self._running), force=True)
        until = time.monotonic() + GIVE_UP_S
        # Processes of our own are ended with the cluster.
        while not self._local and any(mark.exists() for mark in marks) and time.monotonic() < until:
            time.sleep(0.1)

    def _submit(self, task: ViewTask) -> Any:
        mark = self._marks / f"running-{uuid.uuid4().hex}"
        future = self._client.submit(
            run_task,
            task,
            self._store.url if self._local else str(Path(self._store.url).resolve()),
            builder=os.getpid() if self._local else None,
            mark=mark,
            claim=self._claim,
            on_cluster=True,
            # Of many tasks of one group Dask hands out no more than workers can begin at once; the rest waits.
            key=(self._group, f"{task.source.recording}/{task.source.view}", mark.name),
            pure=False,
            resources={"GPU": 1} if _needs_gpu(task) and not self._local else None,
        )
        self._running[future] = task, mark
        return future

    def _result(self, future: Any, task: ViewTask) -> TaskOutcome | None:
        """What a task did; None when its process died."""
        from distributed import CancelledError, KilledWorker
        from distributed.comm import CommClosedError

        with explained_faults(f"{task.source.recording}, view {task.source.view}", self._log_folder):
            try:
                outcome: TaskOutcome = future.result()
            except KilledWorker:
                return None
            except (CancelledError, CommClosedError) as error:
                raise SetupError(
                    f"The Dask cluster let go of the work ({error}): its scheduler has ended, or somebody cancelled it.\n"
                    "What was finished is whole. Start the cluster again, then run the same command: it goes on there."
                ) from error
        return outcome

    def _one_by_one(self, task: ViewTask) -> TaskOutcome:
        """Make the items of a suspect each alone, with nothing beside it, to find the one that kills its process."""
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
                mark.unlink(missing_ok=True)
                problem = InputError(_DIED)
            made[item.key.product] = ItemOutcome(item.key, item.fingerprint, problem)
        frames, concealed, missing = (
            max((getattr(part, name) for part in parts), default=0) for name in ("num_frames", "concealed", "missing")
        )
        return TaskOutcome(tuple(made.values()), frames, concealed, missing, sum(part.seconds for part in parts))

    def _failed_input(self, item: PlannedItem, made: dict[str, ItemOutcome]) -> InputError | None:
        for one in find_stage(item.key.product).inputs(item.settings):
            if one.product in made and made[one.product].problem is not None:
                return derived_error(one.product)
        return None

    def _note_stillborn(self, task: ViewTask, num_suspects: int) -> None:
        place = (task.source.recording, task.source.view)
        self._stillborn[place] += 1
        if self._stillborn[place] > MAX_STILLBORN + num_suspects:
            raise SetupError(
                f"Worker processes died {self._stillborn[place]} times before they began {'/'.join(place)}, so no video is "
                "to blame.\nLook into their logs and at the memory of the machine, or see what happens with '--workers 0'."
            )


def _revive(cluster: Any) -> None:
    """Start processes anew in place of those that a cluster of this machine has let go of.

    A worker that dies before its nanny has seen it begin is not started again, and after a while the cluster forgets it:
    without workers the build would wait for ever.
    """
    if len(cluster.workers) < len(cluster.worker_spec):
        cluster.scale(len(cluster.worker_spec))


@contextmanager
def _client(workers: Workers, tasks: tuple[ViewTask, ...]) -> Iterator[Any]:
    import dask
    import distributed

    with ExitStack() as stack:
        # The first death of a worker is told: who is to blame is found out here.
        stack.enter_context(dask.config.set({"distributed.scheduler.allowed-failures": 0}))
        stack.enter_context(dask.config.set({"distributed.worker.daemon": True}))
        # A worker that is stopped for a while, as on a laptop that sleeps, is not dead: a dead one's connection ends.
        stack.enter_context(dask.config.set({"distributed.scheduler.worker-ttl": None}))
        # What becomes of a lost connection is reported in one message here, not by the logs of each part of Dask.
        stack.enter_context(_silent("distributed", "tornado", "asyncio"))
        if workers.scheduler is not None:
            client = stack.enter_context(_client_of(workers.scheduler))
            _require_workers(client, workers.scheduler, tasks)
        elif workers.slurm is not None:
            cluster = stack.enter_context(_slurm_cluster(workers.slurm, workers.count))
            client = stack.enter_context(distributed.Client(cluster, set_as_default=False))
        else:
            with _deaf_to_ctrl_c():
                cluster = distributed.LocalCluster(
                    n_workers=min(workers.count, len(tasks)),
                    threads_per_worker=1,
                    processes=True,
                    dashboard_address=None,
                    # Its HTTP server cannot be left out: any free port, or a second build would warn about 8787.
                    scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
                    memory_limit=0,
                    silence_logs=50,
                )
            stack.enter_context(cluster)
            client = stack.enter_context(distributed.Client(cluster, set_as_default=False))
        yield client


@contextmanager
def _silent(*names: str) -> Iterator[None]:
    """Within the block, nothing below critical comes from these loggers."""
    loggers = [logging.getLogger(one) for one in logging.root.manager.loggerDict if one.split(".")[0] in names]
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
    """Raise SetupError for a cluster on which the tasks would wait for ever."""
    with suppress(TimeoutError):
        client.wait_for_workers(1, timeout=FIRST_WORKER_S)
    # Newer versions of Dask tell only of a few workers unless they are asked for all.
    ask = partial(client.scheduler_info, n_workers=-1)
    try:
        found = ask()["workers"].values()
    except TypeError:
        found = client.scheduler_info()["workers"].values()
    if not found:
        raise SetupError(
            f"The Dask scheduler at {address} has no workers.\nStart some with 'dask worker {address}', then run the "
            "same command again."
        )
    needy = sum(map(_needs_gpu, tasks))
    if needy and not any(one.get("resources", {}).get("GPU") for one in found):
        raise SetupError(
            f'{needy} views ask for a GPU (device = "cuda"), and no worker of the Dask scheduler at {address} offers '
            f"one.\nStart workers with 'dask worker {address} --resources GPU=1', or set the device to cpu or auto."
        )


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
        raise SetupError(
            "--slurm needs dask-jobqueue, which is not installed.\nInstall it with: pip install 'actionprep[slurm]'"
        ) from None
    cluster = SLURMCluster(**options)
    cluster.scale(jobs=max(1, jobs))
    return cluster


def _needs_gpu(task: ViewTask) -> bool:
    return any(str(getattr(item.settings, "device", "cpu")).startswith("cuda") for item in task.items)
