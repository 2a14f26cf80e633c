"""Which videos are one recording, and what it is called."""

from __future__ import annotations

from pathlib import Path

import pytest

from actionprep.api import group_videos, recording_name
from actionprep.errors import UserError


def video(path: Path) -> Path:
    """A file that is there: grouping looks at names alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


@pytest.mark.parametrize(
    ("paths", "name"),
    [
        (["clips/wave.mp4"], "wave"),
        (["take_000/cam0.mp4", "take_000/cam1.mp4"], "take_000"),
        (["cam0/take 3.mp4", "cam1/take 3.mp4"], "take 3"),
        (["all/take_01_cam0.mp4", "all/take_01_cam1.mp4"], "take_01"),
        (["a/left.mp4", "b/right.mp4"], "left"),
        (["clips/.hidden.mp4"], "hidden"),
        (["clips/__x.mp4"], "x"),
    ],
)
def test_videos_of_one_recording_are_called_by_what_they_share(paths, name):
    assert recording_name([Path(path) for path in paths]) == name


def test_folders_are_recordings_of_a_run_of_several_views(tmp_path, monkeypatch):
    monkeypatch.setattr("actionprep.training.predict.open_models", lambda run, device: ())
    monkeypatch.setattr("actionprep.training.predict.views_of", lambda models: ("0", "1"))
    given = [[video(tmp_path / f"{take}/cam{view}.avi") for view in (1, 0)] for take in ("one", "two")]
    found = group_videos("run", [tmp_path / "one", tmp_path / "two"])
    assert found == {take: [str(tmp_path / take / f"cam{view}.avi") for view in (0, 1)] for take in ("one", "two")}
    assert group_videos("run", given[0]) == {"one": [str(path) for path in given[0]]}
    with pytest.raises(UserError, match="This model looks at 2 views, and got files and folders"):
        group_videos("run", [tmp_path / "one", given[1][0]])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"No videos in .*empty: looked there for \.3gp"):
        group_videos("run", [tmp_path / "empty"])
