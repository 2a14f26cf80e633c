"""Formats of skeleton data sets: generated, real and damaged files."""

from __future__ import annotations

import pickle
import tracemalloc

import numpy as np
import pytest
from pose_items import only, sequence
from scipy.io import savemat

from actionprep.datasets.poses.formats import read_poses
from actionprep.datasets.poses.formats.jhmdb import read_jhmdb
from actionprep.datasets.poses.formats.msr_action3d import ACTIONS, read_msr_action3d
from actionprep.datasets.poses.formats.ntu import XSUB60, XSUB120, read_ntu
from actionprep.datasets.poses.formats.pyskl import read_pyskl, write_pyskl
from actionprep.datasets.poses.formats.utkinect import read_utkinect
from actionprep.datasets.poses.sequence import PoseItem, PoseSequence
from actionprep.datasets.poses.skeletons import skeleton
from actionprep.errors import InputError, UserError

COCO = skeleton("coco17").joints


# PySKL


def test_of_a_pyskl_pickle_one_annotation_is_in_memory_at_a_time(tmp_path):
    path = pyskl(tmp_path, [entry(f"c{index}", frames=3000) for index in range(12)])
    tracemalloc.start()
    try:
        assert sum(item.poses.num_frames for item in read_pyskl(path)) == 36_000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # The reader copies the arrays of one annotation to larger types. This takes far less than twelve annotations.
    assert peak < 6 * 3000 * 2 * 17 * 3 * 8


def pyskl(tmp_path, annotations, split=None):
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps({"split": split or {}, "annotations": annotations}))
    return path


def entry(name="S001C001.p1.v2", dims=2, joints=17, frames=4, **more):
    rng = np.random.default_rng(2)
    keypoint = rng.uniform(0, 1000, (2, frames, joints, dims)).astype(np.float16)
    keypoint[1, 2:] = 0
    result = {"frame_dir": name, "total_frames": frames, "label": 3, "keypoint": keypoint}
    if dims == 2:
        result |= {"keypoint_score": np.full((2, frames, joints), 0.7, np.float16), "img_shape": (1080, 1920)}
    return {**result, **more}


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
        ([entry(total_frames=9)], {}, "has total_frames 9, but its keypoints have 4 frames"),
        ([entry(), entry()], {}, "has the id 'S001C001.p1.v2' twice"),
        ([entry()], {"train": ["S001C001"]}, "1 ids in the splits of .* have no annotation; the first is 'S001C001'"),
        ([entry(keypoint_score=np.ones((2, 4, 3)))], {}, r"score' of .* must have the shape \(2, 4, 17\)"),
        ([entry(keypoint_score=np.full((2, 4, 17), -1.0))], {}, "must be finite and at least 0"),
        ([5], {}, "Annotation 0 of .* is a int"),
        ("text", {}, "is not a PySKL file"),
    ],
)
def test_wrong_pyskl_content_is_refused(tmp_path, annotations, split, message):
    with pytest.raises(InputError, match=message):
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
    assert [each["label"] for each in plain["annotations"]] == [1, 0]
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


def test_truncated_ntu_file_names_the_position(tmp_path):
    lines = ntu_text([[(72, 1)], [(72, 2)]]).splitlines()
    path = tmp_path / "x.skeleton"
    for end in range(len(lines) - 1):
        path.write_text("\n".join(lines[:end]))
        with pytest.raises(InputError, match=rf"ends after line {end}, where .* should follow\. The file is cut"):
            list(read_ntu(path))


def test_a_wrong_ntu_row_names_its_line(tmp_path):
    path = tmp_path / "x.skeleton"
    path.write_text(ntu_text([[(72, 1)]]).replace("1 3 3 2 20", "1 3 3 2"))
    with pytest.raises(InputError, match=r"Line 8 of .* has 11 values; expected 12 for a joint"):
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
    with pytest.raises(InputError, match=r"'train_offsets' in .* do not cut 4 frames into 1 clips"):
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
    with pytest.raises(InputError, match="has 120 numbers; a frame is 20 rows of 4"):
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
    assert sit.extra == {"frames": (13, 20), "unlabeled": ["carry"], "num_repeated_frames": 0}
    whole = only(read_utkinect(folder, segments=False))
    assert whole.poses.frame_index.tolist() == [10, 12, 13, 20]


def test_utkinect_first_row_of_a_number_counts(tmp_path):
    rows = [(1, 1.0), (2, 2.0), (2, 7.0), (2, 8.0), (3, 3.0), (1, 9.0)]
    folder = utkinect(tmp_path, rows, "s01_e02\nwalk: 2 3\n")
    whole = only(read_utkinect(folder, segments=False))
    assert whole.poses.keypoints[:, 0, 0, 0].tolist() == [1, 2, 3]
    assert whole.extra["num_repeated_frames"] == 3
    walk = only(read_utkinect(folder))
    assert walk.extra["num_repeated_frames"] == 2


@pytest.mark.parametrize(
    ("rows", "labels", "message"),
    [
        ([(1, 1.0)], "s01_e02\nwalk: 5 9\n", "labels frames 5 to 9 of 's01_e02' as walk, and .* has none of them"),
        ([(1, 1.0)], "walk: 5 9\n", "Line 1 of .* is a segment before any recording"),
        ([(1, 1.0)], "s01_e02\nwalk 5 9\n", "Line 2 of .* is neither a recording's name nor"),
        ([(1, 1.0)], "s01_e02\nwalk: 9 5\n", "Line 2 of .* must be 'label: first last'"),
        ([(1, "x")], None, "Line 1 of .* must hold numbers"),
    ],
)
def test_wrong_utkinect_files_are_refused(tmp_path, rows, labels, message):
    with pytest.raises(InputError, match=message):
        list(read_poses(utkinect(tmp_path, rows, labels)))
