"""Tests of the stage `pose` with estimators and with existing poses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pose_items import made_poses, store_poses
from recordings import FRAMES, HEIGHT, WIDTH, video_study

from actionprep.api import Study, settings_models
from actionprep.datasets.products.poses import read_pose_item
from actionprep.datasets.store.keys import ItemKey
from actionprep.datasets.store.zarr_store import Store
from actionprep.datasets.study import StudySettings, init_study
from actionprep.errors import InputError, SetupError, UserError
from actionprep.pipeline import doctor, pose
from actionprep.pipeline.pose import Pose, PoseSettings
from actionprep.pipeline.pose_backends import FramePoses, mediapipe, mmpose
from actionprep.pipeline.quarantine import Quarantine


class Corners:
    """An estimator with two people per frame at fixed positions, or one in each given box."""

    name, skeleton = "mediapipe", "coco17"

    def __init__(self, **options):
        self.options, self.resets, self.calls = options, 0, []

    def estimate(self, frames, boxes=None):
        self.calls.append((len(frames), boxes))
        poses = []
        for at, frame in enumerate(frames):
            people_boxes = [[8, 8, 40, 40], [50, 8, 90, 60]] if boxes is None else boxes[at]
            people = []
            for left, top, right, bottom in (list(box)[:4] for box in people_boxes):
                x, y = np.linspace(left, right, 17), np.linspace(top, bottom, 17)
                people.append(np.stack([x, y, np.full(17, 0.8)], 1))
            rows = np.array([[*list(box)[:4], 1.0] for box in people_boxes], np.float32).reshape(-1, 5)
            poses.append(FramePoses(np.array(people, np.float32).reshape(-1, 17, 3), rows))
            assert frame.dtype == np.uint8
        return poses

    def reset(self):
        self.resets += 1

    def identity(self):
        return {"backend": "corners"}

    def close(self):
        pass


@pytest.fixture
def corners(monkeypatch):
    made = []

    def opened(name, **options):
        made.append(Corners(**options))
        return made[-1]

    monkeypatch.setattr(pose, "open_estimator", opened)
    monkeypatch.setattr(pose, "_open_estimators", {})
    monkeypatch.setattr(pose, "_identity", lambda settings: {"backend": "corners"})
    return made


def test_every_frame_of_every_view_is_estimated_in_one_pass_and_stored(tmp_path, corners):
    study = video_study(tmp_path, views=("0", "1"))
    report = study.build("pose")
    assert report.ok
    assert len(report.built) == 2
    [estimator] = corners
    assert estimator.resets == 2
    assert sum(count for count, _ in estimator.calls) == 2 * FRAMES
    poses = study.poses("a", view=1)
    assert poses.keypoints.shape == (FRAMES, 2, 17, 2)
    assert poses.keypoints[5, :, 0].tolist() == [[50, 8], [8, 8]]
    assert poses.bbox[5].tolist() == [[50, 8, 90, 60], [8, 8, 40, 40]]
    assert poses.track_id[5].tolist() == [0, 1]
    assert poses.time.tolist() == study.catalog.view("a", "1").times.tolist()
    assert poses.image_size == (HEIGHT, WIDTH)
    attributes = study.item("pose", "a", 1).attributes
    assert (attributes["estimator"], attributes["skeleton"]) == ("mediapipe", "coco17")
    assert (attributes["num_persons"], attributes["num_frames_with_person"]) == (2, FRAMES)


def test_pose_arrays_have_axes_and_units(tmp_path, corners):
    study = video_study(tmp_path)
    study.build("pose")
    item = study.item("pose", "a", 0)
    assert {name: (item[name].axes, str(item[name].dtype), item[name].unit) for name in item} == {
        "keypoints": (("time", "person", "joint", "xy"), "float32", "px"),
        "score": (("time", "person", "joint"), "float32", None),
        "bbox": (("time", "person", "box"), "float32", "px"),
        "track_id": (("time", "person"), "int32", None),
        "filled": (("time", "person", "joint"), "bool", None),
        "index": (("time",), "int64", None),
        "time": (("time",), "float64", "s"),
    }


def test_persons_limits_persons_and_counts_the_dropped(tmp_path, corners):
    study = video_study(tmp_path)
    study.build("pose", overrides={"pose": {"persons": 1}})
    assert study.poses("a", view=0).num_persons == 1
    attributes = study.item("pose", "a", 0).attributes
    assert (attributes["num_persons_found"], attributes["num_persons_dropped"]) == (2, 1)


def test_boxes_come_from_a_file_the_frame_or_the_masks(tmp_path, corners):
    study = video_study(tmp_path)
    (tmp_path / "boxes").mkdir()
    (tmp_path / "boxes" / "a-0.csv").write_text(
        "frame,left,top,right,bottom\n" + "".join(f"{at},{at},2,30,40\n" for at in range(FRAMES))
    )
    changes = {"boxes": "file", "boxes_file": "boxes/{recording}-{view}.csv"}
    assert study.build("pose", overrides={"pose": changes}).ok
    assert study.poses("a", view=0).bbox[7].tolist() == [[7, 2, 30, 40]]
    assert study.build("pose", overrides={"pose": {"boxes": "frame"}}).ok
    assert study.poses("a", view=0).bbox[7].tolist() == [[0, 0, WIDTH, HEIGHT]]
    assert study.build("pose", overrides={"pose": {"boxes": "masks"}}).ok
    assert study.store.has("masks", "a", "0")
    assert study.item("pose", "a", 0).provenance["inputs"].keys() == {"masks"}


def test_a_backend_that_gives_up_names_the_frame_of_the_video(tmp_path, corners, monkeypatch):
    study = video_study(tmp_path)

    def fail(self, frames, boxes=None):
        self.calls.append(len(frames))
        if sum(self.calls) > 8:
            raise InputError("no answer", frame=1, backend="corners")
        return [FramePoses.nobody(17)] * len(frames)

    monkeypatch.setattr(Corners, "estimate", fail)
    assert list(study.build("pose").quarantined.values()) == ["no answer"]
    entry = Quarantine(tmp_path / "quarantine").get(ItemKey("pose", "a", "0"))
    before = sum(corners[0].calls[:-1])
    assert (entry.frame, entry.backend) == (before + 1, "corners")


def test_conversion_to_another_layout_is_recorded(tmp_path, corners):
    study = video_study(tmp_path)
    study.build("pose", overrides={"pose": {"skeleton": "coco18"}})
    poses = study.poses("a", view=0)
    assert (poses.skeleton, poses.num_joints) == ("coco18", 18)
    assert "neck = mean of left_shoulder + right_shoulder" in study.item("pose", "a", 0).attributes["converted"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"boxes": "file"}, "'boxes_file' is the table for boxes = \"file\": give both or neither"),
        ({"files": "x"}, "'files' is the pattern for backend = \"import\": set that backend too"),
        ({"backend": "import", "boxes": "masks"}, 'imported poses need no boxes, got boxes = "masks"'),
        ({"smooth": "savgol", "savgol_window": 6}, "an odd window longer than its order, got savgol_window 6"),
        ({"skeleton": "coco71"}, r"Unknown skeleton 'coco71'\. Did you mean 'coco17'\?"),
        (
            {"backend": "mediapip"},
            "No pose backend 'mediapip'. Did you mean 'mediapipe'. Backends: import, mediapipe, mediapipe-hands, mediapipe-holistic, mmpose, vitpose",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        PoseSettings.read(changes, where="[pose]")


def test_a_missing_backend_stops_the_build_and_names_a_way(tmp_path, monkeypatch):
    monkeypatch.setattr(pose, "_open_estimators", {})
    study = video_study(tmp_path)
    with pytest.raises(
        SetupError, match=r"MediaPipe is not installed.*(?s:.*)install mediapipe.*(?s:.*)import existing poses"
    ):
        study.build("pose", overrides={"pose": {"environment": str(tmp_path / "nowhere")}})


# Items


def test_a_stored_item_reads_back_as_the_same_sequence(tmp_path):
    store = Store(tmp_path / "store", create=True)
    poses = made_poses(5, 2, dimensions=3, layout="ntu25", image_size=None)
    store_poses(store, "a", poses)
    stored = read_pose_item(store.item("pose", "a", "0"))
    for name in ("keypoints", "score", "bbox", "track_id", "filled", "frame_index", "time"):
        assert np.array_equal(getattr(stored, name), getattr(poses, name)), name
    assert (stored.skeleton, stored.image_size) == ("ntu25", None)
    assert store.item("pose", "a", "0")["keypoints"].unit is None
    assert store.item("pose", "a", "0")["keypoints"].axes[-1] == "xyz"


def test_poses_without_times_are_not_stored(tmp_path):
    store = Store(tmp_path / "store", create=True)
    with pytest.raises(ValueError, match="need the time of every frame"):
        store_poses(store, "a", replace(made_poses(5), time=None))


# Real backends on real frames, if they are installed


def real_study(tmp_path, shared_data):
    """One clip of UTD-MHAD: 640x480, one person."""
    (tmp_path / "videos").mkdir()
    clip = shared_data / "utd_mhad_rgb" / "clips" / "a1_s1_t1_color.mp4"
    (tmp_path / "videos" / "clip.mp4").symlink_to(clip)
    settings = StudySettings(layout="views", pattern="{recording}.mp4")
    return Study(init_study(tmp_path, settings, models=settings_models()))


@pytest.mark.slow
def test_real_mediapipe_detects_the_person_in_every_frame(tmp_path, shared_data):
    if not mediapipe.is_installed():
        pytest.skip(f"MediaPipe is not installed here; install it with: {mediapipe.INSTALL}")
    study = real_study(tmp_path, shared_data)
    assert study.build("pose", overrides={"pose": {"backend": "mediapipe", "skeleton": "coco17"}}).ok
    poses = study.poses("clip", view=0)
    assert poses.num_persons == 1
    assert poses.present.all()
    nose, left, right = (poses.keypoints[:, 0, joint] for joint in (0, 15, 16))
    # The person stands upright in the middle and faces the camera.
    assert (nose[:, 1] < np.minimum(left, right)[:, 1] - 150).all()
    assert (np.abs(nose[:, 0] - 320) < 120).all()


@pytest.mark.slow
def test_real_mmpose_runs_hrnet_with_random_weights_on_real_frames(tmp_path, shared_data):
    if doctor.mmpose_missing():
        pytest.skip(f"MMPose is not installed here; install it with: {mmpose.INSTALL}")
    study = real_study(tmp_path, shared_data)
    # Only frames with a box are estimated, which keeps the test short.
    (tmp_path / "boxes.csv").write_text(
        "frame,left,top,right,bottom\n" + "".join(f"{at},200,80,440,470\n" for at in (3, 4, 5))
    )
    changes = {"backend": "mmpose", "model": "hrnet-w32", "random_weights": True, "device": "cpu"}
    changes |= {"boxes": "file", "boxes_file": "boxes.csv"}
    assert study.build("pose", overrides={"pose": changes}).ok
    poses = study.poses("clip", view=0)
    assert (poses.skeleton, poses.keypoints.shape[1:]) == ("coco17", (1, 17, 2))
    assert np.flatnonzero(poses.present[:, 0]).tolist() == [3, 4, 5]
    assert np.isfinite(poses.keypoints).all()
    assert study.item("pose", "clip", 0).provenance["identity"]["version"] == "1.3.2"
    assert study.item("pose", "clip", 0).provenance["identity"]["weights"] == "random"


def test_vitpose_folders_are_relative_and_hub_names_stay(tmp_path, monkeypatch):
    study, elsewhere = tmp_path / "study", tmp_path / "elsewhere"
    for folder in (study / "models/vitpose", study / "rtdetr", elsewhere / "someone/on-the-hub"):
        folder.mkdir(parents=True)
    monkeypatch.chdir(elsewhere)
    here = PoseSettings(backend="vitpose", device="cpu", model="models/vitpose", detector="rtdetr").at(study)
    options = pose._options(here)
    assert (options["model"], options["detector"]) == (str(study / "models/vitpose"), str(study / "rtdetr"))
    hub = PoseSettings(backend="vitpose", device="cpu", model="someone/on-the-hub", detector="someone/else").at(study)
    options = pose._options(hub)
    assert (options["model"], options["detector"]) == ("someone/on-the-hub", "someone/else")


def test_a_detector_folder_is_relative_to_the_study(tmp_path, monkeypatch):
    (tmp_path / "rtdetr").mkdir()
    monkeypatch.setattr("actionprep.pipeline.pose_backends.boxes.RTDetrPeople", lambda model, **_: model)
    monkeypatch.setattr(pose, "_open_detectors", {})
    assert pose._people(PoseSettings(boxes="rtdetr", detector="rtdetr").at(tmp_path)) == str(tmp_path / "rtdetr")


def test_a_study_that_is_moved_keeps_the_identity_of_its_local_models(tmp_path, monkeypatch):
    """The identity has the names from the settings instead of the paths of folders."""

    class Local:
        def __init__(self, model, detector, **_):
            self.model, self.detector = model, detector

        def identity(self):
            return {"backend": "vitpose", "model": self.model, "weights": "1f", "detector": self.detector}

        def close(self):
            pass

    monkeypatch.setattr(pose, "open_estimator", lambda name, **options: Local(**options))
    monkeypatch.setattr(pose, "_open_estimators", {})
    settings = PoseSettings(backend="vitpose", device="cpu", model="models/vitpose", detector="PekingU/rtdetr_r18vd")
    identities = []
    for study in ("before", "after"):
        (tmp_path / study / "models/vitpose").mkdir(parents=True)
        identities.append(Pose.identity(settings.at(tmp_path / study)))
    assert identities[0] == identities[1]
    assert identities[0]["model"] == "models/vitpose"
    assert identities[0]["detector"] == "PekingU/rtdetr_r18vd"
