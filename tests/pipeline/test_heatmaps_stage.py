"""Tests of stored heatmaps: they equal volumes rendered on read, up to rounding."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from pose_items import made_poses, write_npz

from actionprep.api import Study, import_poses
from actionprep.datasets.poses.heatmaps import render
from actionprep.datasets.poses.sequence import PoseSequence
from actionprep.errors import UserError
from actionprep.pipeline import heatmaps
from actionprep.pipeline.heatmaps import HeatmapsSettings


def pose_study(tmp_path, poses: PoseSequence) -> Study:
    write_npz(tmp_path / "data" / "a.npz", poses, label="x")
    return import_poses(tmp_path / "study", [tmp_path / "data"], format="pose-npz").study


@pytest.mark.parametrize(
    ("changes", "axes"),
    [
        ({}, ("time", "channel", "y", "x")),
        ({"kind": "limb", "storage": "raw"}, ("time", "channel", "y", "x")),
        ({"persons": "separate"}, ("time", "person", "channel", "y", "x")),
        ({"compact": False}, ("time", "channel", "y", "x")),
    ],
)
def test_stored_volumes_are_those_that_rendering_gives(tmp_path, monkeypatch, changes, axes):
    monkeypatch.setattr(heatmaps, "_FRAMES_AT_ONCE", 5)
    study = pose_study(tmp_path, made_poses(12, 2))
    assert study.build("heatmaps", overrides={"heatmaps": {"size": (20, 24), **changes}}).ok
    item = study.item("heatmaps", "a", 0)
    assert item["volume"].axes == axes
    poses = study.poses("a", view=0)
    settings = HeatmapsSettings(size=(20, 24), **changes)
    points, score = (torch.from_numpy(entry).movedim(1, 0)[None] for entry in (poses.keypoints, poses.score))
    expected = render(points, score, "coco17", settings, image_size=poses.image_size)[0].movedim(-3, 0).numpy()
    assert np.abs(item["volume"][:] * item.attributes["scale"] - expected).max() <= 0.5 / 255 + 1e-6
    assert len(item.attributes["channels"]) == expected.shape[-3]
    assert item["time"][:].tolist() == poses.time.tolist()
    assert (item.attributes["box"] == [0, 0, 128, 96]) == (not settings.compact)


def test_3d_poses_are_projected(tmp_path):
    study = pose_study(tmp_path, made_poses(6, layout="ntu25", dimensions=3, image_size=None))
    assert study.build("heatmaps", overrides={"heatmaps": {"projection": "yz"}}).ok
    assert study.item("heatmaps", "a", 0)["volume"].shape == (6, 25, 56, 56)


def test_3d_poses_are_seen_by_a_camera(tmp_path):
    study = pose_study(tmp_path, made_poses(6, layout="ntu25", dimensions=3, image_size=None))
    # This camera keeps x and y and knows no depth: what it sees are the poses without z.
    camera = (1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1)
    assert study.build("heatmaps", overrides={"heatmaps": {"camera": camera}}).ok
    poses = study.poses("a", view=0)
    flat = torch.from_numpy(poses.keypoints[..., :2]).movedim(1, 0)[None]
    score = torch.from_numpy(poses.score).movedim(1, 0)[None]
    expected = render(flat, score, "ntu25", HeatmapsSettings(), dtype=torch.uint8)[0].movedim(1, 0).numpy()
    assert np.array_equal(study.item("heatmaps", "a", 0)["volume"][:], expected)
    with pytest.raises(UserError, match="12 numbers, got 3"):
        HeatmapsSettings.read({"camera": (1, 2, 3)}, where="[heatmaps]")


def test_the_whole_image_needs_its_size(tmp_path):
    study = pose_study(tmp_path, made_poses(6, image_size=None))
    with pytest.raises(UserError, match="need its size, which these poses do not have"):
        study.build("heatmaps", overrides={"heatmaps": {"compact": False}})


def test_a_view_without_people_is_quarantined(tmp_path):
    poses = made_poses(6)
    study = pose_study(tmp_path, replace(poses, score=np.where(np.arange(6)[:, None, None] < 2, poses.score, 0)))
    report = study.build("heatmaps", overrides={"pose": {"least_frames": 4}})
    assert "The poses of recording 'a', view 0 have no person in any frame" in next(iter(report.quarantined.values()))
