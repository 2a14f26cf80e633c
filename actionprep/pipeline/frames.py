"""Decode frames into the store, so that training does not read the videos."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from pydantic import model_validator

from actionprep.datasets.products.frames import FRAMES, INDEX, write_times
from actionprep.datasets.products.keyframes import read_keyframe_index
from actionprep.pipeline.shrink import by_short_side
from actionprep.pipeline.stage import Filter, FrameBlock, FrameStage, Input, ViewSource, stage
from actionprep.settings import StageSettings, option

if TYPE_CHECKING:
    from actionprep.datasets.store.reader import ItemReader
    from actionprep.datasets.store.writer import ItemWriter


class FramesSettings(StageSettings):
    """Decode frames into the store, so that training does not read the videos."""

    which: Literal["all", "keyframes", "segments"] = option(
        "all", "Frames to store: all, those chosen by the keyframes stage, or those inside annotated segments."
    )
    margin: float = option(1.0, "Seconds stored before and after each segment (which = segments).", ge=0)
    size: int = option(256, "Short side in pixels. 0 keeps the native size; smaller videos keep theirs.", ge=0)
    width: int = option(
        0, "Exact width in pixels, together with height; the aspect ratio is not kept. 0: use size.", ge=0
    )
    height: int = option(0, "Exact height in pixels, together with width. 0: use size.", ge=0)
    filter: Filter = option("area", "How to shrink; all filters are anti-aliased.")
    storage: Literal["raw", "zstd", "jpeg"] = option(
        "raw", "raw: uncompressed, reads fastest; zstd: lossless; jpeg: one JPEG per frame, about ten times smaller."
    )
    quality: int = option(90, "JPEG quality, 1 to 100.", ge=1, le=100)
    chunk: int = option(8, "Frames per chunk, which are read together (raw and zstd).", ge=1)

    @model_validator(mode="after")
    def _width_and_height(self) -> Self:
        if bool(self.width) != bool(self.height):
            raise ValueError("set both width and height, or neither")
        return self


@stage("frames", version=2, settings=FramesSettings)
class Frames(FrameStage):
    """Write the product `frames` (schema: `actionprep.datasets.products.frames`)."""

    counted = MappingProxyType({"num_letterboxed": "frames of another size, letterboxed"})

    def __init__(
        self, settings: FramesSettings, source: ViewSource, item: ItemWriter, done: Mapping[str, ItemReader]
    ) -> None:
        super().__init__(settings, source, item, done)
        self._height, self._width = frame_size(settings, source.height, source.width)
        self._wanted = self._choose()
        self._times: list[np.ndarray] = []
        self._status: list[np.ndarray] = []
        self._index: list[np.ndarray] = []
        self._num_bytes = 0
        if settings.storage == "jpeg":
            FRAMES["jpeg"].create(item)
            FRAMES["jpeg_end"].create(item)
        else:
            shape = (self._height, self._width, 3)
            FRAMES["rgb"].create(item, shape, chunk=settings.chunk, codec=settings.storage)

    @classmethod
    def identity(cls, settings: FramesSettings) -> dict[str, str]:  # noqa: D102
        versions = {"av": metadata.version("av")}
        if settings.storage == "jpeg":
            import cv2

            versions["cv2"] = cv2.__version__
        return versions

    @classmethod
    def inputs(cls, settings: FramesSettings) -> tuple[Input, ...]:  # noqa: D102
        return (Input("keyframes", live=False),) if settings.which == "keyframes" else ()

    @classmethod
    def reads_of_source(cls, settings: FramesSettings, source: ViewSource) -> Any:  # noqa: D102
        return (
            [[segment.onset, segment.offset] for segment in source.segments] if settings.which == "segments" else None
        )

    @classmethod
    def estimated_bytes(cls, settings: FramesSettings, source: ViewSource) -> int:  # noqa: D102
        height, width = frame_size(settings, source.height, source.width)
        num_frames = source.num_frames
        if settings.which == "segments":
            num_frames = len(frames_in_segments(source, settings.margin))
        # JPEG of quality 90 takes about a tenth. The number of keyframes is not known here.
        share = 0.1 if settings.storage == "jpeg" else 1.0
        return round(num_frames * height * width * 3 * share)

    def wanted_images(self) -> np.ndarray | None:  # noqa: D102
        return self._wanted

    def push(self, block: FrameBlock, live: Mapping[str, Any]) -> None:  # noqa: D102
        if self._wanted is not None:
            inside = np.flatnonzero(np.isin(block.index, self._wanted))
            if not len(inside):
                return
            if len(inside) < len(block):
                block = block.take(inside)
        images = block.resized(self._height, self._width, self.settings.filter)
        if self.settings.storage == "jpeg":
            self._append_jpeg(images)
        else:
            self.item.append("rgb", images)
        self._times.append(block.time)
        self._status.append(block.status)
        self._index.append(block.index)

    def finish(self, live: Mapping[str, Any]) -> None:  # noqa: D102
        write_times(self.item, self._times, self._status)
        INDEX.write(self.item, np.concatenate([*self._index, np.zeros(0, np.int64)]))
        self.item.attributes |= FRAMES.attributes_of(
            which=self.settings.which,
            storage=self.settings.storage,
            height=self._height,
            width=self._width,
            source_height=self.source.height,
            source_width=self.source.width,
            num_frames=self.source.num_frames,
        )

    def _choose(self) -> np.ndarray | None:
        if self.settings.which == "keyframes":
            return np.unique(read_keyframe_index(self.done["keyframes"]))
        if self.settings.which == "segments":
            return frames_in_segments(self.source, self.settings.margin)
        return None

    def _append_jpeg(self, images: np.ndarray) -> None:
        files = [encode_jpeg(image, self.settings.quality) for image in images]
        ends = self._num_bytes + np.cumsum([len(file) for file in files])
        self._num_bytes = int(ends[-1])
        self.item.append("jpeg", np.concatenate(files))
        self.item.append("jpeg_end", ends)


def frame_size(settings: FramesSettings, height: int, width: int) -> tuple[int, int]:
    """Return the stored size (height, width) of the frames of a video of this size."""
    if settings.width:
        return settings.height, settings.width
    if settings.size == 0 or settings.size >= min(height, width):
        return height, width
    return by_short_side(height, width, settings.size)


def frames_in_segments(source: ViewSource, margin: float) -> np.ndarray:
    """Return the frames in segments or within `margin` seconds of one, each once, int64 of shape (K,)."""
    inside = np.zeros(source.num_frames, bool)
    for segment in source.segments:
        inside |= (source.times >= segment.onset - margin) & (source.times < segment.offset + margin)
    return np.flatnonzero(inside)


def encode_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """Encode an RGB image as JPEG.

    Args:
        image: uint8 of shape (H, W, 3).
        quality: JPEG quality, 1 to 100.

    Returns:
        The bytes of the file, uint8 of shape (N,).
    """
    import cv2

    encoded, file = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not encoded:
        raise RuntimeError(f"OpenCV could not encode an image of shape {image.shape} as JPEG.")
    return np.asarray(file, np.uint8).reshape(-1)
