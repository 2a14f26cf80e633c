"""A rendered multi-view sample study with exact truth, for demonstrations and tests."""

from __future__ import annotations

from actionprep.sample.study import make_sample_study
from actionprep.sample.truth import SampleTruth, TrueJoints, TrueSegment, TrueTracks

__all__ = ["SampleTruth", "TrueJoints", "TrueSegment", "TrueTracks", "make_sample_study"]
