"""Calibrations: real files, made files, damaged files; projection and its inverse against OpenCV."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest

from actionprep.datasets.cameras import CALIBRATION_FORMATS, Camera, cameras_of_views, read_calibration
from actionprep.errors import UserError

DATA = Path(__file__).parents[2].parent / "shared/data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="no ../shared/data")

MATRIX = np.array([[800.0, 0, 320], [0, 790, 240], [0, 0, 1]])
VECTOR = np.array([0.3, -0.2, 0.1])
SHIFT = np.array([0.1, 0.2, 4.0])
POINTS = np.random.default_rng(0).uniform(-1, 1, (50, 3))


def camera(distortion: list[float], *, fisheye: bool = False) -> Camera:
    return Camera("0", MATRIX, distortion, VECTOR, SHIFT, 640, 480, fisheye=fisheye)


def toml(name: str = "cam_0", /, **changes: str) -> str:
    keys = {
        "name": f'"{name}"',
        "size": "[640, 480]",
        "matrix": str(MATRIX.tolist()),
        "distortions": "[0.1, 0.0, 0.0, 0.0, 0.0]",
        "rotation": str(VECTOR.tolist()),
        "translation": str(SHIFT.tolist()),
        **changes,
    }
    return f"[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items() if value)


@pytest.mark.parametrize(
    "distortion",
    [
        [],
        [-0.3, 0.1, 0.002, -0.001],
        [-0.3, 0.1, 0.002, -0.001, 0.05],
        [0.2, -0.1, 0.001, 0.002, 0.01, 0.1, 0.02, 0.005],
        [0.2, -0.1, 0.001, 0.002, 0.01, 0.1, 0.02, 0.005, 0.001, 0.002, -0.001, 0.003],
    ],
)
def test_project_equals_opencv(distortion):
    expected, _ = cv2.projectPoints(POINTS, VECTOR, SHIFT, MATRIX, np.array(distortion))
    assert camera(distortion).project(POINTS) == pytest.approx(expected.reshape(-1, 2), abs=1e-6)


def test_project_fisheye_equals_opencv():
    distortion = [0.05, -0.02, 0.01, -0.003]
    expected, _ = cv2.fisheye.projectPoints(POINTS[:, None], VECTOR, SHIFT, MATRIX, np.array(distortion))
    assert camera(distortion, fisheye=True).project(POINTS) == pytest.approx(expected.reshape(-1, 2), abs=1e-6)


@pytest.mark.parametrize(
    ("distortion", "fisheye"), [([-0.3, 0.1, 0.002, -0.001, 0.05], False), ([0.05, -0.02, 0.01, 0.0], True)]
)
def test_undistort_inverts_projection(distortion, fisheye):
    own = camera(distortion, fisheye=fisheye)
    inside = POINTS @ own.rotation.T + own.translation
    assert own.undistort(own.project(POINTS)) == pytest.approx(inside[:, :2] / inside[:, 2:], abs=1e-8)


def test_undistort_without_inverse_is_nan():
    # r (1 - 0.5 r²) is at most 0.544: pixels further out are the image of no ray.
    pixels = np.array([[320 + 800 * 0.5, 240.0], [320 + 800 * 0.6, 240.0]])
    rays = camera([-0.5, 0, 0, 0]).undistort(pixels)
    assert rays[0, 0] * (1 - 0.5 * rays[0, 0] ** 2) == pytest.approx(0.5)
    assert np.isnan(rays[1]).all()


def test_project_behind_camera_is_nan():
    assert np.isnan(camera([]).project(np.array([0, 0, -10.0]))).all()


def test_camera_center_projects_to_zero_depth():
    own = camera([])
    assert own.rotation @ own.center + own.translation == pytest.approx(np.zeros(3), abs=1e-12)


def test_camera_crop_shifts_pixels():
    own = camera([-0.2, 0.1, 0, 0])
    assert own.cropped(100, 50, 200, 100).project(POINTS) == pytest.approx(own.project(POINTS) - [100, 50])


@pytest.mark.parametrize(
    ("text", "source", "unit"),
    [
        (toml(), "anipose", ""),
        (toml("left", fisheye="false"), "pose2sim", "m"),
        (toml(world_position="[0.0, 0.0, 0.0]"), "freemocap", "mm"),
        (toml("cameras.0", name="", cam_id="0", grid_count="3"), "caliscope", "m"),
    ],
)
def test_read_calibration_toml(tmp_path, text, source, unit):
    (tmp_path / "c.toml").write_text(text)
    [own] = read_calibration(tmp_path / "c.toml")
    assert (own.source, own.unit, own.width, own.height) == (source, unit, 640, 480)
    assert own.rotation == pytest.approx(cv2.Rodrigues(VECTOR)[0])
    assert own.translation == pytest.approx(SHIFT)


@pytest.mark.parametrize("suffix", [".yml", ".xml"])
def test_read_calibration_opencv(tmp_path, suffix):
    path = tmp_path / f"cam3{suffix}"
    storage = cv2.FileStorage(str(path), cv2.FILE_STORAGE_WRITE)
    for name, value in (("camera_matrix", MATRIX), ("distortion_coefficients", np.array([[0.1, 0.2, 0, 0, 0]]))):
        storage.write(name, value)
    storage.write("image_width", 640)
    storage.write("image_height", 480)
    storage.write("rvec", VECTOR.reshape(3, 1))
    storage.write("tvec", SHIFT.reshape(3, 1))
    storage.release()
    [own] = read_calibration(path)
    assert (own.view, own.source, own.width, own.height) == ("cam3", "opencv", 640, 480)
    assert own.matrix == pytest.approx(MATRIX)
    assert own.distortion == pytest.approx([0.1, 0.2, 0, 0, 0])
    assert own.project(POINTS) == pytest.approx(
        cv2.projectPoints(POINTS, VECTOR, SHIFT, MATRIX, own.distortion)[0].reshape(-1, 2)
    )


def test_read_calibration_stereo_pair(tmp_path):
    path = tmp_path / "stereo.yml"
    storage = cv2.FileStorage(str(path), cv2.FILE_STORAGE_WRITE)
    for number in "12":
        storage.write(f"M{number}", MATRIX)
        storage.write(f"D{number}", np.zeros((1, 5)))
    storage.write("R", cv2.Rodrigues(VECTOR)[0])
    storage.write("T", SHIFT.reshape(3, 1))
    storage.release()
    first, second = read_calibration(path)
    assert (first.view, second.view) == ("1", "2")
    assert first.rotation == pytest.approx(np.eye(3))
    assert second.translation == pytest.approx(SHIFT)


def test_read_calibration_intrinsics_only(tmp_path):
    text = f"%YAML:1.0\n---\ncamera_matrix: !!opencv-matrix\n   rows: 3\n   cols: 3\n   dt: d\n   data: {MATRIX.ravel().tolist()}\n"
    (tmp_path / "a.yml").write_text(
        f"{text}distortion_coefficients: !!opencv-matrix\n   rows: 1\n   cols: 4\n   dt: d\n   data: [ 0., 0., 0., 0. ]\n"
    )
    [own] = read_calibration(tmp_path)
    with pytest.raises(UserError, match="Camera 'a' has no position: its file has intrinsics only"):
        own.project(POINTS)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("c.toml", toml(rotation=""), "Camera 'cam_0': the key 'rotation' is missing. Calibrate all cameras and save again."),
        ("c.toml", toml(matrix="[[1.0, 0.0], [0.0, 1.0]]"), "Camera 'cam_0': expected the intrinsic matrix with shape (3, 3), got (2, 2)."),
        ("c.toml", toml(distortions="[0.1, 0.2]"), "Camera 'cam_0': expected 0, 4, 5, 8 or 12 distortion coefficients, got 2."),
        ("c.toml", toml(translation="[0.0, nan, 0.0]"), "Camera 'cam_0': the translation is not finite."),
        ("c.toml", toml(rotation="[[2.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]"), "Camera 'cam_0': its rotation matrix is not a rotation."),
        ("c.toml", toml()[:-9], "is not valid TOML"),
        ("c.toml", '[calibration]\nboard_type = "charuco"\n', "It is the settings file of an Anipose project; give its calibration.toml."),
        ("c.yml", "%YAML:1.0\n---\ncamera_matrix: !!opencv-matrix\n   rows: 3\n   cols: 3\n   dt: d\n   data: [ 1., 2.", "the matrix 'camera_matrix' is cut off or damaged."),
        ("c.yml", "%YAML:1.0\n---\ncamera_matrix: !!opencv-matrix\n   rows: 3\n   cols: 3\n   dt: d\n   data: [ 1., 2. ]\n", "the matrix 'camera_matrix' states 3 x 3 values and has 2."),
        ("c.xml", "<opencv_storage><camera_matrix>", "is not valid XML"),
        ("c.xml", '<!DOCTYPE a [<!ENTITY b "c">]><opencv_storage>&b;</opencv_storage>', "has a document type or entities"),
        ("c.csv", "a,b\n", "Cannot detect the calibration format"),
    ],
)  # fmt: skip
def test_read_calibration_damaged(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        read_calibration(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


def test_read_calibration_mutated(tmp_path):
    path = tmp_path / "c.toml"
    sources = [toml(), "%YAML:1.0\n---\ncamera_matrix: !!opencv-matrix\n   rows: 1\n   cols: 1\n   data: [ 1. ]\n"]
    rng = np.random.default_rng(1)
    for turn in range(60):
        data = bytearray(sources[turn % 2].encode())
        for position in rng.integers(0, len(data), 4):
            data[position] = rng.integers(0, 256)
        path = tmp_path / ("c.yml" if turn % 2 else "c.toml")
        path.write_bytes(data)
        with suppress(UserError):
            assert all(each.matrix.shape == (3, 3) for each in read_calibration(path))


def test_cameras_of_views_by_name_and_number():
    cameras = [Camera(name, MATRIX, [], VECTOR, SHIFT, 640, 480) for name in ("cam_01", "cam_02", "cam_09")]
    sizes = {"1": (640, 480), "02": (320, 240), "3": (640, 480)}
    matched, findings = cameras_of_views(cameras, sizes, where="c.toml")
    assert [each.view for each in matched] == ["1"]
    assert [finding.message for finding in findings] == [
        "camera 'cam_09' is no view; views: 1, 02, 3",
        "camera '02' was calibrated at 640 x 480 px and the view has 320 x 240: pixels of the two differ; it is left out",
        "view '3' has no camera in the calibration",
    ]


def test_cameras_of_views_with_crop():
    cameras = [Camera("left", MATRIX, [], VECTOR, SHIFT, 640, 480)]
    [own], findings = cameras_of_views(
        cameras, {"left": (320, 480)}, where="c.toml", crops={"left": (320, 0, 320, 480)}
    )
    assert not findings
    assert own.matrix[:2, 2] == pytest.approx([0, 240])
    assert (own.width, own.height) == (320, 480)


@needs_data
@pytest.mark.parametrize(
    ("name", "source", "views"),
    [
        ("foreign/calibration/Calib_demo.toml", "pose2sim", ["demo"]),
        ("foreign/calibration/camera_array.toml", "caliscope", ["0", "1", "2", "3"]),
        ("foreign/calibration/config.toml", "caliscope", ["0", "1", "2", "3"]),
        ("multiview_pose2sim/calibration/Calib_qualisys.toml", "pose2sim", ["cam_01", "cam_02", "cam_03", "cam_04"]),
    ],
)
def test_read_calibration_real(name, source, views):
    cameras = read_calibration(DATA / name)
    assert [each.view for each in cameras] == views
    assert {each.source for each in cameras} == {source}


@needs_data
def test_read_calibration_rays_meet():
    """The point that the cameras of a laboratory look at is seen near the center of each image."""
    cameras = read_calibration(DATA / "multiview_pose2sim/calibration/Calib_qualisys.toml")
    axes = [(each.center, each.rotation[2]) for each in cameras]
    normal = sum(np.eye(3) - np.outer(axis, axis) for _, axis in axes)
    meeting = np.linalg.solve(normal, sum((np.eye(3) - np.outer(axis, axis)) @ center for center, axis in axes))
    for each in cameras:
        assert np.abs(each.project(meeting) - [each.width / 2, each.height / 2]).max() < 0.25 * each.height


def test_calibration_formats_are_all_used():
    assert list(CALIBRATION_FORMATS.working()) == ["anipose", "caliscope", "freemocap", "opencv", "pose2sim"]
