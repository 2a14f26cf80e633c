"""TimeSformer beside transformers' one, with the same weights."""

from __future__ import annotations

import pytest
import torch
from tiny_models import tiny

from actionprep.errors import UserError
from actionprep.training.models.published.families import FAMILIES
from actionprep.training.models.timesformer import TimeSformer

SIZES = {"num_frames": 4, "image_size": 32, "patch_size": 8, "width": 24, "depth": 3, "heads": 3}


def pair_of_models(attention: str):
    """Ours and transformers', both with the weights of ours, none of them zero."""
    hf = pytest.importorskip("transformers", reason="transformers is not installed")
    torch.manual_seed(0)
    ours = TimeSformer(num_classes=5, attention=attention, drop_path=0.0, **SIZES).eval()
    for p in ours.parameters():
        torch.nn.init.normal_(p, std=0.2)
    config = hf.TimesformerConfig(
        image_size=32,
        patch_size=8,
        num_frames=4,
        hidden_size=24,
        num_hidden_layers=3,
        num_attention_heads=3,
        intermediate_size=96,
        attention_type={"divided": "divided_space_time", "joint": "joint_space_time", "space": "space_only"}[attention],
        num_labels=5,
    )
    theirs = hf.TimesformerForVideoClassification(config).eval()
    theirs.load_state_dict(FAMILIES["timesformer-transformers"].to_theirs(ours.state_dict()), strict=True)
    return ours, theirs


@pytest.mark.parametrize("attention", ["divided", "joint"])
def test_logits_equal_transformers(attention: str):
    ours, theirs = pair_of_models(attention)
    clip = torch.randn(2, 3, 4, 32, 32)
    with torch.no_grad():
        expected = theirs(clip.transpose(1, 2)).logits
    torch.testing.assert_close(ours(clip), expected, rtol=1e-4, atol=1e-4)


def test_space_only_equals_transformers_blocks_with_frames_averaged():
    # Transformers leaves the frames of space-only attention unaveraged (a row of logits each); the published model
    # averages the class tokens of the frames before the last norm, which its parts allow to do.
    ours, theirs = pair_of_models("space")
    clip = torch.randn(2, 3, 4, 32, 32)
    with torch.no_grad():
        inner = theirs.timesformer
        tokens = inner.encoder(inner.embeddings(clip.transpose(1, 2)))[0]
        cls = tokens[:, 0].view(2, 4, -1).mean(1)
        expected = theirs.classifier(inner.layernorm(cls))
    torch.testing.assert_close(ours(clip), expected, rtol=1e-4, atol=1e-4)


def test_gradients_equal_transformers():
    ours, theirs = pair_of_models("divided")
    clip = torch.randn(2, 3, 4, 32, 32)
    ours(clip).square().sum().backward()
    theirs(clip.transpose(1, 2)).logits.square().sum().backward()
    gradients = {n: p.grad for n, p in ours.named_parameters()}
    expected = FAMILIES["timesformer-transformers"].to_ours({n: p.grad for n, p in theirs.named_parameters()})
    for name, gradient in gradients.items():
        scale = expected[name].abs().max()
        torch.testing.assert_close(gradient / scale, expected[name] / scale, rtol=1e-3, atol=1e-4)


def test_divided_attention_starts_as_an_image_model_on_each_frame():
    # With its time branch at zero, a clip of one repeated frame gives what any order and number of that frame gives.
    model, _ = tiny("timesformer")
    torch.nn.init.zeros_(model.time_embed)
    frame = torch.randn(1, 3, 1, 32, 32)
    many = model.eval()(frame.expand(-1, -1, 4, -1, -1))
    torch.testing.assert_close(model(frame), many, rtol=1e-4, atol=1e-5)


def test_space_only_cannot_see_the_order_of_frames_and_divided_can():
    for attention, sees in (("space", False), ("divided", True)):
        model, clip = tiny("timesformer", attention=attention)
        for p in model.parameters():
            torch.nn.init.normal_(p, std=0.2)
        same = torch.allclose(model.eval()(clip), model(clip.flip(2)), rtol=1e-4, atol=1e-4)
        assert same is not sees


@pytest.mark.parametrize("attention", ["divided", "joint", "space"])
def test_the_head_may_see_mean_and_maximum_of_all_tokens(attention: str):
    model, clip = tiny("timesformer", attention=attention, pool="mean-max", drop_path=0.0)
    seen = []
    model.norm.register_forward_hook(lambda _, __, tokens: seen.append(tokens))
    features = model.eval().features(clip)
    [tokens] = seen
    batch, _, frames, height, width = clip.shape
    side = model.patch_size
    assert tokens.shape[:2] == (batch, frames * (height // side) * (width // side))
    torch.testing.assert_close(features, torch.cat([tokens.mean(1), tokens.amax(1)], 1))
    assert model(clip).shape == (batch, 3)


def test_every_token_reaches_a_head_that_pools_them():
    model, clip = tiny("timesformer", pool="mean-max", start="scratch", depth=1)
    clip.requires_grad_()
    model.eval()(clip).sum().backward()
    side = model.patch_size
    reached = clip.grad.abs().sum(1).unfold(-2, side, side).unfold(-2, side, side).sum((-1, -2)) > 0
    assert reached.all()


def test_a_start_from_scratch_fits_the_width_and_sees_time_at_once():
    torch.manual_seed(0)
    wide, narrow = (TimeSformer(num_classes=3, start="scratch", **{**SIZES, "width": width}) for width in (96, 24))
    for name, deviation in (("attn.qkv", 1 / 2), ("mlp.fc1", 2 / 5)):
        for model, width in ((wide, 96), (narrow, 24)):
            weight = model.blocks[0].get_submodule(name).weight.detach()
            assert float(weight.std()) == pytest.approx((deviation / width) ** 0.5, rel=0.06)
    clip = torch.randn(2, 3, 4, 32, 32)
    published = TimeSformer(num_classes=3, **SIZES)
    for model, sees in ((narrow, True), (published, False)):
        same = torch.allclose(model.eval()(clip), model(clip.flip(2)), rtol=1e-3, atol=1e-4)
        assert same is not sees


@pytest.mark.parametrize("attention", ["divided", "joint", "space"])
def test_clips_of_another_length_and_size_run(attention: str):
    model, _ = tiny("timesformer", attention=attention)
    assert model(torch.randn(1, 3, 7, 48, 64)).shape == (1, 3)


def test_a_crop_that_is_no_whole_patches_is_refused():
    model, _ = tiny("timesformer")
    with pytest.raises(UserError, match="4 frames of 30 x 32 are no multiple"):
        model(torch.zeros(1, 3, 4, 30, 32))
    with pytest.raises(UserError, match="patches of 16 x 16 pixels, and 30 x 30 is no multiple"):
        TimeSformer(num_classes=2, image_size=30)


def test_an_unknown_attention_is_refused():
    with pytest.raises(UserError, match="'divided', 'joint' or over 'space', not 'axial'"):
        TimeSformer(num_classes=2, attention="axial")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"pool": "mean"}, "pools by one of class, mean-max, and pool is 'mean'"),
        ({"start": "xavier"}, "starts from one of image, scratch, and start is 'xavier'"),
    ],
)
def test_an_unknown_pool_or_start_is_refused(wrong, message):
    with pytest.raises(UserError, match=message):
        TimeSformer(num_classes=2, **wrong)
