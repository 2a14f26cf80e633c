"""Published checkpoint layouts load completely and can be exported."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import tiny
from weight_fakes import charades_state, official_timesformer, saved, shuffled

from actionprep.training.models.i3d import I3D
from actionprep.training.models.published.families import FAMILIES
from actionprep.training.models.published.load import load_checkpoint, published_state


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


@pytest.mark.parametrize("prefix", ["", "model.", "module."])
def test_i3d_charades_weights_load(tmp_path: Path, prefix: str):
    model = shuffled(I3D(num_classes=4, width_multiplier=0.0625))
    state = charades_state(model)
    assert "Mixed_3b.b1a.conv3d.weight" in state
    assert "Conv3d_1a_7x7.bn.running_mean" in state
    # In the TinyVIRAT layout, all keys except the head have the prefix; files of torch 0.3 have no step counters.
    state = {
        k if prefix == "model." and "logits" in k else prefix + k: v for k, v in state.items() if "num_batches" not in k
    }
    other = I3D(num_classes=4, width_multiplier=0.0625)
    assert load_checkpoint(other, saved(tmp_path, state), echo=None).complete
    clip = torch.randn(1, 3, 8, 32, 32)
    torch.testing.assert_close(other.eval()(clip), model.eval()(clip))


def test_i3d_kinetics_weights_round_trip(tmp_path: Path):
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
        ("i3d", "i3d"),
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
    }
