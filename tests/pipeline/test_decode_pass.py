"""Tests of passes: several stages per pass, replay of stored items, and isolated failures."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from numbered_videos import read_numbers, write_numbered

from actionprep.datasets.store.keys import ItemKey
from actionprep.datasets.store.reader import ItemReader
from actionprep.datasets.store.zarr_store import Store
from actionprep.errors import InputError, SetupError
from actionprep.pipeline.decode_pass import WriteBehind, decode_pass, run_pass
from actionprep.pipeline.index import STAGES
from actionprep.pipeline.plan import PlannedItem
from actionprep.pipeline.stage import FrameBlock, FrameStage, Input, ViewSource, stage
from actionprep.pipeline.video import VideoReader
from actionprep.settings import StageSettings

COUNT = 30


class NoSettings(StageSettings):
    """None."""


class Recorder(FrameStage):
    """Record frame indices and the results of live inputs."""

    reads: ClassVar[tuple[Input, ...]] = ()
    fails_at: ClassVar[int | None] = None

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.live: list[dict[str, Any]] = []
        self.item.create("number", shape=(), dtype="int64", axes=("time",), chunk=4)

    @classmethod
    def inputs(cls, settings: Any) -> tuple[Input, ...]:
        return cls.reads

    def push(self, block: FrameBlock, live: Mapping[str, Any]) -> Any:
        self.live.append(dict(live))
        if self.fails_at is not None and self.fails_at in block.index:
            raise InputError("the frame is upside down", frame=self.fails_at)
        numbers = np.array(read_numbers(block.rgb))
        self.item.append("number", numbers)
        return f"{self.name} {numbers[0]}"

    def finish(self, live: Mapping[str, Any]) -> Any:
        self.live.append(dict(live))
        return f"{self.name} end"

    @classmethod
    def replay(cls, reader: ItemReader, blocks: Iterator[FrameBlock]) -> Iterator[Any]:
        numbers = reader["number"][:]
        for block in blocks:
            yield f"{cls.name} {numbers[block.index[0]]}"
        yield f"{cls.name} end"


@pytest.fixture
def kinds(monkeypatch: pytest.MonkeyPatch) -> dict[str, type[Recorder]]:
    """Register stages: second reads first, third reads second, and first and alone read no other stage."""
    made: dict[str, type[Recorder]] = {}
    for name, reads in (("first", ()), ("second", ("first",)), ("third", ("second",)), ("alone", ())):
        kind = type(name.title(), (Recorder,), {"reads": tuple(Input(product) for product in reads)})
        made[name] = stage(name, version=1, settings=NoSettings)(kind)
        monkeypatch.setitem(STAGES, name, made[name])
    return made


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_numbered(tmp_path_factory.mktemp("v") / "v.avi", "mjpeg", COUNT, pixel_format="yuvj420p")


@pytest.fixture
def source(video: Path) -> ViewSource:
    return ViewSource("r", "0", str(video), 64, 64, 25.0, np.arange(COUNT) / 25)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", create=True)


def planned(*names: str) -> list[PlannedItem]:
    return [
        PlannedItem(ItemKey(name, "r", "0"), "build", "new", f"fingerprint of {name}", NoSettings(), {})
        for name in names
    ]


def numbers_in(store: Store, product: str) -> list[int]:
    numbers: list[int] = store.item(product, "r", "0")["number"][:].tolist()
    return numbers


def test_all_items_of_a_view_come_from_one_decoding(
    store: Store, source: ViewSource, kinds: dict[str, type[Recorder]], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[VideoReader] = []
    blocks = VideoReader.blocks
    monkeypatch.setattr(VideoReader, "blocks", lambda self, **more: opened.append(self) or blocks(self, **more))
    outcome = decode_pass(source, planned("third", "first", "alone", "second"), store)
    assert len(opened) == 1
    assert [item.problem for item in outcome.items] == [None] * 4
    assert (outcome.num_frames, outcome.concealed, outcome.missing) == (COUNT, 0, 0)
    for name in kinds:
        assert numbers_in(store, name) == list(range(COUNT))
        assert store.fingerprint(ItemKey(name, "r", "0")) == f"fingerprint of {name}"
    assert all(item.nbytes == COUNT * 8 for item in outcome.items)


def run(store: Store, source: ViewSource, *stages: type[Recorder], done: dict[str, ItemReader] | None = None):
    """Run a pass without a store, and return the stages and the report."""
    made: list[Recorder] = []
    with WriteBehind() as behind, store.write("x", "r", fingerprint="f", provenance={}) as item:
        for kind in stages:
            made.append(kind(NoSettings(), source, behind.item(item), done or {}))
        report = run_pass(source, made, block_frames=10)
        behind.wait()
    return made, report


def test_run_pass_passes_results_of_live_inputs_per_block(
    store: Store, source: ViewSource, kinds: dict[str, type[Recorder]]
) -> None:
    (third, second, first), report = run(store, source, kinds["third"], kinds["second"], kinds["first"])
    assert first.live == [{}] * 4
    assert second.live == [{"first": f"first {at}"} for at in (0, 10, 20)] + [{"first": "first end"}]
    assert third.live == [{"second": f"second {at}"} for at in (0, 10, 20)] + [{"second": "second end"}]
    assert (report.num_frames, report.problems) == (COUNT, {})


def test_run_pass_replays_a_stored_input(store: Store, source: ViewSource, kinds: dict[str, type[Recorder]]) -> None:
    decode_pass(source, planned("first"), store)
    (second,), _ = run(store, source, kinds["second"], done={"first": store.item("first", "r", "0")})
    (_, live), _ = run(store, source, kinds["first"], kinds["second"])
    assert second.live == live.live


def test_a_replay_that_reads_ahead_is_a_fault(
    store: Store, source: ViewSource, kinds: dict[str, type[Recorder]], monkeypatch: pytest.MonkeyPatch
) -> None:
    decode_pass(source, planned("first"), store)

    def greedy(cls: type, reader: ItemReader, blocks: Iterator[FrameBlock]) -> Iterator[Any]:
        yield list(blocks)

    monkeypatch.setattr(kinds["first"], "replay", classmethod(greedy))
    with pytest.raises(RuntimeError, match="The replay of 'first' consumes more blocks than it yields results"):
        run(store, source, kinds["second"], done={"first": store.item("first", "r", "0")})


def test_an_input_that_is_nowhere_is_a_fault(
    store: Store, source: ViewSource, kinds: dict[str, type[Recorder]]
) -> None:
    with pytest.raises(ValueError, match="'first' is neither made in this pass nor in the store as frames"):
        run(store, source, kinds["second"])


def test_stages_in_a_circle_are_a_fault(store: Store, source: ViewSource, kinds: dict[str, type[Recorder]]) -> None:
    kinds["first"].reads = (Input("third"),)
    with pytest.raises(ValueError, match="first → third → second → first"):
        run(store, source, kinds["first"], kinds["second"], kinds["third"])


def test_a_stage_that_fails_takes_along_only_those_that_read_it(
    store: Store, source: ViewSource, kinds: dict[str, type[Recorder]]
) -> None:
    kinds["second"].fails_at = 17
    outcome = decode_pass(source, planned("first", "second", "third", "alone"), store)
    problems = {item.key.product: item.problem for item in outcome.items}
    assert problems["first"] is problems["alone"] is None
    assert problems["second"].reason == "the frame is upside down"
    assert problems["third"].reason == "its input 'second' could not be built"
    assert store.products() == ["alone", "first"]
    assert numbers_in(store, "alone") == list(range(COUNT))
    assert list((store.path / ".partial").iterdir()) == []


def test_decode_pass_fails_all_items_of_an_unreadable_video(
    store: Store, kinds: dict[str, type[Recorder]], tmp_path: Path
) -> None:
    (tmp_path / "text.mp4").write_text("not a video at all, but words\n" * 9)
    source = ViewSource("r", "0", str(tmp_path / "text.mp4"), 64, 64, 25.0, np.arange(COUNT) / 25)
    outcome = decode_pass(source, planned("first", "alone"), store)
    assert {item.problem.reason for item in outcome.items} == {f"{tmp_path / 'text.mp4'}: contains text, not video."}
    assert outcome.num_frames == 0
    assert store.items() == []


def test_a_fault_of_a_stage_is_raised_and_leaves_nothing(
    store: Store, source: ViewSource, kinds: dict[str, type[Recorder]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a fault of the program")

    monkeypatch.setattr(kinds["alone"], "push", broken)
    with pytest.raises(ZeroDivisionError, match="a fault of the program"):
        decode_pass(source, planned("first", "alone"), store)
    assert store.items() == []
    assert list((store.path / ".partial").iterdir()) == []
    assert not [thread for thread in threading.enumerate() if thread.name in ("write-behind", "decode-ahead")]


def test_a_full_disk_is_a_problem_of_the_machine(
    store: Store, source: ViewSource, kinds: dict[str, type[Recorder]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from actionprep.datasets.store.writer import ItemWriter

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ItemWriter, "append", full)
    with pytest.raises(SetupError, match="No space left on the disk"):
        decode_pass(source, planned("first", "alone"), store)
    assert store.items() == []


def test_ctrl_c_leaves_nothing_half_done(
    store: Store, source: ViewSource, kinds: dict[str, type[Recorder]], monkeypatch: pytest.MonkeyPatch
) -> None:
    push = kinds["alone"].push

    def interrupted(self: Recorder, block: FrameBlock, live: Mapping[str, Any]) -> Any:
        if block.index[0] > 0:
            raise KeyboardInterrupt
        return push(self, block, live)

    monkeypatch.setattr(kinds["alone"], "push", interrupted)
    monkeypatch.setattr("actionprep.pipeline.decode_pass._BLOCK_BYTES", 10 * 64 * 64 * 3)
    with pytest.raises(KeyboardInterrupt):
        decode_pass(source, planned("first", "alone"), store)
    assert store.items() == []


def test_missing_frames_are_counted(
    store: Store, kinds: dict[str, type[Recorder]], video: Path, tmp_path: Path
) -> None:
    import av

    data = bytearray(video.read_bytes())
    with av.open(str(video)) as container:
        for packet in list(container.demux(video=0))[5:8]:
            data[packet.pos : packet.pos + packet.size] = bytes(packet.size)
    (tmp_path / "bad.avi").write_bytes(data)
    source = ViewSource("r", "0", str(tmp_path / "bad.avi"), 64, 64, 25.0, np.arange(COUNT) / 25)
    outcome = decode_pass(source, planned("alone"), store)
    assert (outcome.num_frames, outcome.missing) == (COUNT, 3)
    assert numbers_in(store, "alone")[4:9] == [4, 4, 4, 4, 8]


def test_progress_is_told_block_by_block(store: Store, source: ViewSource, kinds: dict[str, type[Recorder]]) -> None:
    frame_counts: list[int] = []
    with store.write("x", "r", fingerprint="f", provenance={}) as item:
        run_pass(source, [kinds["alone"](NoSettings(), source, item, {})], block_frames=8, progress=frame_counts.append)
    assert frame_counts == [8, 8, 8, 6]


class Slow:
    """An item that can delay writing."""

    def __init__(self) -> None:
        self.attributes: dict[str, Any] = {}
        self.go = threading.Event()
        self.written: list[int] = []

    def append(self, name: str, rows: np.ndarray) -> None:
        self.go.wait(5)
        self.written.append(int(rows[0]))


def test_what_waits_to_be_written_is_bounded_and_keeps_its_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actionprep.pipeline.decode_pass._BEHIND_BYTES", 3 * 8)
    slow = Slow()
    with WriteBehind() as behind:
        item = behind.item(slow)
        appended: list[int] = []

        def append() -> None:
            for number in range(9):
                item.append("n", np.array([number]))
                appended.append(number)

        thread = threading.Thread(target=append)
        thread.start()
        thread.join(0.3)
        assert len(appended) == 3
        slow.go.set()
        thread.join(5)
        behind.wait()
    assert slow.written == list(range(9))


def test_an_error_of_writing_is_raised_where_the_item_is_made() -> None:
    class Failing:
        attributes: ClassVar[dict[str, Any]] = {}

        def append(self, name: str, rows: np.ndarray) -> None:
            raise OSError("the disk is gone")

    with WriteBehind() as behind:
        item = behind.item(Failing())
        item.append("n", np.zeros(1))
        with pytest.raises(OSError, match="the disk is gone"):
            behind.wait()
        with pytest.raises(OSError, match="the disk is gone"):
            item.append("n", np.zeros(1))
