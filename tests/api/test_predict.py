"""From raw videos to a timeline, with one run and with several fused."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from frame_store_fakes import (
    VIDEO_SIZE,
    make_frame_store,
    moving_square,
    tiny_pixels,
    write_halved_videos,
    write_square_video,
)
from recordings import write_video
from training_fakes import MOTIONS, table_of, write_snippets
from typer.testing import CliRunner

from actionprep.api import predict_videos
from actionprep.api.video_store import store_of_videos
from actionprep.cli.train import app
from actionprep.datasets.split_choice import SplitChoice
from actionprep.datasets.store.zarr_store import Store
from actionprep.errors import UserError
from actionprep.pipeline.index import load_stages
from actionprep.training import predict
from actionprep.training.fit import fit
from actionprep.training.fusion import fuse
from actionprep.training.predicted_timeline import Timeline
from actionprep.training.test import run_test

OPTIONS = {"length_ms": 1200, "stride_ms": 400, "device": "cpu"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs on small frames, which differ in their seed."""
    folder = tmp_path_factory.mktemp("runs")
    store = Store(folder / "store", create=True)
    settings = load_stages()["lowres"].Settings(sizes=(24,)).recorded()
    names, labels = write_halved_videos(store, subjects=3, settings=settings)
    write_snippets(store, table_of(names, labels, [name[:2] for name in names], seconds=1.2))
    split = SplitChoice(train=("s0", "s1"), test=("s2",), val_share=0.0)
    recipe = tiny_pixels(epochs=6, input__frames=8, optimizer__learning_rate=5e-3)
    return [
        fit(store, recipe.changed({"seed": seed}), folder / f"run-{seed}", split=split, tensorboard=False)
        for seed in (0, 1)
    ]


def square_video(path: Path, motion: str = "right") -> Path:
    return write_square_video(path, (motion, 0), (motion, 1))


def test_predict_fusion_pools_weighted_runs_of_one_store(runs, tmp_path, monkeypatch):
    made = fuse(runs, tmp_path / "fused", weights=(1, 3))
    video = square_video(tmp_path / "new.avi")
    alone = [predict_videos(run.folder, [video], out=tmp_path / "out", **OPTIONS).timeline for run in runs]
    built: list = []
    monkeypatch.setattr(
        "actionprep.api.predict.store_of_videos",
        lambda *words, **named: built.append(words) or store_of_videos(*words, **named),
    )
    result = predict_videos(made.folder, [video], out=tmp_path / "out", **OPTIONS)
    product = alone[0].probabilities ** 0.25 * alone[1].probabilities ** 0.75
    np.testing.assert_allclose(result.timeline.probabilities, product / product.sum(1, keepdims=True), rtol=1e-5)
    assert len(built) == 1
    with open(tmp_path / "out/windows.csv", newline="", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == len(product) > 1


def test_a_recording_is_called_after_its_video_in_all_files(runs, tmp_path):
    video = square_video(tmp_path / "take.7.avi")
    result = predict_videos(runs[0].folder, [video], out=tmp_path / "out", **OPTIONS)
    assert result.document()["recording"] == "take.7"
    for name in ("timeline", "windows", "frames"):
        with open(tmp_path / f"out/{name}.csv", newline="", encoding="utf-8") as file:
            assert {row["recording"] for row in csv.DictReader(file)} == {"take.7"}


def test_predict_makes_each_video_of_a_one_view_run_a_recording(runs, tmp_path):
    square_video(tmp_path / "a/clip.avi")
    square_video(tmp_path / "b/clip.avi", "up")
    words = [
        "predict",
        str(tmp_path / "a"),
        str(tmp_path / "b/clip.avi"),
        "--run",
        str(runs[0].folder),
        "--length",
        "1200",
    ]
    done = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "out"), "--device", "cpu", "--json"])
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert {entry["recording"] for entry in result} == {"clip", "a_clip"}
    assert {path.name for path in (tmp_path / "out/run-0").iterdir()} == {"clip", "a_clip", "timeline.csv"}


def test_predict_maps_cameras_of_a_folder_to_views_by_name(tmp_path, monkeypatch):
    store = make_frame_store(tmp_path / "store", subjects=3, views=("0", "3", "6"))
    split = SplitChoice(train=("1", "2"), test=("3",), val_share=0.0)
    run = fit(store, tiny_pixels(epochs=1), tmp_path / "run", split=split, tensorboard=False, device="cpu")
    settings = '[study]\nlayout = "views"\npattern = "{recording}/cam{view}.avi"\n'
    (tmp_path / "actionprep.toml").write_text(settings)
    for camera in (6, 2, 0):
        square_video(tmp_path / f"take/cam{camera}.avi")
    asked: list[dict[str, Path]] = []

    def answered(models: object, videos: dict[str, Path], build: object, **options: object) -> Timeline:
        asked.append(videos)
        return Timeline("take", run.labels, np.zeros(1), np.ones(1), np.full((1, 3), 1 / 3))

    monkeypatch.setattr(predict, "predict_with_built_store", answered)
    words = [
        "predict",
        str(tmp_path / "take"),
        "--run",
        str(run.folder),
        "--out",
        str(tmp_path / "out"),
        "--device",
        "cpu",
    ]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert asked == [{view: tmp_path / f"take/cam{view}.avi" for view in ("0", "6")}]
    assert "view 0 ← cam0.avi, view 6 ← cam6.avi (by the pattern of the study)" in done.stdout
    assert "Ignored: cam2.avi. The run was not trained on these views." in done.stderr
    assert "No video of view 3: the prediction uses 2 of the run's 3 views." in done.stderr
    [document] = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    assert document["views"] == {view: str(tmp_path / f"take/cam{view}.avi") for view in ("0", "6")}
    assert (document["views_by"], document["left_out"], document["missing_views"]) == (
        {"0": "pattern", "6": "pattern"}, [str(tmp_path / "take/cam2.avi")], ["3"],
    )  # fmt: skip


def test_predict_warns_of_recordings_longer_than_the_snippets(runs, tmp_path):
    moves = moving_square(MOTIONS["right"], size=VIDEO_SIZE, seed=0)
    video = write_video(tmp_path / "long.avi", np.concatenate([moves, moves]), rate=10, codec="mpeg4")
    words = ["predict", str(video), "--run", str(runs[0].folder), "--out", str(tmp_path / "out"), "--device", "cpu"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    short = write_video(tmp_path / "short.avi", moves, rate=10, codec="mpeg4")
    message = (
        "long was predicted in one window of 2.4 s, but the snippets of the training were 1.2 s long. Set a window, such "
        "as --length 1200, to label parts of the recording."
    )
    assert message in " ".join(done.stderr.split())
    for other in ([*words, "--length", "1200"], ["predict", str(short), *words[2:]]):
        done = CliRunner().invoke(app, other)
        assert done.exit_code == 0, done.output
        assert "predicted in one window" not in done.output


def rows_of(folder: Path) -> list[dict[str, str]]:
    with open(folder / "timeline.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def predict_with(runs, tmp_path, monkeypatch):
    """Return a function that predicts a video with some options and returns the document and the output folder.

    The seven windows of the video get fixed probabilities, because those of so small a model depend on the machine.
    """
    moves = moving_square(MOTIONS["right"], size=VIDEO_SIZE, seed=0)
    video = write_video(tmp_path / "video.avi", np.concatenate([moves, 0 * moves]), rate=10, codec="mpeg4")
    asked = predict.predict_with_built_store

    def answered(*words: object, **named: object) -> Timeline:
        timeline = asked(*words, **named)
        # Two windows cover each of the eight pieces except the first and last. Maxima: 0.9 0.85 0.75 0.55 0.4 0.6 0.7 0.7.
        rows = np.array(
            [[90, 5, 5], [80, 10, 10], [70, 20, 10], [40, 30, 30], [20, 50, 30], [10, 70, 20], [20, 70, 10]]
        )
        assert timeline.probabilities.shape == rows.shape
        return replace(timeline, probabilities=rows / 100)

    def predict_with(*words: str) -> tuple[dict, Path]:
        out = tmp_path / "-".join(("out", *words))
        given = ["predict", str(video), "--run", str(runs[0].folder), "--out", str(out), "--device", "cpu"]
        done = CliRunner().invoke(app, [*given, "--length", "600", "--stride", "300", *words, "--json"])
        assert done.exit_code == 0, done.output
        [document] = json.loads(done.stdout)
        return document, out / "run-0/video"

    monkeypatch.setattr(predict, "predict_with_built_store", answered)
    return predict_with


def spans(document: dict) -> list[tuple[str, float, float]]:
    return [(entry["label"], round(entry["onset"], 3), round(entry["offset"], 3)) for entry in document["segments"]]


def test_predict_leaves_out_labels_below_the_threshold(predict_with):
    every, folder = predict_with()
    first, second = every["segments"][0]["label"], every["segments"][-1]["label"]
    assert first != second
    assert spans(every) == [(first, 0.0, 1.2), (second, 1.2, 2.4)]
    assert [row["label"] for row in rows_of(folder)] == [first, second]
    some, folder = predict_with("--threshold", "0.58")
    assert spans(some) == [(first, 0.0, 0.9), (second, 1.5, 2.4)]
    assert [float(row["probability"]) for row in rows_of(folder)] == pytest.approx([0.8333, 0.6667], abs=1e-4)
    nothing, folder = predict_with("--threshold", "0.95")
    assert nothing["segments"] == rows_of(folder) == []


def test_segments_shorter_than_the_least_length_are_left_out(predict_with):
    wide = ("--threshold", "0.65")
    both, _ = predict_with(*wide)
    first, second = (entry["label"] for entry in both["segments"])
    assert spans(both) == [(first, 0.0, 0.9), (second, 1.8, 2.4)]
    shown, folder = predict_with(*wide, "--min-length", "800")
    assert spans(shown) == [(first, 0.0, 0.9)]
    assert len(rows_of(folder)) == 1
    nothing, folder = predict_with(*wide, "--min-length", "1000")
    assert nothing["segments"] == rows_of(folder) == []


def test_predict_uses_and_prints_thresholds_of_multi_label_tests(tmp_path):
    store = Store(tmp_path / "store", create=True)
    settings = load_stages()["lowres"].Settings(sizes=(24,)).recorded()
    names, labels = write_halved_videos(store, subjects=3, settings=settings)
    target = np.array([[label == "left", label == "right", label != "left"] for label in labels], np.uint8)
    subjects = [name[:2] for name in names]
    table = table_of(names, labels, subjects, seconds=1.2, target=target, settings={"multi_label": True})
    write_snippets(store, table)
    split = SplitChoice(train=("s0",), val=("s1",), test=("s2",))
    run = fit(store, tiny_pixels(epochs=1, input__frames=8), tmp_path / "run", split=split, tensorboard=False)
    video = square_video(tmp_path / "new.avi")
    before = predict_videos(run.folder, [video], out=tmp_path / "out", **OPTIONS)
    assert before.said_from == dict.fromkeys(table.labels, 0.5)
    assert before.timeline.thresholds is None

    thresholds = run_test(run, store, repeats=10, device="cpu")["thresholds"]
    assert any(value != 0.5 for value in thresholds.values())
    words = ["predict", str(video), "--run", str(run.folder), "--length", "1200", "--stride", "400", "--device", "cpu"]
    words += ["--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*words, "--json"])
    assert done.exit_code == 0, done.output
    [document] = json.loads(done.stdout)
    assert document["said_from"] == pytest.approx(thresholds)
    assert document["thresholds_of_val"]
    _, _, mean = before.timeline.pieces()
    above = {label for at, label in enumerate(table.labels) if (mean[:, at] >= thresholds[label]).any()}
    assert (
        {entry["label"] for entry in document["segments"]}
        == {row["label"] for row in rows_of(tmp_path / "out/run/new")}
        == above
    )
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    each = ", ".join(f"{label} {value:.2f}" for label, value in thresholds.items())
    why = "Minimum probability of each label: the threshold tuned on val in the run's test, but at least --threshold"
    assert f"{why}: {each}." in " ".join(done.output.split())


def test_predict_batch_continues_after_a_bad_video(runs, tmp_path):
    square_video(tmp_path / "good.avi")
    square_video(tmp_path / "later.avi", "up")
    (tmp_path / "bad.avi").write_bytes(b"not a video")
    videos = [str(tmp_path / name) for name in ("good.avi", "bad.avi", "later.avi")]
    words = ["predict", *videos, "--run", str(runs[0].folder), "--out", str(tmp_path / "out"), "--device", "cpu"]
    done = CliRunner().invoke(app, [*words, "--length", "1200"])
    assert done.exit_code == 1, done.output
    text = " ".join(done.stderr.split())
    assert "bad: " in text
    assert "1 of 3 recordings could not be predicted: bad. The others are complete." in text
    assert {row["recording"] for row in rows_of(tmp_path / "out/run-0")} == {"good", "later"}
    done = CliRunner().invoke(app, [*words, "--length", "1200", "--json"])
    assert done.exit_code == 1
    documents = {entry["recording"]: entry for entry in json.loads(done.stdout)}
    assert "error" in documents["bad"]
    assert documents["good"]["windows"] > 0
    assert documents["good"]["windows_without_evidence"] == 0


def test_predict_runs_do_not_overwrite_each_other(runs, tmp_path):
    video = square_video(tmp_path / "take.avi")
    for run in runs:
        words = ["predict", str(video), "--run", str(run.folder), "--out", str(tmp_path / "out"), "--device", "cpu"]
        assert CliRunner().invoke(app, [*words, "--length", "1200"]).exit_code == 0
        (tmp_path / "out" / run.folder.name / "take" / "prediction.mp4").touch()
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"run-0", "run-1"}
    for run in runs:
        folder = tmp_path / "out" / run.folder.name
        assert (folder / "timeline.csv").read_text() == (folder / "take/timeline.csv").read_text()
    again = ["predict", str(video), "--run", str(runs[0].folder), "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert CliRunner().invoke(app, [*again, "--length", "1200"]).exit_code == 0
    # The video shows the labels of the earlier prediction.
    assert not (tmp_path / "out/run-0/take/prediction.mp4").exists()
    assert (tmp_path / "out/run-1/take/prediction.mp4").exists()


def test_predict_recordings_of_a_store(runs, tmp_path):
    words = ["predict", "--run", str(runs[0].folder), "--out", str(tmp_path / "out"), "--device", "cpu", "--json"]
    source = ["--store", runs[0].store, "--length", "600"]
    names = [Store(runs[0].store).items("lowres")[index].recording for index in (0, 4)]
    done = CliRunner().invoke(app, [*words, *source, "--recording", *names])
    assert done.exit_code == 0, done.output
    assert [entry["recording"] for entry in json.loads(done.stdout)] == names
    expected = predict.predict(runs[0], runs[0].store, recordings=names, window_s=0.6, device="cpu")
    for name, timeline in zip(names, expected, strict=True):
        assert (tmp_path / "out/run-0" / name / "windows.csv").read_text() == timeline.windows_csv()
    done = CliRunner().invoke(app, [*words[:-1], *source, "--recording", names[0], "nobody"])
    assert done.exit_code == 1
    assert "No lowres of recording 'nobody'" in " ".join(done.stderr.split())
    done = CliRunner().invoke(app, [*words, "--recording", names[0], "--live", "0"])
    assert done.exit_code == 2
    assert "Give exactly one of these: videos" in " ".join(done.output.split())


def test_predict_command_starts_workers_as_needed(runs, tmp_path, monkeypatch):
    used = []

    def stop(*arguments, **options):
        used.append(arguments[5])
        raise UserError("stop")

    monkeypatch.setattr("actionprep.api.predict.store_of_videos", stop)
    video = square_video(tmp_path / "a.mp4")
    words = ["predict", str(video), "--run", str(runs[0].folder), "--out", str(tmp_path / "out")]
    assert CliRunner().invoke(app, words).exit_code != 0
    [workers] = used
    assert workers.as_needed
    assert workers.count >= 1
