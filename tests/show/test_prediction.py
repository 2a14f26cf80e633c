"""Predictions are drawn over the frames of their recording."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from show_fakes import decoded_frames, write_video

from actionprep.datasets.segments import Segment
from actionprep.errors import UserError
from actionprep.show.prediction import draw_prediction, predicted_row
from actionprep.show.timeline import Bar, TimelineRow

RED, BLUE = (220, 40, 40), (40, 60, 220)
COLORS = {"sit": RED, "rise": BLUE}
ROWS = [predicted_row([(Segment(5.0, 6.0, "sit"), 1.0), (Segment(6.0, 7.0, "rise"), 1.0)])]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("videos")
    return {"a": write_video(folder / "a.mp4", 20, 10), "b": write_video(folder / "b.mp4", 30, 15)}


@pytest.fixture(scope="module")
def times() -> dict[str, np.ndarray]:
    return {"a": 5 + np.arange(20) / 10, "b": 5 + np.arange(30) / 15}


def test_prediction_video_has_every_frame_with_its_label(
    videos: dict[str, Path], times: dict[str, np.ndarray], tmp_path: Path
) -> None:
    done: list[tuple[int, int]] = []
    path = draw_prediction(
        videos, ROWS, tmp_path / "p.mp4", times=times, title="t", colors=COLORS, progress=lambda *now: done.append(now)
    )
    frames, shown = decoded_frames(path)
    assert len(frames) == 30
    assert done[-1] == (30, 30)
    for frame, time in zip(frames, shown, strict=True):
        above = frame[:44].astype(int)
        red, blue = (int((np.abs(above - color).max(axis=2) < 30).sum()) for color in (RED, BLUE))
        assert (red > 300, blue > 300) == (time < 0.999, time >= 0.999)


def test_the_chart_has_bars_and_frames(videos: dict[str, Path], times: dict[str, np.ndarray], tmp_path: Path) -> None:
    path = draw_prediction(videos, ROWS, tmp_path / "p.png", times=times, colors=COLORS)
    image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    for color in (RED, BLUE):
        assert (image == color).all(axis=2).sum() > 10_000


def test_colors_are_chosen_when_not_given(videos: dict[str, Path], tmp_path: Path) -> None:
    rows = [TimelineRow("prediction", (Bar(0.0, 1.0, "sit"),))]
    assert draw_prediction({"a": videos["a"]}, rows, tmp_path / "p.svg").exists()


def test_a_prediction_needs_videos_rows_and_an_ending(videos: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"drawn as \.mp4, \.png, \.svg or \.pdf files; got p\.gif"):
        draw_prediction(videos, ROWS, tmp_path / "p.gif")
    with pytest.raises(UserError, match="at least one video and one row"):
        draw_prediction(videos, [], tmp_path / "p.mp4")
