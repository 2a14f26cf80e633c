"""Tables of points to track."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from actionprep.datasets.query_points import EACH_WINDOW, QueryPoints, read_query_points
from actionprep.errors import ActionprepError, InputError, UserError

TIMES = np.arange(10) / 5


def read(path: Path, recording: str = "a", view: str = "0") -> QueryPoints:
    return read_query_points(path, recording=recording, view=view, times=TIMES, width=64, height=48)


def table(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "points.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_points_of_all_and_of_named_views(tmp_path: Path) -> None:
    path = table(tmp_path, "recording,view,x,y,frame,time\n,,1,2,,\na,0,3.5,4,7,\na,1,9,9,,\nb,,8,8,,0.61\n")
    points = read(path)
    assert points.xy.tolist() == [[1, 2], [3.5, 4]]
    assert points.frame.tolist() == [EACH_WINDOW, 7]
    other = read(path, "b", "1")
    assert other.xy.tolist() == [[1, 2], [8, 8]]
    assert other.frame.tolist() == [EACH_WINDOW, 3]
    assert points.facts() != other.facts()


def test_points_with_decimal_commas_and_capitals(tmp_path: Path) -> None:
    assert read(table(tmp_path, "X;Y\n1,5;2\n")).xy.tolist() == [[1.5, 2.0]]


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("x,y\n64,3\n", InputError, "Line 2 of {}: the point (64, 3) is outside of the image of 64x48 pixels of recording 'a', view 0. x is from -0.5 to 63.5, y from -0.5 to 47.5."),
        ("x,y\nnan,3\n", UserError, "Line 2 of {}: x is 'nan'; expected a number of pixels."),
        ("x,y,frame\n1,1,10\n", InputError, "Line 2 of {}: the frame is '10'; expected a number from 0 to 9."),
        ("x,y,time\n1,1,2.5\n", InputError, "Line 2 of {}: no frame is at 2.5 s; the video is from 0 to 1.8 s."),
        ("x,y,frame,time\n1,1,1,0.2\n", UserError, "Line 2 of {} has a frame and a time. Give one of them."),
        ("x,y\n", UserError, "The table of points {} has no row."),
    ],
)  # fmt: skip
def test_points_that_cannot_be_used_name_their_line(
    tmp_path: Path, text: str, kind: type[ActionprepError], message: str
) -> None:
    path = table(tmp_path, text)
    with pytest.raises(kind) as caught:
        read(path)
    assert str(caught.value) == message.format(path)


def test_missing_table_of_points_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Cannot read the points .*none.csv: No such file.* named by tracks.points"):
        read(tmp_path / "none.csv")
