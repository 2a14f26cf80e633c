"""The table of models: published sizes, messages, counting."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest
import torch
from torch import nn

from actionprep.errors import UserError
from actionprep.training.models.fusion import MidFusion
from actionprep.training.models.model_size import count_parameters
from actionprep.training.models.registry import (
    HALF,
    IMAGENET,
    MODELS,
    SIGNED,
    axes,
    build_model,
    example_input,
    load_model_files,
)
from actionprep.training.recipes import find_recipe

# The tests below are over the whole table, whatever was imported before.
load_model_files()

# As the papers, tables and READMEs state them, in millions.
PUBLISHED = {
    "view-transformer-maaf": "48.45",
    "track-lstm": "16.26",
    "timesformer": "121.57",
    "vivit-1": "8.650",
    "vivit-1-big": "63.70",
    "vivit-1-small-tube": "7.624",
    "vivit-2": "44.41",
    "vivit-2-published": "44.41",
    "heatmap-transformer": "9.55",
    "heatmap-transformer-big": "94.76",
    "motionbert-heatmap": "63.53",
    "motionbert": "60.42",
    "poseconv3d": "2.0",
    "i3d": "12.31",
}


def built(name: str, **sizes: object) -> nn.Module:
    with torch.device("meta"):
        return build_model(name, num_classes=sizes.pop("num_classes", MODELS[name].num_classes), **sizes)


def argument_of(name: str) -> str:
    """What the first input of a model is called."""
    return next(iter(inspect.signature(built(name).forward).parameters))


@pytest.mark.parametrize(("name", "millions"), PUBLISHED.items())
def test_parameters_are_the_published_ones(name: str, millions: str):
    digits = len(millions.split(".")[1])
    assert f"{count_parameters(built(name)) / 1e6:.{digits}f}" == millions


@pytest.mark.parametrize("name", [name for name, card in MODELS.items() if card.parameters is not None])
def test_the_card_states_the_count_that_the_model_has(name: str):
    assert count_parameters(built(name)) == MODELS[name].parameters


@pytest.mark.parametrize("name", MODELS)
def test_every_model_takes_its_published_input(name: str):
    model = built(name).eval()
    if MODELS[name].product == "fusion":
        # Its input is that of each of its parts, by their names.
        parts = inspect.signature(MidFusion).parameters["parts"].default
        assert MODELS[name].shape == (len(parts),)
        logits = model(
            **{
                f"part{at}_{argument_of(part['model'])}": example_input(part["model"], batch=2)
                for at, part in enumerate(parts)
            }
        )
    else:
        logits = model(example_input(name, batch=2))
    assert logits.shape[0] == 2
    assert logits.shape[-1] == MODELS[name].num_classes


def test_timesformer_for_twelve_gestures_has_the_published_counts():
    assert f"{count_parameters(built('timesformer', num_classes=12)) / 1e6:.2f}" == "121.27"
    assert f"{count_parameters(built('timesformer-light')) / 1e6:.2f}" == "121.29"


@pytest.mark.parametrize(("kernel", "counts"), [("3d", (38_912, 52_832, 66_752)), ("2d", (12_032, 16_736, 21_440))])
def test_resizers_have_the_published_counts(kernel: str, counts: tuple[int, ...]):
    fronts = [built("i3d-resizer-" + kernel, blocks=blocks).front for blocks in (1, 2, 3)]
    assert tuple(count_parameters(front) for front in fronts) == counts


@pytest.mark.parametrize("name", ["skeleton-tcn", "skeleton-transformer"])
def test_our_skeleton_models_are_small(name: str):
    assert f"{count_parameters(built(name)) / 1e6:.1f}" == "0.3"


@pytest.mark.parametrize("name", sorted(name for name in MODELS if MODELS[name].source.startswith("ours")))
def test_the_card_of_a_model_of_ours_is_of_what_its_recipe_trains(name: str):
    recipe, card = find_recipe(name), MODELS[name]
    assert {key: value for key, value in recipe.sizes.items() if card.sizes.get(key) != value} == {}
    shape, told = dict(card.input_shape), recipe.input
    assert shape.get("T") == getattr(told, "frames", None)
    size = getattr(told, "size", None)
    assert (shape.get("H"), shape.get("W")) == (tuple(size) if isinstance(size, tuple) else (size, size))


def test_pixel_models_declare_their_colors_and_the_others_do_not():
    assert {name for name, card in MODELS.items() if card.pixels} == {
        name for name, card in MODELS.items() if card.product in ("frames", "lowres")
    }


def test_importing_the_table_does_not_import_torch():
    code = "import sys, actionprep.training.models.registry as table; table.load_model_files(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_unknown_model_is_answered_with_the_nearest_name():
    with pytest.raises(UserError, match=r"no model named 'timesfromer'. Did you mean 'timesformer'\? Models: "):
        build_model("timesfromer", num_classes=2)


def test_an_unknown_setting_is_answered_with_the_nearest_one():
    with pytest.raises(
        UserError, match=r"'timesformer' has no setting 'num_frame'. Did you mean 'num_frames'\? It has"
    ):
        build_model("timesformer", num_classes=2, num_frame=8)


@pytest.mark.parametrize(
    ("name", "sizes", "reason"),
    [
        ("timesformer", {"depth": "abc"}, "depth = 'abc': 'str' object cannot be interpreted as an integer"),
        ("timesformer", {"depth": 0, "width": 32, "heads": 2}, "depth = 0, width = 32, heads = 2: depth is at least 1"),
        ("timesformer", {"heads": 0}, "heads = 0: heads is at least 1"),
        ("poseconv3d", {"stage_blocks": 3}, "stage_blocks = 3: object of type 'int' has no len()"),
        ("track-lstm", {"dropout": -1.0}, "dropout = -1.0: dropout "),
    ],
)
def test_sizes_that_a_model_cannot_have_are_refused_with_the_reason(name, sizes, reason):
    with pytest.raises(UserError) as caught:
        build_model(name, num_classes=3, **sizes)
    assert str(caught.value).startswith(f"Model '{name}' cannot be built with the sizes {reason}")


def test_a_models_own_words_for_its_sizes_are_kept():
    with pytest.raises(UserError, match=r"^Attention heads share the model's width evenly, and 5 heads do not divide"):
        build_model("timesformer", num_classes=3, heads=5)


def test_sizes_that_begin_at_zero_may_be_zero():
    sizes = {"read_at": 0, "apply_at": 0, "size": (8, 32, 32), "width_multiplier": 0.0625}
    assert build_model("i3d-transformer-resizer", num_classes=3, **sizes) is not None


def test_settings_behind_a_front_end_reach_i3d():
    model = built("i3d-resizer-2d", width_multiplier=0.125)
    assert count_parameters(model) - count_parameters(model.front) == count_parameters(built("i3d-small"))


def test_axes_are_read_in_order():
    assert axes("C3 T8 H224 W224") == (("C", 3), ("T", 8), ("H", 224), ("W", 224))
    assert MODELS["timesformer"].shape_text == "B, C 3, T 8, H 224, W 224"


@pytest.mark.parametrize("pixels", [IMAGENET, HALF, SIGNED])
def test_pixels_are_ranged_then_normalized(pixels):
    clip = torch.randint(0, 256, (2, 3, 4, 5, 6), dtype=torch.uint8)
    low, high = pixels.value_range
    mean, std = (torch.tensor(v).view(-1, 1, 1, 1) for v in (pixels.mean, pixels.std))
    expected = ((clip.double() / 255 * (high - low) + low) - mean) / std
    torch.testing.assert_close(pixels.apply(clip).double(), expected, rtol=1e-5, atol=1e-5)


def test_pixels_turn_bgr_into_rgb():
    clip = torch.randint(0, 256, (1, 3, 2, 2, 2), dtype=torch.uint8)
    assert torch.equal(SIGNED.apply(clip, color_order="BGR"), SIGNED.apply(clip.flip(1)))
