import numpy as np
import pytest
import torch
from training_fakes import FPS, MOTIONS, make_store, table_of, write_snippets, write_tracks

from actionprep.datasets.store.zarr_store import Store
from actionprep.errors import UserError
from actionprep.training.datasets import make_reader, read_table
from actionprep.training.inputs._track_windows import velocities
from actionprep.training.inputs.rng import Draws
from actionprep.training.inputs.tracks import TracksInput, TracksReader, step_shares

SPEED = 20.0


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return make_store(tmp_path_factory.mktemp("tracks") / "store", subjects=2, views=("0", "1"))


def reader_of(store: Store, **settings) -> TracksReader:
    return make_reader(store, read_table(store, "default"), TracksInput(**settings))


def row_of(reader: TracksReader, recording: str) -> int:
    return reader.table.recordings.index(recording)


def test_joint_velocity_is_the_mean_of_both_adjacent_steps():
    time = np.array([[0.0, 0.1, 0.3, 0.4, np.inf]])
    xy = np.zeros((1, 5, 1, 2), np.float32)
    xy[0, :, 0, 0] = [0, 1, 5, 6, 0]
    seen = np.array([True, True, True, False, False]).reshape(1, 5, 1)
    result, known = velocities(xy, seen, time)
    np.testing.assert_allclose(result[0, :, 0, 0], [10, 15, 20, 0, 0], rtol=1e-5)
    assert known[0, :, 0].tolist() == [True, True, True, False, False]


def test_track_velocities_are_in_half_heights_per_second(store):
    reader = reader_of(store, frames=6, points=8)
    for label, direction in MOTIONS.items():
        batch = reader.read([row_of(reader, f"s1_{label}_0")])
        mean = batch["velocity"][0][batch["valid"][0]].mean(0)
        # 20 px/s, divided by half the height of the points
        row, view = row_of(reader, f"s1_{label}_0"), 0
        size = float(reader._bank.half_height[row, view])
        np.testing.assert_allclose(mean.numpy(), np.array(direction) * SPEED / size, atol=0.1)


def test_coordinates_are_centered_on_where_the_points_are(store):
    batch = reader_of(store, frames=12, points=16).read([0, 3])
    for sample in range(2):
        for view in range(2):
            xy = batch["xy"][sample, :, view][batch["valid"][sample, :, view]]
            low, high = np.percentile(xy.numpy(), [2, 98], axis=0)
            np.testing.assert_allclose((low + high) / 2, 0, atol=0.1)
            assert (high[1] - low[1]) / 2 == pytest.approx(1.0, abs=0.1)


def test_shifted_and_magnified_recordings_give_the_same_input(tmp_path):
    store = Store(tmp_path / "store", create=True)
    write_tracks(store, "a", "0", direction=(1, 0), seed=3)
    source = store.item("tracks", "a", "0")
    arrays = {name: source[name][:] for name in source}
    arrays["xy"] = arrays["xy"] * 2.5 + np.float32([40, -7])
    with store.write("tracks", "b", "0", fingerprint="b", provenance={}) as item:
        for name, values in arrays.items():
            item.write(name, values, axes=tuple("abcd"[: values.ndim]))
        item.attributes.update(source.attributes)
    write_snippets(store, table_of(["a", "b"], ["right", "right"], ["1", "2"], seconds=1.2))
    batch = reader_of(store, frames=6, points=8).read([0, 1])
    for name in ("xy", "velocity"):
        torch.testing.assert_close(batch[name][0], batch[name][1], atol=1e-4, rtol=1e-4)


def test_slots_without_a_point_and_lost_points_are_never_valid(store):
    batch = reader_of(store, frames=8, points=64).read([0])
    # 10 of the 12 slots have a point, and each frame is in at most two windows
    assert int(batch["valid"].sum(-1).max()) <= 20
    assert not batch["xy"][~batch["valid"]].any()
    assert torch.isfinite(batch["xy"]).all()


def test_tracks_input_masks_a_missing_view(tmp_path):
    store = Store(tmp_path / "store", create=True)
    write_tracks(store, "a", "0", direction=(1, 0))
    write_tracks(store, "b", "0", direction=(1, 0))
    write_tracks(store, "b", "1", direction=(1, 0))
    write_snippets(store, table_of(["a", "b"], ["right", "left"], ["1", "2"], seconds=1.2))
    batch = reader_of(store, frames=4, points=4).read([0, 1])
    assert batch["valid"].any(dim=3).any(dim=1).tolist() == [[True, False], [True, True]]
    assert batch["frame_valid"].all()


def test_snippets_see_only_their_own_time(tmp_path):
    store = Store(tmp_path / "store", create=True)
    write_tracks(store, "a", "0", direction=(1, 0), num_windows=6)
    table = table_of(["a"], ["right"], ["1"], seconds=0.5)
    object.__setattr__(table, "onset", np.array([0.8]))
    object.__setattr__(table, "offset", np.array([1.3]))
    reader = TracksReader(TracksInput(frames=5, points=4), store, table, ("0",))
    bank = reader._bank
    first, count = int(bank.first[0, 0]), int(bank.count[0, 0])
    times = bank.time[first : first + count].numpy()
    assert ((times >= 0.8) & (times < 1.3)).any(axis=1).all()
    batch = reader.read([0])
    assert batch["frame_valid"].all()
    assert float(batch["duration"][0]) == pytest.approx(0.5)


def test_instants_in_a_gap_of_the_recording_have_no_points(tmp_path):
    store = Store(tmp_path / "store", create=True)
    write_tracks(store, "a", "0", direction=(1, 0), num_windows=1)
    table = table_of(["a"], ["right"], ["1"], seconds=1.6)
    reader = TracksReader(TracksInput(frames=16, points=4), store, table, ("0",))
    batch = reader.read([0])
    seen = batch["frame_valid"][0]
    time = (torch.arange(16) + 0.5) / 16 * 1.6
    last = 7 / FPS
    assert seen[time < last].all()
    assert not seen[time > last + 1 / FPS].any()


def test_a_sample_is_the_same_in_any_batch_and_in_any_order(store):
    reader = reader_of(store, frames=6, points=5)
    rows = [4, 1, 3]
    draws = Draws(7, 2, rows)
    batch = reader.augment(reader.read(rows, draws), Draws(8, 2, rows))
    alone = reader.augment(reader.read([1], Draws(7, 2, [1])), Draws(8, 2, [1]))
    for name, values in alone.items():
        torch.testing.assert_close(values[0], batch[name][1])


def test_tracks_input_from_store_equals_that_from_memory(store):
    held, streamed = reader_of(store, frames=6, points=5), reader_of(store, frames=6, points=5, memory=1e-9)
    assert held.in_memory
    assert not streamed.in_memory
    rows = [2, 0, 5]
    for draws in (None, 11):
        pair = [reader.read(rows, None if draws is None else Draws(draws, 0, rows)) for reader in (held, streamed)]
        for name in pair[0]:
            torch.testing.assert_close(pair[0][name], pair[1][name])


def test_instants_rise_and_stay_inside_whatever_is_drawn():
    settings = TracksInput(frames=24, time_warp=0.65, trim=0.4)
    result = step_shares(300, settings, Draws(0, 0, range(300)))
    assert (result.diff(dim=1) > -1e-6).all()
    assert float(result.min()) >= 0
    assert float(result.max()) <= 1


def test_track_augmentation_is_a_similarity_of_points(store):
    reader = reader_of(store, frames=6, points=6, view_dropout=0.0)
    batch = reader.read([0, 1])
    changed = reader.augment(batch, Draws(5, 0, [0, 1]))
    for sample in range(2):
        for view in range(2):
            keep = batch["valid"][sample, :, view]
            before, after = (entry["xy"][sample, :, view][keep].double() for entry in (batch, changed))
            homogeneous = torch.cat([before, torch.ones(len(before), 1)], 1)
            fitted = torch.linalg.lstsq(homogeneous, after).solution
            torch.testing.assert_close(homogeneous @ fitted, after, atol=1e-4, rtol=1e-4)
            turn = fitted[:2]
            size = torch.linalg.det(turn).sqrt()
            assert 0.8 <= float(size) <= 1.2
            torch.testing.assert_close(turn @ turn.T, torch.eye(2).double() * size**2, atol=1e-4, rtol=0)
            assert abs(float(torch.atan2(turn[0, 1], turn[0, 0]))) <= 0.15 + 1e-6
            assert float(fitted[2].abs().max()) <= 0.15 + 1e-5
            moved = batch["velocity"][sample, :, view][keep].double() @ turn
            torch.testing.assert_close(moved, changed["velocity"][sample, :, view][keep].double(), atol=1e-4, rtol=0)


def test_view_dropout_leaves_every_sample_a_view(store):
    reader = reader_of(store, frames=4, points=4, view_dropout=0.95)
    rows = list(range(6)) * 8
    changed = reader.augment(reader.read(rows), Draws(1, 0, range(48)))
    left = changed["valid"].any(dim=3).any(dim=1).sum(1)
    assert left.min() == 1
    assert (left == 1).sum() > 30


def test_mirroring_swaps_the_labels_that_the_map_pairs(store):
    from actionprep.training.datasets import SnippetDataset

    settings = TracksInput(
        frames=4,
        points=4,
        flip=1.0,
        flip_labels={"left": "right", "right": "left"},
        rotation=0.0,
        shift=0.0,
        scale=0.0,
        view_dropout=0.0,
        point_dropout=0.0,
        frame_dropout=0.0,
    )
    dataset = SnippetDataset(store, inputs=settings, train=True)
    left = row_of(dataset.reader, "s1_left_0")
    plain = dataset.batch([left])
    mirrored = dataset.augmented(plain)
    assert dataset.labels[int(mirrored["label"][0])] == "right"
    assert mirrored["target"][0].tolist() == [0, 1, 0]
    torch.testing.assert_close(mirrored["xy"][..., 0], -plain["xy"][..., 0])
    torch.testing.assert_close(mirrored["xy"][..., 1], plain["xy"][..., 1])


def test_a_flip_map_with_a_wrong_label_is_refused(store):
    with pytest.raises(
        UserError, match=r"flip_labels contains 'wave', which is not a label\. Labels: left, right, up\."
    ):
        reader_of(store, flip=0.5, flip_labels={"left": "wave"})
    with pytest.raises(UserError, match="must contain pairs in both directions"):
        reader_of(store, flip=0.5, flip_labels={"left": "right"})


def test_mixed_samples_take_their_points_from_both(store):
    reader = reader_of(store, frames=4, points=50)
    batch = reader.read([0, 1])
    share = torch.tensor([0.3, 1.0])
    mixed = reader.mix(batch, torch.tensor([1, 0]), share)
    torch.testing.assert_close(mixed["xy"][1], batch["xy"][1])
    own = (mixed["xy"][0] == batch["xy"][0]).all(-1).float().mean()
    other = (mixed["xy"][0] == batch["xy"][1]).all(-1).float().mean()
    both = (batch["xy"][0] == batch["xy"][1]).all(-1).float().mean()
    assert float(own - both) == pytest.approx(0.3 * float(1 - both), abs=0.1)
    assert float(other - both) == pytest.approx(0.7 * float(1 - both), abs=0.1)


def test_tracks_reader_names_the_stage_of_missing_tracks(tmp_path):
    store = Store(tmp_path / "store", create=True)
    write_snippets(store, table_of(["a"], ["left"], ["1"], seconds=1.0))
    with pytest.raises(
        UserError,
        match=r"reads 'tracks', but the store .* does not contain it\. Available products: snippets\.\nCreate it with",
    ):
        reader_of(store)


def test_a_view_that_does_not_exist_is_named_with_those_that_do(store):
    with pytest.raises(UserError, match=r"No view '9' in tracks of .*Available: 0, 1\."):
        make_reader(store, read_table(store, "default"), "tracks", views=["9"])
