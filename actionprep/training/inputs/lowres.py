"""Small frames as model input."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from actionprep.errors import UserError
from actionprep.settings import option
from actionprep.training.inputs._clip_settings import ClipSettings
from actionprep.training.inputs._clips import ClipReader
from actionprep.training.inputs._frame_spans import FrameSource
from actionprep.training.inputs._stored import checked_size

if TYPE_CHECKING:
    from actionprep.datasets.store.reader import ItemReader


class LowresInput(ClipSettings):
    """How clips are sampled from small frames, cropped and augmented."""

    stored: int = option(
        0, "Stored size to read, by its short side; 0: the smallest that is large enough, else the largest.", ge=0
    )


class LowresReader(ClipReader):
    """Clips of the product `lowres` in one of its sizes."""

    product = "lowres"
    Settings = LowresInput
    settings: LowresInput

    def _source(self, item: ItemReader) -> FrameSource:
        return FrameSource(item["time"][:], checked_size(item, self._array(item)))

    def _stored_frames(self, item: ItemReader, rows: np.ndarray) -> np.ndarray:
        return item[self._array(item)][rows]

    def _array(self, item: ItemReader) -> str:
        sizes = sorted(int(name.removeprefix("rgb_")) for name in item if name.startswith("rgb_"))
        wanted = self.settings.stored
        if not wanted:
            # What moves is a part of the frame, so the largest size is used.
            large_enough = [size for size in sizes if size >= self.settings.size and self.settings.region == "frame"]
            wanted = large_enough[0] if large_enough else sizes[-1]
        if wanted not in sizes:
            raise UserError(
                f"{item.where} in {self.store.url} has no size {wanted}. Available sizes: {', '.join(map(str, sizes))}.\n"
                f"Create it with 'actionprep lowres --sizes {' '.join(map(str, [*sizes, wanted]))}', or choose another one "
                f"with --set input.stored={sizes[-1]}."
            )
        return f"rgb_{wanted}"
