"""Tests of the common parts of pose backends, of boxes, and of the transformers and MMPose backends."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import pytest

from actionprep.errors import InputError, SetupError, UserError
from actionprep.pipeline import doctor
from actionprep.pipeline.pose_backends import (
    POSE_BACKENDS,
    FramePoses,
    check_frames,
    mmpose,
    open_estimator,
    to_sequence,
)
from actionprep.pipeline.pose_backends.boxes import RTDetrPeople, boxes_from_masks, read_boxes


def test_an_unknown_backend_is_refused_with_the_nearest_name():
    assert list(POSE_BACKENDS) == ["mediapipe", "mediapipe-hands", "mediapipe-holistic", "mmpose", "vitpose"]
    with pytest.raises(UserError, match=r"No pose backend 'mmpse'\. Did you mean 'mmpose'"):
        open_estimator("mmpse")


def test_frame_poses_become_a_sequence_with_slots_for_the_fullest_frame():
    single = FramePoses(np.full((1, 17, 3), 0.5, np.float32), np.array([[1, 2, 3, 4, 0.9]], np.float32))
    pair = FramePoses(np.full((2, 17, 3), 0.25, np.float32), np.ones((2, 5), np.float32))
    poses = to_sequence([single, FramePoses.nobody(17), pair], "coco17", image_size=(10, 20), frame_index=[4, 5, 6])
    assert poses.present.tolist() == [[True, False], [False, False], [True, True]]
    assert poses.bbox[0, 0].tolist() == [1, 2, 3, 4]
    assert poses.frame_index.tolist() == [4, 5, 6]


@pytest.mark.parametrize(
    ("frames", "boxes", "message"),
    [
        (np.zeros((2, 4, 4, 3)), None, r"Frames must be RGB bytes \(frames, height, width, 3\), got float64"),
        (np.zeros((2, 4, 4, 3), np.uint8), [[]], "got 1 lists for 2 frames"),
        (np.zeros((1, 4, 4, 3), np.uint8), [[[1, 2, 3]]], "Boxes of frame 0 must be rows of finite"),
        (np.zeros((1, 4, 4, 3), np.uint8), [[[1, 2, np.nan, 4]]], "Boxes of frame 0 must be rows of finite"),
    ],
)
def test_frames_and_boxes_are_checked(frames, boxes, message):
    with pytest.raises(UserError, match=message):
        check_frames(frames, boxes)


def test_masks_give_the_box_around_them():
    masks = np.zeros((3, 50, 60), bool)
    masks[0, 10:20, 30:45] = True
    masks[1, 5, 5] = True
    boxes = boxes_from_masks(masks)
    assert boxes[0].tolist() == [[30, 10, 45, 20, 1]]
    assert [len(box) for box in boxes] == [1, 0, 0]


def test_boxes_of_a_file_go_to_their_frames(tmp_path):
    path = tmp_path / "boxes.csv"
    path.write_text("frame,left,top,right,bottom,score\n1,1,2,3,4,0.5\n1,5,6,7,8,1\n")
    boxes = read_boxes(path, 3)
    assert [box.tolist() for box in boxes] == [[], [[1, 2, 3, 4, 0.5], [5, 6, 7, 8, 1]], []]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("frame,left,top,right\n", "has no column 'bottom'. It has frame, left, top, right"),
        ("frame,left,top,right,bottom\n7,1,2,3,4\n", "has a box in frame 7; the view has frames 0 to 2"),
        ("frame,left,top,right,bottom\n1,1,,3,4\n", "Row 2 of .* has a value that is not finite"),
        ("frame,left,top,right,bottom\n1,1,x,3,4\n", "The column 'top' in .* must be numbers"),
        ("frame,left,top,right,bottom\n0.5,1,2,3,4\n", "The column 'frame' in .* must be whole numbers"),
        ("frame,left,top,right,bottom\n1,5,2,3,4\n", "Row 2 of .* is not a box: right must exceed left"),
    ],
)
def test_wrong_boxes_files_are_refused(tmp_path, text, message):
    path = tmp_path / "boxes.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_boxes(path, 3)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Save a tiny ViTPose and a tiny RT-DETR with random weights, and return their folder."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("tiny")
    backbone = transformers.VitPoseBackboneConfig(
        image_size=[64, 48],
        patch_size=[16, 16],
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        out_indices=[1],
    )
    config = transformers.VitPoseConfig(backbone_config=backbone, num_labels=17, use_simple_decoder=True)
    transformers.VitPoseForPoseEstimation(config).save_pretrained(folder / "vitpose")
    backbone = transformers.RTDetrResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = transformers.RTDetrConfig(
        backbone_config=backbone, encoder_in_channels=[8, 16, 16], d_model=16, encoder_hidden_dim=16,
        decoder_in_channels=[16, 16, 16], num_queries=6, decoder_layers=1, encoder_ffn_dim=16, decoder_ffn_dim=16,
        encoder_attention_heads=2, decoder_attention_heads=2, id2label={0: "cat", 1: "person"},
        label2id={"cat": 0, "person": 1},
    )  # fmt: skip
    transformers.RTDetrForObjectDetection(config).save_pretrained(folder / "detector")
    return folder


def images(count=2):
    return np.random.default_rng(0).integers(0, 255, (count, 60, 80, 3)).astype(np.uint8)


def test_vitpose_works_on_boxes_in_their_order(tiny):
    estimator = open_estimator("vitpose", model=str(tiny / "vitpose"), detector=None)
    boxes = [[[10, 5, 30, 50], [40, 5, 70, 55]], []]
    first, second = estimator.estimate(images(), boxes)
    assert first.keypoints.shape == (2, 17, 3)
    assert second.keypoints.shape == (0, 17, 3)
    assert first.boxes[:, :4].tolist() == boxes[0]
    [alone, _] = estimator.estimate(images(), [boxes[0][1:], []])
    # Another batch size changes rounding, which can move the peak in the flat heatmaps of random weights.
    same = np.isclose(alone.keypoints[0], first.keypoints[1], atol=1e-3).all(axis=1)
    assert same.mean() > 0.8
    # Joints are in or near their box.
    assert (np.abs(first.keypoints[1, :, :2] - [55, 30]) < 60).all()


def test_vitpose_uses_the_full_frame_or_the_detector(tiny):
    full_frame = open_estimator("vitpose", model=str(tiny / "vitpose"), detector=None)
    assert full_frame.estimate(images())[0].boxes[0].tolist() == [0, 0, 80, 60, 1]
    detected = open_estimator(
        "vitpose", model=str(tiny / "vitpose"), detector=str(tiny / "detector"), person_score=0.0, batch_size=4
    )
    assert [len(frame.keypoints) for frame in detected.estimate(images())] == [6, 6]
    assert detected.identity()["detector"] == str(tiny / "detector")
    assert detected.identity() != full_frame.identity()


def test_detected_people_are_boxes_of_the_person_class_best_first(tiny):
    import torch

    people = RTDetrPeople(str(tiny / "detector"), score=0.4)

    class Answers:
        logits = torch.tensor([[[9.0, -9.0], [-9.0, 0.0], [-9.0, 2.0], [-9.0, -2.0]]])
        pred_boxes = torch.tensor([[[0.5, 0.5, 1, 1], [0.5, 0.5, 0.2, 0.4], [0.25, 0.5, 0.1, 1.0], [0.5, 0.5, 1, 1]]])

    people._model = lambda pixel_values: Answers
    [boxes] = people(images(1))
    assert boxes == pytest.approx(np.array([[16, 0, 24, 60, 0.8808], [32, 18, 48, 42, 0.5]]), abs=1e-3)


def test_missing_weights_name_the_ways_to_get_them(monkeypatch, tmp_path):
    pytest.importorskip("transformers")
    with pytest.raises(SetupError) as caught:
        open_estimator("vitpose", model=str(tmp_path))
    assert f"The weights of VitPoseForPoseEstimation '{tmp_path}' are missing and cannot be downloaded" in str(
        caught.value
    )
    assert "or use       the backend mediapipe; its package contains the model" in str(caught.value)


def test_missing_mmpose_names_the_install_command():
    if importlib.util.find_spec("mmpose") is not None:
        pytest.skip("MMPose is installed here")
    with pytest.raises(SetupError) as caught:
        open_estimator("mmpose")
    assert "do        actionprep doctor --install mmpose\n" in str(caught.value)


def test_stand_ins_are_there_only_while_mmpose_is_imported():
    if importlib.util.find_spec("torchvision") is not None:
        pytest.skip("torchvision is installed here, and real modules are not replaced")
    with mmpose._stand_ins():
        from torchvision.transforms import ToPILImage

        with pytest.raises(SetupError, match=r"This MMPose model needs torchvision\.transforms\.ToPILImage"):
            ToPILImage()
    assert not {"torchvision", "torchvision.transforms", "mmdet", "mmdet.utils", "mmcv.ops"} & set(sys.modules)


def test_stand_ins_do_not_make_torchvision_available():
    utils = pytest.importorskip("transformers.utils")
    if importlib.util.find_spec("torchvision") is not None:
        pytest.skip("torchvision is installed here, and real modules are not replaced")
    # transformers caches the result, so the cache is cleared to test a new process.
    utils.is_torchvision_available.cache_clear()
    with mmpose._stand_ins():
        assert not utils.is_torchvision_available()
    assert not utils.is_torchvision_available()


def test_the_mmpose_recipe_pins_versions(monkeypatch):
    commands = []
    monkeypatch.setattr(mmpose, "_run", lambda command, echo: commands.append(command) or "1.3.2")
    assert doctor.install("mmpose", "/some/python") == "MMPose 1.3.2 is ready."
    assert all(command[0] == "/some/python" for command in commands)
    assert commands[1][5:] == ["--no-deps", "mmpose==1.3.2", "mmengine==0.10.7", "mmcv-lite==2.1.0"]


@pytest.mark.slow
def test_real_mmpose_runs_hrnet_with_random_weights_and_reloads_a_checkpoint(tmp_path):
    if importlib.util.find_spec("mmpose") is None:
        pytest.skip(f"MMPose is not installed here; install it with: {mmpose.INSTALL}")
    import torch

    boxes = [[[10, 5, 30, 50], [40, 5, 70, 55]], []]
    estimator = open_estimator("mmpose", random_weights=True)
    first, second = estimator.estimate(images(), boxes)
    assert (estimator.skeleton, first.keypoints.shape, second.keypoints.shape) == ("coco17", (2, 17, 3), (0, 17, 3))
    # Published checkpoints contain numpy scalars in their metadata.
    path = tmp_path / "weights.pth"
    torch.save({"state_dict": estimator._model.state_dict(), "meta": {"epoch": np.float64(3)}}, path)
    again = open_estimator("mmpose", checkpoint=path)
    assert np.allclose(again.estimate(images(), boxes)[0].keypoints, first.keypoints, atol=1e-4)
    torch.save({"state_dict": {"backbone.conv1.weight": torch.zeros(1)}}, path)
    with pytest.raises((UserError, RuntimeError)):
        open_estimator("mmpose", checkpoint=path)
