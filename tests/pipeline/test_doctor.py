"""Tests of the doctor: pose backends, how to install them, and the default for a new study."""

from __future__ import annotations

import importlib.util
import json

import pytest
from typer.testing import CliRunner

from actionprep.api import make_study
from actionprep.cli.prep import app
from actionprep.errors import SetupError, UserError
from actionprep.pipeline import doctor
from actionprep.pipeline.pose_backends import mediapipe, mmpose


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """Simulate a machine without internet and pose backends, unless a test adds them."""
    have: set[str] = set()
    actual = importlib.util.find_spec
    hidden = ("mmpose", "mmengine", "mmcv", "xtcocotools", "transformers")

    def find(name, *package):
        if name in hidden:
            return actual("json") if name in have else None
        return actual(name, *package)

    monkeypatch.setattr(doctor.importlib.util, "find_spec", find)
    monkeypatch.setenv("ACTIONPREP_MEDIAPIPE", str(tmp_path / "mediapipe"))
    monkeypatch.setenv("ACTIONPREP_OFFLINE", "1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return have


def give_mediapipe(tmp_path):
    place = tmp_path / "mediapipe"
    for name in ("pose_landmark/pose_landmark_full.tflite", "pose_detection/pose_detection.tflite"):
        model = place / "lib/python3.11/site-packages/mediapipe/modules" / name
        model.parent.mkdir(parents=True)
        model.write_bytes(b"model")
    (place / "bin").mkdir()
    (place / "bin" / "python").write_text("")


def poses():
    return {entry.name: entry for entry in doctor._pose_backends()}


def test_a_bare_machine_is_told_the_one_command_for_each_backend(bare):
    actual = poses()
    assert [entry.state for entry in actual.values()] == [*["missing"] * 5, "ready"]
    assert actual["pose mediapipe"].remedy == "actionprep doctor --install mediapipe (about 1 GB, once)"
    assert actual["pose mmpose"].remedy == (
        "mmpose, mmengine, mmcv, xtcocotools not installed: actionprep doctor --install mmpose"
    )
    assert actual["pose vitpose"].remedy == "pip install 'actionprep[hf]'"


def test_what_is_installed_is_ready(bare, tmp_path):
    give_mediapipe(tmp_path)
    bare |= {"mmpose", "mmengine", "mmcv", "xtcocotools", "transformers"}
    assert {entry.state for entry in poses().values()} == {"ready"}


def test_new_study_uses_mediapipe_without_internet_access(bare, tmp_path):
    study, notes = make_study(tmp_path / "study", {}, force=True)
    assert study.settings["pose"].backend == "mediapipe"
    assert "install it once with 'actionprep doctor --install mediapipe'" in notes[2]
    assert "# backend: MediaPipe" in (tmp_path / "study" / "actionprep.toml").read_text()
    give_mediapipe(tmp_path)
    assert doctor.best_pose_backend()[1].startswith("MediaPipe, which is installed")


def test_a_new_study_names_hrnet_or_vitpose_where_they_work(bare, tmp_path, monkeypatch):
    bare |= {"mmpose", "mmengine", "mmcv", "xtcocotools"}
    assert doctor.best_pose_backend()[0] == "mediapipe"
    (tmp_path / "torch/hub/checkpoints").mkdir(parents=True)
    (tmp_path / "torch/hub/checkpoints/td-hm_hrnet-w32_8xb64-210e_coco-256x192-81c58e40_20220909.pth").write_bytes(b"")
    assert doctor.best_pose_backend()[0] == "mmpose"
    bare.clear()
    bare.add("transformers")
    monkeypatch.setattr(doctor, "can_fetch", lambda: True)
    assert doctor.best_pose_backend()[0] == "vitpose"


def test_the_install_command_runs_the_recipe(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(mediapipe, "install_mediapipe", lambda place, echo: asked.append((place, echo)) or "/there")
    result = CliRunner().invoke(app, ["doctor", "--install", "mediapipe", "--place", str(tmp_path)])
    assert (result.exit_code, asked) == (0, [(str(tmp_path), True)])
    assert "MediaPipe is ready in /there." in result.stderr + result.stdout


def test_the_install_command_says_what_went_wrong(monkeypatch):
    def fail(place, echo):
        raise SetupError("no compiler")

    monkeypatch.setattr(mmpose, "install_mmpose", fail)
    result = CliRunner().invoke(app, ["doctor", "--install", "mmpose"])
    assert result.exit_code == 1
    with pytest.raises(
        UserError, match=r"No install recipe for 'mmpos'\. Did you mean 'mmpose'\?.*install vitpose with pip"
    ):
        doctor.install("mmpos")


def test_layouts_are_listed_and_drawn(tmp_path):
    run = CliRunner().invoke(app, ["skeletons", "--json"])
    assert run.exit_code == 0
    assert "coco17" in run.stdout
    out = tmp_path / "two.png"
    run = CliRunner().invoke(app, ["skeletons", "coco17", "body25", "--out", str(out), "--to", "coco18", "--json"])
    assert run.exit_code == 0
    assert out.exists()
    assert json.loads(run.stdout)["conversions"][0].startswith("coco17 → coco18: 17 joints kept")
    assert CliRunner().invoke(app, ["skeletons", "coco71"]).exit_code == 2
