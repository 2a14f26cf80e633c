"""Lucas–Kanade that also matches each point with the frame of its query, against drift."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from actionprep.pipeline.trackers.lk import MARGIN, LucasKanade

if TYPE_CHECKING:
    from actionprep.pipeline.trackers.settings import TracksSettings

REACH = 3.0
"""Largest correction in pixels per frame. A larger one is more often another part of the image than drift."""
SIMILARITY = 0.5
"""Smallest correlation of the two patches: what covers a point may match in position, but looks different."""
_LEVELS = 2


class AnchoredLucasKanade(LucasKanade):
    """Lucas–Kanade with forward–backward check, corrected by the patch of the query.

    After each step of `LucasKanade`, the patch of the query's frame is searched from the new position, and back again.
    If the round trip misses by less than `forward_backward`, the position changes by at most 3 px, and the patches
    correlate by at least 0.5, the match replaces the position. Errors of the steps then do not add up, and a point that
    reappears near where it was lost is visible again. It takes two to three times as long as `lk`.

    References:
        Matthews, Ishikawa and Baker, "The Template Update Problem", TPAMI 2004.
    """

    @classmethod
    def identity(cls, settings: TracksSettings) -> dict[str, str]:  # noqa: D102
        return {**super().identity(settings), "tracker": "lk_anchored"}

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
        limit = self.settings.forward_backward
        for start in np.unique(seed[has_started]):
            if start == target:
                continue
            points = np.flatnonzero(has_started & (seed == start))
            query, guess = xy[start, points], xy[target, points]
            matched, error = self._match(frames[start], frames[target], query, guess)
            near = (error < limit) & (np.linalg.norm(matched - guess, axis=1) <= REACH)
            height, width = frames[target].shape
            near &= (matched >= -0.5).all(axis=1) & (matched <= (width - 0.5, height - 0.5)).all(axis=1)
            candidates = np.flatnonzero(near)
            if not len(candidates):
                continue
            ours = self._patches(frames[target], matched[candidates])
            alike = (self._patches(frames[start], query[candidates]) * ours).sum(axis=(1, 2)) >= SIMILARITY
            kept = candidates[alike]
            moved = points[kept]
            xy[target, moved] = matched[kept]
            certainty = (1 / (1 + (error[kept] / limit) ** 2)).astype(np.float32)
            for values in (visibility, confidence):
                values[target, moved] = np.maximum(values[target, moved], certainty)

    def _match(
        self, anchor: np.ndarray, frame: np.ndarray, query: np.ndarray, guess: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return positions (N, 2) of the query's patches in a frame, and errors (N,) of the way there and back."""
        height, width = frame.shape
        both = np.concatenate([query, guess])
        low = ((both.min(axis=0) - MARGIN) // 2 * 2).clip(0).astype(int)
        left, top = low
        right, bottom = np.minimum(both.max(axis=0) + MARGIN, (width, height)).astype(int)
        anchor, frame = anchor[top:bottom, left:right], frame[top:bottom, left:right]
        shift = low.astype(np.float32)
        matched, is_matched = self._flow(anchor, frame, query - shift, guess=guess - shift, levels=_LEVELS)
        returned, is_returned = self._flow(frame, anchor, matched, guess=query - shift, levels=_LEVELS)
        error = np.where(is_matched & is_returned, np.linalg.norm(returned - (query - shift), axis=1), np.inf)
        return matched + shift, error

    def _patches(self, frame: np.ndarray, xy: np.ndarray) -> np.ndarray:
        """Patches (N, P, P) around points, with mean 0 and length 1; zeros for even ones."""
        import cv2

        side = np.arange(self.settings.patch, dtype=np.float32) - (self.settings.patch - 1) / 2
        x = np.broadcast_to(xy[:, 0, None, None] + side, (len(xy), len(side), len(side))).astype(np.float32)
        y = np.broadcast_to(xy[:, 1, None, None] + side[:, None], x.shape).astype(np.float32)
        rows = max(1, 32000 // len(side))  # cv2.remap takes at most 32767 rows
        parts = [
            cv2.remap(
                frame,
                x[at : at + rows].reshape(-1, len(side)),
                y[at : at + rows].reshape(-1, len(side)),
                cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_REPLICATE,
            )
            for at in range(0, len(xy), rows)
        ]
        values = np.concatenate(parts).reshape(x.shape).astype(np.float32)
        values -= values.mean(axis=(1, 2), keepdims=True)
        length = np.sqrt((values**2).sum(axis=(1, 2), keepdims=True))
        return np.asarray(np.divide(values, length, out=np.zeros_like(values), where=length > 1e-6))
