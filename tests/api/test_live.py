"""Live prediction, with a file as the camera."""

import json

import numpy as np
import pytest
import torch
from frame_store_fakes import tiny_pixels, write_halved_videos, write_square_video
from recordings import write_video
from training_fakes import table_of, write_snippets
from typer.testing import CliRunner

from actionprep.api.live import MemoryItem, predict_live
from actionprep.cli.train import app
from actionprep.datasets.split_choice import SplitChoice
from actionprep.datasets.store.zarr_store import Store
from actionprep.errors import SetupError, UserError
from actionprep.training.fit import fit


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("live")
    store = Store(folder / "store", create=True)
    names, labels = write_halved_videos(store, subjects=4, settings={"sizes": [24]})
    table = table_of(names, labels, [str(number) for number in range(12)], seconds=1.2)
    write_snippets(store, table)
    recipe = tiny_pixels(epochs=10, input__channels="motion", input__frames=8, optimizer__learning_rate=5e-3)
    split = SplitChoice(train=tuple(str(number) for number in range(12)), val_share=0.0)
    return fit(store, recipe, folder / "run", split=split, tensorboard=False)


def test_a_file_is_watched_as_a_camera_is(trained, tmp_path):
    video = write_square_video(tmp_path / "camera.avi", ("right", 0), ("right", 1), ("right", 2))
    heard = []
    result = predict_live(
        trained.folder, str(video), length_s=1.2, stride_s=0.4, device="cpu", on_prediction=heard.append
    )
    assert result.num_frames == 36
    assert result.num_dropped == 0
    assert heard == result.predictions
    assert 5 <= len(heard) <= 7
    assert all(entry.offset - entry.onset == pytest.approx(1.2) for entry in heard)
    assert all(np.diff([entry.offset for entry in heard]) >= 0.4 - 1e-6)
    assert all(entry.latency_s > 0 and entry.behind_s == 0 for entry in heard)
    assert result.latency(0.5) <= result.latency(0.95)
    assert result.document()["frames"] == 36
    assert {entry.label for entry in heard} <= {"left", "right", "up"}


def test_it_ends_after_the_seconds_that_are_asked_for(trained, tmp_path):
    video = write_video(tmp_path / "camera.avi", np.zeros((40, 48, 64, 3), np.uint8), rate=10, codec="mpeg4")
    assert predict_live(trained.folder, str(video), length_s=1.0, seconds=2.0, device="cpu").num_frames < 30


def test_predict_live_rejects_a_video_shorter_than_a_window(trained, tmp_path):
    video = write_video(tmp_path / "short.avi", np.zeros((6, 48, 64, 3), np.uint8), rate=10, codec="mpeg4")
    expected = (
        r".*short\.avi was shorter than a window, so there is no prediction: its frames reach to 0\.50 s and a "
        r"window is 1\.20 s long\. Give a longer video or more --seconds, or a shorter window with --length, in ms\."
    )
    with pytest.raises(UserError, match=expected):
        predict_live(trained.folder, str(video), length_s=1.2, device="cpu")
    words = ["predict", "--live", str(video), "--run", str(trained.folder), "--length", "1200", "--device", "cpu"]
    for more in ([], ["--json"]):
        done = CliRunner().invoke(app, [*words, *more])
        assert done.exit_code == 2
        assert "shorter than a window" in " ".join(done.output.split())
        assert "nan ms" not in done.output


def test_a_model_of_whole_segments_wants_to_know_the_window(trained, tmp_path):
    with pytest.raises(UserError, match=r"the length of its window is unknown\. Set it with --length.* 1200\."):
        predict_live(trained.folder, "0")


def test_predict_live_names_a_source_that_cannot_be_opened(trained):
    with pytest.raises(SetupError, match=r"Cannot open '/nowhere\.mp4' as a camera, a stream or a video"):
        predict_live(trained.folder, "/nowhere.mp4", length_s=1.0, device="cpu")


def test_memory_items_grow_and_forget():
    item = MemoryItem("tracks/live/0")
    item.create("xy", shape=(2,), dtype="f4", axes=("row", "xy"), chunk=4)
    assert item["xy"].shape == (0, 2)
    for start in (0, 2):
        item.append("xy", np.arange(4).reshape(2, 2) + start)
    item.forget(1)
    assert item["xy"].tolist() == [[2, 3], [2, 3], [4, 5]]
    with pytest.raises(KeyError, match=r"No array 'valid' in tracks/live/0\. It has xy"):
        item["valid"]


def test_live_writes_answers_and_the_end_of_a_file(trained, tmp_path):
    video = write_square_video(
        tmp_path / "camera.avi", ("right", 0), ("right", 1), ("right", 2)
    )  # 36 frames at 10 frames/s
    words = ["predict", "--live", str(video), "--run", str(trained.folder), "--length", "1200", "--stride", "5000"]
    done = CliRunner().invoke(app, [*words, "--device", "cpu", "-o", str(tmp_path / "out"), "--json"])
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in (tmp_path / "out/live.jsonl").read_text().splitlines()]
    assert lines == json.loads(done.stdout)["predictions"]
    # The first full window, and the end of the file.
    assert [line["offset"] for line in lines][1:] == [pytest.approx(3.5)]
    assert {line["label"] for line in lines} <= {"left", "right", "up"}
