import html

import pytest
import torch
from frame_store_fakes import make_frame_store, tiny_pixels

from actionprep.datasets.split_choice import SplitChoice
from actionprep.errors import UserError
from actionprep.training.checkpoints import load_checkpoint
from actionprep.training.datasets import read_table
from actionprep.training.fit import fit
from actionprep.training.models.pixels import PixelClassifier
from actionprep.training.models.published.load import published_state
from actionprep.training.models.registry import HALF, SIGNED, build_model
from actionprep.training.recipes import find_recipe
from actionprep.training.weights import missing_weights, starting_weights

SPLIT = SplitChoice(train=("1", "2", "3"), test=("4",))


def small_i3d(classes: int = 3, **sizes) -> PixelClassifier:
    return PixelClassifier(build_model("i3d", num_classes=classes, width_multiplier=0.0625, **sizes), SIGNED)


def test_published_weights_are_put_in_and_counted_once(tmp_path):
    torch.manual_seed(1)
    other = small_i3d(7, early_pool=True)
    torch.save(published_state(other.model, family="i3d"), tmp_path / "rgb_charades.pt")
    logged = []
    put = starting_weights(tmp_path / "rgb_charades.pt", model_name="i3d", log=logged.append)
    for _ in range(2):
        model = small_i3d()
        put(model)
        assert torch.equal(
            model.model.stages["Mixed_5c"].b0.conv3d.weight, other.model.stages["Mixed_5c"].b0.conv3d.weight
        )
    assert len(logged) == 1
    assert "i3d weights" in logged[0]
    assert "2 tensors of the file unused" in logged[0]
    assert "7 classes, the model has 3" in logged[0]


def test_weights_that_saw_blue_first_turn_the_colors(tmp_path):
    sizes = {"width": 32, "depth": 2, "heads": 2, "num_frames": 4, "image_size": 32}
    model = build_model("timesformer", num_classes=3, **sizes)
    state = {"model_state": published_state(model, family="timesformer"), "cfg": "TRAIN:\n  DATASET: Ssv2\n"}
    torch.save(state, tmp_path / "TimeSformer_SSv2.pyth")
    fresh = PixelClassifier(build_model("timesformer", num_classes=3, **sizes), HALF)
    logged = []
    starting_weights(tmp_path / "TimeSformer_SSv2.pyth", model_name="timesformer", log=logged.append)(fresh)
    assert fresh.color_order.tolist() == [2, 1, 0]
    assert "These weights expect BGR frames." in logged[0]


def test_a_file_of_another_model_is_refused_with_the_reason(tmp_path):
    torch.save({"blocks.0.attn.qkv.weight": torch.zeros(3, 3), "time_embed": torch.zeros(1)}, tmp_path / "x.pyth")
    put = starting_weights(tmp_path / "x.pyth", model_name="i3d", log=print)
    with pytest.raises(UserError, match="are not for I3D: they look like timesformer weights"):
        put(small_i3d())


def test_missing_weights_error_names_their_source(tmp_path):
    with pytest.raises(UserError) as caught:
        starting_weights(tmp_path / "gone.pyth", model_name="timesformer-hr", log=print)
    text = str(caught.value)
    assert f"No weights at {tmp_path / 'gone.pyth'} (--weights)." in text
    assert "TimeSformer_divST_8x32_224_K400.pyth" in text
    assert "or use     best.ckpt of one of your runs" in text
    assert "rgb_charades.pt" in missing_weights(tmp_path, "i3d-resizer-2d")
    assert "none are published for the model 'view-transformer'" in missing_weights(tmp_path, "view-transformer")


def test_run_starts_from_the_weights_of_another_run(tmp_path):
    store = make_frame_store(tmp_path / "store", subjects=4)
    first = fit(store, tiny_pixels(epochs=1), tmp_path / "first", split=SPLIT, tensorboard=False)
    logged = []
    put = starting_weights(first.best, model_name="i3d-small", log=logged.append)
    recipe = tiny_pixels(epochs=1, optimizer__learning_rate=1e-12, optimizer__weight_decay=0.0)
    second = fit(store, recipe, tmp_path / "second", split=SPLIT, tensorboard=False, weights=put)
    one, other = (load_checkpoint(run.best).model.state_dict() for run in (first, second))
    torch.testing.assert_close(one["model.head.weight"], other["model.head.weight"])
    assert logged[0].startswith(f"{first.best}: weights of a run of 'tiny', {len(one)} of {len(one)} loaded")
    wider = tiny_pixels(epochs=1, sizes__width_multiplier=0.125)
    with pytest.raises(UserError, match=r"is of the model 'i3d-small', and only \d+ of its \d+ weights fit"):
        fit(store, wider, tmp_path / "third", split=SPLIT, tensorboard=False, weights=put)


@pytest.mark.parametrize(("refit", "val"), [(False, 0), (True, 3)])
def test_weights_trained_on_held_out_snippets_are_reported(tmp_path, refit, val):
    store = make_frame_store(tmp_path / "store", subjects=4)
    num_labels = len(read_table(store, "default").labels)
    seen = SplitChoice(by="subject", train=("1",), val=("3",), test=("4",))
    first = fit(store, tiny_pixels(epochs=1, refit=refit), tmp_path / "first", split=seen, tensorboard=False)
    put = starting_weights(first.best, model_name="i3d-small", log=lambda _: None)
    logged = []
    other = SplitChoice(by="subject", train=("4",), val=("3",), test=("1", "2"))
    run = fit(
        store, tiny_pixels(epochs=1), tmp_path / "other", split=other, tensorboard=False, weights=put, log=logged.append
    )
    [warning] = [entry for entry in logged if entry.startswith("Warning")]
    parts = f"{num_labels} of the {num_labels} val snippets and of " if val else ""
    assert f"{first.best} was trained on the recordings of {parts}{num_labels} of the {2 * num_labels} test" in warning
    assert warning in run.facts["split"]["notes"]
    assert warning in html.unescape(run.report.read_text())
    logged.clear()
    fit(store, tiny_pixels(epochs=1), tmp_path / "same", split=seen, tensorboard=False, weights=put, log=logged.append)
    assert any(entry.startswith("Warning") for entry in logged) is refit


def test_weights_of_a_run_on_other_recordings_are_not_warned_of(tmp_path):
    stores = [make_frame_store(tmp_path / f"store-{subjects}", subjects=subjects) for subjects in (3, 4)]
    split = SplitChoice(by="subject", train=("1", "2"), test=("3",))
    first = fit(stores[0], tiny_pixels(epochs=1), tmp_path / "first", split=split, tensorboard=False)
    put = starting_weights(first.best, model_name="i3d-small", log=lambda _: None)
    logged = []
    split = SplitChoice(by="subject", train=("3", "4"), test=("1", "2"))
    fit(
        stores[1],
        tiny_pixels(epochs=1),
        tmp_path / "second",
        split=split,
        tensorboard=False,
        weights=put,
        log=logged.append,
    )
    assert not any(entry.startswith("Warning") for entry in logged)


def test_weights_of_a_head_for_other_classes_are_skipped(tmp_path):
    first = fit(
        make_frame_store(tmp_path / "one"), tiny_pixels(epochs=1), tmp_path / "first", split=SPLIT, tensorboard=False
    )
    other = make_frame_store(tmp_path / "other", names=("up", "left", "right"))
    logged = []
    put = starting_weights(
        first.best, model_name="i3d-small", log=logged.append, labels=lambda: read_table(other, "default").labels
    )
    recipe = tiny_pixels(epochs=1, seed=5, optimizer__learning_rate=1e-12, optimizer__weight_decay=0.0)
    second = fit(other, recipe, tmp_path / "second", split=SPLIT, tensorboard=False, weights=put)
    entry, two = (load_checkpoint(run.best).model.state_dict() for run in (first, second))
    torch.testing.assert_close(
        entry["model.stages.Conv3d_1a_7x7.conv3d.weight"], two["model.stages.Conv3d_1a_7x7.conv3d.weight"]
    )
    assert not torch.allclose(entry["model.head.weight"], two["model.head.weight"])
    assert "unused    head of the classes left, right, up, in this order" in logged[0]
    assert "missing   model.head.weight" in logged[0]


@pytest.mark.parametrize("name", ["notes.pth", "notes.ckpt"])
@pytest.mark.parametrize(
    "text", ["import torch\n", "not a checkpoint, but a note", "<!DOCTYPE html><html>", "85\n", "."]
)
def test_text_file_is_rejected_as_weights(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    put = starting_weights(path, model_name="i3d", log=print)
    with pytest.raises(UserError) as caught:
        put(small_i3d())
    assert str(caught.value).startswith(f"{path} cannot be read as a ")
    if name == "notes.pth":
        assert f": it begins with {text[:20]!r}, but PyTorch files begin with PK or with 0x80 (pickle). Give" in str(
            caught.value
        )


@pytest.mark.parametrize("size", [2, 60, 120, 200, 300])
@pytest.mark.parametrize("name", ["weights.pth", "weights.ckpt"])
def test_truncated_old_weights_file_is_reported(tmp_path, name, size):
    path = tmp_path / name
    torch.save({"a": torch.zeros(3)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(UserError, match=r"cannot be read as a|is not a checkpoint|is no checkpoint"):
        starting_weights(path, model_name="i3d", log=print)(small_i3d())


@pytest.mark.parametrize(
    ("card", "missing"),
    [
        ({}, "recipe, labels, views, sizes, several_labels, snippets, pipeline"),
        ({"recipe": {"recipe": 5}}, r"recipe\.recipe\.model"),
        ({"recipe": {"recipe": {"name": "i3d"}}}, r"recipe\.recipe\.model"),
    ],
)
def test_weights_without_required_entries_are_rejected(tmp_path, card, missing):
    others = {
        "labels": [], "views": [], "sizes": {}, "several_labels": False, "snippets": {}, "pipeline": {"stages": {}}
    }  # fmt: skip
    state = {f"model.{name}": values for name, values in small_i3d().state_dict().items()}
    torch.save({"actionprep": {**others, **card} if card else {}, "state_dict": state}, tmp_path / "best.ckpt")
    put = starting_weights(tmp_path / "best.ckpt", model_name="i3d", log=print)
    with pytest.raises(UserError, match=rf"best\.ckpt cannot be used: {missing} missing or of another type"):
        put(small_i3d())


@pytest.mark.parametrize("damaged", ["split.csv", "run.json"])
def test_weights_of_a_damaged_run_train_with_a_warning(tmp_path, damaged):
    store = make_frame_store(tmp_path / "store", subjects=4)
    seen = SplitChoice(by="subject", train=("1",), val=("3",), test=("4",))
    first = fit(store, tiny_pixels(epochs=1), tmp_path / "first", split=seen, tensorboard=False)
    (first.folder / damaged).write_text("")
    put = starting_weights(first.best, model_name="i3d-small", log=lambda _: None)
    logged = []
    fit(store, tiny_pixels(epochs=1), tmp_path / "other", split=seen, tensorboard=False, weights=put, log=logged.append)
    [warning] = [entry for entry in logged if entry.startswith("Warning")]
    assert "it is unknown whether" in warning
    assert damaged in warning


def test_fit_records_the_variant_that_weights_require(tmp_path):
    store = make_frame_store(tmp_path / "store", subjects=4)
    torch.manual_seed(1)
    official = small_i3d(3, early_pool=True)
    torch.save(published_state(official.model, family="i3d"), tmp_path / "rgb_imagenet.pt")
    log = []
    weights = starting_weights(tmp_path / "rgb_imagenet.pt", model_name="i3d-small", log=log.append)
    recipe = tiny_pixels(epochs=1, optimizer__learning_rate=1e-12, optimizer__weight_decay=0.0)
    run = fit(store, recipe, tmp_path / "run", split=SPLIT, tensorboard=False, weights=weights)
    assert run.recipe.sizes["early_pool"] is True
    assert "early_pool = true, because these weights only come from this variant" in "\n".join(log)
    model = load_checkpoint(run.best).model.eval()
    assert "MaxPool3d_2a_3x3" in model.model.stages
    fit(store, recipe, tmp_path / "run", split=SPLIT, tensorboard=False, weights=weights, resume=True)
    # A run is a source of weights like any other, with its variant.
    again = starting_weights(run.best, model_name="i3d-small", log=log.append)
    assert again.fitted_recipe(tiny_pixels()).sizes["early_pool"] is True
    other = tiny_pixels(sizes__early_pool=False)
    assert again.fitted_recipe(other) == other
    log.clear()
    again(small_i3d())
    assert (
        "Warning: this run was trained with early_pool = true, and the model has early_pool = false. Its outputs differ"
    ) in log[0]


def test_recipes_without_variants_do_not_change(tmp_path):
    torch.save({"head.weight": torch.zeros(2, 2)}, tmp_path / "x.pt")
    weights = starting_weights(tmp_path / "x.pt", model_name="poseconv3d", log=print)
    recipe = find_recipe("poseconv3d")
    assert weights.fitted_recipe(recipe) == recipe
