"""What the table of models says of one, the table itself, and building a model of it (imports no torch)."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from actionprep.errors import ActionprepError, UserError, nearest
from actionprep.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor, nn

Product = Literal["tracks", "frames", "pose", "heatmaps", "lowres", "fusion"]


@dataclass(frozen=True, slots=True)
class PixelInput:
    """How a pixel model wants its colors: map bytes 0..255 to `value_range`, then subtract `mean` and divide by `std`.

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
        """Bytes (B, C, T, H, W) in the given color order → the float32 clip that the model reads."""
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
    whether it can go on from where it was (`advance` takes and gives a state). persons_apart: whether it reads a volume
    for each person, (B, M, K, T, H, W).
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
    persons_apart: bool = False

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


MODEL_FILES = (
    "cards",
    "fusion_recipe",
    "pixel_recipes",
    "skeleton_recipes",
    "track_recipes",
)
"""Modules of this package that register models or recipes."""


@functools.cache
def load_model_files() -> None:
    """Import the modules that register models or recipes."""
    for name in MODEL_FILES:
        importlib.import_module(f"{__package__}.{name}")


MODELS: Registry[ModelCard] = Registry(
    "model",
    "actionprep.models",
    plural="Models",
    instance_of="actionprep.training.models.registry:ModelCard",
    fill=load_model_files,
)
"""Cards of all models by name."""


def register(card: ModelCard) -> ModelCard:
    """Add a model; a second one of the same name is refused."""
    MODELS[card.name] = card
    return card


def model_card(name: str) -> ModelCard:
    """The card of a model by its name; raises UserError naming the nearest one."""
    return MODELS.find(name)


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
