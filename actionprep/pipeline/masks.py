"""Separate foreground from background in every frame."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from actionprep.datasets.products.masks import MASKS, append_masks, create_masks, read_masks
from actionprep.pipeline.mask_sources import MASK_SOURCES, MaskBlock
from actionprep.pipeline.mask_sources.settings import MasksSettings
from actionprep.pipeline.stage import FrameBlock, FrameStage, Input, ViewSource, stage

if TYPE_CHECKING:
    from actionprep.datasets.store.reader import ItemReader
    from actionprep.datasets.store.writer import ItemWriter


@stage("masks", version=2, settings=MasksSettings)
class Masks(FrameStage):
    """Makes masks/<recording>/<view>: the foreground of every frame; see `actionprep.datasets.products.masks`.

    Live, `push` and `finish` return a `MaskBlock` of the frames that are ready: masks may lag behind the frames.
    """

    counted = MappingProxyType(
        {
            "num_empty": "frames without foreground",
            "num_missing": "frames without a mask",
            "num_resized": "masks scaled to the frames",
            "num_unused": "masks without a frame",
            "num_mostly_foreground": 'frames that are mostly foreground (does the camera move? camera = "moving")',
            "num_uncompensated": "frames without an estimate of the camera's motion",
        }
    )

    def __init__(
        self, settings: MasksSettings, source: ViewSource, item: ItemWriter, done: Mapping[str, ItemReader]
    ) -> None:
        super().__init__(settings, source, item, done)
        self._masks = MASK_SOURCES.find(settings.source)(settings, source, done)
        self._num_frames = self._num_empty = 0
        create_masks(item, height=source.height, width=source.width)

    @classmethod
    def identity(cls, settings: MasksSettings) -> dict[str, str]:  # noqa: D102
        return {**MASK_SOURCES.find(settings.source).identity(settings), **MASK_SOURCES.origin(settings.source)}

    @classmethod
    def inputs(cls, settings: MasksSettings) -> tuple[Input, ...]:  # noqa: D102
        return MASK_SOURCES.find(settings.source).inputs(settings)

    @classmethod
    def reads_of_source(cls, settings: MasksSettings, source: ViewSource) -> Any:  # noqa: D102
        return MASK_SOURCES.find(settings.source).reads_of_source(settings, source)

    @classmethod
    def estimated_bytes(cls, settings: MasksSettings, source: ViewSource) -> int:  # noqa: D102
        return source.num_frames * source.height * -(-source.width // 8)

    def push(self, block: FrameBlock, live: Mapping[str, Any]) -> MaskBlock:  # noqa: D102
        return self._store(self._masks.push(block, live))

    def finish(self, live: Mapping[str, Any]) -> MaskBlock:  # noqa: D102
        rest = self._store(self._masks.finish(live))
        self.item.attributes.update(
            MASKS.attributes_of(
                source=self.settings.source,
                width=self.source.width,
                num_frames=self._num_frames,
                num_empty=self._num_empty,
                is_empty=self._num_empty == self._num_frames,
                **self._masks.events(),
            )
        )
        return rest

    def _store(self, ready: MaskBlock) -> MaskBlock:
        if len(ready.index):
            area = append_masks(self.item, ready.foreground)
            self._num_frames += len(area)
            self._num_empty += int((area == 0).sum())
        return ready

    @classmethod
    def replay(cls, reader: ItemReader, blocks: Iterator[FrameBlock]) -> Iterator[MaskBlock]:  # noqa: D102
        for block in blocks:
            first, last = int(block.index[0]), int(block.index[-1])
            yield MaskBlock(block.index, read_masks(reader, slice(first, last + 1)))
        yield MaskBlock.empty(reader["foreground"].shape[1], reader.attributes["width"])
