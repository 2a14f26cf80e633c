"""Base class and registry of point trackers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from actionprep.registry import Entry, Registry

if TYPE_CHECKING:
    from actionprep.pipeline.trackers.settings import TracksSettings

VisibleRule = Literal["visibility", "visibility*confidence"]


@dataclass(frozen=True, slots=True)
class PointTracks:
    """Raw output of a tracker for consecutive frames.

    Attributes:
        xy: Positions (x, y) in pixels of the input frames, float32 of shape (T, N, 2). The center of the top left pixel is
            (0, 0).
        visibility: Visibility in [0, 1], float32 of shape (T, N). It is 1 in the frame of the query, where `xy` is the
            query.
        confidence: Confidence in [0, 1], float32 of shape (T, N). It is 1 in the frame of the query.
    """

    xy: np.ndarray
    visibility: np.ndarray
    confidence: np.ndarray


class PointTracker(ABC):
    """Base class of point trackers.

    Attributes:
        needs: Format of the frames: "gray" (H, W) or "rgb" (H, W, 3), uint8.
        visible_rule: Value that is compared with `visible_above` to decide whether a point is visible, as the authors of
            the tracker do. The threshold is applied on read, never before storing.
        visible_above: Threshold of `visible_rule`.
    """

    needs: ClassVar[Literal["gray", "rgb"]]
    visible_rule: ClassVar[VisibleRule] = "visibility"
    visible_above: ClassVar[float] = 0.5

    def __init__(self, settings: TracksSettings) -> None:
        self.settings = settings

    @classmethod
    @abstractmethod
    def identity(cls, settings: TracksSettings) -> dict[str, str]:
        """Return the backend, its version and the hash of its weights; raises SetupError if one of them is missing."""

    @classmethod
    def is_available(cls, settings: TracksSettings) -> bool:
        """Return whether the tracker can run without downloading anything."""
        return True

    @abstractmethod
    def track(self, frames: Sequence[np.ndarray], queries: np.ndarray, *, both_ways: bool) -> PointTracks:
        """Track each query from its frame to the last frame.

        Args:
            frames: T frames of one size; see `needs`.
            queries: Start of each point as (t, x, y): frame index in [0, T) and position in pixels, shape (N, 3).
            both_ways: Also track each query back to the first frame. Otherwise a point keeps its start position before
                its query, with visibility and confidence 0.

        Returns:
            The tracks.
        """


TRACKERS: Registry[type[PointTracker]] = Registry(
    "point tracker",
    "actionprep.trackers",
    (
        Entry("lk", "actionprep.pipeline.trackers.lk:LucasKanade"),
        Entry("lk_anchored", "actionprep.pipeline.trackers.lk_anchored:AnchoredLucasKanade"),
        Entry("dis", "actionprep.pipeline.trackers.dis:DenseFlow"),
        Entry("cotracker3_offline", "actionprep.pipeline.trackers.cotracker:CoTracker3Offline"),
        Entry("cotracker3_online", "actionprep.pipeline.trackers.cotracker:CoTracker3Online"),
        Entry("cotracker2", "actionprep.pipeline.trackers.cotracker:CoTracker2"),
        Entry("tapnextpp", "actionprep.pipeline.trackers.tapnext:TapNextPlusPlus"),
    ),
    plural="Trackers",
    subclass_of="actionprep.pipeline.trackers.tracker:PointTracker",
)
"""Point trackers by name, as in `tracks.tracker` and `--tracker`."""
