"""Windows that show nothing get no label, and other frame rates than those of the training are reported."""

import csv
import io

import numpy as np
import pytest
from training_fakes import MOTIONS, make_store, table_of, tiny_recipe, write_snippets, write_tracks

from actionprep.datasets.split_choice import SplitChoice
from actionprep.datasets.store.zarr_store import Store
from actionprep.training.fit import fit
from actionprep.training.predict import open_checkpoint, other_frame_rate, predict
from actionprep.training.predicted_timeline import Timeline
from actionprep.training.test import run_test

SPLIT = SplitChoice(train=("1", "2", "3"), test=("4",), val_share=0.0)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evidence")
    store = make_store(folder / "store", subjects=4)
    return fit(store, tiny_recipe(epochs=1), folder / "run", split=SPLIT, tensorboard=False, device="cpu")


def write_recording(store: Store, name: str, *, hidden: slice = slice(0, 0), num_windows: int = 10) -> None:
    """Tracks of which some windows have no visible point; a window lasts 0.8 s and starts every 0.4 s."""
    write_tracks(store, name, "0", direction=MOTIONS["left"], num_windows=num_windows, hidden=hidden)


def test_predict_without_points_gives_no_label(run, tmp_path):
    store = Store(tmp_path / "store", create=True)
    write_recording(
        store, "hole", hidden=slice(3, 8)
    )  # frames from 1.2 s to 3.5 s, seen by others until 1.5 s, from 3.2 s
    [timeline] = predict(run, store, window_s=0.8, stride_s=0.4, device="cpu")
    middle = (timeline.onset + timeline.offset) / 2
    assert timeline.has_evidence[middle < 1.2].all()
    assert not timeline.has_evidence[(timeline.onset > 1.59) & (timeline.offset < 3.21)].any()
    assert timeline.num_without_evidence == int((~timeline.has_evidence).sum()) > 0
    covered = timeline.onset[timeline.has_evidence], timeline.offset[timeline.has_evidence]
    for segment, _ in timeline.segments():
        inside = [low <= segment.onset + 1e-9 and segment.onset < high for low, high in zip(*covered, strict=True)]
        assert any(inside)
        assert not (segment.onset < 2.4 < segment.offset)
    rows = list(csv.DictReader(io.StringIO(timeline.windows_csv())))
    assert [row["evidence"] for row in rows] == [str(int(seen)) for seen in timeline.has_evidence]
    assert {row["left"] for row in rows if row["evidence"] == "0"} == {""}
    hidden = [row for row in csv.DictReader(io.StringIO(timeline.frames_csv())) if 2.0 < float(row["time"]) < 2.8]
    assert hidden
    assert {row["label"] for row in hidden} == {""}
    timeline.figure()


def test_predict_recording_without_any_point(run, tmp_path):
    store = Store(tmp_path / "store", create=True)
    write_recording(store, "empty", hidden=slice(None))
    [timeline] = predict(run, store, window_s=0.8, device="cpu")
    assert timeline.num_without_evidence == len(timeline.onset)
    assert timeline.segments() == []
    timeline.write(tmp_path / "out")
    assert (tmp_path / "out/timeline.csv").read_text().splitlines() == ["recording,onset,offset,label,probability"]


def test_run_test_counts_snippets_without_points_as_wrong(tmp_path):
    store = Store(tmp_path / "store", create=True)
    names = [f"s{subject}_{label}" for subject in range(1, 5) for label in MOTIONS]
    for name in names:
        write_recording(store, name, hidden=slice(None) if name == "s4_up" else slice(0, 0), num_windows=2)
    labels, subjects = [name[3:] for name in names], [name[1] for name in names]
    write_snippets(store, table_of(names, labels, subjects, seconds=1.2))
    made = fit(store, tiny_recipe(epochs=1), tmp_path / "run", split=SPLIT, tensorboard=False, device="cpu")
    tested = run_test(made, repeats=10, device="cpu")
    assert tested["num_without_evidence"] == 1
    with open(made.folder / "samples.csv", newline="", encoding="utf-8") as file:
        rows = {row["recording"]: row for row in csv.DictReader(file)}
    assert (rows["s4_up"]["predicted"], rows["s4_up"]["evidence"]) == ("", "0")
    correct = sum(row["predicted"] == row["actual"] for row in rows.values())
    assert tested["metrics"]["accuracy"] == pytest.approx(correct / 3)
    assert np.load(made.folder / "confusion.npy").sum() == 2


def test_pieces_leave_out_windows_without_evidence():
    onset = np.array([0.0, 1.0, 2.0, 3.0])
    evidence = np.array([True, False, False, True])
    timeline = Timeline("r", ("a", "b"), onset, onset + 1, np.array([[1.0, 0.0]] * 4), evidence=evidence)
    first, last, mean = timeline.pieces()
    assert first.tolist() == [0.0, 3.0]
    assert last.tolist() == [1.0, 4.0]
    assert mean.tolist() == [[1.0, 0.0]] * 2
    assert [(entry.onset, entry.offset) for entry, _ in timeline.segments()] == [(0.0, 1.0), (3.0, 4.0)]
    codes, _ = timeline.votes(np.array([0.5, 1.5, 2.5, 3.5]))
    assert codes.tolist() == [0, -1, -1, 0]


@pytest.mark.parametrize(
    ("rate", "expected"), [(10.0, None), (10.5, None), (25.0, "slower"), (5.0, "faster"), (None, None)]
)
def test_other_frame_rate_compares_with_training(run, rate, expected):
    card = open_checkpoint(run, device="cpu").card
    assert card["frame_rates"] == [10.0, 10.0]  # FPS of the fakes
    sentence = other_frame_rate(card, rate, "take_1")
    if expected is None:
        assert sentence is None
        return
    assert sentence.startswith(f"take_1 has {rate:g} frames/s, and the model was trained on 10 frames/s. ")
    assert f"Movements look {expected} to it" in sentence
    assert "Convert the video to the frame rate of the training" in sentence
