import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from training_fakes import MOTIONS, make_store, tiny_recipe, write_tracks

from actionprep.datasets.split_choice import SplitChoice
from actionprep.datasets.store.zarr_store import Store
from actionprep.datasets.windows import windows
from actionprep.errors import UserError
from actionprep.training.checkpoints import Checkpoint
from actionprep.training.evaluation.result_files import label_thresholds
from actionprep.training.fit import fit
from actionprep.training.predict import (
    open_checkpoint,
    pipeline_settings,
    predict,
    predict_with_built_store,
    sliding_windows,
)
from actionprep.training.predicted_timeline import Timeline


def timeline(onset, offset, rows, labels=("a", "b"), several=False) -> Timeline:
    return Timeline("rec", labels, np.array(onset, float), np.array(offset, float), np.array(rows, float), several)


def test_overlapping_windows_are_averaged_where_they_overlap():
    onset, offset, mean = timeline([0, 1], [2, 3], [[1.0, 0.0], [0.2, 0.8]]).pieces()
    assert onset.tolist() == [0, 1, 2]
    assert offset.tolist() == [1, 2, 3]
    np.testing.assert_allclose(mean, [[1, 0], [0.6, 0.4], [0.2, 0.8]])


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 6), st.floats(0, 1)), min_size=1, max_size=12))
def test_pieces_equal_an_average_at_each_instant(windows):
    onset = np.array([start for start, _, _ in windows], float)
    offset = onset + [length for _, length, _ in windows]
    rows = np.array([[p, 1 - p] for _, _, p in windows])
    start, end, mean = timeline(onset, offset, rows).pieces()
    for instant in np.arange(0, 27, 0.5) + 0.25:
        covering = (onset <= instant) & (instant < offset)
        piece = np.flatnonzero((start <= instant) & (instant < end))
        assert len(piece) == (1 if covering.any() else 0)
        if covering.any():
            np.testing.assert_allclose(mean[piece[0]], rows[covering].mean(axis=0), atol=1e-9)


@given(st.floats(0, 3), st.floats(0.3, 2.5), st.integers(1, 7))
def test_timeline_pieces_join_touching_windows_despite_rounding(start, length, parts):
    onset = np.array([start + number * (length / parts) for number in range(30)])
    line = timeline(onset, onset + length, np.full((30, 2), 0.5))
    first, last, _ = line.pieces()
    assert (last - first).min() > length / parts / 2
    assert (first[1:] == last[:-1]).all()


def test_neighboring_pieces_of_one_label_are_one_segment():
    segments = timeline([0, 1, 2], [1, 2, 3], [[0.9, 0.1], [0.7, 0.3], [0.1, 0.9]]).segments()
    assert [(entry.onset, entry.offset, entry.label) for entry, _ in segments] == [(0, 2, "a"), (2, 3, "b")]
    assert segments[0][1] == pytest.approx(0.8)


def test_a_gap_without_windows_parts_segments():
    segments = timeline([0, 2], [1, 3], [[0.9, 0.1], [0.9, 0.1]]).segments()
    assert [(entry.onset, entry.offset) for entry, _ in segments] == [(0, 1), (2, 3)]


def test_timeline_votes_choose_the_most_frequent_label():
    line = timeline([0, 0.5, 1, 1.5], [2, 2.5, 3, 3.5], [[0.9, 0.1], [0.2, 0.8], [0.45, 0.55], [0.6, 0.4]])
    code, share = line.votes(np.array([0.2, 1.2, 1.7, 3.2, 4.0]))
    # One window covers 0.2 and 3.2. At 1.7, each label has two windows, and a is more probable.
    assert code.tolist() == [0, 1, 0, 0, -1]
    assert share.tolist() == pytest.approx([1, 2 / 3, 0.5, 1, 0])


def test_unsure_and_short_pieces_may_be_left_out():
    line = timeline([0, 1, 2], [1, 2, 2.1], [[0.9, 0.1], [0.55, 0.45], [0.05, 0.95]])
    assert [entry.label for entry, _ in line.segments(threshold=0.6)] == ["a", "b"]
    assert [entry.label for entry, _ in line.segments(min_s=0.5)] == ["a"]


def test_several_labels_may_hold_at_once():
    line = timeline([0, 1], [1, 2], [[0.9, 0.8], [0.2, 0.7]], several=True)
    assert [(entry.onset, entry.offset, entry.label) for entry, _ in line.segments()] == [(0, 1, "a"), (0, 2, "b")]


def test_multi_label_predictions_use_a_threshold_per_label():
    rows = [[0.35, 0.6], [0.25, 0.8]]
    line = replace(timeline([0, 1], [1, 2], rows, several=True), thresholds=np.array([0.3, 0.7]))
    assert [(entry.onset, entry.offset, entry.label) for entry, _ in line.segments()] == [(0, 1, "a"), (1, 2, "b")]
    assert line.minimum_probability().tolist() == [0.3, 0.7]


def test_minimum_probability_never_lowers_label_thresholds():
    line = timeline([0], [1], [[0.5, 0.6]], several=True)
    assert line.minimum_probability().tolist() == line.minimum_probability(0.2).tolist() == [0.5, 0.5]
    line = replace(line, thresholds=np.array([0.3, 0.7]))
    assert line.minimum_probability(0.5).tolist() == [0.5, 0.7]
    assert [entry.label for entry, _ in line.segments(threshold=0.5)] == ["a"]
    assert timeline([0], [1], [[0.5, 0.6]]).minimum_probability(0.2).tolist() == [0.2, 0.2]


def test_thresholds_come_from_a_test_of_the_same_checkpoint(tmp_path):
    card = {"several_labels": True, "labels": ["a", "b"], "recipe": tiny_recipe().to_tables()}
    best = Checkpoint(tmp_path / "best.ckpt", card, nn.Identity())
    assert label_thresholds(best) is None
    tested = {"metrics": {}, "checkpoint": "best.ckpt", "thresholds": {"b": 0.7, "a": 0.3}}
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "test.json").write_text(json.dumps(tested))
    assert label_thresholds(best).tolist() == [0.3, 0.7]
    # The test of a run without val chooses no thresholds.
    (tmp_path / "test.json").write_text(json.dumps({"metrics": {}, "checkpoint": "best.ckpt"}))
    (tmp_path / "val" / "test.json").unlink()
    assert label_thresholds(best) is None
    (tmp_path / "test.json").write_text(json.dumps(tested))
    assert label_thresholds(best).tolist() == [0.3, 0.7]
    assert label_thresholds(replace(best, path=tmp_path / "last.ckpt")) is None
    assert label_thresholds(replace(best, card={**card, "several_labels": False})) is None
    every_instant = tiny_recipe().changed({"targets": "frame"}).to_tables()
    assert label_thresholds(replace(best, card={**card, "recipe": every_instant})) is None


def test_the_csv_reads_back():
    text = timeline([0, 1], [1, 2.5], [[0.9, 0.1], [0.2, 0.8]], labels=("a, b", "c")).to_csv()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [(row["onset"], row["offset"], row["label"]) for row in rows] == [
        ("0.000", "1.000", "a, b"),
        ("1.000", "2.500", "c"),
    ]


@given(st.floats(0.1, 30), st.floats(0.1, 10), st.floats(0.05, 5))
def test_windows_cover_the_span_and_stay_inside(seconds, length, stride):
    onset, offset = sliding_windows((2.0, 2.0 + seconds), length_s=length, stride_s=stride)
    assert onset[0] == pytest.approx(2.0)
    assert offset[-1] == pytest.approx(2.0 + seconds)
    assert (onset >= 2.0 - 1e-9).all()
    assert (offset <= 2.0 + seconds + 1e-6).all()
    assert (np.diff(onset) > 0).all()
    if len(onset) > 1:
        np.testing.assert_allclose(offset - onset, length)


@pytest.mark.parametrize(("end", "count"), [(10.0000005, 19), (9.9999996, 19), (9.9999994, 18)])
def test_windows_and_sliding_windows_agree(end, count):
    onset, _ = windows((0.0, end), length_s=1.0, stride_s=0.5)
    sliding, _ = sliding_windows((0.0, end), length_s=1.0, stride_s=0.5)
    assert len(onset) == count
    # If time remains, prediction adds a window that ends with the recording.
    assert len(sliding) == 19


def test_a_window_without_length_is_refused():
    with pytest.raises(UserError, match="A window must be longer than 0 s, got -1"):
        sliding_windows((0, 1), length_s=-1)
    with pytest.raises(UserError, match="The stride must be above 0 s, got 0"):
        sliding_windows((0, 9), length_s=1, stride_s=0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("predict")
    store = make_store(folder / "store", subjects=4, repeats=2)
    recipe = tiny_recipe(epochs=14, batch=3, optimizer__learning_rate=0.005)
    split = SplitChoice(train=("1", "2", "3", "4"), val_share=0.0)
    return fit(store, recipe, folder / "run", split=split, tensorboard=False)


def two_motions(folder, settings=None) -> Store:
    """Create a recording that moves right and then up."""
    store = Store(folder, create=True)
    parts = Store(folder.with_name("parts"), create=True)
    for label, start in (("right", 0.0), ("up", 3.0)):
        write_tracks(parts, label, "0", direction=MOTIONS[label], num_windows=6, start=start, settings=settings)
    right, up = (parts.item("tracks", label, "0") for label in ("right", "up"))
    made = {"settings": settings or {"grid": 4, "tracker": "lk"}, "version": 1, "inputs": {}}
    with store.write("tracks", "long", "0", fingerprint="x", provenance=made) as item:
        for name in right:
            values = np.concatenate([right[name][:], up[name][:]])
            item.write(name, values, axes=tuple("abcd"[: values.ndim]))
        item.attributes.update(right.attributes)
    return store


def test_a_long_recording_becomes_a_timeline(trained, tmp_path):
    [line] = predict(trained, two_motions(tmp_path / "store"), window_s=1.2, stride_s=0.3)
    middle = (line.onset + line.offset) / 2
    predicted = [line.labels[code] for code in line.probabilities.argmax(axis=1)]
    assert {label for at, label in zip(middle, predicted, strict=True) if at < 2.2} == {"right"}
    assert {label for at, label in zip(middle, predicted, strict=True) if at > 3.7} == {"up"}
    paths = line.write(tmp_path / "out")
    assert [path.name for path in paths] == ["timeline.csv", "windows.csv", "timeline.png", "frames.csv"]
    assert paths[2].read_bytes()[:4] == b"\x89PNG"


def test_timeline_figure_has_title_legend_scale_and_short_names():
    onset = np.arange(0.0, 40.0, 0.5)
    probabilities = np.zeros((len(onset), 2))
    probabilities[:, 0] = 1.0
    probabilities[40] = (0.0, 1.0)
    timeline = Timeline("take", ("sit", "stand_up"), onset, onset + 0.5, probabilities)
    figure = timeline.figure(threshold=0.5, run="tracks-1", colors={"sit": (255, 0, 0), "stand_up": (0, 0, 255)})
    top, below = figure.axes[:2]
    assert top.get_title(loc="left") == "take  ·  run tracks-1  ·  threshold 0.50"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["sit", "stand_up"]
    assert [text.get_text() for text in top.texts] == ["sit", "sit"]
    assert figure.get_supxlabel() == "Short: stand_up 20.00–20.50 s"
    assert below.get_xlabel() == "time (s)"
    assert {patch.get_facecolor()[:3] for patch in top.patches} == {(1.0, 0.0, 0.0), (0.0, 0.0, 1.0)}


def test_without_a_window_the_whole_recording_is_one(trained, tmp_path):
    [line] = predict(trained.best, two_motions(tmp_path / "store"))
    assert len(line.onset) == 1


def test_a_store_made_with_other_settings_is_refused(trained, tmp_path):
    store = two_motions(tmp_path / "store", settings={"grid": 9, "tracker": "lk"})
    with pytest.raises(UserError, match=r"The tracks in .* were made with other settings than those .*: grid\."):
        predict(trained, store)


def test_a_recording_that_is_not_there_is_named(trained, tmp_path):
    with pytest.raises(UserError, match=r"No tracks of recording 'short' in .*Available: long\."):
        predict(trained, two_motions(tmp_path / "store"), recordings=["short"])


def test_raw_videos_are_built_with_the_settings_of_the_training(trained, tmp_path):
    video = tmp_path / "new.mp4"
    video.write_bytes(b"")
    asked = []

    def build(checkpoint, videos):
        asked.append((videos, pipeline_settings(checkpoint)))
        return two_motions(tmp_path / "store")

    line = predict_with_built_store(trained, {"0": video}, build, window_s=1.2)
    assert line.recording == "long"
    assert asked == [({"0": video}, {"tracks": {"grid": 4, "tracker": "lk"}})]
    assert pipeline_settings(open_checkpoint(trained)) == {"tracks": {"grid": 4, "tracker": "lk"}}


def test_too_many_and_missing_videos_are_refused(trained, tmp_path):
    with pytest.raises(UserError, match=r"trained on 1 view, 0, but got 2 videos"):
        predict_with_built_store(trained, {"0": "a.mp4", "1": "b.mp4"}, lambda *_: None)
    with pytest.raises(UserError, match=r"No such video: .*a\.mp4"):
        predict_with_built_store(trained, {"0": tmp_path / "a.mp4"}, lambda *_: None)
