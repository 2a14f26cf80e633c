import pytest
import torch
from torch.utils.data import DataLoader
from training_fakes import make_store

from actionprep.errors import UserError
from actionprep.training.datasets import SnippetDataset, SnippetLoader, choose_views, model_inputs, read_table
from actionprep.training.inputs.tracks import TracksInput


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("datasets") / "store", subjects=3, views=("0", "1"))


INPUT = TracksInput(frames=6, points=5)


def test_a_sample_is_a_dictionary_of_tensors_for_any_loop(store):
    dataset = SnippetDataset(store.path, inputs=INPUT)
    assert len(dataset) == 9
    assert dataset.labels == ("left", "right", "up")
    sample = dataset[4]
    assert sample["xy"].shape == (6, 2, 10, 2)
    assert sample["label"] == 1
    assert sample["target"].tolist() == [0, 1, 0]
    batch = next(iter(DataLoader(dataset, batch_size=4)))
    assert batch["xy"].shape == (4, 6, 2, 10, 2)


def test_parts_of_the_split_are_datasets(store):
    parts = {part: SnippetDataset(store, inputs=INPUT, split=part) for part in ("train", "val", "test")}
    rows = [set(dataset.rows.tolist()) for dataset in parts.values()]
    assert sum(map(len, rows)) == 9
    assert len(set.union(*rows)) == 9


def test_views_may_be_chosen_and_ordered(store):
    both, entry = SnippetDataset(store, inputs=INPUT), SnippetDataset(store, inputs=INPUT, views=["1"])
    assert (both.views, entry.views) == (("0", "1"), ("1",))
    torch.testing.assert_close(entry[0]["xy"][:, 0], both[0]["xy"][:, 1])


def test_training_samples_depend_on_epoch_and_sample_alone(store):
    dataset = SnippetDataset(store, inputs=INPUT, train=True, seed=3)
    first = dataset[2]
    again = SnippetDataset(store, inputs=INPUT, train=True, seed=3)[2]
    torch.testing.assert_close(first["xy"], again["xy"], rtol=0, atol=0)
    dataset.set_epoch(1)
    assert not torch.equal(first["xy"], dataset[2]["xy"])


def batches_of(store, *, workers: int, memory: float, epoch: int = 2):
    dataset = SnippetDataset(store, inputs=INPUT.with_changes({"memory": memory}, where="test"), train=True, seed=1)
    loader = SnippetLoader(dataset, batch=4, shuffle=True, workers=workers)
    loader.epoch = epoch
    return list(loader)


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_give_the_batches_that_memory_gives(store, workers):
    held = batches_of(store, workers=0, memory=1.0)
    streamed = batches_of(store, workers=workers, memory=1e-9)
    assert [batch["row"].tolist() for batch in held] == [batch["row"].tolist() for batch in streamed]
    for entry, other in zip(held, streamed, strict=True):
        assert set(entry) == set(other)
        for name in entry:
            torch.testing.assert_close(entry[name], other[name])


def test_epochs_have_every_sample_once_in_different_orders(store):
    orders = []
    for epoch in (0, 1):
        rows = [row for batch in batches_of(store, workers=0, memory=1.0, epoch=epoch) for row in batch["row"].tolist()]
        assert sorted(rows) == list(range(9))
        orders.append(rows)
    assert orders[0] != orders[1]


def test_interrupted_epoch_resumes_at_the_next_sample(store):
    dataset = SnippetDataset(store, inputs=INPUT, train=True)
    loader = SnippetLoader(dataset, batch=4, shuffle=True)
    whole = [batch["row"].tolist() for batch in loader]
    loader.skip = 2
    assert [batch["row"].tolist() for batch in loader] == whole[2:]
    assert [batch["row"].tolist() for batch in loader] == whole


def test_processes_share_batches_and_fill_up_empty_shares(store):
    dataset = SnippetDataset(store, inputs=INPUT)
    both = [list(SnippetLoader(dataset, batch=4, rank=rank, world=2)) for rank in (0, 1)]
    assert [len(batches) for batches in both] == [3, 3]
    for entry, other in zip(*both, strict=True):
        assert int(entry["total"]) == int(entry["weight"].sum() + other["weight"].sum())
    rows = [row for part in both for batch in part for row in batch["row"][batch["weight"] > 0].tolist()]
    assert sorted(rows) == list(range(9))
    assert both[1][2]["weight"].tolist() == [0.0]


def test_a_model_of_another_input_is_refused_with_what_it_lacks(store):
    class Video(torch.nn.Module):
        def forward(self, clip):
            return clip

    with pytest.raises(UserError, match=r"Video needs clip, but its input provides .*xy"):
        model_inputs(Video(), SnippetDataset(store, inputs=INPUT).batch([0]))


def test_unknown_snippets_are_named_with_those_that_there_are(store):
    with pytest.raises(UserError, match=r"No snippets 'defualt' in .*Did you mean 'default'\? Available: default\."):
        SnippetDataset(store, "defualt")


def test_choose_views_by_name_or_number(tmp_path):
    store = make_store(tmp_path / "store", subjects=1, views=("1", "2", "3"))
    table = read_table(store, "default")
    assert choose_views(store, "tracks", table, ["3", "1"]) == ("3", "1")
    assert choose_views(store, "tracks", table, [2, "003"]) == ("2", "3")
    with pytest.raises(UserError, match="View '1' is given twice: 1 1"):
        choose_views(store, "tracks", table, ["1", "1"])
    with pytest.raises(UserError, match=r"No view '0' in tracks of .*Available: 1, 2, 3\."):
        choose_views(store, "tracks", table, ["0", "3"])
