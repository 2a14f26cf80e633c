"""One decode pass over one view that feeds all frame stages wanted for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from actionprep.errors import InputProblem
from actionprep.pipeline.stage import FrameBlock, FrameStage, ViewSource, find_stage

if TYPE_CHECKING:
    from actionprep.datasets.item_writer import ItemWriter
    from actionprep.datasets.store import ItemKey, Store
    from actionprep.pipeline.plan import PlannedItem

# Frames of a block: enough to spread each call's cost, few enough that several blocks of 1080p fit in memory.
BLOCK_BYTES = 48 << 20
MAX_BLOCK_FRAMES = 32


@dataclass(frozen=True)
class ItemOutcome:
    """What became of one item; problem is None when it is in the store."""

    key: ItemKey
    fingerprint: str
    problem: InputProblem | None = None
    nbytes: int = 0


@dataclass(frozen=True)
class PassOutcome:
    """What became of the items of one pass, and how the decoding went."""

    items: tuple[ItemOutcome, ...]
    num_frames: int
    concealed: int
    missing: int


def decode_pass(source: ViewSource, items: Sequence[PlannedItem], store: Store, *, threads: int = 1) -> PassOutcome:
    """Decode a view once and make these items, which stand in dependency order.

    A stage that meets a problem of its input fails with those that read it; the others go on. A problem of the video
    fails them all.
    """
    from actionprep.pipeline.video import VideoReader

    running: dict[str, _Running] = {}
    outcomes: dict[str, ItemOutcome] = {}
    num_frames = concealed = missing = 0
    with ExitStack() as everything:
        try:
            reader = everything.enter_context(VideoReader(source.path, times=source.times, threads=threads))
        except InputProblem as problem:
            return PassOutcome(tuple(ItemOutcome(one.key, one.fingerprint, problem) for one in items), 0, 0, 0)
        for item in items:
            failed = _failed_input(item, outcomes)
            if failed is not None:
                outcomes[item.key.product] = ItemOutcome(item.key, item.fingerprint, failed)
                continue
            one = _Running(item, source, store, running)
            # Whatever ends this pass throws away what is not committed.
            everything.push(one.abandon)
            try:
                one.start()
            except InputProblem as problem:
                outcomes[item.key.product] = one.fail(problem)
            else:
                running[item.key.product] = one
        try:
            for block in reader.blocks(size=block_frames(source)):
                num_frames += len(block)
                concealed += int(np.count_nonzero(block.status == 1))
                missing += int(np.count_nonzero(block.status == 2))
                _step(running, outcomes, block)
                if not running:
                    break
            _step(running, outcomes, None)
        except InputProblem as problem:
            for one in running.values():
                outcomes[one.item.key.product] = one.fail(problem)
            running.clear()
        for product, one in running.items():
            outcomes[product] = one.commit()
    return PassOutcome(tuple(outcomes.values()), num_frames, concealed, missing)


def block_frames(source: ViewSource) -> int:
    """Frames of a block for pictures of this size."""
    return int(np.clip(BLOCK_BYTES // max(1, source.height * source.width * 3), 1, MAX_BLOCK_FRAMES))


def _step(running: dict[str, _Running], outcomes: dict[str, ItemOutcome], block: FrameBlock | None) -> None:
    """Feed one block, or the end (None), to every stage in order; stages that fail leave."""
    made: dict[str, Any] = {}
    for product, one in list(running.items()):
        failed = _failed_input(one.item, outcomes)
        if failed is not None:
            outcomes[product] = running.pop(product).fail(failed)
            continue
        try:
            made[product] = one.step(block, made)
        except InputProblem as problem:
            outcomes[product] = running.pop(product).fail(problem)


def _failed_input(item: PlannedItem, outcomes: Mapping[str, ItemOutcome]) -> InputProblem | None:
    for one in find_stage(item.key.product).inputs(item.settings):
        if one.product in outcomes and outcomes[one.product].problem is not None:
            return InputProblem(f"its input '{one.product}' could not be made")
    return None


class _Running:
    """A stage at work on its item, with where its inputs come from."""

    def __init__(self, item: PlannedItem, source: ViewSource, store: Store, others: Mapping[str, _Running]) -> None:
        self.item = item
        stage = find_stage(item.key.product)
        assert issubclass(stage, FrameStage)
        self._source, self._store, self._stage_class = source, store, stage
        self._stack = ExitStack()
        inputs = stage.inputs(item.settings)
        self.live = [one.product for one in inputs if one.product in others]
        self._done = {
            one.product: store.item(one.product, source.recording, source.view)
            for one in inputs
            if one.product not in others
        }
        self._replays = {
            one.product: _Replay(one.product, self._done[one.product])
            for one in inputs
            if one.live and one.product in self._done
        }
        self._writer: ItemWriter
        self._stage: FrameStage

    def start(self) -> None:
        key = self.item.key
        self._writer = self._stack.enter_context(
            self._store.write(
                key.product,
                key.recording,
                key.view,
                fingerprint=self.item.fingerprint,
                provenance=self.item.provenance,
            )
        )
        self._stage = self._stage_class(self.item.settings, self._source, self._writer, self._done)

    def abandon(self, *error: Any) -> None:
        if error[0] is not None:
            self._stack.__exit__(*error)

    def step(self, block: FrameBlock | None, made: Mapping[str, Any]) -> Any:
        live = {name: made[name] for name in self.live}
        live.update({name: replay.step(block) for name, replay in self._replays.items()})
        return self._stage.finish(live) if block is None else self._stage.push(block, live)

    def commit(self) -> ItemOutcome:
        self._stack.close()
        return ItemOutcome(self.item.key, self.item.fingerprint, nbytes=self._writer.nbytes)

    def fail(self, problem: InputProblem) -> ItemOutcome:
        with suppress(InputProblem):
            self._stack.pop_all().__exit__(type(problem), problem, problem.__traceback__)
        return ItemOutcome(self.item.key, self.item.fingerprint, problem)


class _Replay:
    """Gives block by block what a finished stage returned when it was made."""

    def __init__(self, product: str, reader: Any) -> None:
        stage = find_stage(product)
        assert issubclass(stage, FrameStage)
        self._block: FrameBlock | None = None
        self._outputs = stage.replay(reader, self._blocks())

    def _blocks(self) -> Iterator[FrameBlock]:
        while self._block is not None:
            yield self._block

    def step(self, block: FrameBlock | None) -> Any:
        self._block = block
        return next(self._outputs)
