"""Pyramidal Lucas–Kanade through OpenCV, with a forward–backward check; needs no weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from actionprep.pipeline.trackers.tracker import PointTracker, PointTracks

if TYPE_CHECKING:
    from actionprep.pipeline.trackers.settings import TracksSettings

LOST_BELOW = 0.05
MARGIN = 64
"""Pixels around the points that each step reads. Points that can be tracked move less than this in one frame."""


class LucasKanade(PointTracker):
    """Pyramidal Lucas–Kanade with forward–backward check: fast on any CPU, no weights.

    Each point is tracked to the next frame, and from there back again. The distance e between the start and the point that
    it returns to is the forward–backward error of the step. With the limit L = `forward_backward`,

        confidence = 1 / (1 + (e / L)^2)         of this step
        visibility = smallest confidence of all steps since the query

    so 0.5 means e = L, and the errors for another limit can be recovered. A lost point stays lost, because after an
    occlusion Lucas–Kanade tracks whatever covered the point. A point with a visibility below 0.05 (e > 4.4 L), or outside
    the frame, is no longer tracked: it keeps its last position, with 0 for both.

    References:
        Kalal, Mikolajczyk and Matas, "Forward-Backward Error: Automatic Detection of Tracking Failures", ICPR 2010. The
        error is computed per step here, not per track.
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
        for source, target, has_started in forward + (backward if both_ways else []):
            xy[target, has_started] = xy[source, has_started]
            active = has_started & (visibility[source] >= LOST_BELOW)
            if active.any():
                xy[target, active], error = self._step(frames[source], frames[target], xy[source, active])
                confidence[target, active] = 1 / (1 + (error / self.settings.forward_backward) ** 2)
                visibility[target, active] = np.minimum(visibility[source, active], confidence[target, active])
            self._correct(frames, seed, target, has_started, xy, visibility, confidence)
        return PointTracks(xy, visibility, confidence)

    def _correct(
        self,
        frames: Sequence[np.ndarray],
        seed: np.ndarray,
        target: int,
        has_started: np.ndarray,
        xy: np.ndarray,
        visibility: np.ndarray,
        confidence: np.ndarray,
    ) -> None:
        """Change the positions, visibility and confidence in frame `target` in place; nothing here.

        Args:
            frames: T frames.
            seed: Frame of the query of each point, shape (N,).
            target: The frame that was reached.
            has_started: Points to change, bool of shape (N,).
            xy: Positions, shape (T, N, 2).
            visibility: Visibility, shape (T, N).
            confidence: Confidence, shape (T, N).
        """

    def _step(self, here: np.ndarray, there: np.ndarray, xy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return positions (N, 2) in the next frame and forward–backward errors (N,), infinite for lost points."""
        height, width = there.shape
        # Build pyramids only for the region with points, aligned to pixels of the coarsest level.
        grain = 2 ** (self.settings.levels - 1)
        low = ((xy.min(axis=0) - MARGIN) // grain * grain).clip(0).astype(int)
        left, top = low
        right, bottom = np.minimum(xy.max(axis=0) + MARGIN, (width, height)).astype(int)
        here, there = here[top:bottom, left:right], there[top:bottom, left:right]
        start = xy - low.astype(np.float32)
        moved, is_tracked = self._flow(here, there, start)
        returned, is_tracked_back = self._flow(there, here, moved)
        error = np.linalg.norm(returned - start, axis=1)
        moved += low
        inside = (moved >= -0.5).all(axis=1) & (moved <= (width - 0.5, height - 0.5)).all(axis=1)
        kept = is_tracked & inside
        return np.where(kept[:, None], moved, xy), np.where(kept & is_tracked_back, error, np.inf)

    def _flow(
        self,
        here: np.ndarray,
        there: np.ndarray,
        xy: np.ndarray,
        *,
        guess: np.ndarray | None = None,
        levels: int | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        import cv2

        moved, status, _ = cv2.calcOpticalFlowPyrLK(
            here,
            there,
            np.ascontiguousarray(xy).reshape(-1, 1, 2),
            guess if guess is None else np.array(guess, np.float32).reshape(-1, 1, 2),
            winSize=(self.settings.patch, self.settings.patch),
            maxLevel=(self.settings.levels if levels is None else levels) - 1,
            criteria=(cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 10, 0.03),
            flags=0 if guess is None else cv2.OPTFLOW_USE_INITIAL_FLOW,
        )
        return moved.reshape(-1, 2), status.reshape(-1).astype(bool)
