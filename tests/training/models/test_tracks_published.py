"""The published track models: masks, views, state."""

from __future__ import annotations

import pytest
import torch
from tiny_models import tiny

from actionprep.errors import UserError
from actionprep.training.models.maaf import MultiViewTransformer, ViewAttention

MODELS = ["view-transformer-maaf", "track-lstm", "track-cnn-lstm"]


def shaken(name: str, **sizes: object):
    model, x = tiny(name, **sizes)
    for n, p in model.named_parameters():
        if "norm" not in n:
            torch.nn.init.normal_(p, std=0.2)
    return model.eval(), x


@pytest.mark.parametrize("name", MODELS)
def test_invalid_points_are_ignored(name: str):
    model, xy = shaken(name)
    valid = torch.rand(xy.shape[:-1]) < 0.6
    noisy = xy.masked_fill(~valid.unsqueeze(-1), 1e4)
    torch.testing.assert_close(model(xy, valid), model(noisy, valid))


@pytest.mark.parametrize("name", MODELS)
def test_padded_frames_are_ignored(name: str):
    model, xy = shaken(name)
    frame_valid = torch.arange(6) < torch.tensor([[4], [6]])
    noisy = xy.clone()
    noisy[0, 4:] = 100.0
    got = model(noisy, None, frame_valid)
    torch.testing.assert_close(got, model(xy, None, frame_valid))
    alone = model(xy[:1, :4])
    torch.testing.assert_close(got[:1, :4] if got.ndim == 3 else got[:1], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("padding", [1, 2, 3, 9])
def test_transformer_ignores_padding_points(padding: int):
    model, xy = shaken("view-transformer-maaf")
    xy = xy[..., :7, :]
    valid = torch.ones(xy.shape[:-1], dtype=torch.bool)
    longer = torch.nn.functional.pad(xy, (0, 0, 0, padding), value=5.0)
    marks = torch.nn.functional.pad(valid, (0, padding))
    torch.testing.assert_close(model(longer, marks), model(xy, valid), rtol=1e-4, atol=1e-5)


def test_only_faithful_transformer_ignores_frame_order():
    xy = torch.randn(1, 6, 2, 8, 2)
    swapped = xy[:, [1, 0, 2, 3, 4, 5]]
    ours, _ = shaken("view-transformer-maaf")
    assert not torch.allclose(ours(xy), ours(swapped), atol=1e-4)
    original, _ = shaken("view-transformer-maaf", faithful=True)
    torch.testing.assert_close(original(xy), original(swapped), rtol=1e-4, atol=1e-5)


def test_faithful_and_fixed_models_have_equal_weights():
    ours, _ = tiny("view-transformer-maaf")
    original, _ = tiny("view-transformer-maaf", faithful=True)
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in original.state_dict().items()}


def test_clip_without_valid_frames_stays_finite():
    model, xy = shaken("view-transformer-maaf")
    assert model(xy, None, torch.zeros(2, 6, dtype=torch.bool)).isfinite().all()


def test_view_attention_matches_formula():
    torch.manual_seed(0)
    attention = ViewAttention()
    assert attention.conv.kernel_size == (3,)
    xy = torch.randn(1, 1, 3, 4, 2)
    valid = torch.tensor([[[[True, True, False, False], [True] * 4, [False] * 4]]])
    xy = xy.masked_fill(~valid.unsqueeze(-1), 0.0)
    means = torch.zeros(5, 2)
    means[1] = xy[0, 0, 0, :2].mean(0)
    means[2] = xy[0, 0, 1].mean(0)
    kernel = attention.conv.weight[0, 0]
    got = attention(xy, valid)
    for view in range(3):
        weight = (kernel.unsqueeze(1) * means[view : view + 3]).sum(0).sigmoid()
        torch.testing.assert_close(got[0, 0, view], xy[0, 0, view] * weight)


@pytest.mark.parametrize("name", ["track-lstm", "track-cnn-lstm"])
def test_chunks_with_state_equal_full_recording(name: str):
    model, xy = shaken(name)
    whole = model(xy)
    first, state = model.advance(xy[:, :2])
    second, state = model.advance(xy[:, 2:5], state=state)
    third, _ = model.advance(xy[:, 5:], state=state)
    torch.testing.assert_close(torch.cat([first, second, third], 1), whole, rtol=1e-4, atol=1e-5)


def test_state_is_that_of_last_valid_frame():
    model, xy = shaken("track-lstm")
    frame_valid = torch.arange(6) < torch.tensor([[4], [0]])
    _, start = model.advance(xy)
    logits, state = model.advance(xy, None, frame_valid, state=start)
    expected, alone = model.advance(xy[:1, :4], state=type(start)(start.hidden[:, :1], start.cell[:, :1]))
    torch.testing.assert_close(logits[:1, :4], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(state.hidden[:, :1], alone.hidden, rtol=1e-4, atol=1e-5)
    # The second recording has no valid frame, so its state is unchanged.
    torch.testing.assert_close(state.cell[:, 1], start.cell[:, 1])
    assert (logits[1] == 0).all()


@pytest.mark.parametrize("name", ["track-lstm", "track-cnn-lstm"])
def test_lstm_is_causal(name: str):
    model, xy = shaken(name)
    changed = xy.clone()
    changed[:, 3:] += 1.0
    torch.testing.assert_close(model(xy)[:, :3], model(changed)[:, :3])


def test_wrong_number_of_views_or_points_raises():
    transformer, xy = tiny("view-transformer-maaf")
    with pytest.raises(UserError, match=r"Expected 2 views, got 1\. .*num_views=1"):
        transformer(xy[:, :, :1])
    lstm, xy = tiny("track-lstm")
    with pytest.raises(UserError, match="Expected 2 views of 8 points, got 2 views of 7 points"):
        lstm(xy[..., :7, :])
    with pytest.raises(UserError, match="500 x 3 = 1500 must be a multiple of the 8 heads"):
        MultiViewTransformer(num_classes=2, num_views=3)
