"""Follow points by the motion of the whole frame."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from actionprep.pipeline.trackers import PointTracker, PointTracks

if TYPE_CHECKING:
    from actionprep.pipeline.trackers.settings import TracksSettings


class ShiftTracker(PointTracker):
    """Move all points with the frame: phase correlation of neighboring frames, in whole pixels.

    Kuglin and Hines, "The Phase Correlation Image Alignment Method", 1975. Suits a camera that moves past a still scene.
    """

    needs = "gray"

    @classmethod
    def identity(cls, settings: TracksSettings) -> dict[str, str]:
        """Whatever decides the result besides the settings; actionprep adds the package and its version."""
        return {"tracker": "shift", "numpy": np.__version__}

    def track(self, frames: Sequence[np.ndarray], queries: np.ndarray, *, both_ways: bool) -> PointTracks:
        """Follow each query through all frames; see `PointTracker.track`."""
        steps = [shift(frame, following) for frame, following in pairwise(frames)]
        position = np.cumsum([(0.0, 0.0), *steps], axis=0)  # (T, 2) of the scene in each frame
        start = queries[:, 0].astype(int)
        xy = queries[None, :, 1:] + position[:, None] - position[start]
        before = np.arange(len(frames))[:, None] < start
        seen = np.ones(before.shape, np.float32)
        if not both_ways:
            xy = np.where(before[..., None], queries[None, :, 1:], xy)
            seen[before] = 0
        return PointTracks(xy.astype(np.float32), seen, seen.copy())


def shift(frame: np.ndarray, following: np.ndarray) -> tuple[float, float]:
    """Estimate the motion from one frame to the next.

    Args:
        frame: Gray image, shape (H, W).
        following: The next image, of the same shape.

    Returns:
        Motion (x, y) in whole pixels, at most half of the frame.
    """
    cross = np.fft.rfft2(following.astype(np.float64)) * np.conj(np.fft.rfft2(frame.astype(np.float64)))
    correlation = np.fft.irfft2(cross / np.maximum(np.abs(cross), 1e-9), s=frame.shape)
    y, x = np.unravel_index(int(correlation.argmax()), frame.shape)
    height, width = frame.shape
    return float((x + width // 2) % width - width // 2), float((y + height // 2) % height - height // 2)
