import os
import pickle
import random
import zipfile

import numpy as np
import pytest
import torch
from damaged_bytes import flip
from training_fakes import make_store, tiny_recipe

from actionprep.errors import UserError
from actionprep.training.checkpoints import card_of, load_checkpoint, make_model, read_safely
from actionprep.training.datasets import make_reader, read_table
from actionprep.training.models.published.weight_files import read_weights


class Harmful:
    """An object that creates a folder when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    store = make_store(tmp_path_factory.mktemp("checkpoints") / "store", subjects=2)
    table, recipe = read_table(store, "default"), tiny_recipe()
    reader = make_reader(store, table, recipe.input)
    card = card_of(
        recipe,
        table,
        ("0",),
        reader,
        rows=np.arange(len(table)),
        pipeline={"product": "tracks", "stages": {}},
        phase="refit",
    )
    model = make_model(card)
    return {"actionprep": card, "state_dict": {f"model.{name}": values for name, values in model.state_dict().items()}}


def save(content, path):
    torch.save(content, path)
    return path


def test_a_checkpoint_loads_with_its_model_and_its_classes(content, tmp_path):
    loaded = load_checkpoint(save(content, tmp_path / "best.ckpt"))
    assert loaded.labels == ("left", "right", "up")
    for name, values in loaded.model.state_dict().items():
        assert torch.equal(values, content["state_dict"][f"model.{name}"])


def test_averaged_weights_are_used_where_there_are_any(content, tmp_path):
    average = {f"average.{name}": values * 0 for name, values in content["state_dict"].items()}
    state = {**content["state_dict"], **average, "average.steps": torch.zeros((), dtype=torch.int64)}
    loaded = load_checkpoint(save({**content, "state_dict": state}, tmp_path / "best.ckpt"))
    assert not any(values.any() for values in loaded.model.state_dict().values())


@pytest.mark.parametrize("how", ["torch", "plain"])
def test_a_malicious_pickle_is_refused_and_does_not_run(content, tmp_path, how):
    target, path = tmp_path / "made by the pickle", tmp_path / "best.ckpt"
    harmful = {**content, "extra": Harmful(target)}
    if how == "torch":
        torch.save(harmful, path)
    else:
        path.write_bytes(pickle.dumps(harmful))
    with pytest.raises(UserError, match="was not loaded: besides weights and plain values it contains objects"):
        load_checkpoint(path)
    assert not target.exists()


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path):
    path = tmp_path / "best.ckpt"
    path.write_text("not a checkpoint", encoding="utf-8")
    with pytest.raises(UserError, match="another kind of file"):
        load_checkpoint(path)
    path.write_bytes(b"")
    with pytest.raises(UserError, match="cannot be read as a checkpoint"):
        load_checkpoint(path)
    with pytest.raises(UserError, match="No checkpoint"):
        load_checkpoint(tmp_path / "other.ckpt")


def test_a_cut_off_checkpoint_is_refused(content, tmp_path):
    path = save(content, tmp_path / "best.ckpt")
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(UserError, match="damaged, cut off"):
        load_checkpoint(path)


def header_positions(path):
    """Return the positions of a zip archive's headers: everything except the content of its members."""
    data, content = path.read_bytes(), set()
    for member in zipfile.ZipFile(path).infolist():
        at = member.header_offset
        start = at + 30 + sum(int.from_bytes(data[at + k : at + k + 2], "little") for k in (26, 28))
        content |= set(range(start, start + member.file_size))
    return sorted(set(range(len(data))) - content)


def same_weights(one, other):
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and torch.equal(one[name], other[name]) for name in one
    )


def test_flipped_bit_in_weights_is_found(content, tmp_path):
    path = save(content, tmp_path / "best.ckpt")
    clean, generator = path.read_bytes(), random.Random(0)
    headers = set(header_positions(path))
    inside = [at for at in range(len(clean)) if at not in headers]
    for at in generator.sample(inside, 60):
        path.write_bytes(flip(clean, at, generator.randrange(8)))
        with pytest.raises(UserError, match=r"best.ckpt is damaged: its part '.*' does not match its checksum"):
            read_safely(path)
    with pytest.raises(UserError, match=r"(?s)Restore the file from a copy, use another checkpoint .*, or train again"):
        load_checkpoint(path)


def test_flipped_bit_in_headers_changes_no_weights(content, tmp_path):
    path = save(content, tmp_path / "best.ckpt")
    clean, generator = path.read_bytes(), random.Random(1)
    num_found = 0
    for at in generator.sample(header_positions(path), 250):
        path.write_bytes(flip(clean, at, generator.randrange(8)))
        try:
            loaded = read_safely(path)
        except UserError:
            num_found += 1
        else:
            assert same_weights(loaded["state_dict"], content["state_dict"])
            assert loaded["actionprep"] == content["actionprep"]
    assert num_found > 50


def test_part_marked_as_folder_is_damage(content, tmp_path):
    """PyTorch reads nothing for such a member, so the weights would be uninitialized memory."""
    path = save(content, tmp_path / "best.ckpt")
    data = bytearray(path.read_bytes())
    at = data.rindex(b"best/data/0")  # in the central directory, the attributes are 8 bytes before the name
    data[at - 8] |= 0x10
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"its archive is broken \(the part 'best/data/0' is marked as a folder"):
        read_safely(path)


def test_damaged_published_weights_are_refused(tmp_path):
    path = save({"weight": torch.arange(1000.0)}, tmp_path / "published.pth")
    clean = path.read_bytes()
    path.write_bytes(flip(clean, clean.index(torch.arange(1000.0).numpy().tobytes()) + 2001, 3))
    with pytest.raises(UserError, match=r"published.pth is damaged: .* Download it again, or restore it from a copy\."):
        read_weights(path)


def test_load_checkpoint_rejects_foreign_weights(tmp_path):
    path = save({"state_dict": {"a": torch.zeros(2)}}, tmp_path / "foreign.pth")
    with pytest.raises(
        UserError, match=r"is not a checkpoint of actiontrain.*published weights are for 'actiontrain fit"
    ):
        load_checkpoint(path)


def test_weights_of_another_model_are_refused(content, tmp_path):
    state = dict(content["state_dict"])
    state.pop("model.head.weight")
    with pytest.raises(UserError, match=r"do not fit the model that it names, view-transformer"):
        load_checkpoint(save({**content, "state_dict": state}, tmp_path / "best.ckpt"))


def test_of_many_differing_weights_a_few_are_named(content, tmp_path):
    state = {name: torch.zeros(7, 7, 7) for name in content["state_dict"]}
    with pytest.raises(UserError) as caught:
        load_checkpoint(save({**content, "state_dict": state}, tmp_path / "best.ckpt"))
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    assert lines[0].count("size mismatch for") == 3
    assert lines[0].endswith(f"; and {len(state) - 3} more.")
    assert lines[1].endswith("(run.json next to them names the version): use that version, or train again.")


def test_a_newer_schema_is_refused_with_what_to_do(content, tmp_path):
    newer = {**content, "actionprep": {**content["actionprep"], "schema": 99}}
    with pytest.raises(UserError, match=r"written by a newer actionprep \(schema 99, known 1\)"):
        load_checkpoint(save(newer, tmp_path / "best.ckpt"))


def test_the_card_is_plain_values(content, tmp_path):
    assert read_safely(save(content["actionprep"], tmp_path / "card.pt")) == content["actionprep"]


@pytest.mark.parametrize("missing", ["recipe", "labels", "views", "sizes", "several_labels", "snippets", "pipeline"])
def test_checkpoint_without_all_entries_is_rejected(content, tmp_path, missing):
    card = {name: value for name, value in content["actionprep"].items() if name != missing}
    with pytest.raises(UserError, match=rf"best\.ckpt cannot be used: {missing} missing or of another type"):
        load_checkpoint(save({**content, "actionprep": card}, tmp_path / "best.ckpt"))


def test_a_checkpoint_with_a_foreign_card_is_refused(content, tmp_path):
    card = {**content["actionprep"], "recipe": {"recipe": {}}, "labels": "left right up"}
    with pytest.raises(UserError, match="labels missing or of another type"):
        load_checkpoint(save({**content, "actionprep": card}, tmp_path / "best.ckpt"))
    card["labels"] = ["left", "right", "up"]
    with pytest.raises(UserError, match=r"recipe\.recipe\.model missing or of another type"):
        load_checkpoint(save({**content, "actionprep": card}, tmp_path / "best.ckpt"))
    with pytest.raises(UserError, match="is not a checkpoint of actiontrain"):
        load_checkpoint(save({"actionprep": 3, "state_dict": {}}, tmp_path / "best.ckpt"))
