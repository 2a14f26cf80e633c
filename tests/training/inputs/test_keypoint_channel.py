"""The joints as a channel of clips: beside the colors, and alone."""

import numpy as np
import pytest
import torch
from frame_store_fakes import make_frame_store, tiny_pixels, write_frames
from pose_fakes import write_pose
from training_fakes import write_split

from actionprep.api import export_npz
from actionprep.datasets.products.poses import read_pose_item
from actionprep.datasets.split_choice import SplitChoice
from actionprep.datasets.store.opening import open_store
from actionprep.datasets.store.zarr_store import Store
from actionprep.errors import UserError
from actionprep.training.datasets import SnippetDataset
from actionprep.training.fit import fit
from actionprep.training.inputs.frames import FramesInput
from actionprep.training.inputs.lowres import LowresInput
from actionprep.training.inputs.rng import Draws
from actionprep.training.models.pixels import PixelClassifier
from actionprep.training.models.registry import SIGNED
from actionprep.training.test import run_test

WITH_JOINTS = {"frames": 12, "size": 24, "channels": "rgb-keypoints"}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    store = make_frame_store(tmp_path_factory.mktemp("keypoints") / "store", subjects=4)
    for key in store.items("lowres"):
        write_pose(store, key.recording, key.view)
    return store


def batch(store: Store, settings: LowresInput, **options) -> torch.Tensor:
    return SnippetDataset(store, inputs=settings, split=None).batch([0], **options)["clip"]


def test_fourth_channel_has_the_joints_of_the_poses(store):
    clip = batch(store, LowresInput(**WITH_JOINTS))
    assert clip.shape == (1, 4, 12, 24, 24)
    np.testing.assert_array_equal(clip[:, :3], batch(store, LowresInput(frames=12, size=24)))
    poses = read_pose_item(store.item("pose", "s1_left_0", "0"))
    expected = np.zeros((12, 24, 32), np.uint8)
    for frame, person, joint in np.argwhere(poses.score > 0):
        # Videos have 240 x 320 pixels, stored frames 24 x 32: pixel centers move by the half pixels.
        x, y = (poses.keypoints[frame, person, joint] + 0.5) / 10 - 0.5
        expected[frame, min(max(round(float(y)), 0), 23), min(max(round(float(x)), 0), 31)] = 255
    np.testing.assert_array_equal(clip[0, 3], expected[:, :, 4:28])
    assert (clip[0, 3] == 255).sum() > 12


@pytest.mark.parametrize("memory", [4.0, 0.0])
def test_joints_are_cropped_turned_and_mirrored_with_the_colors(store, memory):
    other = {"left": "right", "right": "left", "up": "up"}
    settings = LowresInput(**WITH_JOINTS, memory=memory, flip=0.5, flip_labels=other, crop=(0.7, 1.0), rotation=0.3)
    reader = SnippetDataset(store, inputs=settings, split=None).reader
    images = reader.read([0, 1, 2, 3], Draws(0, 0, [0, 1, 2, 3]))
    images["images"] = images["images"][:, :, :, [3, 3, 3, 3]]
    draws = Draws(1, 0, [0, 1, 2, 3])
    clip = reader.augment(images, draws)["clip"]
    assert clip.shape == (4, 4, 12, 24, 24)
    assert (clip[:, 3].amax((1, 2, 3)) > 0).all()
    torch.testing.assert_close(clip[:, 0], clip[:, 3])


def test_colors_change_and_joints_do_not(store):
    settings = LowresInput(**WITH_JOINTS, brightness=0.5, crop=(1.0, 1.0), around=0.0)
    reader = SnippetDataset(store, inputs=settings, split=None).reader
    clip = reader.augment(reader.read([0], Draws(3, 0, [0])), Draws(4, 0, [0]))["clip"]
    assert set(clip[:, 3].round().unique().tolist()) == {0.0, 255.0}
    assert 40.0 not in clip[:, :3].round().unique().tolist()


def test_single_pixels_survive_a_strong_reduction():
    from actionprep.training.inputs._frames import cut

    images = torch.zeros(1, 2, 4, 64, 64, dtype=torch.uint8)
    images[0, 1, :, 21, 37] = 255
    small = cut(images, torch.tensor([[0.0, 0.0, 64.0, 64.0]]), 16)
    assert small[0, 3, 1, 5, 9] == 255
    assert small[0, 3].sum() == 255
    assert small[0, 0, 1, 5, 9] == pytest.approx(255 / 16)


def test_pixel_classifier_reads_joints_alone_or_beside_colors():
    clip = torch.randint(0, 256, (2, 4, 3, 8, 8), dtype=torch.uint8)
    alone = PixelClassifier(torch.nn.Identity(), SIGNED, channels="keypoints").preprocess(clip)
    torch.testing.assert_close(alone, clip[:, 3:].float() / 255)
    both = PixelClassifier(torch.nn.Identity(), SIGNED, channels="rgb-keypoints").preprocess(clip)
    torch.testing.assert_close(both[:, 3:], alone)
    torch.testing.assert_close(both[:, :3], PixelClassifier(torch.nn.Identity(), SIGNED).preprocess(clip[:, :3]))


@pytest.mark.parametrize("channels", ["keypoints", "rgb-keypoints", "flow", "rgb-flow"])
def test_fit_trains_on_each_kind_of_channels(store, tmp_path, channels):
    recipe = tiny_pixels(epochs=1, input__channels=channels, input__size=24)
    split = SplitChoice(train=("1", "2", "3"), test=("4",))
    run = fit(store, recipe, tmp_path / "run", split=split, tensorboard=False)
    assert run.recipe.reads == ("lowres+pose" if channels.endswith("keypoints") else "lowres")
    assert run_test(run, store, repeats=10)["num_samples"] == len({key.recording for key in store.items("lowres")}) // 4


def test_keypoint_channels_need_poses(tmp_path):
    store = make_frame_store(tmp_path / "store", subjects=1)
    settings = LowresInput(**WITH_JOINTS)
    with pytest.raises(
        UserError, match=r"input\.channels = \"rgb-keypoints\" reads 'pose' beside 'lowres'.*"
    ) as caught:
        batch(store, settings)
    assert "actionprep build pose" in str(caught.value)
    write_pose(store, "s1_left_0")
    with pytest.raises(UserError, match=r"has lowres but no poses in view '0' of .* needs both"):
        batch(store, settings)


@pytest.mark.parametrize("options", [{"dims": 3}, {"image_size": None}])
def test_keypoint_channels_need_poses_in_pixels(tmp_path, options):
    store = make_frame_store(tmp_path / "store", subjects=1)
    for key in store.items("lowres"):
        write_pose(store, key.recording, **options)
    with pytest.raises(UserError, match=r"pose/s1_.*/0 in .* cannot be drawn into frames: .* 2D poses in pixels"):
        batch(store, LowresInput(**WITH_JOINTS))


def test_npz_folders_give_the_same_joints_as_the_store(tmp_path):
    store = make_frame_store(tmp_path / "store", product="frames", subjects=3)
    for key in store.items("frames"):
        images = store.item("frames", key.recording, key.view)["rgb"][:, :, 4:28].copy()
        write_frames(store, key.recording, key.view, images)
        write_pose(store, key.recording, key.view)
    write_split(store, "default", tested="3", val="2")
    made = export_npz(store, tmp_path / "npz", size=24)
    settings = FramesInput(**WITH_JOINTS)
    expected = SnippetDataset(store, inputs=settings, split=None).batch([0])["clip"]
    clip = SnippetDataset(open_store(made.folder), inputs=settings, split=None).batch([0])["clip"]
    assert (expected[:, 3] == 255).any()
    assert torch.equal(clip, expected)
