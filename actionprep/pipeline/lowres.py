"""Shrink every frame, to several sizes in one pass."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import field_validator

from actionprep.pipeline.frames import create_rgb, write_times
from actionprep.pipeline.sizes import by_short_side
from actionprep.pipeline.stage import Filter, FrameBlock, FrameStage, ViewSource, stage
from actionprep.settings import StageSettings, option

if TYPE_CHECKING:
    from actionprep.datasets.store.zarr_store import ItemReader, ItemWriter


class LowresSettings(StageSettings):
    """Shrink every frame, to several sizes in one pass."""

    sizes: tuple[int, ...] = option((112,), "Short sides in pixels, one array each.")
    square: bool = option(
        False, "Make squares of these sides, without keeping the shape, as I3D at 112x112 wants them."
    )
    filter: Filter = option("area", "How to shrink; all are anti-aliased.")
    storage: Literal["raw", "zstd"] = option("raw", "Plain, which reads fastest, or compressed without loss.")
    chunk: int = option(16, "Frames that are read together.", ge=1)

    @field_validator("sizes")
    @classmethod
    def _sizes_are_usable(cls, sizes: tuple[int, ...]) -> tuple[int, ...]:
        if not sizes or min(sizes) < 8 or len(set(sizes)) != len(sizes):
            raise ValueError("give one or more different sizes, each at least 8 pixels")
        return sizes


@stage("lowres", version=1, settings=LowresSettings)
class Lowres(FrameStage):
    """Makes lowres/<recording>/<view>: rgb_<size> (T, h, w, 3) uint8 for each size, time (T) s, status (T).

    Smaller videos are enlarged, so that every video has the same short side. Attributes: sizes (h, w by array name),
    source_height, source_width.
    """

    def __init__(
        self, settings: LowresSettings, source: ViewSource, item: ItemWriter, done: Mapping[str, ItemReader]
    ) -> None:
        super().__init__(settings, source, item, done)
        self._times: list[np.ndarray] = []
        self._status: list[np.ndarray] = []
        self._sizes = lowres_sizes(settings, source.height, source.width)
        for name, size in self._sizes.items():
            create_rgb(item, name, size, chunk=settings.chunk, codec=settings.storage)

    @classmethod
    def identity(cls, settings: LowresSettings) -> dict[str, str]:  # noqa: D102
        return {"av": metadata.version("av")}

    @classmethod
    def estimated_bytes(cls, settings: LowresSettings, source: ViewSource) -> int:  # noqa: D102
        sizes = lowres_sizes(settings, source.height, source.width).values()
        return sum(height * width * 3 for height, width in sizes) * source.num_frames

    def push(self, block: FrameBlock, live: Mapping[str, Any]) -> None:  # noqa: D102
        for name, (height, width) in self._sizes.items():
            self.item.append(name, block.resized(height, width, self.settings.filter))
        self._times.append(block.time)
        self._status.append(block.status)

    def finish(self, live: Mapping[str, Any]) -> None:  # noqa: D102
        times = np.concatenate([*self._times, np.zeros(0)])
        status = np.concatenate([*self._status, np.zeros(0, np.uint8)])
        write_times(self.item, times, status)
        self.item.attributes.update(
            sizes={name: list(size) for name, size in self._sizes.items()},
            source_height=self.source.height,
            source_width=self.source.width,
        )


def lowres_sizes(settings: LowresSettings, height: int, width: int) -> dict[str, tuple[int, int]]:
    """(height, width) of each array, by its name."""
    return {
        f"rgb_{size}": (size, size) if settings.square else by_short_side(height, width, size)
        for size in settings.sizes
    }
