"""The heatmap transformer: tokens and padding."""

from __future__ import annotations

import pytest
import torch
from tiny_models import tiny

from actionprep.errors import UserError


def shaken():
    model, x = tiny("heatmap-transformer")
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.2)
    return model.eval(), x


def test_a_token_equals_the_convolution_over_frames_and_one_joint():
    model, x = shaken()
    # The study's convolution: maps as 256 channels of a (frames x joints) picture, kernel 4 frames x 1 joint.
    weight = model.embed.weight.view(32, 4, 256).permute(0, 2, 1).unsqueeze(-1)
    picture = x.flatten(3).permute(0, 3, 2, 1)
    expected = torch.nn.functional.conv2d(picture, weight, model.embed.bias, stride=(4, 1)).permute(0, 3, 2, 1)
    got = model.embed(x.reshape(2, 5, 2, -1))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_padded_frames_cannot_change_the_logits():
    model, x = shaken()
    frame_valid = torch.arange(8) < torch.tensor([[4], [8]])
    noisy = x.clone()
    noisy[0, :, 4:] = 50.0
    torch.testing.assert_close(model(x, frame_valid), model(noisy, frame_valid))


def test_a_clip_with_no_valid_frame_stays_finite():
    model, x = shaken()
    assert model(x, torch.zeros(2, 8, dtype=torch.bool)).isfinite().all()


def test_the_order_of_frames_and_joints_matters():
    model, x = shaken()
    torch.nn.init.normal_(model.joint_embed, std=3.0)
    assert not torch.allclose(model(x), model(x.flip(2)), atol=1e-3)
    assert not torch.allclose(model(x), model(x.flip(1)), atol=1e-3)


def test_other_frame_counts_run_and_other_maps_are_refused():
    model, x = shaken()
    assert model(torch.cat([x, x], 2)).shape == (2, 3)
    with pytest.raises(
        UserError, match="reads 5 joints on maps of 16 x 16, 4 frames a token, and got 5 joints, 8 frames"
    ):
        model(x[..., :12])
