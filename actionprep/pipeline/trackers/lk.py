"""Pyramidal Lucas–Kanade through OpenCV, with a forward–backward check; needs no weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from actionprep.pipeline.trackers.tracker import PointTracker, PointTracks

if TYPE_CHECKING:
    from actionprep.pipeline.trackers.settings import TracksSettings

GIVEN_UP = 0.05
MARGIN = 64
"""Pixels around the points of a step that are looked at: no point that can be followed moves as far in one frame."""


class LucasKanade(PointTracker):
    """Pyramidal Lucas–Kanade with forward–backward check: fast on any CPU, no weights.

    Every point is followed from frame to frame, and from its new place back again. The distance e between where it
    started and where it came back to is the forward–backward error of that step (Kalal, Mikolajczyk, Matas,
    "Forward-Backward Error: Automatic Detection of Tracking Failures", ICPR 2010, here per step instead of per track).
    With the limit L = `forward_backward`,

        confidence = 1 / (1 + (e / L)^2)         of this step
        visibility = smallest confidence of all steps since the query

    so that 0.5 means e = L, the errors can be had back for another limit, and a point that was lost once stays lost: after
    an occlusion Lucas–Kanade follows whatever covered the point. A point whose visibility is under 0.05 (e > 4.4 L) is no
    longer followed and stays where it was, with 0 for both; so does one that leaves the picture, at once.
    """

    needs = "gray"

    @classmethod
    def identity(cls, settings: TracksSettings) -> dict[str, str]:  # noqa: D102
        import cv2

        return {"tracker": "lk", "opencv": cv2.__version__}

    def track(self, frames: Sequence[np.ndarray], queries: np.ndarray, *, both_ways: bool) -> PointTracks:  # noqa: D102
        num_frames, num_points = len(frames), len(queries)
        seed = queries[:, 0].astype(int)
        xy = np.repeat(queries[None, :, 1:].astype(np.float32), num_frames, axis=0)
        confidence = np.zeros((num_frames, num_points), np.float32)
        visibility = np.zeros((num_frames, num_points), np.float32)
        confidence[seed, np.arange(num_points)] = visibility[seed, np.arange(num_points)] = 1
        forward = [(t, t + 1, seed <= t) for t in range(num_frames - 1)]
        backward = [(t, t - 1, seed >= t) for t in range(num_frames - 1, 0, -1)]
        for here, there, begun in forward + (backward if both_ways else []):
            xy[there, begun] = xy[here, begun]
            followed = begun & (visibility[here] >= GIVEN_UP)
            if followed.any():
                xy[there, followed], error = self._step(frames[here], frames[there], xy[here, followed])
                confidence[there, followed] = 1 / (1 + (error / self.settings.forward_backward) ** 2)
                visibility[there, followed] = np.minimum(visibility[here, followed], confidence[there, followed])
        return PointTracks(xy, visibility, confidence)

    def _step(self, here: np.ndarray, there: np.ndarray, xy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions (N, 2) in the next picture and forward–backward errors (N,), infinite where the point is lost."""
        height, width = there.shape
        # Pyramids are made of the part with points only, cut where pixels of the coarsest level begin.
        grain = 2 ** (self.settings.levels - 1)
        low = ((xy.min(axis=0) - MARGIN) // grain * grain).clip(0).astype(int)
        left, top = low
        right, bottom = np.minimum(xy.max(axis=0) + MARGIN, (width, height)).astype(int)
        here, there = here[top:bottom, left:right], there[top:bottom, left:right]
        start = xy - low.astype(np.float32)
        moved, found = self._flow(here, there, start)
        returned, found_back = self._flow(there, here, moved)
        error = np.linalg.norm(returned - start, axis=1)
        moved += low
        inside = (moved >= -0.5).all(axis=1) & (moved <= (width - 0.5, height - 0.5)).all(axis=1)
        kept = found & inside
        return np.where(kept[:, None], moved, xy), np.where(kept & found_back, error, np.inf)

    def _flow(self, here: np.ndarray, there: np.ndarray, xy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        import cv2

        moved, found, _ = cv2.calcOpticalFlowPyrLK(
            here,
            there,
            np.ascontiguousarray(xy).reshape(-1, 1, 2),
            None,
            winSize=(self.settings.patch, self.settings.patch),
            maxLevel=self.settings.levels - 1,
            criteria=(cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 10, 0.03),
        )
        return moved.reshape(-1, 2), found.reshape(-1).astype(bool)
