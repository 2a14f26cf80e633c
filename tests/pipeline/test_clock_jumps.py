"""Tests of clock jumps in arrays, in files joined byte by byte, and in recordings of cameras that set their clock."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numbered_videos import B_FRAMES, read_numbers, write_numbered

from actionprep.pipeline.clock_jumps import UNKNOWN, join_parts
from actionprep.pipeline.decoding import JOINED
from actionprep.pipeline.probe import probe
from actionprep.pipeline.video import VideoReader

MS = Fraction(1, 1000)
TS = Fraction(1, 90000)


def stored(count: int, period: int, start: int, *, b_frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Return times of one encoder run: decode times ascend, and anchors come before frames displayed earlier."""
    order = [0]
    while len(order) < count:
        first, before = len(order), min(b_frames, count - len(order) - 1)
        order += [first + before, *range(first, first + before)]
    return start + period * (np.array(order) + 1), start + period * np.arange(count)


def keys(pts: np.ndarray, dts: np.ndarray) -> np.ndarray:
    """Return the keyframes: the first packet, and each one displayed before packets that are stored earlier."""
    return np.r_[True, (np.diff(dts) < 0) | (np.diff(pts) > 10**7)]


def joined_times(pts: np.ndarray, dts: np.ndarray, **options: object) -> tuple[list[int], list[tuple[int, int, str]]]:
    result = join_parts(pts, dts, np.zeros(len(pts)), keys(pts, dts), **options)  # type: ignore[arg-type]
    return sorted(result.pts.tolist()), [(jump.packet, jump.jump, jump.kind) for jump in result.jumps]


@st.composite
def parts(draw: st.DrawFn) -> list[tuple[int, int, int]]:
    """Return frames, start and B-frames of parts. Each part begins before the previous one ends, or long after it."""
    drawn = [(draw(st.integers(3, 40)), draw(st.integers(0, 10**6)), draw(st.integers(0, 3)))]
    for _ in range(draw(st.integers(1, 4))):
        count, start, _ = drawn[-1]
        end = start + 40 * count
        jump = draw(st.one_of(st.integers(-end, -41), st.integers(20_000, 10**9)))
        drawn.append((draw(st.integers(3, 40)), end + jump, draw(st.integers(0, 3))))
    return drawn


@settings(deadline=None)
@given(drawn=parts())
def test_join_parts_continues_by_one_period(drawn: list[tuple[int, int, int]]) -> None:
    made = [stored(count, 40, start, b_frames=b_frames) for count, start, b_frames in drawn]
    all_pts, all_dts = (np.concatenate(times) for times in zip(*made, strict=True))
    result = join_parts(all_pts, all_dts, np.zeros(len(all_pts)), keys(all_pts, all_dts), time_base=MS)
    ends = np.cumsum([0, *(count for count, _, _ in drawn)])
    for (pts, _), first, last in zip(made, ends[:-1], ends[1:], strict=True):
        assert (np.argsort(result.pts[first:last]) == np.argsort(pts)).all()
        assert sorted((result.pts[first:last] - result.pts.min()) // 40) == list(range(first, last))
    assert [jump.kind for jump in result.jumps] == ["joined"] * (len(drawn) - 1)


def test_join_parts_leaves_a_regular_stream_alone() -> None:
    pts, dts = stored(100, 40, 7000, b_frames=3)
    result = join_parts(pts, dts, np.zeros(100), keys(pts, dts), time_base=MS)
    assert (result.pts is pts, result.dts is dts, result.jumps) == (True, True, ())


@pytest.mark.parametrize("gap", [9_900, 10_001])
def test_join_parts_gap_must_exceed_10_seconds(gap: int) -> None:
    pts = np.r_[0:400:40, 360 + gap : 760 + gap : 40]
    times, jumps = joined_times(pts, pts, time_base=MS)
    if gap < 10_000:
        assert (times, jumps) == (pts.tolist(), [])
    else:
        assert (times, jumps) == (list(range(0, 800, 40)), [(10, gap - 40, "joined")])


def test_join_parts_keeps_slow_recordings() -> None:
    pts = np.cumsum([0, 15_000, 15_000, 900_000, 15_000, 15_000, 15_000])
    assert joined_times(pts, pts, time_base=MS) == (pts.tolist(), [])


def test_join_parts_keeps_a_still_of_stated_duration() -> None:
    pts = np.r_[0:400:40, 60_000:60_400:40]
    duration = np.full(20, 40)
    duration[9] = 60_000 - 360
    result = join_parts(pts, pts, duration, keys(pts, pts), time_base=MS)
    assert result.pts.tolist() == pts.tolist()
    assert [(jump.packet, jump.kind) for jump in result.jumps] == [(10, "still")]


def test_join_parts_joins_a_stated_duration_of_years() -> None:
    pts = np.r_[0:120:40, 1_700_000_000_000:1_700_000_000_400:40]
    duration = np.full(13, 40)
    duration[2] = pts[3] - pts[2]
    result = join_parts(pts, pts, duration, keys(pts, pts), time_base=MS)
    assert result.pts.tolist() == list(range(0, 520, 40))


def test_join_parts_continues_an_overflowing_counter() -> None:
    pts, dts = stored(60, 3600, 2**33 - 20 * 3600, b_frames=3)
    times, jumps = joined_times(pts % 2**33, dts % 2**33, time_base=TS, wrap_bits=33)
    assert (times, jumps) == (sorted(pts.tolist()), [])


def test_join_parts_reports_a_clock_set_back_as_set_back() -> None:
    first = np.arange(50) * 3600 + 9_000_000
    later = np.arange(50) * 3600 + 45_000 + 2**33  # FFmpeg takes the lower times for an overflow
    pts = np.r_[first, later]
    times, jumps = joined_times(pts, pts, time_base=TS, wrap_bits=33)
    assert times == (9_000_000 + np.arange(100) * 3600).tolist()
    assert jumps == [(50, 45_000 - (9_000_000 + 50 * 3600), "joined")]


def test_join_parts_puts_a_stray_time_stamp_back() -> None:
    pts = np.arange(50) * 40
    pts[25] += 37_600_000
    times, jumps = joined_times(pts, pts, time_base=MS)
    assert times == list(range(0, 2000, 40))
    assert [packet for packet, _, _ in jumps] == [25, 26]


def test_join_parts_without_decode_times_finds_falls() -> None:
    entry, _ = stored(40, 40, 0, b_frames=2)
    pts = np.r_[entry, entry]
    derived = np.r_[np.arange(40), np.arange(40)] * 40
    times, jumps = joined_times(pts, derived, time_base=MS, dts_stored=False)
    assert times == (40 + np.arange(80) * 40).tolist()
    assert jumps == [(40, -1600, "joined")]


def test_join_parts_reports_falling_decode_times_alone() -> None:
    pts = np.arange(10) * 40
    dts = np.r_[0:200:40, 140:340:40]
    times, jumps = joined_times(pts, dts, time_base=MS)
    assert (times, jumps) == (pts.tolist(), [(5, 0, "decode")])


def test_join_parts_keeps_the_order_of_unsteady_decode_times() -> None:
    pts, dts = stored(60, 40, 0, b_frames=3)
    dts[np.array([13, 14, 30])] -= 100
    result = join_parts(pts, dts, np.zeros(60), np.arange(60) == 0, time_base=MS)
    assert result.pts.tolist() == pts.tolist()
    assert [(jump.packet, jump.kind) for jump in result.jumps] == [(13, "decode"), (30, "decode")]


def test_join_parts_without_decode_times_finds_short_overlaps_at_keyframes() -> None:
    pts = np.r_[0:400:40, 300:700:40]
    _, jumps = joined_times(pts, np.arange(20) * 40, time_base=MS, dts_stored=False)
    assert jumps == []  # B-frames may explain it
    result = join_parts(pts, np.arange(20) * 40, np.zeros(20), np.arange(20) % 10 == 0, time_base=MS, dts_stored=False)
    assert result.pts.tolist() == list(range(0, 800, 40))


@pytest.mark.parametrize("dts_stored", [True, False])
def test_join_parts_jump_between_frames_stored_out_of_order(dts_stored: bool) -> None:
    pts, dts = stored(61, 40, 0, b_frames=3)
    for first in range(20, 28):
        jumped = np.where(pts > 40 * first, pts + 7_200_000, pts)
        result = join_parts(jumped, dts, np.zeros(61), np.arange(61) == 0, time_base=MS, dts_stored=dts_stored)
        assert result.pts.tolist() == pts.tolist()
        assert [jump.kind for jump in result.jumps] == ["joined"]


def test_join_parts_without_times() -> None:
    nothing = np.full(5, UNKNOWN)
    assert join_parts(nothing, nothing, np.zeros(5), np.ones(5, bool), time_base=MS).jumps == ()


def write_ts(path: Path, first: int, count: int, start_s: float, codec: str = "libx264") -> bytes:
    """Return a TS file, as bytes, with a clock that starts at the given second."""
    options = {"bf": "2", "g": "12"} if codec == "mpeg2video" else B_FRAMES
    pts = [round(start_s * 90000) + 3600 * number for number in range(count)]
    write_numbered(
        path,
        codec,
        count,
        options=options,
        pts=pts,
        time_base=TS if codec != "mpeg2video" else Fraction(1, 25),
        first=first,
        container_options={"mpegts_copyts": "1"},
    )
    return path.read_bytes()


@pytest.mark.parametrize("second_start", [1.0, 1.02, 0.25, 400.0, 40_000.0], ids=str)
def test_reader_of_joined_ts_files(tmp_path: Path, second_start: float) -> None:
    path = tmp_path / "joined.ts"
    parts = [write_ts(tmp_path / "a.ts", 0, 30, 1.0), write_ts(tmp_path / "b.ts", 30, 30, second_start)]
    path.write_bytes(b"".join(parts))
    facts = probe(path)
    by = second_start - 1.0 - 30 / 25
    assert facts.times == pytest.approx(np.arange(60) / 25, abs=1e-9)
    assert facts.warnings == (
        f"the clock jumps by {by:+.3f} s at frame 30 (1.200 s): the frames from there on continue one frame period "
        "after the previous frame",
    )
    with VideoReader(path) as reader:
        blocks = list(reader.blocks())
        numbers = [number for block in blocks for number in read_numbers(block.rgb)]
        assert numbers[:28] + numbers[32:] == [*range(28), *range(32, 60)]  # the cut itself may be concealed
        assert read_numbers(reader.frames_at([45, 5])) == [45, 5]


def test_reader_flags_the_first_frame_after_a_jump(tmp_path: Path) -> None:
    path = tmp_path / "clock.mkv"
    pts = [0, 40, 80, *(1_700_000_000_000 + 40 * number for number in range(20))]
    write_numbered(path, "libx264", 23, options={"bf": "0", "g": "12"}, pts=pts, time_base=MS)
    facts = probe(path)
    assert facts.times == pytest.approx(np.arange(23) / 25, abs=1e-9)
    [warning] = facts.warnings
    assert warning.startswith("the clock jumps by +1699999999.880 s at frame 3 (0.120 s)")
    status = np.concatenate([block.status for block in VideoReader(path).blocks()])
    assert np.flatnonzero(status).tolist() == [3]
    assert status[3] == JOINED


def test_probe_continues_the_counter_of_a_ts_file(tmp_path: Path) -> None:
    path = tmp_path / "overflow.ts"
    write_ts(path, 0, 50, 2**33 / 90000 - 1.0)
    facts = probe(path)
    assert facts.times == pytest.approx(np.arange(50) / 25, abs=1e-9)
    assert facts.warnings == ()


def test_probe_of_a_screen_recording_keeps_its_stills(tmp_path: Path) -> None:
    path = tmp_path / "screen.mp4"
    pts = [*range(0, 400, 40), *range(60_000, 60_400, 40)]
    write_numbered(path, "libx264", 20, options={"bf": "0"}, pts=pts, time_base=MS)
    facts = probe(path)
    assert facts.times == pytest.approx(np.array(pts) / 1000, abs=1e-4)
    assert facts.warnings == (
        "no frame comes for 59.600 s before frame 10 (60.000 s): the container states that the previous frame is shown "
        "so long, and the times are kept",
    )


def test_probe_of_variable_rate_vp9_in_webm(tmp_path: Path) -> None:
    if "libvpx-vp9" not in av.codecs_available:
        pytest.skip("this FFmpeg has no encoder libvpx-vp9")
    pts = np.cumsum(np.random.default_rng(0).choice([1, 5, 33, 40, 120, 400], 60))
    path = write_numbered(
        tmp_path / "v.webm", "libvpx-vp9", 60, options={"deadline": "realtime", "cpu-used": "8"}, pts=pts, time_base=MS
    )
    assert probe(path).times * 1000 == pytest.approx(pts - pts[0], abs=0.5)
