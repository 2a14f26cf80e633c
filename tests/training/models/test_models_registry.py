"""The registry of models: published sizes, cards, building, messages."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest
import torch
from torch import nn

from actionprep.errors import UserError
from actionprep.training.models import registry
from actionprep.training.models.fusion import MidFusion
from actionprep.training.models.model_size import count_parameters
from actionprep.training.models.registry import (
    HALF,
    IMAGENET,
    MODELS,
    SIGNED,
    PixelInput,
    axes,
    build_model,
    example_input,
)
from actionprep.training.recipes import find_recipe

# The tests below cover all registered models.
# Millions of parameters as stated in the papers and READMEs.
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
    """Return the name of the first input of a model."""
    return next(iter(inspect.signature(built(name).forward).parameters))


@pytest.mark.parametrize(("name", "millions"), PUBLISHED.items())
def test_parameters_equal_published_counts(name: str, millions: str):
    digits = len(millions.split(".")[1])
    assert f"{count_parameters(built(name)) / 1e6:.{digits}f}" == millions


@pytest.mark.parametrize("name", [name for name, card in MODELS.items() if card.parameters is not None])
def test_card_parameters_equal_model(name: str):
    assert count_parameters(built(name)) == MODELS[name].parameters


@pytest.mark.parametrize("name", MODELS)
def test_model_accepts_published_input(name: str):
    model = built(name).eval()
    if MODELS[name].product == "fusion":
        # The inputs are those of the parts.
        parts = inspect.signature(MidFusion).parameters["parts"].default
        assert MODELS[name].shape == (len(parts),)
        logits = model(
            **{
                f"part{index}_{argument_of(part['model'])}": example_input(part["model"], batch=2)
                for index, part in enumerate(parts)
            }
        )
    else:
        logits = model(example_input(name, batch=2))
    assert logits.shape[0] == 2
    assert logits.shape[-1] == MODELS[name].num_classes


def test_timesformer_gesture_counts():
    assert f"{count_parameters(built('timesformer', num_classes=12)) / 1e6:.2f}" == "121.27"
    assert f"{count_parameters(built('timesformer-light')) / 1e6:.2f}" == "121.29"


@pytest.mark.parametrize(("kernel", "counts"), [("3d", (38_912, 52_832, 66_752)), ("2d", (12_032, 16_736, 21_440))])
def test_resizer_counts(kernel: str, counts: tuple[int, ...]):
    fronts = [built("i3d-resizer-" + kernel, blocks=blocks).front for blocks in (1, 2, 3)]
    assert tuple(count_parameters(front) for front in fronts) == counts


@pytest.mark.parametrize("name", ["skeleton-tcn", "skeleton-transformer"])
def test_skeleton_models_are_small(name: str):
    assert f"{count_parameters(built(name)) / 1e6:.1f}" == "0.3"


@pytest.mark.parametrize("name", sorted(name for name in MODELS if MODELS[name].source.startswith("ours")))
def test_card_of_own_model_matches_its_recipe(name: str):
    recipe, card = find_recipe(name), MODELS[name]
    assert {key: value for key, value in recipe.sizes.items() if card.sizes.get(key) != value} == {}
    shape, settings = dict(card.input_shape), recipe.input
    assert shape.get("T") == getattr(settings, "frames", None)
    size = getattr(settings, "size", None)
    assert (shape.get("H"), shape.get("W")) == (tuple(size) if isinstance(size, tuple) else (size, size))


def test_only_pixel_models_have_a_pixel_format():
    assert {name for name, card in MODELS.items() if card.pixels} == {
        name for name, card in MODELS.items() if card.product in ("frames", "lowres")
    }


def test_models_are_listed_without_torch():
    code = (
        "import sys, actionprep.training.models.registry as table; list(table.MODELS); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_unknown_model_suggests_nearest_name():
    with pytest.raises(UserError, match=r"No model 'timesfromer'. Did you mean 'timesformer'\? Models: "):
        build_model("timesfromer", num_classes=2)


def test_unknown_setting_suggests_nearest_name():
    with pytest.raises(
        UserError, match=r"'timesformer' has no setting 'num_frame'. Did you mean 'num_frames'\? Settings: "
    ):
        build_model("timesformer", num_classes=2, num_frame=8)


@pytest.mark.parametrize(
    ("name", "sizes", "reason"),
    [
        ("timesformer", {"depth": "abc"}, "depth = 'abc': 'str' object cannot be interpreted as an integer"),
        (
            "timesformer",
            {"depth": 0, "width": 32, "heads": 2},
            "depth = 0, width = 32, heads = 2: depth must be at least 1",
        ),
        ("timesformer", {"heads": 0}, "heads = 0: heads must be at least 1"),
        ("poseconv3d", {"stage_blocks": 3}, "stage_blocks = 3: object of type 'int' has no len()"),
        ("track-lstm", {"dropout": -1.0}, "dropout = -1.0: dropout "),
    ],
)
def test_invalid_sizes_raise_with_reason(name, sizes, reason):
    with pytest.raises(UserError) as caught:
        build_model(name, num_classes=3, **sizes)
    assert str(caught.value).startswith(f"Model '{name}' cannot be built with {reason}")


def test_errors_of_the_model_are_kept():
    with pytest.raises(
        UserError, match=r"^The width must be a multiple of the number of heads, but 5 heads do not divide"
    ):
        build_model("timesformer", num_classes=3, heads=5)


def test_sizes_with_default_zero_accept_zero():
    sizes = {"read_at": 0, "apply_at": 0, "size": (8, 32, 32), "width_multiplier": 0.0625}
    assert build_model("i3d-transformer-resizer", num_classes=3, **sizes) is not None


def test_i3d_settings_pass_through_front_end():
    model = built("i3d-resizer-2d", width_multiplier=0.125)
    assert count_parameters(model) - count_parameters(model.front) == count_parameters(built("i3d-small"))


def test_axes_keeps_order():
    assert axes("C3 T8 H224 W224") == (("C", 3), ("T", 8), ("H", 224), ("W", 224))
    assert MODELS["timesformer"].shape_text == "B, C 3, T 8, H 224, W 224"


@pytest.mark.parametrize("pixels", [IMAGENET, HALF, SIGNED])
def test_pixel_input_scales_then_normalizes(pixels):
    clip = torch.randint(0, 256, (2, 3, 4, 5, 6), dtype=torch.uint8)
    low, high = pixels.value_range
    mean, std = (torch.tensor(v).view(-1, 1, 1, 1) for v in (pixels.mean, pixels.std))
    expected = ((clip.double() / 255 * (high - low) + low) - mean) / std
    torch.testing.assert_close(pixels.apply(clip).double(), expected, rtol=1e-5, atol=1e-5)


def test_pixel_input_reverses_bgr():
    clip = torch.randint(0, 256, (1, 3, 2, 2, 2), dtype=torch.uint8)
    assert torch.equal(SIGNED.apply(clip, color_order="BGR"), SIGNED.apply(clip.flip(1)))


CARD = """
[wave]
product = "tracks"
input_shape = "T32 V1 N256 C2"
num_classes = 4
source = "a test"
build = "actionprep.training.models.tracks:ViewTransformer"

[wave-wide]
like = "wave"
sizes = { width = 32, channels = [4, 8] }
"""


@pytest.fixture
def card_file(tmp_path):
    """Write a card file; models that it registers are removed after the test."""
    before = set(MODELS)

    def write(text: str):
        path = tmp_path / "cards.toml"
        path.write_text(text, encoding="utf-8")
        return path

    yield write
    for name in set(MODELS) - before:
        del MODELS[name]


def test_register_file_adds_models(card_file):
    registry.register_file(card_file(CARD))
    assert registry.model_card("wave-wide").input_shape == axes("T32 V1 N256 C2")
    assert dict(registry.model_card("wave-wide").sizes) == {"width": 32, "channels": (4, 8)}
    assert build_model("wave-wide", num_classes=4).head.in_features == 32


def test_register_file_reads_pixel_formats(card_file):
    text = CARD.replace("[wave-wide]", 'pixels = "half"\n[wave-wide]') + "pixels = { mean = [0.5], std = [0.25] }"
    registry.register_file(card_file(text))
    assert registry.model_card("wave").pixels == HALF
    assert registry.model_card("wave-wide").pixels == PixelInput(mean=(0.5,), std=(0.25,))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "num_classes",
            "num_clases",
            r"Unknown key 'num_clases' in \[wave\] in .*cards\.toml\. Did you mean 'num_classes'",
        ),
        ('source = "a test"', "", r"Missing in \[wave\] in .*cards\.toml: source\."),
        ('like = "wave"', 'like = "waves"', r"\[wave-wide\] in .* is like 'waves', but no earlier table"),
        ('source = "a test"', 'source = "a"\npixels = "halve"', r"Unknown pixels 'halve' in .*Did you mean 'half'"),
        ("[wave]", "[timesformer]", r"There is already a model named 'timesformer'"),
        ("[wave]", "[wave", r"cards\.toml is not valid TOML"),
    ],
)
def test_register_file_rejects_wrong_cards(card_file, old, new, message):
    with pytest.raises(UserError, match=message):
        registry.register_file(card_file(CARD.replace(old, new, 1)))


def test_register_file_rejects_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"Cannot read the model cards .*none\.toml: No such file"):
        registry.register_file(tmp_path / "none.toml")
