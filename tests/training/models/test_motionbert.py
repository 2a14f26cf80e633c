"""MotionBERT: masks, persons, streams."""

from __future__ import annotations

import pytest
import torch
from tiny_models import tiny

from actionprep.errors import UserError


def shaken(name: str, **sizes: object):
    model, x = tiny(name, **sizes)
    for n, p in model.named_parameters():
        if "bn" not in n:
            torch.nn.init.normal_(p, std=0.2)
    return model.eval(), x


def test_padded_frames_are_ignored():
    model, x = shaken("motionbert")
    frame_valid = torch.arange(8) < torch.tensor([[5], [8]])
    noisy = x.clone()
    noisy[0, :, 5:] = 100.0
    torch.testing.assert_close(model(x, None, frame_valid), model(noisy, None, frame_valid))
    torch.testing.assert_close(model(x, None, frame_valid)[:1], model(x[:1, :, :5]), rtol=1e-4, atol=1e-5)


def test_absent_person_is_ignored():
    model, x = shaken("motionbert")
    alone = x[:, :1]
    padded = torch.cat([alone, torch.zeros_like(alone)], 1)
    torch.testing.assert_close(model(padded), model(alone), rtol=1e-4, atol=1e-5)
    first_only = torch.tensor([[True, False], [True, False]])
    torch.testing.assert_close(model(x, person_valid=first_only), model(alone), rtol=1e-4, atol=1e-5)


def test_average_absent_includes_absent_persons():
    model, x = shaken("motionbert", average_absent=True)
    alone = x[:, :1]
    padded = torch.cat([alone, torch.zeros_like(alone)], 1)
    assert not torch.allclose(model(padded), model(alone), atol=1e-3)


def test_person_order_is_irrelevant():
    model, x = shaken("motionbert")
    torch.testing.assert_close(model(x), model(x.flip(1)), rtol=1e-4, atol=1e-5)


def test_frame_and_joint_order_matter():
    model, x = shaken("motionbert")
    assert not torch.allclose(model(x), model(x.flip(2)), atol=1e-3)
    assert not torch.allclose(model(x), model(x.flip(3)), atol=1e-3)


def test_streams_start_with_equal_weights():
    model, _ = tiny("motionbert")
    mix = model.backbone.ts_attn[0]
    alpha = mix(torch.randn(1, 1, 1, 64)).softmax(-1)
    torch.testing.assert_close(alpha, torch.full((1, 1, 1, 2), 0.5))


def test_heatmap_tokens_are_flattened_maps():
    # A token is the flattened map of one joint at one frame, like a keypoint with H * W channels.
    model, volume = shaken("motionbert-heatmap")
    tokens = volume.flatten(3).permute(0, 2, 1, 3).unsqueeze(1)
    torch.testing.assert_close(model(volume), model(volume.unsqueeze(1)))
    torch.testing.assert_close(model.tokens(volume.unsqueeze(1)), tokens)


def test_clip_longer_than_time_embedding_runs():
    model, x = tiny("motionbert")
    assert model(torch.cat([x, x, x], 2)).shape == (2, 3)


def test_training_batch_of_one_runs():
    model, x = tiny("motionbert")
    model.train()
    before = model.head.bn.running_mean.clone()
    model(x[:1]).sum().backward()
    assert torch.equal(model.head.bn.running_mean, before)


def test_reconstruction_head_is_frozen():
    model, x = tiny("motionbert")
    assert not any(p.requires_grad for p in model.backbone.head.parameters())
    assert model.backbone(x[:, 0]).shape == x[:, 0].shape


def test_score_can_be_a_separate_input():
    model, x = shaken("motionbert")
    torch.testing.assert_close(model(x[..., :2], x[..., 2]), model(x))


def test_one_volume_per_person_is_order_invariant():
    model, volume = shaken("motionbert-heatmap")
    two = torch.stack([volume, volume.flip(2)], 1)
    torch.testing.assert_close(model(two), model(two.flip(1)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model(torch.stack([volume, torch.zeros_like(volume)], 1)), model(volume))


def test_wrong_map_size_raises():
    model, volume = tiny("motionbert-heatmap")
    with pytest.raises(UserError, match=r"heatmaps of 5 joints on maps of 16 x 16, got \(2, 1, 5, 8, 12, 12\)"):
        model(volume[..., :12, :12])


def test_wrong_joint_count_raises():
    model, x = tiny("motionbert")
    with pytest.raises(UserError, match=r"\(batch, persons, frames, 5 joints, 3 values\), .* got \(2, 2, 8, 4, 3\)"):
        model(x[..., :4, :])


def test_representation_matches_streams_by_hand():
    model, x = shaken("motionbert")
    net, tokens = model.backbone, x[:, 0]

    def attend(attention, norm, tokens, axis):
        # Move the attended axis to the end and treat each of its rows as a sequence.
        moved = norm(tokens).movedim(axis, -2)
        return attention(moved.flatten(0, -3)).view_as(moved).movedim(-2, axis)

    def over_joints(block, h):
        h = h + attend(block.attn_s, block.norm1_s, h, 2)
        return h + block.mlp_s(block.norm2_s(h))

    def over_time(block, h):
        h = h + attend(block.attn_t, block.norm1_t, h, 1)
        return h + block.mlp_t(block.norm2_t(h))

    h = net.joints_embed(tokens) + net.pos_embed.unsqueeze(1) + net.temp_embed
    for st, ts, mix in zip(net.blocks_st, net.blocks_ts, net.ts_attn, strict=True):
        first, second = over_time(st, over_joints(st, h)), over_joints(ts, over_time(ts, h))
        share = mix(torch.cat([first, second], -1)).softmax(-1)
        h = first * share[..., 0:1] + second * share[..., 1:2]
    expected = net.pre_logits["fc"](net.norm(h)).tanh()
    torch.testing.assert_close(net.represent(tokens), expected, rtol=1e-4, atol=1e-5)
