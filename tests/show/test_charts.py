"""Counts above the bars of segment and snippet charts match the drawn data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from show_fakes import make_study

from actionprep.api import open_study
from actionprep.datasets.catalog import Catalog
from actionprep.datasets.products.snippets import IGNORED, SnippetTable, write_snippets
from actionprep.datasets.recordings import Recording
from actionprep.datasets.segments import Segment
from actionprep.show import charts, show_item

TAKE, OTHER = "kitchen/take.1", "yard"
SEGMENTS = (Segment(0.0, 0.4, "sit"), Segment(0.5, 0.9, "sit"), Segment(1.5, 1.9, "rise"))
RULE = "snippets/default  ·  windows of 500 ms  ·  label from temporal IoU ≥ 0.5"


def seven_windows() -> SnippetTable:
    """Return four windows of one recording, the second ignored, and three of another, the second and third ignored."""
    label = np.array([1, IGNORED, 1, 0, 1, IGNORED, IGNORED], np.int32)
    target = (label[:, None] == np.arange(2)).astype(np.uint8)
    onset = np.array([0, 0.5, 1, 1.5, 0, 0.5, 1])
    overlaps = target.astype(np.float32)
    return SnippetTable(
        recording=np.array([0] * 4 + [1] * 3, np.int32),
        onset=onset,
        offset=onset + 0.5,
        label=label,
        target=target,
        coverage=overlaps,
        iou=overlaps,
        segment_share=overlaps,
        labels=("rise", "sit"),
        recordings=(TAKE, OTHER),
        subjects=("", ""),
        sessions=("", ""),
        splits=("", ""),
        settings={"length_s": 0.5, "stride_s": 0.5, "rule": "iou", "threshold": 0.5},
    )


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Return a function that draws a chart of two recordings with seven windows, three ignored, and returns its lines."""
    study = make_study(tmp_path / "study", segments=SEGMENTS)
    catalog = study.catalog
    recordings = (*catalog.recordings, Recording(OTHER))
    segments = {TAKE: SEGMENTS, OTHER: (Segment(0.0, 1.0, "rise"),)}
    Catalog(recordings, catalog.views, segments).write(tmp_path / "study" / "catalog")
    study = open_study(tmp_path / "study")
    with study.store.write("snippets", "default", fingerprint="f", provenance={}) as item:
        write_snippets(seven_windows(), item)
    lines: list[list[str]] = []

    def drawn(rows: object, span: object, path: Path, *, details: list[str], **_: object) -> Path:
        lines.append(details)
        return path

    monkeypatch.setattr(charts, "draw_timeline", drawn)

    def draw(*what: str, **options: float) -> list[str]:
        show_item(study, *what, out=tmp_path / "chart.png", **options)
        return lines[-1]

    return draw


def test_ignored_windows_are_counted_in_the_recording_that_is_drawn(written: Callable[..., list[str]]) -> None:
    assert written("snippets", TAKE) == [f"{RULE}  ·  1 ignored (hatched)"]
    assert written("snippets", OTHER) == [f"{RULE}  ·  2 ignored (hatched)"]


def test_ignored_windows_are_counted_in_the_time_that_is_drawn(written: Callable[..., list[str]]) -> None:
    assert written("snippets", TAKE, start=1.0, stop=2.0) == [RULE]
    assert written("snippets", OTHER, start=1.0, stop=1.5) == [f"{RULE}  ·  1 ignored (hatched)"]


def test_segments_are_counted_in_the_time_that_is_drawn(written: Callable[..., list[str]]) -> None:
    assert written("segments", TAKE) == ["3 segments: sit 2, rise 1"]
    assert written("segments", TAKE, start=1.0, stop=2.0) == ["1 segment: rise 1"]
    assert written("segments", TAKE, start=1.0, stop=1.2) == ["0 segments"]


def test_an_overview_counts_the_recordings_that_it_draws(
    written: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert written("snippets") == [f"{RULE}  ·  3 ignored (hatched)", "4 snippets: sit 3, rise 1"]
    monkeypatch.setattr(charts, "_MOST_RECORDINGS", 1)
    first, counts, more = written("snippets")
    assert first == f"{RULE}  ·  1 ignored (hatched)"
    assert counts == "3 snippets: sit 2, rise 1"
    assert more == "the first 1 of 2 recordings; name one to draw it alone"
