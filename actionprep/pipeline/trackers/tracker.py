"""What a point tracker is, and the registry of all point trackers."""

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
    """Where points are in some consecutive frames, as raw as the tracker knows it.

    xy          (T, N, 2) float32  pixels of the frames given, (x, y), the center of the top left pixel is (0, 0)
    visibility  (T, N) float32     in [0, 1]; exactly 1 in the frame of the query, where xy is the query itself
    confidence  (T, N) float32     in [0, 1]; likewise
    """

    xy: np.ndarray
    visibility: np.ndarray
    confidence: np.ndarray


class PointTracker(ABC):
    """Follows points through the frames of one window.

    needs              what the frames must be: gray (H, W) or rgb (H, W, 3), uint8
    visible_rule       which figure is compared with `visible_above` to call a point visible, as the tracker's authors
    visible_above      do; thresholds are applied on read, never before storing
    """

    needs: ClassVar[Literal["gray", "rgb"]]
    visible_rule: ClassVar[VisibleRule] = "visibility"
    visible_above: ClassVar[float] = 0.5

    def __init__(self, settings: TracksSettings) -> None:
        self.settings = settings

    @classmethod
    @abstractmethod
    def identity(cls, settings: TracksSettings) -> dict[str, str]:
        """Backend, its version, hash of its weights; raises SetupError when one of them is missing."""

    @classmethod
    def is_at_hand(cls, settings: TracksSettings) -> bool:
        """Whether it can run now, without fetching anything."""
        return True

    @abstractmethod
    def track(self, frames: Sequence[np.ndarray], queries: np.ndarray, *, both_ways: bool) -> PointTracks:
        """Follow each query from its frame to the end and, if `both_ways`, to the beginning as well.

        frames   T pictures of one size, see `needs`
        queries  (N, 3) float (t, x, y): the frame in [0, T) and the pixel position where a point starts

        Before its query a point that is followed forward only stays where it starts, with visibility and confidence 0.
        """


TRACKERS: Registry[type[PointTracker]] = Registry(
    "point tracker",
    "actionprep.trackers",
    (
        Entry("lk", "actionprep.pipeline.trackers.lk:LucasKanade"),
        Entry("cotracker3_offline", "actionprep.pipeline.trackers.cotracker:CoTracker3Offline"),
        Entry("cotracker3_online", "actionprep.pipeline.trackers.cotracker:CoTracker3Online"),
        Entry("cotracker2", "actionprep.pipeline.trackers.cotracker:CoTracker2"),
    ),
    plural="Trackers",
    subclass_of="actionprep.pipeline.trackers.tracker:PointTracker",
)
"""Point trackers by the name that `tracks.tracker` and `--tracker` take."""
