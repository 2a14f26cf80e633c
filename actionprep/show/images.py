"""Where the pictures of a view come from: a video, the store, or an empty ground."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from actionprep.show.colors import DARK
from actionprep.show.overlays import scaled

if TYPE_CHECKING:
    from actionprep.datasets.store.reader import ItemReader


_FRAMES_AT_ONCE = 16


class Pictures(Protocol):
    """Where the pictures of a view come from; height and width are those of a picture in px of the source."""

    @property
    def height(self) -> int: ...  # noqa: D102

    @property
    def width(self) -> int: ...  # noqa: D102

    def at(self, numbers: Sequence[int], height: int, width: int) -> Iterator[np.ndarray]:
        """Pictures (height, width, 3) uint8 with these numbers, which never fall, one after the other."""
        ...


class VideoFrames:
    """Frames of a video by exact index, some at a time; or a part of each, where `cut_to` was called.

    box: x0, y0, x1, y1 px of the video, what is shown of it.
    """

    def __init__(self, path: str | Path, *, times: np.ndarray | None = None) -> None:
        from actionprep.pipeline.video import VideoReader

        self._reader = VideoReader(path, times=times)
        self.times = self._reader.times
        self.box = (0, 0, self._reader.width, self._reader.height)

    @property
    def height(self) -> int:
        """Of what is shown, in px of the video."""
        return self.box[3] - self.box[1]

    @property
    def width(self) -> int:
        """Of what is shown, in px of the video."""
        return self.box[2] - self.box[0]

    @property
    def is_cut(self) -> bool:
        """Whether less than the whole pictures is shown."""
        return self.box != (0, 0, self._reader.width, self._reader.height)

    def cut_to(self, region: tuple[float, float, float, float]) -> None:
        """Show only a region (x0, y0, x1, y1 px) and its surroundings."""
        self.box = surroundings(region, self._reader.height, self._reader.width)

    def place(self, xy: np.ndarray, picture: np.ndarray) -> np.ndarray:
        """Where positions (..., 2) px of the video lie on a picture of what is shown."""
        return scaled(xy - np.array(self.box[:2], np.float32), _scale(picture, self))

    def at(self, numbers: Sequence[int], height: int, width: int) -> Iterator[np.ndarray]:  # noqa: D102
        last: tuple[int, np.ndarray] | None = None
        for first in range(0, len(numbers), _FRAMES_AT_ONCE):
            wanted = np.unique(numbers[first : first + _FRAMES_AT_ONCE])
            # A slower view repeats frames: what the last batch ended with is not decoded again.
            fresh = wanted[wanted != last[0]] if last is not None else wanted
            found = dict(zip(fresh.tolist(), self._read(fresh, height, width), strict=True))
            if last is not None:
                found.setdefault(*last)
            for number in numbers[first : first + _FRAMES_AT_ONCE]:
                yield found[int(number)]
            last = (int(wanted[-1]), found[int(wanted[-1])])

    def _read(self, numbers: np.ndarray, height: int, width: int) -> list[np.ndarray]:
        """Shrunk while decoding where that spares work, cut, and brought to the exact size."""
        x0, y0, x1, y1 = self.box
        shrink = min(1.0, height / self.height)
        high, wide = round(self._reader.height * shrink), round(self._reader.width * shrink)
        pictures = self._reader.frames_at(numbers, height=high, width=wide)
        left, top = round(x0 * shrink), round(y0 * shrink)
        right, bottom = max(round(x1 * shrink), left + 1), max(round(y1 * shrink), top + 1)
        return [resized(picture[top:bottom, left:right], height, width) for picture in pictures]


def surroundings(
    region: tuple[float, float, float, float], height: int, width: int, *, margin: float = 0.12
) -> tuple[int, int, int, int]:
    """A box around a region within a picture: not too narrow, too flat or too small; the whole where it gains little.

    region: x0, y0, x1, y1 px. margin: share of the region's longer side that is added on all sides.
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
    """Pictures that the store has; `read` gives the one with a number."""

    def __init__(self, read: Callable[[int], np.ndarray], height: int, width: int) -> None:
        self._read = read
        self.height, self.width = height, width

    def at(self, numbers: Sequence[int], height: int, width: int) -> Iterator[np.ndarray]:  # noqa: D102
        for number in numbers:
            yield resized(self._read(int(number)), height, width, show_pixels=True)


class BlankFrames:
    """An empty ground, for products whose video is not at hand."""

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width = height, width

    def at(self, numbers: Sequence[int], height: int, width: int) -> Iterator[np.ndarray]:  # noqa: D102
        for _ in numbers:
            yield np.full((height, width, 3), DARK.empty, np.uint8)


class JointGround(BlankFrames):
    """An empty ground that the joints of an item fit on: the size of its picture where that is known."""

    def __init__(self, item: ItemReader, *, y_up: bool, x_left: bool = False) -> None:
        """y_up: coordinates that grow upwards, as those of 3D poses do; x_left: and to the camera's left."""
        self._axes = np.array([-1 if x_left else 1, -1 if y_up else 1], np.float32)
        self._origin, self._shrink = np.zeros(2, np.float32), 1.0
        size = item.attributes.get("image_size")
        here = item["keypoints"][:][..., :2][item["score"][:] > 0] * self._axes
        if size is not None and not y_up:
            super().__init__(int(size[0]), int(size[1]))
        elif not len(here):
            super().__init__(480, 480)
        else:
            low, high = np.percentile(here, [0.5, 99.5], axis=0)
            extent = np.maximum(high - low, 1e-6)
            margin = 0.12 * float(extent.max())
            self._shrink = 480 / (float(extent[1]) + 2 * margin)
            super().__init__(480, int(np.clip((float(extent[0]) + 2 * margin) * self._shrink, 240, 960)))
            self._origin = (low + high) / 2 - np.array([self.width, 480]) / 2 / self._shrink

    def place(self, xy: np.ndarray, picture: np.ndarray) -> np.ndarray:
        """Where joints (..., 2) lie on a picture of the ground."""
        return scaled((xy * self._axes - self._origin) * self._shrink, _scale(picture, self))


def resized(picture: np.ndarray, height: int, width: int, *, show_pixels: bool = False) -> np.ndarray:
    """A picture in another size; show_pixels: one that becomes at least twice as large shows its pixels as they are."""
    import cv2

    if picture.shape[:2] == (height, width):
        return picture
    if height < picture.shape[0]:
        how = cv2.INTER_AREA
    else:
        how = cv2.INTER_NEAREST if show_pixels and height >= 2 * picture.shape[0] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(picture, (width, height), interpolation=how))


def _scale(picture: np.ndarray, source: Pictures) -> tuple[float, float]:
    return picture.shape[1] / source.width, picture.shape[0] / source.height
