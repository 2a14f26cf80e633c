"""Tests of assigning decoded frames to slots, with lost frames."""

from __future__ import annotations

from fractions import Fraction
from types import SimpleNamespace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from actionprep.pipeline.packets import (
    LOOKAHEAD,
    PacketIndex,
    Sequencer,
    _is_invisible_vp8,
    _repaired_ticks,
    read_packets,
)

NONE = np.iinfo(np.int64).min


def index_of(order: list[int], *, ordered: bool, presumed: bool = False) -> PacketIndex:
    """Return packets in which packet n is displayed at position order[n]."""
    count = len(order)
    zeros = np.zeros(count, np.int64)
    return PacketIndex(
        pts=np.array(order, np.int64),
        dts=np.arange(count),
        pos=zeros,
        size=zeros + 1,
        is_key=np.arange(count) == 0,
        is_corrupt=np.zeros(count, bool),
        shown=np.ones(count, bool),
        slot=np.array(order, np.int64) if ordered else np.arange(count),
        ticks=np.arange(count, dtype=float),
        ordered=ordered,
        presumed=presumed,
        time_base=Fraction(1, 25),
        last_duration=1.0,
        warnings=(),
    )


@st.composite
def groups(draw: st.DrawFn) -> list[int]:
    """Draw an order as encoders make it: each anchor comes before the frames that are displayed earlier."""
    order = [0]
    while len(order) < draw(st.integers(5, 60)):
        before = draw(st.integers(0, 4))
        first = len(order)
        order += [first + before, *range(first, first + before)]
    return order


def run(index: PacketIndex, order: list[int], lost: set[int]) -> tuple[list[tuple[int, int]], Sequencer]:
    """Decode all packets that are not lost, in the order of display."""
    sequence = Sequencer(index)
    came = []
    for number in sorted(range(len(order)), key=lambda n: order[n]):
        if number not in lost:
            came += [(slot, of) for slot, of, _ in sequence.push(number, object())]
    came += [(slot, of) for slot, of, _ in sequence.flush()]
    return came, sequence


@settings(deadline=None)
@given(order=groups(), lost=st.sets(st.integers(0, 60), max_size=8))
def test_known_times_put_every_picture_into_its_slot(order: list[int], lost: set[int]) -> None:
    came, sequence = run(index_of(order, ordered=True), order, lost)
    expected = sorted((order[number], number) for number in range(len(order)) if number not in lost)
    assert came == expected
    assert sequence.surplus == 0


@settings(deadline=None)
@given(order=groups())
def test_unknown_times_follow_the_decoder(order: list[int]) -> None:
    for index in (index_of(order, ordered=False), index_of(order, ordered=True, presumed=True)):
        came, sequence = run(index, order, set())
        assert came == sorted((order[number], number) for number in range(len(order)))
        assert sequence.surplus == 0


@settings(deadline=None)
@given(order=groups(), lost=st.sets(st.integers(0, 60), max_size=3))
def test_a_loss_moves_other_frames_by_at_most_the_reordering(order: list[int], lost: set[int]) -> None:
    came, _ = run(index_of(order, ordered=False), order, lost)
    slots = [slot for slot, _ in came]
    assert slots == sorted(set(slots))
    assert all(0 <= slot < len(order) for slot in slots)
    for slot, number in came:
        near = [abs(number - other) for other in lost]
        assert slot == order[number] or min(near) <= 5


def test_without_reordering_a_loss_leaves_exactly_its_slot_empty() -> None:
    order = list(range(60))
    came, _ = run(index_of(order, ordered=False), order, {0, 17, 18, 59})
    assert came == [(n, n) for n in order if n not in {0, 17, 18, 59}]


def test_a_long_loss_is_noticed_within_the_lookahead() -> None:
    order = list(range(200))
    sequence = Sequencer(index_of(order, ordered=True))
    held = 0
    for number in range(100, 100 + LOOKAHEAD + 1):
        held += 1 - len(list(sequence.push(number, object())))
    assert held <= LOOKAHEAD


def test_a_second_picture_of_one_packet_is_surplus() -> None:
    sequence = Sequencer(index_of([0, 1, 2], ordered=True))
    assert [slot for slot, _, _ in sequence.push(0, "a")] == [0]
    assert list(sequence.push(0, "b")) == []
    assert sequence.surplus == 1


def test_storage_times_that_increase_are_the_times_of_the_slots() -> None:
    ticks, warnings = _repaired_ticks(np.array([1, 3, 2, 5]), np.array([0, 1, 2, 3]), 1.0, Fraction(1, 25))
    assert (ticks.tolist(), warnings) == ([0, 1, 2, 3], [])


def test_packets_without_a_time_are_placed_between_their_neighbors() -> None:
    pts = np.array([NONE, 10, NONE, NONE, 40, NONE])
    ticks, warnings = _repaired_ticks(pts, np.full(6, NONE), 10.0, Fraction(1, 100))
    assert ticks.tolist() == [0, 10, 20, 30, 40, 50]
    assert warnings == ["4 packets have no time: they are placed evenly between their neighbors"]


def test_equal_times_are_pulled_apart() -> None:
    ticks, warnings = _repaired_ticks(np.array([0, 10, 10, 20, 20]), np.full(5, NONE), 10.0, Fraction(1, 100))
    assert ticks.tolist() == [0, 10, 15, 20, 25]
    assert warnings == ["2 frames have the time of another frame: they are placed evenly up to the next time"]


def test_the_frame_tag_of_vp8_tells_whether_it_is_shown() -> None:
    # RFC 6386, section 9.1: bit 0 not a keyframe, bits 1 to 3 version, bit 4 show_frame.
    assert not _is_invisible_vp8(bytes([0b0001_0001, 0, 0]))
    assert _is_invisible_vp8(bytes([0b0000_0001, 0, 0]))


def container_of(format_name: str, pts: list[int], *, b_frames: bool) -> tuple[SimpleNamespace, SimpleNamespace]:
    """A container of three packets in memory, with the attributes that `read_packets` uses."""
    packets = [
        SimpleNamespace(
            pts=time, dts=at, pos=100 * at, size=9, is_keyframe=at == 0, is_corrupt=False, is_discard=False, duration=1
        )
        for at, time in enumerate(pts)
    ]
    context = SimpleNamespace(codec=SimpleNamespace(canonical_name="mpeg4"), has_b_frames=b_frames)
    stream = SimpleNamespace(codec_context=context, average_rate=Fraction(25), time_base=Fraction(1, 25))
    return SimpleNamespace(format=SimpleNamespace(name=format_name), demux=lambda _: iter(packets)), stream


def test_times_order_the_frames_of_a_container_but_not_those_of_an_avi() -> None:
    """FFmpeg derives presentation times of AVI files; those of a damaged file are useless."""
    cases = {
        ("mov", True): ([0, 2, 1], True, False),
        ("mov", False): ([0, 2, 1], True, False),
        ("avi", True): ([0, 1, 2], False, False),
        ("avi", False): ([0, 1, 2], True, True),
    }
    for (name, b_frames), (slots, ordered, presumed) in cases.items():
        container, stream = container_of(name, [0, 2, 1], b_frames=b_frames)
        index = read_packets(container, stream, see=lambda _: None)
        assert (index.slot.tolist(), index.ordered, index.presumed) == (slots, ordered, presumed)
        assert index.times.tolist() == [0.0, 0.04, 0.08]
