"""Tests of chained dense flow: known motion, covered points, small frames, and independence of threads."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from stage_runs import patch_over_background, shifted, texture

from actionprep.datasets.products.tracks import visible
from actionprep.pipeline.trackers.dis import DenseFlow
from actionprep.pipeline.trackers.settings import TracksSettings


def dis(**settings) -> DenseFlow:
    return DenseFlow(TracksSettings(tracker="dis", **settings))


def moving(num_frames: int, velocity: tuple[float, float], height: int = 96, width: int = 128) -> list[np.ndarray]:
    ground = texture(height, width, grain=3)
    return [np.rint(shifted(ground, *(t * np.array(velocity)))).astype(np.uint8) for t in range(num_frames)]


@pytest.mark.parametrize("both_ways", [False, True])
def test_dis_recovers_shift(both_ways: bool):
    velocity = np.array([1.3, -0.7])
    frames = moving(8, (1.3, -0.7))
    queries = np.array([[3, x, y] for x in (40, 55.5, 70) for y in (35, 48.25, 60)], float)
    tracks = dis().track(frames, queries, both_ways=both_ways)
    truth = queries[None, :, 1:] + (np.arange(8) - 3)[:, None, None] * velocity
    rows = slice(None) if both_ways else slice(3, None)
    assert np.abs(tracks.xy - truth)[rows].max() < 0.5
    assert visible(tracks.visibility, tracks.confidence)[rows].all()
    assert np.array_equal(tracks.xy[3], queries[:, 1:].astype(np.float32))


def test_dis_loses_covered_points():
    frames = patch_over_background(14, 80, 160, size=40, start=(8, 20), step=(8, 0))
    hidden = np.array([[0, 80, y] for y in (35, 40, 45)], float)
    free = np.array([[0, x, 8] for x in (120, 150)], float)
    seen_at = dis().track(frames, np.concatenate([hidden, free]), both_ways=False)
    seen = visible(seen_at.visibility, seen_at.confidence)
    assert seen[:3].all()
    assert not seen[-1, :3].any()


def test_dis_loses_points_that_leave():
    ground = texture(64, 160)
    frames = [np.rint(ground[:, 6 * t : 6 * t + 64]).astype(np.uint8) for t in range(8)]
    tracks = dis().track(frames, np.array([[0, 12, 32]]), both_ways=False)
    assert not visible(tracks.visibility, tracks.confidence)[-3:, 0].any()


@pytest.mark.parametrize("size", [(8, 40), (40, 8), (1, 1)])
def test_dis_takes_small_frames(size: tuple[int, int]):
    frames = [np.zeros(size, np.uint8)] * 3
    tracks = dis().track(frames, np.array([[0, 0, 0]]), both_ways=True)
    assert np.array_equal(tracks.xy, np.zeros((3, 1, 2), np.float32))


def test_dis_does_not_depend_on_threads():
    frames = moving(4, (2.2, 1.1), 160, 200)
    queries = np.array([[1, x, y] for x in range(20, 180, 12) for y in range(20, 140, 12)], float)
    before, results = cv2.getNumThreads(), []
    try:
        for threads in (1, 2, 5):
            cv2.setNumThreads(threads)
            results.append(dis().track(frames, queries, both_ways=True))
    finally:
        cv2.setNumThreads(before)
    for other in results[1:]:
        assert np.array_equal(results[0].xy, other.xy)
        assert np.array_equal(results[0].visibility, other.visibility)


def test_dis_identity_names_its_backend():
    assert DenseFlow.identity(TracksSettings()) == {"tracker": "dis", "opencv": cv2.__version__}
