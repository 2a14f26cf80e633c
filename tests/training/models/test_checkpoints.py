"""Published weights: every layout loads wholly, what does not fit is refused with the reason."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import tiny

from actionprep.errors import UserError
from actionprep.training.models.checkpoints import FAMILIES, load_checkpoint, published_state
from actionprep.training.models.i3d import I3D
from actionprep.training.models.pixels import PixelClassifier
from actionprep.training.models.registry import HALF, build_model
from actionprep.training.models.timesformer import TimeSformer


def shuffled(model: torch.nn.Module) -> torch.nn.Module:
    """The model with other weights."""
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand_like(tensor))
    return model


def saved(tmp_path: Path, content: object, name: str = "weights.pyth") -> Path:
    path = tmp_path / name
    torch.save(content, path)
    return path


def official_timesformer(**sizes: object) -> dict[str, torch.Tensor]:
    """Weights in the published layout, keys written out as the published files have them."""
    width, depth, patches, frames, classes = 32, 2, 4, sizes.get("frames", 4), sizes.get("classes", 3)
    shapes = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, 1 + sizes.get("patches", patches), width),
        "time_embed": (1, frames, width),
        "patch_embed.proj.weight": (width, 3, 16, 16),
        "patch_embed.proj.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
        "head.weight": (classes, width),
        "head.bias": (classes,),
    }
    for i in range(depth):
        for part, shape in {
            "norm1": (width,),
            "temporal_norm1": (width,),
            "norm2": (width,),
            "attn.qkv": (3 * width, width),
            "attn.proj": (width, width),
            "temporal_attn.qkv": (3 * width, width),
            "temporal_attn.proj": (width, width),
            "temporal_fc": (width, width),
            "mlp.fc1": (4 * width, width),
            "mlp.fc2": (width, 4 * width),
        }.items():
            shapes[f"blocks.{i}.{part}.weight"] = shape
            shapes[f"blocks.{i}.{part}.bias"] = shape[:1]
    return {f"model.{key}": torch.randn(shape) for key, shape in shapes.items()}


def test_the_official_timesformer_layout_loads_wholly(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    state = official_timesformer()
    content = {
        "epoch": 15,
        "model_state": state,
        "optimizer_state": {"state": {}},
        "cfg": "TRAIN:\n  DATASET: kinetics\n",
    }
    model, _ = tiny("timesformer")
    report = load_checkpoint(model, saved(tmp_path, content))
    assert report.complete
    assert report.family == "timesformer"
    assert report.color_order == "RGB"
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[f"model.{name}"])
    assert (
        f"{len(state)} of {len(state)} loaded, 0 of them fitted, 0 tensors of the file left out"
        in capsys.readouterr().out
    )


def test_something_something_weights_are_recognised_as_bgr(tmp_path: Path):
    content = {"model_state": official_timesformer(), "cfg": "DATA:\n  X: 1\nTRAIN:\n  DATASET: ssv2\n"}
    report = load_checkpoint(tiny("timesformer")[0], saved(tmp_path, content), echo=None)
    assert report.color_order == "BGR"
    assert "expect BGR frames" in str(report)


@pytest.mark.parametrize("wrap", ["bare", "model", "state_dict", "module."])
def test_wrappers_of_state_dicts_are_taken_off(tmp_path: Path, wrap: str):
    state = official_timesformer()
    content = {
        "bare": state,
        "model": {"model": state},
        "state_dict": {"state_dict": state},
        "module.": {f"module.{k}": v for k, v in state.items()},
    }[wrap]
    assert load_checkpoint(tiny("timesformer")[0], saved(tmp_path, content), echo=None).complete


def test_another_frame_count_image_size_and_class_count_are_fitted(tmp_path: Path):
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


def test_positions_keep_their_rows_and_columns(tmp_path: Path):
    # A table that knows its column only must still know its column only in a grid of another size.
    state = official_timesformer(patches=16)
    state["model.pos_embed"][0, 1:] = torch.arange(4.0).repeat(4).unsqueeze(1)
    model = TimeSformer(num_classes=3, num_frames=4, image_size=96, width=32, depth=2, heads=2)
    load_checkpoint(model, saved(tmp_path, state), echo=None)
    table = model.pos_embed[0, 1:].unflatten(0, (6, 6))
    torch.testing.assert_close(table, table[:1].expand_as(table))
    assert (table[0].diff(dim=0) > 0).all()


def image_vit(classes: int = 1000) -> dict[str, torch.Tensor]:
    state = {k.removeprefix("model."): v for k, v in official_timesformer(classes=classes).items()}
    return {k: v for k, v in state.items() if "temporal" not in k and k != "time_embed"}


def test_an_image_vit_starts_timesformer_with_copied_temporal_weights(tmp_path: Path):
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
    # With the time branch still silent, a clip of one picture gives what space-only attention gives.
    space, _ = tiny("timesformer", attention="space")
    load_checkpoint(space, saved(tmp_path, state, "vit.pt"), echo=None)
    space.head.load_state_dict(model.head.state_dict())
    picture = clip[:, :, :1]
    torch.testing.assert_close(model.eval()(picture), space.eval()(picture), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("channels", "factor"), [(1, None), (4, 3 / 4), (6, 3 / 6)])
def test_other_input_channels_are_made_from_rgb(tmp_path: Path, channels: int, factor: float | None):
    state = image_vit()
    model, _ = tiny("timesformer", in_channels=channels)
    load_checkpoint(model, saved(tmp_path, state), echo=None)
    got, rgb = model.patch_embed.proj.weight, state["patch_embed.proj.weight"]
    if factor is None:
        torch.testing.assert_close(got[:, 0], rgb.sum(1))
    else:
        for c in range(channels):
            torch.testing.assert_close(got[:, c], rgb[:, c % 3] * factor)


def test_an_image_vit_starts_vivit_at_the_central_frame(tmp_path: Path):
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
def test_vivit_positions_of_another_length_are_fitted(tmp_path: Path, frames: int):
    sizes = {"image_size": 32, "width": 32, "depth": 2, "heads": 2}
    source = shuffled(build_model("vivit-frames", num_classes=3, num_frames=16, **sizes))
    path = saved(tmp_path, published_state(source, family="vivit-transformers"))
    model = build_model("vivit-frames", num_classes=3, num_frames=frames, **sizes)
    report = load_checkpoint(model, path, echo=None)
    assert [f.how for f in report.fitted] == [
        f"8 x 2 x 2 → {frames // 2} x 2 x 2 tubelets, bicubic in space and linear in time"
    ]
    with pytest.raises(
        UserError, match=r"source_grid \(3, 2, 2\) is 12 tubelets, and the position table in the file has 32"
    ):
        load_checkpoint(model, path, source_grid=(3, 2, 2), echo=None)


def test_vivit_weights_as_the_hub_has_them_load_wholly(tmp_path: Path):
    model, _ = tiny("vivit-frames")
    new = published_state(shuffled(model), family="vivit-transformers")
    assert {k.split(".")[1] for k in new if k.startswith("vivit.")} == {"embeddings", "layers", "layernorm"}
    names = {
        "attention.q_proj": "attention.attention.query",
        "attention.k_proj": "attention.attention.key",
        "attention.v_proj": "attention.attention.value",
        "attention.o_proj": "attention.output.dense",
        "mlp.fc1": "intermediate.dense",
        "mlp.fc2": "output.dense",
    }
    old = {}
    for key, tensor in new.items():
        key = re.sub(r"^vivit\.layers\.", "vivit.encoder.layer.", key)
        for ours, theirs in names.items():
            key = key.replace(ours, theirs)
        old[key] = tensor
    other, _ = tiny("vivit-frames")
    assert load_checkpoint(other, saved(tmp_path, old), echo=None).complete
    assert all(torch.equal(a, b) for a, b in zip(other.state_dict().values(), model.state_dict().values(), strict=True))


def test_videomae_in_its_three_layouts(tmp_path: Path):
    model, _ = tiny("videomae")
    official = published_state(shuffled(model), family="videomae")
    assert "blocks.0.attn.q_bias" in official
    new = published_state(model, family="videomae-transformers")
    assert "videomae.encoder.layer.0.attention.attention.query.bias" in new
    old = {k.replace("query.bias", "q_bias").replace("value.bias", "v_bias"): v for k, v in new.items()}
    for state in (official, new, old):
        other, _ = tiny("videomae")
        assert load_checkpoint(other, saved(tmp_path, state), echo=None).complete
        assert torch.equal(other.blocks[1].attn.qkv.weight, model.blocks[1].attn.qkv.weight)
        assert torch.equal(other.blocks[1].attn.v_bias, model.blocks[1].attn.v_bias)


def test_videomae_pretraining_files_give_their_encoder(tmp_path: Path):
    model, _ = tiny("videomae")
    encoder = {k: v for k, v in shuffled(model).state_dict().items() if not k.startswith(("head", "fc_norm"))}
    state = {f"encoder.{k}": v for k, v in encoder.items()} | {
        "decoder.head.weight": torch.zeros(3),
        "mask_token": torch.zeros(3),
    }
    other, _ = tiny("videomae")
    report = load_checkpoint(other, saved(tmp_path, {"model": state}), echo=None)
    assert set(report.fresh) == {"fc_norm.weight", "fc_norm.bias", "head.weight", "head.bias"}
    assert {name for name, _ in report.left_out} == {"decoder.head.weight", "mask_token"}


def charades_state(model: I3D) -> dict[str, torch.Tensor]:
    """The keys of piergiaj/pytorch-i3d, put together by hand."""
    state = {}
    for name, tensor in model.state_dict().items():
        if name.startswith("stages."):
            state[name.removeprefix("stages.")] = tensor
        else:
            state[name.replace("head", "logits.conv3d")] = (
                tensor[:, :, None, None, None] if tensor.ndim == 2 else tensor
            )
    return state


@pytest.mark.parametrize("prefix", ["", "model.", "module."])
def test_charades_weights_of_i3d_load_wholly(tmp_path: Path, prefix: str):
    model = shuffled(I3D(num_classes=4, width_multiplier=0.0625))
    state = charades_state(model)
    assert "Mixed_3b.b1a.conv3d.weight" in state
    assert "Conv3d_1a_7x7.bn.running_mean" in state
    # The TinyVIRAT layout has `model.` on all but the head; files of torch 0.3 have no counters.
    state = {
        k if prefix == "model." and "logits" in k else prefix + k: v for k, v in state.items() if "num_batches" not in k
    }
    other = I3D(num_classes=4, width_multiplier=0.0625)
    assert load_checkpoint(other, saved(tmp_path, state), echo=None).complete
    clip = torch.randn(1, 3, 8, 32, 32)
    torch.testing.assert_close(other.eval()(clip), model.eval()(clip))


def test_kinetics_weights_of_i3d_load_wholly_and_go_back(tmp_path: Path):
    model = shuffled(I3D(num_classes=4, width_multiplier=0.0625))
    state = published_state(model, family="i3d-kinetics")
    for key in (
        "conv3d_1a_7x7.conv3d.weight",
        "conv3d_2c_3x3.batch3d.running_var",
        "mixed_4f.branch_0.conv3d.weight",
        "mixed_5b.branch_2.1.batch3d.weight",
        "mixed_3c.branch_3.1.conv3d.weight",
        "conv3d_0c_1x1.conv3d.bias",
    ):
        assert key in state
    assert state["conv3d_0c_1x1.conv3d.weight"].shape[2:] == (1, 1, 1)
    other = I3D(num_classes=4, width_multiplier=0.0625)
    assert load_checkpoint(other, saved(tmp_path, state), echo=None).complete


def test_i3d_weights_reach_the_classifier_behind_a_front_end(tmp_path: Path):
    i3d = shuffled(I3D(num_classes=157, width_multiplier=0.0625))
    model, _ = tiny("i3d-stn-resizer")
    report = load_checkpoint(model, saved(tmp_path, charades_state(i3d)), echo=None)
    assert dict(report.left_out)["head.weight"] == "157 classes, the model has 3"
    assert report.fresh == ("head.weight", "head.bias")
    assert torch.equal(model.stages["Mixed_5c"].b0.conv3d.weight, i3d.stages["Mixed_5c"].b0.conv3d.weight)
    own = saved(tmp_path, shuffled(model).state_dict(), "own.pt")
    other, _ = tiny("i3d-stn-resizer")
    assert load_checkpoint(other, own, echo=None).complete
    assert torch.equal(other.front[1].c1.conv3d.weight, model.front[1].c1.conv3d.weight)


def test_motionbert_action_and_pretraining_files(tmp_path: Path):
    model, _ = tiny("motionbert")
    state = shuffled(model).state_dict()
    action = {
        "epoch": 1,
        "lr": 1e-4,
        "best_acc": np.float64(93.0),
        "model": {f"module.{k}": v for k, v in state.items()},
    }
    other, _ = tiny("motionbert")
    assert load_checkpoint(other, saved(tmp_path, action, "best_epoch.bin"), echo=None).complete
    backbone = {f"module.{k.removeprefix('backbone.')}": v for k, v in state.items() if k.startswith("backbone.")}
    assert "module.blocks_st.0.attn_s.qkv.weight" in backbone
    other, _ = tiny("motionbert")
    report = load_checkpoint(other, saved(tmp_path, {"min_loss": 0.1, "model_pos": backbone}), echo=None)
    assert {name.split(".")[0] for name in report.fresh} == {"head"}
    assert torch.equal(other.backbone.temp_embed, model.backbone.temp_embed)


def test_motionbert_weights_of_longer_clips_give_their_beginning(tmp_path: Path):
    model, _ = tiny("motionbert", num_frames=12)
    other, _ = tiny("motionbert")
    load_checkpoint(other, saved(tmp_path, shuffled(model).state_dict()), echo=None)
    assert torch.equal(other.backbone.temp_embed, model.backbone.temp_embed[:, :8])


def test_keypoint_weights_start_the_heatmap_variant_but_for_its_tokens(tmp_path: Path):
    keypoints, _ = tiny("motionbert")
    model, _ = tiny("motionbert-heatmap")
    report = load_checkpoint(model, saved(tmp_path, shuffled(keypoints).state_dict()), echo=None)
    assert set(report.fresh) == {"backbone.joints_embed.weight", "backbone.head.weight", "backbone.head.bias"}
    assert (
        dict(report.left_out)["backbone.joints_embed.weight"]
        == "the file's tokens are keypoints, the model's are heatmaps"
    )


def test_poseconv3d_weights_go_to_pyskl_and_back(tmp_path: Path):
    model, _ = tiny("poseconv3d", stage_blocks=(2, 1, 1))
    state = published_state(shuffled(model), family="poseconv3d")
    for key in (
        "backbone.conv1.conv.weight",
        "backbone.layer1.1.conv2.bn.weight",
        "backbone.layer3.0.downsample.conv.weight",
    ):
        assert key in state
    other, _ = tiny("poseconv3d", stage_blocks=(2, 1, 1))
    assert load_checkpoint(other, saved(tmp_path, {"state_dict": state}), echo=None).complete


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("timesformer", "timesformer"),
        ("timesformer", "timesformer-transformers"),
        ("timesformer-joint", "timesformer-transformers"),
        ("timesformer-space", "timesformer-transformers"),
        ("videomae", "videomae-transformers"),
        ("vivit-frames", "vivit-transformers"),
        ("i3d", "i3d"),
        ("motionbert", "motionbert"),
    ],
)
def test_there_and_back_is_the_same(tmp_path: Path, name: str, family: str):
    model, _ = tiny(name)
    state = published_state(shuffled(model), family=family)
    other, _ = tiny(name)
    assert load_checkpoint(other, saved(tmp_path, state), family=family, echo=None).complete
    assert all(torch.equal(a, b) for a, b in zip(other.state_dict().values(), model.state_dict().values(), strict=True))


def test_a_models_own_state_dict_loads(tmp_path: Path):
    model, _ = tiny("track-lstm")
    other, _ = tiny("track-lstm")
    report = load_checkpoint(other, saved(tmp_path, shuffled(model).state_dict()), echo=None)
    assert report.complete
    assert report.family == "actionprep"


def test_a_folder_and_safetensors_are_read(tmp_path: Path):
    safetensors = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")
    model, _ = tiny("videomae")
    state = published_state(shuffled(model), family="videomae-transformers")
    safetensors.save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "model.safetensors")
    other, _ = tiny("videomae")
    assert load_checkpoint(other, tmp_path, echo=None).complete
    (tmp_path / "broken.safetensors").write_bytes(b"not this")
    with pytest.raises(UserError, match="cannot be read as safetensors"):
        load_checkpoint(other, tmp_path / "broken.safetensors")


def test_a_missing_file_and_an_empty_folder_are_told(tmp_path: Path):
    model, _ = tiny("timesformer")
    with pytest.raises(UserError, match=r"There is no checkpoint at .*nothing\.pyth"):
        load_checkpoint(model, tmp_path / "nothing.pyth")
    with pytest.raises(UserError, match=r"neither model\.safetensors nor pytorch_model\.bin"):
        load_checkpoint(model, tmp_path)


class Payload:
    """What a hostile file would carry."""


def test_a_file_that_would_run_code_is_not_opened(tmp_path: Path):
    path = saved(tmp_path, {"model_state": official_timesformer(), "note": Payload()})
    with pytest.raises(UserError, match="is not opened because doing so could run code"):
        load_checkpoint(tiny("timesformer")[0], path)


def test_the_command_line_that_a_trainer_left_beside_the_weights_does_no_harm(tmp_path: Path):
    told = {"model": official_timesformer(), "args": argparse.Namespace(lr=1e-4, output_dir="out", views=[1, 2])}
    assert load_checkpoint(tiny("timesformer")[0], saved(tmp_path, told), echo=None).complete
    told["args"].output_dir = Path("out")
    with pytest.raises(UserError, match="holds more than tensors and plain values"):
        load_checkpoint(tiny("timesformer")[0], saved(tmp_path, told, "other.pyth"), echo=None)


def test_a_torn_file_is_told(tmp_path: Path):
    path = saved(tmp_path, official_timesformer())
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=r"cannot be read as a PyTorch checkpoint|is no checkpoint"):
        load_checkpoint(tiny("timesformer")[0], path)


def test_a_file_without_weights_is_told(tmp_path: Path):
    with pytest.raises(UserError, match=r"a dictionary of named tensors was expected, and it holds epoch, lr"):
        load_checkpoint(tiny("timesformer")[0], saved(tmp_path, {"epoch": 1, "lr": 0.1}))


def test_weights_of_another_family_are_named(tmp_path: Path):
    model, _ = tiny("timesformer")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    path = saved(tmp_path, charades_state(I3D(num_classes=4, width_multiplier=0.0625)))
    with pytest.raises(
        UserError, match=r"does not fit a TimeSformer: it looks like i3d weights. Expected one of timesformer,"
    ):
        load_checkpoint(model, path)
    with pytest.raises(UserError, match=r"does not look like 'timesformer' weights: its keys begin Conv3d_1a_7x7"):
        load_checkpoint(model, path, family="timesformer")
    with pytest.raises(UserError, match=r"'i3d' are for I3D, and the model is a TimeSformer. It takes timesformer, "):
        load_checkpoint(model, path, family="i3d")
    with pytest.raises(UserError, match=r"no checkpoint family 'timesfromer'. Did you mean 'timesformer'"):
        load_checkpoint(model, path, family="timesfromer")
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_weights_of_another_width_are_refused_with_both_sizes(tmp_path: Path):
    wide, _ = tiny("timesformer", width=64)
    model, _ = tiny("timesformer")
    before = model.norm.weight.clone()
    with pytest.raises(
        UserError, match=r"cls_token is 1 x 1 x 64 in the file and 1 x 1 x 32 in the model; .* and \d+ more"
    ):
        load_checkpoint(model, saved(tmp_path, wide.state_dict()))
    assert torch.equal(model.norm.weight, before)


def test_a_picture_model_that_shares_names_with_a_model_is_not_taken_for_its_own_weights(tmp_path: Path):
    state = {k: v for k, v in official_timesformer().items() if "temporal" not in k and "time_embed" not in k}
    path = saved(tmp_path, state)
    with pytest.raises(UserError) as caught:
        load_checkpoint(tiny("videomae")[0], path, echo=None)
    assert str(caught.value) == (
        f"{path} does not fit a VideoMAE: it looks like image-vit or vivit-image-vit weights. Expected one of videomae, "
        "videomae-transformers."
    )


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path):
    state = official_timesformer()
    state["model.blocks.1.mlp.fc1.weight"][3, 4] = float("nan")
    path = saved(tmp_path, state)
    model, _ = tiny("timesformer")
    before = model.head.weight.clone()
    with pytest.raises(UserError) as caught:
        load_checkpoint(model, path, echo=None)
    assert str(caught.value) == (
        f"{path} holds timesformer weights that are no numbers (nan or infinite) in 1 of 49 tensors: "
        "blocks.1.mlp.fc1.weight. The training that wrote it came apart, or the file is damaged: take an earlier "
        "checkpoint, or download it again."
    )
    assert torch.equal(model.head.weight, before)


def test_long_lists_of_fitted_weights_are_cut_short_and_counted(tmp_path: Path):
    state = {k: v for k, v in official_timesformer().items() if "temporal" not in k}
    text = str(load_checkpoint(tiny("timesformer")[0], saved(tmp_path, state), echo=None))
    assert "45 of 49 loaded, 12 of them fitted" in text
    assert text.count("  fitted    ") == 9
    assert "  fitted    … and 4 more" in text


def test_a_small_part_of_a_model_is_refused(tmp_path: Path):
    state = official_timesformer()
    few = {k: v for k, v in state.items() if "blocks.1" not in k and "mlp" not in k}
    with pytest.raises(UserError, match=r"too few to be meant for it"):
        load_checkpoint(tiny("timesformer", depth=4)[0], saved(tmp_path, few))


def test_strict_loading_wants_everything_but_the_head(tmp_path: Path):
    state = official_timesformer(classes=400)
    load_checkpoint(tiny("timesformer")[0], saved(tmp_path, state), strict=True, echo=None)
    del state["model.norm.bias"]
    with pytest.raises(UserError, match=r"strict loading was asked for[\s\S]*fresh     norm.bias"):
        load_checkpoint(tiny("timesformer")[0], saved(tmp_path, state), strict=True, echo=None)


def test_a_trained_model_of_pictures_goes_back_without_what_stands_before_it():
    model, _ = tiny("timesformer")
    trained = PixelClassifier(model, HALF)
    found, expected = (published_state(one, family="timesformer-transformers") for one in (trained, model))
    assert found.keys() == expected.keys()
    assert "timesformer.embeddings.cls_token" in found


def test_a_way_back_that_does_not_exist_is_told():
    model, _ = tiny("timesformer")
    with pytest.raises(
        UserError, match=r"cannot be written as 'image-vit'. Families that it can be written as: timesformer"
    ):
        published_state(model, family="image-vit")


def test_every_family_is_for_a_model_of_the_table():
    assert {f.model.__name__ for f in FAMILIES.values()} == {
        "TimeSformer",
        "VideoMAE",
        "ViViT",
        "I3D",
        "MotionBERT",
        "PoseConv3D",
    }
