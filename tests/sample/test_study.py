from __future__ import annotations

import csv
import hashlib
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from actionprep.datasets.poses.formats.openpose import read_openpose
from actionprep.errors import SetupError, UserError
from actionprep.pipeline.mask_sources.files import FileMasks
from actionprep.pipeline.mask_sources.settings import MasksSettings
from actionprep.pipeline.stage import ArrayBlock, ViewSource
from actionprep.sample import SampleTruth, make_sample_study
from actionprep.sample.actions import ACTIONS
from actionprep.sample.cameras import camera_ring
from actionprep.sample.room import draw_backdrop
from actionprep.sample.study import plan_performances

EVERY_VIEW = range(7)
LABELS = [action.label for action in ACTIONS]


def decode(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    return np.stack([frame.to_ndarray(format="rgb24") for frame in frames]), np.array([frame.time for frame in frames])


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("view", EVERY_VIEW)
def test_decoded_frames_lie_at_the_true_frame_times(small_study: SampleTruth, view: int):
    frames, times = decode(small_study.video("take_001", view))
    truth = small_study.frame_times("take_001", view)
    np.testing.assert_allclose(times + small_study.offset("take_001", view), truth, atol=1e-6)
    assert frames.shape[1:3] == small_study.cameras[view].size[::-1]


def test_views_differ_in_size_and_rate_and_one_has_irregular_frames(small_study: SampleTruth):
    sizes = {camera.size for camera in small_study.cameras.values()}
    steps = {view: np.diff(small_study.frame_times("take_000", view)) for view in EVERY_VIEW}
    assert len(sizes) >= 4
    assert len({round(float(np.median(step)), 4) for step in steps.values()}) >= 5
    assert [view for view, step in steps.items() if np.ptp(step) > 1e-3] == [3]
    assert steps[3].max() > 1.5 * np.median(steps[3])


def test_one_view_starts_late_on_the_recordings_clock(small_study: SampleTruth):
    offsets = {view: small_study.offset("take_000", view) for view in EVERY_VIEW}
    assert [view for view, offset in offsets.items() if offset] == [6]
    assert small_study.frame_times("take_000", 6)[0] == pytest.approx(offsets[6])


@pytest.mark.parametrize("view", EVERY_VIEW)
def test_joints_in_space_project_onto_joints_in_the_image(small_study: SampleTruth, view: int):
    clock, xyz = small_study.joints_3d("take_000")
    camera, joints = small_study.cameras[view], small_study.joints_2d("take_000", view)
    inside = (joints.time <= clock[-1]) & (joints.time >= clock[0])
    for joint in (0, 4, 8, 14, 22):
        there = np.stack([np.interp(joints.time, clock, xyz[:, joint, axis]) for axis in range(3)], axis=-1)
        rodrigues, _ = cv2.Rodrigues(camera.rotation)
        expected, _ = cv2.projectPoints(there, rodrigues, camera.translation, camera.matrix, None)
        error = np.linalg.norm(expected[:, 0] - joints.xy[:, joint], axis=-1)[inside]
        assert error.max() < 0.6, "linear interpolation between 20 ms is the only difference"
        assert np.median(error) < 0.03


@pytest.mark.parametrize("view", EVERY_VIEW)
def test_frames_outside_the_masks_show_the_empty_room(small_study: SampleTruth, view: int):
    frames, _ = decode(small_study.video("take_001", view))
    masks = small_study.masks("take_001", view)
    assert masks.shape == frames.shape[:3]
    # Gray, because color has half the resolution in the files.
    away = np.abs((frames - draw_backdrop(camera_ring()[view], 0).rgb).mean(axis=-1))
    away[:, frames.shape[1] * 2 // 3 :] = np.nan  # shadows are on the floor
    outside = ~np.stack([cv2.dilate(mask, np.ones((5, 5))) for mask in masks.astype(np.uint8)]).astype(bool)
    assert np.nanmedian(away[outside]) < 4
    assert np.nanpercentile(away[outside], 99) < 25
    assert np.nanmedian(away[masks]) > 20


@pytest.mark.parametrize("view", [0, 2, 3, 6])
def test_lucas_kanade_follows_the_true_tracks(small_study: SampleTruth, view: int):
    frames, _ = decode(small_study.video("take_001", view))
    gray = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    tracks = small_study.tracks("take_001", view)
    errors, still = [], []
    for now in range(len(gray) - 1):
        seen = tracks.visibility[now] & tracks.visibility[now + 1]
        start, end = tracks.xy[now, seen], tracks.xy[now + 1, seen]
        if not len(start):
            continue
        result, status, _ = cv2.calcOpticalFlowPyrLK(gray[now], gray[now + 1], start[:, None], None, winSize=(9, 9))
        errors += np.linalg.norm(result[:, 0] - end, axis=-1)[status[:, 0] > 0].tolist()
        still += np.linalg.norm(start - end, axis=-1).tolist()
    assert np.median(errors) < 0.4
    assert np.percentile(still, 90) > 1.0, "points move, so that following them is not trivial"


@pytest.mark.parametrize("view", EVERY_VIEW)
def test_visible_points_and_joints_lie_on_the_mask(small_study: SampleTruth, view: int):
    masks = small_study.masks("take_001", view).astype(np.uint8)
    height, width = masks.shape[1:]
    for truth in (small_study.tracks("take_001", view), small_study.joints_2d("take_001", view)):
        for mask, xy, seen in zip(masks, truth.xy, truth.visibility, strict=True):
            x, y = np.rint(xy[seen]).astype(int).T
            wide = cv2.dilate(mask, np.ones((3, 3)))
            assert wide[np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)].all()


def test_one_mask_is_a_frame_of_the_masks(small_study: SampleTruth):
    assert (small_study.mask("take_000", 1, 7) == small_study.masks("take_000", 1)[7]).all()


def test_openpose_files_match_the_joints(small_study: SampleTruth):
    joints = small_study.joints_2d("take_000", 6)
    files = sorted(small_study.openpose("take_000", 6).iterdir())
    width, height = small_study.cameras[6].size
    assert len(files) == len(joints.time)
    for file, xy, seen in zip(files, joints.xy, joints.visibility, strict=True):
        [person] = json.loads(file.read_text())["people"]
        triples = np.array(person["pose_keypoints_2d"]).reshape(25, 3)
        inside = (xy >= -0.5).all(-1) & (xy < [width - 0.5, height - 0.5]).all(-1)
        np.testing.assert_allclose(triples[inside, :2], xy[inside], atol=0.02)
        assert (triples[~inside] == 0).all()
        assert (triples[seen, 2] == 1).all()
        assert (triples[inside & ~seen, 2] == 0.5).all()


def test_a_study_of_many_recordings_has_openpose_files_of_the_first_ones_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("actionprep.sample.truth.OPENPOSE_RECORDINGS", 1)
    monkeypatch.setattr("actionprep.sample.study.OPENPOSE_RECORDINGS", 1)
    truth = make_sample_study(tmp_path, recordings=2, workers=0, views=1)
    assert len(list(truth.openpose("take_000", 0).iterdir())) == len(truth.frame_times("take_000", 0))
    assert [path.name for path in (tmp_path / "truth/openpose").iterdir()] == ["take_000"]
    with pytest.raises(UserError) as error:
        truth.openpose("take_001", 0)
    assert str(error.value) == (
        "Recording 'take_001' of the sample study has no OpenPose files. Recordings with OpenPose files: take_000 to take_000. "
        "'joints_2d' has the joints of all."
    )


def test_the_truth_of_a_recording_is_few_files_that_the_importers_read(small_study: SampleTruth):
    masks = FileMasks(
        MasksSettings(source="files", files="truth/masks/{recording}/cam{view}.npz"),
        ViewSource(
            "take_000", "1", "", 144, 176, 16.0, small_study.frame_times("take_000", 1), root=str(small_study.folder)
        ),
        {},
    )
    frames = np.zeros((3, 144, 176, 3), np.uint8)
    block = masks.push(ArrayBlock(frames, time=np.zeros(3)), {})
    masks.finish({})
    assert (block.foreground == small_study.masks("take_000", 1)[:3]).all()
    [item] = read_openpose(small_study.openpose("take_000", 1))
    joints = small_study.joints_2d("take_000", 1)
    assert item.poses.skeleton == "body25"
    assert len(item.poses.frame_index) == len(joints.time)
    others = [path for path in small_study.folder.rglob("*") if path.is_file() and "openpose" not in path.parts]
    assert len(others) < 2 * (3 * 7 + 1) + 10


def test_segments_are_labeled_and_lie_between_rests(small_study: SampleTruth):
    with small_study.segments_csv.open(newline="") as file:
        assert next(csv.reader(file)) == ["recording", "onset", "offset", "label"]
    for recording in small_study.recordings:
        [segment] = small_study.segments(recording)
        times = small_study.frame_times(recording, 0)
        assert segment.label in LABELS
        assert times[0] + 0.2 <= segment.onset < segment.offset - 2.0
        assert times[-1] > segment.offset + 0.1


def test_sample_subjects_do_every_action_once():
    plan = plan_performances(66, seed=0)
    pairs = Counter((p.subject, p.deeds[0].action.label) for p in plan[:64])
    assert len(pairs) == 64
    assert set(pairs.values()) == {1}
    assert sorted(deed.action.label for p in plan[64:] for deed in p.deeds) == sorted(LABELS)
    for performance in plan[64:]:
        ends = [0.0, *(deed.offset for deed in performance.deeds)]
        assert all(deed.onset >= end + 0.35 for deed, end in zip(performance.deeds, ends, strict=False))


def test_equal_seeds_give_equal_bytes_with_one_process_and_with_two(tmp_path: Path):
    make_sample_study(tmp_path / "one", seed=5, recordings=2, workers=0, views=1)
    make_sample_study(tmp_path / "two", seed=5, recordings=2, workers=2, views=1)
    make_sample_study(tmp_path / "other", seed=6, recordings=1, workers=0, views=1)
    entry, other = digests(tmp_path / "one"), digests(tmp_path / "other")
    assert entry == digests(tmp_path / "two")
    video = str(Path("videos", "take_000", "cam0.mp4"))
    assert entry[video] != other[video]


def test_progress_counts_to_the_number_of_recordings_and_a_finished_study_is_left_alone(tmp_path: Path):
    calls: list[tuple[int, int, str]] = []
    for _ in range(2):
        make_sample_study(tmp_path, recordings=2, workers=0, views=1, progress=lambda *call: calls.append(call))
    assert calls == [(1, 2, "take_000"), (2, 2, "take_001")]


def test_an_interrupted_study_is_made_again(tmp_path: Path):
    def interrupt(done: int, total: int, name: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_sample_study(tmp_path, recordings=1, workers=0, views=1, progress=interrupt)
    assert not (tmp_path / "segments.csv").exists()
    assert make_sample_study(tmp_path, recordings=1, workers=0, views=1).segments("take_000")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recordings": 0}, "A sample study needs at least 1 recording; got 0."),
        ({"views": 9}, "A sample study has 1 to 8 views; got 9."),
        ({"seed": -1}, "The seed of a sample study must be at least 0; got -1."),
    ],
)
def test_wrong_numbers_are_refused(tmp_path: Path, options: dict[str, int], message: str):
    with pytest.raises(UserError) as error:
        make_sample_study(tmp_path, workers=0, **options)
    assert str(error.value) == message


def test_a_folder_with_other_videos_is_refused(tmp_path: Path):
    (tmp_path / "videos").mkdir()
    with pytest.raises(UserError) as error:
        make_sample_study(tmp_path, recordings=1, workers=0, views=1)
    assert str(error.value) == (
        f"{tmp_path} already contains videos, which do not belong to a sample study. Use an empty or new folder."
    )


def test_a_folder_with_another_sample_study_is_refused(small_study: SampleTruth):
    with pytest.raises(UserError) as error:
        make_sample_study(small_study.folder, seed=4, recordings=2, workers=0, views=7)
    assert str(error.value) == (
        f"{small_study.folder} already contains another sample study (version 2, seed 3, recordings 2, views 7; "
        "requested: version 2, seed 4, recordings 2, views 7). Use a new folder, or delete this one first."
    )


def test_a_full_disk_is_the_machines_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(SetupError) as error:
        make_sample_study(tmp_path / "study", recordings=1, workers=0, views=1)
    assert str(error.value) == (
        f"Cannot write the sample study to {tmp_path / 'study'}: No space left on device. It needs about 40 MB. "
        "Free disk space, check the permissions, or use another folder."
    )


def test_unknown_recordings_and_views_are_named_with_those_that_exist(small_study: SampleTruth):
    with pytest.raises(UserError) as error:
        small_study.segments("take_9")
    assert str(error.value) == (
        f"No recording 'take_9' in the sample study {small_study.folder}. Available recordings: take_000 to take_001."
    )
    with pytest.raises(UserError) as error:
        small_study.tracks("take_000", 9)
    assert str(error.value) == (
        f"No view 9 in the sample study {small_study.folder}. Available views: 0, 1, 2, 3, 4, 5, 6."
    )
    with pytest.raises(UserError) as error:
        small_study.openpose("take_000", 2)
    assert (
        str(error.value) == "View 2 of the sample study has no OpenPose files. Views with OpenPose files: 0, 1, 3, 6."
    )


def test_importing_the_sample_loads_no_heavy_library():
    code = "import sys, actionprep.sample; print(sorted({'av', 'cv2', 'torch', 'zarr', 'dask'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
