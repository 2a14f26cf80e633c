"""Pose files with invalid content: a clear error for each recording and no crash of the reader."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from pose_items import made_poses, write_npz

from actionprep.datasets.poses.formats import read_poses
from actionprep.errors import InputError, UserError

JOINT = "0.1 " * 11 + "2"
BODY = "7 0 0 0 0 0 0 0 0 2\n25\n" + f"{JOINT}\n" * 25


def annotation(name="a.b", **more):
    result = {
        "frame_dir": name,
        "total_frames": 3,
        "label": 0,
        "keypoint": np.full((1, 3, 17, 2), 5, np.float16),
        "keypoint_score": np.ones((1, 3, 17), np.float16),
        "img_shape": (100, 200),
    }
    return {**result, **more}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"keypoint_score": np.ones((3, 17))}, r"'keypoint_score' of 'a.b' .* must have the shape \(1, 3, 17\)"),
        ({"keypoint_score": "x"}, "'keypoint_score' in 'a.b' .* must be numbers"),
        ({"label": [1, 2]}, "'label' in 'a.b' .* must be one number, got 2"),
        ({"label": 2.5}, "'label' in .* must be whole numbers"),
        ({"label": float("nan")}, "'label' in .* must be whole numbers"),
        ({"total_frames": "three"}, "'total_frames' in .* must be numbers"),
        ({"keypoint": [[1, 2], [3]]}, "'keypoint' in .* must be numbers in rows of one length"),
        ({"img_shape": 100}, r"must be \(height, width\) in pixels, got 100"),
        ({"img_shape": "ab"}, "The image size in .* must be numbers"),
    ],
)
def test_a_wrong_annotation_of_a_pickle_is_refused_by_name(tmp_path, more, message):
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps([annotation(**more)]))
    with pytest.raises(InputError, match=message):
        list(read_poses(path))


@pytest.mark.parametrize("ids", [5, None, "a.b"])
def test_a_split_that_is_no_list_of_ids_is_refused(tmp_path, ids):
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"split": {"xsub_train": ids}, "annotations": [annotation()]}))
    with pytest.raises(InputError, match=r"The split 'xsub_train' in .* must be a list of ids, got"):
        list(read_poses(tmp_path / "x.pkl"))


@pytest.mark.parametrize(
    ("text", "message"),
    [("-3\n", "'-3' is no count"), ("1\n-1\n", "'-1' is no count"), ("inf\n", "'inf' is no count")],
)
def test_counts_of_a_skeleton_file_are_counts(tmp_path, text, message):
    (tmp_path / "x.skeleton").write_text(text)
    with pytest.raises(InputError, match=message):
        list(read_poses(tmp_path / "x.skeleton"))


@pytest.mark.parametrize("word", ["nan", "1e39", "-inf"])
def test_a_joint_of_a_skeleton_file_that_is_no_place_is_missing(tmp_path, word):
    (tmp_path / "x.skeleton").write_text(f"1\n1\n{BODY}".replace(JOINT, f"{word} {JOINT[4:]}", 1))
    [item] = read_poses(tmp_path / "x.skeleton")
    assert item.poses.score[0, 0].tolist() == [0] + [1] * 24


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"people": [5]}', "has no list 'people' of objects"),
        ("[" * 100_000, "holds JSON that no pose file has"),
        ('{"people": [{"pose_keypoints_2d": [' + "9" * 5000 + ", 1, 1]}]}", "holds JSON that no pose file has"),
    ],
)
def test_wrong_json_is_refused(tmp_path, text, message):
    (tmp_path / "v_000000000000_keypoints.json").write_text(text)
    with pytest.raises(InputError, match=message):
        list(read_poses(tmp_path, "openpose"))


@pytest.mark.parametrize("first", ["", "\xff\xfe"])
def test_a_damaged_first_file_does_not_hide_the_format(tmp_path, first):
    (tmp_path / "v_000000000000_keypoints.json").write_text(first, encoding="latin-1")
    with pytest.raises(InputError, match=r"is not valid JSON|is not text"):
        list(read_poses(tmp_path))


def coco(**more):
    person = {"image_id": 1, "keypoints": [1, 2, 2] * 17, "bbox": [0, 0, 5, 5]}
    image = {"id": 1, "file_name": "a/1.jpg"}
    return {"images": [{**image, **more.pop("image", {})}], "annotations": [{**person, **more}]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": [{"file_name": "x"}], "annotations": []}, "Image 0 in .* has no 'id'"),
        ({"images": [5], "annotations": []}, "'images' in .* must be a list of objects"),
        ({"images": [], "annotations": [5]}, "'annotations' in .* must be a list of objects"),
        ({**coco(), "categories": "x"}, "'categories' in .* must be a list of objects"),
        ({"images": coco()["images"] * 2, "annotations": []}, "has the image id 1 twice"),
        (coco(image_id=[1]), "Annotation 0 in .* has no 'image_id'"),
        (coco(image_id=9), "has people in 1 images that it does not list; the first has the id 9"),
        (coco(bbox=[1]), r"'bbox' in .* must be left, top, width, height, got \[1\]"),
        (coco(track_id="a"), "'track_id' in .* must be numbers"),
        (coco(keypoints=["a"] * 51), "'keypoints' in .* must be numbers"),
        (coco(foot_kpts=5), "'foot_kpts' in .* has 1 values; expected 18"),
        (coco(image={"height": "x", "width": 4}), "The image size in .* must be numbers"),
        (coco(image={"file_name": "a", "frame_id": "x"}), "'frame_id' in .* must be numbers"),
    ],
)
def test_wrong_coco_content_is_refused(tmp_path, content, message):
    (tmp_path / "x.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        list(read_poses(tmp_path / "x.json", "coco", skeleton="coco17"))


def test_coco_image_without_an_extension_keeps_its_full_name(tmp_path):
    (tmp_path / "x.json").write_text(json.dumps(coco(image={"file_name": "rec.001"})))
    assert [item.recording for item in read_poses(tmp_path / "x.json")] == ["rec.001"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("frame,joint,x,y\n,nose,1,2\n", "The column 'frame' in .* must be whole numbers"),
        ("frame,joint,x,y\n1.5,nose,1,2\n", "The column 'frame' in .* must be whole numbers"),
        ("frame,joint,x,y\na,nose,1,2\n", "The column 'frame' in .* must be numbers"),
        ("frame,joint,x,y\n0,nose,a,2\n", "The column 'x' in .* must be numbers"),
        ("frame,joint,x,y,score\n0,nose,1,2,high\n", "The column 'score' in .* must be numbers"),
        ("frame,joint,x,y,person\n0,nose,1,2,bob\n", "The column 'person' in .* must be numbers"),
        ("frame,joint,x,y\n0,nose,1,2\n1000000000,nose,1,2\n", "has 2 rows, of frames 0 to 1000000000"),
        ("frame,joint,x,y,time\n0,nose,1,2,1\n1,nose,1,2,1\n", "The times in .* must be finite and rise"),
    ],
)
def test_a_wrong_csv_of_poses_is_refused(tmp_path, text, message):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        list(read_poses(tmp_path / "x.csv", skeleton="coco17"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("frame,landmark,x,y\n,nose,1,2\n", "The column 'frame' in .* must be whole numbers"),
        ("frame,landmark,x,y\n0,nose,a,2\n", "The column 'x' in .* must be numbers"),
        ("frame,landmark,x,y\n0,nose,1,2\n2000000000,nose,1,2\n", "of frames 0 to 2000000000"),
        ("frame,landmark,x,y,person\n0,nose,1,2,-1\n", "must number persons from 0, got -1"),
    ],
)
def test_a_wrong_csv_of_landmarks_is_refused(tmp_path, text, message):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        list(read_poses(tmp_path / "x.csv", image_size=(4, 4)))


def test_a_csv_of_landmarks_without_rows_is_empty(tmp_path):
    (tmp_path / "x.csv").write_text("frame,landmark,x,y\n")
    [item] = read_poses(tmp_path / "x.csv", image_size=(4, 4))
    assert item.poses.num_frames == 0


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"track_id": np.full((2, 1), np.nan)}, "The array 'track_id' of .* must have integer values"),
        ({"track_id": np.array([["a"], ["b"]])}, "The array 'track_id' of .* must hold numbers"),
        ({"frame_index": np.array([0.5, 1])}, "The array 'frame_index' of .* must have integer values"),
        ({"time": np.array([1.0, np.nan])}, "The times in .* must be finite and rise"),
        ({"time": np.array([2.0, 1.0])}, "The times in .* must be finite and rise"),
        ({"image_size": np.array(4)}, r"The image size in .* must be \(height, width\)"),
        ({"image_size": np.array(["a", "b"])}, "The image size in .* must be numbers"),
    ],
)
def test_wrong_arrays_of_an_npz_are_refused(tmp_path, more, message):
    np.savez(tmp_path / "x.npz", **{"keypoints": np.ones((2, 1, 17, 2)), "skeleton": "coco17", **more})
    with pytest.raises(InputError, match=message):
        list(read_poses(tmp_path / "x.npz"))


@pytest.mark.parametrize("offsets", [np.array([]), np.array(5), np.array([-1, 5]), np.array([2, 5]), np.array([0, 4])])
def test_offsets_must_cut_all_frames(tmp_path, offsets):
    entry = {name: np.array([1]) for name in ("action", "subject", "instance")}
    np.savez(tmp_path / "msr.npz", joints_xyzc=np.ones((5, 20, 4)), offsets=offsets, **entry)
    with pytest.raises(InputError, match=r"'offsets' in .* do not cut 5 frames into 1 clips"):
        list(read_poses(tmp_path / "msr.npz"))
    parts = {"xy": np.ones((5, 15, 2)), "label": np.array(["run"]), "offsets": offsets}
    np.savez(tmp_path / "split1.npz", **{f"{part}_{name}": parts[name] for part in ("train", "test") for name in parts})
    with pytest.raises(InputError, match=r"'train_offsets' in .* do not cut 5 frames into 1 clips"):
        list(read_poses(tmp_path / "split1.npz"))


def test_a_frame_number_beyond_all_numbers_is_refused(tmp_path):
    (tmp_path / "joints_s01_e01.txt").write_text("inf" + " 1" * 60)
    with pytest.raises(InputError, match=r"Line 1 of .* must hold numbers"):
        list(read_poses(tmp_path))


@pytest.mark.parametrize("format", ["coco", "mediapipe", "pose-csv", "pyskl"])
def test_a_folder_is_not_taken_for_a_file(tmp_path, format):
    with pytest.raises(UserError, match=f"is a folder, and '{format}' .* is one file: name the file"):
        read_poses(tmp_path, format)


def damaged_set(folder, format):
    """Write three recordings in a format. The second is damaged."""
    if format == "pyskl":
        bad = annotation("b.2", keypoint_score=np.full((1, 3, 17), -1.0))
        (folder / "x.pkl").write_bytes(pickle.dumps([annotation("a.1"), bad, annotation("c.3")]))
        return folder / "x.pkl"
    for name in ("a.1", "b.2", "c.3"):
        bad = name == "b.2"
        if format == "ntu":
            (folder / f"{name}.skeleton").write_text("1\n1\n" + (BODY[:200] if bad else BODY))
        elif format == "openpose":
            content = json.dumps({"people": [{"pose_keypoints_2d": [1.0, 2.0, 0.5] * 25}]})
            (folder / f"{name}_000000000000_keypoints.json").write_text(content[: 30 if bad else None])
        elif format == "pose-npz":
            write_npz(folder / f"{name}.npz", made_poses(3))
            if bad:
                (folder / f"{name}.npz").write_bytes((folder / f"{name}.npz").read_bytes()[:100])
        elif format == "utkinect":
            (folder / f"joints_{name}.txt").write_text("1" + " 1" * (7 if bad else 60))
        elif format == "jhmdb":
            from scipy.io import savemat

            (folder / f"run/{name}").mkdir(parents=True)
            savemat(folder / f"run/{name}/joint_positions.mat", {"pos_img": np.full((2, 3 if bad else 15, 4), 9.0)})
    if format == "coco":
        names = ("a.1", "b.2", "c.3")
        people = [{"image_id": n, "keypoints": [1, 2, 2] * (9 if n == "b.2" else 17)} for n in names]
        images = [{"id": n, "file_name": f"{n}.jpg"} for n in names]
        (folder / "x.json").write_text(json.dumps({"images": images, "annotations": people}))
        return folder / "x.json"
    if format == "pose-csv":
        rows = [f"{name},0,nose,{'x' if name == 'b.2' else 1},2" for name in ("a.1", "b.2", "c.3")]
        (folder / "x.csv").write_text("\n".join(["recording,frame,joint,x,y", *rows]))
        return folder / "x.csv"
    return folder


@pytest.mark.parametrize("format", ["pyskl", "ntu", "openpose", "coco", "pose-npz", "pose-csv", "utkinect", "jhmdb"])
def test_damaged_recording_is_reported_and_the_others_are_read(tmp_path, format):
    path = damaged_set(tmp_path, format)
    options = {"skeleton": "coco17"} if format in ("coco", "pose-csv") else {}
    reported = {}
    result = [item.recording for item in read_poses(path, format, damaged=reported.__setitem__, **options)]
    above = "run/" if format == "jhmdb" else ""
    assert result == [f"{above}a.1", f"{above}c.3"]
    assert list(reported) == [f"{above}b.2"]
    with pytest.raises(InputError) as problem:
        list(read_poses(path, format, **options))
    assert problem.value.reason == reported[f"{above}b.2"].reason


@pytest.mark.parametrize("name", [None, 5, ["nose"]])
def test_coco_joint_name_that_is_no_text_is_refused(tmp_path, name):
    categories = [{"id": 1, "name": "person", "keypoints": [*(f"k{at}" for at in range(16)), name]}]
    (tmp_path / "x.json").write_text(json.dumps({**coco(), "categories": categories}))
    with pytest.raises(InputError, match=r"The category 'person' in .*x\.json has the joint name .*; expected text"):
        list(read_poses(tmp_path / "x.json"))
