"""Point trackers, one file for each family."""

from actionprep.pipeline.trackers.tracker import TRACKERS, PointTracker, PointTracks

__all__ = ["TRACKERS", "PointTracker", "PointTracks"]
