"""Foreground by movement: what differs from its own past and future, or from a slowly learnt background."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from actionprep.pipeline.mask_sources.source import MaskBlock, MaskSource
from actionprep.pipeline.shrink import shrink

if TYPE_CHECKING:
    from actionprep.datasets.store.zarr_store import ItemReader
    from actionprep.pipeline.mask_sources.settings import MasksSettings
    from actionprep.pipeline.stage import FrameBlock, ViewSource

MOST_LOOK_AHEAD = 60
"""Frames held to either side, whatever the frame rate: it bounds the memory."""


class MotionMasks(MaskSource):
    """Background subtraction with clean-up: needs no weights, but a camera that stands still.

    Works on gray pictures of `short_side` pixels. A frame waits until those of the next `window` seconds are there.
    """

    def __init__(self, settings: MasksSettings, source: ViewSource, done: Mapping[str, ItemReader]) -> None:
        super().__init__(settings, source, done)
        shrink = min(1.0, settings.short_side / min(source.height, source.width))
        self._size = (max(1, round(source.width * shrink)), max(1, round(source.height * shrink)))
        reach = min(max(round(settings.window * source.fps), 2), MOST_LOOK_AHEAD)
        self._finder = MotionFinder(
            reach=reach,
            threshold=settings.threshold,
            background_frames=settings.background * source.fps,
            min_area=settings.min_area,
            grow=settings.grow,
        )
        self._waiting: deque[int] = deque()

    def push(self, block: FrameBlock, live: Mapping[str, Any]) -> MaskBlock:  # noqa: D102
        ready = []
        for index, picture in zip(block.index, block.gray, strict=True):
            self._waiting.append(int(index))
            ready += self._finder.push(shrink(picture, self._size))
        return self._block(ready)

    def finish(self, live: Mapping[str, Any]) -> MaskBlock:  # noqa: D102
        return self._block(self._finder.finish())

    def _block(self, masks: list[np.ndarray]) -> MaskBlock:
        import cv2

        height, width = self.source.height, self.source.width
        foreground = np.empty((len(masks), height, width), bool)
        for into, mask in zip(foreground, masks, strict=True):
            # Linear with a cut in the middle gives smooth outlines where nearest gives stairs.
            np.greater(cv2.resize(mask, (width, height), interpolation=cv2.INTER_LINEAR), 127, out=into)
        index = np.array([self._waiting.popleft() for _ in masks], np.int64)
        return MaskBlock(index, foreground)


class MotionFinder:
    """The core of the motion masks: small gray pictures in, masks of the same size out, `reach` frames later.

    A pixel counts by the larger of two figures, in gray levels:

    movement    for lags k = 1, 2, 4, … up to `reach`: the smaller of its differences to two other frames, one k before
                and one k after, or two successive lags after, or before. It takes two, because the difference to one
                frame also marks the place where a thing was or will be, and not only where it is.
    background  the difference to a background that follows the picture by a small step a frame, part of it fixed (the
                sigma-delta filter, Manzanera and Richefeu, "A new motion detection algorithm based on Σ-Δ background
                estimation", 2007) and part of it a share of the difference. It keeps what stops moving for a while,
                and begins as the median of the first frames.

    A spot is foreground where the figure is over half of `threshold` and connected to a place over it; small holes are
    closed, spots smaller than the share `min_area` of the picture dropped, the rest grown by the share `grow` of its
    short side. The threshold is raised with the noise, measured as the median difference of successive frames.
    """

    def __init__(self, *, reach: int, threshold: float, background_frames: float, min_area: float, grow: float) -> None:
        self._reach = reach
        self._threshold = threshold
        self._lags = sorted({2**power for power in range(7) if 2**power < reach} | {reach})
        self._background_rate = 1 / max(background_frames, 1)
        self._min_area = min_area
        self._grow = grow
        self._pictures: deque[np.ndarray] = deque()
        self._now = 0
        self._background: np.ndarray | None = None

    @property
    def num_held(self) -> int:
        """Pictures in memory."""
        return len(self._pictures)

    def push(self, picture: np.ndarray) -> list[np.ndarray]:
        """Take one (h, w) uint8 picture; returns no or one mask, (h, w) uint8, 0 or 255."""
        self._pictures.append(picture)
        return [self._next()] if len(self._pictures) > self._now + self._reach else []

    def finish(self) -> list[np.ndarray]:
        """The masks that are left."""
        masks = []
        while self._now < len(self._pictures):
            masks.append(self._next())
        return masks

    def _next(self) -> np.ndarray:
        """Mask of the picture at `_now`, and on to the next one."""
        if self._background is None:
            self._background = np.median(np.stack(self._pictures), axis=0).astype(np.float32)
        off = self._pictures[self._now] - self._background
        figure = np.maximum(self._movement(), np.abs(off))
        mask = self._clean(figure, self._threshold + 4 * self._noise())
        step = 2 * self._threshold * self._background_rate
        self._background += np.clip(off, -step, step) + off * self._background_rate
        if self._now == self._reach:
            self._pictures.popleft()
        else:
            self._now += 1
        return mask

    def _movement(self) -> np.ndarray:
        import cv2

        last = len(self._pictures) - 1
        here = self._pictures[self._now]
        most = np.zeros_like(here)
        difference: dict[int, np.ndarray] = {}

        def to(other: int) -> np.ndarray:
            if other not in difference:
                difference[other] = cv2.absdiff(here, self._pictures[other])
            return difference[other]

        pairs = [(-lag, lag) for lag in self._lags]
        pairs += [(sign * near, sign * far) for sign in (1, -1) for near, far in pairwise(self._lags)]
        for one, two in pairs:
            first, second = self._now + one, self._now + two
            if min(first, second) >= 0 and max(first, second) <= last:
                cv2.max(most, cv2.min(to(first), to(second)), dst=most)
        return most

    def _noise(self) -> float:
        import cv2

        other = self._now - 1 if self._now > 0 else min(1, len(self._pictures) - 1)
        difference = cv2.absdiff(self._pictures[self._now], self._pictures[other])
        # The median by counting levels, which is many times as fast as by sorting.
        levels = np.cumsum(np.bincount(difference.reshape(-1), minlength=256))
        return float(np.searchsorted(levels, difference.size / 2))

    def _clean(self, figure: np.ndarray, threshold: float) -> np.ndarray:
        import cv2

        height, width = figure.shape
        weak = (figure > threshold / 2).astype(np.uint8)
        weak = cv2.morphologyEx(weak, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5)))
        _, label, stats, _ = cv2.connectedComponentsWithStats(weak, connectivity=8)
        strong = np.zeros(len(stats), bool)
        strong[label[figure > threshold]] = True
        strong &= stats[:, cv2.CC_STAT_AREA] >= self._min_area * height * width
        strong[0] = False
        mask = np.where(strong[label], np.uint8(255), np.uint8(0))
        radius = round(self._grow * min(height, width))
        if radius > 0:
            mask = cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1)))
        return mask
