"""COCO files: layouts from the names in the file, images as frames, numbers of persons."""

from __future__ import annotations

import json

import numpy as np
import pytest

from actionprep.datasets.poses.formats import read_poses
from actionprep.datasets.poses.pixels import FIRST_PIXEL_CENTER, first_pixel_center, to_pixel_centers
from actionprep.datasets.poses.skeletons import skeleton, skeleton_of_item, stored_layout
from actionprep.errors import InputError, UserError

ANIMAL = [
    *("left_eye", "right_eye", "nose", "neck", "root_of_tail", "left_shoulder", "left_elbow", "left_front_paw"),
    *("right_shoulder", "right_elbow", "right_front_paw", "left_hip", "left_knee", "left_back_paw", "right_hip"),
    *("right_knee", "right_back_paw"),
]


def named_file(folder, names, limbs=(), categories=1):
    images = [{"id": at, "file_name": f"clip/{at}.jpg"} for at in range(3)]
    keypoints = [value for joint in range(len(names)) for value in (10 + joint, 20 + joint, 2)]
    people = [{"image_id": at, "category_id": at % categories, "keypoints": keypoints} for at in range(3)]
    kinds = [{"id": at, "name": f"kind {at}", "keypoints": names, "skeleton": limbs} for at in range(categories)]
    content = {"images": images, "annotations": people, "categories": kinds}
    (folder / "x.json").write_text(json.dumps(content))
    return folder / "x.json"


def test_coco_17_named_joints_are_not_coco17(tmp_path):
    [item] = read_poses(named_file(tmp_path, ANIMAL, [[1, 2], [1, 3], [4, 5]]))
    layout = skeleton(item.poses.skeleton)
    assert list(layout.joints) == ANIMAL
    assert layout.limb_names == ("left_eye-right_eye", "left_eye-nose", "neck-root_of_tail")
    assert {(ANIMAL[a], ANIMAL[b]) for a, b in layout.symmetric} == {
        (name, name.replace("left", "right")) for name in ANIMAL if name.startswith("left")
    }
    assert item.poses.keypoints[0, 0, layout.index("neck")].tolist() == [13, 23]


def test_coco_limbs_counted_from_0(tmp_path):
    [item] = read_poses(named_file(tmp_path, ANIMAL, [[0, 1], [0, 2], [16, 15], ["x", 2], [3]]))
    layout = skeleton(item.poses.skeleton)
    assert layout.limb_names == ("left_eye-right_eye", "left_eye-nose", "right_knee-right_back_paw")


def test_coco_layout_of_a_file_is_stored_with_the_item(tmp_path, monkeypatch):
    from actionprep.datasets.poses import skeletons

    [item] = read_poses(named_file(tmp_path, ANIMAL))
    stored = {"skeleton": item.poses.skeleton, **stored_layout(item.poses.skeleton)}
    monkeypatch.setattr(skeletons, "_from_stores", {})
    with pytest.raises(UserError, match="Unknown skeleton"):
        skeleton(item.poses.skeleton)
    assert list(skeleton(skeleton_of_item(json.loads(json.dumps(stored)))).joints) == ANIMAL


def test_coco_categories_with_the_same_joints_are_one_layout(tmp_path):
    [item] = read_poses(named_file(tmp_path, ANIMAL, categories=3))
    assert skeleton(item.poses.skeleton).num_joints == 17


def test_coco_17_names_of_coco_are_coco17(tmp_path):
    [item] = read_poses(named_file(tmp_path, list(skeleton("coco17").joints)))
    assert item.poses.skeleton == "coco17"


@pytest.mark.parametrize(
    ("name", "joints", "first"),
    [("h36m_coco", 17, "root_(pelvis)"), ("test_ap10k", 17, "left_eye"), ("test_aic", 14, "right_shoulder")],
)
def test_coco_real_files_keep_their_names(shared_data, name, joints, first):
    path = shared_data / "foreign" / "mmpose_samples" / f"{name}.json"
    content = json.loads(path.read_text())
    items = list(read_poses(path))
    assert {item.poses.num_joints for item in items} == {joints}
    assert skeleton(items[0].poses.skeleton).joints[0] == first
    # One joint checked by hand against the annotation of the same image.
    image = items[0].extra["image_ids"][0]
    person = next(entry for entry in content["annotations"] if entry["image_id"] == image)
    x, y, flag = person["keypoints"][6:9]
    assert items[0].poses.keypoints[0, 0, 2].tolist() == pytest.approx([x, y] if flag else [0, 0])


def results(folder, names, **more):
    people = [
        {"image_id": name, "keypoints": [9.0 + at, 5.0, 0.5] * 17, **{key: value[at] for key, value in more.items()}}
        for at, name in enumerate(names)
    ]
    (folder / "clip.json").write_text(json.dumps(people))
    return folder / "clip.json"


@pytest.mark.parametrize(
    ("names", "numbers"),
    [
        (["0.jpg", "2.jpg", "10.jpg", "1.jpg"], [0, 1, 2, 10]),
        (["frame_00003.PNG", "frame_00001.PNG"], [1, 3]),
        ([7, 8, 9], [7, 8, 9]),
    ],
)
def test_coco_flat_numbered_images_are_one_recording(tmp_path, names, numbers):
    [item] = read_poses(results(tmp_path, names))
    assert item.recording == "clip"
    assert item.poses.frame_index.tolist() == numbers


def test_coco_photographs_are_recordings_by_themselves(tmp_path):
    names = ["000000037516.jpg", "000000000004.jpg"]
    assert [item.recording for item in read_poses(results(tmp_path, names))] == ["000000037516", "000000000004"]


def test_coco_flat_names_of_two_videos_are_two_recordings(tmp_path):
    names = ["walk_1.jpg", "run_1.jpg", "walk_2.jpg", "run_2.jpg"]
    assert sorted(item.recording for item in read_poses(results(tmp_path, names))) == ["run", "walk"]


@pytest.mark.parametrize(
    ("idx", "persons"), [([4, 5, 4], [4, 5, 4]), ([[1.0], [2.0], [1.0]], [1, 2, 1]), ([0, 0, 0], [-1, -1, -1])]
)
def test_alphapose_idx_is_the_person(tmp_path, idx, persons):
    [item] = read_poses(results(tmp_path, ["0.jpg", "0.jpg", "1.jpg"], idx=idx))
    track = item.poses.track_id
    assert [track[0, 0], track[0, 1], track[1, 0]] == persons


def test_alphapose_real_video_is_one_recording(shared_data):
    path = shared_data / "foreign" / "alphapose" / "alphapose-results.json"
    content = json.loads(path.read_text())
    [item] = read_poses(path)
    assert item.poses.num_frames == len({entry["image_id"] for entry in content})
    nose = next(entry for entry in content if entry["image_id"] == "10.jpg")["keypoints"][:2]
    at = item.poses.frame_index.tolist().index(10)
    assert item.poses.keypoints[at, 0, 0].tolist() == pytest.approx(nose, rel=1e-5)


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_coco_normalized_joints_are_refused(tmp_path, scale):
    path = results(tmp_path, ["0.jpg", "1.jpg"])
    people = json.loads(path.read_text())
    for person in people:
        person["keypoints"] = [scale, -scale, 0.9] * 17
    path.write_text(json.dumps(people))
    message = rf"recording 'clip' of .* lie between -{scale:g} and {scale:g}; expected pixels"
    with pytest.raises(InputError, match=message):
        list(read_poses(path))


def test_pixels_are_shifted_by_the_convention():
    for name in ("openpose", "mmpose", "vitpose", "coco", "ntu", "pose-npz"):
        assert first_pixel_center(name) == 0
    for name, center in FIRST_PIXEL_CENTER.items():
        assert np.array_equal(to_pixel_centers([[center, center + 3]], name), [[0, 3]])
