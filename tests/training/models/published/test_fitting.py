"""Adapting weights to a model of another size."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_models import tiny
from weight_fakes import image_vit, official_timesformer, saved, shuffled

from actionprep.errors import UserError
from actionprep.training.models.published.load import load_checkpoint, published_state
from actionprep.training.models.registry import build_model
from actionprep.training.models.timesformer import TimeSformer


def test_other_frames_image_size_and_classes_are_adapted(tmp_path: Path):
    path = saved(tmp_path, {"model_state": official_timesformer(frames=8, patches=9, classes=400)})
    model, _ = tiny("timesformer")
    fresh = model.head.weight.clone()
    report = load_checkpoint(model, path, echo=None)
    assert {f.name for f in report.fitted} == {"pos_embed", "time_embed"}
    assert report.fresh == ("head.weight", "head.bias")
    assert dict(report.left_out) == {
        "head.weight": "400 classes, the model has 3",
        "head.bias": "400 classes, the model has 3",
    }
    assert torch.equal(model.head.weight, fresh)
    # 8 frames to 4 in time, linearly: each new step is the mean of two.
    was = torch.load(path, weights_only=True)["model_state"]["model.time_embed"]
    torch.testing.assert_close(model.time_embed, was.unflatten(1, (4, 2)).mean(2))
    assert "pos_embed: 1 x 10 x 32 → 1 x 5 x 32, 3 x 3 → 2 x 2 patches, bicubic" in str(report)


def test_positions_are_interpolated_in_2d(tmp_path: Path):
    # A table that depends only on the column must do so after interpolation.
    state = official_timesformer(patches=16)
    state["model.pos_embed"][0, 1:] = torch.arange(4.0).repeat(4).unsqueeze(1)
    model = TimeSformer(num_classes=3, num_frames=4, image_size=96, width=32, depth=2, heads=2)
    load_checkpoint(model, saved(tmp_path, state), echo=None)
    table = model.pos_embed[0, 1:].unflatten(0, (6, 6))
    torch.testing.assert_close(table, table[:1].expand_as(table))
    assert (table[0].diff(dim=0) > 0).all()


def test_image_vit_initializes_timesformer(tmp_path: Path):
    state = image_vit()
    model, clip = tiny("timesformer")
    report = load_checkpoint(model, saved(tmp_path, state, "vit.pt"), echo=None)
    assert report.family == "image-vit"
    for i in range(2):
        for part in ("qkv.weight", "qkv.bias", "proj.weight", "proj.bias"):
            assert torch.equal(model.state_dict()[f"blocks.{i}.temporal_attn.{part}"], state[f"blocks.{i}.attn.{part}"])
        assert torch.equal(model.blocks[i].temporal_norm1.weight, state[f"blocks.{i}.norm1.weight"])
        assert (model.blocks[i].temporal_fc.weight == 0).all()
    assert set(report.fresh) == {"time_embed", "head.weight", "head.bias"} | {
        f"blocks.{i}.temporal_fc.{part}" for i in range(2) for part in ("weight", "bias")
    }
    # With a zero time branch, a clip of one frame has the logits of space-only attention.
    space, _ = tiny("timesformer", attention="space")
    load_checkpoint(space, saved(tmp_path, state, "vit.pt"), echo=None)
    space.head.load_state_dict(model.head.state_dict())
    frame = clip[:, :, :1]
    torch.testing.assert_close(model.eval()(frame), space.eval()(frame), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("channels", "factor"), [(1, None), (4, 3 / 4), (6, 3 / 6)])
def test_rgb_weights_are_adapted_to_other_channels(tmp_path: Path, channels: int, factor: float | None):
    state = image_vit()
    model, _ = tiny("timesformer", in_channels=channels)
    load_checkpoint(model, saved(tmp_path, state), echo=None)
    adapted, rgb = model.patch_embed.proj.weight, state["patch_embed.proj.weight"]
    if factor is None:
        torch.testing.assert_close(adapted[:, 0], rgb.sum(1))
    else:
        for c in range(channels):
            torch.testing.assert_close(adapted[:, c], rgb[:, c % 3] * factor)


def test_image_vit_initializes_vivit_at_central_frame(tmp_path: Path):
    state = image_vit()
    model = build_model("vivit-frames", num_classes=3, num_frames=8, image_size=32, width=32, depth=2, heads=2)
    report = load_checkpoint(model, saved(tmp_path, state), echo=None)
    assert report.family == "vivit-image-vit"
    weight = model.patch_embed.proj.weight
    assert torch.equal(weight[:, :, 1], state["patch_embed.proj.weight"])
    assert (weight[:, :, 0] == 0).all()
    table = model.pos_embed[0, 1:].unflatten(0, (4, 4))
    torch.testing.assert_close(table, state["pos_embed"][0, 1:].expand(4, -1, -1))


@pytest.mark.parametrize("frames", [4, 8])
def test_vivit_positions_are_adapted_to_other_lengths(tmp_path: Path, frames: int):
    sizes = {"image_size": 32, "width": 32, "depth": 2, "heads": 2}
    source = shuffled(build_model("vivit-frames", num_classes=3, num_frames=16, **sizes))
    path = saved(tmp_path, published_state(source, family="vivit-transformers"))
    model = build_model("vivit-frames", num_classes=3, num_frames=frames, **sizes)
    report = load_checkpoint(model, path, echo=None)
    assert [f.how for f in report.fitted] == [
        f"8 x 2 x 2 → {frames // 2} x 2 x 2 tubelets, bicubic in space and linear in time"
    ]
    with pytest.raises(
        UserError, match=r"source_grid \(3, 2, 2\) has 12 tubelets, but the position table in the file has 32"
    ):
        load_checkpoint(model, path, source_grid=(3, 2, 2), echo=None)


def test_motionbert_uses_first_frames_of_longer_weights(tmp_path: Path):
    model, _ = tiny("motionbert", num_frames=12)
    other, _ = tiny("motionbert")
    load_checkpoint(other, saved(tmp_path, shuffled(model).state_dict()), echo=None)
    assert torch.equal(other.backbone.temp_embed, model.backbone.temp_embed[:, :8])


def test_keypoint_weights_initialize_heatmap_motionbert(tmp_path: Path):
    keypoints, _ = tiny("motionbert")
    model, _ = tiny("motionbert-heatmap")
    report = load_checkpoint(model, saved(tmp_path, shuffled(keypoints).state_dict()), echo=None)
    assert set(report.fresh) == {"backbone.joints_embed.weight", "backbone.head.weight", "backbone.head.bias"}
    assert (
        dict(report.left_out)["backbone.joints_embed.weight"]
        == "tokens of the file are keypoints, those of the model heatmaps"
    )
