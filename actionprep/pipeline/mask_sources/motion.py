"""Find foreground by motion: differences to earlier and later frames, and to a slowly adapting background."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from actionprep.pipeline.mask_sources.source import MaskBlock, MaskSource
from actionprep.pipeline.shrink import shrink

if TYPE_CHECKING:
    from actionprep.datasets.store.reader import ItemReader
    from actionprep.pipeline.mask_sources.settings import MasksSettings
    from actionprep.pipeline.stage import FrameBlock, ViewSource

MOST_LOOK_AHEAD = 60
"""Largest number of frames kept before and after a frame. It limits memory at high frame rates."""

_MOSTLY = 0.6
"""Frames with a larger share of foreground are counted. Often the camera moves there."""


class MotionMasks(MaskSource):
    """Background subtraction with cleanup. It needs no weights. With camera = "moving" it compensates camera motion.

    It works on gray images with a short side of `short_side` pixels. The mask of a frame is available after the frames
    of the next `window` seconds.
    """

    def __init__(self, settings: MasksSettings, source: ViewSource, done: Mapping[str, ItemReader]) -> None:
        super().__init__(settings, source, done)
        shrink = min(1.0, settings.short_side / min(source.height, source.width))
        self._size = (max(1, round(source.width * shrink)), max(1, round(source.height * shrink)))
        reach = min(max(round(settings.window * source.fps), 2), MOST_LOOK_AHEAD)
        self._finder = (MovingCameraFinder if settings.camera == "moving" else MotionFinder)(
            reach=reach,
            threshold=settings.threshold,
            background_frames=settings.background * source.fps,
            min_area=settings.min_area,
            grow=settings.grow,
        )
        self._waiting: deque[int] = deque()
        self._num_mostly = 0

    def push(self, block: FrameBlock, live: Mapping[str, Any]) -> MaskBlock:  # noqa: D102
        ready = []
        for index, gray in zip(block.index, block.gray, strict=True):
            self._waiting.append(int(index))
            ready += self._finder.push(shrink(gray, self._size))
        return self._block(ready)

    def finish(self, live: Mapping[str, Any]) -> MaskBlock:  # noqa: D102
        return self._block(self._finder.finish())

    def _block(self, masks: list[np.ndarray]) -> MaskBlock:
        import cv2

        height, width = self.source.height, self.source.width
        foreground = np.empty((len(masks), height, width), bool)
        for row, mask in zip(foreground, masks, strict=True):
            # Linear interpolation with a threshold gives smooth outlines; nearest neighbor gives jagged ones.
            np.greater(cv2.resize(mask, (width, height), interpolation=cv2.INTER_LINEAR), 127, out=row)
            self._num_mostly += int(np.count_nonzero(mask) > _MOSTLY * mask.size)
        index = np.array([self._waiting.popleft() for _ in masks], np.int64)
        return MaskBlock(index, foreground)

    def events(self) -> dict[str, int]:  # noqa: D102
        counts = {"num_mostly_foreground": self._num_mostly}
        if isinstance(self._finder, MovingCameraFinder):
            counts["num_uncompensated"] = self._finder.num_uncompensated
        return {name: count for name, count in counts.items() if count}


class MotionFinder:
    """Compute motion masks of small gray images. The mask of an image is returned `reach` frames later.

    The activity of a pixel, in gray levels, is the larger of two values:

    - Motion: for lags k = 1, 2, 4, … up to `reach`, the smaller of its differences to two other frames. These are k
      before and k after, or two successive lags before, or after. Two frames are needed, because the difference to one
      frame also marks where an object was or will be.
    - Difference to a background. The background follows the image by a small step per frame. Part of the step is
      constant (the sigma-delta filter [1]_), and part is proportional to the difference. So objects that stop for a
      while stay foreground. The background starts as the median of the first frames.

    Regions with activity above half of the threshold are foreground if they contain a pixel above the full threshold.
    Small holes are closed, small regions dropped, and the others dilated. The threshold is raised by the noise, which
    is the median difference of successive frames.

    Args:
        reach: Number of frames to look ahead and back.
        threshold: Activity of foreground in gray levels, before the noise is added.
        background_frames: Number of frames in which the background adapts.
        min_area: Smallest region that is kept, as a fraction of the image.
        grow: Radius of the dilation, as a fraction of the short side of the image.

    References:
        .. [1] Manzanera and Richefeu, "A new motion detection algorithm based on Σ-Δ background estimation", Pattern
           Recognition Letters, 2007.
    """

    def __init__(self, *, reach: int, threshold: float, background_frames: float, min_area: float, grow: float) -> None:
        self._reach = reach
        self._threshold = threshold
        self._lags = sorted({2**power for power in range(7) if 2**power < reach} | {reach})
        self._background_rate = 1 / max(background_frames, 1)
        self._min_area = min_area
        self._grow = grow
        self._images: deque[np.ndarray] = deque()
        self._now = 0
        self._background: np.ndarray | None = None

    @property
    def num_held(self) -> int:
        """Number of images in memory."""
        return len(self._images)

    def push(self, image: np.ndarray) -> list[np.ndarray]:
        """Add an image.

        Args:
            image: Gray image, uint8 of shape (H, W).

        Returns:
            No mask or one mask, uint8 of shape (H, W), 0 or 255.
        """
        self._images.append(image)
        return [self._next()] if len(self._images) > self._now + self._reach else []

    def finish(self) -> list[np.ndarray]:
        """Return the remaining masks."""
        masks = []
        while self._now < len(self._images):
            masks.append(self._next())
        return masks

    def _next(self) -> np.ndarray:
        """Return the mask of the image at `_now`, and advance to the next image."""
        if self._background is None:
            self._background = self._first_background()
        offset = self._offset(self._background)
        activity = np.maximum(self._motion(), np.abs(offset))
        mask = self._clean(activity, self._threshold + 4 * self._noise())
        step = 2 * self._threshold * self._background_rate
        self._background += np.clip(offset, -step, step) + offset * self._background_rate
        self._advance()
        return mask

    def _first_background(self) -> np.ndarray:
        """Return the background at the first image, float32 of shape (H, W)."""
        background: np.ndarray = np.median(np.stack(self._images), axis=0).astype(np.float32)
        return background

    def _offset(self, background: np.ndarray) -> np.ndarray:
        """Return the difference of the current image to the background, with its sign."""
        offset: np.ndarray = self._images[self._now] - background
        return offset

    def _difference(self, other: int) -> np.ndarray:
        """Return the absolute difference of the current image to another one, uint8 of shape (H, W)."""
        import cv2

        difference: np.ndarray = cv2.absdiff(self._images[self._now], self._images[other])
        return difference

    def _advance(self) -> None:
        """Make the next image the current one."""
        if self._now == self._reach:
            self._images.popleft()
        else:
            self._now += 1

    def _motion(self) -> np.ndarray:
        import cv2

        last = len(self._images) - 1
        current = self._images[self._now]
        largest = np.zeros_like(current)
        difference: dict[int, np.ndarray] = {}

        def to(other: int) -> np.ndarray:
            if other not in difference:
                difference[other] = self._difference(other)
            return difference[other]

        pairs = [(-lag, lag) for lag in self._lags]
        pairs += [(sign * near, sign * far) for sign in (1, -1) for near, far in pairwise(self._lags)]
        for first_lag, second_lag in pairs:
            first, second = self._now + first_lag, self._now + second_lag
            if min(first, second) >= 0 and max(first, second) <= last:
                cv2.max(largest, cv2.min(to(first), to(second)), dst=largest)
        return largest

    def _noise(self) -> float:
        other = self._now - 1 if self._now > 0 else min(1, len(self._images) - 1)
        difference = self._difference(other)
        # Counting levels gives the median many times faster than sorting.
        levels = np.cumsum(np.bincount(difference.reshape(-1), minlength=256))
        return float(np.searchsorted(levels, difference.size / 2))

    def _clean(self, activity: np.ndarray, threshold: float) -> np.ndarray:
        import cv2

        height, width = activity.shape
        weak = (activity > threshold / 2).astype(np.uint8)
        weak = cv2.morphologyEx(weak, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5)))
        _, label, stats, _ = cv2.connectedComponentsWithStats(weak, connectivity=8)
        strong = np.zeros(len(stats), bool)
        strong[label[activity > threshold]] = True
        strong &= stats[:, cv2.CC_STAT_AREA] >= self._min_area * height * width
        strong[0] = False
        mask = np.where(strong[label], np.uint8(255), np.uint8(0))
        radius = round(self._grow * min(height, width))
        if radius > 0:
            mask = cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1)))
        return mask


class MovingCameraFinder(MotionFinder):
    """Compute motion masks while the camera moves.

    A homography from each image to the next one is estimated from corners that are tracked with pyramidal Lucas–Kanade,
    with RANSAC. Other images are warped to the current image before they are compared. The background is the median of
    the warped images, so objects that stop for longer than the window become background. A pixel is compared with the
    range of its 3 x 3 neighbors, as the alignment is not exact. Pixels outside of a warped image do not count. If no
    homography is found, images before are not compared with images after.

    The model is exact for a camera that only rotates, and for flat scenes. Otherwise near objects that stand still are
    foreground if the camera moves sideways.

    Attributes:
        num_uncompensated: Number of images without a homography from the one before.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._steps: deque[np.ndarray | None] = deque()
        self._last: np.ndarray | None = None
        self._cache: dict[int, tuple[np.ndarray, np.ndarray] | None] = {}
        self.num_uncompensated = 0

    def push(self, image: np.ndarray) -> list[np.ndarray]:  # noqa: D102
        step = np.eye(3) if self._last is None else homography(self._last, image)
        self.num_uncompensated += step is None
        self._steps.append(step)
        self._last = image
        return super().push(image)

    def _first_background(self) -> np.ndarray:
        """Return the median of the warped images at all lags, float32 of shape (H, W)."""
        lags = [0, *self._lags, *(-lag for lag in self._lags)]
        images = []
        for other in (self._now + lag for lag in lags):
            warped = self._warped(other) if 0 <= other < len(self._images) else None
            if warped is not None:
                images.append(np.where(warped[1], warped[0].astype(np.float32), np.nan))
        # The current image is among them, so that no pixel is without a value.
        background: np.ndarray = np.nanmedian(np.stack(images), axis=0).astype(np.float32)
        return background

    def _offset(self, background: np.ndarray) -> np.ndarray:
        low, high = _range_of(background)
        image = self._images[self._now].astype(np.float32)
        offset: np.ndarray = np.maximum(image - high, 0) + np.minimum(image - low, 0)
        return offset

    def _difference(self, other: int) -> np.ndarray:
        current = self._images[self._now]
        warped = self._warped(other)
        if warped is None:
            return np.zeros_like(current)
        low, high = _range_of(warped[0])
        outside = np.maximum(current.astype(np.int16) - high, low.astype(np.int16) - current)
        difference: np.ndarray = np.where(warped[1], outside.clip(0), 0).astype(np.uint8)
        return difference

    def _advance(self) -> None:
        # A background that is warped from image to image would blur, so each image has its own.
        self._background = None
        self._cache.clear()
        if self._now == self._reach:
            self._steps.popleft()
        super()._advance()

    def _warped(self, other: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Return another image warped to the current one, and which of its pixels are valid; None without a homography."""
        if other not in self._cache:
            self._cache[other] = self._warp(other)
        return self._cache[other]

    def _warp(self, other: int) -> tuple[np.ndarray, np.ndarray] | None:
        import cv2

        image = self._images[other]
        first, last = min(other, self._now), max(other, self._now)
        chain: np.ndarray = np.eye(3)
        for position in range(first + 1, last + 1):
            step = self._steps[position]
            if step is None:
                return None
            chain = step @ chain
        if other > self._now:
            chain = np.linalg.inv(chain)
        size = image.shape[::-1]
        valid = cv2.warpPerspective(np.full(image.shape, 255, np.uint8), chain, size) == 255
        return cv2.warpPerspective(image, chain, size), valid


def homography(first: np.ndarray, second: np.ndarray) -> np.ndarray | None:
    """Estimate the global motion between two gray images.

    Args:
        first: Image, uint8 of shape (H, W).
        second: The next image, same shape.

    Returns:
        Homography (3, 3) from pixels of the first image to those of the second; None if fewer than 12 corners, or fewer
        than half of them, follow one homography.
    """
    import cv2

    corners = cv2.goodFeaturesToTrack(first, maxCorners=300, qualityLevel=0.01, minDistance=5)
    if corners is None or len(corners) < _FEWEST_CORNERS:
        return None
    tracked, status, _ = cv2.calcOpticalFlowPyrLK(first, second, corners, np.empty_like(corners))
    good = status.reshape(-1) == 1
    if good.sum() < _FEWEST_CORNERS:
        return None
    matrix, inliers = cv2.findHomography(corners[good], tracked[good], cv2.RANSAC, 0.75)
    if matrix is None or inliers.sum() < max(_FEWEST_CORNERS, 0.5 * len(corners)):
        return None
    return np.asarray(matrix, np.float64)


_FEWEST_CORNERS = 12


def _range_of(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the smallest and the largest value of the 3 x 3 neighbors of each pixel."""
    import cv2

    kernel = np.ones((3, 3), np.uint8)
    return cv2.erode(image, kernel), cv2.dilate(image, kernel)
