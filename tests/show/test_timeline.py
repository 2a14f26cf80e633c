"""Timelines place bars at their times."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from show_fakes import read_image

from actionprep.errors import UserError
from actionprep.show.text import broken, text_width
from actionprep.show.timeline import Bar, TimelineRow, draw_timeline, fitting_images, lanes_of

RED, BLUE = (220, 40, 40), (40, 60, 220)
COLORS = {"sit": RED, "rise": BLUE}


def columns_of(image: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    """Return the columns with much of this color: bars, not legend symbols."""
    same = (np.abs(image.astype(int) - color).max(axis=2) <= 2)[:-60]
    return np.flatnonzero(same.sum(axis=0) >= 10)


def test_bars_lie_at_their_times(tmp_path: Path) -> None:
    rows = [TimelineRow("segments", (Bar(2.0, 4.0, "sit"), Bar(4.0, 8.0, "rise")))]
    path = draw_timeline(rows, (2.0, 12.0), tmp_path / "t.png", colors=COLORS)
    image = read_image(path)
    red, blue = columns_of(image, RED), columns_of(image, BLUE)
    scale = (red.max() - red.min()) / 2.0
    assert red.max() < blue.min()
    assert (blue.max() - blue.min()) / 4.0 == pytest.approx(scale, rel=0.02)
    assert blue.min() - red.min() == pytest.approx(2 * scale, rel=0.02)


def test_bars_are_cut_at_the_span(tmp_path: Path) -> None:
    rows = [TimelineRow("segments", (Bar(-5.0, 1.0, "sit"), Bar(1.0, 99.0, "rise"), Bar(200.0, 201.0, "sit")))]
    image = read_image(draw_timeline(rows, (0.0, 2.0), tmp_path / "t.png", colors=COLORS))
    red, blue = columns_of(image, RED), columns_of(image, BLUE)
    assert len(red) == pytest.approx(len(blue), rel=0.03)


def test_a_low_score_is_fainter(tmp_path: Path) -> None:
    result = []
    for score in (1.0, 0.4):
        rows = [TimelineRow("prediction", (Bar(0.0, 1.0, "sit", score),))]
        image = read_image(draw_timeline(rows, (0.0, 1.0), tmp_path / "t.png", colors=COLORS))
        result.append(len(columns_of(image, RED)))
    assert result[0] > 1000
    assert result[1] == 0


def test_ignored_windows_have_no_color(tmp_path: Path) -> None:
    rows = [TimelineRow("snippets", (Bar(0.0, 1.0, "sit", ignored=True),))]
    image = read_image(draw_timeline(rows, (0.0, 1.0), tmp_path / "t.png", colors=COLORS))
    assert len(columns_of(image, RED)) == 0


def test_timeline_images_are_above_their_times(tmp_path: Path) -> None:
    rows = [TimelineRow("segments", (Bar(0.0, 10.0, "sit"),))]
    green = np.full((60, 80, 3), (10, 200, 30), np.uint8)
    images = [(2.5, green), (7.5, green)]
    image = read_image(draw_timeline(rows, (0.0, 10.0), tmp_path / "t.png", colors=COLORS, images=images))
    red = columns_of(image, RED)
    there = np.isin(np.arange(image.shape[1]), columns_of(image, (10, 200, 30)))
    edges = np.flatnonzero(np.diff(there.astype(int)))
    middles = (edges[0::2] + edges[1::2]) / 2
    expected = red.min() + np.array([0.25, 0.75]) * (red.max() - red.min())
    assert np.allclose(middles, expected, atol=4)


def test_labels_of_any_kind_are_drawn(tmp_path: Path) -> None:
    labels = ["$x^", "a_b {", "日本", "", "ümläut", "%s", "\\frac", "x" * 300]
    bars = tuple(Bar(at, at + 1.0, label) for at, label in enumerate(labels))
    path = draw_timeline([TimelineRow("$rec_", bars)], (0, 8), tmp_path / "t.png", title="$t_{", details=["$d"])
    assert read_image(path).shape[1] == 1800


def test_charts_are_written_as_vectors_too(tmp_path: Path) -> None:
    rows = [TimelineRow("segments", (Bar(0.0, 1.0, "sit"),))]
    assert b"<svg" in draw_timeline(rows, (0, 1), tmp_path / "t.svg").read_bytes()


def test_draw_timeline_lists_short_bars_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    monkeypatch.setattr("actionprep.show.timeline._write_notes", lambda figure, notes, *_: written.extend(notes))
    bars = (
        Bar(0.0, 50.0, "sit"),
        Bar(50.0, 50.2, "rise"),
        Bar(60.0, 60.1, "sit", ignored=True),
        Bar(120.0, 121.0, "rise"),
    )
    draw_timeline([TimelineRow("segments", bars)], (0.0, 100.0), tmp_path / "t.svg", colors=COLORS)
    assert written == ["Short: rise 50.00–50.20 s"]
    written.clear()
    draw_timeline([TimelineRow("segments", bars[:1])], (0.0, 100.0), tmp_path / "t.svg", colors=COLORS)
    assert written == []


def test_a_timeline_needs_rows_a_span_and_an_ending(tmp_path: Path) -> None:
    rows = [TimelineRow("segments", (Bar(0.0, 1.0, "sit"),))]
    with pytest.raises(UserError, match=r"needs at least one row and a time interval that is not empty; got \(1, 1\)"):
        draw_timeline(rows, (1, 1), tmp_path / "t.png")
    with pytest.raises(UserError, match="at least one row"):
        draw_timeline([], (0, 1), tmp_path / "t.png")
    with pytest.raises(UserError, match=r"written as \.png, \.svg or \.pdf files; got t\.bmp"):
        draw_timeline(rows, (0, 1), tmp_path / "t.bmp")


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 12)), max_size=14))
def test_bars_of_a_lane_never_overlap_and_lanes_are_as_few_as_can_be(found: list[tuple[int, int]]) -> None:
    bars = [Bar(onset, onset + length, "x") for onset, length in found]
    lanes = lanes_of(bars)
    for at, bar in enumerate(bars):
        for other in range(at):
            if lanes[other] == lanes[at]:
                assert bars[other].offset <= bar.onset or bar.offset <= bars[other].onset
    most = max((sum(bar.onset <= time < bar.offset for bar in bars) for time in range(45)), default=0)
    assert max(lanes, default=-1) + 1 == most


@given(st.floats(0.4, 3), st.floats(0.1, 100))
def test_timeline_images_that_fit_are_inside_the_span(aspect: float, length: float) -> None:
    times = fitting_images(aspect, (5.0, 5.0 + length))
    assert 1 <= len(times) <= 16
    assert 5.0 < times.min() <= times.max() < 5.0 + length


def test_a_long_line_under_the_title_is_broken_and_nothing_of_it_is_lost(tmp_path: Path) -> None:
    rows = [TimelineRow("segments", (Bar(0.0, 1.0, "sit"),))]
    long = "20 snippets: " + ", ".join(f"a label of some length {number}" for number in range(12))
    short = read_image(draw_timeline(rows, (0.0, 1.0), tmp_path / "s.png", title="t", details=["one line"]))
    broad = read_image(draw_timeline(rows, (0.0, 1.0), tmp_path / "l.png", title="t", details=[long]))
    assert broad.shape[0] > short.shape[0]
    assert (broad[:, -20:] == 255).all()
    lines = broken(long, 1700, 19)
    assert " ".join(lines) == long
    assert all(text_width(line, 19) <= 1700 for line in lines)
