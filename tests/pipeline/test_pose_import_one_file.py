"""One pose file without placeholders in a study of several recordings or views."""

from __future__ import annotations

import numpy as np
import pytest
from pose_items import made_poses, write_npz
from recordings import FRAMES, HEIGHT, WIDTH, video_study
from typer.testing import CliRunner

from actionprep.api import import_poses
from actionprep.cli.prep import app
from actionprep.errors import UserError


def poses_file(path, seed=3):
    poses = made_poses(FRAMES, 2, image_size=(HEIGHT, WIDTH), seed=seed)
    return write_npz(path, poses), poses


MESSAGE = (
    r"take\.npz has poses of one recording, 'take', and 2 views of this study would get them\. Name the recording with "
    r"--recording, or put \{recording\} and \{view\} into the path, such as 'poses/\{recording\}/\{view\}\.csv'\."
)


@pytest.mark.parametrize("sizes", [{"recordings": ("a", "b")}, {"views": ("0", "1")}])
def test_import_one_file_for_many_is_refused(tmp_path, sizes):
    video_study(tmp_path, **sizes)
    path, _ = poses_file(tmp_path / "take.npz")
    before = (tmp_path / "actionprep.toml").read_bytes()
    with pytest.raises(UserError, match=MESSAGE):
        import_poses(tmp_path, [path])
    assert (tmp_path / "actionprep.toml").read_bytes() == before


def test_import_file_per_recording_for_two_views_is_refused(tmp_path):
    video_study(tmp_path, views=("0", "1"))
    poses_file(tmp_path / "poses" / "a.npz")
    with pytest.raises(UserError, match=r"has poses of one recording, 'a', and 2 views of this study would get them"):
        import_poses(tmp_path, [tmp_path / "poses" / "{recording}.npz"])


def test_import_one_file_named_by_option(tmp_path):
    study = video_study(tmp_path, recordings=("a", "b"))
    path, poses = poses_file(tmp_path / "take.npz")
    words = ["import", "pose-npz", str(path), "--study", str(tmp_path), "--recording", "b"]
    assert CliRunner().invoke(app, words, catch_exceptions=False).exit_code == 0
    assert [str(key) for key in study.store.items("pose")] == ["pose/b/0"]
    assert np.allclose(study.poses("b", view=0).keypoints, poses.keypoints)
    assert "take.npz" not in (tmp_path / "actionprep.toml").read_text()


def test_import_one_file_that_names_its_recording(tmp_path):
    study = video_study(tmp_path, recordings=("a", "b"))
    path, poses = poses_file(tmp_path / "b.npz")
    assert [str(key) for key in import_poses(tmp_path, [path]).report.built] == ["pose/b/0"]
    assert np.allclose(study.poses("b", view=0).keypoints, poses.keypoints)


def test_import_recording_of_a_skeleton_data_set_is_refused(tmp_path):
    path, _ = poses_file(tmp_path / "a.npz")
    with pytest.raises(UserError, match=r"--recording names a recording of a study of videos, and .* is no study"):
        import_poses(tmp_path / "new", [path], recording="a")


@pytest.mark.parametrize(
    ("name", "text", "format"),
    [
        ("day.csv", "Recording;Onset;Offset;Label\na;1;2;wave\n", "csv"),
        ("day.json", '{"database": {"a": {"annotations": [{"segment": [0, 1], "label": "b"}]}}}', "activitynet"),
    ],
)
def test_import_of_annotations_names_their_setting(tmp_path, name, text, format):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        import_poses(tmp_path / "new", [path])
    message = str(caught.value)
    assert message.startswith(f"{path} has annotations ({format}: ")
    assert f'[study] segments = "{path}"' in message
    assert not (tmp_path / "new").exists()
