"""Feed all frame stages of one view from one decode pass, while another thread writes their output."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from actionprep.errors import InputError
from actionprep.pipeline.decoding import CONCEALED, MISSING, Shortfall
from actionprep.pipeline.index import find_stage
from actionprep.pipeline.readers import open_reader
from actionprep.pipeline.stage import FrameBlock, FrameStage, ViewSource
from actionprep.pipeline.timings import COMMIT, CONVERT, DECODE, FRAMES, HASH, WAIT, WRITE, Timings
from actionprep.pipeline.video import FrameReader

if TYPE_CHECKING:
    from actionprep.datasets.store.keys import ItemKey
    from actionprep.datasets.store.writer import ItemWriter
    from actionprep.datasets.store.zarr_store import Store
    from actionprep.pipeline.plan import PlannedItem

# Maximum number of bytes that wait to be written before the stages wait.
_BEHIND_BYTES = 64 << 20

# A block and what is computed from it should fit into the cache, but be large enough to amortize a call.
_BLOCK_BYTES = 16 << 20


@dataclass
class PassReport:
    """Result of one pass over a view.

    Attributes:
        num_frames: Number of pushed frames, including concealed and missing ones.
        concealed: Number of frames with damage that the decoder covered.
        missing: Number of frames that repeat another one.
        shortfall: What the decoder could not decode; None without damage, or if only some frames were read.
        problems: Errors of the stages that stopped because of this input, by product.
        timings: Where the time went; without the total, which belongs to the task.
    """

    num_frames: int = 0
    concealed: int = 0
    missing: int = 0
    shortfall: Shortfall | None = None
    problems: dict[str, InputError] = field(default_factory=dict)
    timings: Timings = field(default_factory=Timings)


def run_pass(
    source: ViewSource,
    stages: Sequence[FrameStage],
    *,
    threads: int = 1,
    block_frames: int | None = None,
    progress: Callable[[int], None] | None = None,
    waited: Callable[[], float] = lambda: 0.0,
) -> PassReport:
    """Decode a view once and push its frames to the stages, live inputs first.

    A live input whose item is already in the store is replayed from there. A stage that raises InputError is skipped from
    then on, as are the stages that read it live. If all stages name the frames that they need, only those are decoded.

    Args:
        source: The view.
        stages: Stages of the view.
        threads: Threads for decoding; 0 leaves the number to FFmpeg.
        block_frames: Frames per block; None chooses a size that fits into the cache.
        progress: Called with the number of frames after each block.
        waited: Returns the seconds that stages have waited for the disk so far.

    Returns:
        Counts of frames, the errors of stages, and where the time went.

    Raises:
        InputError: If the video cannot be read.
    """
    feeds = [_Feed(stage, stages) for stage in _inputs_first(stages)]
    report = PassReport()
    with open_reader(source.path, source.reading, times=source.times, threads=threads) as reader:
        size = block_frames or int(np.clip(_BLOCK_BYTES // (source.height * source.width * 3), 4, 16))

        def not_of_stage() -> float:
            return reader.convert_seconds + waited()

        blocks, for_frames = _blocks(reader, [feed.stage for feed in feeds], size), 0.0
        while True:
            begun = time.perf_counter()
            block = next(blocks, None)
            for_frames += time.perf_counter() - begun
            if block is None:
                break
            _to_all(feeds, report, block, not_of_stage)
            report.num_frames += len(block)
            report.concealed += int((block.status == CONCEALED).sum())
            report.missing += int((block.status == MISSING).sum())
            if progress is not None:
                progress(len(block))
        _to_all(feeds, report, None, not_of_stage)
        report.shortfall = reader.shortfall
        report.timings.parts |= {FRAMES: for_frames, CONVERT: reader.convert_seconds}
        # A reader that decodes in this thread keeps the pass waiting for just as long.
        report.timings.beside[DECODE] = reader.decode_seconds or for_frames
    return report


class LivePass:
    """A pass over a live source: the caller pushes the blocks, and `finish` is never called.

    Args:
        stages: Stages of the view.
    """

    def __init__(self, stages: Sequence[FrameStage]) -> None:
        self._feeds = [_Feed(stage, stages) for stage in _inputs_first(stages)]
        self._report = PassReport()

    def push(self, block: FrameBlock) -> None:
        """Push a block to every stage; raises the InputError of a stage that stops."""
        _to_all(self._feeds, self._report, block, lambda: 0.0)
        for problem in self._report.problems.values():
            raise problem


@dataclass(frozen=True)
class ItemOutcome:
    """Outcome of one item; `problem` is None if the item is in the store."""

    key: ItemKey
    fingerprint: str
    problem: InputError | None = None
    nbytes: int = 0


@dataclass(frozen=True)
class PassOutcome:
    """Result of `decode_pass`: one outcome per item, counts of frames, and where the time went."""

    items: tuple[ItemOutcome, ...]
    num_frames: int
    concealed: int
    missing: int
    timings: Timings = field(default_factory=Timings)


def decode_pass(
    source: ViewSource,
    items: Sequence[PlannedItem],
    store: Store,
    *,
    threads: int = 1,
    progress: Callable[[int], None] | None = None,
    on_append: Callable[[], None] | None = None,
) -> PassOutcome:
    """Build items of one view in one decode pass, and commit those without a problem.

    Args:
        source: The view.
        items: Items to build.
        store: Store to write to.
        threads: Threads for decoding; 0 leaves the number to FFmpeg.
        progress: Called with the number of frames after each block. An exception that it raises ends the pass.
        on_append: Called after each write to an item, from another thread.

    Returns:
        One outcome per item; problems of the input are part of it. Other errors are raised.
    """
    drafts: list[_Draft] = []
    with WriteBehind() as behind:
        try:
            stages: list[FrameStage] = []
            rejected: dict[str, InputError] = {}
            for item in items:
                drafts.append(_Draft(item, source, store, behind))
                drafts[-1].writer.on_append = on_append
                try:
                    _check_inputs(item, rejected)
                    stages.append(drafts[-1].start(made_here={planned.key.product for planned in items}))
                except InputError as problem:
                    rejected[item.key.product] = problem
            try:
                report = (
                    run_pass(source, stages, threads=threads, progress=progress, waited=lambda: behind.waited)
                    if stages
                    else PassReport()
                )
            except InputError as problem:
                report = PassReport(problems={stage.name: problem for stage in stages})
            report.problems.update(rejected)
            behind.wait()
        except BaseException as error:
            behind.abandon()
            # The store turns disk errors into SetupErrors when the drafts end.
            for explained in [draft.end(error) for draft in drafts]:
                if explained is not None and explained is not error:
                    raise explained from error
            raise
        decoded = time.perf_counter()
        problems = [report.problems.get(draft.item.key.product) for draft in drafts]
        if len(drafts) == 1:
            raised = [drafts[0].end(problems[0])]
        else:
            # In parallel, because each waits for the disk.
            with ThreadPoolExecutor(len(drafts)) as pool:
                raised = list(pool.map(_Draft.end, drafts, problems))
    for failure in raised:
        if failure is not None and not isinstance(failure, InputError):
            raise failure
    timings, hashed = report.timings, sum(draft.writer.hash_seconds for draft in drafts)
    timings.parts |= {WAIT: behind.waited, COMMIT: time.perf_counter() - decoded}
    timings.beside |= {HASH: hashed, WRITE: max(0.0, behind.worked - hashed)}
    outcomes = [
        ItemOutcome(draft.item.key, draft.item.fingerprint, problem, draft.writer.nbytes if problem is None else 0)
        for draft, problem in zip(drafts, problems, strict=True)
    ]
    return PassOutcome(tuple(outcomes), report.num_frames, report.concealed, report.missing, timings)


def derived_error(product: str) -> InputError:
    """Return the error of an item with an input that could not be built."""
    return InputError(f"its input '{product}' could not be built", derived=True)


def _check_inputs(item: PlannedItem, rejected: Mapping[str, InputError]) -> None:
    for source in find_stage(item.key.product).inputs(item.settings):
        if source.product in rejected:
            raise derived_error(source.product)


class WriteBehind:
    """A thread that writes what stages append, so that decoding and conversion do not wait for the disk.

    Data is written in the order in which it was appended. An error of the thread is raised by the next call.

    Attributes:
        waited: Seconds that callers have waited for the thread.
        worked: Seconds that the thread has hashed and written.
    """

    def __init__(self) -> None:
        self._waiting: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self._room = threading.Condition()
        self._bytes = 0
        self._error: BaseException | None = None
        self.waited = self.worked = 0.0
        self._thread = threading.Thread(target=self._work, name="write-behind", daemon=True)

    def __enter__(self) -> WriteBehind:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._waiting.put(None)
        self._thread.join()

    def item(self, writer: ItemWriter) -> ItemWriter:
        """Return a writer of the same item that writes in the thread."""
        return cast("ItemWriter", _ItemBehind(writer, self))

    def wait(self) -> None:
        """Wait until everything is written."""
        begun = time.perf_counter()
        self._waiting.join()
        self.waited += time.perf_counter() - begun
        self._raise()

    def abandon(self) -> None:
        """Drop everything that waits, and wait until nothing is being written."""
        self._error = self._error or RuntimeError("writing was abandoned")
        self._waiting.join()

    def later(self, nbytes: int, write: Callable[[], None]) -> None:
        """Queue a write that keeps `nbytes` in memory until it is done."""
        self._raise()
        begun = time.perf_counter()
        with self._room:
            self._room.wait_for(lambda: self._bytes == 0 or self._bytes + nbytes <= _BEHIND_BYTES)
            self._bytes += nbytes
        self.waited += time.perf_counter() - begun

        def work() -> None:
            begun = time.perf_counter()
            try:
                if self._error is None:
                    write()
            finally:
                self.worked += time.perf_counter() - begun
                with self._room:
                    self._bytes -= nbytes
                    self._room.notify()

        self._waiting.put(work)

    def _work(self) -> None:
        while True:
            work = self._waiting.get()
            try:
                if work is None:
                    return
                work()
            except BaseException as error:
                # Raised by the next call in the thread that builds the item.
                self._error = error
            finally:
                self._waiting.task_done()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error


class _ItemBehind:
    """A proxy of an ItemWriter that queues every call."""

    def __init__(self, writer: ItemWriter, behind: WriteBehind) -> None:
        self.attributes = writer.attributes
        self._writer, self._behind = writer, behind

    def create(self, name: str, **facts: Any) -> None:
        self._behind.later(0, lambda: self._writer.create(name, **facts))

    def append(self, name: str, rows: np.ndarray) -> None:
        self._behind.later(rows.nbytes, lambda: self._writer.append(name, rows))

    def write(self, name: str, values: np.ndarray, **facts: Any) -> None:
        values = np.asarray(values)
        self._behind.later(values.nbytes, lambda: self._writer.write(name, values, **facts))


class _Draft:
    """One item that is being built: its stage, and the writer that commits or discards it."""

    def __init__(self, item: PlannedItem, source: ViewSource, store: Store, behind: WriteBehind) -> None:
        key = item.key
        self.item = item
        self._source, self._store, self._behind = source, store, behind
        self._context: AbstractContextManager[ItemWriter] = store.write(
            key.product, key.recording, key.view, fingerprint=item.fingerprint, provenance=item.provenance
        )
        self.writer = self._context.__enter__()

    def start(self, *, made_here: Set[str]) -> FrameStage:
        """Create the stage with its stored inputs. It gets the products of this pass (`made_here`) live."""
        key, settings = self.item.key, self.item.settings
        stage = find_stage(key.product)
        assert issubclass(stage, FrameStage)
        done = {
            source.product: self._store.item(source.product, key.recording, key.view)
            for source in stage.inputs(settings)
            if source.product not in made_here and self._store.has(source.product, key.recording, key.view)
        }
        return stage(settings, self._source, self._behind.item(self.writer), done)

    def end(self, error: BaseException | None = None) -> BaseException | None:
        """Commit the item, or discard it after an error; returns the error of the stage or of the commit, if any."""
        try:
            self._context.__exit__(type(error) if error else None, error, error.__traceback__ if error else None)
        except BaseException as explained:
            return explained
        return error


class _Feed:
    """A stage with its live inputs: other stages of the pass, or replayed items of the store."""

    def __init__(self, stage: FrameStage, stages: Sequence[FrameStage]) -> None:
        self.stage = stage
        self.name = stage.name
        present = {other.name for other in stages}
        inputs = [source.product for source in type(stage).inputs(stage.settings) if source.live]
        self.reads = [product for product in inputs if product in present]
        self._replays = {product: _Replay(product, stage.done) for product in inputs if product not in present}

    def take(self, block: FrameBlock | None, live: Mapping[str, Any]) -> Any:
        """Push a block; None finishes the stage."""
        live = {**live, **{name: replay.next(block) for name, replay in self._replays.items()}}
        return self.stage.finish(live) if block is None else self.stage.push(block, live)


class _Replay:
    """Replay the results of a stage from its stored item, block by block."""

    def __init__(self, product: str, done: Mapping[str, Any]) -> None:
        stage = find_stage(product)
        if product not in done or not issubclass(stage, FrameStage):
            raise ValueError(f"'{product}' is neither made in this pass nor in the store as frames.")
        self._product = product
        self._block: FrameBlock | None = None
        self._ended = False
        self._results = stage.replay(done[product], self._blocks())

    def next(self, block: FrameBlock | None) -> Any:
        self._block = block
        self._ended = block is None
        return next(self._results)

    def _blocks(self) -> Iterator[FrameBlock]:
        while not self._ended:
            block, self._block = self._block, None
            if block is None:
                raise RuntimeError(f"The replay of '{self._product}' consumes more blocks than it yields results.")
            yield block


def _to_all(
    feeds: Sequence[_Feed], report: PassReport, block: FrameBlock | None, not_of_stage: Callable[[], float]
) -> None:
    """Push a block (None at the end) to every stage without a problem, with the results of its live inputs.

    `not_of_stage` returns the seconds of conversion and of waiting so far, which a stage causes and which do not count for
    it.
    """
    returned: dict[str, Any] = {}
    for feed in feeds:
        if feed.name in report.problems:
            continue
        failed = [name for name in feed.reads if name in report.problems]
        if failed:
            report.problems[feed.name] = derived_error(failed[0])
            continue
        begun = time.perf_counter() - not_of_stage()
        try:
            returned[feed.name] = feed.take(block, {name: returned[name] for name in feed.reads})
        except InputError as problem:
            report.problems[feed.name] = problem
        spent = time.perf_counter() - not_of_stage() - begun
        report.timings.parts[feed.name] = report.timings.parts.get(feed.name, 0.0) + spent


def _blocks(reader: FrameReader, stages: Sequence[FrameStage], size: int) -> Iterator[FrameBlock]:
    wanted = [stage.wanted_images() for stage in stages]
    some = [indices for indices in wanted if indices is not None]
    if len(some) == len(wanted):
        return reader.blocks_at(np.unique(np.concatenate(some)).astype(np.int64), size=size)
    return reader.blocks(size=size)


def _inputs_first(stages: Sequence[FrameStage]) -> list[FrameStage]:
    """Sort stages so that each comes after its live inputs."""
    by_name = {stage.name: stage for stage in stages}
    if len(by_name) != len(stages):
        raise ValueError("Expected stages with different names.")
    order: list[FrameStage] = []

    def place(stage: FrameStage, path: tuple[str, ...]) -> None:
        if stage.name in path:
            raise ValueError(f"Circular live inputs of stages: {' → '.join((*path, stage.name))}.")
        if stage in order:
            return
        for source in type(stage).inputs(stage.settings):
            if source.live and source.product in by_name:
                place(by_name[source.product], (*path, stage.name))
        order.append(stage)

    for stage in stages:
        place(stage, ())
    return order
