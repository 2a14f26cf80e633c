from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest

from actionprep.sample.actions import ACTIONS, perform, script_short
from actionprep.sample.body import JOINTS, PARTS, SUBJECTS, Body, BodyShape, pose_body, skin_points
from actionprep.sample.cameras import camera_ring, read_calibration, write_calibration
from actionprep.sample.patterns import band_noise, wardrobe
from actionprep.sample.render import draw_frames
from actionprep.sample.room import Backdrop, draw_backdrop, furniture, scene_depth
from actionprep.sample.visibility import visible_points

CAMERAS = camera_ring()
LABELS = [action.label for action in ACTIONS]


def pose(label: str, *, subject: int = 0, seed: int = 0, times: np.ndarray | None = None) -> Body:
    action = ACTIONS[LABELS.index(label)]
    script = script_short("r", action, subject=subject, session="a", rng=np.random.default_rng(seed))
    times = np.arange(0, script.duration, 1 / 30) if times is None else times
    return pose_body(SUBJECTS[subject], perform(script, SUBJECTS[subject], times))


def bone(body: Body, one: str, two: str) -> np.ndarray:
    joints = body.joints
    return np.linalg.norm(joints[:, JOINTS.index(one)] - joints[:, JOINTS.index(two)], axis=-1)


def dense_skin(body: Body, frame: int, count: int) -> np.ndarray:
    # (P, count, 3) points all over each ellipsoid, on a golden spiral.
    z = 1 - 2 * (np.arange(count) + 0.5) / count
    turn = np.pi * (1 + 5**0.5) * np.arange(count)
    unit = np.stack([np.sqrt(1 - z**2) * np.cos(turn), np.sqrt(1 - z**2) * np.sin(turn), z], axis=-1)
    scaled = unit[None] * body.radii[:, None]
    return body.centers[frame][:, None] + np.einsum("pij,pnj->pni", body.axes[frame], scaled)


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("subject", [0, 3, 4])
def test_bones_keep_their_lengths_and_feet_stay_on_or_above_the_floor(label: str, subject: int):
    body, shape = pose(label, subject=subject), SUBJECTS[subject]
    for side in ("left", "right"):
        np.testing.assert_allclose(bone(body, f"{side}_shoulder", f"{side}_elbow"), shape.upper_arm, rtol=1e-6)
        np.testing.assert_allclose(bone(body, f"{side}_elbow", f"{side}_wrist"), shape.forearm, rtol=1e-6)
        np.testing.assert_allclose(bone(body, f"{side}_hip", f"{side}_knee"), shape.thigh, rtol=1e-6)
        np.testing.assert_allclose(bone(body, f"{side}_knee", f"{side}_ankle"), shape.shin, rtol=1e-6)
        height = body.joints[:, JOINTS.index(f"{side}_ankle"), 2]
        assert height.min() > shape.ankle_height - 0.02
    np.testing.assert_allclose(np.linalg.det(body.axes), 1.0, atol=1e-9)


def test_subjects_are_eight_different_bodies():
    assert len(set(SUBJECTS)) == 8
    assert np.ptp([shape.height for shape in SUBJECTS]) > 0.25


@pytest.mark.parametrize("label", LABELS)
def test_the_body_moves_along_the_line_of_its_action(label: str):
    action = ACTIONS[LABELS.index(label)]
    neck = pose(label, seed=4).joints[:, JOINTS.index("neck"), :2]
    if action.kind == "hop":
        line = neck[-1] - neck[0]
        turn = np.degrees(np.arctan2(line[1], line[0])) - action.direction
        assert abs((turn + 180) % 360 - 180) < 16
    else:
        _, _, axes = np.linalg.svd(neck - neck.mean(axis=0))
        turn = np.degrees(np.arctan2(axes[0, 1], axes[0, 0])) - action.direction
        assert abs((turn + 90) % 180 - 90) < 16


@pytest.mark.parametrize(
    ("one", "other", "view", "resolving"),
    [
        ("sway_left", "sway_right", 0, 1),
        ("sway_ahead", "sway_across", 1, 0),
        ("sway_ahead", "sway_across", 3, 6),
        ("sway_left", "sway_right", 6, 3),
        ("hop_ahead", "hop_back", 0, 6),
        ("hop_left", "hop_right", 6, 0),
        ("hop_ahead", "hop_right", 1, 3),
        ("hop_ahead", "hop_left", 3, 1),
    ],
)
def test_two_actions_look_alike_in_a_view_and_differ_in_another(one: str, other: str, view: int, resolving: int):
    def difference(camera_view: int) -> float:
        result = []
        for label in (one, other):
            script = script_short("r", ACTIONS[0], subject=0, session="a", rng=np.random.default_rng(1))
            # The same performance of another action, faced exactly and without its own sign.
            deed = dataclasses.replace(script.deeds[0], action=ACTIONS[LABELS.index(label)], hops=2)
            deed = dataclasses.replace(deed, way=0.7 if deed.action.kind == "hop" else 0.1)
            script = dataclasses.replace(script, deeds=(deed,), heading=0.0, start=(0.0, 0.0))
            # The motion of the action without the small permanent motions.
            x = []
            for performed in (script, dataclasses.replace(script, deeds=())):
                body = pose_body(SUBJECTS[0], perform(performed, SUBJECTS[0], np.arange(0, 3.2, 0.05)))
                x.append(CAMERAS[camera_view].project(body.joints[:, JOINTS.index("neck")])[0][:, 0])
            result.append(x[0] - x[1])
        # A sway has no sign: half a period later it goes the other way.
        signs = (1, -1) if one.startswith("sway") else (1,)
        return min(float(np.abs(result[0] - sign * result[1]).max()) for sign in signs)

    # Only perspective remains.
    assert difference(view) < 2.0
    assert difference(resolving) > 5.0


@pytest.mark.parametrize("view", [0, 5, 6])
def test_the_drawn_silhouette_is_the_hull_of_each_ellipsoid(view: int):
    camera, body = CAMERAS[view], pose("sway_left", subject=2, times=np.array([0.9]))
    width, height = camera.size
    empty = Backdrop(
        rgb=np.full((height, width, 3), 90, np.float32),
        depth=np.full((2 * height, 2 * width), np.inf, np.float32),
        floor=np.full((height, width, 2), 1e3, np.float32),
    )
    cloth, palette = wardrobe(2, 0)
    frames, foreground = draw_frames(camera, empty, body, cloth=cloth, palette=palette)
    scale = 8
    expected = np.zeros((height * scale, width * scale), np.uint8)
    for skin in dense_skin(body, 0, 400):
        xy, _ = camera.project(skin)
        corners = np.rint((xy + 0.5) * scale - 0.5).astype(np.int32)
        cv2.fillConvexPoly(expected, cv2.convexHull(corners), 1)
    expected = cv2.resize(expected.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA) >= 0.5
    union = (foreground[0] | expected).sum()
    assert (foreground[0] & expected).sum() / union > 0.97
    assert (frames[0][~cv2.dilate(foreground[0].astype(np.uint8), np.ones((3, 3))).astype(bool)] == 90).all()


@pytest.mark.parametrize("view", [0, 1, 4, 7])
def test_visibility_agrees_with_a_depth_buffer_of_dense_points(view: int):
    camera, body = CAMERAS[view], pose("hop_left", subject=1, times=np.array([0.8]))
    part, unit = skin_points(SUBJECTS[1], np.random.default_rng(0))
    position, normal = body.surface(part, unit)
    xy, seen = visible_points(camera, body, position, normal, session=0)
    _, depth = camera.project(position)
    zoom = 2
    buffer = np.full((camera.size[1] * zoom, camera.size[0] * zoom), np.inf)
    skin, skin_depth = camera.project(dense_skin(body, 0, 20000).reshape(-1, 3))
    column, row = np.floor((skin + 0.5) * zoom).astype(int).T
    np.minimum.at(buffer, (row, column), skin_depth)
    column, row = np.floor((xy[0] + 0.5) * zoom).astype(int).T
    hidden = (buffer[row, column] < depth[0] - 0.02) | (scene_depth(camera, xy[0], 0) < depth[0])
    sight = camera.center - position[0]
    facing = (sight * normal[0]).sum(axis=-1) / np.linalg.norm(sight, axis=-1)
    # A cell of the buffer is about 8 mm wide, in which skin seen at a grazing angle runs far in depth.
    decided = np.abs(facing) > 0.3
    assert (seen[0] == ~hidden)[decided].mean() > 0.95
    assert decided.sum() > 30
    assert 5 < seen.sum() < len(part)


def test_no_tracked_point_lies_inside_the_body_at_rest():
    part, unit = skin_points(SUBJECTS[3], np.random.default_rng(1))
    np.testing.assert_allclose(np.linalg.norm(unit, axis=-1), 1.0)
    assert len(part) > 40
    assert {PARTS[index] for index in part} >= {"chest", "head", "left_forearm", "right_thigh"}


@pytest.mark.parametrize("view", range(8))
def test_furniture_in_the_depth_map_is_where_its_boxes_are(view: int):
    camera = CAMERAS[view]
    depth = draw_backdrop(camera, 0).depth
    y, x = np.mgrid[0 : camera.size[1] : 7, 0 : camera.size[0] : 7]
    analytic = scene_depth(camera, np.stack([x, y], axis=-1).astype(float), 0)
    drawn = np.stack([depth[2 * y + i, 2 * x + j] for i in (0, 1) for j in (0, 1)])
    met = np.isfinite(analytic)
    near = (np.abs(drawn[:, met] - analytic[met]) < 0.2).any(axis=0)
    assert near.mean() > 0.97
    assert np.isfinite(depth).all()
    assert len(furniture(0)) == len(furniture(1))


def test_rays_pass_through_the_pixels_that_they_are_cast_for():
    camera = CAMERAS[3]
    rays = camera.rays(np.array([0.0, 50.5, 191.0]), np.array([0.0, 20.25, 143.0]))
    xy, depth = camera.project(camera.center + 4.5 * rays)
    np.testing.assert_allclose(xy, [[0, 0], [50.5, 20.25], [191, 143]], atol=1e-9)
    np.testing.assert_allclose(depth, 4.5)


def test_a_written_calibration_reads_back(tmp_path: Path):
    write_calibration(tmp_path / "calibration.toml", CAMERAS)
    back = read_calibration(tmp_path / "calibration.toml")
    assert list(back) == list(range(8))
    for camera in CAMERAS:
        np.testing.assert_allclose(back[camera.view].rotation, camera.rotation, atol=1e-12)
        np.testing.assert_allclose(back[camera.view].translation, camera.translation)
        np.testing.assert_allclose(back[camera.view].matrix, camera.matrix)
        assert back[camera.view].size == camera.size


@pytest.mark.parametrize("shape", [(32, 48), (16, 16, 16)])
def test_noise_is_seamless_and_fills_its_range(shape: tuple[int, ...]):
    noise = band_noise(shape, wavelength=8.0, rng=np.random.default_rng(0))
    assert noise.shape == shape
    assert noise.min() >= 0
    assert noise.max() <= 1
    assert np.ptp(noise) > 0.6
    inner = np.abs(np.diff(noise, axis=0)).mean()
    assert np.abs(noise[0] - noise[-1]).mean() < 2 * inner


def test_a_taller_body_has_longer_limbs():
    assert BodyShape(1.9).thigh > BodyShape(1.6).thigh
    assert BodyShape(1.9).hip_height == pytest.approx(BodyShape(1.75).hip_height * 1.9 / 1.75)
