"""Tests of checks and conversions of imported poses, with known joint positions."""

from __future__ import annotations

import json
import tomllib

import numpy as np
import pytest
from pose_items import made_poses, write_npz
from recordings import FRAMES, HEIGHT, WIDTH, video_study
from typer.testing import CliRunner

from actionprep.api import import_poses
from actionprep.cli.prep import app
from actionprep.pipeline.pose import PoseSettings

IMPORT = {"backend": "import", "files": "poses/{recording}", "persons": None, "least_frames": 1}


def place_of(frame):
    """Return the nose of the person in a frame of the video."""
    return 20.0 + 2 * frame, 30.0


def body(frame, joints=25):
    x, y = place_of(frame)
    spread = np.linspace(0, 30, joints)
    return np.stack([x + spread, y + spread, np.full(joints, 0.9)], 1)


def openpose_files(folder, numbers, *, first=0, change=lambda joints: joints):
    folder.mkdir(parents=True)
    for number in numbers:
        person = {"pose_keypoints_2d": change(body(number - first)).ravel().tolist()}
        (folder / f"cam_{number:012d}_keypoints.json").write_text(json.dumps({"people": [person]}))


def imported(study, **changes):
    report = study.build("pose", overrides={"pose": {**IMPORT, **changes}})
    return report, None if not report.ok else (study.poses("a", view=0), study.item("pose", "a", 0).attributes)


@pytest.mark.parametrize(
    ("numbers", "first", "missing", "renumbered"),
    [
        (range(FRAMES), 0, 0, False),
        (range(FRAMES // 2), 0, FRAMES - FRAMES // 2, False),
        (range(1, FRAMES + 1), 1, 0, False),
        (range(1, FRAMES), 1, 1, True),
        ([1, 2, 4], 1, FRAMES - 3, True),
        ([2, 3, 4], 0, FRAMES - 3, False),
    ],
)
def test_import_counts_missing_files_and_numbers_from_one(tmp_path, numbers, first, missing, renumbered):
    study = video_study(tmp_path)
    openpose_files(tmp_path / "poses" / "a", numbers, first=first)
    _, (poses, attributes) = imported(study)
    seen = [number - first for number in numbers]
    assert np.flatnonzero(poses.present.any(1)).tolist() == seen
    assert poses.keypoints[seen, 0, 0].tolist() == [list(place_of(frame)) for frame in seen]
    assert attributes["num_frames_without_file"] == missing
    assert ("num_frames_renumbered" in attributes) == renumbered
    sums = study.events(study.store.items("pose")).get("pose", {})
    assert sums.get("frames without a pose file", 0) == missing


def test_import_first_number_wins_over_the_names(tmp_path):
    study = video_study(tmp_path)
    openpose_files(tmp_path / "poses" / "a", range(1, FRAMES))
    _, (poses, attributes) = imported(study, first_number=0)
    assert poses.keypoints[1, 0, 0].tolist() == list(place_of(1))
    assert "num_frames_renumbered" not in attributes


@pytest.mark.parametrize(
    ("change", "low", "high"),
    [
        (lambda joints: joints / [WIDTH, HEIGHT, 1], r"0\.\d+", r"0\.\d+"),
        (lambda joints: joints / [WIDTH / 2, HEIGHT / 2, 1] - [1, 1, 0], r"-0\.\d+", r"0\.\d+"),
    ],
)
def test_import_normalized_joints_are_refused(tmp_path, change, low, high):
    study = video_study(tmp_path)
    openpose_files(tmp_path / "poses" / "a", range(FRAMES), change=change)
    report, _ = imported(study)
    [reason] = report.quarantined.values()
    assert "expected pixels of the video. They look normalized by the size of the image" in reason
    assert "--keypoint_scale 3 or 4" in reason


def test_import_openpose_nan_joint_is_missing(tmp_path):
    study = video_study(tmp_path)

    def with_nan(joints):
        joints[3, 0] = np.nan
        return joints

    openpose_files(tmp_path / "poses" / "a", range(FRAMES), change=with_nan)
    _, (poses, _) = imported(study)
    assert (poses.score[:, 0] == 0).all(0).tolist() == [joint == 3 for joint in range(25)]


def coco_of_names(folder, names, **person):
    """Write a COCO file with one person per named image. Its joints are those of the frame with the image's number."""
    people = [
        {"image_id": name, "category_id": 1, "keypoints": body(at, 17).ravel().tolist(), **person}
        for at, name in enumerate(names)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "a.json").write_text(json.dumps(people))


@pytest.mark.parametrize("form", ["{}.jpg", "frame_{:05d}.jpg", "img{:06d}.png", "{}"])
def test_import_images_of_one_file_are_the_frames_of_a_video(tmp_path, form):
    study = video_study(tmp_path)
    names = [form.format(number) for number in range(FRAMES)]
    coco_of_names(tmp_path / "poses", [int(name) if name.isdigit() else name for name in names])
    _, (poses, attributes) = imported(study, files="poses/{recording}.json")
    assert poses.keypoints[:, 0, 0].tolist() == [list(place_of(frame)) for frame in range(FRAMES)]
    assert attributes["num_frames_without_file"] == 0


def test_import_mediapipe_pixels_begin_at_the_first_pixel_center(tmp_path):
    study = video_study(tmp_path)
    (tmp_path / "poses").mkdir()
    landmarks = np.full((FRAMES, 33, 4), 0.5)
    # Outer edges of the image are 0 and 1: half a pixel before the first center, half a pixel behind the last.
    landmarks[:, 0, :2], landmarks[:, 1, :2] = 0.0, 1.0
    landmarks[:, 2, :2] = 0.5 / WIDTH, 0.5 / HEIGHT
    np.savez(tmp_path / "poses" / "a.npz", landmarks=landmarks)
    _, (poses, _) = imported(study, files="poses/{recording}.npz")
    assert poses.keypoints[0, 0, 0] == pytest.approx([-0.5, -0.5])
    assert poses.keypoints[0, 0, 1] == pytest.approx([WIDTH - 0.5, HEIGHT - 0.5])
    assert poses.keypoints[0, 0, 2] == pytest.approx([0, 0], abs=1e-5)


def test_settings_other_backend_ignores_keys_of_an_import():
    assert PoseSettings(backend="vitpose", files="poses/{recording}").backend == "vitpose"
    with pytest.raises(ValueError, match="'files' is the pattern for backend"):
        PoseSettings(files="poses/{recording}")


def test_plan_of_other_backend_after_an_import(tmp_path):
    study = video_study(tmp_path)
    openpose_files(tmp_path / "poses" / "a", range(FRAMES))
    assert import_poses(tmp_path, [tmp_path / "poses" / "{recording}"]).report.ok
    assert study.stage_settings({"pose": {"backend": "vitpose"}})["pose"].backend == "vitpose"


def test_import_records_keys_where_their_help_stands(tmp_path, monkeypatch):
    video_study(tmp_path / "study")
    path = tmp_path / "study" / "actionprep.toml"
    openpose_files(tmp_path / "op" / "a", range(FRAMES))
    before = path.read_text().splitlines()
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["import", "openpose", "op/{recording}", "--study", "study"])
    assert result.exit_code == 0, result.output
    after = path.read_text().splitlines()
    pose = tomllib.loads(path.read_text())["pose"]
    assert pose == {"backend": "import", "files": "../op/{recording}", "format": "openpose"}
    for key in ("backend", "files", "format"):
        [line] = [line for line in after if line.startswith(f"{key} = ")]
        shown = [at for at, line in enumerate(before) if line.startswith(f"# {key} = ")]
        if shown:
            assert after.index(line) in shown
    assert [line for line in before if line.startswith("#") and " = " not in line] == [
        line for line in after if line.startswith("#") and " = " not in line
    ]


def test_import_records_nothing_when_it_fails(tmp_path):
    video_study(tmp_path)
    before = (tmp_path / "actionprep.toml").read_bytes()
    write_npz(tmp_path / "poses" / "a" / "0.npz", made_poses(FRAMES + 3, image_size=(HEIGHT, WIDTH)))
    assert not import_poses(tmp_path, [tmp_path / "poses/{recording}/{view}.npz"]).report.ok
    assert (tmp_path / "actionprep.toml").read_bytes() == before
