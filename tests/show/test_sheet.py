"""Sheets place images and captions without overlap."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actionprep.datasets.label_colors import label_colors, oklch
from actionprep.show.colors import LIGHT, point_colors, text_on
from actionprep.show.sheet import GAP, MARGIN, Mark, Tile, columns_for, draw_contact_sheet, row_height, wrapped
from actionprep.show.text import fitted, put_text, text_width


def find(canvas: np.ndarray, color: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Return the box x0, y0, x1, y1 of all pixels of a color."""
    y, x = np.nonzero((canvas == np.array(color, np.uint8)).all(axis=2))
    return int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1


def test_sheet_places_images_in_rows_with_even_gaps() -> None:
    colors = [[(200, 0, 0), (0, 200, 0), (0, 0, 200)], [(200, 200, 0), (0, 200, 200), (200, 0, 200)]]
    widths = (220, 140, 300)
    rows = [
        [Tile((90, width), np.full((90, width, 3), color, np.uint8)) for width, color in zip(widths, row, strict=True)]
        for row in colors
    ]
    canvas = draw_contact_sheet(rows, title="t")
    boxes = [[find(canvas, color) for color in row] for row in colors]
    for row in boxes:
        assert row[0][0] == MARGIN
        assert [after[0] - before[2] for before, after in pairwise(row)] == [GAP, GAP]
        assert row[-1][2] == canvas.shape[1] - MARGIN
        assert {box[3] - box[1] for box in row} == {90}
    assert boxes[1][0][1] > boxes[0][0][3] + GAP


def test_sheet_captions_are_below_their_image_without_overlap() -> None:
    tile = Tile(
        (60, 120), np.zeros((60, 120, 3), np.uint8), name="cam0", caption="1.233 s", remark="far too long a remark"
    )
    blank = Tile((60, 120), np.zeros((60, 120, 3), np.uint8))
    canvas = draw_contact_sheet([[tile, blank, blank, blank]], title="t")
    _, _, _, below = find(canvas, (0, 0, 0))
    written = (canvas[below : below + 24] != LIGHT.ground).any(axis=(0, 2))
    assert written[MARGIN : MARGIN + 120].any()
    assert not written[MARGIN + 120 :].any()


def test_sheet_states_the_reason_for_an_empty_cell() -> None:
    tile = Tile((60, 300), None, reason="no frame at 1.000 s")
    canvas = draw_contact_sheet([[tile, tile]], title="t")
    x0, y0, x1, y1 = find(canvas, LIGHT.empty)
    assert (x1 - x0, y1 - y0) == (600 + GAP, 60)
    assert (canvas[y0:y1, x0 : x0 + 300].min(axis=2) < 160).any()


def test_a_legend_stands_at_the_end() -> None:
    tile = Tile((60, 500), np.zeros((60, 500, 3), np.uint8))
    color = (12, 134, 56)
    plain = draw_contact_sheet([[tile]], title="t")
    canvas = draw_contact_sheet([[tile]], title="t", legend=[Mark("square", color, "foreground")])
    assert canvas.shape[0] > plain.shape[0]
    assert find(canvas, color)[1] > find(canvas, (0, 0, 0))[3]


@given(st.lists(st.floats(0.3, 3), min_size=1, max_size=8), st.integers(400, 2000))
def test_a_row_is_no_wider_than_its_room(aspects: list[float], width: int) -> None:
    height = row_height(aspects, width, low=1)
    assert sum(height * aspect for aspect in aspects) + GAP * (len(aspects) - 1) <= width + 1e-6


@given(st.integers(1, 100), st.integers(1, 20))
def test_rows_are_about_equally_full(count: int, most: int) -> None:
    columns = columns_for(count, most)
    assert columns <= most
    num_rows = -(-count // columns)
    assert num_rows == -(-count // most)
    assert columns * num_rows - count < num_rows


@given(st.lists(st.text(min_size=1, max_size=40), min_size=1, max_size=8), st.integers(60, 800))
def test_lines_of_phrases_fit(phrases: list[str], width: int) -> None:
    assert all(text_width(line, 16) <= width for line in wrapped(phrases, width, 16) if line)


def test_long_texts_are_shortened_in_the_middle() -> None:
    short = fitted("recordings/kitchen/take_0001_camera_left", 150, 16)
    assert "…" in short
    assert short.startswith("rec")
    assert short.endswith("left")
    assert text_width(short, 16) <= 150
    assert fitted("kitchen", 150, 16) == "kitchen"
    assert fitted("kitchen", 2, 16) == ""


@pytest.mark.parametrize(("anchor", "low", "high"), [("left", 100, 200), ("middle", 50, 150), ("right", 0, 100)])
def test_text_is_anchored(anchor: str, low: int, high: int) -> None:
    canvas = np.zeros((40, 200, 3), np.uint8)
    put_text(canvas, "wave", (100, 20), size=16, color=(255, 255, 255), anchor=anchor)
    columns = np.flatnonzero(canvas.any(axis=(0, 2)))
    assert low <= columns.min() <= columns.max() < high
    rows = np.flatnonzero(canvas.any(axis=(1, 2)))
    assert abs(rows.mean() - 20) < 4


def test_text_beyond_the_edge_is_cut_off() -> None:
    canvas = np.zeros((10, 10, 3), np.uint8)
    put_text(canvas, "wave", (-5, 0), size=16, color=(255, 255, 255), halo=(9, 9, 9))
    put_text(canvas, "wave", (500, 500), size=16, color=(255, 255, 255))


def test_labels_keep_their_color_whatever_their_order() -> None:
    labels = [f"action {number}" for number in range(30)]
    colors = label_colors(labels)
    assert colors == label_colors(reversed(labels))
    assert len(set(colors.values())) == 31
    with_more = label_colors(labels, others=["added", labels[0]])
    assert {label: with_more[label] for label in labels} == {label: colors[label] for label in labels}
    assert with_more["added"] not in colors.values()
    assert label_colors(["wave", "nothing"], nothing=["nothing"])["nothing"] == colors[""]


def test_points_on_opposite_sides_have_different_hues_and_all_are_vivid() -> None:
    turns = np.radians(np.arange(0, 360, 45))
    colors = point_colors(np.stack([np.cos(turns), np.sin(turns)], axis=1)).astype(int)
    assert (np.ptp(colors, axis=1) > 110).all()
    assert (np.abs(colors - np.roll(colors, 4, axis=0)).max(axis=1) > 90).all()
    gray = point_colors(np.array([[np.nan, 0.0], [1.0, 1.0]]))[0]
    assert np.ptp(gray.astype(int)) < 20


def test_oklch_gives_known_colors() -> None:
    assert oklch(1.0, 0.0, 0.0) == (255, 255, 255)
    assert oklch(0.0, 0.0, 0.0) == (0, 0, 0)
    # A gray's lightness is the cube root of its linear value: 127 of 255 is 0.2122 in linear light.
    assert oklch(0.2122 ** (1 / 3), 0.0, 0.0) == (127, 127, 127)
    # sRGB red has the OKLCH coordinates 0.628, 0.2577, 29.23 (Ottosson 2020); on the edge of the sRGB gamut.
    assert np.allclose(oklch(0.628, 0.2577, 29.23), (255, 0, 0), atol=30)


@given(st.tuples(*[st.integers(0, 255)] * 3))
def test_text_on_a_color_can_be_read(color: tuple[int, int, int]) -> None:
    def luminance(one: tuple[int, int, int]) -> float:
        linear = [((v / 255 + 0.055) / 1.055) ** 2.4 if v > 10 else v / 255 / 12.92 for v in one]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    light, dark = sorted((luminance(color), luminance(text_on(color))), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 3


def test_legend_entries_have_samples_and_spacing() -> None:
    marks = [Mark("tag", (230, 30, 40), "number and score", "0  0.65"), Mark("square", (0, 168, 150), "foreground")]
    canvas = draw_contact_sheet([[Tile((60, 600), None)]], title="t", legend=marks)
    tag, square = find(canvas, (230, 30, 40)), find(canvas, (0, 168, 150))
    assert tag[2] - tag[0] >= text_width("0  0.65", 14, bold=True)
    assert square[0] > tag[2] + text_width("number and score", 16)
