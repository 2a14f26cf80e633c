"""TimeSformer, compared with that of transformers with equal weights."""

from __future__ import annotations

import pytest
import torch
from tiny_models import tiny

from actionprep.errors import UserError
from actionprep.training.models.published.families import FAMILIES
from actionprep.training.models.timesformer import TimeSformer

SIZES = {"num_frames": 4, "image_size": 32, "patch_size": 8, "width": 24, "depth": 3, "heads": 3}


def pair_of_models(attention: str):
    """Create our model and that of transformers with equal nonzero weights."""
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


def test_space_attention_matches_transformers():
    # transformers returns logits per frame; the published model averages the class tokens of the frames before the
    # last norm.
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


def test_divided_attention_starts_as_image_model():
    # With a zero time branch, a repeated frame has the same logits for any number of repetitions.
    model, _ = tiny("timesformer")
    torch.nn.init.zeros_(model.time_embed)
    frame = torch.randn(1, 3, 1, 32, 32)
    repeated = model.eval()(frame.expand(-1, -1, 4, -1, -1))
    torch.testing.assert_close(model(frame), repeated, rtol=1e-4, atol=1e-5)


def test_only_divided_attention_depends_on_frame_order():
    for attention, sees in (("space", False), ("divided", True)):
        model, clip = tiny("timesformer", attention=attention)
        for p in model.parameters():
            torch.nn.init.normal_(p, std=0.2)
        same = torch.allclose(model.eval()(clip), model(clip.flip(2)), rtol=1e-4, atol=1e-4)
        assert same is not sees


@pytest.mark.parametrize("attention", ["divided", "joint", "space"])
def test_mean_max_pool_reads_all_tokens(attention: str):
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


def test_mean_max_gradients_reach_every_patch():
    model, clip = tiny("timesformer", pool="mean-max", start="scratch", depth=1)
    clip.requires_grad_()
    model.eval()(clip).sum().backward()
    side = model.patch_size
    reached = clip.grad.abs().sum(1).unfold(-2, side, side).unfold(-2, side, side).sum((-1, -2)) > 0
    assert reached.all()


def test_scratch_start_scales_weights_and_uses_time():
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
def test_other_clip_sizes_run(attention: str):
    model, _ = tiny("timesformer", attention=attention)
    assert model(torch.randn(1, 3, 7, 48, 64)).shape == (1, 3)


def test_partial_patches_raise():
    model, _ = tiny("timesformer")
    with pytest.raises(UserError, match="got 4 frames of 30 x 32"):
        model(torch.zeros(1, 3, 4, 30, 32))
    with pytest.raises(UserError, match="multiple of the 16 x 16 patch, got 30 x 30"):
        TimeSformer(num_classes=2, image_size=30)


def test_unknown_attention_raises():
    with pytest.raises(UserError, match="must be 'divided', 'joint' or 'space', got 'axial'"):
        TimeSformer(num_classes=2, attention="axial")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"pool": "mean"}, "pool must be one of class, mean-max, got 'mean'"),
        ({"start": "xavier"}, "start must be one of image, scratch, got 'xavier'"),
    ],
)
def test_unknown_pool_or_start_raises(wrong, message):
    with pytest.raises(UserError, match=message):
        TimeSformer(num_classes=2, **wrong)
