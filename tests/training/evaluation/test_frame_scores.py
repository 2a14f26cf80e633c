"""Predictions for frames: metrics of tests, the report page, predictions of recordings."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest
from frame_fakes import frame_recipe, make_changing_store, motions_of
from hypothesis import given, settings
from hypothesis import strategies as st

from actionprep.datasets.snippets import LabelRule
from actionprep.datasets.split_choice import SplitChoice
from actionprep.datasets.store.zarr_store import Store
from actionprep.training.datasets import read_table
from actionprep.training.evaluation.frame_scores import (
    FrameScores,
    LabeledFrames,
    cells,
    frame_metrics,
    mean_over_variants,
    nearest,
)
from actionprep.training.fit import fit
from actionprep.training.predict import predict
from actionprep.training.run import Run
from actionprep.training.test import run_test

QUIET = {"tensorboard": False, "device": "cpu"}
NAMES = [str(number) for number in range(12)]
SPLIT = SplitChoice(train=tuple(NAMES[:9]), val=("9",), test=("10", "11"))


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return make_changing_store(tmp_path_factory.mktemp("scores") / "store", recordings=12, stride_s=0.5)


@pytest.fixture(scope="module")
def run(store, tmp_path_factory) -> Run:
    recipe = frame_recipe(epochs=25, test_variants=2)
    return fit(store, recipe, tmp_path_factory.mktemp("scores") / "run", split=SPLIT, **QUIET)


@pytest.fixture(scope="module")
def tested(run, store) -> dict:
    return run_test(run, store, repeats=50)


def truth(recording: str, time: float) -> str:
    for entry in motions_of(int(recording.removeprefix("take_"))):
        if entry.onset <= time + 1e-9 < entry.offset:
            return entry.label
    return "still"


def test_model_learns_frame_labels_from_windows_across_actions(run, tested):
    rows = list(csv.DictReader(io.StringIO((run.folder / "frames.csv").read_text())))
    commonest = max(sum(row["actual"] == label for row in rows) for label in ("left", "right", "up", "still"))
    # The accuracy of always predicting the most common label.
    assert tested["frames"]["metrics"]["accuracy"] > commonest / len(rows) + 0.15
    assert tested["frames"]["metrics"]["segment_f1_10"] > 0.5


def test_frame_metrics_match_the_table_of_frames(run, tested):
    rows = list(csv.DictReader(io.StringIO((run.folder / "frames.csv").read_text())))
    frames = tested["frames"]
    assert [row["time"] for row in rows[:3]] == ["0.0", "0.1", "0.2"]
    assert len(rows) == frames["num_frames"] == 2 * 60
    assert all(row["actual"] == truth(row["recording"], float(row["time"])) for row in rows)
    right = [row["actual"] == row["predicted"] for row in rows]
    assert frames["metrics"]["accuracy"] == pytest.approx(np.mean(right))
    f1 = []
    for label in ("left", "right", "up", "still"):
        expected = sum(row["predicted"] == label for row in rows)
        there = sum(row["actual"] == label for row in rows)
        both = sum(row["actual"] == row["predicted"] == label for row in rows)
        f1.append(2 * both / (expected + there) if expected + there else np.nan)
        [mine] = [frame for frame in frames["classes"] if frame["label"] == label]
        assert mine["frames"] == there
    assert frames["metrics"]["macro_f1"] == pytest.approx(np.nanmean(f1))
    assert json.loads((run.folder / "test.json").read_text())["frames"]["metrics"] == pytest.approx(frames["metrics"])
    assert set(frames["metrics"]) == {
        "accuracy", "macro_f1", "edit", "segment_f1_10", "segment_f1_25", "segment_f1_50"
    }  # fmt: skip
    for name, interval in frames["intervals"].items():
        # NaN bounds: all resampled test sets gave the same value.
        if not np.isnan(interval["low"]):
            assert interval["low"] <= frames["metrics"][name] <= interval["high"]
    assert not np.isnan(frames["intervals"]["accuracy"]["low"])


def test_report_shows_frame_metrics(run, tested):
    page = run.report.read_text()
    assert "<h2>Frames</h2>" in page
    assert "segments, F1@25" in page
    assert "edit score" in page
    assert "Lea et al., CVPR 2017" in page
    assert f"{tested['frames']['metrics']['accuracy'] * 100:.1f} %" in page


def test_frame_predictions_average_the_windows_at_each_frame(run, store):
    [line] = predict(run, store, recordings=["take_11"])
    code, share = line.votes(line.frame_times)
    expected = [line.labels[entry] for entry in code]
    right = np.mean([label == truth("take_11", time) for label, time in zip(expected, line.frame_times, strict=True)])
    assert right > 0.5
    assert (share > 0).all()
    # Windows of 1.5 s cannot separate actions that change within them.
    assert (line.offset - line.onset).max() < 0.3
    changes = sum(entry != other for entry, other in zip(expected[1:], expected[:-1], strict=True))
    assert changes >= 2
    assert line.frames_csv().splitlines()[1].startswith("take_11,0.000,")


def test_snippet_models_vote_by_windows_without_frame_metrics(store, tmp_path):
    run = fit(store, frame_recipe(epochs=1, targets="snippet"), tmp_path / "run", split=SPLIT, **QUIET)
    assert "frames" not in run_test(run, store, repeats=5)
    assert not (run.folder / "frames.csv").exists()
    [line] = predict(run, store, recordings=["take_11"])
    np.testing.assert_allclose(line.offset - line.onset, 1.5)


def test_several_labels_of_a_frame_are_counted_each_by_itself(tmp_path):
    store = make_changing_store(tmp_path / "store", rule=LabelRule(threshold=0.0, multi_label=True))
    split = SplitChoice(train=("0", "1", "2"), val=("3",), test=("4", "5"))
    run = fit(store, frame_recipe(epochs=1), tmp_path / "run", split=split, **QUIET)
    result = run_test(run, store, repeats=5)["frames"]
    assert "edit" not in result["metrics"]
    assert result["num_frames"] == 120
    table = read_table(store, "default")

    def frames(expected: np.ndarray) -> LabeledFrames:
        target = np.zeros((6, 3), np.uint8)
        target[:4, 0], target[2:, 1] = 1, 1
        return LabeledFrames(0, np.arange(6), np.arange(6) / 10, expected, target)

    exact = frames(np.array([[1, 0, 0]] * 2 + [[1, 1, 0]] * 2 + [[0, 1, 0]] * 2, float))
    values = frame_metrics([exact], table, multi_label=True, repeats=3)["metrics"]
    assert values == {"accuracy": 1, "macro_f1": 1, "segment_f1_10": 1, "segment_f1_25": 1, "segment_f1_50": 1}
    # One of two true segments is detected, and one predicted segment is false.
    other = frames(np.array([[1, 0, 0]] * 2 + [[0, 0, 1]] * 4, float))
    values = frame_metrics([other], table, multi_label=True, repeats=3)["metrics"]
    assert values["accuracy"] == pytest.approx(2 / 6)
    assert values["segment_f1_50"] == pytest.approx(2 / (2 + 1 + 1))


def test_variants_are_averaged_at_the_instants_of_the_first():
    times = [np.array([[0.0, 1.0, 2.0]]), np.array([[0.1, 0.4, 1.9]])]
    values = [np.array([[[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]]), np.array([[[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]]])]
    valid = [np.ones((1, 3), bool), np.array([[True, True, False]])]
    result = mean_over_variants(times, values, valid)
    # The second variant has no frame at 1.9 s, so its frame at 0.4 s is the nearest to 1 s and to 2 s.
    np.testing.assert_allclose(result.probabilities[0, :, 0], [0.5, 0.75, 0.75])
    assert result.time is times[0]


@settings(deadline=None)
@given(
    st.lists(st.floats(0, 10), min_size=1, max_size=9, unique=True).map(sorted),
    st.lists(st.floats(-1, 11), min_size=1, max_size=9),
)
def test_the_nearest_instant_is_found(time, wanted):
    result = nearest(np.array(time), np.array(wanted))
    for at, entry in zip(result, wanted, strict=True):
        assert abs(time[at] - entry) <= min(abs(other - entry) for other in time) + 1e-12


def test_a_window_is_parted_half_way_between_its_instants():
    scores = FrameScores(np.array([[1.2, 1.6, 1.7]]), np.array([[[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]]))
    onset, offset, probabilities = cells(np.array([1.0]), np.array([2.0]), scores)
    assert onset.tolist() == pytest.approx([1.0, 1.4, 1.65])
    assert offset.tolist() == pytest.approx([1.4, 1.65, 2.0])
    assert probabilities.tolist() == [[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]
    # Frames with equal times, of a snippet without valid frames, leave one piece.
    nothing = FrameScores(np.array([[1.0, 1.0, 1.0]]), scores.probabilities)
    onset, offset, _ = cells(np.array([1.0]), np.array([2.0]), nothing)
    assert (onset.tolist(), offset.tolist()) == ([1.0], [2.0])
