"""Common parts of all inputs: settings without PyTorch, and readers that turn snippets into batches."""

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
        """Number of variants of each snippet in a test, if the settings determine it; None: the recipe chooses."""
        return None


class MirroringSettings(InputSettings):
    """Settings of inputs with samples that can be mirrored left to right, and the labels after mirroring."""

    flip: float = option(0.0, "Share of samples that are mirrored, with left and right joints exchanged.", ge=0, le=1)
    flip_labels: dict[str, str] = option(
        {}, 'Label after mirroring, for labels that change: { swipe_left = "swipe_right", … }.'
    )


class ProductReader(ABC):
    """Reads the snippets of one table from one product; `INPUTS` lists the readers.

    Args:
        settings: Settings of the input.
        store: Store to read.
        table: Table of snippets. Every row can be read.
        views: Views to read. They have this order on the view axis; a view that a snippet lacks is masked.

    Attributes:
        product: Name of the input, and of the product that it reads unless `reads` returns another one.
        Settings: Class of the settings.
        in_memory: True: all data is in memory, on the device if it fits, and `read` takes complete batches. False:
            workers of the loader call `read` with one row at a time, and `collate` joins the samples.
        cuts: Whether `cut` can replace a part of a sample. If not, CutMix is refused before a run is created.
        cuts_time: Whether `cut` replaces a span of time, and with it the labels of its frames. If not, it changes all
            frames alike.
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
        """Read snippets as arrays with a batch axis first. The forward method of the model takes them by name.

        Args:
            rows: Rows of the table.
            draws: Random numbers of each sample, for training. None: the deterministic center. Variants of tests (other
                crops, other sampling times) have `draws.variant`.
        """

    def times(self, rows: Sequence[int], draws: Draws | None = None) -> np.ndarray:
        """Compute the time steps that `read` samples with the same random numbers.

        Args:
            rows: Rows of the table.
            draws: Random numbers, as for `read` and not yet used.

        Returns:
            Seconds on the clocks of the recordings, float64 of shape (B, T).

        Raises:
            UserError: If the input does not know the times.
        """
        raise UserError(
            f"The input '{self.product}' does not know the times of its samples, so their time steps cannot have labels. "
            "Train on the labels of full snippets: --set targets=snippet."
        )

    def augment(self, batch: Batch, draws: Draws) -> Batch:
        """Augment a batch on its device; unchanged by default.

        If time steps move, their labels `frame_target` (B, T, C) and `frame_known` (B, T) move with them, if present.
        """
        return batch

    def mirrored(self, draws: Draws) -> Tensor:
        """Return which samples `augment` mirrors with these random numbers, bool (B,)."""
        import torch

        return torch.zeros(len(draws), dtype=torch.bool)

    def mirror_codes(self) -> np.ndarray | None:
        """Return the label code of each label after mirroring, shape (C,); None if no sample is mirrored."""
        return None

    def evidence(self, batch: Batch) -> Tensor:
        """Return which samples of a batch show anything at all: points, people or frames, bool of shape (B,).

        A sample without evidence gets no label in predictions. By default every sample has some.
        """
        import torch

        return torch.ones(len(next(iter(batch.values()))), dtype=torch.bool)

    @classmethod
    def reads(cls, settings: Any) -> str:
        """Return the product of the store that is read with these settings."""
        return cls.product

    @classmethod
    def self_contained(cls, settings: Any) -> Any:
        """Return settings that contain everything they refer to by name, so that a run does not change later."""
        return settings

    @classmethod
    def span(cls, store: Store, recording: str, views: Sequence[str]) -> tuple[float, float]:
        """Return the start and end, in seconds, of what the product covers in some view, for creating windows."""
        raise UserError(f"Windows cannot be created from '{cls.product}' alone.")

    def mix(self, batch: Batch, partner: Tensor, share: Tensor) -> Batch:
        """Mix each sample with its partner (mixup).

        By default, floating-point arrays are blended and boolean ones joined.

        Args:
            batch: Batch.
            partner: Index of the partner of each sample, shape (B,).
            share: Weight of the sample itself, in [0, 1], shape (B,).

        Returns:
            The mixed batch.
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
        """Replace a part of each sample by that of its partner (CutMix).

        By default a span of time is replaced, in arrays with the axes of `frame_valid` (B, T). Readers of frames
        replace a rectangle.

        Args:
            batch: Batch.
            partner: Index of the partner of each sample, shape (B,).
            share: Wanted share of the sample itself, in [0, 1], shape (B,).
            draws: Random numbers.

        Returns:
            The batch, and the share (B,) of each sample that was kept.

        Raises:
            UserError: If the batch has no axis to cut along.
        """
        import torch

        if "frame_valid" not in batch:
            raise UserError(f"CutMix needs a spatial or temporal axis, and batches of '{self.product}' have none.")
        valid = batch["frame_valid"]
        num_frames = valid.shape[1]
        length = ((1 - share) * num_frames).round()
        low = (draws.uniform().to(valid.device) * (num_frames - length + 1)).floor()
        step = torch.arange(num_frames, device=valid.device)
        replaced = (step >= low[:, None]) & (step < (low + length)[:, None])
        mixed = {}
        for name, values in batch.items():
            has_time_axis = values.shape[:2] == valid.shape
            mask = replaced.view(*replaced.shape, *[1] * (values.ndim - 2)) if has_time_axis else None
            mixed[name] = values if mask is None else torch.where(mask, values[partner], values)
        return mixed, 1 - replaced.float().mean(1)

    def collate(self, samples: Sequence[Batch]) -> Batch:
        """Join samples that were read one at a time, without padding."""
        import torch

        return {name: torch.cat([sample[name] for sample in samples]) for name in samples[0]}

    def to(self, device: torch.device) -> None:  # noqa: B027 - by default nothing is in memory
        """Move data in memory to the device if it fits."""

    def without_views(self, batch: Batch, keep: Sequence[bool]) -> Batch:
        """Return the batch as if only some of the views existed, with the same shape.

        Args:
            batch: Batch.
            keep: Which views to keep.

        Raises:
            UserError: If batches have no view axis.
        """
        raise UserError(f"Views of '{self.product}' cannot be left out: its batches have a single view.")

    def meanings(self) -> dict[str, str]:
        """Describe the arrays of `read` for other programs that create them: axes, values and units, by name."""
        return {}

    def model_sizes(self) -> dict[str, Any]:
        """Return sizes that the input determines, for builders of models (num_views, num_points, num_frames, …)."""
        return {"num_views": len(self.views)}

    @classmethod
    def alternative(cls, store: Store) -> str | None:
        """Return another available input for the same models; None by default."""
        return None

    @classmethod
    def check_store(cls, settings: Any, store: Store, *, training: bool = False) -> None:
        """Check that the store has the product.

        Args:
            settings: Settings of the input.
            store: Store to check.
            training: Whether a training is being planned, so that other inputs and recipes are worth suggesting.

        Raises:
            UserError: If the product is missing, with the command that creates it.
        """
        product = cls.reads(settings)
        if store.items(product):
            return
        alternative = cls.alternative(store)
        choice = (
            f"train on the available '{alternative}': --set product={alternative}"
            if alternative is not None
            else "choose a recipe for an available product (actiontrain recipes)"
        )
        raise UserError(
            f"This recipe reads '{product}', but the store {store.url} {available_products(store)}.\n{build_hint(product)}"
            + (f", or {choice}." if training else ".")
        )


class MirroringReader(ProductReader):
    """A reader with MirroringSettings. `_mirror` (C,) is the result of `mirrored_codes`."""

    _mirror: np.ndarray | None

    def mirrored(self, draws: Draws) -> Tensor:  # noqa: D102
        # A separate stream, so that labels can be mirrored without drawing the numbers of the arrays.
        return Draws(draws.seed ^ 0x5EED, draws.epoch, draws.rows).uniform() < self.settings.flip

    def mirror_codes(self) -> np.ndarray | None:  # noqa: D102
        return self._mirror


def available_products(store: Store) -> str:
    """Describe which products a store has instead of a missing one, for a message."""
    return f"does not contain it. Available products: {', '.join(store.products()) or 'none'}"


def build_hint(product: str) -> str:
    """Describe how to create a missing product, for a message; without a full stop."""
    return f"Create it with 'actionprep build {product}' in the study folder"


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
    """Create the settings of an input from plain values.

    Raises:
        UserError: If the settings belong to another product, or if a value is invalid.
    """
    model = find_input(product).Settings
    if isinstance(values, InputSettings):
        if not isinstance(values, model):
            raise UserError(f"Settings of another input: expected {model.__name__}, got {type(values).__name__}.")
        return values
    return model.read(dict(values), where="[input] of the recipe")


def mirrored_codes(flip: float, flip_labels: Mapping[str, str], labels: Sequence[str]) -> np.ndarray | None:
    """Compute the label code of each label after mirroring.

    Args:
        flip: Share of samples that are mirrored.
        flip_labels: Label after mirroring of labels that change. Pairs must be given in both directions.
        labels: Names of the labels.

    Returns:
        Codes of shape (C,); None if no sample is mirrored.

    Raises:
        UserError: If a label does not exist, if a pair is given in one direction only, or if a label names a side and
            is not in `flip_labels`: a mirrored swipe_left is not a swipe_left.
    """
    import re

    import numpy as np

    if not flip:
        return None
    codes = np.arange(len(labels))
    for label, mirrored_label in flip_labels.items():
        for name in (label, mirrored_label):
            if name not in labels:
                raise UserError(f"flip_labels contains '{name}', which is not a label. Labels: {', '.join(labels)}.")
        codes[labels.index(label)] = labels.index(mirrored_label)
    if sorted(codes.tolist()) != list(range(len(labels))):
        raise UserError(
            'flip_labels must contain pairs in both directions, such as { left = "right", right = "left" }; got '
            f"{dict(flip_labels)}."
        )
    sided = [label for label in labels if re.search(r"left|right", label, re.IGNORECASE) and label not in flip_labels]
    if sided:
        raise UserError(
            f"input.flip mirrors samples, but the label{'s' if len(sided) > 1 else ''} {', '.join(sided)} "
            f"name{'' if len(sided) > 1 else 's'} a side. Set the label after mirroring with input.flip_labels (the same "
            "label if it does not change), or set input.flip = 0."
        )
    return codes


def _bool() -> Any:
    import torch

    return torch.bool
