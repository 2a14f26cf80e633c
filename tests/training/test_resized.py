"""Frames before and after a learned resizer, and theta."""

import cv2
import numpy as np
import pytest
import torch
from frame_store_fakes import make_frame_store, tiny_pixels
from typer.testing import CliRunner

from actionprep.cli.train import app
from actionprep.datasets.split_choice import SplitChoice
from actionprep.datasets.store.zarr_store import Store
from actionprep.errors import UserError
from actionprep.show.resized import draw_resized, region_corners
from actionprep.training.checkpoints import load_checkpoint
from actionprep.training.fit import fit
from actionprep.training.models.resizers import front_outputs
from actionprep.training.resized import resized_frames
from actionprep.training.run import Run

SPLIT = SplitChoice(train=("1", "2", "3"), test=("4",))
SIZES = {"sizes__size": [4, 24, 24], "sizes__width_multiplier": 0.0625}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return make_frame_store(tmp_path_factory.mktemp("resized") / "store", subjects=4)


@pytest.fixture(scope="module")
def runs(store, tmp_path_factory) -> dict[str, Run]:
    folder = tmp_path_factory.mktemp("resized")
    names = ("i3d-resizer-2d", "i3d-stn-resizer", "i3d-transformer-resizer")
    return {
        name: fit(store, tiny_pixels(name, epochs=1, **SIZES), folder / name, split=SPLIT, tensorboard=False)
        for name in names
    }


@pytest.mark.parametrize("name", ["i3d-resizer-2d", "i3d-stn-resizer", "i3d-transformer-resizer"])
def test_resized_frames_are_those_that_the_classifier_reads(runs, name):
    run = runs[name]
    frames = resized_frames(run)
    assert frames.row == run.facts["split"]["rows"]["test"][0]
    assert frames.stored.shape == (4, 16, 16, 3)
    assert frames.resized.shape == (4, 24, 24, 3)
    assert (frames.theta is None) == (name == "i3d-resizer-2d")
    model = load_checkpoint(run.best).model
    seen = []
    model.model.front.register_forward_hook(lambda module, inputs, output: seen.append((inputs[0], output)))
    clip = torch.from_numpy(frames.stored).permute(3, 0, 1, 2)[None]
    model(clip)
    [(before, after)] = seen
    expected = ((after[0] + 1) * 127.5).round().clamp(0, 255).permute(1, 2, 3, 0)
    assert np.abs(expected.detach().numpy() - frames.resized.astype(float)).max() <= 1
    torch.testing.assert_close(front_outputs(model.model.front, before)[0], after)


def test_front_outputs_returns_theta_of_changed_weights(runs):
    run = runs["i3d-stn-resizer"]
    model = load_checkpoint(run.best).model
    bias = torch.tensor([0.5, 0.0, 0.25, 0.0, 0.5, -0.25])
    with torch.no_grad():
        model.model.front[0].affine[-1].weight.zero_()
        model.model.front[0].affine[-1].bias.copy_(bias)
        clip = torch.randn(1, 3, 4, 16, 16)
        resized, theta = front_outputs(model.model.front, clip)
    torch.testing.assert_close(theta, bias.view(1, 2, 3))
    assert torch.equal(resized, model.model.front(clip))


def test_region_corners_of_an_affine_map():
    assert region_corners(np.eye(2, 3), 20, 40).tolist() == [[0, 0], [40, 0], [40, 20], [0, 20]]
    half = np.array([[0.5, 0, 0.5], [0, 0.5, -0.5]])
    assert region_corners(half, 20, 40).tolist() == [[20, 0], [40, 0], [40, 10], [20, 10]]


def test_draw_resized_marks_the_region():
    frames = np.zeros((2, 16, 16, 3), np.uint8)
    plain = draw_resized(frames, frames, None, title="a")
    theta = np.array([[0.5, 0, 0], [0, 0.5, 0]])
    marked = draw_resized(frames, frames, np.stack([theta, theta]), title="a")
    is_accent = (marked == (0, 168, 150)).all(-1)
    assert is_accent.sum() > 2 * 4 * 112
    assert not (plain == (0, 168, 150)).all(-1).any()


def test_resized_command_writes_an_image_and_prints_theta(runs, tmp_path):
    run = runs["i3d-transformer-resizer"]
    out = tmp_path / "image.png"
    done = CliRunner().invoke(app, ["resized", str(run.folder), "--out", str(out)], env={"COLUMNS": "120"})
    assert done.exit_code == 0, done.output
    assert "shift x" in done.output
    assert cv2.imread(str(out)).shape[2] == 3


def test_resized_frames_refuses_other_models_and_rows(runs, store, tmp_path):
    with pytest.raises(UserError, match=r"Row 999 is in no part of the split of .*; split\.csv lists the rows"):
        resized_frames(runs["i3d-resizer-2d"], row=999)
    plain = fit(store, tiny_pixels(epochs=1), tmp_path / "plain", split=SPLIT, tensorboard=False)
    with pytest.raises(UserError, match=r"i3d-small, has no resizer\. Train one with --recipe i3d-resizer-2d"):
        resized_frames(plain)
    gray = tiny_pixels("i3d-resizer-2d", epochs=1, input__channels="gray", **SIZES)
    run = fit(store, gray, tmp_path / "gray", split=SPLIT, tensorboard=False)
    with pytest.raises(UserError, match=r"reads the channels 'gray', which are no colors"):
        resized_frames(run)
