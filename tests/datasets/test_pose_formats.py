"""Pose formats: what comes out of files that the tests write, of real ones, and of damaged ones."""

from __future__ import annotations

import json
import pickle
import tracemalloc

import numpy as np
import pytest
from scipy.io import savemat

from actionprep.datasets.pose_formats import FORMATS, detect_format, read_poses
from actionprep.datasets.pose_formats.jhmdb import read_jhmdb
from actionprep.datasets.pose_formats.msr_action3d import ACTIONS, read_msr_action3d
from actionprep.datasets.pose_formats.ntu import XSUB60, XSUB120, read_ntu
from actionprep.datasets.pose_formats.openpose import read_openpose
from actionprep.datasets.pose_formats.pose_npz import write_pose_npz
from actionprep.datasets.pose_formats.pyskl import read_pyskl, write_pyskl
from actionprep.datasets.pose_formats.utkinect import read_utkinect
from actionprep.datasets.poses import PoseItem, PoseSequence
from actionprep.datasets.skeletons import joint_positions, skeleton
from actionprep.errors import InputProblem, UserError

COCO = skeleton("coco17").joints


def only(items):
    [item] = items
    return item


def test_every_format_has_a_reader():
    assert [callable(one.read) for one in FORMATS.values()] == [True] * 10


def test_an_unknown_format_is_told_the_nearest(tmp_path):
    with pytest.raises(UserError, match=r"Unknown pose format 'pysk'. Did you mean 'pyskl'"):
        read_poses(tmp_path, "pysk")


def test_a_file_of_no_format_names_the_known_ones(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"x")
    with pytest.raises(UserError, match=r"The format of the poses at .* cannot be told. Name it; known: openpose"):
        read_poses(tmp_path / "a.bin")


def test_nothing_at_the_path_is_said(tmp_path):
    with pytest.raises(UserError, match="No pose file or folder at"):
        read_poses(tmp_path / "gone")


# OpenPose


def person(value, joints=25, hands=False):
    triples = [number for joint in range(joints) for number in (value + joint, value, 0.5)]
    found = {"person_id": [-1], "pose_keypoints_2d": triples}
    if hands:
        found["hand_left_keypoints_2d"] = [1.0, 2.0, 0.9] * 21
    return found


def openpose(folder, frames):
    folder.mkdir(parents=True, exist_ok=True)
    for number, people in frames.items():
        path = folder / f"clip.v1_{number:012d}_keypoints.json"
        path.write_text(json.dumps({"version": 1.3, "people": people}))
    return folder


def test_openpose_people_come_with_changing_count_and_gaps_as_empty_frames(tmp_path):
    folder = openpose(tmp_path, {3: [person(10)], 4: [person(10), person(50)], 6: []})
    assert detect_format(folder) == "openpose"
    item = only(read_poses(folder, skeleton="body25", image_size=(480, 640)))
    assert item.recording == "clip.v1"
    assert item.poses.skeleton == "body25"
    assert item.poses.frame_index.tolist() == [3, 4, 5, 6]
    assert item.poses.present.sum(1).tolist() == [1, 2, 0, 0]
    assert item.poses.keypoints[1, 1, 2].tolist() == [52, 50]
    assert item.poses.image_size == (480, 640)
    assert (item.poses.track_id == -1).all()
    assert item.extra["frames_without_file"] == [5]


def test_openpose_folders_are_recordings_of_their_own(tmp_path):
    openpose(tmp_path / "a", {0: [person(1)]})
    openpose(tmp_path / "b", {0: [person(1)]})
    assert [item.recording for item in read_openpose(tmp_path)] == ["a/clip.v1", "b/clip.v1"]


def test_openpose_hands_are_kept_beside_the_body(tmp_path):
    item = only(read_openpose(openpose(tmp_path, {0: [person(5, hands=True), person(9)]}), skeleton="body25"))
    layout = skeleton("openpose137")
    assert item.poses.skeleton == "openpose137"
    assert item.poses.keypoints[0, 0, layout.index("left_index_2")].tolist() == [1, 2]
    assert item.poses.score[0, 0, layout.index("right_index_2")] == 0
    assert item.poses.score[0, 1, layout.index("left_index_2")] == 0


def test_openpose_coco_bodies_are_told_by_their_joints(tmp_path):
    assert only(read_openpose(openpose(tmp_path / "a", {0: [person(5, 18)]}))).poses.skeleton == "coco18"
    item = only(read_openpose(openpose(tmp_path / "b", {0: [person(5, 18, hands=True)]})))
    layout = skeleton("openpose137")
    assert item.poses.keypoints[0, 0, layout.index("left_ankle")].tolist() == [5 + 13, 5]
    assert item.poses.score[0, 0, layout.index("left_heel")] == 0


def standing(layout):
    places = [joint_positions()[joint] for joint in skeleton(layout).joints]
    return {"pose_keypoints_2d": [value for x, y in places for value in (200 + 300 * x, 20 + 300 * y, 0.8)]}


@pytest.mark.parametrize("layout", ["body25", "body25b", "coco18"])
def test_openpose_bodies_of_25_joints_are_told_apart_by_the_length_of_their_limbs(tmp_path, layout):
    item = only(read_openpose(openpose(tmp_path, {0: [standing(layout)]})))
    assert item.poses.skeleton == layout
    if layout != "coco18":
        assert item.extra["limb_length_ratio"] > 2
        assert only(read_openpose(tmp_path, skeleton="body25")).poses.skeleton == "body25"
        with pytest.raises(UserError, match="has bodies of 25 joints, which are not those of 'coco18'"):
            list(read_openpose(tmp_path, skeleton="coco18"))


def test_openpose_numbers_that_are_no_frame_numbers_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"has 2 files, numbered from 0 to 1700000000\. Numbers that far apart"):
        list(read_openpose(openpose(tmp_path, {0: [], 1_700_000_000: []})))


def test_openpose_json_cut_in_half_names_file_and_place(tmp_path):
    folder = openpose(tmp_path, {0: [person(5)], 1: [person(5)]})
    path = sorted(folder.iterdir())[1]
    path.write_text(path.read_text()[:100])
    with pytest.raises(InputProblem, match=rf"{path.name} is not valid JSON: .* line 1, column \d+. The file is cut"):
        list(read_openpose(folder))


@pytest.mark.parametrize(
    ("people", "message"),
    [
        ([{"pose_keypoints_2d": [1, 2]}], "must be finite x, y, confidence triples, got 2 values"),
        ([{"pose_keypoints_2d": [1, 2, float("nan")] * 25}], "must be finite"),
        ([{"pose_keypoints_2d": ["a"] * 75}], "must be numbers"),
        ([person(1, 20)], "people with 20 body joints; expected 25"),
        ([person(1, 25), person(1, 18)], "people with 18, 25 body joints"),
        (None, "has no list 'people'"),
    ],
)
def test_wrong_openpose_content_is_refused(tmp_path, people, message):
    with pytest.raises(InputProblem, match=message):
        list(read_openpose(openpose(tmp_path, {0: people})))


def test_real_openpose_output_of_four_cameras(shared_data):
    items = list(read_poses(shared_data / "multiview_pose2sim" / "openpose_json"))
    assert [item.recording for item in items] == ["cam01", "cam02", "cam03", "cam04"]
    assert [item.poses.num_frames for item in items] == [100] * 4
    raw = json.loads((shared_data / "multiview_pose2sim/openpose_json/cam02_json/cam02.0042.json").read_text())
    # These files are in the joint order of BODY_25B, which the number of joints does not tell.
    assert {item.poses.skeleton for item in items} == {"body25b"}
    assert min(item.extra["limb_length_ratio"] for item in items) > 1.5
    poses = items[1].poses
    assert poses.present[42].sum() == len(raw["people"])
    for slot, one in enumerate(raw["people"]):
        triples = np.asarray(one["pose_keypoints_2d"], np.float32).reshape(25, 3)
        seen = triples[:, 2] > 0
        assert np.array_equal(poses.keypoints[42, slot][seen], triples[seen, :2])
        assert np.array_equal(poses.score[42, slot], triples[:, 2])


# COCO


def coco(tmp_path, content):
    path = tmp_path / "persons.json"
    path.write_text(json.dumps(content))
    return path


def annotation(image, value, **more):
    return {"image_id": image, "keypoints": [value, value + 1, 2] * 16 + [0, 0, 0], "bbox": [1, 2, 3, 4], **more}


def test_coco_images_of_a_folder_are_the_frames_of_a_recording_in_natural_order(tmp_path):
    images = [{"id": i, "file_name": f"walk.1/f{n}.jpg", "height": 9, "width": 16} for i, n in enumerate([10, 9, 2])]
    content = {"images": images, "annotations": [annotation(0, 5, track_id=4), annotation(2, 7), annotation(2, 8)]}
    item = only(read_poses(coco(tmp_path, content)))
    assert item.recording == "walk.1"
    assert item.poses.frame_index.tolist() == [2, 9, 10]
    assert item.poses.present.tolist() == [[True, True], [False, False], [True, False]]
    assert item.poses.keypoints[2, 0, 0].tolist() == [5, 6]
    assert item.poses.score[2, 0, [0, 16]].tolist() == [1, 0]
    assert item.poses.bbox[2, 0].tolist() == [1, 2, 4, 6]
    assert item.poses.track_id[2].tolist() == [4, -1]
    assert item.poses.image_size == (9, 16)


def test_coco_results_have_scores(tmp_path):
    path = coco(tmp_path, [{"image_id": 3, "keypoints": [1.0, 2.0, 0.25] * 17, "score": 0.9}])
    item = only(read_poses(path, image_size=(10, 20)))
    assert item.recording == "3"
    assert item.poses.score[0, 0, 0] == 0.25


def test_coco_without_a_layout_asks_for_it(tmp_path):
    path = coco(tmp_path, [{"image_id": 3, "keypoints": [1.0, 2.0, 0.25] * 25}])
    with pytest.raises(UserError, match=r"cannot be told from its categories or its number of joints\. Name it"):
        list(read_poses(path))
    assert only(read_poses(path, skeleton="body25")).poses.num_joints == 25


def test_coco_images_of_different_size_in_one_recording_are_refused(tmp_path):
    images = [{"id": i, "file_name": f"a/{i}.jpg", "height": 9 + i, "width": 16} for i in range(2)]
    with pytest.raises(InputProblem, match=r"has images of different sizes: \[\(9, 16\), \(10, 16\)\]"):
        list(read_poses(coco(tmp_path, {"images": images, "annotations": [annotation(0, 1)]})))


@pytest.mark.parametrize(
    ("name", "layout", "recordings"),
    [
        ("test_coco", "coco17", ["000000000785", "000000040083", "000000196141", "000000197388"]),
        ("test_coco_wholebody", "coco_wholebody", ["000000000785", "000000040083", "000000196141", "000000197388"]),
        ("test_posetrack18_val", "posetrack17", ["012834", "009473", "003418"]),
        ("test_jhmdb_sub1", "jhmdb15", ["00228", "00229", "00230"]),
    ],
)
def test_real_coco_style_files(shared_data, name, layout, recordings):
    path = shared_data / "annotations" / "keypoints_coco_style" / f"{name}.json"
    items = list(read_poses(path))
    assert [item.recording for item in items] == recordings
    assert {item.poses.skeleton for item in items} == {layout}
    raw = json.loads(path.read_text())["annotations"]
    people = sum(bool(np.asarray(one["keypoints"])[2::3].any()) or "lefthand_kpts" in one for one in raw)
    assert 0 < sum(int(item.poses.present.sum()) for item in items) <= people


# MediaPipe


def landmarks(frames=3):
    return np.random.default_rng(0).random((frames, 33, 4)).astype(np.float32)


def test_mediapipe_landmarks_become_pixels_and_visibility_the_score(tmp_path):
    values = landmarks()
    values[1] = np.nan
    np.savez(tmp_path / "a.b.npz", landmarks=values, image_size=(100, 200))
    item = only(read_poses(tmp_path / "a.b.npz"))
    assert item.recording == "a.b"
    assert item.poses.keypoints[0, 0] == pytest.approx(values[0, :, :2] * [200, 100])
    assert item.poses.score[2, 0] == pytest.approx(values[2, :, 3])
    assert item.poses.present[:, 0].tolist() == [True, False, True]


def test_mediapipe_csv_long_and_wide_equal_the_npz(tmp_path):
    values = landmarks()
    old = {"left_mouth": "mouth_left", "right_mouth": "mouth_right"}
    names = [old.get(name, name) for name in skeleton("mediapipe33").joints]
    long = ["frame,landmark,x,y,z,visibility"]
    wide = [",".join(["frame", *(f"{name}_{axis}" for name in names for axis in ("x", "y", "z", "visibility"))])]
    for t, frame in enumerate(values.tolist()):
        wide.append(",".join(map(str, [t, *(number for joint in frame for number in joint)])))
        long += [",".join(map(str, [t, name, *joint])) for name, joint in zip(names, frame, strict=True)]
    np.savez(tmp_path / "a.npz", landmarks=values)
    (tmp_path / "long.csv").write_text("\n".join(long))
    (tmp_path / "wide.csv").write_text("\n".join(wide))
    files = ("a.npz", "long.csv", "wide.csv")
    truth, *others = (only(read_poses(tmp_path / name, image_size=(90, 160))).poses for name in files)
    for other in others:
        assert other.keypoints == pytest.approx(truth.keypoints, abs=1e-4)
        assert other.score == pytest.approx(truth.score, abs=1e-6)


def test_mediapipe_landmarks_need_the_image_size(tmp_path):
    np.savez(tmp_path / "a.npz", landmarks=landmarks())
    with pytest.raises(UserError, match=r"shares of the image, and .* does not say its size\. Give image_size"):
        list(read_poses(tmp_path / "a.npz"))


def test_a_wrong_landmark_is_told_the_nearest(tmp_path):
    (tmp_path / "a.csv").write_text("frame,landmark,x,y\n0,left_anckle,0,0\n")
    with pytest.raises(InputProblem, match=r"names the landmark 'left_anckle', .* Did you mean 'left_ankle'"):
        list(read_poses(tmp_path / "a.csv", image_size=(1, 1)))


# npz and csv


def sequence(frames=5, persons=2, dims=2, layout="coco17", **more):
    rng = np.random.default_rng(1)
    shape = (frames, persons, skeleton(layout).num_joints)
    score = rng.uniform(0.1, 1, shape)
    score[0, 0, :3] = 0
    return PoseSequence.of(rng.uniform(0, 99, (*shape, dims)), score, skeleton=layout, **more)


def test_npz_goes_out_and_comes_back(tmp_path):
    poses = sequence(image_size=(480, 640), time=np.arange(5) / 30, track_id=np.tile([4, 2], (5, 1)))
    write_pose_npz(tmp_path / "x.npz", PoseItem("a/b.c", poses, label="wave", subject="s1", splits=("train", "fold1")))
    item = only(read_poses(tmp_path / "x.npz"))
    assert (item.recording, item.label, item.subject, item.splits) == ("a/b.c", "wave", "s1", ("train", "fold1"))
    for name in ("keypoints", "score", "bbox", "track_id", "filled", "frame_index", "time"):
        assert np.array_equal(getattr(item.poses, name), getattr(poses, name)), name
    assert (item.poses.skeleton, item.poses.image_size) == ("coco17", (480, 640))


def test_npz_without_a_skeleton_asks_for_it(tmp_path):
    np.savez(tmp_path / "x.npz", keypoints=np.zeros((2, 17, 2)))
    with pytest.raises(UserError, match=r"does not name its skeleton. Add a string 'skeleton' to the file, or name it"):
        list(read_poses(tmp_path / "x.npz"))


def test_csv_rows_are_joints(tmp_path):
    (tmp_path / "x.csv").write_text(
        "recording,frame,person,joint,x,y,score,label,time\n"
        "a.b,2,7,nose,1,2,0.5,wave,0.2\na.b,3,7,left_eye,3,4,1,wave,0.3\na.b,3,9,nose,5,6,1,wave,0.3\nc,0,0,nose,7,8,1,,0\n"
    )
    first, second = read_poses(tmp_path / "x.csv", skeleton="coco17")
    assert (first.recording, first.label, second.recording, second.label) == ("a.b", "wave", "c", None)
    assert first.poses.frame_index.tolist() == [2, 3]
    assert first.poses.track_id.tolist() == [[7, -1], [7, 9]]
    assert first.poses.keypoints[1, 1, 0].tolist() == [5, 6]
    assert first.poses.score[0, 0, :2].tolist() == [0.5, 0]
    assert first.poses.time.tolist() == [0.2, 0.3]


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("frame,x,y\n", InputProblem, "has no column 'joint'. It has frame, x, y"),
        ("frame,joint,x,y\n0,tail,1,2\n", UserError, r"joint names .* of no known layout\. Correct them, or name"),
        (
            "frame,joint,x,y\n" + "".join(f"0,{one},1,2\n" for one in ("left_wirst", *COCO[:8])),
            UserError,
            r"no known layout\. 'coco17' has 8 of them, but no 'left_wirst'\. Did you mean 'left_wrist'\? Correct them",
        ),
        (
            "frame,joint,x,y\n" + "".join(f"0,{one},1,2\n" for one in COCO[:12]),
            UserError,
            "names 12 joints, and no known layout has just these. Layouts that have them all: .*coco17, coco18",
        ),
        ("", InputProblem, "not a readable csv"),
    ],
)
def test_wrong_csv_is_refused(tmp_path, text, error, message):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(error, match=message):
        list(read_poses(tmp_path / "x.csv"))


def test_a_csv_with_a_joint_twice_or_unknown_is_refused(tmp_path):
    (tmp_path / "x.csv").write_text("frame,joint,x,y\n0,nose,1,2\n0,nose,1,2\n")
    with pytest.raises(InputProblem, match="has a joint of one person in one frame twice, in recording 'x'"):
        list(read_poses(tmp_path / "x.csv", skeleton="coco17"))
    (tmp_path / "x.csv").write_text("frame,joint,x,y\n0,nsoe,1,2\n")
    with pytest.raises(InputProblem, match=r"Row 2 of .* names the joint 'nsoe', .* Did you mean 'nose'"):
        list(read_poses(tmp_path / "x.csv", skeleton="coco17"))


def test_csv_rows_may_name_the_joints_of_a_layout_in_any_order(tmp_path):
    rows = [f"{frame},{joint},{index},{frame}" for frame in (0, 1) for index, joint in enumerate(COCO)]
    # The first frame lacks its first joint, and the second is told backwards.
    (tmp_path / "x.csv").write_text("\n".join(["frame,joint,x,y", *rows[1:17], *rows[:16:-1]]))
    poses = only(read_poses(tmp_path / "x.csv")).poses
    assert poses.skeleton == "coco17"
    assert poses.score[:, 0, 0].tolist() == [0, 1]
    assert poses.keypoints[1, 0, :, 0].tolist() == list(range(17))


# PySKL


def test_of_a_pyskl_pickle_one_annotation_is_in_memory_at_a_time(tmp_path):
    path = pyskl(tmp_path, [entry(f"c{index}", frames=3000) for index in range(12)])
    tracemalloc.start()
    try:
        assert sum(item.poses.num_frames for item in read_pyskl(path)) == 36_000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Of the arrays of one annotation some copies of larger types are made: far less than twelve of them.
    assert peak < 6 * 3000 * 2 * 17 * 3 * 8


def pyskl(tmp_path, annotations, split=None):
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps({"split": split or {}, "annotations": annotations}))
    return path


def entry(name="S001C001.p1.v2", dims=2, joints=17, frames=4, **more):
    rng = np.random.default_rng(2)
    keypoint = rng.uniform(0, 1000, (2, frames, joints, dims)).astype(np.float16)
    keypoint[1, 2:] = 0
    found = {"frame_dir": name, "total_frames": frames, "label": 3, "keypoint": keypoint}
    if dims == 2:
        found |= {"keypoint_score": np.full((2, frames, joints), 0.7, np.float16), "img_shape": (1080, 1920)}
    return {**found, **more}


def test_pyskl_2d_is_read_exactly_with_whole_ids_and_splits(tmp_path):
    annotation = entry(extra_field=5)
    split = {"xsub_train": ["S001C001.p1.v2"], "xview_val": ["S001C001.p1.v2"], "xsub_val": []}
    item = only(read_poses(pyskl(tmp_path, [annotation], split)))
    assert (item.recording, item.label, item.splits) == ("S001C001.p1.v2", 3, ("xsub_train", "xview_val"))
    assert item.poses.keypoints.dtype == np.float32
    assert np.array_equal(item.poses.keypoints.transpose(1, 0, 2, 3).astype(np.float16), annotation["keypoint"])
    assert item.poses.score[0, 0, 0] == np.float32(np.float16(0.7))
    assert item.poses.present.tolist() == [[True, True], [True, True], [True, False], [True, False]]
    assert item.poses.track_id.tolist() == [[0, 1], [0, 1], [0, -1], [0, -1]]
    assert item.poses.image_size == (1080, 1920)
    assert item.extra == {"extra_field": 5}


def test_pyskl_3d_needs_neither_scores_nor_image_size(tmp_path):
    item = only(read_pyskl(pyskl(tmp_path, [entry(dims=3, joints=25)])))
    assert (item.poses.skeleton, item.poses.dimensions, item.poses.image_size) == ("ntu25", 3, None)
    assert item.poses.score[:, 1, 0].tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize(
    ("annotations", "split", "message"),
    [
        ([{"frame_dir": "a"}], {}, "Annotation 0 of .* has no 'keypoint'. It has frame_dir"),
        ([{"keypoint": np.zeros((1, 1, 17, 2))}], {}, "has no 'frame_dir'"),
        (
            [entry(keypoint=np.zeros((4, 17, 2)))],
            {},
            r"the shape \(persons, frames, joints, 2 or 3\), got \(4, 17, 2\)",
        ),
        ([entry(total_frames=9)], {}, "says total_frames 9, but its keypoints have 4 frames"),
        ([entry(), entry()], {}, "has the id 'S001C001.p1.v2' twice"),
        ([entry()], {"train": ["S001C001"]}, "1 ids in the splits of .* have no annotation; the first is 'S001C001'"),
        ([entry(keypoint_score=np.ones((2, 4, 3)))], {}, r"score' of .* must have the shape \(2, 4, 17\)"),
        ([entry(keypoint=np.full((2, 4, 17, 2), np.nan))], {}, "Coordinates must be finite"),
        ([5], {}, "Annotation 0 of .* is a int"),
        ("text", {}, "is not a PySKL file"),
    ],
)
def test_wrong_pyskl_content_is_refused(tmp_path, annotations, split, message):
    with pytest.raises(InputProblem, match=message):
        list(read_pyskl(pyskl(tmp_path, annotations, split)))


@pytest.mark.parametrize("half", [False, True])
def test_pyskl_goes_out_as_plain_pickle_and_comes_back(tmp_path, half):
    items = [
        PoseItem("a.1", sequence(image_size=(480, 640)), label="wave", splits=("train",)),
        PoseItem("b", sequence(dims=3, layout="ntu25"), label="clap", splits=("val", "train")),
    ]
    assert write_pyskl(tmp_path / "out.pkl", items, half=half) == 2
    plain = pickle.loads((tmp_path / "out.pkl").read_bytes())
    assert plain["split"] == {"train": ["a.1", "b"], "val": ["b"]}
    assert [one["label"] for one in plain["annotations"]] == [1, 0]
    assert "keypoint_score" not in plain["annotations"][1]
    for item, back in zip(items, read_pyskl(tmp_path / "out.pkl"), strict=True):
        kind = np.float16 if half else np.float32
        assert np.array_equal(back.poses.keypoints, item.poses.keypoints.astype(kind))
        assert back.splits == tuple(sorted(item.splits))


def test_pyskl_persons_are_written_by_track(tmp_path):
    poses = sequence(frames=2)
    swapped = PoseSequence.of(poses.keypoints, poses.score, skeleton="coco17", track_id=[[5, 3], [3, 5]])
    write_pyskl(tmp_path / "out.pkl", [PoseItem("a", swapped, label=0)])
    back = only(read_pyskl(tmp_path / "out.pkl")).poses
    assert np.array_equal(back.keypoints[0, 0], poses.keypoints[0, 1])
    assert np.array_equal(back.keypoints[1, 0], poses.keypoints[1, 0])


def test_an_annotation_without_a_label_cannot_be_written(tmp_path):
    with pytest.raises(UserError, match="Recording 'a' has no label, and a PySKL annotation needs one"):
        write_pyskl(tmp_path / "out.pkl", [PoseItem("a", sequence())])


# NTU RGB+D


def ntu_text(frames):
    lines = [str(len(frames))]
    for bodies in frames:
        lines.append(str(len(bodies)))
        for body, value in bodies:
            lines += [f"{body} 0 1 1 1 1 0 -0.1 0.2 2", "25"]
            lines += [f"{value} {joint} 3 {value + 1} 20 {value + 2} 40 0 0 0 0 {joint % 3}" for joint in range(25)]
    return "\n".join(lines) + "\n"


def test_ntu_bodies_keep_their_slot_and_names_give_everything_else(tmp_path):
    text = ntu_text([[(72, 1)], [], [(99, 5), (72, 2)]])
    (tmp_path / "S001C002P003R002A050.skeleton").write_text(text)
    item = only(read_poses(tmp_path))
    assert (item.recording, item.label, item.subject, item.view) == ("S001C002P003R002A050", 49, "P003", "2")
    assert item.splits == ("xsub_val", "xview_train", "xsub120_val", "xset120_val")
    assert item.poses.track_id.tolist() == [[0, -1], [-1, -1], [0, 1]]
    assert item.poses.keypoints[2, 0, 4].tolist() == [2, 4, 3]
    assert item.poses.score[0, 0, :3].tolist() == [0, 0.5, 1]
    color = only(read_ntu(tmp_path, coordinates="color")).poses
    assert color.keypoints[0, 0, 1].tolist() == [3, 40]
    assert color.image_size == (1080, 1920)


def test_ntu_protocols_have_their_number_of_subjects():
    assert (len(XSUB60), len(XSUB120)) == (20, 53)


def test_an_ntu_file_cut_anywhere_says_where(tmp_path):
    lines = ntu_text([[(72, 1)], [(72, 2)]]).splitlines()
    path = tmp_path / "x.skeleton"
    for end in range(len(lines) - 1):
        path.write_text("\n".join(lines[:end]))
        with pytest.raises(InputProblem, match=rf"ends after line {end}, where .* should follow\. The file is cut"):
            list(read_ntu(path))


def test_a_wrong_ntu_row_names_its_line(tmp_path):
    path = tmp_path / "x.skeleton"
    path.write_text(ntu_text([[(72, 1)]]).replace("1 3 3 2 20", "1 3 3 2"))
    with pytest.raises(InputProblem, match=r"Line 8 of .* has 11 values; expected 12 for a joint"):
        list(read_ntu(path))


# JHMDB


def test_jhmdb_folders_give_class_clip_and_splits(tmp_path):
    folder = tmp_path / "joint_positions" / "brush_hair" / "clip.one_2"
    folder.mkdir(parents=True)
    points = np.random.default_rng(0).uniform(1, 200, (2, 15, 7))
    savemat(folder / "joint_positions.mat", {"pos_img": points, "pos_world": points / 100, "viewpoint": "NE"})
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits" / "brush_hair_test_split2.txt").write_text("clip.one_2.avi 2\n")
    item = only(read_poses(tmp_path))
    assert (item.recording, item.label, item.splits) == ("brush_hair/clip.one_2", "brush_hair", ("split2_test",))
    assert item.poses.keypoints[3, 0, 5] == pytest.approx(points[:, 5, 3] - 1)
    assert item.poses.image_size == (240, 320)
    world = only(read_jhmdb(tmp_path, coordinates="world")).poses
    assert world.keypoints[3, 0, 5] == pytest.approx(points[:, 5, 3] / 100)


def test_real_jhmdb_splits_share_no_clip_and_have_14_classes(shared_data):
    items = list(read_poses(shared_data / "jhmdb_gt2d" / "split1.npz"))
    parts = [sum(item.splits == (f"split1_{part}",) for item in items) for part in ("train", "test")]
    assert parts == [433, 176]
    assert len({item.label for item in items}) == 14
    assert len({item.recording for item in items}) == 609
    assert {item.poses.num_joints for item in items} == {15}


def test_jhmdb_archives_of_a_folder_share_their_clips(shared_data):
    items = list(read_poses(shared_data / "jhmdb_gt2d"))
    assert len(items) == 609
    assert {tuple(name.split("_")[0] for name in item.splits) for item in items} == {("split1", "split2", "split3")}
    assert items[0].recording == f"{items[0].label}/0001"


def test_a_jhmdb_archive_with_wrong_offsets_is_refused(tmp_path):
    arrays = {"train_xy": np.zeros((4, 15, 2)), "train_offsets": np.array([0, 5]), "train_label": np.array(["a"])}
    np.savez(tmp_path / "split1.npz", **arrays, **{name.replace("train", "test"): a for name, a in arrays.items()})
    with pytest.raises(InputProblem, match=r"'train_offsets' in .* do not cut 4 frames into 1 clips"):
        list(read_jhmdb(tmp_path / "split1.npz"))


# MSR Action3D


def test_real_msr_action3d_text_equals_the_archive(shared_data):
    folder = shared_data / "msr_action3d"
    archive = {item.recording: item for item in read_poses(folder / "msr_action3d.npz")}
    assert len(archive) == 567
    assert {item.label for item in archive.values()} == set(ACTIONS)
    texts = list(read_msr_action3d(folder / "raw_txt"))
    assert len(texts) == 15
    for item in texts:
        assert item.poses.keypoints == pytest.approx(archive[item.recording].poses.keypoints, abs=1e-6)
    assert [name for name, item in archive.items() if item.extra["empty"]] == ["a13_s09_e02"]
    assert archive["a01_s01_e01"].splits == ("cross_subject_train",)
    assert archive["a01_s02_e01"].splits == ("cross_subject_test",)


def test_msr_joints_come_in_the_order_of_their_names(shared_data):
    layout = skeleton("kinect20")
    items = [item for item in read_poses(shared_data / "msr_action3d" / "msr_action3d.npz") if not item.extra["empty"]]
    points = np.concatenate([item.poses.keypoints[item.poses.present] for item in items])
    mean = dict(zip(layout.joints, points.mean(0), strict=True))
    column = ["head", "shoulder_center", "spine", "hip_center", "left_knee", "left_ankle", "left_foot"]
    heights = [mean[joint][1] for joint in column]
    assert heights == sorted(heights, reverse=True)
    assert all(mean[left][0] < mean["right_" + left[5:]][0] for left in layout.joints if left.startswith("left_"))


def test_a_cut_msr_file_is_refused(tmp_path):
    (tmp_path / "a01_s01_e01_skeleton3D.txt").write_text("1 2 3 4\n" * 30)
    with pytest.raises(InputProblem, match="has 120 numbers; a frame is 20 rows of 4"):
        list(read_poses(tmp_path))


# UTKinect


def utkinect(tmp_path, rows, labels=None):
    lines = [" ".join(map(str, [frame, *([value] * 60)])) for frame, value in rows]
    (tmp_path / "joints_s01_e02.txt").write_text("\n".join(lines))
    if labels:
        (tmp_path / "actionLabel.txt").write_text(labels)
    return tmp_path


def test_utkinect_segments_are_items(tmp_path):
    rows = [(10, 1.0), (12, 2.0), (12, 2.0), (13, 3.0), (20, 4.0)]
    folder = utkinect(tmp_path, rows, "s01_e02\nwalk: 10 12\ncarry: NaN NaN\nsitDown: 13 20\n")
    walk, sit = read_poses(folder)
    assert (walk.recording, walk.label, walk.subject) == ("s01_e02/00-walk", "walk", "s01")
    assert walk.poses.frame_index.tolist() == [10, 12]
    assert sit.poses.keypoints[:, 0, 0, 0].tolist() == [3, 4]
    assert sit.extra == {"frames": (13, 20), "unlabelled": ["carry"]}
    whole = only(read_utkinect(folder, segments=False))
    assert whole.poses.frame_index.tolist() == [10, 12, 13, 20]


@pytest.mark.parametrize(
    ("rows", "labels", "message"),
    [
        ([(1, 1.0), (1, 2.0)], None, "has frame 1 twice with different joints, the second time in line 2"),
        ([(1, 1.0)], "s01_e02\nwalk: 5 9\n", "labels frames 5 to 9 of 's01_e02' as walk, and .* has none of them"),
        ([(1, 1.0)], "walk: 5 9\n", "Line 1 of .* is a segment before any recording"),
        ([(1, 1.0)], "s01_e02\nwalk 5 9\n", "Line 2 of .* is neither a recording's name nor"),
        ([(1, 1.0)], "s01_e02\nwalk: 9 5\n", "Line 2 of .* must be 'label: first last'"),
        ([(1, "x")], None, "Line 1 of .* must hold numbers"),
    ],
)
def test_wrong_utkinect_files_are_refused(tmp_path, rows, labels, message):
    with pytest.raises(InputProblem, match=message):
        list(read_poses(utkinect(tmp_path, rows, labels)))


@pytest.mark.parametrize(("arrays", "hint"), [(["joints_xyzc"], "those of 'msr-action3d'"), (["a"], "None of the")])
def test_an_npz_that_is_said_to_be_a_pickle_is_told_with_the_format_that_fits(tmp_path, arrays, hint):
    np.savez(tmp_path / "poses.npz", **dict.fromkeys(arrays, np.zeros((2, 20, 4))))
    with pytest.raises(
        UserError, match=r"is an npz \(a zip archive of arrays\), and PySKL's files are pickles"
    ) as raised:
        list(read_poses(tmp_path / "poses.npz", "pyskl"))
    assert hint in str(raised.value)
