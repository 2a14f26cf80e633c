"""A catalog without empty tables."""

from __future__ import annotations

import pytest
from study_fakes import view

from actionprep.datasets.alignment import MeasuredAlignment
from actionprep.datasets.catalog import Catalog
from actionprep.datasets.findings import Finding
from actionprep.datasets.recordings import Recording, View
from actionprep.datasets.segments import Segment


@pytest.fixture
def full() -> Catalog:
    return Catalog(
        (
            Recording("day1/seq_04", "anna", "s1", None, "train", {"trial": "3", "note": "ünïcode"}),
            Recording("day1/seq_05.take2", label="wave"),
        ),
        (
            view("day1/seq_04", "0", offset=1.5, drift=20.0, warnings=("odd",), header_frames=250),
            view("day1/seq_04", "left", seconds=3.0, rotation=90),
            View("day1/seq_05.take2", "0", "videos/x.mp4", status="unreadable", reason="it is empty"),
        ),
        {"day1/seq_04": (Segment(0.1, 0.25, "wave", "hands", "ann"), Segment(1.0, 2.0, "clap"))},
        (Finding("unreadable video", "videos/x.mp4", "it is empty"),),
        MeasuredAlignment(0.05, {"day1/seq_04": (("0", "left"),)}),
    )
