"""Point trackers, one module per family."""

from actionprep.pipeline.trackers.tracker import TRACKERS, PointTracker, PointTracks

__all__ = ["TRACKERS", "PointTracker", "PointTracks"]
