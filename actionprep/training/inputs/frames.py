"""Stored frames as model input."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from actionprep.datasets.products.frames import read_frames
from actionprep.settings import option
from actionprep.training.inputs._clip_settings import ClipSettings
from actionprep.training.inputs._clips import ClipReader
from actionprep.training.inputs._frame_spans import FrameSource
from actionprep.training.inputs._stored import checked_size

if TYPE_CHECKING:
    from actionprep.datasets.store.zarr_store import ItemReader


class FramesInput(ClipSettings):
    """How clips are sampled out of stored frames, cut and augmented."""

    size: int = option(224, "Side of the square that the model sees, in pixels.", ge=8)


class FramesReader(ClipReader):
    """Clips of the product `frames`, raw or JPEG, of all frames or of those that were kept."""

    product = "frames"
    Settings = FramesInput
    settings: FramesInput

    def _place(self, item: ItemReader) -> FrameSource:
        attributes = item.attributes
        if "rgb" in item:
            size = checked_size(item, "rgb")
        else:
            size = int(attributes["height"]), int(attributes["width"])
        return FrameSource(item["time"][:], size, str(attributes.get("which", "all")))

    def _pictures(self, item: ItemReader, rows: np.ndarray) -> np.ndarray:
        return read_frames(item, rows)
