"""Tests of MediaPipe's worker with a fake mediapipe in a real environment, and with the real one if installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fake_mediapipe import make_environment

from actionprep.datasets.poses.skeletons import conversion, skeleton
from actionprep.errors import InputError, SetupError, UserError
from actionprep.pipeline.pose_backends import PoseEstimator, open_estimator, to_sequence
from actionprep.pipeline.pose_backends import mediapipe as backend
from actionprep.pipeline.pose_backends.install_step import run_step
from actionprep.pipeline.pose_backends.mediapipe import (
    MediaPipe,
    MediaPipeHands,
    MediaPipeHolistic,
    environment_folder,
    installed_identity,
)


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    return make_environment(tmp_path_factory.mktemp("mediapipe"))


@pytest.fixture
def estimator(environment):
    with MediaPipe(environment=environment, timeout=2) as mediapipe:
        yield mediapipe


def frames(*pixels, height=48, width=64):
    images = np.zeros((len(pixels), height, width, 3), np.uint8)
    images[:, 0, 0] = pixels
    return images


HERE, NOBODY, CRASH, HANG = (255, 51, 0), (0, 0, 0), (0, 0, 13), (0, 0, 14)


def test_landmarks_are_in_pixels_with_visibility_as_score(estimator):
    first, second, third = estimator.estimate(frames(HERE, NOBODY, HERE))
    assert first.keypoints.shape == (1, 33, 3)
    assert first.keypoints[0, 11] == pytest.approx([11 / 33 * 64 - 0.5, 51 / 255 * 48 - 0.5, 0.1], abs=1e-4)
    assert first.boxes[0] == pytest.approx([-0.5, 9.1, 32 / 33 * 64 - 0.5, 9.1, 0.1], abs=1e-4)
    assert second.keypoints.shape == (0, 33, 3)
    # The person is followed from the first frame to the third.
    assert third.keypoints[0, 0, 2] == pytest.approx(0.3)


def test_reset_discards_the_followed_person(estimator):
    estimator.estimate(frames(HERE, HERE))
    estimator.reset()
    [again] = estimator.estimate(frames(HERE))
    assert again.keypoints[0, 0, 2] == pytest.approx(0.1)


def test_each_box_is_estimated_separately(estimator):
    images = np.zeros((2, 200, 300, 3), np.uint8)
    # Boxes are enlarged by 0.15 of their longer side.
    images[0, 20 - 12, 100 - 12] = HERE
    [first, second] = estimator.estimate(images, [[[100, 20, 140, 100], [10, 10, 60, 90]], []])
    assert first.keypoints.shape == (2, 33, 3)
    assert first.keypoints[0, 0] == pytest.approx([87.5, 7.5 + 51 / 255 * (113 - 8), 0.1], abs=0.01)
    assert not first.keypoints[1].any()
    assert first.boxes[:, :4].tolist() == [[100, 20, 140, 100], [10, 10, 60, 90]]
    assert second.keypoints.shape == (0, 33, 3)


def test_frames_of_any_memory_layout_are_estimated(estimator):
    images = frames(HERE, height=1200, width=900)
    [expected] = estimator.estimate(images)
    [fortran] = estimator.estimate(np.asfortranarray(images))
    assert np.array_equal(expected.keypoints[..., :2], fortran.keypoints[..., :2])


def test_a_crash_is_an_input_error_and_the_next_block_works(estimator):
    with pytest.raises(
        InputError, match="MediaPipe's worker stopped with exit code 7 at frame 1 of the block"
    ) as caught:
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


def test_installed_identity_equals_that_of_the_worker(environment):
    with MediaPipe(environment=environment, detection=0.25) as estimator:
        assert installed_identity(environment, detection=0.25) == estimator.identity()


@pytest.mark.parametrize("kind", [MediaPipeHands, MediaPipeHolistic])
def test_identity_of_other_solutions_names_their_weights(environment, kind):
    with kind(environment=environment) as estimator:
        identity = estimator.identity()
    assert installed_identity(environment, backend=kind.name) == identity
    assert identity["backend"] == kind.name
    assert "weights hand_landmark_full.tflite" in identity


def test_hands_are_left_and_right_of_an_unmirrored_image(environment):
    # With the same label, the less certain hand is the other hand.
    images = frames((0, 0, 0), (1, 0, 0), (2, 0, 0), (2, 1, 0), width=100)
    with MediaPipeHands(environment=environment) as estimator:
        none, right, both, same = estimator.estimate(images)
    assert none.keypoints.shape == (0, 42, 3)
    assert not right.keypoints[0, :21].any()
    assert right.keypoints[0, 21] == pytest.approx([19.5, 23.5, 0.75], abs=1e-4)
    assert right.boxes[0, 4] == pytest.approx(0.75)
    for poses in (both, same):
        assert poses.keypoints[0, 0] == pytest.approx([79.5, 23.5, 0.5], abs=1e-4)
        assert poses.keypoints[0, 21, 0] == pytest.approx(19.5, abs=1e-4)
    sequence = to_sequence([none, right, both], "mediapipe_hands42", image_size=(48, 100))
    assert sequence.keypoints.shape == (3, 1, 42, 2)


def test_hands_of_several_boxes_belong_to_several_people(environment):
    images = np.zeros((1, 200, 300, 3), np.uint8)
    images[0, 20 - 12, 100 - 12] = (2, 0, 0)
    with MediaPipeHands(environment=environment) as estimator:
        [poses] = estimator.estimate(images, [[[100, 20, 140, 100], [10, 10, 60, 90]]])
    assert poses.keypoints.shape == (2, 42, 3)
    assert poses.boxes[:, 4] == pytest.approx([0.625, 0])


@pytest.mark.parametrize("num_parts", [0, 1, 2, 3, 4])
def test_holistic_parts_that_are_missing_have_score_zero(environment, num_parts):
    with MediaPipeHolistic(environment=environment) as estimator:
        [poses] = estimator.estimate(frames((num_parts, 0, 0), width=100))
    if num_parts == 0:
        assert poses.keypoints.shape == (0, 143, 3)
        return
    [keypoints] = poses.keypoints
    parts = np.split(keypoints, [33, 101, 122])
    scores = [0.5, 1, 1, 1]
    for number, (part, score) in enumerate(zip(parts, scores, strict=True)):
        assert part[:, 2] == pytest.approx(score if number < num_parts else 0)
    if num_parts > 1:
        # The tip of the nose is point 4 of the mesh, and the chin is point 152.
        layout = skeleton("mediapipe_holistic143")
        assert keypoints[layout.index("face_30"), 1] == pytest.approx(0.204 * 48 - 0.5, abs=1e-4)
        assert keypoints[layout.index("face_8"), 1] == pytest.approx(0.352 * 48 - 0.5, abs=1e-4)


def test_holistic_converts_to_the_joints_of_wholebody():
    done = conversion("mediapipe_holistic143", "coco_wholebody")
    assert set(done.missing) == {"left_small_toe", "right_small_toe"}
    assert not [name for name in skeleton("mediapipe_hands42").joints if name in done.lost]


def test_closing_ends_the_worker(environment):
    estimator = open_estimator("mediapipe", environment=environment)
    estimator.close()
    assert estimator._worker.end() == 0


def test_a_missing_environment_names_the_install_command(tmp_path):
    with pytest.raises(SetupError) as caught:
        open_estimator("mediapipe", environment=tmp_path / "gone")
    assert "to fix       actionprep doctor --install mediapipe\n" in str(caught.value)
    assert f"looked in    {tmp_path / 'gone' / 'bin' / 'python'}" in str(caught.value)


def test_an_environment_without_mediapipe_is_an_error(tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path)], check=True)
    with pytest.raises(SetupError, match=r"does not work: .*No module named 'mediapipe'\nInstall it again"):
        MediaPipe(environment=tmp_path)


def test_a_model_that_is_not_in_the_package_is_named(environment):
    with pytest.raises(SetupError, match=r"does not contain pose_landmark_heavy\.tflite, which complexity 2 requires"):
        MediaPipe(environment=environment, complexity=2)
    with pytest.raises(UserError, match=r"0 \(lite\), 1 \(full\) or 2 \(heavy\), got 3"):
        MediaPipe(environment=environment, complexity=3)


def test_environment_folder_follows_variables_and_argument(monkeypatch, tmp_path):
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


def test_real_mediapipe_detects_the_person_of_a_clip(shared_data):
    av = pytest.importorskip("av")
    folder = environment_folder()
    if not (folder / "bin" / "python").exists():
        pytest.skip(f"MediaPipe's environment is not at {folder}; make it with: {backend.INSTALL}")
    with av.open(str(shared_data / "utd_mhad_rgb" / "clips" / "a3_s1_t1_color.mp4")) as video:
        images = np.stack(
            [frame.to_ndarray(format="rgb24") for frame, _ in zip(video.decode(video=0), range(8), strict=False)]
        )
    with MediaPipe() as estimator:
        poses = to_sequence(estimator.estimate(images), estimator.skeleton, image_size=images.shape[1:3])
    assert poses.present.all()
    body, _ = poses.with_skeleton("coco17")
    nose, hips, ankles = (body.keypoints[:, 0, joints, 1].mean() for joints in ([0], [11, 12], [15, 16]))
    assert nose < hips < ankles
    assert (poses.score[:, 0, [11, 12, 23, 24]] > 0.9).all()


@pytest.mark.parametrize("kind", [MediaPipeHands, MediaPipeHolistic])
def test_real_hands_are_near_the_wrists_of_the_body(shared_data, kind):
    av = pytest.importorskip("av")
    folder = environment_folder()
    if not (folder / "bin" / "python").exists():
        pytest.skip(f"MediaPipe's environment is not at {folder}; make it with: {backend.INSTALL}")
    with av.open(str(shared_data / "utd_mhad_rgb" / "clips" / "a3_s1_t1_color.mp4")) as video:
        images = np.stack([frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)])[:40:4]
    with MediaPipe() as body, kind() as hands:
        people, poses = body.estimate(images), hands.estimate(images)
    layout, distances = skeleton(kind.skeleton), []
    for person, hand in zip(people, poses, strict=True):
        for side in ("left", "right"):
            x, y, score = hand.keypoints[0, layout.index(f"{side}_hand_root")]
            if score:
                # The hand model alone often takes one hand of a small person for the other.
                wrists = person.keypoints[0, [15, 16], :2]
                distances.append(np.hypot(*(wrists - (x, y)).T).min())
    assert len(distances) >= 8
    assert np.median(distances) < 20


def test_run_step_prints_output_as_it_comes(capfd):
    code = "print('Downloading a (1 MB)'); print('Installing')"
    assert run_step([sys.executable, "-c", code], echo=True) == ["Downloading a (1 MB)", "Installing"]
    assert capfd.readouterr().out == f"$ {sys.executable} -c {code}\nDownloading a (1 MB)\nInstalling\n"
    run_step([sys.executable, "-c", code], echo=False)
    assert capfd.readouterr().out == ""
