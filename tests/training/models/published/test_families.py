"""Published checkpoint layouts load completely and can be exported."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import tiny
from weight_fakes import charades_state, official_timesformer, saved, shuffled

from actionprep.errors import UserError
from actionprep.training.models.heatmap_transformer import HeatmapTransformer
from actionprep.training.models.i3d import I3D
from actionprep.training.models.published.families import FAMILIES
from actionprep.training.models.published.load import load_checkpoint, published_state
from actionprep.training.models.resizers import Resizer


def test_official_timesformer_layout_loads(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
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
    assert f"{len(state)} of {len(state)} loaded (0 adapted), 0 tensors of the file unused" in capsys.readouterr().out


def test_something_something_weights_are_bgr(tmp_path: Path):
    content = {"model_state": official_timesformer(), "cfg": "DATA:\n  X: 1\nTRAIN:\n  DATASET: ssv2\n"}
    report = load_checkpoint(tiny("timesformer")[0], saved(tmp_path, content), echo=None)
    assert report.color_order == "BGR"
    assert "expect BGR frames" in str(report)


def test_vivit_weights_of_old_transformers_load(tmp_path: Path):
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


def test_videomae_loads_from_three_layouts(tmp_path: Path):
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


def test_videomae_pretraining_file_loads_encoder(tmp_path: Path):
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


def seeded_i3d(**sizes: object) -> I3D:
    torch.manual_seed(3)
    return I3D(num_classes=4, width_multiplier=0.0625, **sizes).eval()


@pytest.mark.parametrize("prefix", ["", "model.", "module.", "model.module.", "net._orig_mod."])
def test_official_i3d_weights_select_the_second_pool(tmp_path: Path, prefix: str, capsys):
    model = seeded_i3d(early_pool=True)
    state = charades_state(model)
    assert "Mixed_3b.b1a.conv3d.weight" in state
    assert "Conv3d_1a_7x7.bn.running_mean" in state
    # Files of torch 0.3 have no step counters.
    state = {prefix + k: v for k, v in state.items() if "num_batches" not in k}
    other = I3D(num_classes=4, width_multiplier=0.0625).eval()
    report = load_checkpoint(other, saved(tmp_path, state))
    assert report.complete
    assert report.family == "i3d"
    clip = torch.randn(1, 3, 8, 32, 32)
    torch.testing.assert_close(other(clip), model(clip))
    assert "early_pool = true, because these weights only come from this variant" in capsys.readouterr().out


@pytest.mark.parametrize("prefix", ["", "module.", "model."])
def test_tinyvirat_i3d_weights_keep_the_small_variant(tmp_path: Path, prefix: str):
    model = seeded_i3d()
    # All keys except the head have the prefix of the study.
    state = {
        prefix + (k if "logits" in k else f"model.{k}"): v
        for k, v in charades_state(model).items()
        if "num_batches" not in k
    }
    other = I3D(num_classes=4, width_multiplier=0.0625).eval()
    report = load_checkpoint(other, saved(tmp_path, state), echo=None)
    assert report.complete
    assert report.family == "i3d-tinyvirat"
    assert "For 224, set sizes.early_pool = true." in str(report)
    clip = torch.randn(1, 3, 8, 32, 32)
    torch.testing.assert_close(other(clip), model(clip))
    exported = published_state(model, family="i3d-tinyvirat")
    assert exported.keys() - {k for k in exported if "num_batches" in k} == {k.removeprefix(prefix) for k in state}


def test_official_i3d_weights_in_a_chosen_variant_warn(tmp_path: Path):
    path = saved(tmp_path, charades_state(seeded_i3d(early_pool=True)))
    report = load_checkpoint(seeded_i3d(early_pool=False), path, echo=None)
    assert (
        "Warning: these weights only come from early_pool = true, and this model has early_pool = false. Its outputs differ "
        "from the published ones until it is trained. Remove sizes.early_pool to use the published variant."
    ) in report.notes
    with pytest.raises(UserError, match=r"Strict loading failed: .* is of another variant than the model\."):
        load_checkpoint(seeded_i3d(early_pool=False), path, strict=True, echo=None)


@pytest.mark.parametrize("family", ["i3d", "i3d-kinetics"])
def test_i3d_without_second_pool_is_not_exported_as_official(family: str):
    with pytest.raises(
        UserError, match=r"used with early_pool = true, but this model has early_pool = false.*family 'i3d-tinyvirat'"
    ):
        published_state(seeded_i3d(), family=family)


def test_i3d_kinetics_weights_round_trip(tmp_path: Path):
    model = shuffled(I3D(num_classes=4, width_multiplier=0.0625, early_pool=True))
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


def test_motionbert_action_and_pretraining_files_load(tmp_path: Path):
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


def test_poseconv3d_weights_round_trip_through_pyskl(tmp_path: Path):
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
        ("i3d", "i3d-tinyvirat"),
        ("motionbert", "motionbert"),
    ],
)
def test_export_and_load_round_trip(tmp_path: Path, name: str, family: str):
    model, _ = tiny(name)
    state = published_state(shuffled(model), family=family)
    other, _ = tiny(name)
    assert load_checkpoint(other, saved(tmp_path, state), family=family, echo=None).complete
    assert all(torch.equal(a, b) for a, b in zip(other.state_dict().values(), model.state_dict().values(), strict=True))


def test_families_cover_the_published_models():
    assert {f.model.__name__ for f in FAMILIES.values()} == {
        "TimeSformer",
        "VideoMAE",
        "ViViT",
        "I3D",
        "MotionBERT",
        "PoseConv3D",
        "TrackLstm",
        "MultiViewTransformer",
        "HeatmapTransformer",
        "FrontEndI3D",
    }


def renamed(state: dict[str, torch.Tensor], names: dict[str, str]) -> dict[str, torch.Tensor]:
    """The tensors with the beginnings of their names replaced; each must have a replacement."""
    result = {}
    for name, tensor in state.items():
        ours = max((prefix for prefix in names if name.startswith(prefix)), key=len)
        result[names[ours] + name.removeprefix(ours)] = tensor
    return result


_LSTM = {"views.": "channel_attention.", "lstm.": "lstm.", "head.": "fc_out."}
_CNN = {
    "encoder.": "spatial_conv.initial_conv.",
    "encoder.residual1.": "spatial_conv.intermediate_conv.",
    "encoder.residual2.": "spatial_conv.final_conv.",
    "encoder.fc.": "spatial_conv.fc.",
}
_TRANSFORMER = {
    "views.": "channel_attention.",
    "conv": "spatial_conv.dimensionality_reduction_cnn.conv",
    "reduce.": "spatial_conv.dimensionality_reduction_cnn.fc1.",
    "encoder.": "transformer_encoder.",
    "head.": "fc_out.",
}


@pytest.mark.parametrize("prefix", ["", "module.", "model."])
@pytest.mark.parametrize(
    ("name", "family", "names"),
    [
        ("track-lstm", "furniture-lstm", _LSTM),
        ("track-cnn-lstm", "furniture-lstm", _LSTM | _CNN),
        ("view-transformer-maaf", "furniture-transformer", _TRANSFORMER),
    ],
)
def test_furniture_weights_load_completely(tmp_path: Path, name: str, family: str, names, prefix: str):
    model, xy = tiny(name, faithful=True)
    state = {prefix + key: tensor for key, tensor in renamed(model.state_dict(), names).items()}
    other, _ = tiny(name)
    torch.nn.init.zeros_(other.head.weight)
    report = load_checkpoint(other, saved(tmp_path, {"state_dict": state} if prefix else state), echo=None)
    assert report.complete
    assert report.family == family
    assert report.notes == ("faithful = true, because these weights only come from this variant of the model.",)
    torch.testing.assert_close(other.eval()(xy), model.eval()(xy))
    assert published_state(model, family=family).keys() == {key.removeprefix(prefix) for key in state}


def test_faithful_track_lstm_equals_the_published_formula():
    model, xy = tiny("track-lstm", faithful=True)
    mean = xy.mean((3, 4))  # batch, time, views
    weight = model.views.conv.weight.flatten()
    padded = torch.nn.functional.pad(mean, (1, 1))
    attention = sum(weight[i] * padded[..., i : i + mean.shape[2]] for i in range(3)).sigmoid()
    flat = (xy * attention[..., None, None]).flatten(2)
    expected = model.head(model.lstm(flat)[0])
    valid = torch.zeros(xy.shape[:-1], dtype=torch.bool)
    valid[..., ::2] = True
    torch.testing.assert_close(model.eval()(xy), expected)
    # Without the setting, invalid points do not count.
    assert not torch.allclose(tiny("track-lstm")[0].eval()(xy, valid), expected)


def heatmap_study_state(model: HeatmapTransformer, classes: int, steps: int) -> dict[str, torch.Tensor]:
    """Weights in the layout of the study, from shapes written out here."""
    torch.manual_seed(5)
    width, pixels = model.embed.out_features, model.map_size**2
    shapes = {
        "joints_embed.proj.weight": (width, pixels, model.patch_frames, 1),
        "joints_embed.proj.bias": (width,),
        "temp_embed": (1, steps, 1, width),
        "pos_embed": (1, 1, model.num_joints, width),
        "norm.weight": (width,),
        "norm.bias": (width,),
        "head.fc.weight": (classes, width),
        "head.fc.bias": (classes,),
    }
    for i in range(len(model.blocks)):
        for part, shape in {
            "norm1": (width,),
            "norm2": (width,),
            "attn.qkv": (3 * width, width),
            "attn.proj": (width, width),
            "mlp.fc1": (4 * width, width),
            "mlp.fc2": (width, 4 * width),
        }.items():
            shapes[f"blocks.{i}.{part}.weight"] = shape
            shapes[f"blocks.{i}.{part}.bias"] = shape[:1]
    return {key: torch.randn(shape) * 0.1 for key, shape in shapes.items()}


def test_heatmap_study_weights_load_completely(tmp_path: Path):
    model, clip = tiny("heatmap-transformer")
    state = heatmap_study_state(model, classes=3, steps=2)
    content = {"epoch": 9, "best_acc": 82.0, "model": {f"module.{k}": v for k, v in state.items()}}
    report = load_checkpoint(model, saved(tmp_path, content, "best_epoch.bin"), echo=None)
    assert report.complete
    assert report.family == "heatmap-study"
    # Tokens as the study computes them: a convolution over time and joints, with flattened maps as channels.
    maps = clip.flatten(3).permute(0, 3, 2, 1)  # batch, pixels, time, joints
    tokens = torch.nn.functional.conv2d(
        maps, state["joints_embed.proj.weight"], state["joints_embed.proj.bias"], stride=(4, 1)
    ).permute(0, 2, 3, 1)
    x = (tokens + state["pos_embed"] + state["temp_embed"]).flatten(1, 2)
    for block in model.eval().blocks:
        x = block(x)
    expected = model.norm(x).mean(1) @ state["head.fc.weight"].T + state["head.fc.bias"]
    torch.testing.assert_close(model(clip), expected, rtol=1e-4, atol=1e-4)


def test_heatmap_study_weights_of_another_length_name_the_positions(tmp_path: Path):
    model, _ = tiny("heatmap-transformer")
    state = heatmap_study_state(model, classes=60, steps=12)
    report = load_checkpoint(model, saved(tmp_path, {"model": state}), echo=None)
    assert dict(report.left_out) == {
        "head.weight": "60 classes, the model has 3",
        "head.bias": "60 classes, the model has 3",
    }
    assert report.fresh == ("head.weight", "head.bias")
    assert [(fitted.name, fitted.how) for fitted in report.fitted] == [("time_embed", "12 → 2 steps, linear in time")]


@pytest.mark.parametrize(("name", "kernel"), [("i3d-resizer-2d", "2d"), ("i3d-resizer-3d", "3d")])
def test_resizer_weights_load_before_i3d(tmp_path: Path, name: str, kernel: str):
    resizer = shuffled(Resizer(kernel=kernel, size=(8, 32, 32)))
    state = {f"module.{k}": v for k, v in resizer.state_dict().items()}
    assert "module.residual_blocks.0.bn2.running_var" in state
    model, clip = tiny(name)
    before = model.stages["Mixed_3b"].b0.conv3d.weight.clone()
    report = load_checkpoint(model, saved(tmp_path, state), echo=None)
    assert report.complete
    assert report.family == "resizer"
    assert "The I3D after it keeps its weights" in str(report)
    torch.testing.assert_close(model.eval().front(clip), resizer.eval()(clip))
    assert torch.equal(model.stages["Mixed_3b"].b0.conv3d.weight, before)
    bare = Resizer(kernel=kernel, size=(8, 32, 32))
    assert load_checkpoint(bare, saved(tmp_path, state), echo=None).complete


def test_lightning_videomae_without_bias_loads_completely(tmp_path: Path):
    model, clip = tiny("videomae")
    state = published_state(model, family="videomae-transformers")
    state = {f"model.{k}": v for k, v in state.items() if not k.endswith(("query.bias", "value.bias"))}
    content = {"state_dict": state | {"criterion.pos_weight": torch.ones(1)}, "pytorch-lightning_version": "1.9.0"}
    other, _ = tiny("videomae")
    torch.nn.init.ones_(other.blocks[0].attn.q_bias)
    report = load_checkpoint(other, saved(tmp_path, content, "epoch=3.ckpt"), echo=None)
    assert report.fresh == ()
    assert report.left_out == (("criterion.pos_weight", "not in the model"),)
    for block in model.blocks:
        torch.nn.init.zeros_(block.attn.q_bias)
        torch.nn.init.zeros_(block.attn.v_bias)
    torch.testing.assert_close(other.eval()(clip), model.eval()(clip))
