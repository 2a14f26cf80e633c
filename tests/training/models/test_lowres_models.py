"""I3D, PoseConv3D and the resizers."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from tiny_models import tiny

from actionprep.errors import UserError
from actionprep.training.models.i3d import I3D, SamePool, same_padding
from actionprep.training.models.resizers import (
    POINTS,
    Resizer,
    SpatialTransformer,
    TransformerResizer,
    enlarge,
    warp,
)

PAIRS = [(r, a) for r, a in itertools.product(range(9), repeat=2) if r <= a]


def test_resizer_has_45_point_pairs():
    assert len(PAIRS) == 45
    assert len(POINTS) == 9


@pytest.mark.parametrize(("read_at", "apply_at"), PAIRS)
def test_every_point_pair_starts_as_identity(read_at: int, apply_at: int):
    torch.manual_seed(0)
    model = TransformerResizer(read_at=read_at, apply_at=apply_at, size=(3, 20, 20)).eval()
    clip = torch.randn(2, 3, 3, 12, 12)
    x = enlarge(model.c2(model.c1(clip)), model.size)
    plain = model.c4(model.c3(model.residual_blocks(x)) + x) + enlarge(clip, model.size)
    torch.testing.assert_close(model(clip), plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("read_at", "apply_at"), [(0, 0), (0, 8), (2, 5), (4, 4), (8, 8)])
def test_theta_gets_gradients(read_at: int, apply_at: int):
    torch.manual_seed(0)
    model = TransformerResizer(read_at=read_at, apply_at=apply_at, size=(2, 16, 16))
    model(torch.randn(2, 3, 2, 12, 12)).square().sum().backward()
    assert model.affine[-1].bias.grad.abs().max() > 0
    assert model.scale[-1].bias.grad.abs().max() > 0


@pytest.mark.parametrize("per_frame", [False, True])
def test_theta_is_per_clip_by_default(per_frame: bool):
    model = TransformerResizer(size=(3, 16, 16), per_frame=per_frame).eval()
    theta = model.theta(torch.randn(2, 3, 5, 12, 12))
    assert theta.shape == ((2, 5, 2, 3) if per_frame else (2, 2, 3))
    torch.testing.assert_close(theta, torch.tensor([[1.0, 0, 0], [0, 1, 0]]).expand_as(theta))


@pytest.mark.parametrize("side", [14, 17, 28, 56])
def test_any_input_size_works(side: int):
    clip = torch.randn(1, 3, 2, side, side)
    assert SpatialTransformer().eval()(clip).shape == clip.shape
    assert TransformerResizer(read_at=1, apply_at=6, size=(4, 20, 20)).eval()(clip).shape == (1, 3, 4, 20, 20)


def test_apply_before_read_raises():
    with pytest.raises(UserError, match=r"got read_at=3, apply_at=2\. Points: 0 the input, 1 after"):
        TransformerResizer(read_at=3, apply_at=2)


def test_spatial_transformer_starts_as_identity():
    clip = torch.randn(2, 3, 4, 15, 15)
    torch.testing.assert_close(SpatialTransformer()(clip), clip, rtol=1e-4, atol=1e-4)


def test_spatial_transformer_cuts_frames_along_time():
    # The features of a clip are the mean over its RGB frames.
    torch.manual_seed(0)
    model = SpatialTransformer().eval()
    torch.nn.init.normal_(model.affine[-1].weight)
    clip = torch.randn(1, 3, 4, 12, 12)
    frames = torch.stack([model.localisation(clip[:, :, t]).flatten(1) for t in range(4)], 1)
    theta = model.affine(frames.mean(1)).view(1, 2, 3)
    torch.testing.assert_close(model(clip), warp(clip, theta), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("per_frame", [False, True])
def test_warp_matches_affine_grid_per_frame(per_frame: bool):
    torch.manual_seed(0)
    clip = torch.randn(2, 3, 4, 9, 7)
    theta = torch.eye(2, 3) + 0.3 * torch.randn(2, 4, 2, 3)
    theta = theta if per_frame else theta[:, 0]
    got = warp(clip, theta)
    for t in range(4):
        frame_theta = theta[:, t] if per_frame else theta
        grid = F.affine_grid(frame_theta, [2, 3, 9, 7], align_corners=False)
        expected = F.grid_sample(clip[:, :, t], grid, align_corners=False)
        torch.testing.assert_close(got[:, :, t], expected, rtol=1e-4, atol=1e-4)


def test_warp_bfloat16_samples_in_float32():
    clip = torch.randn(1, 3, 2, 64, 64, dtype=torch.bfloat16)
    same = warp(clip, torch.eye(2, 3, dtype=torch.bfloat16).expand(1, 2, 3))
    assert same.dtype == torch.bfloat16
    assert torch.equal(same, clip)


def test_resizer_with_zero_weights_is_trilinear():
    model = Resizer(size=(5, 20, 20)).eval()
    torch.nn.init.zeros_(model.c4.conv3d.weight)
    clip = torch.randn(1, 3, 3, 10, 10)
    expected = F.interpolate(clip, size=(5, 20, 20), mode="trilinear", align_corners=True)
    torch.testing.assert_close(model(clip), expected)


@pytest.mark.parametrize("frames", [1, 2, 4, 5])
def test_short_clips_match_symmetric_padding(frames: int):
    torch.manual_seed(0)
    model = Resizer(size=(4, 12, 12))
    clip = torch.randn(1, 3, frames, 8, 8)
    torch.testing.assert_close(
        model.c1(clip), F.leaky_relu(F.conv3d(clip, model.c1.conv3d.weight, padding=3), 0.2), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("size", range(1, 12))
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (3, 2), (7, 2), (2, 2)])
def test_same_padding_output_is_ceil_of_size_over_stride(size: int, kernel: int, stride: int):
    before, after = same_padding(size, kernel, stride)
    assert (size + before + after - kernel) // stride + 1 == -(-size // stride)
    assert after - before in (0, 1)


def test_same_pool_equals_zero_padding():
    pool = SamePool((3, 3, 3), (2, 2, 2))
    x = torch.rand(1, 2, 6, 7, 8)
    # Lengths 6 and 8 need one zero at the end, and 7 needs one on each side.
    expected = F.max_pool3d(F.pad(x, (0, 1, 1, 1, 0, 1)), 3, 2)
    assert torch.equal(pool(x), expected)


def test_i3d_reduces_32_frames_of_112_to_4_of_7():
    model = I3D(num_classes=3, width_multiplier=0.0625).eval()
    seen: list[torch.Size] = []
    model.stages["Mixed_5c"].register_forward_hook(lambda *args: seen.append(args[2].shape))
    model(torch.zeros(1, 3, 32, 112, 112))
    assert seen[0][2:] == (4, 7, 7)


def test_i3d_early_pool():
    model = I3D(num_classes=3, width_multiplier=0.0625, early_pool=True).eval()
    assert list(model.stages)[1] == "MaxPool3d_2a_3x3"
    assert model(torch.zeros(1, 3, 9, 40, 33)).shape == (1, 3)


def test_poseconv3d_keeps_time_until_last_stage():
    model, x = tiny("poseconv3d")
    shapes: list[torch.Size] = []
    for stage in model.stages:
        stage.register_forward_hook(lambda *args: shapes.append(args[2].shape))
    model(x)
    assert [tuple(s[2:]) for s in shapes] == [(8, 8, 8), (8, 4, 4), (4, 2, 2)]


def test_poseconv3d_rejects_unequal_stage_settings():
    from actionprep.training.models.poseconv3d import PoseConv3D

    with pytest.raises(UserError, match="one entry per stage, got 2, 3, 3 and 3 entries"):
        PoseConv3D(num_classes=2, stage_blocks=(1, 1))


@pytest.mark.parametrize("widths", [[], [0, 4], [-1], [8, 2.5], 32, "32"])
def test_poseconv3d_small_rejects_wrong_widths(widths: object):
    with pytest.raises(UserError, match=r"at least one convolution, each at least 1, for example .*, got"):
        tiny("poseconv3d-small", widths=widths)


def test_poseconv3d_small_strides():
    model, x = tiny("poseconv3d-small")
    shapes: list[torch.Size] = []
    for unit in model.body:
        unit.register_forward_hook(lambda *args: shapes.append(args[2].shape))
    features = model.features(x)
    assert [tuple(s[2:]) for s in shapes] == [(8, 8, 8), (4, 4, 4), (2, 2, 2)]
    assert features.shape == (2, 2 * shapes[-1][1])
    assert (features[:, shapes[-1][1] :] >= features[:, : shapes[-1][1]]).all()
