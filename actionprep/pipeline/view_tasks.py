"""Run the task of one view: build all its items."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actionprep.datasets.store.lock import Claim
from actionprep.datasets.store.opening import open_zarr_store
from actionprep.datasets.store.zarr_store import Mark, Store
from actionprep.errors import ActionprepError, InputError, SetupError, UserError, explained_disk_errors
from actionprep.pipeline.hang import hang_watch
from actionprep.pipeline.index import find_stage
from actionprep.pipeline.plan import PlannedItem, ViewTask
from actionprep.pipeline.stage import ViewStage
from actionprep.pipeline.timings import Timings

if TYPE_CHECKING:
    from actionprep.pipeline.decode_pass import ItemOutcome

# How often a task checks that the builder still holds the lock, in seconds.
LOCK_CHECK_S = 1.0


@dataclass(frozen=True)
class Workers:
    """Where tasks run.

    Attributes:
        count: Processes on this machine; 0 runs in this process, for debugging and for scripts.
        scheduler: Address of a running Dask cluster ("tcp://…") instead.
        slurm: Options for dask_jobqueue.SLURMCluster instead, such as {"queue": "cpu", "cores": 8, "memory": "32GB"}.
        as_needed: Whether these processes start only if the rest of the job takes longer without them. Until then, tasks
            run in this process.
    """

    count: int = 0
    scheduler: str | None = None
    slurm: dict[str, Any] | None = None
    as_needed: bool = False


@dataclass(frozen=True)
class TaskOutcome:
    """Result of the task of one view."""

    items: tuple[ItemOutcome, ...]
    num_frames: int
    concealed: int
    missing: int
    seconds: float
    timings: Timings = field(default_factory=Timings)


class BuildCanceledError(ActionprepError):
    """The builder canceled this task; its items are not kept."""


def run_task(
    task: ViewTask,
    store_url: str,
    *,
    threads: int = 1,
    builder: int | None = None,
    mark: Mark | None = None,
    claim: Claim | None = None,
    on_cluster: bool = False,
    progress: Callable[[int], None] | None = None,
    item_timeout: float = 0.0,
) -> TaskOutcome:
    """Build all items of one view: one decode pass, or two if a stage needs a finished product of the first.

    Problems of the input become outcomes; everything else is raised.

    Args:
        task: View and items.
        store_url: Store to write to.
        threads: Threads for decoding; 0 leaves the number to FFmpeg.
        builder: Process id of the builder. This worker process ends with it, so that a killed job leaves no writer.
        mark: A file that exists while the task runs, and stays if the process dies. If the process ended because the
            task hung, it contains a traceback.
        claim: The builder's lock. The task ends when another builder has taken it over.
        on_cluster: Whether this is a task of a Dask worker, which ends when the builder cancels it.
        progress: Called with the number of frames after each block. An exception that it raises ends the task.
        item_timeout: Seconds without progress after which this process ends, if there is a mark; 0: never.

    Raises:
        SetupError: If the store no longer exists, or if something is missing on this machine.
        LockLostError: If another builder took over the lock.
        BuildCanceledError: If the builder canceled the task.
    """
    _prepare_worker(builder, threads)
    stop_if_canceled = _watch_for_cancellation() if on_cluster else _never_stop
    try:
        store = open_zarr_store(store_url)
    except UserError as error:
        raise SetupError(
            f"The store {store_url} was removed during the build, or this machine cannot see it: {error}"
        ) from error
    message = None if on_cluster else _hang_message(task, item_timeout)
    with _marked(mark), store.claimed(claim), hang_watch(mark, item_timeout, message=message) as watch:
        note = _never_stop if watch is None else watch.note
        return _run(task, store, threads, _both(stop_if_canceled, _watch_lock(claim)), progress, note)


def _hang_message(task: ViewTask, seconds: float) -> str:
    return (
        f"{task.source.recording}, view {task.source.view}: no progress for {seconds:g} s (item_timeout), so this process "
        "ends. Finished items are complete.\nRun the same command again. It uses worker processes, and quarantines an item "
        "that hangs there too."
    )


def _run(
    task: ViewTask,
    store: Store,
    threads: int,
    stop_if_canceled: Callable[[], None],
    progress: Callable[[int], None] | None,
    note_progress: Callable[[], None],
) -> TaskOutcome:
    from actionprep.pipeline.decode_pass import ItemOutcome, decode_pass, derived_error

    def after_block(num_frames: int) -> None:
        note_progress()
        stop_if_canceled()
        if progress is not None:
            progress(num_frames)

    begun = time.perf_counter()
    outcomes: dict[str, ItemOutcome] = {}
    frames = concealed = missing = 0
    timings = Timings()
    waiting = list(task.items)
    while waiting:
        stop_if_canceled()
        ready = [item for item in waiting if _is_ready(item, waiting)]
        waiting = [item for item in waiting if item not in ready]
        usable = []
        for item in ready:
            stage = find_stage(item.key.product)
            failed = [source.product for source in stage.inputs(item.settings) if _failed(outcomes, source.product)]
            if failed:
                outcomes[item.key.product] = ItemOutcome(item.key, item.fingerprint, derived_error(failed[0]))
            else:
                usable.append(item)
        framed = [item for item in usable if _reads_frames(item)]
        for item in usable:
            if item not in framed:
                began = time.perf_counter()
                outcomes[item.key.product] = _build_view_item(item, task, store, note_progress)
                timings.add(Timings(parts={item.key.product: time.perf_counter() - began}))
        if framed:
            made = decode_pass(
                task.source, framed, store, threads=threads, progress=after_block, on_append=note_progress
            )
            timings.add(made.timings)
            outcomes.update({outcome.key.product: outcome for outcome in made.items})
            frames, concealed, missing = frames + made.num_frames, concealed + made.concealed, missing + made.missing
    timings.total = time.perf_counter() - begun
    return TaskOutcome(tuple(outcomes.values()), frames, concealed, missing, timings.total, timings)


def _is_ready(item: PlannedItem, waiting: list[PlannedItem]) -> bool:
    """Whether all inputs that must be finished before this item are built."""
    pending = {other.key.product: other for other in waiting}
    for source in find_stage(item.key.product).inputs(item.settings):
        other = pending.get(source.product)
        if other is not None:
            both_framed = _reads_frames(item) and _reads_frames(other)
            if not (source.live and both_framed and _is_ready(other, waiting)):
                return False
    return True


def _reads_frames(item: PlannedItem) -> bool:
    return find_stage(item.key.product).reads_frames(item.settings)


def _failed(outcomes: dict[str, ItemOutcome], product: str) -> bool:
    return product in outcomes and outcomes[product].problem is not None


def _build_view_item(item: PlannedItem, task: ViewTask, store: Store, note_progress: Callable[[], None]) -> ItemOutcome:
    from actionprep.pipeline.decode_pass import ItemOutcome

    stage = find_stage(item.key.product)
    assert issubclass(stage, ViewStage)
    key = item.key
    try:
        products = [source.product for source in stage.inputs(item.settings)]
        done = {product: store.item(product, key.recording, key.view) for product in products}
        with store.write(
            key.product, key.recording, key.view, fingerprint=item.fingerprint, provenance=item.provenance
        ) as writer:
            writer.on_append = note_progress
            stage.build(item.settings, task.source, writer, done)
        return ItemOutcome(key, item.fingerprint, nbytes=writer.nbytes)
    except InputError as problem:
        return ItemOutcome(key, item.fingerprint, problem)


@contextmanager
def _marked(mark: Mark | None) -> Iterator[None]:
    if mark is None:
        yield
        return
    if isinstance(mark, Path):
        with explained_disk_errors(mark.parent):
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
    else:
        mark.touch()
    try:
        yield
    finally:
        mark.unlink(missing_ok=True)


def _never_stop() -> None:
    """Check nothing: the task can only be canceled by ending its process."""


def _both(first: Callable[[], None], second: Callable[[], None]) -> Callable[[], None]:
    def run() -> None:
        first()
        second()

    return run


def _watch_lock(claim: Claim | None) -> Callable[[], None]:
    """Return a function that raises LockLostError once another builder holds the lock. It reads the lock once per second."""
    if claim is None:
        return _never_stop
    looked = time.monotonic()

    def stop_if_lost() -> None:
        nonlocal looked
        if time.monotonic() - looked > LOCK_CHECK_S:
            claim.require_held()
            looked = time.monotonic()

    return stop_if_lost


def _watch_for_cancellation() -> Callable[[], None]:
    """Return a function that raises BuildCanceledError once the builder has canceled the Dask task of this thread.

    Dask removes a canceled task from its lists but cannot stop its thread, so the thread must check.
    """
    from distributed import get_worker

    worker = get_worker()
    key = worker.get_current_task()

    def stop_if_canceled() -> None:
        dask_task = worker.state.tasks.get(key)
        if dask_task is None or dask_task.state in ("cancelled", "forgotten", "released"):
            raise BuildCanceledError(f"The builder canceled {key}.")

    return stop_if_canceled


_watched: set[int] = set()


def _prepare_worker(builder: int | None, threads: int) -> None:
    """Limit libraries to one thread per worker, and end this process when the builder ends."""
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
