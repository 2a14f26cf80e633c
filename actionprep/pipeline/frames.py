"""Decode frames into the store, so that training need not touch the videos."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from pydantic import model_validator

from actionprep.pipeline.sizes import by_short_side
from actionprep.pipeline.stage import Filter, FrameBlock, FrameStage, Input, ViewSource, stage
from actionprep.settings import StageSettings, option

if TYPE_CHECKING:
    from actionprep.datasets.store.writer import Codec
    from actionprep.datasets.store.zarr_store import ItemReader, ItemWriter


class FramesSettings(StageSettings):
    """Decode frames into the store, so that training need not touch the videos."""

    which: Literal["all", "keyframes", "segments"] = option(
        "all", "All frames, those that the keyframes stage chose, or those inside annotated segments."
    )
    margin: float = option(1.0, "Seconds before and after each segment that are kept too (which = segments).", ge=0)
    size: int = option(256, "Short side in pixels; 0, or a smaller video, keeps the native size.", ge=0)
    width: int = option(0, "Exact width in pixels, together with height, without keeping the shape; 0: by size.", ge=0)
    height: int = option(0, "Exact height in pixels, together with width; 0: by size.", ge=0)
    filter: Filter = option("area", "How to shrink; all are anti-aliased.")
    storage: Literal["raw", "zstd", "jpeg"] = option(
        "raw", "Plain, which reads fastest; compressed without loss; or one JPEG a frame, about ten times smaller."
    )
    quality: int = option(90, "Quality of JPEG, 1 to 100.", ge=1, le=100)
    chunk: int = option(8, "Frames that are read together (raw and zstd).", ge=1)

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if bool(self.width) != bool(self.height):
            raise ValueError("give both width and height, or neither")
        return self


@stage("frames", version=1, settings=FramesSettings)
class Frames(FrameStage):
    """Makes frames/<recording>/<view>: rgb (T, H, W, 3) uint8, time (T) s, status (T), index (T).

    status: 0 decoded, 1 concealed, 2 missing (repeats the last good picture). index: position in the video; all frames
    but where `which` takes some. Stored as JPEG there are, instead of rgb, jpeg (bytes) and jpeg_end (T), the position
    after each frame's bytes; `actionprep.datasets.products.frames.read_frames` reads either. Attributes: which, storage,
    height, width, source_height, source_width, num_frames of the video.
    """

    def __init__(
        self, settings: FramesSettings, source: ViewSource, item: ItemWriter, done: Mapping[str, ItemReader]
    ) -> None:
        super().__init__(settings, source, item, done)
        self._height, self._width = frame_size(settings, source.height, source.width)
        self._wanted = self._choose()
        self._taken: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._num_bytes = 0
        if settings.storage == "jpeg":
            item.create(
                "jpeg", shape=(), dtype="uint8", axes=("byte",), chunk=1 << 20, description="JPEG files in a row"
            )
            item.create("jpeg_end", shape=(), dtype="int64", axes=("time",), chunk=1 << 13)
        else:
            create_rgb(item, "rgb", (self._height, self._width), chunk=settings.chunk, codec=settings.storage)

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
        return [[one.onset, one.offset] for one in source.segments] if settings.which == "segments" else None

    @classmethod
    def estimated_bytes(cls, settings: FramesSettings, source: ViewSource) -> int:  # noqa: D102
        height, width = frame_size(settings, source.height, source.width)
        num_frames = source.num_frames
        if settings.which == "segments":
            num_frames = len(frames_in_segments(source, settings.margin))
        # JPEG of quality 90 takes about a tenth; how many keyframes there will be is not known here.
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
        pictures = block.resized(self._height, self._width, self.settings.filter)
        if self.settings.storage == "jpeg":
            self._append_jpeg(pictures)
        else:
            self.item.append("rgb", pictures)
        self._taken.append((block.time, block.status, block.index))

    def finish(self, live: Mapping[str, Any]) -> None:  # noqa: D102
        none = (np.zeros(0), np.zeros(0, np.uint8), np.zeros(0, np.int64))
        times, status, index = (np.concatenate(parts) for parts in zip(none, *self._taken, strict=True))
        write_times(self.item, times, status)
        self.item.write("index", index, axes=("time",), description="position in the video, from 0")
        self.item.attributes.update(
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
            return np.unique(self.done["keyframes"]["index"][:])
        if self.settings.which == "segments":
            return frames_in_segments(self.source, self.settings.margin)
        return None

    def _append_jpeg(self, pictures: np.ndarray) -> None:
        files = [encode_jpeg(picture, self.settings.quality) for picture in pictures]
        ends = self._num_bytes + np.cumsum([len(file) for file in files])
        self._num_bytes = int(ends[-1])
        self.item.append("jpeg", np.concatenate(files))
        self.item.append("jpeg_end", ends)


def create_rgb(item: ItemWriter, name: str, size: tuple[int, int], *, chunk: int, codec: Codec) -> None:
    """Create an array of pictures (T, H, W, 3) uint8 of one size (H, W) in an item."""
    item.create(
        name,
        shape=(*size, 3),
        dtype="uint8",
        axes=("time", "y", "x", "channel"),
        chunk=chunk,
        codec=codec,
        description="frames, RGB, full range",
    )


def write_times(item: ItemWriter, times: np.ndarray, status: np.ndarray) -> None:
    """Write when the pictures of an item are, (T) s, and how they came from the decoder, (T)."""
    item.write("time", times, axes=("time",), unit="s", description="on the recording's clock")
    item.write("status", status, axes=("time",), description="0 decoded, 1 concealed, 2 missing")


def frame_size(settings: FramesSettings, height: int, width: int) -> tuple[int, int]:
    """(height, width) in which frames of a video of this size are stored."""
    if settings.width:
        return settings.height, settings.width
    if settings.size == 0 or settings.size >= min(height, width):
        return height, width
    return by_short_side(height, width, settings.size)


def frames_in_segments(source: ViewSource, margin: float) -> np.ndarray:
    """(K,) int64 frames whose time lies within `margin` seconds of a segment, each once."""
    inside = np.zeros(source.num_frames, bool)
    for segment in source.segments:
        inside |= (source.times >= segment.onset - margin) & (source.times < segment.offset + margin)
    return np.flatnonzero(inside)


def encode_jpeg(picture: np.ndarray, quality: int) -> np.ndarray:
    """(H, W, 3) uint8 RGB → the bytes of a JPEG file, (N,) uint8."""
    import cv2

    encoded, file = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not encoded:
        raise RuntimeError(f"OpenCV could not write a picture of shape {picture.shape} as JPEG.")
    return np.asarray(file, np.uint8).reshape(-1)
