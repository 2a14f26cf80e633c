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
    from actionprep.datasets.store.reader import ItemReader


class FramesInput(ClipSettings):
    """How clips are sampled from stored frames, cropped and augmented."""

    size: int = option(224, "Side of the square input of the model, in pixels.", ge=8)


class FramesReader(ClipReader):
    """Clips of the product `frames`, raw or JPEG, whether all frames are stored or only some."""

    product = "frames"
    Settings = FramesInput
    settings: FramesInput

    def _source(self, item: ItemReader) -> FrameSource:
        attributes = item.attributes
        if "rgb" in item:
            size = checked_size(item, "rgb")
        else:
            size = int(attributes["height"]), int(attributes["width"])
        return FrameSource(item["time"][:], size, str(attributes.get("which", "all")))

    def _stored_frames(self, item: ItemReader, rows: np.ndarray) -> np.ndarray:
        return read_frames(item, rows)
