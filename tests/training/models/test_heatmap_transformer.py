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


def test_token_embedding_equals_study_convolution():
    model, x = shaken()
    # The study uses a 2D convolution: 256 map pixels are channels of a frames x joints grid, kernel 4 x 1.
    weight = model.embed.weight.view(32, 4, 256).permute(0, 2, 1).unsqueeze(-1)
    grid = x.flatten(3).permute(0, 3, 2, 1)
    expected = torch.nn.functional.conv2d(grid, weight, model.embed.bias, stride=(4, 1)).permute(0, 3, 2, 1)
    got = model.embed(x.reshape(2, 5, 2, -1))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["heatmap-transformer", "heatmap-transformer-small"])
def test_padded_frames_are_ignored(name: str):
    model, x = shaken(name)
    frame_valid = torch.arange(8) < torch.tensor([[4], [8]])
    noisy = x.clone()
    noisy[0, :, 4:] = 50.0
    torch.testing.assert_close(model(x, frame_valid), model(noisy, frame_valid))


def test_mean_max_pool_uses_valid_tokens():
    model, x = shaken("heatmap-transformer-small")
    tokens = []
    model.norm.register_forward_hook(lambda *args: tokens.append(args[2]))
    features = model.features(x, torch.arange(8) < torch.tensor([[4], [8]]))
    first = tokens[0][0].unflatten(0, (5, 2))[:, 0]  # each joint has two steps; only the first is valid
    torch.testing.assert_close(features[0], torch.cat([first.mean(0), first.max(0).values]))
    second = tokens[0][1]
    torch.testing.assert_close(features[1], torch.cat([second.mean(0), second.max(0).values]))


def test_unknown_pool_raises():
    with pytest.raises(UserError, match="pool must be one of mean, mean-max, got 'max'"):
        tiny("heatmap-transformer-small", pool="max")


@pytest.mark.parametrize("deviation", [-0.3, float("nan")])
def test_invalid_embed_std_raises(deviation: float):
    with pytest.raises(UserError, match="embed_std must be a finite standard deviation of 0 or more, got"):
        tiny("heatmap-transformer-small", embed_std=deviation)


@pytest.mark.parametrize("name", ["heatmap-transformer", "heatmap-transformer-small"])
def test_clip_without_valid_frames_stays_finite(name: str):
    model, x = shaken(name)
    assert model(x, torch.zeros(2, 8, dtype=torch.bool)).isfinite().all()


def test_frame_and_joint_order_matter():
    model, x = shaken()
    torch.nn.init.normal_(model.joint_embed, std=3.0)
    assert not torch.allclose(model(x), model(x.flip(2)), atol=1e-3)
    assert not torch.allclose(model(x), model(x.flip(1)), atol=1e-3)


def test_frame_count_is_free_and_map_size_is_not():
    model, x = shaken()
    assert model(torch.cat([x, x], 2)).shape == (2, 3)
    with pytest.raises(
        UserError, match="maps of 16 x 16 and a multiple of 4 frames, got 5 joints, 8 frames and maps of 16 x 12"
    ):
        model(x[..., :12])
