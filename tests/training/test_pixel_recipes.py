"""Every recipe on frames, at small sizes: training, testing, pixel formats, sampling."""

import numpy as np
import pytest
import torch
from frame_store_fakes import make_frame_store, motion_recipe, moving_square, tiny_pixels, write_lowres
from tiny_models import TINY
from training_fakes import MOTIONS, make_store, table_of, write_snippets

from actionprep.datasets.split_choice import SplitChoice
from actionprep.datasets.store.zarr_store import Store
from actionprep.errors import UserError
from actionprep.training.checkpoints import load_checkpoint, make_model, model_sizes
from actionprep.training.datasets import SnippetDataset, SnippetLoader, model_inputs
from actionprep.training.fit import fit
from actionprep.training.loop.losses import ClassificationLoss
from actionprep.training.loop.optimizers import freeze, layer_heights, make_optimizer
from actionprep.training.loop.task import ClassifierTask
from actionprep.training.models.pixels import PixelClassifier, mean_over_views, unwrap_model
from actionprep.training.models.registry import HALF, MODELS, SIGNED, PixelInput
from actionprep.training.predict import predict
from actionprep.training.recipes import (
    LossSettings,
    OptimizerSettings,
    Recipe,
    choose_recipe,
    find_recipe,
    recipe_names,
)
from actionprep.training.test import run_test

PIXEL_RECIPES = [name for name in recipe_names() if find_recipe(name).product in ("lowres", "frames")]
SPLIT = SplitChoice(train=("1", "2", "3"), test=("4",))
WITHOUT_VAL = SplitChoice(train=("1", "2", "3"), test=("4",), val_share=0.0)


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> dict[str, Store]:
    folder = tmp_path_factory.mktemp("pixels")
    return {
        product: make_frame_store(folder / product, product=product, subjects=4) for product in ("lowres", "frames")
    }


def small(name: str):
    """Return a recipe with a small model and small clips."""
    recipe = find_recipe(name)
    sizes, shape = TINY[recipe.model]
    changes = {"input.frames": shape[2], "input.size": shape[-1], "input.clips": 1, "input.crops": 1, "workers": 0}
    changes |= {f"sizes.{key}": value for key, value in sizes.items()}
    if recipe.model.startswith("timesformer"):
        changes |= {"sizes.drop_path": 0.0}
    if name == "timesformer-small":
        changes["sizes.patch_size"] = 16
    return recipe.changed(changes)


def card_for(recipe, data) -> dict:
    sizes = model_sizes(recipe, data.reader)
    return {"recipe": recipe.to_tables(), "labels": list(data.labels), "sizes": sizes, "several_labels": False}


def test_pixel_recipes_are_complete():
    expected = (
        "timesformer timesformer-hr timesformer-l timesformer-joint timesformer-space timesformer-light videomae "
    )
    expected += "vivit-frames i3d i3d-resizer-3d i3d-resizer-2d i3d-stn-resizer i3d-transformer-resizer "
    expected += "timesformer-small i3d-small"
    assert sorted(expected.split()) == sorted(PIXEL_RECIPES)


@pytest.mark.parametrize("name", PIXEL_RECIPES)
def test_every_recipe_fits_a_batch_in_bfloat16(name, stores):
    recipe = small(name)
    data = SnippetDataset(stores[recipe.product], inputs=recipe.input, train=True, rows=[0, 1, 2])
    torch.manual_seed(0)
    model = make_model(card_for(recipe, data))
    assert isinstance(model, PixelClassifier)
    loss_of = ClassificationLoss(LossSettings(), data.table.target, multi_label=False)
    optimizer = make_optimizer(model, OptimizerSettings(name="adam", learning_rate=3e-3))
    batch = data.batch([0, 1, 2], augment=True)
    assert batch["clip"].dtype == torch.float32
    # A model of single frames cannot separate the clips of moving squares in a few steps, so use noise.
    batch["clip"] = torch.rand_like(batch["clip"]) * 255
    losses = []
    for _ in range(60):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(**model_inputs(model, batch))
        loss = loss_of(logits, batch["target"]).mean()
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
        optimizer.step()
        losses.append(loss.item())
        if losses[-1] < 0.5 * losses[0]:
            return
    pytest.fail(f"the loss only changed from {losses[0]:.3f} to {losses[-1]:.3f}")


@pytest.mark.parametrize("product", ["lowres", "frames"])
@pytest.mark.parametrize("name", ["i3d-small", "timesformer-small"])
def test_small_recipes_train_on_frames_and_lowres(name, product, stores, tmp_path):
    changes = {"epochs": 2, "batch": 4, "input.jitters": 2, "precision": "32-true", "refit": False, "product": product}
    recipe = small(name).changed(changes)
    run = fit(stores[product], recipe, tmp_path / "run", split=SPLIT, tensorboard=False)
    tested = run_test(run, repeats=20)
    assert tested["num_samples"] == 3
    assert tested["variants"] == 2
    checkpoint = load_checkpoint(run.best)
    assert isinstance(checkpoint.model, PixelClassifier)
    assert checkpoint.model.channels == "motion"


@pytest.fixture(scope="module")
def motion_store(tmp_path_factory) -> Store:
    return make_frame_store(tmp_path_factory.mktemp("motion") / "store", subjects=4, repeats=3)


def test_channels_last_bfloat16_training_lowers_the_loss(motion_store, tmp_path):
    assert all(find_recipe(name).channels_last for name in PIXEL_RECIPES if name.startswith("i3d"))
    recipe = motion_recipe(epochs=6, precision="bf16-mixed", channels_last=True)
    run = fit(motion_store, recipe, tmp_path / "run", split=WITHOUT_VAL, tensorboard=False)
    losses = [row["train_loss"] for row in run.metrics]
    assert np.isfinite(losses).all()
    # The loss falls to a third.
    assert losses[-1] < 0.7 * losses[0]


def test_one_small_recipe_learns_motion(motion_store, tmp_path):
    run = fit(motion_store, motion_recipe(epochs=15), tmp_path / "run", split=WITHOUT_VAL, tensorboard=False)
    # Chance is 3 of 9 and the model has all right. Two errors leave room for rounding.
    assert run_test(run, repeats=20)["metrics"]["accuracy"] > 0.7


def test_preprocess_applies_the_pixel_format():
    clip = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1, 1).expand(2, 3, 4, 2, 2)
    seen = PixelClassifier(torch.nn.Identity(), HALF).preprocess(clip)
    expected = (np.array([0, 51, 255]) / 255 - 0.45) / 0.225
    np.testing.assert_allclose(seen[0, :, 0, 0, 0].numpy(), expected, rtol=1e-5)
    seen = PixelClassifier(torch.nn.Identity(), SIGNED).preprocess(clip)
    np.testing.assert_allclose(seen[0, :, 0, 0, 0].numpy(), [-1, -0.6, 1], rtol=1e-5)
    blue_first = PixelInput(color_order="BGR", value_range=(0.0, 255.0))
    seen = PixelClassifier(torch.nn.Identity(), blue_first).preprocess(clip)
    assert seen[0, :, 0, 0, 0].tolist() == [255, 51, 0]


def test_every_pixel_model_has_a_pixel_format():
    for card in MODELS.values():
        assert (card.pixels is not None) == (card.product in ("lowres", "frames"))


def test_motion_channels_are_brightness_and_change():
    clip = torch.zeros(1, 3, 3, 2, 2)
    clip[:, :, 1:] = 255.0
    seen = PixelClassifier(torch.nn.Identity(), PixelInput(), channels="motion").preprocess(clip)
    assert seen.shape == (1, 2, 3, 2, 2)
    torch.testing.assert_close(seen[0, 0, :, 0, 0], torch.tensor([0.0, 1.0, 1.0]))
    torch.testing.assert_close(seen[0, 1, :, 0, 0], torch.tensor([0.0, 4.0, 0.0]))


@pytest.mark.parametrize("multi_label", [False, True])
def test_views_are_averaged_as_probabilities(multi_label):
    logits = torch.randn(4, 3, 5)
    valid = torch.tensor([[True] * 3, [True, False, True], [False, False, True], [False] * 3])
    averaged = mean_over_views(logits, valid, multi_label=multi_label)
    probabilities = logits.sigmoid() if multi_label else logits.softmax(-1)
    for row in range(4):
        some = probabilities[row, valid[row]] if valid[row].any() else probabilities[row]
        expected = some.mean(0)
        got = averaged[row].sigmoid() if multi_label else averaged[row].softmax(-1)
        torch.testing.assert_close(got, expected)


def test_multi_view_training_tests_every_subset(tmp_path):
    store = make_frame_store(tmp_path / "store", subjects=4, views=("0", "1"))
    for way in ("all", "each"):
        recipe = tiny_pixels(epochs=1, input__several_views=way)
        run = fit(store, recipe, tmp_path / way, split=SPLIT, tensorboard=False)
        assert [row["views"] for row in run_test(run, repeats=20)["views"]] == ["0", "1", "0 1"]


def test_cutmix_and_balanced_sampler_train(stores, tmp_path):
    recipe = tiny_pixels(epochs=1, cutmix=1.0, mixup_share=1.0, sampler="balanced")
    assert fit(stores["lowres"], recipe, tmp_path / "run", split=SPLIT, tensorboard=False).is_complete


def test_cutmix_trains_on_tracks(tmp_path):
    from training_fakes import tiny_recipe

    store = make_store(tmp_path / "store", subjects=4)
    recipe = tiny_recipe(epochs=1, cutmix=1.0, mixup_share=1.0)
    assert fit(store, recipe, tmp_path / "run", split=SPLIT, tensorboard=False).is_complete


def test_balanced_sampler_draws_classes_equally():
    labels = ["left"] * 90 + ["up"] * 10
    names = [str(number) for number in range(100)]
    table = table_of(names, labels, names, seconds=1.0, names=("left", "up"))

    class Reader:
        in_memory = True
        views = ()

    data = SnippetDataset.__new__(SnippetDataset)
    data.table, data.rows, data.reader, data.seed = table, np.arange(100), Reader(), 0
    loader = SnippetLoader(data, batch=100, shuffle=True, balanced=True)
    drawn = []
    for epoch in range(20):
        loader.epoch = epoch
        drawn.append(table.label[loader.plan()[0]].mean())
    assert np.mean(drawn) == pytest.approx(0.5, abs=0.04)
    loader.epoch = 3
    again = table.label[loader.plan()[0]].mean()
    assert again == drawn[3]


def test_choose_recipe_of_frames(stores):
    assert choose_recipe(stores["lowres"]).recipe.name == "i3d-small"
    assert choose_recipe(stores["frames"]).recipe.name == "timesformer-small"


def test_missing_product_raises_with_the_command_to_run(stores, tmp_path):
    message = r"reads 'frames', but the store .* products: lowres, snippets\.\nCreate it with .* --set product=lowres\."
    with pytest.raises(UserError, match=message):
        fit(stores["lowres"], "timesformer-small", tmp_path / "run", split=SPLIT)
    run = fit(
        stores["frames"], tiny_pixels(epochs=1, product="frames"), tmp_path / "run", split=SPLIT, tensorboard=False
    )
    with pytest.raises(
        UserError, match=r"reads 'frames', .*\nCreate it with 'actionprep build frames' in the study folder\.$"
    ):
        predict(run, stores["lowres"], device="cpu")
    with pytest.raises(
        UserError, match="The model 'i3d-small' of the recipe 'custom' reads frames or lowres, not 'tracks'"
    ):
        model_sizes(Recipe(model="i3d-small", product="tracks"), None)


@pytest.mark.parametrize(("channels", "sizes", "expected"), [("gray", 3, 1), ("rgb", 1, 3)])
def test_wrong_in_channels_raises(stores, tmp_path, channels, sizes, expected):
    recipe = tiny_pixels(epochs=1, input__channels=channels, sizes__in_channels=sizes)
    with pytest.raises(UserError, match=f"sizes.in_channels is {sizes}, but the input has {expected}"):
        fit(stores["lowres"], recipe, tmp_path / "run", split=SPLIT)
    assert not (tmp_path / "run").exists()


def test_position_table_can_differ_from_the_clip(stores):
    recipe = find_recipe("videomae").changed({"input.frames": 4, "input.size": 32})
    sizes = model_sizes(recipe, SnippetDataset(stores["frames"], inputs=recipe.input).reader)
    assert (sizes["num_frames"], sizes["image_size"]) == (16, 224)


def test_out_of_memory_in_training_suggests_changes(stores, tmp_path, monkeypatch):
    def fails(self, batch, batch_idx):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(ClassifierTask, "training_step", fails)
    message = r"Out of memory on cpu with batch 4, 4 frames per snippet, .*\nTry one of: --set batch=2 accumulate=2"
    with pytest.raises(UserError, match=message):
        fit(stores["lowres"], tiny_pixels(), tmp_path / "run", split=SPLIT, tensorboard=False)


def test_out_of_memory_in_a_test_suggests_changes(stores, tmp_path, monkeypatch):
    run = fit(stores["lowres"], tiny_pixels(epochs=1, batch=2), tmp_path / "run", split=SPLIT, tensorboard=False)
    sizes = []
    forward = PixelClassifier.forward

    def seen(self, clip, view_valid=None):
        sizes.append(len(clip))
        return forward(self, clip, view_valid)

    monkeypatch.setattr(PixelClassifier, "forward", seen)
    run_test(run, repeats=5)
    assert max(sizes) == 2

    def full(self, clip, view_valid=None):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(PixelClassifier, "forward", full)
    with pytest.raises(UserError) as caught:
        run_test(run, repeats=5)
    assert str(caught.value) == (
        "Out of memory on cpu while scoring 2 snippets at a time ([enforce fail] DefaultCPUAllocator: can't allocate "
        "memory: you tried to allocate 9 bytes).\nTry one of: train with a smaller batch (2 here), which tests use too; use "
        "fewer or smaller frames."
    )


def test_nan_logits_name_the_snippet(stores, tmp_path, monkeypatch):
    run = fit(stores["lowres"], tiny_pixels(epochs=1), tmp_path / "run", split=SPLIT, tensorboard=False)
    forward = PixelClassifier.forward

    def broken(self, clip, view_valid=None):
        logits = forward(self, clip, view_valid)
        logits[1, 0] = float("nan")
        return logits

    monkeypatch.setattr(PixelClassifier, "forward", broken)
    with pytest.raises(UserError) as caught:
        run_test(run, repeats=5)
    assert str(caught.value) == (
        "best.ckpt produced non-finite logits (NaN or infinite) for 1 of 3 snippets: s4_right_0 at 0.00 s.\nThe inputs of "
        "these snippets probably contain such values. Check them with 'actionprep verify'."
    )


def test_changed_classes_raise(tmp_path):
    store = make_frame_store(tmp_path / "store", subjects=4)
    run = fit(store, tiny_pixels(epochs=1), tmp_path / "run", split=SPLIT, tensorboard=False)
    names = [f"s{subject}_{label}_0" for subject in range(1, 5) for label in MOTIONS]
    labels = [label for _ in range(4) for label in MOTIONS]
    table = table_of(names, labels, ["1"] * 12, seconds=1.2, names=("up", "left", "right"))
    write_snippets(store, table)
    with pytest.raises(UserError, match="has the same classes in another order"):
        run_test(run, store)


def test_layer_decay_lowers_rates_of_lower_layers():
    data, _ = TINY["timesformer"]
    from actionprep.training.models.registry import build_model

    model = PixelClassifier(build_model("timesformer", num_classes=3, **data), HALF)
    heights = layer_heights(unwrap_model(model))
    assert heights["patch_embed.proj.weight"] == heights["cls_token"] == heights["pos_embed"] == 0
    assert heights["blocks.0.attn.qkv.weight"] == 1
    assert heights["blocks.1.mlp.fc2.bias"] == 2
    assert heights["norm.weight"] == heights["head.weight"] == 3
    settings = OptimizerSettings(learning_rate=1.0, head_learning_rate=8.0, layer_decay=0.5)
    rates = {}
    for group in make_optimizer(model, settings).param_groups:
        rates |= {id(parameter): group["lr"] for parameter in group["params"]}
    named = dict(unwrap_model(model).named_parameters())
    rate_of = {name: rates[id(parameter)] for name, parameter in named.items()}
    assert rate_of["head.weight"] == 8.0
    assert rate_of["norm.weight"] == 1.0
    assert rate_of["blocks.1.mlp.fc2.bias"] == 0.5
    assert rate_of["blocks.0.attn.qkv.weight"] == 0.25
    assert rate_of["cls_token"] == 0.125


def test_backbone_has_a_separate_learning_rate():
    model = torch.nn.ModuleDict({"body": torch.nn.Linear(2, 2), "head": torch.nn.Linear(2, 2)})
    settings = OptimizerSettings(learning_rate=1.0, backbone_learning_rate=0.1)
    rates = {group["lr"] for group in make_optimizer(model, settings).param_groups}
    assert rates == {0.1, 1.0}


def test_frozen_parameters_do_not_change(stores, tmp_path):
    recipe = tiny_pixels(epochs=2, optimizer__freeze=["backbone"], optimizer__learning_rate=0.1)
    run = fit(stores["lowres"], recipe, tmp_path / "run", split=SPLIT, tensorboard=False)
    torch.manual_seed(recipe.seed)
    trained = load_checkpoint(run.best)
    torch.manual_seed(recipe.seed)
    fresh = make_model(trained.card).state_dict()
    changed = [name for name, weight in trained.model.state_dict().items() if not torch.equal(weight, fresh[name])]
    assert changed == ["model.head.weight", "model.head.bias"]


def test_freeze_rejects_unknown_prefix():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2))
    with pytest.raises(
        UserError, match=r"optimizer\.freeze names 'blocks', but no parameter of the model starts with it\."
    ):
        freeze(model, ["blocks"])


def test_asymmetric_loss_matches_paper():
    settings = LossSettings(name="asymmetric", gamma_negative=4.0, gamma_positive=1.0, margin=0.05)
    loss = ClassificationLoss(settings, np.zeros((1, 2)), multi_label=True)
    logits = torch.tensor([[1.5, -0.5]])
    p = 1 / (1 + np.exp(-np.array([1.5, -0.5])))
    expected = -((1 - p[0]) * np.log(p[0]) + (p[1] - 0.05) ** 4 * np.log(1 - (p[1] - 0.05))) / 2
    assert float(loss(logits, torch.tensor([[1.0, 0.0]]))) == pytest.approx(expected, rel=1e-5)
    with pytest.raises(UserError, match="'asymmetric' requires snippets with several labels"):
        ClassificationLoss(settings, np.zeros((1, 2)), multi_label=False)


def test_view_without_other_recordings_does_not_stop_a_test(tmp_path):
    store = make_frame_store(tmp_path / "store", subjects=4)
    write_lowres(store, "s4_up_0", "1", moving_square(MOTIONS["up"]))
    run = fit(store, tiny_pixels(epochs=1), tmp_path / "run", split=SPLIT, tensorboard=False)
    assert run_test(run, repeats=20)["num_samples"] == 3
