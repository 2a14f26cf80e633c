"""Frame labels: times of samples, mixing, mirroring, training and resuming."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from frame_fakes import SECONDS, frame_recipe, make_changing_store, motions_of, put_table
from frame_store_fakes import write_lowres
from pose_fakes import CLASSES, one_recording
from study_fakes import view
from training_fakes import FPS, MOTIONS, InterruptedRunError, make_store, table_of, tiny_recipe, write_snippets

from actionprep.datasets.catalog import Catalog
from actionprep.datasets.recordings import Recording
from actionprep.datasets.segments import Segment
from actionprep.datasets.snippets import LabelRule, make_snippets
from actionprep.datasets.split_choice import Parts, SplitChoice
from actionprep.datasets.splits import SplitAssignment
from actionprep.datasets.store.zarr_store import Store
from actionprep.errors import UserError
from actionprep.training.checkpoints import load_checkpoint, read_safely
from actionprep.training.datasets import SnippetDataset, read_table
from actionprep.training.fit import first_task, fit
from actionprep.training.inputs.lowres import LowresInput
from actionprep.training.inputs.pose import PoseInput
from actionprep.training.inputs.rng import Draws
from actionprep.training.inputs.tracks import TracksInput
from actionprep.training.loop.losses import ClassificationLoss, batch_loss
from actionprep.training.predict import predict
from actionprep.training.recipes import LossSettings, Recipe, find_recipe
from actionprep.training.test import run_test

QUIET = {"tensorboard": False, "device": "cpu"}
SPLIT = SplitChoice(train=("0", "1", "2", "3"), val=("4",), test=("5",))
STILL = {"scale": 0.0, "bones": 0.0, "noise": 0.0, "joint_dropout": 0.0, "rotation": 0.0, "view_dropout": 0.0}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return make_changing_store(tmp_path_factory.mktemp("frames") / "store", stride_s=0.5)


def label_at(segments: tuple[Segment, ...], time: float, otherwise: str) -> str:
    for segment in segments:
        if segment.onset <= time < segment.offset:
            return segment.label
    return otherwise


# Adjacent segments and a gap, in a recording of 6 s.
SEGMENTS = (Segment(0.4, 1.9, CLASSES[0]), Segment(1.9, 3.3, CLASSES[1]), Segment(4.2, 6.0, CLASSES[2]))


def with_segments(store: Store, *, fps: float = FPS) -> Store:
    """Create a store with windows of 2 s over SEGMENTS of recording a."""
    study = Catalog((Recording("a", subject="1"),), (view("a", seconds=SECONDS, fps=fps),), {"a": SEGMENTS})
    put_table(store, make_snippets(study, LabelRule(threshold=0.0, background="rest"), length_s=2.0, stride_s=0.5))
    return store


@pytest.mark.parametrize("options", [
    {"sampling": "smooth", "crop": 0.4, "time_warp": 0.6},
    {"sampling": "segments"},
    {"sampling": "smooth", "temporal_shift": 4, "crop": 0.3},
    {"sampling": "segments", "memory": 1e-9},
])  # fmt: skip
def test_augmented_poses_have_the_labels_of_their_frame_times(tmp_path, options):
    # The position of every joint is its frame number, so the input encodes the time.
    frames = int(SECONDS * FPS)
    points = np.ones((frames, 1, 17, 2)) * (np.arange(frames) + 1)[:, None, None, None]
    store = with_segments(one_recording(tmp_path / "store", points))
    how = PoseInput(frames=16, normalize="none", **STILL, **options)
    data = SnippetDataset(store, inputs=how, train=True, seed=5, targets="frame")
    shown = set()
    for epoch in range(4):
        batch = data.batch(data.rows.tolist(), epoch=epoch, augment=True)
        times = (batch["keypoints"][:, 0, :, 0, 0].numpy() - 1) / FPS
        for row, target, known in zip(times, batch["frame_target"].numpy(), batch["frame_known"].numpy(), strict=True):
            assert known.all()
            for time, entry in zip(row, target, strict=True):
                if min(abs(time - edge) for edge in (0.4, 1.9, 3.3, 4.2)) > 1e-4:
                    assert [data.labels[code] for code in np.flatnonzero(entry)] == [label_at(SEGMENTS, time, "rest")]
                    shown.add(label_at(SEGMENTS, time, "rest"))
    assert shown == {*CLASSES, "rest"}


@pytest.mark.parametrize("options", [{"trim": 0.2, "time_warp": 0.5}, {"sampling": "dense", "rate": 5.0}])
def test_clips_have_the_labels_of_the_frames_that_they_show(tmp_path, options):
    # The brightness of every frame is its number, in two views that differ.
    store = Store(tmp_path / "store", create=True)
    for name, start in (("0", 0.0), ("1", 0.05)):
        number = np.arange(int(SECONDS * FPS))
        images = np.broadcast_to(number[:, None, None, None] + np.uint8(1), (len(number), 24, 24, 3)).astype(np.uint8)
        write_lowres(store, "a", name, images, start=start)
    with_segments(store)
    how = LowresInput(frames=8, size=16, crop=(1.0, 1.0), **options)
    data = SnippetDataset(store, inputs=how, views=["0"], train=True, targets="frame")
    for epoch in range(3):
        batch = data.batch(data.rows.tolist(), epoch=epoch, augment=True)
        times = (batch["clip"][:, 0, :, 5, 5].numpy().round() - 1) / FPS
        np.testing.assert_allclose(data.reader.times(data.rows, data.draws(data.rows, epoch=epoch)), times, atol=1e-9)
        for row, target in zip(times, batch["frame_target"].numpy(), strict=True):
            predicted = [data.labels[int(entry.argmax())] for entry in target]
            assert predicted == [label_at(SEGMENTS, time + 1e-9, "rest") for time in row]
    # Each sample shows one of the views and has its times.
    both = SnippetDataset(store, inputs=how, train=True, targets="frame")
    draws = both.draws(both.rows)
    view_of = (both.batch(both.rows.tolist(), augment=True)["clip"][:, 0, :, 5, 5].numpy().round() - 1) / FPS
    shift = both.reader.times(both.rows, draws) - view_of
    assert {round(float(entry), 3) for entry in shift.ravel()} <= {0.0, 0.05}
    assert len({round(float(entry), 3) for entry in shift.ravel()}) == 2


def test_tracks_frame_targets_match_their_sampled_times(store):
    how = TracksInput(frames=20, points=8, overlap=1, time_warp=0.5, trim=0.3, frame_dropout=0, point_dropout=0)
    data = SnippetDataset(store, inputs=how, train=True, seed=3, targets="frame")
    right, wrong = 0, 0
    for epoch in range(3):
        batch = data.batch(data.rows.tolist(), epoch=epoch)
        motion = batch["velocity"][:, :, 0].sum(2).numpy()
        moving = np.abs(motion).sum(-1) > 1e-3
        for row, target, speed, some in zip(data.rows, batch["frame_target"].numpy(), motion, moving, strict=True):
            times = data.reader.times([row], Draws(3, epoch, [row]))[0]
            assert (np.diff(times) > 0).all()
            for time, entry, along, moves in zip(times, target, speed, some, strict=True):
                segments = motions_of(int(data.table.recording[row]))
                assert data.labels[int(entry.argmax())] == label_at(segments, time + 1e-9, "still")
                # The motion gives the label too, except within two frames of a change.
                if moves and min(abs(time - edge) for x in segments for edge in (x.onset, x.offset)) > 1.7 / FPS:
                    predicted = max(MOTIONS, key=lambda name: float(np.dot(along, MOTIONS[name])))
                    right, wrong = (
                        right + (predicted == data.labels[entry.argmax()]),
                        wrong + (predicted != data.labels[entry.argmax()]),
                    )
    assert wrong == 0
    assert right > 500


def test_samples_of_batches_and_of_workers_have_the_same_labels(store):
    data = SnippetDataset(store, inputs=TracksInput(frames=9, points=4), train=True, seed=1, targets="frame")
    together = data.batch(data.rows[:5].tolist(), epoch=2)
    for number in range(5):
        alone = data[2, number]
        torch.testing.assert_close(alone["frame_target"], together["frame_target"][number], rtol=0, atol=0)
        assert alone["frame_known"].dtype == torch.bool


def test_what_is_not_known_does_not_count(store):
    table = make_snippets(
        Catalog((Recording("take_0", subject="0"),), (view("take_0", seconds=SECONDS, fps=FPS),),
                  {"take_0": (Segment(0.5, 1.0, "up"), Segment(1.0, 1.2, "cut", "NA"), Segment(2.0, 2.5, "left"))}),
        LabelRule(threshold=0.0), length_s=3.0, exclude_layers=["NA"],
    )  # fmt: skip
    data = SnippetDataset(store, table, TracksInput(frames=30, points=4), rows=[0], targets="frame")
    batch = data.batch([0])
    assert batch["frame_known"][0].nonzero().flatten().tolist() == [5, 6, 7, 8, 9, 20, 21, 22, 23, 24]
    assert not batch["frame_target"][0][~batch["frame_known"][0]].any()
    loss = ClassificationLoss(LossSettings(label_smoothing=0.1), table.target, multi_label=False)
    logits = torch.randn(1, 30, 2)
    other = torch.where(batch["frame_known"][..., None], logits, torch.randn(1, 30, 2))
    torch.testing.assert_close(batch_loss(loss, logits, batch), batch_loss(loss, other, batch))
    known = batch["frame_known"][0]
    expected = loss(logits[0, known], batch["frame_target"][0, known]).mean()
    torch.testing.assert_close(batch_loss(loss, logits, batch)[0], expected)
    assert data.all_targets().sum(axis=0).tolist() == [5, 5]


def test_mirrored_samples_have_mirrored_labels_at_every_instant(store):
    flip = {"left": "right", "right": "left", "up": "up", "still": "still"}
    settings = TracksInput(frames=12, points=4, flip=0.5, flip_labels=flip)
    data = SnippetDataset(store, inputs=settings, train=True, seed=2, targets="frame")
    rows = data.rows.tolist()
    plain, changed = data.batch(rows), data.batch(rows, augment=True)
    mirrored = data.reader.mirrored(Draws(2 ^ 0xA06, 0, rows))
    assert 0 < int(mirrored.sum()) < len(rows)
    left, right = data.labels.index("left"), data.labels.index("right")
    for number in range(len(rows)):
        before, after = plain["frame_target"][number], changed["frame_target"][number]
        swapped = before.clone()
        swapped[:, left], swapped[:, right] = before[:, right], before[:, left]
        torch.testing.assert_close(after, swapped if mirrored[number] else before)


def mixed_batch(store: Store, **changes: object) -> tuple[dict, dict]:
    """Return a batch of 8 samples before and after mixing. Frame 3 of all and sample 0 have no known label."""
    recipe = frame_recipe(mixup_share=1.0, input__frame_dropout=0.0, **changes)
    task = first_task(store, recipe, split=SPLIT)
    dataset = task.train_loader.dataset
    batch = dataset.batch(dataset.rows[:8].tolist()) | {"weight": torch.ones(8), "total": torch.tensor(8)}
    batch["frame_known"][:, 3] = False
    batch["frame_known"][0] = False
    return batch, task._mixed(dataset, dict(batch), 1)


def test_mixup_blends_frame_labels_by_the_sample_share(store):
    batch, mixed = mixed_batch(store, mixup=1.0)
    shares = mixed["target"].unique().tolist()
    for entry in range(8):
        fitting = [
            other
            for share in shares
            for other in range(8)
            if all(
                torch.allclose(share * batch[name][entry] + (1 - share) * batch[name][other], mixed[name][entry])
                for name in ("target", "frame_target")
            )
            and torch.equal(batch["frame_known"][entry] & batch["frame_known"][other], mixed["frame_known"][entry])
        ]
        assert fitting
    assert not torch.equal(batch["frame_target"], mixed["frame_target"])


def test_cutmix_takes_the_labels_of_the_span_of_time_with_it(store):
    batch, mixed = mixed_batch(store, cutmix=1.0)
    assert set(mixed["frame_target"].unique().tolist()) == {0.0, 1.0}
    moved = (mixed["xy"] != batch["xy"]).flatten(2).any(2)
    assert 0 < int(moved.sum()) < moved.numel()
    for name in ("frame_target", "frame_known"):
        assert torch.equal(mixed[name][~moved], batch[name][~moved])
    for entry in range(8):
        others = [
            torch.equal(mixed["frame_target"][entry][moved[entry]], other[moved[entry]])
            for other in batch["frame_target"]
        ]
        assert any(others)


def test_cutmix_on_poses_replaces_a_span_of_time_of_all_persons(tmp_path):
    points = np.ones((12, 2, 17, 2)) * (np.arange(12) + 1)[:, None, None, None]
    store = one_recording(tmp_path / "store", points)
    data = SnippetDataset(store, inputs=PoseInput(frames=12, normalize="none"))
    entry = data.batch([0])
    batch = {name: torch.cat([values, values + 100 if values.is_floating_point() else values])
             for name, values in entry.items() if name in ("keypoints", "score", "frame_valid")}  # fmt: skip
    mixed, stayed = data.reader.cut(batch, torch.tensor([1, 0]), torch.tensor([0.5, 0.5]), Draws(0, 0, [0, 1]))
    foreign = mixed["keypoints"][0, :, :, 0, 0] > 100
    assert mixed["keypoints"].shape == batch["keypoints"].shape
    assert foreign.sum(1).tolist() == [6, 6]
    assert stayed.tolist() == [0.5, 0.5]


def test_clip_labels_train_equally_with_either_target(tmp_path):
    store = make_store(tmp_path / "store", subjects=3)
    runs = []
    for targets in ("snippet", "frame"):
        recipe = frame_recipe(epochs=2, targets=targets, loss__class_weights="balanced", mixup=0.4, ema=0.9)
        split = SplitChoice(train=("1",), val=("2",), test=("3",))
        runs.append(fit(store, recipe, tmp_path / targets, split=split, **QUIET))
    for mine, theirs in zip(runs[0].metrics, runs[1].metrics, strict=True):
        for name in ("train_loss", "val_loss", "val_accuracy", "val_map"):
            assert mine[name] == pytest.approx(theirs[name], rel=1e-4)
    weights = [read_safely(run.last)["state_dict"] for run in runs]
    assert weights[0].keys() == weights[1].keys()
    # Losses of snippets and frames are summed in a different order; a few steps keep the rounding difference small.
    for name, values in weights[0].items():
        torch.testing.assert_close(values, weights[1][name], rtol=1e-3, atol=1e-5)
    assert "val_frame_accuracy" in runs[1].metrics[0]
    assert "val_frame_accuracy" not in runs[0].metrics[0]


def test_interrupted_frame_training_ends_with_equal_metrics(store, tmp_path, monkeypatch):
    from actionprep.training.loop import callbacks

    recipe = frame_recipe(epochs=3, ema=0.9, mixup=0.4, carry=True, refit=True, checkpoint_minutes=1e-9,
                          monitor="val_frame_macro_f1", loss__class_weights="balanced")  # fmt: skip
    uninterrupted = fit(store, recipe, tmp_path / "whole", split=SPLIT, **QUIET)
    count, save = 0, callbacks.Checkpoints._save

    def save_and_stop(self, *arguments):
        nonlocal count
        save(self, *arguments)
        count += 1
        if count == 8:
            raise InterruptedRunError

    monkeypatch.setattr(callbacks.Checkpoints, "_save", save_and_stop)
    with pytest.raises(InterruptedRunError):
        fit(store, recipe, tmp_path / "cut", split=SPLIT, **QUIET)
    again = fit(store, recipe, tmp_path / "cut", split=SPLIT, resume=True, **QUIET)
    drop = ("seconds",)
    for mine, theirs in zip(uninterrupted.metrics, again.metrics, strict=True):
        assert {k: v for k, v in mine.items() if k not in drop} == {k: v for k, v in theirs.items() if k not in drop}
    states = [read_safely(run.best)["state_dict"] for run in (uninterrupted, again)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_multi_label_frame_targets_have_a_loss_per_label(tmp_path):
    store = make_changing_store(tmp_path / "store", rule=LabelRule(threshold=0.0, multi_label=True))
    study = make_snippets(
        Catalog((Recording("take_0", subject="0"),), (view("take_0", seconds=SECONDS, fps=FPS),),
                  {"take_0": (Segment(0.0, 3.0, "up"), Segment(1.0, 2.0, "left"))}),
        LabelRule(threshold=0.0, multi_label=True), length_s=1.5,
    )  # fmt: skip
    data = SnippetDataset(store, study, TracksInput(frames=15, points=4), targets="frame", rows=[0])
    batch = data.batch([0])
    assert batch["frame_target"][0].tolist() == [[0, 1]] * 10 + [[1, 1]] * 5
    run = fit(store, frame_recipe(epochs=1, loss__class_weights="balanced"), tmp_path / "run", split=SPLIT, **QUIET)
    assert 0 <= run.metrics[0]["val_frame_accuracy"] <= 1


@pytest.mark.parametrize("name", ["skeleton-tcn", "skeleton-transformer"])
def test_skeleton_models_predict_time_steps_on_request(tmp_path, name):
    points = np.random.default_rng(0).normal(50, 10, (int(SECONDS * FPS), 1, 17, 2))
    store = with_segments(one_recording(tmp_path / "store", points))
    recipe = find_recipe(name).changed(
        {"targets": "frame", "epochs": 1, "input.frames": 10, "refit": False, "test_variants": 2, "validate_every": 1}
    )
    table = read_table(store, "default")
    rows = np.flatnonzero(table.used)
    split = Parts(SplitAssignment(rows[:-3], rows[-3:-2], rows[-2:], "recording", 0, {}, ()), "recording", "for a test")
    run = fit(store, recipe, tmp_path / "run", split=split, **QUIET)
    assert load_checkpoint(run.best).card["sizes"]["per_frame"] is True
    result = run_test(run, store, repeats=3)
    assert result["frames"]["num_frames"] == 25
    assert "val_frame_accuracy" in run.metrics[0]
    [line] = predict(run, store)
    assert len(line.onset) > 20


def test_frame_recipes_reject_models_of_one_output_per_snippet(store, tmp_path):
    message = (
        r"'view-transformer' predicts one label per snippet\. Recipes that predict labels per time step: skeleton-tcn, "
        r".*track-cnn-lstm, track-lstm"
    )
    with pytest.raises(UserError, match=message) as caught:
        fit(store, tiny_recipe(targets="frame"), tmp_path / "run", split=SPLIT, **QUIET)
    assert "--set targets=snippet" in str(caught.value)
    with pytest.raises(
        UserError, match=r"has no state to carry .* Recipes with a recurrent state: track-cnn-lstm, track-lstm"
    ):
        fit(store, tiny_recipe(carry=True), tmp_path / "run", split=SPLIT, **QUIET)
    assert not (tmp_path / "run").exists()


def test_frame_targets_require_windows_with_segments(tmp_path):
    store = make_store(tmp_path / "store", subjects=3)
    table = read_table(store, "default")
    table = table_of(list(table.recordings), [table.labels[code] for code in table.label], list(table.subjects),
                     seconds=1.2, settings={"length_s": 1.2})  # fmt: skip
    write_snippets(store, table)
    split = SplitChoice(train=("1",), val=("2",), test=("3",))
    with pytest.raises(UserError, match="Make the snippets again with 'actionprep snippets'"):
        fit(store, frame_recipe(), tmp_path / "run", split=split, **QUIET)
    fit(store, frame_recipe(targets="snippet", epochs=1), tmp_path / "other", split=split, **QUIET)


def test_lstm_recipes_learn_frame_labels_except_old_recipes():
    assert find_recipe("track-lstm").targets == find_recipe("track-cnn-lstm").targets == "frame"
    assert not find_recipe("track-lstm").carry
    tables = find_recipe("track-lstm").to_tables()
    del tables["recipe"]["targets"], tables["recipe"]["carry"]
    assert Recipe.from_tables(tables, where="a run of an older version").targets == "snippet"
    with pytest.raises(UserError, match=r'monitor = "val_frame_accuracy" needs targets = "frame"'):
        tiny_recipe(monitor="val_frame_accuracy")
