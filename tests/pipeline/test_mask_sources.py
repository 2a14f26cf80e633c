"""Tests of masks of people: MediaPipe's segmentation with a fake package, and the hull of poses."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from fake_mediapipe import make_environment
from stage_runs import MemoryItem, view_source

from actionprep.datasets.poses.sequence import PoseSequence
from actionprep.datasets.products.masks import unpack_masks
from actionprep.datasets.products.poses import write_pose_item
from actionprep.datasets.store.zarr_store import Store
from actionprep.errors import InputError, SetupError, UserError
from actionprep.pipeline.mask_sources.settings import MasksSettings
from actionprep.pipeline.masks import Masks
from actionprep.pipeline.plan import dependency_order
from actionprep.pipeline.pose import PoseSettings
from actionprep.pipeline.stage import ArrayBlock


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    return make_environment(tmp_path_factory.mktemp("mediapipe"))


def masks_of(frames, settings, done=None):
    source = view_source(*frames.shape[:3])
    item = MemoryItem()
    stage = Masks(settings, source, item, done or {})
    for rows in np.array_split(np.arange(len(frames)), 2):
        stage.push(ArrayBlock(frames[rows], time=source.times[rows], index=rows), {})
    stage.finish({})
    return item, unpack_masks(item["foreground"], frames.shape[2])


def test_person_masks_are_pixels_of_high_probability(environment):
    frames = np.zeros((5, 30, 41, 3), np.uint8)
    for t in range(5):
        frames[t, 5:20, t : t + 9, 1] = 140
        frames[t, 5:20, t + 9 : t + 12, 1] = 100
    item, foreground = masks_of(frames, MasksSettings(source="person", environment=str(environment)))
    assert np.array_equal(foreground, frames[..., 1] == 140)
    assert item.attributes["source"] == "person"
    _, more = masks_of(frames, MasksSettings(source="person", environment=str(environment), person_score=0.3))
    assert np.array_equal(more, frames[..., 1] > 0)


def test_person_crash_names_the_frame_of_the_view(environment):
    frames = np.zeros((6, 30, 41, 3), np.uint8)
    frames[4, 0, 0, 2] = 13
    with pytest.raises(InputError, match="worker stopped with exit code 7") as caught:
        masks_of(frames, MasksSettings(source="person", environment=str(environment)))
    assert (caught.value.frame, caught.value.backend) == (4, "mediapipe")


def test_person_identity_is_the_version_and_the_weights(environment):
    identity = Masks.identity(MasksSettings(source="person", environment=str(environment)))
    assert identity["mediapipe"] == "0.10.21"
    assert len(identity["weights selfie_segmentation.tflite"]) == 64


def test_person_without_mediapipe_names_the_command(tmp_path):
    settings = MasksSettings(source="person", environment=str(tmp_path / "gone"))
    with pytest.raises(SetupError, match=r"install mediapipe\n  alternative  --source motion"):
        Masks.identity(settings)


def test_person_model_that_is_missing_is_named(tmp_path):
    folder = make_environment(tmp_path)
    [model] = folder.glob("lib/python*/site-packages/mediapipe/modules/selfie_segmentation/*.tflite")
    model.unlink()
    with pytest.raises(SetupError, match=r"contain selfie_segmentation\.tflite\.\nInstall it again: actionprep doctor"):
        Masks.identity(MasksSettings(source="person", environment=str(folder)))


def pose_reader(tmp_path, keypoints, score, *, index=None, skeleton="coco17"):
    store = Store(tmp_path / "store", create=True)
    poses = PoseSequence.of(keypoints, score, skeleton=skeleton, frame_index=index, time=np.arange(len(score)) / 15)
    with store.write("pose", "kitchen/seq", "0", fingerprint="f", provenance={}) as item:
        write_pose_item(item, poses, estimator="import")
    return store.item("pose", "kitchen/seq", "0")


def test_pose_masks_are_hulls_of_visible_joints(tmp_path):
    # Two people, a triangle and a rectangle. The frame 2 has no pose. One joint of low score is far away.
    keypoints, score = np.zeros((3, 2, 17, 2), np.float32), np.zeros((3, 2, 17), np.float32)
    triangle, rectangle = [(10, 10), (40, 10), (10, 40)], [(60, 20), (80, 20), (80, 50), (60, 50)]
    for row, corners in enumerate((triangle, rectangle)):
        keypoints[:, row, : len(corners)] = corners
        score[:, row, : len(corners)] = 0.9
    keypoints[:, 0, 10], score[:, 0, 10] = (95, 55), 0.2
    reader = pose_reader(tmp_path, keypoints, score, index=[0, 1, 3])
    settings = MasksSettings(source="pose", margin=0)
    item, foreground = masks_of(np.zeros((4, 60, 100, 3), np.uint8), settings, {"pose": reader})
    y, x = np.mgrid[:60, :100]
    truth = ((x >= 10) & (y >= 10) & (x + y <= 50)) | ((x >= 60) & (x <= 80) & (y >= 20) & (y <= 50))
    for t in (0, 1, 3):
        assert np.array_equal(foreground[t], truth)
    assert not foreground[2].any()
    assert item.attributes["num_empty"] == 1
    assert [needed.product for needed in Masks.inputs(settings)] == ["pose"]


def test_pose_masks_grow_by_the_margin(tmp_path):
    keypoints, score = np.zeros((1, 1, 17, 2), np.float32), np.zeros((1, 1, 17), np.float32)
    keypoints[0, 0, 0], score[0, 0, 0] = (50, 30), 1
    reader = pose_reader(tmp_path, keypoints, score)
    _, foreground = masks_of(
        np.zeros((1, 60, 100, 3), np.uint8), MasksSettings(source="pose", margin=0.1), {"pose": reader}
    )
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (13, 13)).astype(bool)
    assert np.array_equal(foreground[0, 24:37, 44:57], disc)
    assert foreground.sum() == disc.sum()


def test_pose_masks_of_3d_poses_are_an_error(tmp_path):
    reader = pose_reader(tmp_path, np.ones((1, 1, 25, 3), np.float32), np.ones((1, 1, 25)), skeleton="ntu25")
    with pytest.raises(InputError, match=r"poses of kitchen/seq, view 0 are 3D; masks need joints in pixels"):
        masks_of(np.zeros((1, 60, 100, 3), np.uint8), MasksSettings(source="pose"), {"pose": reader})


def test_masks_of_poses_on_masks_are_a_circle():
    settings = {"masks": MasksSettings(source="pose"), "pose": PoseSettings(boxes="masks")}
    with pytest.raises(UserError, match="read each other in a circle: masks → pose → masks"):
        dependency_order(["masks"], settings)
