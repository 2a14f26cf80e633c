"""Tests of windows of point tracks: seeds on the foreground, independence of blocks, bounded memory, any length."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stage_runs import MemoryItem, blocks, patch_over_background, run_tracks, shifted, texture, view_source

from actionprep.datasets.products.tracks import visible
from actionprep.datasets.store.zarr_store import Store
from actionprep.errors import InputError, UserError
from actionprep.pipeline.index import find_stage
from actionprep.pipeline.mask_sources import MaskBlock
from actionprep.pipeline.mask_sources.settings import MasksSettings
from actionprep.pipeline.masks import Masks
from actionprep.pipeline.stage import Input
from actionprep.pipeline.trackers.settings import TracksSettings
from actionprep.pipeline.trackers.tracker import TRACKERS, PointTracker, PointTracks
from actionprep.pipeline.tracks import Tracks, frames_at_rate, grid_over_box, grid_over_frame, spread_over_mask


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> type[PointTracker]:
    """A tracker with static points that records its arguments, for tests of windows."""

    class Still(PointTracker):
        needs = "gray"
        calls: ClassVar[list[tuple[list[int], np.ndarray, bool]]] = []

        @classmethod
        def identity(cls, settings):
            return {"tracker": "still"}

        def track(self, frames: Sequence[np.ndarray], queries: np.ndarray, *, both_ways: bool) -> PointTracks:
            self.calls.append(([int(frame[0, 0]) for frame in frames], queries, both_ways))
            xy = np.repeat(queries[None, :, 1:].astype(np.float32), len(frames), axis=0)
            ones = np.ones(xy.shape[:2], np.float32)
            return PointTracks(xy, ones, ones)

    monkeypatch.setitem(TRACKERS, "still", Still)
    return Still


def numbered_frames(num_frames: int, height: int = 24, width: int = 32) -> np.ndarray:
    """Return frames with their index as gray value."""
    return np.repeat(np.arange(num_frames, dtype=np.uint8), height * width).reshape(num_frames, height, width)


def moving_square(num_frames: int = 40) -> np.ndarray:
    return patch_over_background(num_frames, 96, 160, size=30, start=(5, 30), step=(3, 0))


def test_points_start_on_what_moves_and_go_with_it():
    item = run_tracks(moving_square(), TracksSettings(grid=8))
    actual = [visible(item["visibility"][w], item["confidence"][w]) for w in range(len(item["start"]))]
    for w, seed in enumerate(item["seed"][:-1]):
        at = item["frame"][w].tolist().index(seed)
        xy, on = item["xy"][w], item["valid"][w]
        # Points well inside the square move 3 px per frame; at its edges, pixels mix with the background.
        inside = on & (np.abs(xy[at] - (5 + 3 * seed + 14.5, 44.5)) < 8).all(axis=-1)
        assert inside.sum() > 5
        assert actual[w][:, inside].mean() > 0.95
        steps = np.diff(xy[:, inside], axis=0)[actual[w][1:, inside]]
        assert np.quantile(np.abs(steps - (3, 0)), 0.95) < 0.2
    assert item.attributes["num_empty_windows"] == 0
    assert 0.5 < item.attributes["visible_share"] <= 1


def test_tracks_windows_cover_all_frames(still):
    item = run_tracks(numbered_frames(45), TracksSettings(tracker="still", seeding="whole-frame", window=16, stride=8))
    assert item["start"].tolist() == [0, 8, 16, 24, 29]
    assert item["seed"].tolist() == [8, 16, 24, 32, 37]
    assert np.array_equal(item["frame"], item["start"][:, None] + np.arange(16))
    assert np.allclose(item["time"], item["frame"] / 15)
    assert item["frame_valid"].all()
    assert [call[0] for call in still.calls] == item["frame"].tolist()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 50), st.integers(2, 12), st.data())
def test_windows_begin_a_stride_apart_and_leave_no_frame_out(num_frames, window, data):
    stride = data.draw(st.integers(1, window))
    chosen = TracksSettings(seeding="whole-frame", grid=1, window=window, stride=stride)
    item = run_tracks(np.zeros((num_frames, 16, 16), np.uint8), chosen)
    starts = item["start"].tolist()
    expected = list(range(0, max(num_frames - window, 0) + 1, stride)) if num_frames else []
    if num_frames > window and expected[-1] + window < num_frames:
        expected.append(num_frames - window)
    assert starts == expected
    assert sorted({frame for frame in item["frame"].ravel().tolist() if frame >= 0}) == list(range(num_frames))


def test_a_view_shorter_than_a_window_is_padded_and_marked(still):
    chosen = TracksSettings(tracker="still", seeding="whole-frame", grid=2, window=8, stride=4)
    item = run_tracks(numbered_frames(5), chosen)
    assert item["start"].tolist() == [0]
    assert item["seed"].tolist() == [2]
    assert item["frame"].tolist() == [[0, 1, 2, 3, 4, -1, -1, -1]]
    assert item["frame_valid"].tolist() == [[True] * 5 + [False] * 3]
    assert np.isnan(item["xy"][0, 5:]).all()
    assert np.isfinite(item["xy"][0, :5]).all()
    assert np.isnan(item["time"][0, 5:]).all()
    assert (item["visibility"][0, 5:] == 0).all()


def test_slots_without_a_point_hold_nan_and_are_marked(still):
    foreground = np.zeros((10, 24, 32), bool)
    foreground[:, 10:12, 10:13] = True
    item = run_with_masks(numbered_frames(10), foreground, TracksSettings(tracker="still", grid=4, window=4, stride=4))
    assert item["valid"].sum(axis=1).tolist() == [6, 6, 6]
    assert not item["valid"][:, 6:].any()
    assert np.isnan(item["xy"][:, :, 6:]).all()
    assert np.isfinite(item["xy"][:, :, :6]).all()


def run_with_masks(
    gray: np.ndarray, foreground: np.ndarray, chosen: TracksSettings, *, lag: int = 0, cuts: Sequence[int] = ()
) -> MemoryItem:
    """Track with given masks that arrive `lag` frames late."""
    source, item, given_masks = view_source(*gray.shape), MemoryItem(), 0
    stage = Tracks(chosen, source, item, {})
    for block in blocks(gray, source, cuts):
        ready = max(int(block.index[-1]) + 1 - lag, given_masks)
        index = np.arange(given_masks, ready)
        stage.push(block, {"masks": MaskBlock(index, foreground[index])})
        given_masks = ready
    index = np.arange(given_masks, len(gray))
    stage.finish({"masks": MaskBlock(index, foreground[index])})
    return item


def test_points_start_on_the_mask_of_the_seed_frame(still):
    foreground = np.zeros((16, 24, 32), bool)
    for t in range(16):
        foreground[t, :, 2 * t : 2 * t + 2] = True
    chosen = TracksSettings(tracker="still", grid=5, window=4, stride=4)
    for seed_at, expected in (("middle", [2, 6, 10, 14]), ("first", [0, 4, 8, 12])):
        still.calls.clear()
        item = run_with_masks(numbered_frames(16), foreground, chosen.with_changes({"seed_at": seed_at}, where=""))
        assert item["seed"].tolist() == expected
        for (_, queries, _), seed in zip(still.calls, expected, strict=True):
            assert set(queries[:, 0]) == {2 if seed_at == "middle" else 0}
            assert {2 * seed, 2 * seed + 1} >= set(np.rint(queries[:, 1]))


def test_the_direction_reaches_the_tracker(still):
    for direction in ("both", "forward"):
        still.calls.clear()
        chosen = TracksSettings(tracker="still", seeding="whole-frame", direction=direction)
        run_tracks(numbered_frames(16), chosen)
        assert [both for _, _, both in still.calls] == [direction == "both"]


@pytest.mark.parametrize(("empty", "num_points"), [("nothing", 0), ("whole-frame", 16)])
def test_tracks_counts_seed_frames_without_foreground(still, empty, num_points):
    foreground = np.zeros((12, 24, 32), bool)
    foreground[:6] = True
    chosen = TracksSettings(tracker="still", grid=4, window=4, stride=4, empty=empty)
    item = run_with_masks(numbered_frames(12), foreground, chosen)
    assert item["valid"].sum(axis=1).tolist()[1:] == [num_points, num_points]
    assert item["valid"][0].any()
    assert item.attributes["num_windows"] == 3
    assert item.attributes["num_empty_windows"] == 2


def test_a_view_without_any_foreground_is_a_problem_of_the_input(still):
    empty = np.zeros((9, 24, 32), bool)
    with pytest.raises(InputError) as problem:
        run_with_masks(numbered_frames(9), empty, TracksSettings(tracker="still", grid=2, window=4, stride=4))
    assert str(problem.value) == (
        "The masks of view '0' of recording 'kitchen/seq' are empty in the seed frame of every window (3), so there are no "
        "points to track.\n"
        "Inspect them with 'actionprep show masks kitchen/seq'. Then change [masks], or track without foreground: "
        'tracks.empty = "whole-frame".'
    )
    item = run_with_masks(numbered_frames(9), empty, TracksSettings(tracker="still", grid=2, empty="whole-frame"))
    assert item["valid"].all()


def test_the_region_is_the_box_of_the_foreground_of_the_window(still):
    foreground = np.zeros((8, 100, 120), bool)
    foreground[:4, 20:60, 30:50] = True
    foreground[4:, 40:80, 70:110] = True
    chosen = TracksSettings(tracker="still", grid=2, window=4, stride=4)
    item = run_with_masks(np.zeros((8, 100, 120), np.uint8), foreground, chosen)
    assert item["region"].tolist() == [[30, 20, 49, 59], [70, 40, 109, 79]]
    assert item.attributes["region"] == [30, 20, 109, 79]


def test_stray_spots_do_not_widen_the_region(still):
    foreground = np.zeros((4, 100, 120), bool)
    foreground[:, 20:60, 30:50] = True
    foreground[1, 99, 119] = True
    chosen = TracksSettings(tracker="still", grid=2, window=4, stride=4)
    item = run_with_masks(np.zeros((4, 100, 120), np.uint8), foreground, chosen)
    assert item["region"].tolist() == [[30, 20, 49, 59]]


@settings(max_examples=6, deadline=None)
@given(cuts=st.lists(st.integers(1, 24), max_size=8))
def test_tracks_do_not_depend_on_how_frames_come_in_blocks(cuts):
    frames = moving_square(25)
    chosen = TracksSettings(grid=5, window=10, stride=4)
    expected, result = run_tracks(frames, chosen), run_tracks(frames, chosen, cuts=cuts)
    for name in expected.specs:
        assert np.array_equal(expected[name], result[name], equal_nan=expected[name].dtype.kind == "f"), name
    assert expected.attributes == result.attributes


@pytest.mark.parametrize("lag", [0, 1, 7, 15, 100])
def test_tracks_do_not_depend_on_how_late_masks_come(still, lag):
    foreground = np.random.default_rng(0).random((50, 24, 32)) < 0.2
    chosen = TracksSettings(tracker="still", grid=4)
    late = run_with_masks(numbered_frames(50), foreground, chosen, lag=lag, cuts=range(0, 50, 3))
    soon = run_with_masks(numbered_frames(50), foreground, chosen)
    assert np.array_equal(late["xy"], soon["xy"], equal_nan=True)
    assert np.array_equal(late["region"], soon["region"])


def test_memory_does_not_grow_with_the_length(still):
    chosen = TracksSettings(tracker="still", grid=2, window=16, stride=8)
    source, item, lag = view_source(1000, 16, 16), MemoryItem(), 30
    stage = Tracks(chosen, source, item, {})
    most = 0
    for block in blocks(np.zeros((1000, 16, 16), np.uint8), source, range(0, 1000, 10)):
        index = block.index - lag
        index = index[index >= 0]
        stage.push(block, {"masks": MaskBlock(index, np.ones((len(index), 16, 16), bool))})
        most = max(most, stage.num_held)
    stage.finish({"masks": MaskBlock(np.arange(1000 - lag, 1000), np.ones((lag, 16, 16), bool))})
    assert most <= 16 + lag + 10
    assert len(item["start"]) == 124


def test_masks_that_do_not_come_are_a_fault():
    source = view_source(8, 24, 32)
    stage = Tracks(TracksSettings(), source, MemoryItem(), {})
    for block in blocks(numbered_frames(8), source, []):
        stage.push(block, {"masks": MaskBlock.empty(24, 32)})
    with pytest.raises(RuntimeError, match="Masks came for 0 of 8 frames"):
        stage.finish({"masks": MaskBlock.empty(24, 32)})


def test_without_masks_nothing_is_read():
    assert Tracks.inputs(TracksSettings(seeding="whole-frame")) == ()
    assert Tracks.inputs(TracksSettings()) == (Input("masks"),)


def test_tracks_of_downscaled_frames_are_in_video_pixels():
    ground = texture(240, 320, grain=5)
    frames = np.stack([np.rint(shifted(ground, 2.5 * t, 0)) for t in range(8)]).clip(0, 255).astype(np.uint8)
    chosen = TracksSettings(seeding="whole-frame", grid=6, window=8, short_side=120)
    item = run_tracks(frames, chosen)
    steps = np.diff(item["xy"][0], axis=0)[:, item["valid"][0]]
    well_inside = ((item["xy"][0, 4] > 40) & (item["xy"][0, 4] < (280, 200))).all(axis=-1)
    assert np.allclose(steps[:, well_inside], (2.5, 0), atol=0.2)
    full = run_tracks(frames, chosen.with_changes({"short_side": 240}, where=""))
    assert np.array_equal(item["xy"][0, 4], full["xy"][0, 4]), "points start in the same places"


@pytest.mark.parametrize(("short_side", "size"), [(0, (24, 32)), (480, (24, 32)), (12, (12, 16))])
def test_a_tracker_that_needs_color_is_given_color(still, monkeypatch, short_side, size):
    monkeypatch.setattr(still, "needs", "rgb")
    shapes = []
    track = still.track

    def note(self, frames, queries, *, both_ways):
        shapes.extend(frame.shape for frame in frames)
        return track(self, [frame[..., 0] for frame in frames], queries, both_ways=both_ways)

    monkeypatch.setattr(still, "track", note)
    chosen = TracksSettings(tracker="still", seeding="whole-frame", short_side=short_side)
    run_tracks(numbered_frames(16), chosen)
    assert set(shapes) == {(*size, 3)}


def test_frames_that_the_rate_leaves_out_are_not_tracked(still):
    chosen = TracksSettings(tracker="still", seeding="whole-frame", rate=5.0, window=4, stride=2)
    item = run_tracks(numbered_frames(20), chosen)
    assert item["frame"].tolist() == [[0, 3, 6, 9], [6, 9, 12, 15], [9, 12, 15, 18]]
    assert [call[0] for call in still.calls] == item["frame"].tolist()
    assert np.allclose(np.diff(item["time"]), 0.2)


def test_masks_are_matched_to_the_frames_that_the_rate_keeps(still):
    foreground = np.zeros((20, 24, 32), bool)
    for t in range(20):
        foreground[t, :, t] = True
    chosen = TracksSettings(tracker="still", rate=5.0, window=4, stride=4, grid=4)
    item = run_with_masks(numbered_frames(20), foreground, chosen, lag=5, cuts=range(0, 20, 3))
    for w, seed in enumerate(item["seed"]):
        assert set(item["xy"][w, 0, item["valid"][w], 0]) == {seed}


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 400), min_size=1, max_size=40), st.integers(1, 60))
def test_frames_at_a_rate_are_the_nearest_to_the_ticks(steps_ms, rate):
    times = np.cumsum(steps_ms) / 1000
    nearest = set()
    for tick in range(int(np.floor((times[-1] - times[0]) * rate + 1e-6)) + 1):
        distance = np.abs(times - (times[0] + tick / rate))
        nearest.add(int(np.flatnonzero(distance <= distance.min() + 1e-9)[0]))
    assert set(np.flatnonzero(frames_at_rate(times, rate))) == nearest


def test_a_rate_above_that_of_the_video_keeps_every_frame():
    assert frames_at_rate(np.arange(30) / 15, 60).all()
    assert not frames_at_rate(np.zeros(0), 5).any()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.floats(0.01, 1), st.integers(1, 12), st.integers(0, 999))
def test_spread_over_mask_points_are_on_it_and_separated(height, width, share, grid, seed):
    foreground = np.random.default_rng(seed).random((height, width)) < share
    if not foreground.any():
        return
    points = spread_over_mask(foreground, grid)
    assert 1 <= len(points) <= grid * grid
    x, y = np.floor(points + 0.5).astype(int).T
    assert foreground[y, x].all()
    assert len({tuple(point) for point in points.tolist()}) == len(points)


@pytest.mark.parametrize("grid", [5, 12, 20])
def test_spread_over_mask_of_a_body_is_even_and_nearly_full(grid):
    y, x = np.mgrid[:480, :640]
    foreground = ((x - 300) / 60) ** 2 + ((y - 250) / 150) ** 2 < 1
    foreground[150:180, 340:450] = True
    points = spread_over_mask(foreground, grid)
    assert 0.85 * grid**2 < len(points) <= grid**2
    # Every part of the body has its share: halves by area hold about half of the points.
    middle = np.median(np.argwhere(foreground)[:, 0])
    assert abs((points[:, 1] < middle).mean() - 0.5) < 0.1
    gaps = np.linalg.norm(points[:, None] - points[None], axis=-1) + 1e9 * np.eye(len(points))
    assert np.allclose(gaps.min(axis=1), gaps.min(), rtol=0.02)


def test_a_grid_over_the_box_keeps_what_is_foreground():
    foreground = np.zeros((50, 60), bool)
    foreground[10:30, 20:40] = True
    foreground[20:30, 30:40] = False
    points = grid_over_box(foreground, 4)
    assert len(points) == 12
    assert points[:4].tolist() == [[22, 12], [27, 12], [32, 12], [37, 12]]


def test_the_grid_over_the_frame_has_the_margin_of_cotracker():
    points = grid_over_frame(np.ones((384, 512), bool), 20)
    assert points.shape == (400, 2)
    assert points.min(axis=0).tolist() == [8, 8]
    assert points.max(axis=0).tolist() == [504, 376]
    assert points[1, 0] > points[0, 0], "row by row, x fastest"
    half = np.zeros((768, 1024), bool)
    half[:, 512:] = True
    kept = grid_over_frame(half, 20)
    assert len(kept) == 200
    assert kept[:, 0].min() >= 512


def test_tracks_are_stored_and_read_back(tmp_path: Path):
    frames = moving_square(24)
    source = view_source(*frames.shape)
    store = Store(tmp_path / "store", create=True)
    with store.write("tracks", "kitchen/seq", "0", fingerprint="f", provenance={}) as item:
        masks, stage = (
            Masks(MasksSettings(), source, MemoryItem(), {}),
            Tracks(TracksSettings(grid=5), source, item, {}),
        )
        for block in blocks(frames, source, [10]):
            stage.push(block, {"masks": masks.push(block, {})})
        stage.finish({"masks": masks.finish({})})
    reader = store.item("tracks", "kitchen/seq", "0")
    assert reader["xy"].shape == (2, 16, 25, 2)
    assert reader["valid"].dtype == bool
    assert reader["xy"].unit == "px"
    attributes = reader.attributes
    seen = visible(
        reader["visibility"][:],
        reader["confidence"][:],
        rule=attributes["visible_rule"],
        above=attributes["visible_above"],
    )
    assert seen[reader["valid"][:][:, None].repeat(16, axis=1)].mean() > 0.5
    assert (attributes["tracker"], attributes["grid"], attributes["width"]) == ("lk", 5, 160)


def test_tracks_on_stored_masks_equal_those_made_in_one_pass(tmp_path: Path):
    frames, chosen = moving_square(30), TracksSettings(grid=5)
    source = view_source(*frames.shape)
    store = Store(tmp_path / "store", create=True)
    with store.write("masks", "kitchen/seq", "0", fingerprint="f", provenance={}) as item:
        masks = Masks(MasksSettings(), source, item, {})
        for block in blocks(frames, source, [11]):
            masks.push(block, {})
        masks.finish({})
    parts = list(blocks(frames, source, [7, 20]))
    replayed = Masks.replay(store.item("masks", "kitchen/seq", "0"), iter(parts))
    again = MemoryItem()
    stage = Tracks(chosen, source, again, {})
    for block in parts:
        stage.push(block, {"masks": next(replayed)})
    stage.finish({"masks": next(replayed)})
    once = run_tracks(frames, chosen)
    assert np.array_equal(again["xy"], once["xy"], equal_nan=True)
    assert again.attributes == once.attributes


def test_the_bytes_are_estimated_from_metadata():
    chosen = TracksSettings(grid=4)
    item = run_tracks(numbered_frames(45), chosen.with_changes({"seeding": "whole-frame"}, where=""))
    stored = sum(item[name].nbytes for name in item.specs)
    assert Tracks.estimated_bytes(chosen, view_source(45, 24, 32)) == pytest.approx(stored, rel=0.1)


def test_rules_for_visible_points():
    visibility, confidence = np.array([0.95, 0.8, 0.4]), np.array([0.5, 0.9, 1.0])
    assert visible(visibility, confidence).tolist() == [True, True, False]
    assert visible(visibility, confidence, rule="visibility", above=0.9).tolist() == [True, False, False]
    assert visible(visibility, confidence, rule="visibility*confidence", above=0.6).tolist() == [False, True, False]
    with pytest.raises(ValueError, match="No rule 'both' for visible points"):
        visible(visibility, confidence, rule="both")


def test_settings_that_do_not_fit_together_are_explained():
    with pytest.raises(UserError, match="stride 20 is more than window 16: frames between windows would be lost"):
        TracksSettings.read({"stride": 20}, where="[tracks]")
    with pytest.raises(UserError, match=r"Wrong value for 'tracker' in \[tracks\].*No point tracker 'kl'\."):
        TracksSettings.read({"tracker": "kl"}, where="[tracks]")


def test_the_stage_is_registered():
    assert find_stage("tracks") is Tracks
