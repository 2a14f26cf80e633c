"""What every input has in common: settings that need no torch, and a reader from snippets to batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from actionprep.errors import UserError
from actionprep.registry import Entry, Registry
from actionprep.settings import Settings, option
from actionprep.training.inputs.rng import Draws

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

    from actionprep.datasets.products.snippets import SnippetTable
    from actionprep.datasets.store.zarr_store import Store

Batch = dict[str, "Tensor"]


class InputSettings(Settings):
    """How snippets of one product are sampled, normalized and augmented."""

    @property
    def variants(self) -> int | None:
        """Variants of each snippet in a test, where these settings say so; None: any number that a recipe asks for."""
        return None


class MirroringSettings(InputSettings):
    """Settings of inputs whose samples may be mirrored left to right, and what that makes of their labels."""

    flip: float = option(0.0, "Share of the samples that are mirrored, left and right joints exchanged.", ge=0, le=1)
    flip_labels: dict[str, str] = option(
        {}, 'Label that each label becomes when mirrored: { swipe_left = "swipe_right", … }; others stay.'
    )


class ProductReader(ABC):
    """Reads the snippets of one table from one product; `INPUTS` lists the readers.

    product:   the name of the input; also of the product of the store that it reads, where `reads` says no other.
    Settings:  its settings, a subclass of InputSettings.
    in_memory: True: everything needed is held (on the device, where it fits) and `read` takes whole batches; False:
        `read` is called with one row at a time in the loader's workers, and `collate` joins the samples.
    cuts: samples have places or instants that `cut` can take from another one; False: CutMix is refused before a run is
        made.
    cuts_time: `cut` replaces a span of time, and with it the labels of its instants; False: it cuts all instants alike.

    store, table, views: what to read; every row of the table may be asked for. Views stand in this order on the view
    axis of what `read` gives; a snippet without one of them has that view masked.
    """

    product: ClassVar[str]
    Settings: ClassVar[type[InputSettings]]
    in_memory: bool = False
    cuts: ClassVar[bool] = True
    cuts_time: ClassVar[bool] = True

    def __init__(self, settings: Any, store: Store, table: SnippetTable, views: Sequence[str]) -> None:
        self.settings = settings
        self.store = store
        self.table = table
        self.views = tuple(views)

    @abstractmethod
    def read(self, rows: Sequence[int], draws: Draws | None = None) -> Batch:
        """Arrays of these snippets with the batch axis first; the model's forward takes them by name.

        draws: the random numbers of each sample, for training; None: the center, always the same. Test variants
        (other crops, other sampling times) come through `draws.variant`.
        """

    def times(self, rows: Sequence[int], draws: Draws | None = None) -> np.ndarray:
        """(B, T) float64 s on the recordings' clocks: the instants that `read` shows with fresh draws of the same numbers.

        Raises UserError where an input does not know them.
        """
        raise UserError(
            f"The input '{self.product}' does not know when the instants of its samples are, so they cannot have labels of "
            "their own. Train on the labels of whole snippets: --set targets=snippet."
        )

    def augment(self, batch: Batch, draws: Draws) -> Batch:
        """The batch changed at random, on its device; the base leaves it as it is.

        Where instants move, their labels `frame_target` (B, T, C) and `frame_known` (B, T) move with them, if there.
        """
        return batch

    def mirrored(self, draws: Draws) -> Tensor:
        """(B,) bool: which samples `augment` mirrors with these draws."""
        import torch

        return torch.zeros(len(draws), dtype=torch.bool)

    def mirror_codes(self) -> np.ndarray | None:
        """(C,) the code that each label becomes when its sample is mirrored; None when none is."""
        return None

    @classmethod
    def reads(cls, settings: Any) -> str:
        """The product of the store that is read with these settings."""
        return cls.product

    @classmethod
    def self_contained(cls, settings: Any) -> Any:
        """These settings with what they only name, so that a run stays as it was; most name nothing."""
        return settings

    @classmethod
    def span(cls, store: Store, recording: str, views: Sequence[str]) -> tuple[float, float]:
        """First and last + 1 instant in seconds that the product covers in some view, for cutting windows."""
        raise UserError(f"Windows cannot be cut from '{cls.product}' alone.")

    def mix(self, batch: Batch, partner: Tensor, share: Tensor) -> Batch:
        """Each sample mixed with batch[partner], of which 1 - share comes in; share (B,) in [0, 1].

        The base blends floating-point arrays and joins boolean ones.
        """
        mixed = {}
        for name, values in batch.items():
            keep = share.view(-1, *[1] * (values.ndim - 1))
            if values.is_floating_point():
                mixed[name] = keep * values + (1 - keep) * values[partner]
            else:
                mixed[name] = values | values[partner] if values.dtype == _bool() else values
        return mixed

    def cut(self, batch: Batch, partner: Tensor, share: Tensor, draws: Draws) -> tuple[Batch, Tensor]:
        """CutMix: a piece of each sample replaced by that of batch[partner]; share (B) is what should stay.

        Returns the batch and the share (B) that did stay. The base replaces a span of time, in arrays that have the axis
        of frame_valid (B, T); readers of pictures cut out a rectangle.
        """
        import torch

        if "frame_valid" not in batch:
            raise UserError(f"CutMix needs places or instants to cut at, and batches of '{self.product}' have none.")
        valid = batch["frame_valid"]
        num_frames = valid.shape[1]
        length = ((1 - share) * num_frames).round()
        low = (draws.uniform().to(valid.device) * (num_frames - length + 1)).floor()
        line = torch.arange(num_frames, device=valid.device)
        foreign = (line >= low[:, None]) & (line < (low + length)[:, None])
        mixed = {}
        for name, values in batch.items():
            along = values.shape[:2] == valid.shape
            at = foreign.view(*foreign.shape, *[1] * (values.ndim - 2)) if along else None
            mixed[name] = values if at is None else torch.where(at, values[partner], values)
        return mixed, 1 - foreign.float().mean(1)

    def collate(self, samples: Sequence[Batch]) -> Batch:
        """Join samples that `read` gave one by one; pads nothing."""
        import torch

        return {name: torch.cat([sample[name] for sample in samples]) for name in samples[0]}

    def to(self, device: torch.device) -> None:  # noqa: B027 - nothing is held unless a reader says so
        """Move what is held to the device, where it fits."""

    def without_views(self, batch: Batch, keep: Sequence[bool]) -> Batch:
        """The batch as if only some of the views had been seen, of the same shape."""
        raise UserError(f"Views cannot be left out one by one of '{self.product}': its batches have one view only.")

    def meanings(self) -> dict[str, str]:
        """What each array of `read` holds with these settings, for other programs that make their own: axes, values, units.

        Arrays that are not in it are not explained.
        """
        return {}

    def model_sizes(self) -> dict[str, Any]:
        """Sizes that the input decides, as a builder of models may take them (num_views, num_points, num_frames, …)."""
        return {"num_views": len(self.views)}

    @classmethod
    def instead(cls, store: Store) -> str | None:
        """Another input, of what the store holds, that gives the same models their samples; most have none."""
        return None

    @classmethod
    def check_store(cls, settings: Any, store: Store, *, training: bool = False) -> None:
        """Raise UserError that says which stage to run when the store lacks the product.

        training: what is to be trained may still be chosen, so say what there is to choose.
        """
        product = cls.reads(settings)
        if store.items(product):
            return
        other = cls.instead(store)
        choice = (
            f"train on what there is: --set product={other}"
            if other is not None
            else "choose a recipe for what there is (actiontrain recipes)"
        )
        raise UserError(
            f"This recipe reads '{product}', and the store {store.url} {what_it_has(store)}.\n{how_to_make(product)}"
            + (f", or {choice}." if training else ".")
        )


class MirroringReader(ProductReader):
    """A reader with MirroringSettings.

    _mirror (C,): what `mirrored_codes` makes of the settings.
    """

    _mirror: np.ndarray | None

    def mirrored(self, draws: Draws) -> Tensor:  # noqa: D102
        # A stream of its own, so that labels can be asked for apart from the arrays.
        return Draws(draws.seed ^ 0x5EED, draws.epoch, draws.rows).uniform() < self.settings.flip

    def mirror_codes(self) -> np.ndarray | None:  # noqa: D102
        return self._mirror


def what_it_has(store: Store) -> str:
    """What a store has instead of a product that is missing, for a message."""
    return f"has none of it; it has {', '.join(store.products()) or 'nothing yet'}"


def how_to_make(product: str) -> str:
    """How to make a product that is missing, for a message; without its full stop."""
    return f"Make it with 'actionprep build {product}' in the study folder"


INPUTS: Registry[type[ProductReader]] = Registry(
    "input",
    "actionprep.inputs",
    (
        Entry("frames", "actionprep.training.inputs.frames:FramesReader"),
        Entry("fusion", "actionprep.training.inputs.fusion:FusionReader"),
        Entry("heatmaps", "actionprep.training.inputs.heatmaps:HeatmapsReader"),
        Entry("lowres", "actionprep.training.inputs.lowres:LowresReader"),
        Entry("pose", "actionprep.training.inputs.pose:PoseReader"),
        Entry("tracks", "actionprep.training.inputs.tracks:TracksReader"),
    ),
    plural="Inputs",
    subclass_of="actionprep.training.inputs.base:ProductReader",
)
"""Readers by the product that a recipe names."""


def products() -> list[str]:
    """Products that have an input, sorted by name."""
    return sorted(INPUTS)


def find_input(product: str) -> type[ProductReader]:
    """The reader of a product; raises UserError naming the nearest one."""
    return INPUTS.find(product)


def input_settings(product: str, values: Mapping[str, Any] | InputSettings) -> InputSettings:
    """Settings of a product's input, from plain values."""
    model = find_input(product).Settings
    if isinstance(values, InputSettings):
        if not isinstance(values, model):
            raise UserError(
                f"Input settings of another product: expected {model.__name__}, got {type(values).__name__}."
            )
        return values
    return model.read(dict(values), where="[input] of the recipe")


def mirrored_codes(flip: float, flip_labels: Mapping[str, str], labels: Sequence[str]) -> np.ndarray | None:
    """(C,) the code that each label becomes when its sample is mirrored; None when none is.

    flip: share of samples that are mirrored; flip_labels pairs labels both ways, others stay as they are.

    Raises UserError for labels that there are not, for pairs that do not go both ways, and for labels that name a side and
    are not paired: a mirrored swipe_left is no swipe_left.
    """
    import re

    import numpy as np

    if not flip:
        return None
    codes = np.arange(len(labels))
    for one, other in flip_labels.items():
        for label in (one, other):
            if label not in labels:
                raise UserError(f"flip_labels names '{label}', which is no label here. Labels: {', '.join(labels)}.")
        codes[labels.index(one)] = labels.index(other)
    if sorted(codes.tolist()) != list(range(len(labels))):
        raise UserError(
            'flip_labels must pair labels both ways, such as { left = "right", right = "left" }; got '
            f"{dict(flip_labels)}."
        )
    sided = [one for one in labels if re.search(r"left|right", one, re.IGNORECASE) and one not in flip_labels]
    if sided:
        raise UserError(
            f"input.flip mirrors samples, and the label{'s' if len(sided) > 1 else ''} {', '.join(sided)} "
            f"name{'' if len(sided) > 1 else 's'} a side. Say what each becomes with input.flip_labels (the same label, "
            "where nothing changes), or set input.flip = 0."
        )
    return codes


def _bool() -> Any:
    import torch

    return torch.bool
