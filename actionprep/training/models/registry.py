"""The table of models: what each reads, how big it is, where it is from, how to build it (imports no torch)."""

from __future__ import annotations

import functools
import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from actionprep.errors import ActionprepError, UserError, nearest

if TYPE_CHECKING:
    from torch import Tensor, nn

Product = Literal["tracks", "frames", "pose", "heatmaps", "lowres", "fusion"]


@dataclass(frozen=True, slots=True)
class PixelInput:
    """How a pixel model wants its colours: map bytes 0..255 to `value_range`, then subtract `mean` and divide by `std`.

    color_order: the order of the channels. mean and std: one number a channel, or one for all, in units of
    `value_range`.
    """

    color_order: Literal["RGB", "BGR"] = "RGB"
    value_range: tuple[float, float] = (0.0, 1.0)
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def scale_and_shift(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Per channel, the a and b with which a byte x becomes a * x + b."""
        low, high = self.value_range
        step = (high - low) / 255.0
        return tuple(step / s for s in self.std), tuple((low - m) / s for m, s in zip(self.mean, self.std, strict=True))

    def apply(self, clip: Tensor, *, color_order: Literal["RGB", "BGR"] = "RGB") -> Tensor:
        """Bytes (B, C, T, H, W) in the given colour order → the float32 clip that the model reads."""
        a, b = (clip.new_tensor(numbers, dtype=_float32()).view(-1, 1, 1, 1) for numbers in self.scale_and_shift())
        if color_order != self.color_order:
            clip = clip.flip(1)
        return clip.to(a.dtype) * a + b


IMAGENET = PixelInput(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
HALF = PixelInput(mean=(0.45,), std=(0.225,))
SIGNED = PixelInput(value_range=(-1.0, 1.0))


@dataclass(frozen=True, slots=True)
class ModelCard:
    """One model as `actiontrain models` lists it.

    product: what of the store it reads. input_shape: axis letters and published sizes of its first input, without the
    batch axis. num_classes, parameters: the published pair; parameters None where nothing was published, or the model
    is ours. build: "module:callable" that takes num_classes and sizes; sizes: the settings that make the preset.
    pixels: how a model that sees pixels wants them. faults_fixed: what the original gets wrong and this does not.
    passes_on: "module:callable" to which the builder hands settings of **kwargs.
    labels_frames: whether it gives logits of every instant: always, or asked by its setting per_frame. keeps_state:
    whether it can go on from where it was (`advance` takes and gives a state).
    """

    name: str
    product: Product
    input_shape: tuple[tuple[str, int], ...]
    num_classes: int
    parameters: int | None
    source: str
    build: str
    sizes: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    pixels: PixelInput | None = None
    faults_fixed: tuple[str, ...] = ()
    passes_on: str | None = None
    labels_frames: Literal["never", "always", "asked"] = "never"
    keeps_state: bool = False

    @property
    def shape_text(self) -> str:
        """The input shape for a reader: "B, C 3, T 8, H 224, W 224"."""
        return ", ".join(["B", *(f"{axis} {size}" for axis, size in self.input_shape)])

    @property
    def shape(self) -> tuple[int, ...]:
        """The published sizes alone, without the batch axis."""
        return tuple(size for _, size in self.input_shape)


def axes(text: str) -> tuple[tuple[str, int], ...]:
    """Read "C3 T8 H224 W224" as (("C", 3), ("T", 8), ("H", 224), ("W", 224))."""
    return tuple((word.rstrip("0123456789"), int(word.lstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ"))) for word in text.split())


MODELS: dict[str, ModelCard] = {}


def register(card: ModelCard) -> ModelCard:
    """Add a model to the table; a second one of the same name is refused."""
    if card.name in MODELS:
        raise UserError(
            f"There is already a model named '{card.name}' (built by {MODELS[card.name].build}). Choose another name."
        )
    MODELS[card.name] = card
    return card


@functools.cache
def load_model_files() -> None:
    """Import the model files that register themselves, as one that is added does; the models below need no import."""
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if path != Path(__file__) and re.search(r"^register\(", path.read_text(encoding="utf-8"), re.MULTILINE):
            importlib.import_module(f"{__package__}.{path.stem}")


def model_card(name: str) -> ModelCard:
    """The card of a model by its name."""
    load_model_files()
    if name not in MODELS:
        raise UserError(
            f"There is no model named '{name}'.{nearest(name, MODELS)} Models: {', '.join(sorted(MODELS))}."
        )
    return MODELS[name]


def model_settings(name: str) -> set[str]:
    """Names of the settings that a model can be built with."""
    return _builder(model_card(name))[1]


def build_model(name: str, *, num_classes: int, **sizes: Any) -> nn.Module:
    """Build a model of the table with fresh weights; `sizes` override the preset's.

    Raises UserError for an unknown name, a setting that the model does not have, or one that it cannot have.
    """
    card = model_card(name)
    settings = {**card.sizes, **sizes}
    builder, known = _builder(card)
    for key in sizes:
        if key not in known:
            raise UserError(
                f"Model '{name}' has no setting '{key}'.{nearest(key, known)} It has {', '.join(sorted(known))}."
            )
    few = [key for key, value in sizes.items() if type(value) is int and value < 1 and _default_size(card, key, 0) >= 1]
    try:
        if few:
            raise ValueError(f"{few[0]} is at least 1")
        return builder(num_classes=num_classes, **settings)
    except (TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
        # A model's own words for what it cannot be are better.
        if not sizes or isinstance(error, ActionprepError):
            raise
        given = ", ".join(f"{key} = {value!r}" for key, value in sizes.items())
        raise UserError(
            f"Model '{name}' cannot be built with the sizes {given}: {str(error).splitlines()[0]}. Change [sizes] of the "
            f"recipe; the model's own are in 'actiontrain recipes', or in {card.build.partition(':')[0]}."
        ) from error


def example_input(name: str, *, batch: int = 1, device: str = "meta") -> Tensor:
    """Zeros of the published input shape, for counting and tracing."""
    import torch

    return torch.zeros(batch, *model_card(name).shape, device=device)


@dataclass(frozen=True, slots=True)
class ModelSize:
    """Weights, and floating-point operations of one forward pass of one sample, at the published sizes."""

    parameters: int
    flops: int


def model_size(name: str) -> ModelSize:
    """Count a model of the table at its published sizes, in a fraction of a second: nothing is computed or stored."""
    import torch

    card = model_card(name)
    with torch.device("meta"):
        model = build_model(name, num_classes=card.num_classes)
    if card.product == "fusion":
        parts = inspect.signature(type(model)).parameters["parts"].default
        return ModelSize(count_parameters(model), sum(model_size(part["model"]).flops for part in parts))
    inputs = [example_input(name)]
    for parameter in list(inspect.signature(model.forward).parameters.values())[1:]:
        # A second input that has to be there goes with every point of the first: a score, a mark of validity.
        if parameter.default is inspect.Parameter.empty and parameter.kind is not inspect.Parameter.VAR_KEYWORD:
            inputs.append(torch.ones(inputs[0].shape[:-1], device="meta"))
    return ModelSize(count_parameters(model), count_flops(model, *inputs))


def count_parameters(model: nn.Module) -> int:
    """Number of weights, frozen ones included, as papers count them."""
    return sum(p.numel() for p in model.parameters())


def count_flops(model: nn.Module, *inputs: Tensor, **named: Tensor) -> int:
    """Floating-point operations of one forward pass: a multiplication and its addition are two.

    Counts matrix products, convolutions and attention (torch.utils.flop_counter) and recurrent layers, not
    element-wise work. Papers on video models mostly state multiply-adds and call them FLOPs: halve to compare. Works
    on the "meta" device, without computing.
    """
    import torch
    from torch import nn
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    recurrent = 0

    def count_lstm(module: nn.Module, args: tuple[Any, ...]) -> None:
        nonlocal recurrent
        if isinstance(module, nn.LSTM) and not isinstance(args[0], nn.utils.rnn.PackedSequence):
            steps = args[0].shape[:-1].numel()
            recurrent += sum(2 * steps * w.numel() for w in module.parameters() if w.ndim == 2)

    hooks = [m.register_forward_pre_hook(count_lstm) for m in model.modules() if isinstance(m, nn.LSTM)]
    # The counter sees an LSTM's products on some devices and not on others; its own count of them is taken out.
    counter = FlopCounterMode(display=False)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
            model(*inputs, **named)
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    lstms = [name for name, m in model.named_modules() if isinstance(m, nn.LSTM)]
    root = type(model).__name__
    seen = sum(sum(counter.flop_counts.get(f"{root}.{name}".rstrip("."), {}).values()) for name in lstms)
    return counter.get_total_flops() - seen + recurrent


def _float32() -> Any:
    import torch

    return torch.float32


def _builder(card: ModelCard) -> tuple[Callable[..., nn.Module], set[str]]:
    module, _, name = card.build.partition(":")
    builder = getattr(importlib.import_module(module), name)
    known: set[str] = set()
    for parameter in inspect.signature(builder).parameters.values():
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD:
            known.add(parameter.name)
        elif card.passes_on is not None:
            module, _, name = card.passes_on.partition(":")
            known |= set(inspect.signature(getattr(importlib.import_module(module), name)).parameters)
    return builder, known - {"num_classes"}


def _default_size(card: ModelCard, key: str, otherwise: int) -> int:
    """A whole number that the preset or the builder has for a size; `otherwise` where it has none."""
    module, _, name = card.build.partition(":")
    parameters = inspect.signature(getattr(importlib.import_module(module), name)).parameters
    found = card.sizes.get(key, parameters[key].default if key in parameters else otherwise)
    return found if type(found) is int else otherwise


_HERE = "actionprep.training.models"
_FURNITURE = "baturalpguven/AI-Driven-Furniture-Assembly-Tracking-System"
_HEATMAP_STUDY = "woringer404v/MotionBERT (heatmap study)"
_TINYVIRAT = "abhay3010/pytorch-i3d (TinyVIRAT study)"
_TIMESFORMER_FAULTS = (
    "16- and 96-frame weights load: the frame count is an ordinary argument",
    "positions are interpolated in 2D and in time, not by nearest neighbour over the flattened grid",
    "weights trained on BGR frames (Something-Something V2) are recognised as such",
)
_VIVIT_FAULTS = ("the MLP's second layer has no activation, so the residual stream may shrink again",)
_RESIZER_FAULTS = (
    "colours are RGB, as the pretrained weights expect",
    "any clip length and size, without a mode string",
)
_MOTIONBERT_FAULTS = (
    "absent persons do not enter the mean over persons",
    "any number of persons",
    "padded frames are masked",
)


def _timesformer(name: str, shape: str, num_classes: int, parameters: int, source: str, **sizes: Any) -> None:
    register(
        ModelCard(
            name,
            "frames",
            axes(shape),
            num_classes,
            parameters,
            source,
            f"{_HERE}.timesformer:TimeSformer",
            MappingProxyType(sizes),
            HALF,
            _TIMESFORMER_FAULTS,
        )
    )


_ICML = "Bertasius et al., ICML 2021 (facebookresearch/TimeSformer)"
_timesformer("timesformer", "C3 T8 H224 W224", 400, 121_566_352, _ICML)
_timesformer("timesformer-hr", "C3 T16 H448 W448", 400, 122_024_080, _ICML, num_frames=16, image_size=448)
_timesformer("timesformer-l", "C3 T96 H224 W224", 400, 121_633_936, _ICML, num_frames=96)
_timesformer("timesformer-joint", "C3 T8 H224 W224", 400, 86_112_400, _ICML, attention="joint")
_timesformer("timesformer-space", "C3 T8 H224 W224", 400, 86_106_256, _ICML, attention="space")
_timesformer(
    "timesformer-light",
    "C3 T32 H224 W224",
    12,
    121_286_412,
    "DoVuongLoc2642/TimeSformer (wrist-camera gestures): 32 frames spread over the whole clip, anchored crop",
    num_frames=32,
)

register(
    ModelCard(
        "videomae",
        "frames",
        axes("C3 T16 H224 W224"),
        400,
        86_534_800,
        "Tong et al., NeurIPS 2022 (MCG-NJU/VideoMAE, base)",
        f"{_HERE}.videomae:VideoMAE",
        pixels=IMAGENET,
        faults_fixed=(
            "any frame count: the position table is interpolated",
            "no frame of an odd count is lost",
            "query and value biases are kept",
            "the normalisation that the weights expect is declared",
        ),
    )
)

register(
    ModelCard(
        "vivit-frames",
        "frames",
        axes("C3 T32 H224 W224"),
        400,
        88_954_000,
        "Arnab et al., ICCV 2021, model 1 (google/vivit-b-16x2)",
        f"{_HERE}.vivit:ViViT",
        MappingProxyType(
            {
                "in_channels": 3,
                "num_frames": 32,
                "image_size": 224,
                "tubelet": (2, 16, 16),
                "width": 768,
                "depth": 12,
                "heads": 12,
                "pool": "cls",
                "activation": "gelu_tanh",
                "attention_dropout": 0.0,
            }
        ),
        SIGNED,
        ("any frame count and size: positions are interpolated in space and time",),
    )
)
for _name, _parameters, _sizes in (
    ("vivit-1", 8_650_300, {}),
    ("vivit-1-big", 63_699_516, {"width": 768}),
    ("vivit-1-small-tube", 7_623_996, {"tubelet": (4, 8, 8)}),
):
    register(
        ModelCard(
            _name,
            "heatmaps",
            axes("K17 T56 H56 W56"),
            60,
            _parameters,
            f"Arnab et al., ICCV 2021, model 1; {_HEATMAP_STUDY}",
            f"{_HERE}.vivit:ViViT",
            MappingProxyType(_sizes),
            faults_fixed=_VIVIT_FAULTS,
        )
    )
register(
    ModelCard(
        "vivit-2",
        "heatmaps",
        axes("K17 T56 H56 W56"),
        60,
        44_414_012,
        f"Arnab et al., ICCV 2021, model 2; {_HEATMAP_STUDY}",
        f"{_HERE}.vivit:FactorisedViViT",
        faults_fixed=("it is factorised: the first stack sees one time step at a time, the second the steps",),
    )
)
register(
    ModelCard(
        "vivit-2-published",
        "heatmaps",
        axes("K17 T56 H56 W56"),
        60,
        44_414_012,
        f"{_HEATMAP_STUDY}, as published: all tokens attend to all in 16 layers",
        f"{_HERE}.vivit:FactorisedViViT",
        MappingProxyType({"factorised": False}),
    )
)

for _name, _parameters, _sizes in (
    ("heatmap-transformer", 9_552_956, {}),
    ("heatmap-transformer-big", 94_758_972, {"width": 768, "depth": 12, "heads": 12}),
):
    register(
        ModelCard(
            _name,
            "heatmaps",
            axes("K17 T48 H56 W56"),
            60,
            _parameters,
            f"{_HEATMAP_STUDY}, after Mao et al., ICCV 2023 (MAMP)",
            f"{_HERE}.heatmap_transformer:HeatmapTransformer",
            MappingProxyType(_sizes),
            faults_fixed=(
                "padded frames are masked",
                "any number of frames: the time embedding is interpolated",
                "temporal shift is left to the recipe, where it shifts time and not joints",
            ),
        )
    )

register(
    ModelCard(
        "motionbert",
        "pose",
        axes("M2 T243 K17 C3"),
        60,
        60_421_193,
        "Zhu et al., ICCV 2023 (Walter0807/MotionBERT, action)",
        f"{_HERE}.motionbert:MotionBERT",
        faults_fixed=_MOTIONBERT_FAULTS,
    )
)
register(
    ModelCard(
        "motionbert-heatmap",
        "heatmaps",
        axes("K17 T48 H56 W56"),
        60,
        63_532_678,
        _HEATMAP_STUDY,
        f"{_HERE}.motionbert:HeatmapMotionBERT",
        faults_fixed=(
            *_MOTIONBERT_FAULTS,
            "any number of frames (the published script asks for 120 where 48 are allowed)",
            "persons may keep a volume each",
        ),
        passes_on=f"{_HERE}.motionbert:MotionBERT",
    )
)

register(
    ModelCard(
        "poseconv3d",
        "heatmaps",
        axes("K17 T48 H56 W56"),
        60,
        2_024_860,
        "Duan et al., CVPR 2022 (kennymckormick/pyskl, SlowOnly-R50)",
        f"{_HERE}.poseconv3d:PoseConv3D",
    )
)
register(
    ModelCard(
        "poseconv3d-small",
        "heatmaps",
        axes("K17 T24 H24 W24"),
        20,
        None,
        "ours, after Duan et al., CVPR 2022: four plain convolutions (C3D), for CPU training",
        f"{_HERE}.poseconv3d:PoseC3D",
        MappingProxyType({"dropout": 0.3}),
    )
)

register(
    ModelCard(
        "view-transformer",
        "tracks",
        axes("T32 V1 N256 C2"),
        5,
        None,
        "ours: points spread to pictures of flow, tokens of views and instants",
        f"{_HERE}.tracks:ViewTransformer",
    )
)
register(
    ModelCard(
        "view-transformer-maaf",
        "tracks",
        axes("T50 V4 N500 C2"),
        6,
        48_454_285,
        f"{_FURNITURE}, transformer",
        f"{_HERE}.maaf:MultiViewTransformer",
        faults_fixed=(
            "real points in place of one repeated padding point; padding is masked",
            "time is encoded and every step is read, not the last one alone",
            "x and y are weighted apart, and not in raw pixels",
            "batches of clips of unequal length",
        ),
    )
)
_LSTM_FAULTS = (
    "invalid points are masked and coordinates normalised",
    "x and y are weighted apart by the view attention",
    "a recording's end is a mask, not a frame of zeros",
    "batches of any size",
)
register(
    ModelCard(
        "track-lstm",
        "tracks",
        axes("T10 V8 N400 C2"),
        7,
        16_264_714,
        f"{_FURNITURE}, LSTM",
        f"{_HERE}.track_lstm:TrackLstm",
        faults_fixed=_LSTM_FAULTS,
        labels_frames="always",
        keeps_state=True,
    )
)
register(
    ModelCard(
        "track-cnn-lstm",
        "tracks",
        axes("T10 V8 N400 C2"),
        7,
        None,
        f"{_FURNITURE}, CNN-LSTM",
        f"{_HERE}.track_lstm:TrackLstm",
        MappingProxyType({"encoder": "cnn"}),
        faults_fixed=(*_LSTM_FAULTS, "the residual blocks have their skip"),
        labels_frames="always",
        keeps_state=True,
    )
)

register(
    ModelCard(
        "i3d",
        "lowres",
        axes("C3 T32 H112 W112"),
        26,
        12_313_914,
        f"Carreira and Zisserman, CVPR 2017 (piergiaj/pytorch-i3d); {_TINYVIRAT}",
        f"{_HERE}.i3d:I3D",
        pixels=SIGNED,
        faults_fixed=_RESIZER_FAULTS,
    )
)
register(
    ModelCard(
        "i3d-small",
        "lowres",
        axes("C3 T16 H48 W48"),
        26,
        None,
        "ours: I3D with an eighth of the channels, for CPU training",
        f"{_HERE}.i3d:I3D",
        MappingProxyType({"width_multiplier": 0.125, "dropout": 0.3, "norm_momentum": 0.1}),
        SIGNED,
        _RESIZER_FAULTS,
    )
)
for _name, _function, _settings, _faults in (
    ("i3d-resizer-3d", "i3d_resizer", {"kernel": "3d"}, ()),
    ("i3d-resizer-2d", "i3d_resizer", {"kernel": "2d"}, ()),
    (
        "i3d-stn-resizer",
        "i3d_stn_resizer",
        {},
        ("frames are cut out along time", "one map a clip: nothing jitters", "any input size"),
    ),
    (
        "i3d-transformer-resizer",
        "i3d_transformer_resizer",
        {},
        (
            "theta starts at the identity",
            "frames are cut out along time",
            "one theta a clip: nothing jitters",
            "any input size",
        ),
    ),
):
    register(
        ModelCard(
            _name,
            "lowres",
            axes("C3 T32 H28 W28"),
            26,
            None,
            f"{_TINYVIRAT}, after Talebi and Milanfar, ICCV 2021",
            f"{_HERE}.resizers:{_function}",
            MappingProxyType(_settings),
            SIGNED,
            (*_RESIZER_FAULTS, *_faults),
            f"{_HERE}.i3d:I3D",
        )
    )
