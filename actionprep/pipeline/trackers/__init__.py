"""Point trackers: each one file, each registered by name."""

from actionprep.pipeline.trackers import cotracker, lk
from actionprep.pipeline.trackers.tracker import TRACKERS, PointTracker, PointTracks, find_tracker, tracker

__all__ = ["TRACKERS", "PointTracker", "PointTracks", "cotracker", "find_tracker", "lk", "tracker"]
