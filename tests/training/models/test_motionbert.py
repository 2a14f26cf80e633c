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


def test_padded_frames_cannot_change_the_logits():
    model, x = shaken("motionbert")
    frame_valid = torch.arange(8) < torch.tensor([[5], [8]])
    noisy = x.clone()
    noisy[0, :, 5:] = 100.0
    torch.testing.assert_close(model(x, None, frame_valid), model(noisy, None, frame_valid))
    torch.testing.assert_close(model(x, None, frame_valid)[:1], model(x[:1, :, :5]), rtol=1e-4, atol=1e-5)


def test_an_absent_person_does_not_change_the_logits():
    model, x = shaken("motionbert")
    alone = x[:, :1]
    padded = torch.cat([alone, torch.zeros_like(alone)], 1)
    torch.testing.assert_close(model(padded), model(alone), rtol=1e-4, atol=1e-5)
    nobody = torch.tensor([[True, False], [True, False]])
    torch.testing.assert_close(model(x, person_valid=nobody), model(alone), rtol=1e-4, atol=1e-5)


def test_the_published_head_averages_absent_persons_in():
    model, x = shaken("motionbert", average_absent=True)
    alone = x[:, :1]
    padded = torch.cat([alone, torch.zeros_like(alone)], 1)
    assert not torch.allclose(model(padded), model(alone), atol=1e-3)


def test_the_order_of_persons_does_not_matter():
    model, x = shaken("motionbert")
    torch.testing.assert_close(model(x), model(x.flip(1)), rtol=1e-4, atol=1e-5)


def test_the_order_of_frames_and_joints_matters():
    model, x = shaken("motionbert")
    assert not torch.allclose(model(x), model(x.flip(2)), atol=1e-3)
    assert not torch.allclose(model(x), model(x.flip(3)), atol=1e-3)


def test_the_two_streams_start_with_equal_weights():
    model, _ = tiny("motionbert")
    mix = model.backbone.ts_attn[0]
    alpha = mix(torch.randn(1, 1, 1, 64)).softmax(-1)
    torch.testing.assert_close(alpha, torch.full((1, 1, 1, 2), 0.5))


def test_volumes_are_read_joint_by_joint():
    # A token is one joint's flattened map at one frame: the same numbers as keypoints of H * W channels.
    model, volume = shaken("motionbert-heatmap")
    tokens = volume.flatten(3).permute(0, 2, 1, 3).unsqueeze(1)
    torch.testing.assert_close(model(volume), model(volume.unsqueeze(1)))
    torch.testing.assert_close(model.tokens(volume.unsqueeze(1)), tokens)


def test_longer_clips_than_the_time_embedding_run():
    model, x = tiny("motionbert")
    assert model(torch.cat([x, x, x], 2)).shape == (2, 3)


def test_a_training_batch_of_one_does_not_fail():
    model, x = tiny("motionbert")
    model.train()
    before = model.head.bn.running_mean.clone()
    model(x[:1]).sum().backward()
    assert torch.equal(model.head.bn.running_mean, before)


def test_the_unused_reconstruction_is_not_trained():
    model, x = tiny("motionbert")
    assert not any(p.requires_grad for p in model.backbone.head.parameters())
    assert model.backbone(x[:, 0]).shape == x[:, 0].shape


def test_the_score_may_stand_beside_the_coordinates():
    model, x = shaken("motionbert")
    torch.testing.assert_close(model(x[..., :2], x[..., 2]), model(x))


def test_a_volume_a_person_keeps_persons_apart():
    model, volume = shaken("motionbert-heatmap")
    two = torch.stack([volume, volume.flip(2)], 1)
    torch.testing.assert_close(model(two), model(two.flip(1)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model(torch.stack([volume, torch.zeros_like(volume)], 1)), model(volume))


def test_maps_of_another_size_are_refused():
    model, volume = tiny("motionbert-heatmap")
    with pytest.raises(UserError, match=r"heatmaps of 5 joints on maps of 16 x 16, and got \(2, 1, 5, 8, 12, 12\)"):
        model(volume[..., :12, :12])


def test_another_joint_set_is_refused():
    model, x = tiny("motionbert")
    with pytest.raises(
        UserError, match=r"\(batch, persons, frames, 5 joints, 3 values\), .* and got \(2, 2, 8, 4, 3\)"
    ):
        model(x[..., :4, :])


def test_the_representation_equals_its_streams_put_together_by_hand():
    model, x = shaken("motionbert")
    net, tokens = model.backbone, x[:, 0]

    def attend(attention, norm, tokens, axis):
        # Move the axis that is attended over behind the others and take every row of it for a sequence of its own.
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
