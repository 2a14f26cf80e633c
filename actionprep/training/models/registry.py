"""Model cards: what a model reads, how it is built, and the list of all models. Imports torch only to build one."""

from __future__ import annotations

import importlib
import inspect
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from actionprep.errors import ActionprepError, UserError, nearest
from actionprep.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor, nn

Product = Literal["tracks", "frames", "pose", "heatmaps", "lowres", "fusion"]


@dataclass(frozen=True, slots=True)
class PixelInput:
    """Pixel format that a model expects: bytes are scaled to `value_range`, then normalized as (x - mean) / std.

    Attributes:
        color_order: Order of the color channels.
        value_range: Values that the bytes 0 and 255 map to.
        mean: Mean in units of `value_range`, one per channel or one for all.
        std: Standard deviation in units of `value_range`, one per channel or one for all.
    """

    color_order: Literal["RGB", "BGR"] = "RGB"
    value_range: tuple[float, float] = (0.0, 1.0)
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def scale_and_shift(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return scale and offset per channel: a byte x becomes scale * x + offset."""
        low, high = self.value_range
        step = (high - low) / 255.0
        return tuple(step / s for s in self.std), tuple((low - m) / s for m, s in zip(self.mean, self.std, strict=True))

    def apply(self, clip: Tensor, *, color_order: Literal["RGB", "BGR"] = "RGB") -> Tensor:
        """Convert stored bytes to the model's input.

        Args:
            clip: Bytes of shape (B, C, T, H, W).
            color_order: Channel order of `clip`.

        Returns:
            float32 clip of the same shape, in the model's channel order.
        """
        scale, offset = (clip.new_tensor(v, dtype=_float32()).view(-1, 1, 1, 1) for v in self.scale_and_shift())
        if color_order != self.color_order:
            clip = clip.flip(1)
        return clip.to(scale.dtype) * scale + offset


IMAGENET = PixelInput(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
HALF = PixelInput(mean=(0.45,), std=(0.225,))
SIGNED = PixelInput(value_range=(-1.0, 1.0))
PIXELS = MappingProxyType({"imagenet": IMAGENET, "half": HALF, "signed": SIGNED})
"""Pixel formats by the name that card files use."""


@dataclass(frozen=True, slots=True)
class ModelCard:
    """Description of one model, as `actiontrain models` lists it.

    Attributes:
        name: Name of the model.
        product: Product that it reads.
        input_shape: Axis letters and published sizes of the first input, without the batch axis.
        num_classes: Published number of classes.
        parameters: Published number of parameters; None for models that were not published with a count.
        source: Publication or repository.
        build: "module:callable" that takes num_classes and sizes and returns the model.
        sizes: Settings of the preset.
        pixels: Pixel format; None for models that do not read frames.
        faults_fixed: Faults of the original that are fixed here.
        passes_on: "module:callable" that receives the keyword arguments which `build` does not name.
        labels_frames: Whether the logits have a time axis; "optional": with the setting per_frame.
        keeps_state: Whether `advance` takes and returns a state, to process a recording in chunks.
        separate_persons: Whether the input can have one volume per person, (B, M, K, T, H, W).
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
    labels_frames: Literal["never", "always", "optional"] = "never"
    keeps_state: bool = False
    separate_persons: bool = False

    @property
    def shape_text(self) -> str:
        """Input shape for display: "B, C 3, T 8, H 224, W 224"."""
        return ", ".join(["B", *(f"{axis} {size}" for axis, size in self.input_shape)])

    @property
    def shape(self) -> tuple[int, ...]:
        """Published sizes without axis letters and batch axis."""
        return tuple(size for _, size in self.input_shape)


def axes(text: str) -> tuple[tuple[str, int], ...]:
    """Parse "C3 T8 H224 W224" into (("C", 3), ("T", 8), ("H", 224), ("W", 224))."""
    return tuple((word.rstrip("0123456789"), int(word.lstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ"))) for word in text.split())


CARD_FILES = Path(__file__).parent / "cards"
"""Folder of the cards that come with the package, one TOML file per model family."""


def register(card: ModelCard) -> ModelCard:
    """Register a model.

    Args:
        card: Card of the model.

    Returns:
        The same card.

    Raises:
        UserError: If the name is already registered.
    """
    MODELS[card.name] = card
    return card


def register_file(path: str | Path) -> None:
    """Register the models of a TOML file: one table per model, with the attributes of `ModelCard` as keys.

    input_shape is written as "C3 T8 H224 W224". pixels is one of the names in `PIXELS`, or a table with the attributes
    of `PixelInput`. A table with `like = "NAME"` starts from an earlier table of the same file.

    Args:
        path: Card file.

    Raises:
        UserError: If the file is not valid, or a name is already registered.
    """
    try:
        tables = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"Cannot read the model cards {path}: {error.strerror or error}.") from None
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path} is not valid TOML: {error}.") from None
    complete: dict[str, dict[str, Any]] = {}
    for name, table in tables.items():
        own = dict(table)
        base = own.pop("like", None)
        if base is not None and base not in complete:
            raise UserError(f"[{name}] in {path} is like '{base}', but no earlier table of the file has that name.")
        complete[name] = {**complete.get(base, {}), **own}
        register(_card(name, complete[name], where=f"[{name}] in {path}"))


def _card(name: str, table: Mapping[str, Any], *, where: str) -> ModelCard:
    known = {f.name: f for f in fields(ModelCard) if f.name != "name"}
    for key in table:
        if key not in known:
            raise UserError(f"Unknown key '{key}' in {where}.{nearest(key, known)} Keys: {', '.join(known)}.")
    values = {"parameters": None, **table}
    missing = [
        key for key, f in known.items() if key not in values and f.default is MISSING and f.default_factory is MISSING
    ]
    if missing:
        raise UserError(f"Missing in {where}: {', '.join(missing)}.")
    values["input_shape"] = axes(values["input_shape"])
    values["sizes"] = MappingProxyType({key: _tuples(value) for key, value in values.get("sizes", {}).items()})
    values["faults_fixed"] = _tuples(values.get("faults_fixed", []))
    pixels = values.get("pixels")
    if isinstance(pixels, str):
        if pixels not in PIXELS:
            raise UserError(
                f"Unknown pixels '{pixels}' in {where}.{nearest(pixels, PIXELS)} Names: {', '.join(PIXELS)}."
            )
        values["pixels"] = PIXELS[pixels]
    elif pixels is not None:
        values["pixels"] = PixelInput(**{key: _tuples(value) for key, value in pixels.items()})
    return ModelCard(name=name, **values)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _load_model_files() -> None:
    """Register the cards that come with the package."""
    for path in sorted(CARD_FILES.glob("*.toml")):
        register_file(path)


MODELS: Registry[ModelCard] = Registry(
    "model",
    "actionprep.models",
    plural="Models",
    instance_of="actionprep.training.models.registry:ModelCard",
    fill=_load_model_files,
)
"""Cards of all models by name."""


def model_card(name: str) -> ModelCard:
    """Return the card of a model.

    Raises:
        UserError: If no model has this name.
    """
    return MODELS.find(name)


def model_settings(name: str) -> set[str]:
    """Return the names of the settings that a model can be built with."""
    return _builder(model_card(name))[1]


def build_model(name: str, *, num_classes: int, **sizes: Any) -> nn.Module:
    """Build a model with random initial weights.

    Args:
        name: Name of a registered model.
        num_classes: Number of classes.
        **sizes: Settings that override those of the preset.

    Returns:
        The model.

    Raises:
        UserError: If the model or a setting does not exist, or the model rejects a value.
    """
    card = model_card(name)
    settings = {**card.sizes, **sizes}
    builder, known = _builder(card)
    for key in sizes:
        if key not in known:
            raise UserError(
                f"Model '{name}' has no setting '{key}'.{nearest(key, known)} Settings: {', '.join(sorted(known))}."
            )
    too_small = [
        key for key, value in sizes.items() if type(value) is int and value < 1 and _default_size(card, key, 0) >= 1
    ]
    try:
        if too_small:
            raise ValueError(f"{too_small[0]} must be at least 1")
        return builder(num_classes=num_classes, **settings)
    except (TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
        # Errors that the model itself raises are more specific.
        if not sizes or isinstance(error, ActionprepError):
            raise
        given = ", ".join(f"{key} = {value!r}" for key, value in sizes.items())
        raise UserError(
            f"Model '{name}' cannot be built with {given}: {str(error).splitlines()[0]}. Change [sizes] of the recipe; "
            f"the default sizes are in {card.build.partition(':')[0]}."
        ) from error


def example_input(name: str, *, batch: int = 1, device: str = "meta") -> Tensor:
    """Return zeros of the published input shape, for counting and tracing."""
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
    """Return the integer default of a size, from the preset or the builder; `otherwise` if it has none."""
    module, _, name = card.build.partition(":")
    parameters = inspect.signature(getattr(importlib.import_module(module), name)).parameters
    default = card.sizes.get(key, parameters[key].default if key in parameters else otherwise)
    return default if type(default) is int else otherwise
