"""Feed all frame stages of one view from one decode pass, while another thread writes what they make."""

from __future__ import annotations

import queue
import threading
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
from actionprep.pipeline.video import FrameReader

if TYPE_CHECKING:
    from actionprep.datasets.store.writer import ItemWriter
    from actionprep.datasets.store.zarr_store import ItemKey, Store
    from actionprep.pipeline.plan import PlannedItem

# Bytes of arrays that wait to be written, at most, before the stages wait.
_BEHIND_BYTES = 64 << 20

# A block should fit into a processor's cache with what is made of it, and still be worth a call.
_BLOCK_BYTES = 16 << 20


@dataclass
class PassReport:
    """What one pass over a view did.

    num_frames  frames that were pushed; concealed and missing are counted among them
    shortfall   what the decoder could not give, None when all was well or only some frames were read
    problems    stages that gave up on this input, by product; the others went on
    """

    num_frames: int = 0
    concealed: int = 0
    missing: int = 0
    shortfall: Shortfall | None = None
    problems: dict[str, InputError] = field(default_factory=dict)


def run_pass(
    source: ViewSource,
    stages: Sequence[FrameStage],
    *,
    threads: int = 1,
    block_frames: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> PassReport:
    """Decode a view once and push its frames to the stages, those that others read live first.

    A live input whose item is already in the store is replayed from there. A stage that raises InputError is left
    out from then on, with those that read it live. Where all stages name the few frames that they want, only those
    are decoded. progress: called with the number of frames after each block.

    Raises InputError when the video itself cannot be read.
    """
    feeds = [_Feed(stage, stages) for stage in _inputs_first(stages)]
    report = PassReport()
    with open_reader(source.path, source.reading, times=source.times, threads=threads) as reader:
        size = block_frames or int(np.clip(_BLOCK_BYTES // (source.height * source.width * 3), 4, 16))
        for block in _blocks(reader, [feed.stage for feed in feeds], size):
            _to_all(feeds, report, block)
            report.num_frames += len(block)
            report.concealed += int((block.status == CONCEALED).sum())
            report.missing += int((block.status == MISSING).sum())
            if progress is not None:
                progress(len(block))
        _to_all(feeds, report, None)
        report.shortfall = reader.shortfall
    return report


class LivePass:
    """The same for frames that come as they are filmed: blocks are pushed from outside, and there is no end.

    Raises InputError with the reason of a stage that gives up.
    """

    def __init__(self, stages: Sequence[FrameStage]) -> None:
        self._feeds = [_Feed(stage, stages) for stage in _inputs_first(stages)]
        self._report = PassReport()

    def push(self, block: FrameBlock) -> None:
        """Give a block to every stage."""
        _to_all(self._feeds, self._report, block)
        for problem in self._report.problems.values():
            raise problem


@dataclass(frozen=True)
class ItemOutcome:
    """What became of one item; problem is None when it is in the store."""

    key: ItemKey
    fingerprint: str
    problem: InputError | None = None
    nbytes: int = 0


@dataclass(frozen=True)
class PassOutcome:
    """What `decode_pass` made: one outcome an item, and counts of frames."""

    items: tuple[ItemOutcome, ...]
    num_frames: int
    concealed: int
    missing: int


def decode_pass(
    source: ViewSource,
    items: Sequence[PlannedItem],
    store: Store,
    *,
    threads: int = 1,
    progress: Callable[[int], None] | None = None,
) -> PassOutcome:
    """Make these items of one view from one decode pass, and commit those that come out well.

    progress: called with the number of frames after each block; what it raises ends the pass.
    Each item's outcome says what became of it; problems of the machine and faults of the program are raised.
    """
    drafts: list[_Draft] = []
    with WriteBehind() as behind:
        try:
            stages: list[FrameStage] = []
            refused: dict[str, InputError] = {}
            for item in items:
                drafts.append(_Draft(item, source, store, behind))
                try:
                    _refuse_without_inputs(item, refused)
                    stages.append(drafts[-1].start(made_here={one.key.product for one in items}))
                except InputError as problem:
                    refused[item.key.product] = problem
            try:
                report = run_pass(source, stages, threads=threads, progress=progress) if stages else PassReport()
            except InputError as problem:
                report = PassReport(problems={stage.name: problem for stage in stages})
            report.problems.update(refused)
            behind.wait()
        except BaseException as error:
            behind.abandon()
            # The store explains errors of the disk on the way out.
            for explained in [draft.end(error) for draft in drafts]:
                if explained is not None and explained is not error:
                    raise explained from error
            raise
        # Side by side, since each waits for the disk.
        with ThreadPoolExecutor(len(drafts)) as pool:
            problems = [report.problems.get(draft.item.key.product) for draft in drafts]
            raised = list(pool.map(_Draft.end, drafts, problems))
    for failure in raised:
        if failure is not None and not isinstance(failure, InputError):
            raise failure
    outcomes = [
        ItemOutcome(draft.item.key, draft.item.fingerprint, problem, draft.writer.nbytes if problem is None else 0)
        for draft, problem in zip(drafts, problems, strict=True)
    ]
    return PassOutcome(tuple(outcomes), report.num_frames, report.concealed, report.missing)


def derived_error(product: str) -> InputError:
    """Why an item cannot be made whose input could not."""
    return InputError(f"its input '{product}' could not be made", derived=True)


def _refuse_without_inputs(item: PlannedItem, refused: Mapping[str, InputError]) -> None:
    for one in find_stage(item.key.product).inputs(item.settings):
        if one.product in refused:
            raise derived_error(one.product)


class WriteBehind:
    """A thread that writes what stages append, so that converting and decoding need not wait for the disk.

    Everything is written in the order in which it was appended. What goes wrong there is raised by the next call here.
    """

    def __init__(self) -> None:
        self._waiting: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self._room = threading.Condition()
        self._bytes = 0
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="write-behind", daemon=True)

    def __enter__(self) -> WriteBehind:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._waiting.put(None)
        self._thread.join()

    def item(self, writer: ItemWriter) -> ItemWriter:
        """The same item, written by the thread."""
        return cast("ItemWriter", _ItemBehind(writer, self))

    def wait(self) -> None:
        """Return when everything is written."""
        self._waiting.join()
        self._raise()

    def abandon(self) -> None:
        """Return when nothing is being written; what waits is dropped."""
        self._error = self._error or RuntimeError("writing was abandoned")
        self._waiting.join()

    def later(self, nbytes: int, write: Callable[[], None]) -> None:
        """Have something written that keeps so many bytes in memory until then."""
        self._raise()
        with self._room:
            self._room.wait_for(lambda: self._bytes == 0 or self._bytes + nbytes <= _BEHIND_BYTES)
            self._bytes += nbytes

        def work() -> None:
            try:
                if self._error is None:
                    write()
            finally:
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
                # It belongs to the thread that makes the item: the next call there raises it.
                self._error = error
            finally:
                self._waiting.task_done()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error


class _ItemBehind:
    """Stands in for an ItemWriter and hands everything on."""

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
    """One item that is being made: its stage, and the writer that commits or discards it."""

    def __init__(self, item: PlannedItem, source: ViewSource, store: Store, behind: WriteBehind) -> None:
        key = item.key
        self.item = item
        self._source, self._store, self._behind = source, store, behind
        self._context: AbstractContextManager[ItemWriter] = store.write(
            key.product, key.recording, key.view, fingerprint=item.fingerprint, provenance=item.provenance
        )
        self.writer = self._context.__enter__()

    def start(self, *, made_here: Set[str]) -> FrameStage:
        """The stage, with those of its inputs that are committed; made_here: products of this pass, which it gets live."""
        key, settings = self.item.key, self.item.settings
        stage = find_stage(key.product)
        assert issubclass(stage, FrameStage)
        done = {
            one.product: self._store.item(one.product, key.recording, key.view)
            for one in stage.inputs(settings)
            if one.product not in made_here and self._store.has(one.product, key.recording, key.view)
        }
        return stage(settings, self._source, self._behind.item(self.writer), done)

    def end(self, error: BaseException | None = None) -> BaseException | None:
        """Commit the item, or leave nothing of it; returns the error, or the one of committing, as the store explains."""
        try:
            self._context.__exit__(type(error) if error else None, error, error.__traceback__ if error else None)
        except BaseException as explained:
            return explained
        return error


class _Feed:
    """One stage with its live inputs: other stages of the pass, or stored items that are replayed."""

    def __init__(self, stage: FrameStage, stages: Sequence[FrameStage]) -> None:
        self.stage = stage
        self.name = stage.name
        present = {other.name for other in stages}
        inputs = [one.product for one in type(stage).inputs(stage.settings) if one.live]
        self.reads = [product for product in inputs if product in present]
        self._replays = {product: _Replay(product, stage.done) for product in inputs if product not in present}

    def take(self, block: FrameBlock | None, live: Mapping[str, Any]) -> Any:
        """Push a block; None finishes."""
        live = {**live, **{name: replay.next(block) for name, replay in self._replays.items()}}
        return self.stage.finish(live) if block is None else self.stage.push(block, live)


class _Replay:
    """Gives what a stage returned, from its stored item, block for block."""

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
                raise RuntimeError(f"The replay of '{self._product}' asks for more blocks than it gives results.")
            yield block


def _to_all(feeds: Sequence[_Feed], report: PassReport, block: FrameBlock | None) -> None:
    """Push a block, or None for the end, to every stage without a problem, with what its live inputs just returned."""
    returned: dict[str, Any] = {}
    for feed in feeds:
        if feed.name in report.problems:
            continue
        failed = [name for name in feed.reads if name in report.problems]
        if failed:
            report.problems[feed.name] = derived_error(failed[0])
            continue
        try:
            returned[feed.name] = feed.take(block, {name: returned[name] for name in feed.reads})
        except InputError as problem:
            report.problems[feed.name] = problem


def _blocks(reader: FrameReader, stages: Sequence[FrameStage], size: int) -> Iterator[FrameBlock]:
    wanted = [stage.wanted_images() for stage in stages]
    some = [indices for indices in wanted if indices is not None]
    if len(some) == len(wanted):
        return reader.blocks_at(np.unique(np.concatenate(some)).astype(np.int64), size=size)
    return reader.blocks(size=size)


def _inputs_first(stages: Sequence[FrameStage]) -> list[FrameStage]:
    """Stages in an order in which each comes after those that it reads live."""
    by_name = {stage.name: stage for stage in stages}
    if len(by_name) != len(stages):
        raise ValueError("A pass takes one stage of each name.")
    order: list[FrameStage] = []

    def place(stage: FrameStage, path: tuple[str, ...]) -> None:
        if stage.name in path:
            raise ValueError(f"Stages read each other in a circle: {' → '.join((*path, stage.name))}.")
        if stage in order:
            return
        for one in type(stage).inputs(stage.settings):
            if one.live and one.product in by_name:
                place(by_name[one.product], (*path, stage.name))
        order.append(stage)

    for stage in stages:
        place(stage, ())
    return order
