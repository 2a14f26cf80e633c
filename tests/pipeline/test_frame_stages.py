"""Tests of the stages frames, keyframes and lowres with frames in memory and real videos."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numbered_videos import read_numbers, write_numbered

from actionprep.datasets.products.frames import read_frames
from actionprep.datasets.segments import Segment
from actionprep.datasets.store.reader import DamagedItemError, ItemReader
from actionprep.datasets.store.zarr_store import Store
from actionprep.errors import UserError
from actionprep.pipeline.decode_pass import run_pass
from actionprep.pipeline.frames import FramesSettings, frame_size, frames_in_segments
from actionprep.pipeline.index import find_stage
from actionprep.pipeline.keyframes import (
    SAMPLERS,
    FrameSampler,
    KeyframesSettings,
    MotionMeter,
    frames_shown_at_rate,
    motion_frames,
    random_frames,
    shrink_gray,
    uniform_frames,
    whole_clip_frames,
)
from actionprep.pipeline.lowres import LowresSettings, lowres_sizes
from actionprep.pipeline.shrink import by_short_side
from actionprep.pipeline.stage import ArrayBlock, ViewSource

TIMES = np.arange(40) / 25


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = {"preset": "ultrafast", "g": "12", "x264-params": "bframes=2:b-adapt=0"}
    return write_numbered(tmp_path_factory.mktemp("v") / "video.mp4", "libx264", 40, options=options)


@pytest.fixture
def source(video: Path) -> ViewSource:
    return ViewSource("kitchen", "left", str(video), 64, 64, 25.0, TIMES)


def make(store: Store, source: ViewSource, product: str, done: dict[str, ItemReader] | None = None, **values: Any):
    """Run one stage on a video, and return the stored item."""
    stage = find_stage(product)
    with store.write(product, source.recording, source.view, fingerprint="f", provenance={}) as item:
        run_pass(source, [stage(stage.Settings(**values), source, item, done or {})], block_frames=7)
    return store.item(product, source.recording, source.view)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", create=True)


# frames


def test_all_frames_are_stored_with_time_status_and_index(store: Store, source: ViewSource) -> None:
    item = make(store, source, "frames")
    assert item["rgb"].axes == ("time", "y", "x", "channel")
    assert read_numbers(item["rgb"][:]) == list(range(40))
    assert np.array_equal(item["time"][:], TIMES)
    assert item["index"][:].tolist() == list(range(40))
    assert not item["status"][:].any()
    assert {key: item.attributes[key] for key in ("which", "storage", "height", "width", "num_frames")} == {
        "which": "all",
        "storage": "raw",
        "height": 64,
        "width": 64,
        "num_frames": 40,
    }


@pytest.mark.parametrize("storage", ["raw", "zstd", "jpeg"])
def test_frames_read_the_same_however_they_are_stored(store: Store, source: ViewSource, storage: str) -> None:
    item = make(store, source, "frames", size=32, storage=storage, quality=95)
    assert read_frames(item).shape == (40, 32, 32, 3)
    assert read_numbers(read_frames(item, slice(3, 39, 5))) == list(range(3, 39, 5))
    assert read_numbers(read_frames(item, np.array([30, 2, 2]))) == [30, 2, 2]
    assert ("jpeg" in item) == (storage == "jpeg")


def test_jpeg_files_are_whole_files_in_a_row(store: Store, source: ViewSource) -> None:
    item = make(store, source, "frames", storage="jpeg")
    ends = item["jpeg_end"][:]
    assert len(ends) == 40
    file = item["jpeg"][int(ends[6]) : int(ends[7])]
    assert cv2.imdecode(file, cv2.IMREAD_COLOR).shape == (64, 64, 3)
    assert int(ends[-1]) == len(item["jpeg"])


def test_a_damaged_jpeg_is_noticed(store: Store, source: ViewSource, monkeypatch: pytest.MonkeyPatch) -> None:
    item = make(store, source, "frames", storage="jpeg")
    monkeypatch.setattr(cv2, "imdecode", lambda *_: None)
    with pytest.raises(DamagedItemError, match="the JPEG of frame 4 does not decode"):
        read_frames(item, [4])


@pytest.mark.parametrize("sampler", ["uniform", "motion"])
def test_only_keyframes_are_stored_when_asked(store: Store, source: ViewSource, sampler: str) -> None:
    keyframes = make(store, source, "keyframes", count=5, sampler=sampler)
    item = make(store, source, "frames", {"keyframes": keyframes}, which="keyframes")
    chosen = keyframes["index"][:]
    assert np.array_equal(item["index"][:], chosen)
    assert np.array_equal(item["time"][:], TIMES[chosen])
    assert read_numbers(item["rgb"][:]) == chosen.tolist()


def test_chosen_frames_are_the_same_bytes_alone_and_beside_a_stage_that_reads_all(
    store: Store, source: ViewSource, tmp_path: Path
) -> None:
    keyframes = make(store, source, "keyframes", count=5)
    alone = make(store, source, "frames", {"keyframes": keyframes}, which="keyframes", size=24)
    other = Store(tmp_path / "other", create=True)
    with (
        other.write("frames", "kitchen", "left", fingerprint="f", provenance={}) as frames,
        other.write("lowres", "kitchen", "left", fingerprint="f", provenance={}) as lowres,
    ):
        stages = [
            find_stage("lowres")(LowresSettings(sizes=(24,)), source, lowres, {}),
            find_stage("frames")(FramesSettings(which="keyframes", size=24), source, frames, {"keyframes": keyframes}),
        ]
        run_pass(source, stages)
    assert other.item("frames", "kitchen", "left").digest == alone.digest


def test_frames_of_segments_have_a_margin(store: Store, source: ViewSource) -> None:
    source = replace(source, segments=(Segment(0.4, 0.6, "a"), Segment(0.5, 0.7, "b"), Segment(1.5, 1.6, "c")))
    item = make(store, source, "frames", which="segments", margin=0.05)
    inside = [n for n in range(40) if 0.35 <= TIMES[n] < 0.75 or 1.45 <= TIMES[n] < 1.65]
    assert item["index"][:].tolist() == inside
    assert read_numbers(item["rgb"][:]) == inside
    assert find_stage("frames").reads_of_source(FramesSettings(which="segments"), source)[0] == [0.4, 0.6]


def test_a_recording_without_segments_stores_no_frame(store: Store, source: ViewSource) -> None:
    item = make(store, source, "frames", which="segments")
    assert item["rgb"].shape == (0, 64, 64, 3)
    assert len(frames_in_segments(source, 1.0)) == 0


@pytest.mark.parametrize(
    ("values", "video", "stored"),
    [
        ({"size": 256}, (480, 640), (256, 342)),
        ({"size": 256}, (1920, 1080), (456, 256)),
        ({"size": 256}, (240, 320), (240, 320)),
        ({"size": 0}, (481, 641), (481, 641)),
        ({"width": 320, "height": 320}, (480, 640), (320, 320)),
    ],
)
def test_the_stored_size(values: dict[str, int], video: tuple[int, int], stored: tuple[int, int]) -> None:
    assert frame_size(FramesSettings(**values), *video) == stored


def test_width_without_height_is_a_mistake() -> None:
    with pytest.raises(UserError, match="set both width and height, or neither"):
        FramesSettings.read({"width": 320}, where="[frames]")


def test_the_estimate_is_the_size_of_raw_frames(store: Store, source: ViewSource) -> None:
    for product, values in (("frames", {"size": 32}), ("lowres", {"sizes": (16, 24)})):
        stage = find_stage(product)
        item = make(store, source, product, **values)
        stored = sum(item[name].nbytes for name in item if name.startswith("rgb"))
        assert stage.estimated_bytes(stage.Settings(**values), source) == stored


@settings(deadline=None)
@given(height=st.integers(8, 3000), width=st.integers(8, 3000), side=st.sampled_from([112, 224, 256, 113]))
def test_sizes_keep_the_shape_to_a_pixel(height: int, width: int, side: int) -> None:
    small = by_short_side(height, width, side)
    assert min(small) == side
    exact = max(height, width) * side / min(height, width)
    assert abs(max(small) - exact) <= 1
    assert max(small) % 2 == 0 or max(small) == side
    assert (small[0] <= small[1]) == (height <= width)


# lowres


def test_several_sizes_come_from_one_pass(store: Store, source: ViewSource) -> None:
    item = make(store, source, "lowres", sizes=(16, 96), filter="bilinear")
    assert item["rgb_16"].shape == (40, 16, 16, 3)
    assert item["rgb_96"].shape == (40, 96, 96, 3)
    assert read_numbers(item["rgb_16"][:]) == read_numbers(item["rgb_96"][:]) == list(range(40))
    assert item.attributes == {
        "sizes": {"rgb_16": [16, 16], "rgb_96": [96, 96]},
        "source_height": 64,
        "source_width": 64,
    }
    assert np.array_equal(item["time"][:], TIMES)


def test_squares_do_not_keep_the_shape() -> None:
    assert lowres_sizes(LowresSettings(sizes=(112, 56)), 480, 640) == {112: (112, 150), 56: (56, 74)}
    assert lowres_sizes(LowresSettings(square=True), 480, 640) == {112: (112, 112)}


@pytest.mark.parametrize("sizes", [(), (4,), (112, 112)])
def test_sizes_that_make_no_sense_are_a_mistake(sizes: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="Give one or more different sizes of at least 8 pixels each"):
        LowresSettings.read({"sizes": sizes}, where="[lowres]")


# keyframes


@pytest.mark.parametrize("name", ["uniform", "random", "dense", "whole", "motion"])
def test_keyframes_have_index_time_and_score(store: Store, source: ViewSource, name: str) -> None:
    item = make(store, source, "keyframes", sampler=name, count=8, rate=5.0)
    index = item["index"][:]
    assert len(index) == 8
    assert (np.diff(index) > 0).all()
    assert np.array_equal(item["time"][:], TIMES[index])
    assert item["score"].shape == (8,)
    assert (item["score"][:] == 1).all() == (name != "motion")
    assert item.attributes == {"sampler": name, "num_frames": 40, "known_ahead": name != "motion"}


@pytest.mark.parametrize(
    ("values", "index"),
    [
        ({"sampler": "consecutive", "count": 5}, [0, 1, 2, 3, 4]),
        ({"sampler": "strided", "step": 16}, [0, 16, 32]),
        ({"sampler": "timesformer", "count": 4, "step": 32}, [0, 35]),
        ({"sampler": "timesformer", "count": 4, "step": 32, "short": "repeat"}, [0, 35, 39, 39]),
    ],
)
def test_keyframes_by_formula(store: Store, source: ViewSource, values: dict[str, Any], index: list[int]) -> None:
    assert make(store, source, "keyframes", **values)["index"][:].tolist() == index


def test_keyframes_of_scenes_are_scored_by_motion(store: Store, source: ViewSource) -> None:
    item = make(store, source, "keyframes", sampler="scenes")
    assert item["index"][:].tolist()[0] == 0
    assert not item.attributes["known_ahead"]


def test_keyframes_that_mask_have_score_0(store: Store, source: ViewSource) -> None:
    item = make(store, source, "keyframes", sampler="uniform", count=42, short="mask")
    assert item["index"][:].tolist() == [*range(40), 39, 39]
    assert item["score"][:].tolist() == [*[1.0] * 40, 0.0, 0.0]


def test_samplers_that_need_no_picture_decode_none(
    store: Store, source: ViewSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    from actionprep.pipeline.video import VideoReader

    monkeypatch.setattr(VideoReader, "_decoded", lambda *_: pytest.fail("decoded"))
    assert len(make(store, source, "keyframes", sampler="random")["index"][:]) == 16


def test_random_depends_on_seed_recording_and_view_alone(store: Store, source: ViewSource) -> None:
    def drawn(source: ViewSource, seed: int = 0) -> list[int]:
        return make(store, source, "keyframes", sampler="random", seed=seed, count=6)["index"][:].tolist()

    first = drawn(source)
    assert drawn(source) == first
    others = [drawn(source, seed=1), drawn(replace(source, view="right")), drawn(replace(source, recording="garden"))]
    assert first not in others


def test_an_unknown_sampler_names_the_nearest() -> None:
    with pytest.raises(UserError) as error:
        KeyframesSettings.read({"sampler": "unifrom"}, where="[keyframes]")
    assert "No sampler 'unifrom'. Did you mean 'uniform'? Samplers: uniform, random, dense, whole, motion" in str(
        error.value
    )


def test_a_sampler_is_one_class(store: Store, source: ViewSource, monkeypatch: pytest.MonkeyPatch) -> None:
    class Ends(FrameSampler):
        """The first frame and the last."""

        def choose(self, times: np.ndarray, settings: KeyframesSettings, **_: Any) -> np.ndarray:
            return np.array([0, len(times) - 1])

    monkeypatch.setitem(SAMPLERS, "ends", Ends)
    assert make(store, source, "keyframes", sampler="ends")["index"][:].tolist() == [0, 39]


@settings(deadline=None)
@given(gaps=st.lists(st.integers(1, 50), min_size=1, max_size=60), count=st.integers(1, 20))
def test_uniform_frames_are_those_shown_at_the_middles(gaps: list[int], count: int) -> None:
    milliseconds = np.cumsum([0, *gaps])  # integers, so that the truth needs no rounding
    chosen = uniform_frames(milliseconds / 1000, count)
    if count >= len(milliseconds):
        assert chosen.tolist() == list(range(len(milliseconds)))
        return
    end = milliseconds[-1] + gaps[-1]
    # Twice the count times the time of frame n: the middle k is at (2 k + 1) times the end.
    shown = [max(n for n, t in enumerate(milliseconds) if 2 * count * t <= (2 * k + 1) * end) for k in range(count)]
    assert chosen.tolist() == sorted(set(shown))


def test_uniform_follows_time_and_not_the_index() -> None:
    times = np.concatenate([np.arange(90) / 30, 3 + np.arange(30) / 10])  # three seconds at 30, three at 10 a second
    assert uniform_frames(times, 6).tolist() == [15, 45, 75, 95, 105, 115]


def test_dense_frames_have_the_rate_whatever_the_frames_have() -> None:
    times = np.arange(300) / 29.97
    chosen = frames_shown_at_rate(times, 2.0)
    assert np.diff(times[chosen]) == pytest.approx(0.5, abs=1 / 29.97)
    assert len(chosen) == 21  # ten seconds and a little
    assert frames_shown_at_rate(np.arange(10) / 25, 100.0).tolist() == list(range(10))
    assert frames_shown_at_rate(np.array([4.0]), 2.0).tolist() == [0]


@settings(deadline=None)
@given(num_frames=st.integers(1, 200), count=st.integers(1, 60), seed=st.integers(0, 3))
def test_random_takes_one_frame_of_each_part(num_frames: int, count: int, seed: int) -> None:
    chosen = random_frames(num_frames, count, np.random.default_rng(seed))
    if count >= num_frames:
        assert chosen.tolist() == list(range(num_frames))
    else:
        parts = [k * num_frames // count for k in range(count + 1)]
        assert all(low <= frame < high for frame, low, high in zip(chosen, parts[:-1], parts[1:], strict=True))


def test_whole_clip_always_gives_the_count() -> None:
    assert whole_clip_frames(320, 32).tolist() == list(range(5, 320, 10))
    assert whole_clip_frames(3, 6).tolist() == [0, 0, 1, 1, 2, 2]
    assert whole_clip_frames(45, 32)[-1] == 44


def test_motion_takes_more_frames_where_more_moves() -> None:
    motion = np.r_[np.zeros(50), np.full(20, 4.0), np.zeros(50), np.full(10, 4.0)]
    chosen = motion_frames(motion, 9)
    assert ((chosen >= 50) & (chosen < 70)).sum() == 6
    assert (chosen >= 120).sum() == 3


def test_motion_without_motion_is_spread_evenly() -> None:
    assert motion_frames(np.zeros(40), 4).tolist() == [5, 15, 25, 35]


@settings(deadline=None)
@given(motion=st.lists(st.floats(0, 100), min_size=1, max_size=50), count=st.integers(1, 60))
def test_motion_takes_each_frame_once_and_as_many_as_asked(motion: list[float], count: int) -> None:
    chosen = motion_frames(np.array(motion), count)
    assert len(chosen) == min(count, len(motion))
    assert (np.diff(chosen) > 0).all()


def test_the_motion_meter_does_not_depend_on_the_blocks() -> None:
    gray = np.random.default_rng(0).integers(0, 255, (23, 130, 190), np.uint8)
    at_once, parts = MotionMeter(), MotionMeter()
    at_once.add(gray)
    for part in np.split(gray, [1, 5, 6, 17]):
        parts.add(part)
    assert np.array_equal(at_once.values(), parts.values())
    assert at_once.values()[0] == 0
    small = np.stack([cv2.resize(image[:, :190], (95, 65), interpolation=cv2.INTER_AREA) for image in gray])
    expected = np.abs(np.diff(small.astype(float), axis=0)).mean((1, 2))
    assert at_once.values()[1:] == pytest.approx(expected)


def test_shrinking_gray_takes_means_of_squares() -> None:
    gray = np.random.default_rng(1).integers(0, 255, (2, 13, 17), np.uint8)
    means = gray[:, :12, :16].reshape(2, 3, 4, 4, 4).mean((2, 4))
    assert np.abs(shrink_gray(gray, 4) - means).max() <= 0.51


@pytest.mark.parametrize("name", ["uniform", "motion"])
def test_live_keyframes_are_replayed_as_they_were_pushed(
    store: Store, source: ViewSource, name: str, tmp_path: Path
) -> None:
    stage = find_stage("keyframes")
    blocks = [
        ArrayBlock(np.full((8, 64, 64, 3), at, np.uint8), time=TIMES[at : at + 8], index=np.arange(at, at + 8))
        for at in range(0, 40, 8)
    ]
    with store.write("keyframes", "kitchen", "left", fingerprint="f", provenance={}) as item:
        live = stage(KeyframesSettings(sampler=name, count=7), source, item, {})
        returned = [live.push(block, {}) for block in blocks]
        returned.append(live.finish({}))
    replayed = list(stage.replay(store.item("keyframes", "kitchen", "left"), iter(blocks)))
    assert [part.tolist() for part in replayed] == [part.tolist() for part in returned]
