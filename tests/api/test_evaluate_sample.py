"""Stored poses, masks and tracks of a sample study, scored against its truth."""

from __future__ import annotations

from pathlib import Path

import pytest
from prep_commands import document

from actionprep.api import Study, import_poses
from actionprep.api.evaluate import check_tracks, evaluate_masks, evaluate_poses, evaluate_tracks
from actionprep.api.new_study import make_study
from actionprep.errors import UserError
from actionprep.sample import make_sample_study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("sample")
    make_sample_study(folder, recordings=1, views=1, workers=0)
    make_study(folder, {"videos": "videos", "pattern": "{recording}/cam{view}.mp4"})
    import_poses(folder, [folder / "truth/openpose/{recording}/cam{view}"])
    from actionprep.api import open_study

    made = open_study(folder)
    assert made.build("pose", "tracks").ok
    return made


def test_evaluate_poses_true_joints_of_a_sample_study(study: Study):
    scores = evaluate_poses(study.root)
    assert scores.pck[0.05] == 1.0
    assert scores.coco["AP"] == pytest.approx(1.0)
    assert scores.num_people == len(study.poses("take_000", view="0").time)


def test_evaluate_masks_motion_of_a_sample_study(study: Study):
    [(name, scores)] = evaluate_masks(study.root).items()
    assert name == "take_000/0"
    assert 0.3 < scores.j_mean < 1
    assert scores.num_frames == study.catalog.view("take_000", "0").num_frames


def test_evaluate_tracks_sample_study(study: Study):
    scores = evaluate_tracks(study.root, views=[0])["take_000/0"]
    assert scores.num_points > 10
    assert 0.5 < scores.delta_average < 1


def test_check_tracks_stored_tracks(study: Study):
    result = check_tracks(study)["take_000/0"]
    assert 0.3 < result.survival <= result.visible <= 1
    assert result.forward_backward < 4
    assert document(study, "evaluate", "tracks")["views"]["take_000/0"]["num_points"] == result.num_points


@pytest.mark.parametrize("score", [evaluate_poses, evaluate_masks])
def test_evaluate_without_predictions_needs_a_sample_study(tmp_path: Path, score):
    with pytest.raises(UserError, match=r"is not a sample study\. Name the predictions too"):
        score(tmp_path)
