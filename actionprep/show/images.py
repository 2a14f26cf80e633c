"""Sources of the images of a view: a video, the store, or an empty background."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from actionprep.datasets.view_reading import WHOLE_FILE, Reading
from actionprep.show.colors import DARK
from actionprep.show.overlays import scaled

if TYPE_CHECKING:
    from actionprep.datasets.store.reader import ItemReader


_FRAMES_AT_ONCE = 16


class Images(Protocol):
    """A source of images. Height and width are those of one image, in pixels of the source."""

    @property
    def height(self) -> int: ...  # noqa: D102

    @property
    def width(self) -> int: ...  # noqa: D102

    def at(self, numbers: Sequence[int], height: int, width: int) -> Iterator[np.ndarray]:
        """Yield the images with these indices, each (height, width, 3) uint8. The indices never decrease."""
        ...


class VideoFrames:
    """Frames of a video by exact index, decoded in small batches and optionally cropped (`cut_to`).

    Attributes:
        times: Frame times in seconds, shape (T,).
        box: Crop of the video that is shown: x0, y0, x1, y1 in pixels.
    """

    def __init__(self, path: str | Path, *, times: np.ndarray | None = None, reading: Reading = WHOLE_FILE) -> None:
        from actionprep.pipeline.readers import open_reader

        self._reader = open_reader(path, reading, times=times)
        self.times = self._reader.times
        self.box = (0, 0, self._reader.width, self._reader.height)

    @property
    def height(self) -> int:
        """Size of the crop in pixels of the video."""
        return self.box[3] - self.box[1]

    @property
    def width(self) -> int:
        """Size of the crop in pixels of the video."""
        return self.box[2] - self.box[0]

    @property
    def is_cut(self) -> bool:
        """Whether the frames are cropped."""
        return self.box != (0, 0, self._reader.width, self._reader.height)

    def cut_to(self, region: tuple[float, float, float, float]) -> None:
        """Crop to a region (x0, y0, x1, y1 in pixels) plus a margin."""
        self.box = surroundings(region, self._reader.height, self._reader.width)

    def place(self, xy: np.ndarray, image: np.ndarray) -> np.ndarray:
        """Map positions (..., 2) in pixels of the video to pixels of a drawn image."""
        return scaled(xy - np.array(self.box[:2], np.float32), _scale(image, self))

    def at(self, numbers: Sequence[int], height: int, width: int) -> Iterator[np.ndarray]:  # noqa: D102
        last: tuple[int, np.ndarray] | None = None
        for first in range(0, len(numbers), _FRAMES_AT_ONCE):
            wanted = np.unique(numbers[first : first + _FRAMES_AT_ONCE])
            # A slower view repeats frames. The last frame of the previous batch is not decoded again.
            fresh = wanted[wanted != last[0]] if last is not None else wanted
            decoded = dict(zip(fresh.tolist(), self._read(fresh, height, width), strict=True))
            if last is not None:
                decoded.setdefault(*last)
            for number in numbers[first : first + _FRAMES_AT_ONCE]:
                yield decoded[int(number)]
            last = (int(wanted[-1]), decoded[int(wanted[-1])])

    def _read(self, numbers: np.ndarray, height: int, width: int) -> list[np.ndarray]:
        """Decode frames (at reduced size where that is faster), crop them and resize them to the exact size."""
        x0, y0, x1, y1 = self.box
        shrink = min(1.0, height / self.height)
        high, wide = round(self._reader.height * shrink), round(self._reader.width * shrink)
        images = self._reader.frames_at(numbers, height=high, width=wide)
        left, top = round(x0 * shrink), round(y0 * shrink)
        right, bottom = max(round(x1 * shrink), left + 1), max(round(y1 * shrink), top + 1)
        return [resized(image[top:bottom, left:right], height, width) for image in images]


def surroundings(
    region: tuple[float, float, float, float], height: int, width: int, *, margin: float = 0.12
) -> tuple[int, int, int, int]:
    """Compute a crop around a region that is not too narrow, too flat or too small.

    Args:
        region: x0, y0, x1, y1 in pixels.
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        margin: Fraction of the region's longer side that is added on all sides.

    Returns:
        The crop as x0, y0, x1, y1; the full image where cropping gains little or the region is empty.
    """
    x0, y0, x1, y1 = (float(value) for value in region)
    if not all(np.isfinite([x0, y0, x1, y1])) or x1 <= x0 or y1 <= y0:
        return 0, 0, width, height
    room = margin * max(x1 - x0, y1 - y0)
    wide = max(x1 - x0 + 2 * room, 0.3 * width)
    high = max(y1 - y0 + 2 * room, 0.3 * height)
    wide, high = max(wide, 0.7 * high), max(high, 0.6 * wide)
    wide, high = min(wide, width), min(high, height)
    if wide * high > 0.8 * width * height:
        return 0, 0, width, height
    left = float(np.clip((x0 + x1 - wide) / 2, 0, width - wide))
    top = float(np.clip((y0 + y1 - high) / 2, 0, height - high))
    return int(left), int(top), round(left + wide), round(top + high)


class StoredFrames:
    """Images from the store. `read` returns the image with a given index."""

    def __init__(self, read: Callable[[int], np.ndarray], height: int, width: int) -> None:
        self._read = read
        self.height, self.width = height, width

    def at(self, numbers: Sequence[int], height: int, width: int) -> Iterator[np.ndarray]:  # noqa: D102
        for number in numbers:
            yield resized(self._read(int(number)), height, width, show_pixels=True)


class BlankFrames:
    """An empty background, for products that are drawn without their video."""

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width = height, width

    def at(self, numbers: Sequence[int], height: int, width: int) -> Iterator[np.ndarray]:  # noqa: D102
        for _ in numbers:
            yield np.full((height, width, 3), DARK.empty, np.uint8)


class JointGround(BlankFrames):
    """An empty background that fits the joints of an item. It has the size of the source image where that is known."""

    def __init__(self, item: ItemReader, *, y_up: bool, x_left: bool = False) -> None:
        """Fit the background to the visible joints of an item.

        Args:
            item: A stored pose item.
            y_up: The y axis points up, as in 3D poses.
            x_left: The x axis points to the camera's left.
        """
        self._axes = np.array([-1 if x_left else 1, -1 if y_up else 1], np.float32)
        self._origin, self._shrink = np.zeros(2, np.float32), 1.0
        size = item.attributes.get("image_size")
        seen = item["keypoints"][:][..., :2][item["score"][:] > 0] * self._axes
        if size is not None and not y_up:
            super().__init__(int(size[0]), int(size[1]))
        elif not len(seen):
            super().__init__(480, 480)
        else:
            low, high = np.percentile(seen, [0.5, 99.5], axis=0)
            extent = np.maximum(high - low, 1e-6)
            margin = 0.12 * float(extent.max())
            self._shrink = 480 / (float(extent[1]) + 2 * margin)
            super().__init__(480, int(np.clip((float(extent[0]) + 2 * margin) * self._shrink, 240, 960)))
            self._origin = (low + high) / 2 - np.array([self.width, 480]) / 2 / self._shrink

    def place(self, xy: np.ndarray, image: np.ndarray) -> np.ndarray:
        """Map joints (..., 2) to pixels of a drawn image."""
        return scaled((xy * self._axes - self._origin) * self._shrink, _scale(image, self))


def resized(image: np.ndarray, height: int, width: int, *, show_pixels: bool = False) -> np.ndarray:
    """Resize an image (H, W, 3).

    Args:
        image: The image.
        height: New height in pixels.
        width: New width in pixels.
        show_pixels: Use nearest-neighbor interpolation where the image is enlarged at least twice.
    """
    import cv2

    if image.shape[:2] == (height, width):
        return image
    if height < image.shape[0]:
        interpolation = cv2.INTER_AREA
    else:
        interpolation = cv2.INTER_NEAREST if show_pixels and height >= 2 * image.shape[0] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (width, height), interpolation=interpolation))


def _scale(image: np.ndarray, source: Images) -> tuple[float, float]:
    return image.shape[1] / source.width, image.shape[0] / source.height
