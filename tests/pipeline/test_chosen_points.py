"""Tracks of points that a table names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from prep_commands import actionprep
from recordings import video_study
from stage_runs import patch_over_background, run_tracks

from actionprep.datasets.products.tracks import visible
from actionprep.errors import InputError, UserError
from actionprep.pipeline.trackers.settings import TracksSettings


def moving_square(num_frames: int = 24) -> np.ndarray:
    """A square of 30 px whose center moves 3 px per frame, from (19.5, 44.5)."""
    return patch_over_background(num_frames, 96, 160, size=30, start=(5, 30), step=(3, 0))


def chosen(tmp_path: Path, text: str, **changes: object) -> TracksSettings:
    (tmp_path / "points.csv").write_text(text)
    values = {"points": "points.csv", "seeding": "points", "window": 12, "stride": 12, **changes}
    return TracksSettings.read(values, where="[tracks]").at(tmp_path)


@pytest.mark.parametrize(("tracker", "tolerance"), [("lk", 0.3), ("dis", 1.5)])
def test_a_chosen_point_is_tracked_from_its_frame(tmp_path: Path, tracker: str, tolerance: float) -> None:
    item = run_tracks(moving_square(), chosen(tmp_path, "x,y,frame\n28.5,44.5,3\n", tracker=tracker))
    assert item["valid"][:].tolist() == [[True], [False]]
    xy = item["xy"][0][:, 0]
    assert xy[3] == pytest.approx([28.5, 44.5])
    expected = np.stack([19.5 + 3 * np.arange(12), np.full(12, 44.5)], axis=1)
    assert xy == pytest.approx(expected, abs=tolerance)
    assert np.isnan(item["xy"][1]).all()
    assert visible(item["visibility"][0], item["confidence"][0]).all()


def test_a_point_without_frame_starts_in_every_window(tmp_path: Path) -> None:
    item = run_tracks(moving_square(), chosen(tmp_path, "x,y\n40,44\n"))
    assert item["valid"][:].tolist() == [[True], [True]]
    for window, (seed, start) in enumerate(zip(item["seed"], item["start"], strict=True)):
        assert item["xy"][window][seed - start, 0] == pytest.approx([40, 44])


def test_chosen_points_come_after_the_grid(tmp_path: Path) -> None:
    plain = run_tracks(moving_square(), TracksSettings(grid=3, window=12, stride=12))
    both = run_tracks(moving_square(), chosen(tmp_path, "x,y\n40,44\n50,44\n", seeding="mask", grid=3))
    assert both["xy"].shape[2] == plain["xy"].shape[2] + 2
    for window in range(len(plain["start"])):
        num = int(plain["valid"][window].sum())
        assert int(both["valid"][window].sum()) == num + 2
        assert both["xy"][window][:, :num] == pytest.approx(plain["xy"][window][:, :num], abs=1e-4, nan_ok=True)
        seed = both["seed"][window] - both["start"][window]
        assert both["xy"][window][seed, num : num + 2] == pytest.approx(np.array([[40, 44], [50, 44]]))


def test_chosen_points_that_cannot_start_are_explained(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="seeding = points needs a table of points: set points, or --points FILE"):
        TracksSettings.read({"seeding": "points"}, where="[tracks]")
    with pytest.raises(
        InputError, match=r"has no point for recording 'kitchen/seq', view 0, and seeding = points takes no others"
    ):
        run_tracks(moving_square(), chosen(tmp_path, "recording,x,y\nother,1,1\n"))
    with pytest.raises(
        InputError, match=r"A point starts in frame 1 of .* which is not tracked at 5 frames per second"
    ):
        run_tracks(moving_square(), chosen(tmp_path, "x,y,frame\n1,1,1\n", rate=5.0))


def test_points_option_rebuilds_only_when_the_points_change(tmp_path: Path) -> None:
    study = video_study(tmp_path, recordings=["a", "b"])
    (tmp_path / "points.csv").write_text("recording,x,y\na,10,10\nb,12,12\n")
    words = ("track", "--seeding", "points", "--points", "points.csv", "--window", "8", "--workers", "0")
    assert actionprep(study, *words).exit_code == 0
    assert study.store.item("tracks", "a", "0")["xy"].shape[2] == 1
    assert "tracks      0" in actionprep(study, *words).stdout.replace("tracks       0", "tracks      0")
    (tmp_path / "points.csv").write_text("recording,x,y\na,10,10\nb,13,12\n")
    study.plan("tracks")
    plan = study.plan("tracks", overrides={"tracks": {"seeding": "points", "points": "points.csv", "window": 8}})
    assert {item.key.recording: item.action for item in plan.items} == {"a": "done", "b": "build"}
