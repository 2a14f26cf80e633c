"""The heatmap transformer: tokens and padding."""

from __future__ import annotations

import pytest
import torch
from tiny_models import tiny

from actionprep.errors import UserError


def shaken(name: str = "heatmap-transformer"):
    model, x = tiny(name)
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


@pytest.mark.parametrize("name", ["heatmap-transformer", "heatmap-transformer-small"])
def test_padded_frames_cannot_change_the_logits(name: str):
    model, x = shaken(name)
    frame_valid = torch.arange(8) < torch.tensor([[4], [8]])
    noisy = x.clone()
    noisy[0, :, 4:] = 50.0
    torch.testing.assert_close(model(x, frame_valid), model(noisy, frame_valid))


def test_the_small_one_sees_mean_and_maximum_of_the_tokens_of_valid_frames():
    model, x = shaken("heatmap-transformer-small")
    tokens = []
    model.norm.register_forward_hook(lambda *args: tokens.append(args[2]))
    found = model.features(x, torch.arange(8) < torch.tensor([[4], [8]]))
    first = tokens[0][0].unflatten(0, (5, 2))[:, 0]  # of two steps of each joint, the first alone is valid
    torch.testing.assert_close(found[0], torch.cat([first.mean(0), first.max(0).values]))
    second = tokens[0][1]
    torch.testing.assert_close(found[1], torch.cat([second.mean(0), second.max(0).values]))


def test_unknown_pooling_is_refused():
    with pytest.raises(UserError, match="Tokens are pooled by one of mean, mean-max, and pool is 'max'"):
        tiny("heatmap-transformer-small", pool="max")


@pytest.mark.parametrize("deviation", [-0.3, float("nan")])
def test_embeddings_are_drawn_with_a_deviation_of_0_or_more(deviation: float):
    with pytest.raises(UserError, match="embed_std is a standard deviation, 0 or more, and came as"):
        tiny("heatmap-transformer-small", embed_std=deviation)


@pytest.mark.parametrize("name", ["heatmap-transformer", "heatmap-transformer-small"])
def test_a_clip_with_no_valid_frame_stays_finite(name: str):
    model, x = shaken(name)
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
