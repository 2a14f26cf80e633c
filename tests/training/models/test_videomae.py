"""VideoMAE, compared with that of transformers with equal weights."""

from __future__ import annotations

import pytest
import torch
from tiny_models import tiny

from actionprep.errors import UserError
from actionprep.training.models.published.families import FAMILIES
from actionprep.training.models.videomae import VideoMAE


def test_logits_equal_transformers():
    hf = pytest.importorskip("transformers", reason="transformers is not installed")
    torch.manual_seed(0)
    ours = VideoMAE(num_classes=5, num_frames=4, image_size=32, width=24, depth=3, heads=3, drop_path=0.0).eval()
    for p in ours.parameters():
        torch.nn.init.normal_(p, std=0.2)
    config = hf.VideoMAEConfig(
        image_size=32,
        num_frames=4,
        hidden_size=24,
        num_hidden_layers=3,
        num_attention_heads=3,
        intermediate_size=96,
        num_labels=5,
    )
    theirs = hf.VideoMAEForVideoClassification(config).eval()
    theirs.load_state_dict(FAMILIES["videomae-transformers"].to_theirs(ours.state_dict()), strict=True)
    clip = torch.randn(2, 3, 4, 32, 32)
    with torch.no_grad():
        expected = theirs(clip.transpose(1, 2)).logits
    torch.testing.assert_close(ours(clip), expected, rtol=1e-4, atol=1e-4)


def test_only_query_and_value_have_biases():
    model, clip = tiny("videomae")
    before = model.eval()(clip)
    attention = model.blocks[0].attn
    assert attention.qkv.bias is None
    for bias in (attention.q_bias, attention.v_bias):
        with torch.no_grad():
            bias.normal_(std=3.0)
        after = model(clip)
        assert not torch.allclose(before, after, atol=1e-5)
        before = after


def test_odd_last_frame_is_used():
    # The study lost one of 39 frames; here the last frame is repeated to fill the tubelet.
    model, _ = tiny("videomae")
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.2)
    clip = torch.randn(1, 3, 5, 32, 32)
    changed = clip.clone()
    changed[:, :, 4] += 1.0
    assert not torch.allclose(model.eval()(clip), model(changed), atol=1e-3)
    torch.testing.assert_close(model(clip), model(torch.cat([clip, clip[:, :, 4:]], 2)))


def test_positions_fit_any_frame_count_and_size():
    model, _ = tiny("videomae")
    assert model(torch.randn(1, 3, 10, 48, 64)).shape == (1, 3)


def test_partial_tubelets_raise():
    with pytest.raises(UserError, match="tubelet of 2 frames x 16 x 16 pixels, got 39 frames of 224 x 224"):
        VideoMAE(num_classes=2, num_frames=39)
