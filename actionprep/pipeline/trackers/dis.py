"""Dense optical flow (DIS) through OpenCV, chained over frames; needs no weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from actionprep.pipeline.trackers.lk import LucasKanade

if TYPE_CHECKING:
    from actionprep.pipeline.trackers.settings import TracksSettings

_SMALLEST = 16
"""OpenCV's DIS fails on frames with a shorter side."""


class DenseFlow(LucasKanade):
    """Dense inverse search (DIS) flow, chained over frames, with the forward–backward check of `lk`.

    Each step reads the flow between two frames at the positions of the points, bilinearly. Confidence and visibility are
    computed as in `LucasKanade`, from the distance between a point and where the flow back leads. The time of a step does
    not depend on the number of points, so this pays for dense grids.

    References:
        Kroeger et al., "Fast Optical Flow using Dense Inverse Search", ECCV 2016. OpenCV's preset
        "medium" is used.
    """

    @classmethod
    def identity(cls, settings: TracksSettings) -> dict[str, str]:  # noqa: D102
        return {**super().identity(settings), "tracker": "dis"}

    def _step(self, here: np.ndarray, there: np.ndarray, xy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        height, width = there.shape
        moved = xy + _at(_flow(here, there), xy)
        inside = (moved >= -0.5).all(axis=1) & (moved <= (width - 0.5, height - 0.5)).all(axis=1)
        returned = moved + _at(_flow(there, here), moved)
        error = np.linalg.norm(returned - xy, axis=1)
        return np.where(inside[:, None], moved, xy), np.where(inside, error, np.inf)


def _flow(here: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Return the displacement (H, W, 2) in pixels of every pixel of a gray frame to the next one."""
    import cv2

    height, width = here.shape
    low, right = max(_SMALLEST - height, 0), max(_SMALLEST - width, 0)
    if low or right:
        here, there = (cv2.copyMakeBorder(frame, 0, low, 0, right, cv2.BORDER_REPLICATE) for frame in (here, there))
    flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(  # type: ignore[attr-defined]
        np.ascontiguousarray(here), np.ascontiguousarray(there), None
    )
    return np.asarray(flow)[:height, :width]


def _at(flow: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """Return the flow (N, 2) at positions (N, 2), bilinear; outside it is that of the nearest pixel."""
    height, width = flow.shape[:2]
    x, y = xy[:, 0].clip(0, width - 1), xy[:, 1].clip(0, height - 1)
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    across, down = (x - left)[:, None], (y - top)[:, None]
    upper = flow[top, left] * (1 - across) + flow[top, right] * across
    lower = flow[bottom, left] * (1 - across) + flow[bottom, right] * across
    moved: np.ndarray = upper * (1 - down) + lower * down
    return moved.astype(np.float32)
