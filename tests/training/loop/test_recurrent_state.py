"""Recurrent state that is carried from window to window of a recording."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from frame_fakes import SECONDS, frame_recipe, make_changing_store
from hypothesis import given, settings
from hypothesis import strategies as st
from training_fakes import table_of

from actionprep.datasets.products.snippets import SnippetTable
from actionprep.datasets.split_choice import SplitChoice
from actionprep.datasets.store.zarr_store import Store
from actionprep.errors import UserError
from actionprep.training.checkpoints import Checkpoint, load_checkpoint
from actionprep.training.datasets import SnippetDataset, read_table
from actionprep.training.evaluation.scoring import score
from actionprep.training.fit import fit
from actionprep.training.loop.recurrent_state import previous_chains, previous_windows, rounds_of
from actionprep.training.loop.training_plan import TrainingPlan
from actionprep.training.models.registry import build_model
from actionprep.training.predict import predict
from actionprep.training.run import Run
from actionprep.training.test import run_test

SPLIT = SplitChoice(train=("0", "1", "2"), val=("3",), test=("4", "5"))
QUIET = {"tensorboard": False, "device": "cpu"}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return make_changing_store(tmp_path_factory.mktemp("carry") / "store")


@pytest.fixture(scope="module")
def run(store, tmp_path_factory) -> Run:
    return fit(store, frame_recipe(epochs=2), tmp_path_factory.mktemp("carry") / "run", split=SPLIT, **QUIET)


def windows(*intervals: tuple[int, float, float]) -> SnippetTable:
    """A table of windows (recording, onset, offset)."""
    size = len(intervals)
    table = table_of(["a"] * size, ["left"] * size, ["1"] * size, seconds=1.0)
    code, onset, offset = zip(*intervals, strict=True)
    return dataclasses.replace(
        table, recording=np.array(code, np.int32), onset=np.array(onset, float), offset=np.array(offset, float)
    )


def test_a_window_follows_the_one_that_ends_where_it_begins():
    table = windows((0, 1.0, 2.0), (0, 0.0, 1.0), (1, 2.0, 3.0), (0, 2.0, 3.0), (0, 3.5, 4.0))
    assert previous_windows(table, np.arange(5)).tolist() == [1, -1, -1, 0, -1]
    # A subset of the rows ignores the others.
    assert previous_windows(table, np.array([3, 1, 0])).tolist() == [2, -1, 1]
    assert previous_windows(table, np.array([3, 1])).tolist() == [-1, -1]


def test_windows_that_overlap_are_chains_side_by_side():
    onset = 0.1 + 0.3 * np.arange(12)
    table = windows(*((0, entry, entry + 0.9) for entry in onset))
    before = previous_windows(table, np.arange(12))
    assert before.tolist() == [-1, -1, -1, *range(9)]
    assert [turn.tolist() for turn in rounds_of(before)] == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]
    assert previous_chains(before, 3)[10].tolist() == [7, 4, 1]
    assert previous_chains(before, 3)[4].tolist() == [1, -1, -1]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 8), st.integers(1, 4)), min_size=1, max_size=12))
def test_rounds_of_order_each_window_after_its_predecessor(result):
    table = windows(*((code, start / 10, (start + length) / 10) for code, start, length in result))
    before = previous_windows(table, np.arange(len(result)))
    turns = rounds_of(before)
    turn = {int(entry): number for number, some in enumerate(turns) for entry in some}
    assert sorted(turn) == list(range(len(result)))
    for entry, (code, start, _) in enumerate(result):
        ending = [x for x, (other, begin, length) in enumerate(result) if other == code and begin + length == start]
        if ending:
            assert before[entry] in ending
            assert result[before[entry]][1] == min(result[x][1] for x in ending)
            assert turn[entry] == turn[int(before[entry])] + 1
        else:
            assert (before[entry], turn[entry]) == (-1, 0)


@pytest.mark.parametrize("name", ["track-lstm", "track-cnn-lstm"])
def test_state_over_chunks_equals_the_full_recording(name):
    torch.manual_seed(0)
    model = build_model(name, num_classes=3, num_views=2, num_points=8, hidden=16, layers=2).eval()
    xy, valid = torch.randn(3, 24, 2, 8, 2), torch.rand(3, 24, 2, 8) < 0.8
    there = torch.rand(3, 24) < 0.7
    there[0], there[1, 6:12] = True, False
    with torch.no_grad():
        whole, end = model.advance(xy, valid, there)
        state, parts = None, []
        for first, last in ((0, 6), (6, 12), (12, 13), (13, 24)):
            part, state = model.advance(*(entry[:, first:last] for entry in (xy, valid, there)), state=state)
            parts.append(part)
        torch.testing.assert_close(torch.cat(parts, 1), whole)
        torch.testing.assert_close(state.hidden, end.hidden)
        # Invalid frames have no effect: the valid frames alone give the same output.
        for row in range(3):
            some = there[row]
            alone = model(xy[row, some][None], valid[row, some][None])
            torch.testing.assert_close(whole[row, some], alone[0])
        assert not whole[~there].any()


def test_carried_lstm_windows_equal_the_full_recording(store, run):
    checkpoint = load_checkpoint(run.best)
    table = read_table(store, "default")
    # Windows of two recordings in random order: only the onsets matter.
    rows = np.flatnonzero(np.isin(table.recording, [4, 5]))[::-1].copy()
    data = SnippetDataset(store, table, checkpoint.recipe.input, rows=rows)
    result = score(checkpoint, data, carry=True, batch=3)
    fresh = score(checkpoint, data, batch=3)
    for code in (4, 5):
        mine = np.flatnonzero(table.recording[rows] == code)
        mine = mine[np.argsort(table.onset[rows][mine])]
        assert len(mine) == 4
        windows = data.batch(rows[mine].tolist())
        xy, valid, there = (windows[name].flatten(0, 1)[None] for name in ("xy", "valid", "frame_valid"))
        assert there.all()
        with torch.no_grad():
            whole = checkpoint.model(xy, valid, there)[0].softmax(-1).unflatten(0, (len(mine), -1)).numpy()
        np.testing.assert_allclose(result.steps.probabilities[mine], whole, atol=1e-5)
        # Starting without a state gives the same in the first window only.
        np.testing.assert_allclose(fresh.steps.probabilities[mine[0]], whole[0], atol=1e-5)
        assert np.abs(fresh.steps.probabilities[mine[1:]] - whole[1:]).max() > 1e-3


@pytest.mark.parametrize("memory", [8.0, 1e-9])
def test_carried_windows_with_relative_positions_equal_one(store, run, memory):
    checkpoint = load_checkpoint(run.best)
    model = checkpoint.model
    table = read_table(store, "default")
    rows = np.flatnonzero(table.recording == 4)
    how = checkpoint.recipe.input.model_copy(update={"region": "recording", "memory": memory})
    result = score(checkpoint, SnippetDataset(store, table, how, rows=rows), carry=True)
    whole = dataclasses.replace(table, offset=np.where(np.arange(len(table)) == rows[0], SECONDS, table.offset))
    long = how.model_copy(update={"frames": 4 * how.frames})
    batch = SnippetDataset(store, whole, long, rows=rows[:1]).batch([rows[0]])
    with torch.no_grad():
        expected = model(batch["xy"], batch["valid"], batch["frame_valid"]).softmax(-1)[0].unflatten(0, (4, -1))
    np.testing.assert_allclose(result.steps.probabilities, expected.numpy(), atol=1e-5)


def test_state_restarts_after_a_missing_window(store, run):
    checkpoint = load_checkpoint(run.best)
    table = read_table(store, "default")
    rows = np.flatnonzero(table.recording == 4)
    without = SnippetDataset(store, table, checkpoint.recipe.input, rows=rows[[0, 2, 3]])
    result, alone = (
        score(checkpoint, data, carry=True).steps.probabilities
        for data in (without, SnippetDataset(store, table, checkpoint.recipe.input, rows=rows[2:]))
    )
    np.testing.assert_allclose(result[1:], alone, atol=1e-6)


def test_tests_and_predictions_carry_state_by_recipe_or_option(store, tmp_path):
    split = SplitChoice(train=("0", "1", "2"), val=("3",), test=("4", "5"))
    run = fit(store, frame_recipe(epochs=1, carry=True), tmp_path / "run", split=split, **QUIET)
    carried = run_test(run, store, repeats=5)
    assert carried["frames"]["carry"] is True
    assert "carried from window to window" in run.report.read_text()
    both = [np.load(run.folder / "logits.npy")]
    assert run_test(run, store, carry=False, repeats=5)["frames"]["carry"] is False
    both.append(np.load(run.folder / "logits.npy"))
    assert np.abs(both[0] - both[1]).max() > 1e-3
    lines = [predict(run, store, recordings=["take_4"], carry=carry)[0] for carry in (None, True, False)]
    assert np.array_equal(lines[0].probabilities, lines[1].probabilities)
    assert not np.array_equal(lines[0].probabilities, lines[2].probabilities)


def test_training_carries_the_state_of_preceding_windows(store):
    from actionprep.training.fit import first_task

    task = first_task(store, frame_recipe(carry=True), split=SPLIT)
    task.eval()
    loader = task.val_loader
    data = loader.dataset
    rows = data.rows.tolist()
    assert np.array_equal(data.table.onset[rows], np.arange(4) * 1.5)
    assert data.table.offset[rows[-1]] == SECONDS
    with torch.no_grad():
        state = task._state_before(task.model, data, np.array(rows), epoch=0)
        batch = data.batch(rows)
        logits, _ = task.model.advance(batch["xy"], batch["valid"], batch["frame_valid"], state=state)
        xy, valid, there = (batch[name].flatten(0, 1)[None] for name in ("xy", "valid", "frame_valid"))
        torch.testing.assert_close(logits.flatten(0, 1), task.model(xy, valid, there)[0], atol=1e-5, rtol=1e-4)
    assert not state.hidden.requires_grad


@pytest.mark.parametrize(("length_s", "stride_s", "carry", "warns"), [
    (1.5, 0.5, True, False), (2.0, 1.5, True, True), (4.0, 1.0, True, True), (4.0, 1.0, False, False),
])  # fmt: skip
def test_carried_state_without_adjacent_windows_is_reported(tmp_path, length_s, stride_s, carry, warns):
    store = make_changing_store(tmp_path / "store", length_s=length_s, stride_s=stride_s)
    plan = TrainingPlan.make(store, frame_recipe(carry=carry), snippets="default", split=SPLIT, views=None)
    assert (
        any(sentence.startswith("carry = true has no effect: no window in train") for sentence in plan.sentences)
        is warns
    )


def test_a_model_without_a_state_cannot_carry_one(store, run):
    checkpoint = load_checkpoint(run.best)
    card = {**checkpoint.card, "recipe": {**checkpoint.card["recipe"]}}
    card["recipe"]["recipe"] = {**card["recipe"]["recipe"], "model": "view-transformer"}
    other = Checkpoint(checkpoint.path, card, checkpoint.model)
    data = SnippetDataset(store, "default", checkpoint.recipe.input)
    with pytest.raises(UserError, match="'view-transformer' has no state to carry from one window to the next"):
        score(other, data, carry=True)
