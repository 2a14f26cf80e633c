"""Loading published weights: recognition, refusals and their messages, export."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_models import tiny
from weight_fakes import charades_state, official_timesformer, saved, shuffled

from actionprep.errors import UserError
from actionprep.training.models.i3d import I3D
from actionprep.training.models.pixels import PixelClassifier
from actionprep.training.models.published.load import load_checkpoint, published_state
from actionprep.training.models.registry import HALF


def test_i3d_weights_load_behind_a_front_end(tmp_path: Path):
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


def test_own_state_dict_loads(tmp_path: Path):
    model, _ = tiny("track-lstm")
    other, _ = tiny("track-lstm")
    report = load_checkpoint(other, saved(tmp_path, shuffled(model).state_dict()), echo=None)
    assert report.complete
    assert report.family == "actionprep"


def test_weights_of_another_family_raise(tmp_path: Path):
    model, _ = tiny("timesformer")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    path = saved(tmp_path, charades_state(I3D(num_classes=4, width_multiplier=0.0625)))
    with pytest.raises(
        UserError, match=r"not for TimeSformer: they look like i3d weights. Expected one of timesformer,"
    ):
        load_checkpoint(model, path)
    with pytest.raises(UserError, match=r"does not contain 'timesformer' weights. Its first keys: Conv3d_1a_7x7"):
        load_checkpoint(model, path, family="timesformer")
    with pytest.raises(
        UserError, match=r"'i3d' are for I3D, but the model is a TimeSformer. Possible families: timesformer, "
    ):
        load_checkpoint(model, path, family="i3d")
    with pytest.raises(UserError, match=r"No checkpoint family 'timesfromer'. Did you mean 'timesformer'"):
        load_checkpoint(model, path, family="timesfromer")
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_weights_of_another_width_raise(tmp_path: Path):
    wide, _ = tiny("timesformer", width=64)
    model, _ = tiny("timesformer")
    before = model.norm.weight.clone()
    with pytest.raises(
        UserError, match=r"cls_token is 1 x 1 x 64 in the file and 1 x 1 x 32 in the model; .* and \d+ more"
    ):
        load_checkpoint(model, saved(tmp_path, wide.state_dict()))
    assert torch.equal(model.norm.weight, before)


def test_image_vit_is_not_mistaken_for_own_weights(tmp_path: Path):
    state = {k: v for k, v in official_timesformer().items() if "temporal" not in k and "time_embed" not in k}
    path = saved(tmp_path, state)
    with pytest.raises(UserError) as caught:
        load_checkpoint(tiny("videomae")[0], path, echo=None)
    assert str(caught.value) == (
        f"The weights in {path} are not for VideoMAE: they look like image-vit or vivit-image-vit weights. Expected one "
        "of videomae, videomae-transformers."
    )


@pytest.mark.parametrize("attention", ["joint", "space"])
def test_divided_timesformer_weights_are_refused_elsewhere(tmp_path: Path, attention: str):
    model, _ = tiny(f"timesformer-{attention}")
    before = model.norm.weight.clone()
    path = saved(tmp_path, official_timesformer())
    with pytest.raises(UserError) as caught:
        load_checkpoint(model, path, echo=None)
    assert str(caught.value) == (
        f"{path} has weights of a TimeSformer with divided attention, and this model has {attention} attention, for which "
        "they were not trained. Use the recipe timesformer, or weights of the same kind of attention."
    )
    assert torch.equal(model.norm.weight, before)


def test_weights_with_nan_raise(tmp_path: Path):
    state = official_timesformer()
    state["model.blocks.1.mlp.fc1.weight"][3, 4] = float("nan")
    path = saved(tmp_path, state)
    model, _ = tiny("timesformer")
    before = model.head.weight.clone()
    with pytest.raises(UserError) as caught:
        load_checkpoint(model, path, echo=None)
    assert str(caught.value) == (
        f"1 of 49 tensors in {path} are not finite (NaN or Inf): blocks.1.mlp.fc1.weight. The training diverged, or the "
        "file is damaged. Use an earlier checkpoint, or download the file again."
    )
    assert torch.equal(model.head.weight, before)


def test_report_shortens_long_lists(tmp_path: Path):
    state = {k: v for k, v in official_timesformer().items() if "temporal" not in k}
    text = str(load_checkpoint(tiny("timesformer")[0], saved(tmp_path, state), echo=None))
    assert "45 of 49 loaded (12 adapted)" in text
    assert text.count("  adapted   ") == 9
    assert "  adapted   and 4 more" in text


def test_weights_of_a_small_part_raise(tmp_path: Path):
    state = official_timesformer()
    partial = {k: v for k, v in state.items() if "blocks.1" not in k and "mlp" not in k}
    with pytest.raises(UserError, match=r"has only \d+ of the \d+ weights .* At least half are required"):
        load_checkpoint(tiny("timesformer", depth=4)[0], saved(tmp_path, partial))


def test_strict_requires_all_weights_except_head(tmp_path: Path):
    state = official_timesformer(classes=400)
    load_checkpoint(tiny("timesformer")[0], saved(tmp_path, state), strict=True, echo=None)
    del state["model.norm.bias"]
    with pytest.raises(UserError, match=r"Strict loading failed[\s\S]*missing   norm.bias"):
        load_checkpoint(tiny("timesformer")[0], saved(tmp_path, state), strict=True, echo=None)


def test_published_state_removes_pixel_wrapper():
    model, _ = tiny("timesformer")
    trained = PixelClassifier(model, HALF)
    wrapped, expected = (published_state(m, family="timesformer-transformers") for m in (trained, model))
    assert wrapped.keys() == expected.keys()
    assert "timesformer.embeddings.cls_token" in wrapped


@pytest.mark.parametrize("family", ["timesformer", "timesformer-transformers"])
def test_published_state_rejects_mean_max_timesformer(family):
    model, _ = tiny("timesformer", pool="mean-max")
    with pytest.raises(
        UserError,
        match=rf"'{family}' has only a head for the class token.*\"mean-max\".*sizes.pool = \"class\".*actiontrain export",
    ):
        published_state(PixelClassifier(model, HALF), family=family)


def test_published_state_rejects_one_way_family():
    model, _ = tiny("timesformer")
    with pytest.raises(UserError, match=r"cannot be exported as 'image-vit'. Possible families: timesformer"):
        published_state(model, family="image-vit")
