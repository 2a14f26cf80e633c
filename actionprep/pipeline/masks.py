"""Tell foreground from background in every frame."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from pydantic import field_validator, model_validator

from actionprep.pipeline.mask_sources import MASK_SOURCES, MaskBlock
from actionprep.pipeline.stage import FrameBlock, FrameStage, Input, ViewSource, stage
from actionprep.settings import StageSettings, option

if TYPE_CHECKING:
    from actionprep.datasets.store.zarr_store import ItemReader, ItemWriter

FRAMES_PER_CHUNK = 32


class MasksSettings(StageSettings):
    """Tell foreground from background in every frame."""

    source: str = option(
        "motion",
        "Where masks come from: motion (for a camera that stands still), files (as DEVA and SAM 2 write them).",
    )
    files: str = option(
        "",
        "For source files: pattern with {recording} and {view} that leads to a folder of PNG or npz, one a frame, to one "
        "npz, or to a mask video.",
        names="file",
    )
    ids: tuple[int, ...] = option((), "For source files: which object ids are foreground; none named: all but 0.")
    key: str = option("", "For source files: name of the array in npz files; empty: arr_0, or the only one.")
    first_number: int | None = option(
        None,
        "For source files: the number in the file name of frame 0; not set: 0 if there is such a file, else 1.",
        ge=0,
    )
    missing: Literal["error", "empty"] = option(
        "error", "For source files: a frame without a mask is an error, or has no foreground (counted)."
    )
    resize: bool = option(
        False, "For source files: scale masks of another size to the frames, nearest pixel (counted)."
    )
    window: float = option(
        1.0, "For source motion: movement is sought this many seconds before and after a frame.", gt=0, le=10
    )
    background: float = option(
        20.0, "For source motion: seconds after which a thing that stands still is background.", gt=0
    )
    threshold: float = option(
        16.0, "For source motion: gray levels of 255 that count as change, above the noise.", gt=0
    )
    min_area: float = option(
        0.0005, "For source motion: smaller spots, as a share of the picture, are dropped.", ge=0, lt=1
    )
    grow: float = option(0.006, "For source motion: foreground is grown by this share of the short side.", ge=0, lt=0.5)
    short_side: int = option(
        160, "For source motion: pictures are shrunk to this short side before they are compared.", ge=16
    )

    @field_validator("source")
    @classmethod
    def _known_source(cls, name: str) -> str:
        MASK_SOURCES.check(name)
        return name

    @model_validator(mode="after")
    def _files_are_named(self) -> Self:
        if (self.source == "files") != bool(self.files):
            raise ValueError(
                "'files' is the pattern for source = \"files\": give both or neither, for example "
                'source = "files", files = "masks/{recording}/{view}"'
            )
        return self


@stage("masks", version=2, settings=MasksSettings)
class Masks(FrameStage):
    """Makes masks/<recording>/<view>: foreground (T, H, ceil(W / 8)) uint8 and area (T) float32.

    foreground is packed along the width: `unpack_masks(reader["foreground"][a:b], reader.attributes["width"])` reads
    it. area is the share of the picture that is foreground. Attributes: source, width, num_frames, num_empty (frames
    without foreground), is_empty (no frame has any), and what the source filled in or converted (e.g. num_missing).

    Live, `push` and `finish` return a `MaskBlock` of the frames that are ready: masks may lag behind the frames.
    """

    counted = MappingProxyType(
        {
            "num_empty": "frames without foreground",
            "num_missing": "frames without a mask",
            "num_resized": "masks scaled to the frames",
            "num_unused": "masks without a frame",
        }
    )

    def __init__(
        self, settings: MasksSettings, source: ViewSource, item: ItemWriter, done: Mapping[str, ItemReader]
    ) -> None:
        super().__init__(settings, source, item, done)
        self._masks = MASK_SOURCES.find(settings.source)(settings, source, done)
        self._num_frames = self._num_empty = 0
        packed = (source.height, -(-source.width // 8))
        item.create(
            "foreground",
            shape=packed,
            dtype="u1",
            axes=("frame", "y", "x_packed"),
            chunk=FRAMES_PER_CHUNK,
            codec="zstd",
            description="1 where a pixel is foreground; 8 pixels of a row to a byte, leftmost in the highest bit",
        )
        item.create(
            "area",
            shape=(),
            dtype="f4",
            axes=("frame",),
            chunk=4096,
            description="share of the picture that is foreground",
        )

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
            source=self.settings.source,
            width=self.source.width,
            num_frames=self._num_frames,
            num_empty=self._num_empty,
            is_empty=self._num_empty == self._num_frames,
            **self._masks.events(),
        )
        return rest

    def _store(self, ready: MaskBlock) -> MaskBlock:
        if len(ready.index):
            pixels = np.array([np.count_nonzero(mask) for mask in ready.foreground])
            area = pixels.astype(np.float32) / np.float32(ready.foreground[0].size)
            self.item.append("foreground", pack_masks(ready.foreground))
            self.item.append("area", area)
            self._num_frames += len(area)
            self._num_empty += int((area == 0).sum())
        return ready

    @classmethod
    def replay(cls, reader: ItemReader, blocks: Iterator[FrameBlock]) -> Iterator[MaskBlock]:  # noqa: D102
        width = reader.attributes["width"]
        height = reader["foreground"].shape[1]
        for block in blocks:
            first, last = int(block.index[0]), int(block.index[-1])
            yield MaskBlock(block.index, unpack_masks(reader["foreground"][first : last + 1], width))
        yield MaskBlock.empty(height, width)


def pack_masks(foreground: np.ndarray) -> np.ndarray:
    """(..., H, W) bool → (..., H, ceil(W / 8)) uint8."""
    return np.packbits(foreground, axis=-1)


def unpack_masks(packed: np.ndarray, width: int) -> np.ndarray:
    """(..., H, ceil(W / 8)) uint8 → (..., H, W) bool: the inverse of `pack_masks`.

    Raises ValueError when no picture of that width packs to this many bytes.
    """
    if packed.shape[-1] != -(-width // 8):
        raise ValueError(f"Masks {width} px wide are packed into {-(-width // 8)} bytes a row, not {packed.shape[-1]}.")
    return np.unpackbits(packed, axis=-1, count=width).view(bool)
