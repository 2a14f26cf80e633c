"""Stores and checkpoints that name code, programs and files: none of these is executed or read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from prep_commands import actionprep
from recordings import video_study
from training_fakes import make_store, tiny_recipe
from typer.testing import CliRunner, Result

from actionprep.api import Study
from actionprep.cli.train import app
from actionprep.datasets.split_choice import SplitChoice
from actionprep.datasets.store.metadata import group_text_with_checksum
from actionprep.errors import SetupError, UserError
from actionprep.pipeline.pose import Pose, PoseSettings
from actionprep.pipeline.trackers.settings import TracksSettings
from actionprep.training.fit import fit

CODE = """
import pathlib, torch
(pathlib.Path(__file__).parent / "RAN").write_text("x")
dependencies = ["torch"]
class Predictor(torch.nn.Module):
    interp_shape = (384, 512)
    def __init__(self):
        super().__init__()
        self.model = Model()
class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.a = torch.nn.Parameter(torch.zeros(1))
    def forward(self, video, queries, iters):
        tracks = queries[:, None, :, 1:].expand(-1, video.shape[1], -1, -1)
        return tracks, torch.ones(tracks.shape[:3]), torch.ones(tracks.shape[:3]), None
def cotracker3_offline(**options):
    return Predictor()
"""
PROGRAM = '#!/bin/sh\ntouch "$(dirname "$0")/../RAN"\n'


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No network, no code or weights in the user's caches, and a current folder outside of any study."""

    def refuse(*words: object, **options: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    monkeypatch.setattr(torch.hub, "list", refuse)
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    monkeypatch.setenv("ACTIONPREP_MEDIAPIPE", str(tmp_path / "none"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")


def code_in(folder: Path) -> dict[str, str]:
    """Write the code of a tracker that creates a file RAN, and its weights. Return the settings that name them."""
    folder.mkdir(parents=True)
    (folder / "hubconf.py").write_text(CODE)
    torch.save({"a": torch.zeros(1)}, folder / "w.pth")
    return {"tracker": "cotracker3_offline", "repo": str(folder), "checkpoint": str(folder / "w.pth"), "device": "cpu"}


def environment_in(folder: Path) -> str:
    """Write an imitation of MediaPipe's environment whose program creates a file RAN."""
    packages = folder / "lib/python3/site-packages"
    for name in ("pose_detection/pose_detection", "pose_landmark/pose_landmark_full"):
        model = packages / "mediapipe/modules" / f"{name}.tflite"
        model.parent.mkdir(parents=True)
        model.touch()
    (packages / "mediapipe-0.10.0.dist-info").mkdir()
    (folder / "bin").mkdir()
    (folder / "bin/python").write_text(PROGRAM)
    (folder / "bin/python").chmod(0o755)
    return str(folder)


def rewrite(study: Study, item: str, **settings: object) -> None:
    """Change the settings in the record of an item."""
    path = study.store.require_local() / item / "zarr.json"
    document = json.loads(path.read_text())
    document["attributes"]["provenance"]["settings"] |= settings
    path.write_text(group_text_with_checksum(document["attributes"]))


def damage(study: Study, item: str) -> None:
    chunk = max(path for path in (study.store.require_local() / item).rglob("c/**/*") if path.is_file())
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    chunk.write_bytes(content)


def plain(result: Result) -> str:
    return " ".join(result.output.split())


@pytest.fixture
def study(tmp_path: Path) -> Study:
    study = video_study(tmp_path / "study")
    study.build("tracks", overrides={"tracks": {"grid": 4, "window": 8}})
    return study


def test_repair_runs_no_code_of_the_store(study: Study) -> None:
    evil = study.store.require_local() / ".evil"
    rewrite(study, "tracks/a/0", **code_in(evil))
    damage(study, "tracks/a/0")
    result = actionprep(study, "verify", "--repair", "--workers", "0")
    assert result.exit_code == 1
    assert not (evil / "RAN").exists()
    assert f"Ignored tracks.repo = '{evil}', recorded in the stored tracks: data must not name code." in plain(result)
    assert "CoTracker 3 needs its code" in plain(result)


def test_repair_takes_the_users_own_code_and_compares_it(study: Study, tmp_path: Path) -> None:
    evil, own = study.store.require_local() / ".evil", code_in(tmp_path / "own")
    rewrite(study, "tracks/a/0", **code_in(evil))
    path = study.store.require_local() / "tracks/a/0/zarr.json"
    document = json.loads(path.read_text())
    document["attributes"]["provenance"]["identity"] = {"code": "sha256:" + 64 * "0"}
    path.write_text(group_text_with_checksum(document["attributes"]))
    damage(study, "tracks/a/0")
    for name in ("repo", "checkpoint"):
        study.folder.change("tracks", name, own[name])
    result = actionprep(study, "verify", "--repair", "--workers", "0")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "own/RAN").exists()
    assert not (evil / "RAN").exists()
    assert f"Used instead: '{own['repo']}', as you set it." in plain(result)
    assert "made with other code than those in use: recorded hash 000000000000" in plain(result)


def test_intact_items_name_no_code_for_damaged_ones(tmp_path: Path) -> None:
    study = video_study(tmp_path / "study", recordings=("a", "b"))
    study.build("tracks", overrides={"tracks": {"grid": 4}})
    evil = study.store.require_local() / ".evil"
    rewrite(study, "tracks/b/0", **code_in(evil))
    path = study.store.require_local() / "tracks/a/0/zarr.json"
    path.write_text(path.read_text().replace('"grid": 4', '"grid": 5'))
    result = actionprep(study, "verify", "--repair", "--workers", "0")
    assert not (evil / "RAN").exists()
    assert f"Ignored tracks.repo = '{evil}', recorded in the stored tracks: data must not name code." in plain(result)
    assert path.is_file()


@pytest.mark.parametrize("command", ["plan", "heatmaps"])
def test_stages_start_no_program_of_the_store(study: Study, command: str) -> None:
    store = study.store.require_local()
    shutil.copytree(store / "masks", store / "pose")
    path = store / "pose/a/0/zarr.json"
    document = json.loads(path.read_text())
    environment = environment_in(store / ".env")
    settings = PoseSettings(environment=environment).model_dump(mode="json")
    document["attributes"]["item"]["product"] = "pose"
    document["attributes"]["provenance"] |= {"stage": "pose", "version": Pose.version, "settings": settings}
    path.write_text(group_text_with_checksum(document["attributes"]))
    words = ["plan", "heatmaps"] if command == "plan" else ["heatmaps", "--workers", "0"]
    result = actionprep(study, *words)
    assert result.exit_code == 1
    assert not (store / ".env/RAN").exists()
    assert f"Ignored pose.environment = '{environment}', recorded in the stored pose" in plain(result)
    assert "MediaPipe is not installed" in plain(result)


def test_own_code_given_again_is_no_finding(tmp_path: Path) -> None:
    study = video_study(tmp_path / "study")
    own = code_in(tmp_path / "own")
    study.build("tracks", overrides={"tracks": {**own, "grid": 4}})
    heard: list[str] = []
    again = Study(study.folder, log=heard.append)
    item = again.plan("tracks", overrides={"tracks": {**own, "grid": 4}}).items[-1]
    assert item.action == "done"
    assert heard == []


def write_masks(folder: Path) -> None:
    import cv2
    import numpy as np
    from recordings import FRAMES, HEIGHT, WIDTH

    folder.mkdir(parents=True)
    for number in range(FRAMES):
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        mask[10:40, 10:60] = 1
        cv2.imwrite(str(folder / f"{number:05d}.png"), mask)


def test_a_stored_input_stays_without_its_files(tmp_path: Path) -> None:
    study = video_study(tmp_path / "study")
    write_masks(study.root / "drawn/a/0")
    files = "drawn/{recording}/{view}"
    study.build("masks", overrides={"masks": {"source": "files", "files": files}})
    heard: list[str] = []
    plan = Study(study.folder, log=heard.append).plan("tracks")
    assert [(item.key.product, item.action) for item in plan.items] == [("masks", "done"), ("tracks", "build")]
    assert heard == [
        f"Ignored masks.files = '{files}', recorded in the stored masks: data must not name a file. Only your own "
        "actionprep.toml or the command line sets it. Used instead: the default, ''."
    ]
    # A damaged item needs them, and the error names the setting.
    damage(study, "masks/a/0")
    with pytest.raises(UserError, match=r"Ignored masks\.files = (.|\n)*Without it: 'files' is the pattern"):
        study.repair([entry for _, entry in Study(study.folder).store.verify() if entry is not None])


def test_the_users_own_files_are_compared_by_content(tmp_path: Path) -> None:
    study = video_study(tmp_path / "study")
    write_masks(study.root / "drawn/a/0")
    shutil.copytree(study.root / "drawn", study.root / "moved")
    study.build("masks", overrides={"masks": {"source": "files", "files": "drawn/{recording}/{view}"}})
    study.folder.change("masks", "source", "files")
    study.folder.change("masks", "files", "moved/{recording}/{view}")
    actions = [item.action for item in Study(study.folder).plan("tracks").items]
    assert actions == ["done", "build"]
    next((study.root / "moved").rglob("*.png")).unlink()
    assert Study(study.folder).plan("tracks").items[0].action == "build"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    store = make_store(folder / "store", subjects=2)
    split = SplitChoice(train=("1", "2"), val_share=0.0)
    return fit(store, tiny_recipe(epochs=1, refit=False), folder / "run", split=split, tensorboard=False).folder


def passed_on(trained: Path, folder: Path, stages: dict[str, Any]) -> Path:
    """A copy of the run, with a checkpoint that records these settings and a settings file that repeats them."""
    run = folder / "run"
    shutil.copytree(trained, run)
    for path in run.rglob("*.ckpt"):
        content = torch.load(path, map_location="cpu", weights_only=True)
        recorded = {name: [{"version": 1, "settings": settings}] for name, settings in stages.items()}
        content["actionprep"]["pipeline"]["stages"] = recorded
        torch.save(content, path)
    tables = {name: {"repo": entry["repo"], "checkpoint": entry["checkpoint"]} for name, entry in stages.items()}
    text = "".join(
        f"[{name}]\n" + "".join(f'{key} = "{value}"\n' for key, value in entry.items())
        for name, entry in tables.items()
    )
    (run / "actionprep.toml").write_text(f"[study]\n{text}")
    return run


def recorded_code(folder: Path) -> dict[str, Any]:
    named = code_in(folder)
    return {"tracks": TracksSettings(grid=4, window=8, seeding="whole-frame", **named).recorded()}  # type: ignore[arg-type]


@pytest.mark.parametrize("live", [False, True])
def test_predict_runs_no_code_of_a_checkpoint(trained: Path, tmp_path: Path, live: bool) -> None:
    evil = tmp_path / "evil"
    run = passed_on(trained, tmp_path, recorded_code(evil))
    study = video_study(tmp_path / "study")
    video = str(study.root / "videos/a/cam0.mp4")
    words = ["predict", *(["--live"] if live else []), video, "--run", str(run), "--device", "cpu", "--length", "200"]
    if not live:
        words += ["--out", str(tmp_path / "out")]
    refused = CliRunner().invoke(app, words)
    assert refused.exit_code == 1
    assert not (evil / "RAN").exists()
    assert f"Ignored tracks.repo = '{evil}'" in plain(refused)
    assert "CoTracker 3 needs its code" in plain(refused)
    assert "give your own with --set tracks.repo=PATH, or in your study's settings file" in plain(refused)
    own = code_in(tmp_path / "own")
    given = [f"--set=tracks.{name}={own[name]}" for name in ("repo", "checkpoint")]
    done = CliRunner().invoke(app, [*words, *given])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "own/RAN").exists()
    assert not (evil / "RAN").exists()


def test_predict_takes_code_from_the_users_study(trained: Path, tmp_path: Path) -> None:
    evil, own = tmp_path / "evil", code_in(tmp_path / "own")
    run = passed_on(trained, tmp_path, recorded_code(evil))
    study = video_study(tmp_path / "study")
    for name in ("repo", "checkpoint"):
        study.folder.change("tracks", name, own[name])
    words = ["predict", str(study.root / "videos/a/cam0.mp4"), "--run", str(run), "--device", "cpu"]
    done = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "out"), "--study", str(study.root)])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "own/RAN").exists()
    assert not (evil / "RAN").exists()


def test_predict_takes_no_other_settings(trained: Path, tmp_path: Path) -> None:
    video = str(video_study(tmp_path / "study").root / "videos/a/cam0.mp4")
    result = CliRunner().invoke(app, ["predict", video, "--run", str(trained), "--set", "tracks.grid=9"])
    assert result.exit_code == 2
    assert "--set tracks.grid is not possible here: the training decides how its input is made." in plain(result)
    _, _, named = plain(result).partition("Settings to give: ")
    assert {"masks.files", "masks.environment", "tracks.checkpoint", "tracks.repo"} <= set(
        named.rstrip(".").split(", ")
    )


def test_a_recorded_fusion_reads_no_recipe_file(trained: Path, tmp_path: Path) -> None:
    from actionprep.training.run import RECIPE, Run

    run = tmp_path / "run"
    shutil.copytree(trained, run)
    text = (run / RECIPE).read_text()
    recipe = tmp_path / "other.toml"
    recipe.write_text(text)
    before, _, rest = text.replace('product = "tracks"', 'product = "fusion"').partition("[input]\n")
    after = rest[rest.index("\n[") :]
    (run / RECIPE).write_text(f'{before}[input]\nrecipes = ["{recipe}", "view-transformer"]\n{after}')
    with pytest.raises(UserError, match=r"recipe\.toml names the recipe file '.*other\.toml' in input\.recipes"):
        _ = Run.open(run).recipe


def test_environment_errors_stay_environment_errors(trained: Path, tmp_path: Path) -> None:
    from actionprep.api import predict_videos

    run = passed_on(trained, tmp_path, recorded_code(tmp_path / "evil"))
    video = video_study(tmp_path / "study").root / "videos/a/cam0.mp4"
    with pytest.raises(SetupError, match="CoTracker 3 needs its code"):
        predict_videos(run, [video], out=tmp_path / "out", device="cpu")


def test_predict_compares_training_items_without_their_places(trained: Path, tmp_path: Path) -> None:
    from actionprep.training.predict import open_checkpoint, pipeline_settings

    run = passed_on(trained, tmp_path, recorded_code(tmp_path / "one"))
    checkpoint = open_checkpoint(run, device="cpu")
    [made] = checkpoint.card["pipeline"]["stages"]["tracks"]
    other = {**made, "settings": {**made["settings"], "repo": "two", "checkpoint": "two/w.pth"}}
    checkpoint.card["pipeline"]["stages"]["tracks"].append(other)
    assert pipeline_settings(checkpoint)["tracks"]["grid"] == 4
    other["settings"]["grid"] = 5
    with pytest.raises(UserError, match="built with 2 different settings"):
        pipeline_settings(checkpoint)


def test_a_prediction_prints_that_weights_differ(trained: Path, tmp_path: Path) -> None:
    from actionprep.pipeline.model_settings import OwnSettings

    heard: list[str] = []
    own = code_in(tmp_path / "own")
    recorded = recorded_code(tmp_path / "evil")
    made = {"tracks": [{"identity": {"weights": "sha256:" + 64 * "a", "torch": "1.0"}}]}
    given = {"tracks": {"repo": own["repo"], "checkpoint": own["checkpoint"]}}
    chosen = OwnSettings(None, given, heard.append).stage_settings(recorded, made, where="best.ckpt")
    assert chosen["tracks"].model_dump()["repo"] == own["repo"]
    assert len(heard) == 3
    assert heard[2].startswith(
        "The tracks were made with other weights than those in use: recorded hash aaaaaaaaaaaa, "
    )
