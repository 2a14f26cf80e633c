"""Published weights are told from each other, and what does not fit is refused with the reason."""

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


def test_a_models_own_state_dict_loads(tmp_path: Path):
    model, _ = tiny("track-lstm")
    other, _ = tiny("track-lstm")
    report = load_checkpoint(other, saved(tmp_path, shuffled(model).state_dict()), echo=None)
    assert report.complete
    assert report.family == "actionprep"


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


@pytest.mark.parametrize("family", ["timesformer", "timesformer-transformers"])
def test_a_timesformer_that_pools_otherwise_than_published_is_not_written_as_one(family):
    model, _ = tiny("timesformer", pool="mean-max")
    with pytest.raises(
        UserError,
        match=rf"pools by 'mean-max', and '{family}' has no such head.*sizes.pool = \"class\".*actiontrain export",
    ):
        published_state(PixelClassifier(model, HALF), family=family)


def test_a_way_back_that_does_not_exist_is_told():
    model, _ = tiny("timesformer")
    with pytest.raises(
        UserError, match=r"cannot be written as 'image-vit'. Families that it can be written as: timesformer"
    ):
        published_state(model, family="image-vit")
