"""Tests of Lucas–Kanade: known motion, visibility of lost points, and independence of threads."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from stage_runs import patch_over_background, shifted, texture

from actionprep.datasets.products.tracks import visible
from actionprep.pipeline.trackers import TRACKERS
from actionprep.pipeline.trackers.lk import LucasKanade
from actionprep.pipeline.trackers.lk_anchored import AnchoredLucasKanade
from actionprep.pipeline.trackers.settings import TracksSettings


def lk(**settings) -> LucasKanade:
    return LucasKanade(TracksSettings(**settings))


def grid(frame: float, low: float, high: float, num: int = 6) -> np.ndarray:
    x, y = np.meshgrid(np.linspace(low, high, num), np.linspace(low, high, num))
    return np.stack([np.full(x.size, frame), x.ravel(), y.ravel()], axis=1)


def test_a_shift_by_parts_of_a_pixel_is_recovered():
    ground = texture(96, 128, grain=3)
    velocity = np.array([0.83, -0.46])
    frames = [np.rint(shifted(ground, *(t * velocity))).astype(np.uint8) for t in range(9)]
    queries = grid(4, 35, 60)
    tracks = lk().track(frames, queries, both_ways=True)
    truth = queries[None, :, 1:] + (np.arange(9) - 4)[:, None, None] * velocity
    assert np.abs(tracks.xy - truth).max() < 0.1
    assert visible(tracks.visibility, tracks.confidence).all()


def test_at_its_query_a_point_is_the_query_and_fully_visible():
    frames = [np.rint(shifted(texture(64, 64), t, 0)).astype(np.uint8) for t in range(4)]
    queries = np.array([[1, 30.25, 30.5], [3, 20, 40]])
    tracks = lk().track(frames, queries, both_ways=True)
    assert np.array_equal(tracks.xy[[1, 3], [0, 1]], queries[:, 1:].astype(np.float32))
    assert tracks.visibility[[1, 3], [0, 1]].tolist() == [1, 1]


def test_forward_only_leaves_the_frames_before_the_query_alone():
    frames = [np.rint(shifted(texture(64, 64), t, 0)).astype(np.uint8) for t in range(5)]
    tracks = lk().track(frames, np.array([[2, 30, 30]]), both_ways=False)
    assert (tracks.xy[:2, 0] == 30).all()
    assert (tracks.visibility[:2] == 0).all()
    assert np.allclose(tracks.xy[3:, 0], [[31, 30], [32, 30]], atol=0.1)


def test_a_point_that_is_covered_is_lost_and_stays_lost():
    # A square moves across the points in the middle of the image.
    frames = patch_over_background(14, 80, 160, size=40, start=(8, 20), step=(8, 0))
    hidden = np.array([[0, 80, y] for y in (30, 35, 40, 45, 50)], float)
    free = np.array([[0, x, 10] for x in (40, 80, 120)], float)
    tracks = lk().track(frames, np.concatenate([hidden, free]), both_ways=False)
    seen = visible(tracks.visibility, tracks.confidence)
    assert seen[:3, :5].all()
    assert not seen[-1, :5].any(), "the square has passed, but what is followed now is not the point"
    assert seen[:, 5:].all()
    assert np.abs(tracks.xy[:, 5:] - free[:, 1:]).max() < 0.1


def test_a_point_that_leaves_the_picture_is_lost():
    ground = texture(64, 160)
    frames = [np.rint(ground[:, 6 * t : 6 * t + 64]).astype(np.uint8) for t in range(10)]
    tracks = lk().track(frames, np.array([[0, 20, 32], [0, 60, 32]]), both_ways=False)
    seen = visible(tracks.visibility, tracks.confidence)
    assert not seen[5:, 0].any()
    assert tracks.visibility[-1, 0] == 0
    assert seen[:, 1].all()


def test_confidence_gives_the_forward_backward_error_back():
    frames = patch_over_background(6, 80, 160, size=40, start=(40, 20), step=(7, 0))
    queries = grid(0, 35, 75)
    loose = lk(forward_backward=8).track(frames, queries, both_ways=False)
    tight = lk(forward_backward=0.5).track(frames, queries, both_ways=False)
    error = {limit: limit * np.sqrt(1 / run.confidence[1] - 1) for limit, run in ((8, loose), (0.5, tight))}
    assert np.allclose(error[8], error[0.5], rtol=1e-2, atol=1e-2)
    assert np.array_equal(visible(tight.visibility, tight.confidence)[1], error[0.5] < 0.5)


def test_looking_only_around_the_points_changes_nothing_to_speak_of(monkeypatch):
    from actionprep.pipeline.trackers import lk as module

    frames = patch_over_background(8, 300, 400, size=60, start=(150, 110), step=(5, 2))
    queries = grid(3, 140, 220, 9)
    near = lk().track(frames, queries, both_ways=True)
    monkeypatch.setattr(module, "MARGIN", 10_000)
    full = lk().track(frames, queries, both_ways=True)
    seen = visible(near.visibility, near.confidence) & visible(full.visibility, full.confidence)
    assert seen.mean() > 0.7
    assert np.abs(near.xy - full.xy)[seen].max() < 0.02


def test_threads_do_not_change_a_bit():
    frames = patch_over_background(6, 120, 160, size=50, start=(30, 30), step=(5, 3))
    before = cv2.getNumThreads()
    result = []
    try:
        for threads in (1, 2, 4):
            cv2.setNumThreads(threads)
            result.append(lk().track(frames, grid(2, 10, 110, 15), both_ways=True))
    finally:
        cv2.setNumThreads(before)
    for other in result[1:]:
        assert np.array_equal(result[0].xy, other.xy)
        assert np.array_equal(result[0].visibility, other.visibility)


def test_the_trackers_can_be_listed_and_a_wrong_name_is_explained():
    assert {"lk", "lk_anchored", "dis", "cotracker3_offline", "cotracker3_online", "cotracker2", "tapnextpp"} <= set(
        TRACKERS
    )
    assert all(TRACKERS.help(name) for name in TRACKERS)
    with pytest.raises(ValueError, match=r"No point tracker 'cotracker3'\. Did you mean 'cotracker\w+'\? Trackers: "):
        TRACKERS.find("cotracker3")


def test_identity_names_the_version_of_opencv():
    assert LucasKanade.identity(TracksSettings()) == {"tracker": "lk", "opencv": cv2.__version__}


def anchored(**settings) -> AnchoredLucasKanade:
    return AnchoredLucasKanade(TracksSettings(**settings))


@pytest.mark.parametrize("both_ways", [False, True])
def test_lk_anchored_drifts_less_than_lk(both_ways: bool):
    # Noise makes the steps drift; the patch of the query does not.
    rng = np.random.default_rng(2)
    ground = texture(96, 128, grain=3)
    velocity = np.array([0.43, 0.21])
    frames = [
        np.clip(shifted(ground, *(t * velocity)) + rng.normal(0, 12, (96, 128)), 0, 255).astype(np.uint8)
        for t in range(31)
    ]
    queries = grid(15 if both_ways else 0, 35, 60)
    truth = queries[None, :, 1:] + (np.arange(31) - queries[0, 0])[:, None, None] * velocity
    errors = [
        np.abs(tracker.track(frames, queries, both_ways=both_ways).xy - truth)[[-1, 0 if both_ways else -1]].mean()
        for tracker in (lk(), anchored())
    ]
    assert errors[1] < 0.8 * errors[0]


def test_lk_anchored_finds_a_covered_point_again():
    frames = patch_over_background(14, 80, 160, size=40, start=(8, 20), step=(8, 0))
    hidden = np.array([[0, 80, y] for y in (30, 35, 40, 45, 50)], float)
    frames += [frames[0]]
    tracks = anchored().track(frames, hidden, both_ways=False)
    seen = visible(tracks.visibility, tracks.confidence)
    assert not seen[8].any()
    result = np.linalg.norm(tracks.xy[-1] - hidden[:, 1:], axis=1) < 0.2
    assert (seen[-1] == result).all()


def test_lk_anchored_keeps_the_query_and_its_past():
    frames = [np.rint(shifted(texture(64, 64), t, 0)).astype(np.uint8) for t in range(5)]
    tracks = anchored().track(frames, np.array([[2, 30.25, 30.5]]), both_ways=False)
    assert tracks.xy[2, 0].tolist() == [30.25, 30.5]
    assert (tracks.xy[:2, 0] == [30.25, 30.5]).all()
    assert tracks.visibility[:2].max() == 0
    assert np.allclose(tracks.xy[3:, 0], [[31.25, 30.5], [32.25, 30.5]], atol=0.1)
