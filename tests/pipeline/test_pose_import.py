"""Tests of importing existing poses with the stage `pose`."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from pose_items import made_poses, write_npz
from recordings import FRAMES, HEIGHT, WIDTH, video_study
from typer.testing import CliRunner

from actionprep.api import import_poses, open_study, settings_models
from actionprep.cli.prep import app
from actionprep.datasets.store.keys import ItemKey
from actionprep.datasets.study import StudySettings, init_study
from actionprep.errors import InputError, UserError
from actionprep.pipeline.pose import Pose

IMPORT = {"backend": "import", "files": "poses/{recording}/{view}.npz", "persons": None, "least_frames": 1}


def built_import(study, **changes):
    return study.build("pose", overrides={"pose": {**IMPORT, **changes}})


def view_poses(**changes):
    return made_poses(FRAMES, 2, image_size=(HEIGHT, WIDTH), **changes)


def test_imported_poses_are_stored_without_decoding_frames(tmp_path):
    study = video_study(tmp_path, views=("0", "1"))
    for view in ("0", "1"):
        write_npz(tmp_path / "poses" / "a" / f"{view}.npz", view_poses(seed=int(view)))
    report = built_import(study)
    assert report.ok
    assert report.num_frames == 0
    poses = study.poses("a", view=1)
    assert np.array_equal(poses.keypoints, view_poses(seed=1).keypoints)
    assert poses.track_id[0].tolist() == [0, 1]
    assert poses.frame_index.tolist() == list(range(FRAMES))
    assert poses.time.tolist() == study.catalog.view("a", "1").times.tolist()
    assert study.item("pose", "a", 1).attributes["format"] == "pose-npz"
    assert built_import(study).done == 2


def test_a_changed_file_is_imported_again(tmp_path):
    study = video_study(tmp_path)
    path = write_npz(tmp_path / "poses" / "a" / "0.npz", view_poses(seed=0))
    built_import(study)
    write_npz(path, view_poses(seed=5))
    assert len(built_import(study).built) == 1
    assert np.array_equal(study.poses("a", view=0).keypoints, view_poses(seed=5).keypoints)


@pytest.mark.parametrize(("first", "given"), [(0, None), (1, None), (5, 5)])
def test_frames_count_from_zero_one_or_first_number(tmp_path, first, given):
    study = video_study(tmp_path)
    poses = view_poses()
    write_npz(tmp_path / "poses" / "a" / "0.npz", replace(poses, frame_index=poses.frame_index + first))
    assert built_import(study, first_number=given).ok
    assert np.array_equal(study.poses("a", view=0).keypoints, poses.keypoints)


def test_frames_missing_in_the_file_have_no_people(tmp_path):
    study = video_study(tmp_path)
    kept = [0, 1, 2, 7]
    write_npz(tmp_path / "poses" / "a" / "0.npz", view_poses().take(kept))
    assert built_import(study).ok
    assert np.flatnonzero(study.poses("a", view=0).present.all(axis=1)).tolist() == kept


def test_people_whose_number_changes_are_linked_and_numbered(tmp_path):
    study = video_study(tmp_path)
    expected = view_poses(linked=False)
    keypoints, score = expected.keypoints.copy(), expected.score.copy()
    score[3:6, 1] = 0
    keypoints[8:], score[8:] = keypoints[8:, ::-1], score[8:, ::-1]
    write_npz(tmp_path / "poses" / "a" / "0.npz", replace(expected, keypoints=keypoints, score=score))
    assert built_import(study, fill=5).ok
    poses = study.poses("a", view=0)
    assert np.allclose(poses.keypoints, expected.keypoints, atol=1e-4)
    assert poses.filled[:, 1].all(-1).nonzero()[0].tolist() == [3, 4, 5]
    assert study.item("pose", "a", 0).attributes["num_filled"] == 3
    made = {"frames of a person filled in": 3, "joints filled in": 3 * 17}
    assert Pose.events(study.item("pose", "a", 0).attributes).items() >= made.items()


def problem_of(study, **changes):
    report = built_import(study, **changes)
    [reason] = report.quarantined.values()
    return reason


def test_missing_poses_are_quarantined_with_their_path(tmp_path):
    study = video_study(tmp_path)
    assert f"No poses for recording 'a', view 0: looked for {tmp_path.resolve()}/poses/a/0.npz" in problem_of(study)


def test_import_without_files_names_the_setting(tmp_path):
    study = video_study(tmp_path)
    with pytest.raises(UserError, match=r"recording 'a' has a video, and pose.files is empty. Set it to the path"):
        study.build("pose", overrides={"pose": {"backend": "import"}})


def test_frames_past_the_videos_end_are_refused(tmp_path):
    study = video_study(tmp_path)
    write_npz(tmp_path / "poses" / "a" / "0.npz", made_poses(FRAMES + 3, image_size=(HEIGHT, WIDTH)))
    assert (
        f"has people in frame {FRAMES + 2}, and recording 'a', view 0 has the frames 0 to {FRAMES - 1}"
        in problem_of(study)
    )


def test_poses_of_another_image_size_are_refused_or_scaled(tmp_path):
    study = video_study(tmp_path)
    write_npz(tmp_path / "poses" / "a" / "0.npz", made_poses(FRAMES, image_size=(2 * HEIGHT, 3 * WIDTH)))
    assert f"are of images of {3 * WIDTH}x{2 * HEIGHT} px; the video of recording 'a'" in problem_of(study)
    assert built_import(study, rescale=True).ok
    expected = made_poses(FRAMES).keypoints / [3, 2]
    assert np.allclose(study.poses("a", view=0).keypoints, expected)
    assert study.item("pose", "a", 0).attributes["num_rescaled"] == FRAMES


def test_pose_import_counts_joints_outside_and_rejects_many(tmp_path):
    study = video_study(tmp_path)
    poses = view_poses()
    keypoints = poses.keypoints.copy()
    keypoints[:2, 0] += 1000
    path = write_npz(tmp_path / "poses" / "a" / "0.npz", replace(poses, keypoints=keypoints))
    assert built_import(study).ok
    attributes = study.item("pose", "a", 0).attributes
    assert (attributes["num_joints_outside"], attributes["num_joints_seen"]) == (2 * 17, FRAMES * 2 * 17)
    assert study.joints_outside(study.store.items("pose")) == [(ItemKey("pose", "a", "0"), 2 * 17, FRAMES * 2 * 17)]
    write_npz(path, replace(poses, keypoints=poses.keypoints + 1000))
    assert "408 of the 408 joints in" in problem_of(study)
    assert "(100%) lie outside the frame (128x96 px). Are these the poses of recording 'a'" in problem_of(study)
    assert built_import(study, max_outside=1.0).ok


def openpose_study(folder, scale):
    """Create a study of one view, and OpenPose files for images `scale` times as large, with joints across the image."""
    study = video_study(folder)
    (folder / "openpose").mkdir()
    x, y = np.linspace(2, WIDTH - 2, 25) * scale, np.linspace(2, HEIGHT - 2, 25) * scale
    person = {"pose_keypoints_2d": np.stack([x, y, np.full(25, 0.9)], 1).ravel().tolist()}
    for frame in range(FRAMES):
        (folder / "openpose" / f"cam_{frame:04d}_keypoints.json").write_text(json.dumps({"people": [person]}))
    return study


def test_openpose_files_of_larger_images_are_quarantined(tmp_path):
    reason = problem_of(openpose_study(tmp_path, 2), files="openpose")
    # 12 of the 25 joints on the diagonal are beyond its middle.
    assert "144 of the 300 joints" in reason
    assert "(48%) lie outside the frame (128x96 px)" in reason
    assert "The file does not contain the size of its images." in reason


@pytest.mark.parametrize(("scale", "expected"), [(1, {}), (0.5, {"num_frames_in_corner": FRAMES})])
def test_openpose_files_of_smaller_images_are_reported(tmp_path, scale, expected):
    study = openpose_study(tmp_path, scale)
    assert built_import(study, files="openpose").ok
    attributes = study.item("pose", "a", 0).attributes
    assert attributes["num_joints_outside"] == 0
    assert {name: attributes[name] for name in attributes if name == "num_frames_in_corner"} == expected


def test_import_nan_joint_is_missing(tmp_path):
    study = video_study(tmp_path)
    poses = view_poses()
    keypoints = poses.keypoints.copy()
    keypoints[4, 1, 3] = np.nan
    write_npz(tmp_path / "poses" / "a" / "0.npz", replace(poses, keypoints=keypoints))
    assert built_import(study).ok
    assert np.argwhere(study.poses("a", view=0).score == 0).tolist() == [[4, 1, 3]]


def test_truncated_json_is_quarantined_and_the_other_view_built(tmp_path):
    study = video_study(tmp_path, views=("0", "1"))
    text = json.dumps({"people": [{"pose_keypoints_2d": [5.0, 6.0, 0.9] * 25}]})
    for view in ("0", "1"):
        folder = tmp_path / "openpose" / view
        folder.mkdir(parents=True)
        for frame in range(FRAMES):
            cut = len(text) // 2 if (view, frame) == ("1", 3) else len(text)
            (folder / f"cam_{frame:04d}_keypoints.json").write_text(text[:cut])
    report = built_import(study, files="openpose/{view}")
    assert [str(key) for key in report.built] == ["pose/a/0"]
    [reason] = report.quarantined.values()
    assert "cam_0003_keypoints.json is not valid JSON" in reason
    assert "The file is cut short or damaged" in reason


def test_one_file_for_all_recordings_is_searched_by_name(tmp_path):
    study = video_study(tmp_path, recordings=("a", "b"))
    for name, seed in (("a", 1), ("b", 2)):
        write_npz(tmp_path / "poses" / f"{name}.npz", view_poses(seed=seed))
    assert built_import(study, files="poses", format="pose-npz").ok
    assert np.array_equal(study.poses("b", view=0).keypoints, view_poses(seed=2).keypoints)
    (tmp_path / "poses" / "b.npz").unlink()
    for name in ("c", "d"):
        write_npz(tmp_path / "poses" / f"{name}.npz", view_poses(seed=3))
    report = built_import(study, files="poses", format="pose-npz")
    assert "has poses of 3 recordings, but not of 'b', view 0" in next(iter(report.quarantined.values()))


def test_the_import_command_writes_the_pattern_into_the_settings(tmp_path):
    video_study(tmp_path)
    write_npz(tmp_path / "poses" / "a" / "0.npz", view_poses())
    done = import_poses(tmp_path, [tmp_path / "poses" / "{recording}" / "{view}.npz"])
    assert done.report.ok
    assert done.study.settings["pose"].files == "poses/{recording}/{view}.npz"
    assert done.study.folder.study.stages == ("pose", "snippets")
    # A scan does not read the files that an import writes.
    messages = []
    again = open_study(tmp_path, log=messages.append)
    assert again.build("pose").done == 1
    assert messages == []


def test_import_keeps_other_stages_of_the_study(tmp_path):
    study = video_study(tmp_path)
    study.folder.change("study", "stages", ("tracks", "lowres"))
    write_npz(tmp_path / "poses" / "a" / "0.npz", view_poses())
    done = import_poses(tmp_path, [tmp_path / "poses" / "{recording}" / "{view}.npz"])
    assert done.study.folder.study.stages == ("pose", "tracks", "lowres")


def test_an_unknown_placeholder_is_refused_before_writing(tmp_path):
    study = video_study(tmp_path)
    before = (tmp_path / "actionprep.toml").read_bytes()
    with pytest.raises(UserError, match=r"Unknown placeholder '\{veiw\}' in 'poses/\{veiw\}'\. Did you mean 'view'\?"):
        import_poses(tmp_path, ["poses/{veiw}"])
    assert (tmp_path / "actionprep.toml").read_bytes() == before
    with pytest.raises(UserError, match=r"Unknown placeholder '\{clip\}'"):
        built_import(study, files="poses/{clip}.npz")


def test_an_import_without_files_leaves_the_settings(tmp_path):
    video_study(tmp_path)
    before = (tmp_path / "actionprep.toml").read_bytes()
    words = ["import", "openpose", str(tmp_path / "openpoze" / "{view}"), "--study", str(tmp_path)]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 1
    assert "next" not in result.output
    assert "Nothing was imported, and actionprep.toml is unchanged." in result.output
    assert (tmp_path / "actionprep.toml").read_bytes() == before


def test_an_import_of_nothing_leaves_no_new_folder(tmp_path):
    (tmp_path / "wrong.pkl").write_bytes(b"no pickle at all")
    with pytest.raises(InputError):
        import_poses(tmp_path / "new", [tmp_path / "wrong.pkl"])
    assert not (tmp_path / "new").exists()


def test_one_folder_for_many_views_is_refused(tmp_path):
    video_study(tmp_path, views=("0", "1"))
    (tmp_path / "poses").mkdir()
    with pytest.raises(UserError, match=r"is the same folder of poses for all 2 views of this study"):
        import_poses(tmp_path, [tmp_path / "poses"])


def test_import_separates_a_bystander_in_real_recordings(tmp_path, shared_data):
    folder = shared_data / "multiview_pose2sim"
    settings = StudySettings(layout="views", videos=str(folder / "videos"), pattern="cam{view}.mp4")
    init_study(tmp_path, settings, models=settings_models())
    done = import_poses(tmp_path, [folder / "openpose_json" / "cam{view}_json"])
    assert done.report.ok
    assert done.report.num_frames == 0
    imported = {view: done.study.poses("videos", view=view) for view in ("01", "02", "03", "04")}
    assert {poses.skeleton for poses in imported.values()} == {"body25b"}
    assert [poses.present.sum(axis=0).tolist() for poses in imported.values()] == [[100, 100], [100, 100], [100], [100]]
    for view in ("01", "02"):
        height = np.median(imported[view].bbox[..., 3] - imported[view].bbox[..., 1], axis=0)
        assert height[0] > 1.5 * height[1]
        # Persons are not swapped: between frames, boxes move by a small fraction of their size.
        middle = imported[view].bbox.reshape(100, 2, 2, 2).mean(axis=2)
        assert np.abs(np.diff(middle[:, 1], axis=0)).max() < 0.2 * height[1]


def test_import_refuses_values_that_the_videos_have(tmp_path):
    video_study(tmp_path)
    write_npz(tmp_path / "poses" / "a" / "0.npz", view_poses())
    with pytest.raises(UserError, match=r"is a study of videos, which contain these values: leave out fps, labels"):
        import_poses(tmp_path, [tmp_path / "poses/{recording}/{view}.npz"], fps=25, labels="names.txt")


def test_a_layout_file_is_relative_to_the_study(tmp_path, monkeypatch):
    study = video_study(tmp_path)
    (tmp_path / "pair.toml").write_text('joints = ["head", "tail"]\nlimbs = [["head", "tail"]]\n')
    (tmp_path / "poses").mkdir()
    np.savez(tmp_path / "poses" / "a.npz", keypoints=np.full((4, 1, 2, 2), 3.0))
    monkeypatch.chdir("/")
    assert built_import(study, files="poses/{recording}.npz", file_skeleton="pair.toml").ok
    assert study.poses("a", view=0).skeleton == str(tmp_path / "pair.toml")


def test_failed_pose_import_keeps_the_settings_of_the_study(tmp_path):
    video_study(tmp_path)
    write_npz(tmp_path / "poses" / "a" / "0.npz", view_poses())
    before = (tmp_path / "actionprep.toml").read_bytes()
    with pytest.raises(UserError, match="take no coordinates, got 'world'"):
        import_poses(tmp_path, [tmp_path / "poses/{recording}/{view}.npz"], coordinates="world")
    assert (tmp_path / "actionprep.toml").read_bytes() == before
