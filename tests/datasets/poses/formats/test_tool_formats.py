"""Files of DeepLabCut, SLEAP, MMPose, MediaPipe users and HALPE_26: valid and damaged."""

from __future__ import annotations

import json
import pickle

import h5py
import numpy as np
import pytest

from actionprep.datasets.poses.formats import detect_format, read_poses
from actionprep.datasets.poses.skeletons import skeleton
from actionprep.errors import InputError, UserError

PARTS = ["Nose", "Left_ear", "Right_ear", "Tail"]


def dlc_values(frames=3, parts=4):
    """x, y and likelihood of part p in frame t: 10 t + p, 20 t + p, 0.9 - p / 10."""
    t, p = np.meshgrid(np.arange(frames), np.arange(parts), indexing="ij")
    return np.stack([10.0 * t + p + 5, 20.0 * t + p + 5, 0.9 - p / 10], -1)


def dlc_csv(path, values, *, individuals=None):
    parts = PARTS[: values.shape[-2]]
    people = values if individuals else values[:, None]
    names = individuals or [""]
    columns = [(who, part, axis) for who in names for part in parts for axis in ("x", "y", "likelihood")]
    lines = [["scorer", *["DLC_resnet50_x"] * len(columns)]]
    if individuals:
        lines.append(["individuals", *[who for who, _, _ in columns]])
    lines += [["bodyparts", *[part for _, part, _ in columns]], ["coords", *[axis for *_, axis in columns]]]
    for frame, row in enumerate(people.reshape(len(people), -1).tolist()):
        lines.append([str(frame), *("" if np.isnan(cell) else repr(cell) for cell in row)])
    path.write_text("\n".join(",".join(line) for line in lines) + "\n")
    return path


def test_deeplabcut_csv_of_one_animal(tmp_path):
    values = dlc_values()
    values[1, 2] = np.nan
    path = dlc_csv(tmp_path / "mouse1DLC_resnet50_x.csv", values)
    assert detect_format(path) == "deeplabcut"
    [item] = read_poses(path)
    assert item.recording == "mouse1"
    layout = skeleton(item.poses.skeleton)
    assert layout.joints == ("nose", "left_ear", "right_ear", "tail")
    assert layout.symmetric == ((1, 2),)
    assert item.poses.keypoints[2, 0].tolist() == values[2, :, :2].tolist()
    assert item.poses.score[2, 0] == pytest.approx(values[2, :, 2])
    assert item.poses.score[1, 0, 2] == 0


def test_deeplabcut_csv_of_two_animals(tmp_path):
    values = np.stack([dlc_values(), dlc_values() + 100], 1)
    values[0, 1] = np.nan
    [item] = read_poses(dlc_csv(tmp_path / "x.csv", values, individuals=["mouse_a", "mouse_b"]))
    assert item.extra["individuals"] == ["mouse_a", "mouse_b"]
    assert item.poses.track_id.tolist() == [[0, -1], [0, 1], [0, 1]]
    assert item.poses.keypoints[1, 1].tolist() == values[1, 1, :, :2].tolist()


@pytest.mark.parametrize("split", [False, True])
def test_deeplabcut_labeled_data_are_recordings_by_folder(tmp_path, split):
    lead = ["", ""] if split else []
    rows = [["scorer", *lead, "me", "me"], ["bodyparts", *lead, "Nose", "Nose"], ["coords", *lead, "x", "y"]]
    for name, cells in (("v1/img012.png", ["1.5", "2"]), ("v1/img007.png", ["3", "4"]), ("v2/img1.png", ["", ""])):
        folder, image = name.split("/")
        rows.append([*(["labeled-data", folder, image] if split else [f"labeled-data/{name}"]), *cells])
    (tmp_path / "CollectedData_me.csv").write_text("\n".join(",".join(row) for row in rows) + "\n")
    first, second = read_poses(tmp_path / "CollectedData_me.csv")
    assert (first.recording, second.recording) == ("v1", "v2")
    assert first.poses.frame_index.tolist() == [7, 12]
    assert first.poses.keypoints[:, 0, 0].tolist() == [[3, 4], [1.5, 2]]
    assert not second.poses.present.any()


def dlc_columns():
    return [("s", part, axis) for part in PARTS for axis in ("x", "y", "likelihood")]


def fixed_h5(path, values):
    """The layout of pandas' format "fixed"."""
    columns = dlc_columns()
    levels = [sorted({column[level] for column in columns}) for level in range(3)]
    with h5py.File(path, "w") as file:
        group = file.create_group("df_with_missing")
        for prefix in ("axis0", "block0_items"):
            for level, names in enumerate(levels):
                group[f"{prefix}_level{level}"] = np.array(names, "S12")
                group[f"{prefix}_label{level}"] = np.array([names.index(c[level]) for c in columns], np.int8)
        group["axis1"] = np.arange(len(values))
        group["block0_values"] = values.reshape(len(values), -1)
    return path


def table_h5(path, values):
    """The layout of pandas' format "table", with the columns pickled in an attribute."""
    rows = np.zeros(len(values), [("index", "<i8"), ("values_block_0", "<f8", (values[0].size,))])
    rows["index"], rows["values_block_0"] = np.arange(len(values)), values.reshape(len(values), -1)
    with h5py.File(path, "w") as file:
        group = file.create_group("df_with_missing")
        group["table"] = rows
        group.attrs["non_index_axes"] = np.bytes_(pickle.dumps([(1, dlc_columns())], 0))
    return path


@pytest.mark.parametrize("write", [fixed_h5, table_h5])
def test_deeplabcut_h5_equals_its_csv(tmp_path, write):
    values = dlc_values()
    path = write(tmp_path / "x.h5", values)
    assert detect_format(path) == "deeplabcut"
    [item], [other] = read_poses(path), read_poses(dlc_csv(tmp_path / "x.csv", values))
    assert np.array_equal(item.poses.keypoints, other.poses.keypoints)
    assert np.array_equal(item.poses.score, other.poses.score)
    assert item.poses.skeleton == other.poses.skeleton


def test_deeplabcut_h5_columns_that_run_code_are_refused(tmp_path):
    path = table_h5(tmp_path / "x.h5", dlc_values())
    with h5py.File(path, "a") as file:
        file["df_with_missing"].attrs["non_index_axes"] = np.bytes_(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(InputError, match=r"names os\.system, which is not data"):
        list(read_poses(path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("coords", "axes"), "has no row 'coords'"),
        (
            lambda text: text.replace("likelihood", "trust"),
            "has the coordinate 'trust'; expected x, y, z or likelihood",
        ),
        (lambda text: text[:-40], "It is cut short"),
        (lambda text: text.replace("\n1,", "\n0,"), "has frame 0 of .* twice"),
        (lambda text: text.replace("\n1,", "\none,"), "has the row 'one'; expected a frame number"),
        (lambda text: text.replace("Tail", "Nose"), "has a column twice"),
        (lambda text: text.replace("25.0", "wide"), "must hold numbers"),
    ],
)
def test_deeplabcut_damaged_csv_is_refused(tmp_path, change, message):
    path = dlc_csv(tmp_path / "x.csv", dlc_values())
    path.write_text(change(path.read_text()))
    with pytest.raises(InputError, match=message):
        list(read_poses(path))


def test_h5_links_to_other_files_are_not_followed(tmp_path):
    fixed_h5(tmp_path / "other.h5", dlc_values())
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["df_with_missing"] = h5py.ExternalLink("other.h5", "/df_with_missing")
    with pytest.raises(InputError, match=r"'df_with_missing' in .*x\.h5 is a link, which is not followed"):
        list(read_poses(tmp_path / "x.h5", "deeplabcut"))


def test_h5_bomb_is_refused(tmp_path, monkeypatch):
    from actionprep.datasets.poses.formats import safe_h5

    monkeypatch.setattr(safe_h5, "FREE_BYTES", 1 << 16)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["node_names"] = np.array([b"a"])
        file.create_dataset("tracks", (1, 2, 1, 1 << 22), "f8", compression="gzip")
    with pytest.raises(InputError, match=r"'tracks' in .*x\.h5 unpacks to 67 MB, more than 64 times the file"):
        list(read_poses(tmp_path / "x.h5"))


@pytest.mark.parametrize("content", [b"", b"\x89HDF\r\n\x1a\n" + bytes(90), b"no hdf5 at all"])
def test_h5_damaged_file_is_named(tmp_path, content):
    (tmp_path / "x.slp").write_bytes(content)
    with pytest.raises(InputError, match=r"x\.slp is not a sound HDF5 file"):
        list(read_poses(tmp_path / "x.slp"))


def analysis_h5(path, xy, score=None):
    """xy (frames, tracks, nodes, 2) as SLEAP writes it: (tracks, 2, nodes, frames)."""
    with h5py.File(path, "w") as file:
        file["node_names"] = np.array([b"head", b"left_wing", b"right_wing"])
        file["edge_inds"] = np.array([[0, 1], [0, 2]])
        file["tracks"] = xy.transpose(1, 3, 2, 0)
        if score is not None:
            file["point_scores"] = score.transpose(1, 2, 0)
    return path


@pytest.mark.parametrize("by_hand", [False, True])
def test_sleap_analysis_h5(tmp_path, by_hand):
    xy = np.random.default_rng(0).uniform(2, 90, (5, 2, 3, 2))
    xy[1, 0], xy[2, 1, 2] = np.nan, np.nan
    score = np.full((5, 2, 3), np.nan) if by_hand else np.random.default_rng(1).uniform(0.1, 1, (5, 2, 3))
    path = analysis_h5(tmp_path / "fly.analysis.h5", xy, score)
    assert detect_format(path) == "sleap"
    [item] = read_poses(path)
    assert item.recording == "fly"
    assert skeleton(item.poses.skeleton).limb_names == ("head-left_wing", "head-right_wing")
    assert item.poses.track_id.tolist() == [[0, 1], [-1, 1], [0, 1], [0, 1], [0, 1]]
    assert item.poses.keypoints[3] == pytest.approx(xy[3])
    assert item.poses.score[3] == pytest.approx(np.ones((2, 3)) if by_hand else score[3])
    assert np.argwhere(item.poses.score[2] == 0).tolist() == [[1, 2]]


def labels_slp(path, *, version=1.2, videos=1):
    """Frame 4: a predicted instance of track 0, corrected by hand, and an instance of track 1. Frame 9: no track."""
    nodes = [{"name": "spare"}, {"name": "head"}, {"name": "tail"}]
    metadata = {"nodes": nodes, "skeletons": [{"nodes": [{"id": 2}, {"id": 1}], "links": [{"source": 2, "target": 1}]}]}
    instance = np.dtype(
        [("instance_id", "<i8"), ("instance_type", "u1"), ("frame_id", "<u8"), ("skeleton", "<u4"), ("track", "<i4")]
        + [("from_predicted", "<i8"), ("score", "<f4"), ("point_id_start", "<u8"), ("point_id_end", "<u8")]
    )
    frame = np.dtype(
        [("frame_id", "<u8"), ("video", "<u4"), ("frame_idx", "<u8")]
        + [("instance_id_start", "<u8"), ("instance_id_end", "<u8")]
    )
    point = [("x", "<f8"), ("y", "<f8"), ("visible", "?"), ("complete", "?")]
    with h5py.File(path, "w") as file:
        group = file.create_group("metadata")
        group.attrs["json"], group.attrs["format_id"] = json.dumps(metadata), version
        file["frames"] = np.array([(0, 0, 4, 0, 3), (1, videos - 1, 9, 3, 4)], frame)
        file["instances"] = np.array(
            [
                (0, 1, 0, 0, 0, -1, 1, 0, 2),
                (1, 0, 0, 0, 0, 0, 0, 0, 2),
                (2, 1, 0, 0, 1, -1, 1, 2, 4),
                (3, 1, 1, 0, -1, -1, 1, 4, 6),
            ],
            instance,
        )
        file["points"] = np.array([(50, 60, True, True), (51, 61, False, True)], point)
        rows = [(10, 20, 0.5), (11, 21, 0.6), (30, 40, 0.7), (31, 41, 0.8), (70, 80, 0.9), (np.nan, np.nan, 0.1)]
        file["pred_points"] = np.array([(x, y, True, False, s) for x, y, s in rows], [*point, ("score", "<f8")])
        names = [json.dumps({"backend": {"filename": f"C:\\clips\\clip{at}.mp4"}}) for at in range(videos)]
        file["videos_json"] = np.array(names, "S")
    return path


@pytest.mark.parametrize(("version", "shift"), [(1.0, 0.5), (1.2, 0.0)])
def test_sleap_labels(tmp_path, version, shift):
    [item] = read_poses(labels_slp(tmp_path / "a.slp", version=version))
    assert skeleton(item.poses.skeleton).joints == ("tail", "head")
    assert item.poses.frame_index.tolist() == [4, 9]
    assert item.poses.track_id.tolist() == [[0, 1], [-1, -1]]
    assert item.poses.keypoints[0, 0, 0].tolist() == [50 - shift, 60 - shift]
    assert item.poses.score[0] == pytest.approx(np.array([[1, 0], [0.7, 0.8]]))
    assert item.poses.keypoints[1, 0, 0].tolist() == [70 - shift, 80 - shift]
    assert item.poses.score[1, 0, 1] == 0


def test_sleap_labels_of_two_videos_are_two_recordings(tmp_path):
    items = list(read_poses(labels_slp(tmp_path / "a.slp", videos=2)))
    assert [item.recording for item in items] == ["clip0", "clip1"]
    assert [item.poses.frame_index.tolist() for item in items] == [[4], [9]]


def test_sleap_csv(tmp_path):
    (tmp_path / "a.analysis.csv").write_text(
        "track,frame_idx,instance.score,A.x,A.y,A.score,B.x,B.y,B.score\n"
        "female,3,1,10,20,0.5,11,21,0.6\nmale,3,1,30,40,0.7,,,\nfemale,5,1,12,22,0.8,13,23,0.9\n,5,1,50,60,,51,61,\n"
    )
    [item] = read_poses(tmp_path / "a.analysis.csv")
    assert item.recording == "a"
    assert item.poses.frame_index.tolist() == [3, 5]
    assert item.poses.track_id.tolist() == [[0, 1, -1], [0, -1, -1]]
    assert item.poses.keypoints[1, 2].tolist() == [[50, 60], [51, 61]]
    assert item.poses.score[1, 2].tolist() == [1, 1]
    assert item.poses.score[0, 1].tolist() == pytest.approx([0.7, 0])


@pytest.mark.parametrize(("name", "shape", "nose"), [
    ("deeplabcut/testDLC_h5_table.h5", (100, 1, 14, 2), (321.79, 279.99)),
    ("deeplabcut/testDLC_csv_table.csv", (97, 1, 14, 2), (280.45, 328.91)),
    ("deeplabcut/maudlc_testdata_v2.csv", None, (0, 1)),
    ("sleap/testDLC_sleap.slp", (101, 1, 14, 2), (319.14, 277.01)),
    ("sleap/small_robot.000_small_robot_3_frame.analysis.h5", (3, 1, 3, 2), (322.88, 60.31)),
    ("mediapipe_users/pose_landmarks.csv", (300, 1, 33, 2), (0.18186557 * 640 - 0.5, 0.32517201 * 480 - 0.5)),
    ("mmpose_inferencer/video.json", (20, 2, 17, 2), (367.44, 78.8483)),
])  # fmt: skip
def test_real_files_of_tools(shared_data, name, shape, nose):
    path = shared_data / "foreign" / name
    options = {"image_size": (480, 640)} if "mediapipe" in name else {"skeleton": "coco17"} if "mmpose" in name else {}
    [item] = read_poses(path, **options)
    assert shape is None or item.poses.keypoints.shape == shape
    assert item.poses.keypoints[0, 0, 0].tolist() == pytest.approx(nose, abs=0.01)


def mmpose_person(at, joints=3):
    return {
        "keypoints": [[at + joint, 2 * at + joint] for joint in range(joints)],
        "keypoint_scores": [0.5, 0.0, -0.01][:joints],
        "bbox": [[at, at, at + 9, at + 9]],
        "bbox_score": 0.9,
    }


META = {"dataset_name": "fish", "keypoint_id2name": {"0": "eye", "1": "fin", "2": "tail"}, "skeleton_links": [[0, 1]]}


def test_mmpose_demo_names_its_joints(tmp_path):
    frames = [{"frame_id": 1 + at, "instances": [mmpose_person(10 * at + 5)] * (at != 1)} for at in range(3)]
    (tmp_path / "results_x.json").write_text(json.dumps({"meta_info": META, "instance_info": frames}))
    [item] = read_poses(tmp_path / "results_x.json")
    assert skeleton(item.poses.skeleton).joints == ("eye", "fin", "tail")
    assert skeleton(item.poses.skeleton).limb_names == ("eye-fin",)
    assert item.poses.frame_index.tolist() == [1, 2, 3]
    assert item.poses.present[:, 0].tolist() == [True, False, True]
    assert item.poses.keypoints[2, 0, 0].tolist() == [25, 50]
    assert item.poses.score[0, 0].tolist() == [0.5, 0, 0]
    assert item.poses.bbox[0, 0].tolist() == [5, 5, 14, 14]


def test_mmpose_predictions_need_a_layout(tmp_path):
    frames = [{"frame_id": 0, "instances": [mmpose_person(5)]}]
    (tmp_path / "x.json").write_text(json.dumps(frames, indent=2))
    with pytest.raises(UserError, match=r"does not name its joints, .* people and animals have 17\. Name the layout"):
        list(read_poses(tmp_path / "x.json"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"instances": 5}], "Entry 0 in .* has no list 'instances'"),
        ([{"frame_id": 1, "instances": []}] * 2, "has frame 1 twice"),
        ([{"instances": [{"keypoints": [[1, 2]]}]}], r"have the shape \(1, 2\); expected \(17, 2 or 3\)"),
        ([{"instances": [{"keypoints": [[1, 2]] * 17, "keypoint_scores": [1]}]}], "has 1 values; expected 17"),
        ({"meta_info": {}, "instance_info": 3}, "is not a file of MMPose"),
    ],
)
def test_mmpose_damaged_json_is_refused(tmp_path, content, message):
    (tmp_path / "x.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        list(read_poses(tmp_path / "x.json", "mmpose", skeleton="coco17"))


def landmarks_csv(form, values):
    """Write values (T, 33, 4) in a layout that users write."""
    frames, count = values.shape[:2]
    if form == "Frame,LandmarkID":
        rows = [f"{t},{k},{x},{y}" for t in range(frames) for k, (x, y, *_) in enumerate(values[t].tolist())]
        return "\n".join(["Frame,LandmarkID,X,Y", *rows])
    names = {"x1": "{axis}{n}", "x_0": "{axis}_{k}", "L0_x": "L{k}_{axis}", "landmark_0_x": "landmark_{k}_{axis}"}[form]
    axes = "xyzv"
    head = [names.format(axis=axis, k=k, n=k + 1) for k in range(count) for axis in axes]
    rows = [",".join(map(str, values[t].reshape(-1).tolist())) for t in range(frames)]
    return "\n".join([",".join(["label", *head]), *(f"walk,{row}" for row in rows)])


@pytest.mark.parametrize("form", ["Frame,LandmarkID", "x1", "x_0", "L0_x", "landmark_0_x"])
def test_mediapipe_csv_as_users_write_it(tmp_path, form):
    values = np.random.default_rng(0).uniform(0.1, 0.9, (3, 33 if form != "x1" else 40, 4))
    (tmp_path / "x.csv").write_text(landmarks_csv(form, values))
    assert detect_format(tmp_path / "x.csv") == "mediapipe"
    [item] = read_poses(tmp_path / "x.csv", image_size=(100, 200))
    assert item.poses.keypoints[:, 0] == pytest.approx(values[:, :33, :2] * [200, 100] - 0.5, abs=1e-4)
    visible = np.ones((3, 33)) if form.startswith("Frame") else values[:, :33, 3]
    assert item.poses.score[:, 0] == pytest.approx(visible)


def test_mediapipe_csv_of_a_hand_is_refused(tmp_path):
    (tmp_path / "x.csv").write_text(landmarks_csv("x_0", np.full((2, 21, 4), 0.5)))
    with pytest.raises(InputError, match=r"has landmarks 0 to 20; expected 0 to 32 of a pose"):
        list(read_poses(tmp_path / "x.csv", image_size=(100, 200)))


def test_openpose_26_joints_are_halpe26(tmp_path):
    joints = [[10.0 + 3 * at, 20.0 + at, 0.8] for at in range(26)]
    person = {"pose_keypoints_2d": [value for joint in joints for value in joint]}
    for frame in range(2):
        (tmp_path / f"cam_{frame:06d}.json").write_text(json.dumps({"people": [person]}))
    [item] = read_poses(tmp_path)
    layout = skeleton(item.poses.skeleton)
    assert layout.name == "halpe26"
    assert item.poses.keypoints[0, 0, layout.index("left_big_toe")].tolist() == joints[20][:2]
    assert item.poses.keypoints[0, 0, layout.index("hip_center")].tolist() == joints[19][:2]
