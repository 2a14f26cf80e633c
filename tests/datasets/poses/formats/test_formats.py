"""Formats of pose estimators: generated, real and damaged files."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pose_items import only, sequence

from actionprep.datasets.poses.formats import FORMATS, detect_format, read_poses
from actionprep.datasets.poses.formats.openpose import read_openpose
from actionprep.datasets.poses.formats.pose_npz import write_pose_npz
from actionprep.datasets.poses.sequence import PoseItem
from actionprep.datasets.poses.skeletons import joint_positions, skeleton
from actionprep.errors import InputError, UserError

COCO = skeleton("coco17").joints


def test_every_format_has_a_reader():
    assert len(FORMATS) >= 16
    assert all(callable(format.read) for format in FORMATS.values())


def test_read_poses_suggests_the_nearest_format(tmp_path):
    with pytest.raises(UserError, match=r"No pose format 'pysk'. Did you mean 'pyskl'"):
        read_poses(tmp_path, "pysk")


def test_a_file_of_no_format_names_the_known_ones(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"x")
    with pytest.raises(UserError, match=r"The format of the poses at .* is not known. Name it; known: openpose"):
        read_poses(tmp_path / "a.bin")


def test_read_poses_reports_a_missing_path(tmp_path):
    with pytest.raises(UserError, match="No pose file or folder at"):
        read_poses(tmp_path / "gone")


@pytest.mark.parametrize(("arrays", "hint"), [(["joints_xyzc"], "those of 'msr-action3d'"), (["a"], "None of the")])
def test_npz_read_as_pickle_names_the_right_format(tmp_path, arrays, hint):
    np.savez(tmp_path / "poses.npz", **dict.fromkeys(arrays, np.zeros((2, 20, 4))))
    with pytest.raises(
        UserError, match=r"is an npz \(a zip archive of arrays\), and PySKL's files are pickles"
    ) as raised:
        list(read_poses(tmp_path / "poses.npz", "pyskl"))
    assert hint in str(raised.value)


# OpenPose


def person(value, joints=25, hands=False):
    triples = [number for joint in range(joints) for number in (value + joint, value, 0.5)]
    result = {"person_id": [-1], "pose_keypoints_2d": triples}
    if hands:
        result["hand_left_keypoints_2d"] = [1.0, 2.0, 0.9] * 21
    return result


def openpose(folder, frames):
    folder.mkdir(parents=True, exist_ok=True)
    for number, people in frames.items():
        path = folder / f"clip.v1_{number:012d}_keypoints.json"
        path.write_text(json.dumps({"version": 1.3, "people": people}))
    return folder


def test_openpose_gaps_are_empty_frames_and_counts_may_change(tmp_path):
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


def test_openpose_folders_are_separate_recordings(tmp_path):
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


def test_openpose_coco_bodies_are_detected_by_their_joints(tmp_path):
    assert only(read_openpose(openpose(tmp_path / "a", {0: [person(5, 18)]}))).poses.skeleton == "coco18"
    item = only(read_openpose(openpose(tmp_path / "b", {0: [person(5, 18, hands=True)]})))
    layout = skeleton("openpose137")
    assert item.poses.keypoints[0, 0, layout.index("left_ankle")].tolist() == [5 + 13, 5]
    assert item.poses.score[0, 0, layout.index("left_heel")] == 0


def standing(layout):
    places = [joint_positions()[joint] for joint in skeleton(layout).joints]
    return {"pose_keypoints_2d": [value for x, y in places for value in (200 + 300 * x, 20 + 300 * y, 0.8)]}


@pytest.mark.parametrize("layout", ["body25", "body25b", "coco18"])
def test_openpose_25_joint_layouts_are_detected_by_limb_lengths(tmp_path, layout):
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
    with pytest.raises(InputError, match=rf"{path.name} is not valid JSON: .* line 1, column \d+. The file is cut"):
        list(read_openpose(folder))


@pytest.mark.parametrize(
    ("people", "message"),
    [
        ([{"pose_keypoints_2d": [1, 2]}], "must be triples of x, y and confidence, got 2 values"),
        ([{"pose_keypoints_2d": ["a"] * 75}], "must be numbers"),
        ([person(1, 20)], "people with 20 body joints; expected 25"),
        ([person(1, 25), person(1, 18)], "people with 18, 25 body joints"),
        (None, "has no list 'people'"),
    ],
)
def test_wrong_openpose_content_is_refused(tmp_path, people, message):
    with pytest.raises(InputError, match=message):
        list(read_openpose(openpose(tmp_path, {0: people})))


def test_real_openpose_output_of_four_cameras(shared_data):
    items = list(read_poses(shared_data / "multiview_pose2sim" / "openpose_json"))
    assert [item.recording for item in items] == ["cam01", "cam02", "cam03", "cam04"]
    assert [item.poses.num_frames for item in items] == [100] * 4
    raw = json.loads((shared_data / "multiview_pose2sim/openpose_json/cam02_json/cam02.0042.json").read_text())
    # These files have the joint order of BODY_25B, which does not follow from the number of joints.
    assert {item.poses.skeleton for item in items} == {"body25b"}
    assert min(item.extra["limb_length_ratio"] for item in items) > 1.5
    poses = items[1].poses
    assert poses.present[42].sum() == len(raw["people"])
    for slot, entry in enumerate(raw["people"]):
        triples = np.asarray(entry["pose_keypoints_2d"], np.float32).reshape(25, 3)
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


def test_coco_images_of_a_folder_are_frames_in_natural_order(tmp_path):
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
    with pytest.raises(UserError, match=r"is not known by its categories or its number of joints\. Name it"):
        list(read_poses(path))
    assert only(read_poses(path, skeleton="body25")).poses.num_joints == 25


def test_coco_images_of_different_size_in_one_recording_are_refused(tmp_path):
    images = [{"id": i, "file_name": f"a/{i}.jpg", "height": 9 + i, "width": 16} for i in range(2)]
    with pytest.raises(InputError, match=r"has images of different sizes: \[\(9, 16\), \(10, 16\)\]"):
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
    people = sum(bool(np.asarray(entry["keypoints"])[2::3].any()) or "lefthand_kpts" in entry for entry in raw)
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
    assert item.poses.keypoints[0, 0] == pytest.approx(values[0, :, :2] * [200, 100] - 0.5)
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
    with pytest.raises(UserError, match=r"shares of the image, and .* does not contain its size\. Give image_size"):
        list(read_poses(tmp_path / "a.npz"))


def test_mediapipe_reader_suggests_the_nearest_landmark(tmp_path):
    (tmp_path / "a.csv").write_text("frame,landmark,x,y\n0,left_anckle,0,0\n")
    with pytest.raises(InputError, match=r"names the landmark 'left_anckle', .* Did you mean 'left_ankle'"):
        list(read_poses(tmp_path / "a.csv", image_size=(1, 1)))


# npz and csv


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
        ("frame,x,y\n", InputError, "has no column 'joint'. It has frame, x, y"),
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
        ("", InputError, "not a readable csv"),
    ],
)
def test_wrong_csv_is_refused(tmp_path, text, error, message):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(error, match=message):
        list(read_poses(tmp_path / "x.csv"))


def test_a_csv_with_a_joint_twice_or_unknown_is_refused(tmp_path):
    (tmp_path / "x.csv").write_text("frame,joint,x,y\n0,nose,1,2\n0,nose,1,2\n")
    with pytest.raises(InputError, match="has a joint of one person in one frame twice, in recording 'x'"):
        list(read_poses(tmp_path / "x.csv", skeleton="coco17"))
    (tmp_path / "x.csv").write_text("frame,joint,x,y\n0,nose,1,2\n0,,1,2\n")
    with pytest.raises(InputError, match=r"Row 3 of .* has no joint\. Each row needs the name of one\."):
        list(read_poses(tmp_path / "x.csv", skeleton="coco17"))
    (tmp_path / "x.csv").write_text("frame,joint,x,y\n0,nsoe,1,2\n")
    with pytest.raises(InputError, match=r"Row 2 of .* names the joint 'nsoe', .* Did you mean 'nose'"):
        list(read_poses(tmp_path / "x.csv", skeleton="coco17"))


def test_csv_rows_may_name_the_joints_of_a_layout_in_any_order(tmp_path):
    rows = [f"{frame},{joint},{index},{frame}" for frame in (0, 1) for index, joint in enumerate(COCO)]
    # The first joint of the first frame is missing, and the joints of the second frame are in reverse order.
    (tmp_path / "x.csv").write_text("\n".join(["frame,joint,x,y", *rows[1:17], *rows[:16:-1]]))
    poses = only(read_poses(tmp_path / "x.csv")).poses
    assert poses.skeleton == "coco17"
    assert poses.score[:, 0, 0].tolist() == [0, 1]
    assert poses.keypoints[1, 0, :, 0].tolist() == list(range(17))
