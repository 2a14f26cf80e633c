"""MediaPipe's worker: with a made-up mediapipe in a real environment, and with the real one where it is installed."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from actionprep.errors import InputError, SetupError, UserError
from actionprep.pipeline.pose_backends import PoseEstimator, open_estimator, to_sequence
from actionprep.pipeline.pose_backends import mediapipe as backend
from actionprep.pipeline.pose_backends.install_step import run_step
from actionprep.pipeline.pose_backends.mediapipe import MediaPipe, environment_folder, installed_identity

# Finds a person where the first pixel is red: landmark i at (i / 33, first pixel's green / 255) of the picture. Its
# visibility counts the frames that it followed. Blue makes it crash or hang.
FAKE = """
import os, time, types
print("noise that must not disturb the answers")
__version__ = "0.10.21"
class Pose:
    def __init__(self, static_image_mode, **options):
        self.static, self.count = static_image_mode, 0
    def process(self, picture):
        red, green, blue = (int(v) for v in picture[0, 0])
        if blue == 13:
            os._exit(7)
        if blue == 14:
            time.sleep(60)
        self.count = 1 if self.static else self.count + 1
        if red != 255:
            return types.SimpleNamespace(pose_landmarks=None)
        y, seen = green / 255, self.count / 10
        marks = [types.SimpleNamespace(x=i / 33, y=y, z=0.0, visibility=seen, presence=1.0) for i in range(33)]
        return types.SimpleNamespace(pose_landmarks=types.SimpleNamespace(landmark=marks))
    def close(self):
        pass
solutions = types.SimpleNamespace(pose=types.SimpleNamespace(Pose=Pose))
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mediapipe")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    [site] = folder.glob("lib/python*/site-packages")
    package = site / "mediapipe"
    for name in ("pose_detection/pose_detection", "pose_landmark/pose_landmark_full"):
        (package / "modules" / name).parent.mkdir(parents=True)
        (package / "modules" / f"{name}.tflite").write_bytes(name.encode())
    (package / "__init__.py").write_text(FAKE)
    (site / "mediapipe-0.10.21.dist-info").mkdir()
    (site / "ours.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return folder


@pytest.fixture
def estimator(environment):
    with MediaPipe(environment=environment, timeout=2) as found:
        yield found


def frames(*pixels, height=48, width=64):
    pictures = np.zeros((len(pixels), height, width, 3), np.uint8)
    pictures[:, 0, 0] = pixels
    return pictures


HERE, NOBODY, CRASH, HANG = (255, 51, 0), (0, 0, 0), (0, 0, 13), (0, 0, 14)


def test_landmarks_come_back_in_pixels_with_visibility_as_score(estimator):
    first, second, third = estimator.estimate(frames(HERE, NOBODY, HERE))
    assert first.keypoints.shape == (1, 33, 3)
    assert first.keypoints[0, 11] == pytest.approx([11 / 33 * 64 - 0.5, 51 / 255 * 48 - 0.5, 0.1], abs=1e-4)
    assert first.boxes[0] == pytest.approx([-0.5, 9.1, 32 / 33 * 64 - 0.5, 9.1, 0.1], abs=1e-4)
    assert second.keypoints.shape == (0, 33, 3)
    # A third frame in a row: the person is followed from the first on.
    assert third.keypoints[0, 0, 2] == pytest.approx(0.3)


def test_reset_forgets_who_was_followed(estimator):
    estimator.estimate(frames(HERE, HERE))
    estimator.reset()
    [again] = estimator.estimate(frames(HERE))
    assert again.keypoints[0, 0, 2] == pytest.approx(0.1)


def test_with_boxes_every_person_is_looked_at_alone_and_placed_in_the_frame(estimator):
    pictures = np.zeros((2, 200, 300, 3), np.uint8)
    # Boxes grow by 0.15 of their longer side before they are cut out.
    pictures[0, 20 - 12, 100 - 12] = HERE
    [first, second] = estimator.estimate(pictures, [[[100, 20, 140, 100], [10, 10, 60, 90]], []])
    assert first.keypoints.shape == (2, 33, 3)
    assert first.keypoints[0, 0] == pytest.approx([87.5, 7.5 + 51 / 255 * (113 - 8), 0.1], abs=0.01)
    assert not first.keypoints[1].any()
    assert first.boxes[:, :4].tolist() == [[100, 20, 140, 100], [10, 10, 60, 90]]
    assert second.keypoints.shape == (0, 33, 3)


def test_frames_of_any_layout_in_memory_are_sent_whole(estimator):
    pictures = frames(HERE, height=1200, width=900)
    [one] = estimator.estimate(pictures)
    [other] = estimator.estimate(np.asfortranarray(pictures))
    assert np.array_equal(one.keypoints[..., :2], other.keypoints[..., :2])


def test_a_crash_is_the_inputs_problem_and_the_next_block_goes_on(estimator):
    with pytest.raises(InputError, match="MediaPipe's worker ended with exit code 7 at frame 1 of the block") as caught:
        estimator.estimate(frames(HERE, CRASH))
    assert (caught.value.frame, caught.value.backend) == (1, "mediapipe")
    assert len(estimator.estimate(frames(HERE))[0].keypoints) == 1


def test_a_worker_that_hangs_is_ended(estimator):
    with pytest.raises(InputError, match="MediaPipe did not answer for 2 s at frame 0"):
        estimator.estimate(frames(HANG))
    assert len(estimator.estimate(frames(HERE))[0].keypoints) == 1


def test_the_identity_names_version_weights_and_settings(environment):
    with MediaPipe(environment=environment, detection=0.25) as estimator:
        assert isinstance(estimator, PoseEstimator)
        identity = estimator.identity()
    assert identity["version"] == "0.10.21"
    assert identity["detection"] == "0.25"
    assert len(identity["weights pose_landmark_full.tflite"]) == 64


def test_the_files_alone_say_what_the_worker_says(environment):
    with MediaPipe(environment=environment, detection=0.25) as estimator:
        assert installed_identity(environment, detection=0.25) == estimator.identity()


def test_closing_ends_the_worker(environment):
    estimator = open_estimator("mediapipe", environment=environment)
    estimator.close()
    assert estimator._worker.end() == 0


def test_an_environment_that_is_not_there_says_the_one_command(tmp_path):
    with pytest.raises(SetupError) as caught:
        open_estimator("mediapipe", environment=tmp_path / "gone")
    assert "to fix       actionprep doctor --install mediapipe\n" in str(caught.value)
    assert f"looked in    {tmp_path / 'gone' / 'bin' / 'python'}" in str(caught.value)


def test_an_environment_without_mediapipe_is_said_to_be_broken(tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path)], check=True)
    with pytest.raises(SetupError, match=r"does not work: .*No module named 'mediapipe'\nInstall it again"):
        MediaPipe(environment=tmp_path)


def test_a_model_that_is_not_in_the_package_is_named(environment):
    with pytest.raises(SetupError, match=r"does not ship pose_landmark_heavy\.tflite, which complexity 2 needs"):
        MediaPipe(environment=environment, complexity=2)
    with pytest.raises(UserError, match=r"0 \(lite\), 1 \(full\) or 2 \(heavy\), got 3"):
        MediaPipe(environment=environment, complexity=3)


def test_the_environments_place_can_be_told(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("ACTIONPREP_MEDIAPIPE", raising=False)
    assert environment_folder() == tmp_path / "actionprep" / "mediapipe-0.10.21"
    monkeypatch.setenv("ACTIONPREP_MEDIAPIPE", "/elsewhere")
    assert environment_folder() == Path("/elsewhere")
    assert environment_folder("/given") == Path("/given")


def test_the_recipe_is_a_pinned_package_in_a_new_environment(monkeypatch, tmp_path):
    commands = []
    monkeypatch.setattr(backend, "_run", lambda command, echo: commands.append(command))
    with pytest.raises(SetupError, match="MediaPipe is not installed"):
        backend.install_mediapipe(tmp_path / "new")
    assert commands[0][1:] == ["-m", "venv", "--clear", str(tmp_path / "new")]
    assert commands[1][1:] == ["-m", "pip", "install", "--disable-pip-version-check", "mediapipe==0.10.21"]


def test_a_failing_step_of_the_recipe_shows_its_last_lines():
    with pytest.raises(SetupError, match=r"Installation step failed: .*\nno such luck"):
        backend._run([sys.executable, "-c", "print('no such luck'); raise SystemExit(3)"], echo=False)


def test_run_step_prints_output_as_it_comes(capfd):
    code = "print('Downloading a (1 MB)'); print('Installing')"
    assert run_step([sys.executable, "-c", code], echo=True) == ["Downloading a (1 MB)", "Installing"]
    assert capfd.readouterr().out == f"$ {sys.executable} -c {code}\nDownloading a (1 MB)\nInstalling\n"
    run_step([sys.executable, "-c", code], echo=False)
    assert capfd.readouterr().out == ""


def test_real_mediapipe_finds_the_person_of_a_real_clip(shared_data):
    av = pytest.importorskip("av")
    folder = environment_folder()
    if not (folder / "bin" / "python").exists():
        pytest.skip(f"MediaPipe's environment is not at {folder}; make it with: {backend.INSTALL}")
    with av.open(str(shared_data / "utd_mhad_rgb" / "clips" / "a3_s1_t1_color.mp4")) as video:
        pictures = np.stack(
            [frame.to_ndarray(format="rgb24") for frame, _ in zip(video.decode(video=0), range(8), strict=False)]
        )
    with MediaPipe() as estimator:
        poses = to_sequence(estimator.estimate(pictures), estimator.skeleton, image_size=pictures.shape[1:3])
    assert poses.present.all()
    body, _ = poses.with_skeleton("coco17")
    nose, hips, ankles = (body.keypoints[:, 0, joints, 1].mean() for joints in ([0], [11, 12], [15, 16]))
    assert nose < hips < ankles
    assert (poses.score[:, 0, [11, 12, 23, 24]] > 0.9).all()
