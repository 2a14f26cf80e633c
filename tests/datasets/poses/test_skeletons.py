"""Layouts, derived data and conversion between layouts."""

from __future__ import annotations

import numpy as np
import pytest

from actionprep.datasets.poses.skeletons import (
    conversion,
    convert,
    joint_positions,
    load_layout,
    match_layout,
    skeleton,
    skeleton_names,
)
from actionprep.errors import UserError

JOINTS = {
    "coco17": 17,
    "coco18": 18,
    "body25": 25,
    "body25b": 25,
    "h36m17": 17,
    "ntu25": 25,
    "kinect20": 20,
    "jhmdb15": 15,
    "mediapipe33": 33,
    "mediapipe_hands42": 42,
    "mediapipe_holistic143": 143,
    "coco_wholebody": 133,
    "openpose137": 137,
    "posetrack17": 17,
    "halpe26": 26,
}


def test_all_layouts_are_there_with_their_number_of_joints():
    assert {name: skeleton(name).num_joints for name in skeleton_names()} == JOINTS


@pytest.mark.parametrize("name", JOINTS)
def test_flipping_twice_gives_the_joints_back_and_exchanges_sides(name):
    layout = skeleton(name)
    order = layout.flip_order
    assert [order[order[joint]] for joint in range(layout.num_joints)] == list(range(layout.num_joints))
    for joint, mirrored in zip(layout.joints, (layout.joints[i] for i in order), strict=True):
        if joint.startswith("left_"):
            assert mirrored == "right_" + joint[5:]


@pytest.mark.parametrize("name", JOINTS)
def test_flipping_maps_limbs_to_limbs(name):
    layout = skeleton(name)
    limbs = {frozenset(limb) for limb in layout.limbs}
    assert {frozenset(layout.flip_order[end] for end in limb) for limb in layout.limbs} == limbs


@pytest.mark.parametrize("name", JOINTS)
def test_the_tree_is_made_of_limbs_without_a_loop(name):
    layout = skeleton(name)
    limbs = {frozenset(limb) for limb in layout.limbs}
    for joint, parent in layout.bones:
        assert frozenset((joint, parent)) in limbs
    for joint in range(layout.num_joints):
        steps = 0
        while joint >= 0:
            joint, steps = layout.parents[joint], steps + 1
            assert steps <= layout.num_joints


@pytest.mark.parametrize("name", JOINTS)
def test_the_body_hangs_together(name):
    layout = skeleton(name)
    loose = {joint for joint, parent in zip(layout.joints, layout.parents, strict=True) if parent < 0}
    assert {joint for joint in loose if not joint.startswith("face_")} == {layout.joints[layout.root]}


@pytest.mark.parametrize("name", JOINTS)
def test_layouts_have_symmetric_drawing_positions(name):
    places = joint_positions()
    layout = skeleton(name)
    for left, right in layout.symmetric:
        (x, y), (x2, y2) = places[layout.joints[left]], places[layout.joints[right]]
        assert (x, y) == pytest.approx((-x2, y2), abs=1e-3)
        assert x > 0


def test_limbs_of_coco_are_the_17_of_the_published_limb_heatmaps():
    assert len(skeleton("coco17").limbs) == 17


def test_names_may_be_written_with_hyphens_capitals_and_by_alias():
    assert skeleton("BODY-25").name == "body25"
    assert skeleton("COCO").name == "coco17"
    assert skeleton("Kinect v2").name == "ntu25"


def test_skeleton_suggests_the_nearest_layout():
    with pytest.raises(UserError, match=r"^Unknown skeleton 'mediapip33'\. Did you mean 'mediapipe33'\? Known: body25"):
        skeleton("mediapip33")


def test_every_layout_converts_to_itself_without_loss():
    for name in skeleton_names():
        done = conversion(name, name)
        assert (len(done.kept), done.derived, done.missing, done.lost) == (JOINTS[name], {}, (), ())


def test_the_neck_is_the_middle_of_the_shoulders_with_the_lower_score():
    layout = skeleton("coco17")
    points, score = np.zeros((2, 17, 2), np.float32), np.ones((2, 17), np.float32)
    points[:, layout.index("left_shoulder")] = (10, 20)
    points[:, layout.index("right_shoulder")] = (30, 40)
    score[0, layout.index("left_shoulder")] = 0.25
    score[1, layout.index("left_shoulder")] = 0
    new, seen, done = convert(points, score, "coco17", "coco18")
    neck = skeleton("coco18").index("neck")
    assert new[0, neck].tolist() == [20, 30]
    assert seen[:, neck].tolist() == [0.25, 0]
    assert new[1, neck].tolist() == [0, 0]
    assert done.derived == {"neck": ("left_shoulder", "right_shoulder")}
    assert len(done.kept) == 17


def test_conversion_reports_derived_missing_and_lost_joints():
    assert str(conversion("coco17", "h36m17")) == (
        "coco17 → h36m17: 13 joints kept; derived hip_center = mean of left_hip + right_hip, "
        "spine = mean of left_hip + right_hip + left_shoulder + right_shoulder, "
        "neck = mean of left_shoulder + right_shoulder, head = mean of left_eye + right_eye; "
        "not carried over left_ear, right_ear"
    )
    assert conversion("kinect20", "coco17").missing == ("left_eye", "right_eye", "left_ear", "right_ear")
    assert conversion("mediapipe33", "coco17").missing == ()


def test_a_conversion_moves_every_kept_joint_by_name():
    rng = np.random.default_rng(0)
    points, score = rng.random((3, 4, 33, 2), np.float32), rng.random((3, 4, 33), np.float32)
    new, seen, done = convert(points, score, "mediapipe33", "body25")
    for joint in done.kept:
        here, there = skeleton("body25").index(joint), skeleton("mediapipe33").index(joint)
        assert np.array_equal(new[..., here, :], points[..., there, :])
        assert np.array_equal(seen[..., here], score[..., there])
    for joint in done.missing:
        assert not seen[..., skeleton("body25").index(joint)].any()


def test_keypoints_of_another_layout_are_refused():
    with pytest.raises(UserError, match=r"'coco17' has 17 joints: expected keypoints \(\.\.\., 17, C\)"):
        convert(np.zeros((2, 18, 2)), np.zeros((2, 18)), "coco17", "coco18")


def test_layout_is_detected_from_joint_names():
    assert match_layout(skeleton("ntu25").joints).name == "ntu25"
    assert match_layout(["nose", "tail"]) is None


def test_fingers_are_known_by_the_names_that_mmpose_gives_them():
    names = [
        joint.replace("face_", "face-").replace("index_", "forefinger").replace("thumb_", "thumb")
        for joint in skeleton("coco_wholebody").joints
    ]
    for finger in ("middle", "ring", "pinky"):
        names = [name.replace(f"{finger}_", f"{finger}_finger") for name in names]
    assert names[-1] == "right_pinky_finger4"
    assert names[91:97] == [
        "left_hand_root",
        "left_thumb1",
        "left_thumb2",
        "left_thumb3",
        "left_thumb4",
        "left_forefinger1",
    ]
    assert match_layout(names).name == "coco_wholebody"


LIZARD = """
joints = ["head", "tail", "left_paw", "right_paw"]
limbs = [["head", "tail"], ["head", "left_paw"], ["head", "right_paw"]]
"""


def test_custom_layout_needs_few_lines(tmp_path):
    path = tmp_path / "lizard.toml"
    path.write_text(LIZARD)
    layout = skeleton(str(path))
    assert layout.name == "lizard"
    assert layout.flip_order == (0, 1, 3, 2)
    assert layout.parents == (-1, 0, 0, 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("joints = [", "is not valid TOML"),
        ("limbs = []", "has no 'joints'"),
        (LIZARD + 'rot = "head"', "Unknown key 'rot' in .* Did you mean 'root'"),
        (LIZARD + 'root = "haed"', "'root' in .* names 'haed', which is not among its joints. Did you mean 'head'"),
        (LIZARD + 'symmetric = [["left_paw", "right_paw"], ["left_paw", "tail"]]', "'symmetric' .* left_paw twice"),
        (LIZARD + "dimensions = 4", "'dimensions' in .* must be 2 or 3, got 4"),
        ('joints = ["a", "a"]\nlimbs = []', "names a joint twice: a"),
        ('joints = ["a", "b"]\nlimbs = [["a", "a"]]', r"pairs of two different joint names, got \['a', 'a'\]"),
        ('joints = ["a", "b"]\nlimbs = []\n[derive]\na = ["b"]', "must be a list of alternatives"),
        ('joints = "ab"\nlimbs = []', "'joints' in .* must be a list of names"),
    ],
)
def test_wrong_layout_file_raises_a_clear_error(tmp_path, text, message):
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        load_layout(path)


def test_a_layout_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"No skeleton layout at .*gone\.toml"):
        skeleton(str(tmp_path / "gone.toml"))


def test_turned_digits_name_the_layout_that_has_them():
    with pytest.raises(UserError, match=r"Unknown skeleton 'coco71'\. Did you mean 'coco17'\?"):
        skeleton("coco71")


def test_layout_that_is_not_utf8_is_named(tmp_path):
    (tmp_path / "lay.toml").write_bytes(b'joints = ["a\xd9"]\nlimbs = []\n')
    with pytest.raises(UserError, match=r"The skeleton layout .*lay\.toml is not UTF-8 text: .* at byte 12"):
        load_layout(tmp_path / "lay.toml")
