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
from actionprep.pipeline.degradation import Kernel, blur_kernel, blurred, through_jpeg, with_noise
from actionprep.pipeline.keyframes import seed_of
from actionprep.pipeline.shrink import by_short_side
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
    crop: float | None = option(
        None,
        "Store a square of the frame with this side, as a fraction of the short side. Not set: full frames.",
        gt=0,
        le=1,
        later=True,
    )
    crop_anchor: tuple[float, float] = option(
        (0.5, 0.5),
        "Center of the crop: x and y as fractions of width and height. The crop is moved into the frame where needed.",
        later=True,
    )
    blur: float = option(
        0.0, "Degrade the small frames: blur with this standard deviation in px; 0: none.", ge=0, le=32, later=True
    )
    blur_kernel: Kernel = option(
        "gaussian",
        "gaussian: a round kernel; random: an unknown camera, with a Gaussian of random shape and direction per view.",
        later=True,
    )
    noise: float = option(
        0.0,
        "Then add Gaussian noise with this standard deviation in gray levels; 0: none.",
        ge=0,
        le=255,
        later=True,
    )
    jpeg: int | None = option(
        None,
        "Then compress as JPEG of this quality, 1 to 100, and decode. Not set: no compression.",
        ge=1,
        le=100,
        later=True,
    )
    seed: int = option(
        0, "Seed of noise and random kernels. They also depend on recording, view, size and frame.", ge=0, later=True
    )

    @field_validator("sizes")
    @classmethod
    def _check_sizes(cls, sizes: tuple[int, ...]) -> tuple[int, ...]:
        if not sizes or min(sizes) < 8 or len(set(sizes)) != len(sizes):
            raise ValueError("give one or more different sizes of at least 8 pixels each")
        return sizes

    @field_validator("crop_anchor")
    @classmethod
    def _check_anchor(cls, anchor: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= value <= 1 for value in anchor):
            raise ValueError("give x and y from 0 to 1")
        return anchor

    @property
    def degrades(self) -> bool:
        """Whether the small frames are degraded."""
        return self.blur > 0 or self.noise > 0 or self.jpeg is not None


@stage("lowres", version=2, settings=LowresSettings)
class Lowres(FrameStage):
    """Write the product `lowres` (schema: `actionprep.datasets.products.lowres`).

    Smaller videos are enlarged, so that every video has the same short side. Degradations apply to the small frames.
    """

    counted = MappingProxyType({"num_letterboxed": "frames of another size, letterboxed"})

    def __init__(
        self, settings: LowresSettings, source: ViewSource, item: ItemWriter, done: Mapping[str, ItemReader]
    ) -> None:
        super().__init__(settings, source, item, done)
        self._times: list[np.ndarray] = []
        self._status: list[np.ndarray] = []
        self._sizes = lowres_sizes(settings, source.height, source.width)
        self._crop = None if settings.crop is None else crop_square(settings, source.height, source.width)
        self._seed = seed_of(settings.seed, source.recording, source.view)
        for size, (height, width) in self._sizes.items():
            rgb_array(size).create(item, (height, width, 3), chunk=settings.chunk, codec=settings.storage)

    @classmethod
    def identity(cls, settings: LowresSettings) -> dict[str, str]:  # noqa: D102
        versions = {"av": metadata.version("av")}
        if settings.degrades:
            import cv2

            versions["cv2"] = cv2.__version__
        if settings.crop is not None:
            versions["pillow"] = metadata.version("pillow")
        return versions

    @classmethod
    def estimated_bytes(cls, settings: LowresSettings, source: ViewSource) -> int:  # noqa: D102
        sizes = lowres_sizes(settings, source.height, source.width).values()
        return sum(height * width * 3 for height, width in sizes) * source.num_frames

    def push(self, block: FrameBlock, live: Mapping[str, Any]) -> None:  # noqa: D102
        for size, (height, width) in self._sizes.items():
            if self._crop is None:
                images = block.resized(height, width, self.settings.filter)
            else:
                left, top, side = self._crop
                cut = block.rgb[:, top : top + side, left : left + side]
                images = _resized(np.ascontiguousarray(cut), size, self.settings.filter)
            if self.settings.degrades:
                images = self._degraded(images, size, block.index)
            self.item.append(rgb_array(size).name, images)
        self._times.append(block.time)
        self._status.append(block.status)

    def _degraded(self, images: np.ndarray, size: int, index: np.ndarray) -> np.ndarray:
        if self.settings.blur > 0:
            rng = np.random.default_rng([*self._seed, size])
            images = blurred(images, blur_kernel(self.settings.blur, self.settings.blur_kernel, rng))
        if self.settings.noise > 0:
            # One more number than the seed of the kernel, so that the streams differ.
            seeds = [[*self._seed, size, int(frame)] for frame in index]
            images = with_noise(images, self.settings.noise, seeds)
        if self.settings.jpeg is not None:
            images = through_jpeg(images, self.settings.jpeg)
        return images

    def finish(self, live: Mapping[str, Any]) -> None:  # noqa: D102
        write_times(self.item, self._times, self._status)
        self.item.attributes |= LOWRES.attributes_of(
            sizes={rgb_array(size).name: list(shape) for size, shape in self._sizes.items()},
            source_height=self.source.height,
            source_width=self.source.width,
            **({} if self._crop is None else {"crop": list(self._crop)}),
        )


def lowres_sizes(settings: LowresSettings, height: int, width: int) -> dict[int, tuple[int, int]]:
    """Return height and width of the images for each setting of `sizes`, for a video of this size."""
    is_square = settings.square or settings.crop is not None
    return {size: (size, size) if is_square else by_short_side(height, width, size) for size in settings.sizes}


def crop_square(settings: LowresSettings, height: int, width: int) -> tuple[int, int, int]:
    """Return the left and top edge and the side of the crop in pixels, for a video of this size."""
    assert settings.crop is not None
    side = max(1, round(settings.crop * min(height, width)))
    x, y = settings.crop_anchor
    left, top = round(x * width - side / 2), round(y * height - side / 2)
    return min(max(left, 0), width - side), min(max(top, 0), height - side), side


def _resized(images: np.ndarray, size: int, filter: Filter) -> np.ndarray:
    """Resize square RGB images, uint8 of shape (B, S, S, 3), to a side; every filter is anti-aliased."""
    from PIL import Image

    by_name = {"area": Image.Resampling.BOX, "bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    # Enlarging by area would repeat pixels.
    how = by_name["bilinear" if filter == "area" and size > images.shape[1] else filter]
    return np.stack([np.asarray(Image.fromarray(image).resize((size, size), how)) for image in images])
