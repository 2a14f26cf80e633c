"""Store small copies of every frame, in several sizes from one pass."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import field_validator

from actionprep.datasets.products.frames import write_times
from actionprep.datasets.products.lowres import LOWRES, rgb_array
from actionprep.pipeline.sizes import by_short_side
from actionprep.pipeline.stage import Filter, FrameBlock, FrameStage, ViewSource, stage
from actionprep.settings import StageSettings, option

if TYPE_CHECKING:
    from actionprep.datasets.store.reader import ItemReader
    from actionprep.datasets.store.writer import ItemWriter


class LowresSettings(StageSettings):
    """Store small copies of every frame, in several sizes from one pass."""

    sizes: tuple[int, ...] = option((112,), "Short sides in pixels, one array per size.")
    square: bool = option(
        False, "Store squares of these sides; the aspect ratio is not kept. I3D at 112x112 reads squares."
    )
    filter: Filter = option("area", "How to shrink; all filters are anti-aliased.")
    storage: Literal["raw", "zstd"] = option("raw", "raw: uncompressed, reads fastest; zstd: lossless.")
    chunk: int = option(16, "Frames per chunk, which are read together.", ge=1)

    @field_validator("sizes")
    @classmethod
    def _check_sizes(cls, sizes: tuple[int, ...]) -> tuple[int, ...]:
        if not sizes or min(sizes) < 8 or len(set(sizes)) != len(sizes):
            raise ValueError("give one or more different sizes of at least 8 pixels each")
        return sizes


@stage("lowres", version=2, settings=LowresSettings)
class Lowres(FrameStage):
    """Write the product `lowres` (schema: `actionprep.datasets.products.lowres`).

    Smaller videos are enlarged, so that every video has the same short side.
    """

    counted = MappingProxyType({"num_letterboxed": "frames of another size, letterboxed"})

    def __init__(
        self, settings: LowresSettings, source: ViewSource, item: ItemWriter, done: Mapping[str, ItemReader]
    ) -> None:
        super().__init__(settings, source, item, done)
        self._times: list[np.ndarray] = []
        self._status: list[np.ndarray] = []
        self._sizes = lowres_sizes(settings, source.height, source.width)
        for size, (height, width) in self._sizes.items():
            rgb_array(size).create(item, (height, width, 3), chunk=settings.chunk, codec=settings.storage)

    @classmethod
    def identity(cls, settings: LowresSettings) -> dict[str, str]:  # noqa: D102
        return {"av": metadata.version("av")}

    @classmethod
    def estimated_bytes(cls, settings: LowresSettings, source: ViewSource) -> int:  # noqa: D102
        sizes = lowres_sizes(settings, source.height, source.width).values()
        return sum(height * width * 3 for height, width in sizes) * source.num_frames

    def push(self, block: FrameBlock, live: Mapping[str, Any]) -> None:  # noqa: D102
        for size, (height, width) in self._sizes.items():
            self.item.append(rgb_array(size).name, block.resized(height, width, self.settings.filter))
        self._times.append(block.time)
        self._status.append(block.status)

    def finish(self, live: Mapping[str, Any]) -> None:  # noqa: D102
        write_times(self.item, self._times, self._status)
        self.item.attributes |= LOWRES.attributes_of(
            sizes={rgb_array(size).name: list(shape) for size, shape in self._sizes.items()},
            source_height=self.source.height,
            source_width=self.source.width,
        )


def lowres_sizes(settings: LowresSettings, height: int, width: int) -> dict[int, tuple[int, int]]:
    """Return height and width of the images for each setting of `sizes`, for a video of this size."""
    return {size: (size, size) if settings.square else by_short_side(height, width, size) for size in settings.sizes}
