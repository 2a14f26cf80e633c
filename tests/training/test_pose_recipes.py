"""Every recipe on poses and heatmaps, at a small size: training, testing and prediction."""

from __future__ import annotations

import functools
import re

import numpy as np
import pytest
import torch
from pose_fakes import CLASSES, make_pose_store, write_pose
from torch import Tensor, nn

from actionprep.datasets.split_choice import SplitChoice
from actionprep.datasets.store.zarr_store import Store
from actionprep.errors import UserError
from actionprep.training.checkpoints import model_sizes
from actionprep.training.datasets import SnippetDataset, model_inputs
from actionprep.training.fit import fit
from actionprep.training.models.registry import build_model, model_card
from actionprep.training.predict import open_checkpoint, pipeline_settings, predict
from actionprep.training.recipes import Recipe, choose_recipe, find_recipe, recipe_names
from actionprep.training.test import run_test

NAMES = [name for name in recipe_names() if find_recipe(name).product in ("pose", "heatmaps")]
_VIT = {"width": 32, "depth": 2, "heads": 2}
_BERT = {**_VIT, "representation": 16, "hidden": 32, "dropout": 0.0}
SMALL: dict[str, dict[str, object]] = {
    "vivit-1": {**_VIT, "tubelet": [4, 8, 8]},
    "vivit-1-big": {**_VIT, "tubelet": [4, 8, 8]},
    "vivit-1-small-tube": {**_VIT, "tubelet": [4, 8, 8]},
    "vivit-2": {**_VIT, "tubelet": [4, 8, 8], "head_width": 8},
    "heatmap-transformer": _VIT,
    "heatmap-transformer-big": _VIT,
    "heatmap-transformer-small": {**_VIT, "dropout": 0.0},
    "motionbert": _BERT,
    "motionbert-heatmap": _BERT,
    "poseconv3d": {"base_channels": 4, "stage_blocks": [1, 1, 1], "dropout": 0.0},
    "poseconv3d-small": {"widths": [4, 8, 8], "dropout": 0.0},
    "skeleton-tcn": {"width": 48, "dropout": 0.0},
    "skeleton-tcn-motion": {"width": 48, "dropout": 0.0},
    "skeleton-transformer": {"width": 32, "depth": 1, "dropout": 0.0},
}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return make_pose_store(tmp_path_factory.mktemp("recipes") / "store", subjects=3, views=("0", "1"), persons=2)


def small(name: str, **changes: object) -> Recipe:
    sizes = {f"sizes.{key}": value for key, value in SMALL[name].items()}
    maps = {"input.size": [16, 16]} if find_recipe(name).product == "heatmaps" else {}
    return find_recipe(name).changed({**sizes, **maps, "input.frames": 8, **changes})


@functools.cache
def batch_of(name: str, folder: str) -> tuple[dict[str, object], dict[str, Tensor]]:
    """Return the sizes of the model and a batch of six snippets."""
    recipe = small(name)
    dataset = SnippetDataset(Store(folder), inputs=recipe.input)
    return model_sizes(recipe, dataset.reader), dataset.batch(range(6))


def build(name: str, store: Store) -> tuple[nn.Module, dict[str, Tensor], Tensor]:
    sizes, batch = batch_of(name, str(store.path))
    torch.manual_seed(0)
    model = build_model(small(name).model, num_classes=3, **sizes)
    return model, model_inputs(model, batch), batch["label"]


def loss_of(logits: Tensor, label: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits.float(), label)


def test_small_sizes_cover_every_recipe():
    assert set(NAMES) == set(SMALL)


@pytest.mark.parametrize("name", NAMES)
def test_forward_and_backward_of_every_recipe(name, store):
    model, inputs, label = build(name, store)
    logits = model(**inputs)
    assert logits.shape == (6, 3)
    loss_of(logits, label).backward()
    without = [name for name, weight in model.named_parameters() if weight.requires_grad and weight.grad is None]
    assert without == []


@pytest.mark.parametrize("name", NAMES)
def test_state_dict_round_trip_keeps_logits(name, store):
    model, inputs, _ = build(name, store)
    other, _, _ = build(name, store)
    with torch.no_grad():
        for weight in other.parameters():
            weight.add_(1.0)
    other.load_state_dict(model.state_dict())
    assert torch.equal(model.eval()(**inputs), other.eval()(**inputs))


@pytest.mark.parametrize("name", NAMES)
def test_recipe_fits_one_batch(name, store):
    model, inputs, label = build(name, store)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2 if name.startswith("pose") else 3e-3)
    first = loss_of(model(**inputs), label).item()
    for _ in range(120):
        loss = loss_of(model(**inputs), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss.item() < 0.5 * first:
            return
    pytest.fail(f"the loss only changed from {first:.3f} to {loss.item():.3f}")


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_autocast_stays_near_float32(name, store):
    model, inputs, label = build(name, store)
    model.eval()
    with torch.no_grad():
        exact = model(**inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(**inputs)
        loss = loss_of(logits, label)
    loss.backward()
    assert (logits.float() - exact).abs().max() < 0.1 * max(float(exact.abs().max()), 1.0)


def test_model_sizes_include_those_of_the_preset(store):
    recipe = find_recipe("heatmap-transformer-small").changed({"sizes.depth": 1})
    sizes = model_sizes(recipe, SnippetDataset(store, inputs=recipe.input).reader)
    assert {"pool": "mean-max", "embed_std": 0.3, "depth": 1, "num_frames": 24}.items() <= sizes.items()


@pytest.mark.parametrize("name", ["motionbert-heatmap"])
def test_motionbert_heatmap_reads_one_volume_per_person(name, store):
    recipe = small(name, **{"input.merge": "separate"})
    dataset = SnippetDataset(store, inputs=recipe.input)
    model = build_model(recipe.model, num_classes=3, **model_sizes(recipe, dataset.reader))
    batch = dataset.batch([0, 1])
    assert batch["clip"].shape[:3] == (2, 4, 17)
    assert model(**model_inputs(model, batch)).shape == (2, 3)


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_has_a_doc_and_reads_poses(name):
    recipe = find_recipe(name)
    assert model_card(recipe.model).product == recipe.product
    assert recipe.reads == "pose"
    assert len(recipe.doc) > 40


def test_published_recipes_list_fixed_faults():
    for name in ("vivit-2", "heatmap-transformer", "motionbert-heatmap", "motionbert", "poseconv3d", "vivit-1"):
        assert "Fixed:" in find_recipe(name).doc


def test_published_presets_keep_their_sizes():
    assert find_recipe("heatmap-transformer").input.frames == 48
    assert find_recipe("vivit-1").input.frames == 56
    assert find_recipe("motionbert").input.frames == 243
    for name in ("vivit-1", "heatmap-transformer-big", "poseconv3d", "motionbert-heatmap"):
        assert find_recipe(name).input.size == (56, 56)


def test_choose_recipe_of_poses(store):
    choice = choose_recipe(store)
    assert choice.recipe.name == "skeleton-tcn"
    assert choice.why == "the store has pose"


@pytest.mark.parametrize("name", ["skeleton-tcn", "heatmap-transformer-small"])
def test_fit_test_and_predict_from_poses(name, tmp_path):
    store = make_pose_store(tmp_path / "store", subjects=4)
    recipe = small(name, epochs=30 if name == "skeleton-tcn" else 1, batch=8, test_variants=2, ema="none", mixup="none")
    split = SplitChoice(by="subject", train=("1", "2"), val=("3",), test=("4",))
    run = fit(store, recipe, tmp_path / "run", split=split, device="cpu", tensorboard=False)
    tested = run_test(run, repeats=10)
    assert run.facts["pipeline"]["product"] == "pose"
    if name == "skeleton-tcn":
        assert tested["metrics"]["accuracy"] == 1.0
    new = Store(tmp_path / "new", create=True)
    write_pose(new, "take", label="spread", frames=24, seed=99)
    [timeline] = predict(run, new, device="cpu")
    assert timeline.labels == CLASSES
    assert (timeline.onset[0], timeline.offset[-1]) == pytest.approx((0.0, 2.4))
    np.testing.assert_allclose(timeline.probabilities.sum(1), 1, atol=1e-5)
    assert pipeline_settings(open_checkpoint(run)) == {"pose": {"estimator": "made up"}}


def test_pipeline_settings_reject_imported_poses(tmp_path):
    store = make_pose_store(tmp_path / "store", subjects=3, made={"backend": "import"})
    split = SplitChoice(by="subject", train=("1",), val=("2",), test=("3",))
    recipe = small("skeleton-tcn", epochs=1, batch=4, refit=False)
    run = fit(store, recipe, tmp_path / "run", split=split, device="cpu", tensorboard=False)
    with pytest.raises(UserError, match="trained on an imported pose, which cannot be built from a video") as caught:
        pipeline_settings(open_checkpoint(run))
    assert "actionprep pose --backend" in str(caught.value)


def test_changed_rejects_unknown_skeleton():
    with pytest.raises(UserError, match=r"'skeleton' in \[input\].*Did you mean 'coco17'") as caught:
        find_recipe("skeleton-tcn").changed({"input.skeleton": "coco71"})
    assert "coco71" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("heatmap-transformer-small", {"sizes.pool": "max"}, "pool must be one of mean, mean-max"),
        (
            "heatmap-transformer-small",
            {"input.frames": 23},
            "multiple of the 4 frames per token, got 23. Change input.frames",
        ),
        (
            "skeleton-tcn-motion",
            {"input.frames": 1},
            "The recipe 'skeleton-tcn-motion' uses only velocities, slow_velocities, which require at least 2 time steps, but "
            "input.frames is 1. Raise input.frames,",
        ),
        (
            "skeleton-tcn",
            {"input.frames": 3, "sizes.features": ["slow_velocities"]},
            "which require at least 4 time steps",
        ),
        ("skeleton-tcn", {"sizes.dims": 3}, "sizes.dims is 3, but the input has 2. Leave sizes.dims out: the pose and"),
        (
            "skeleton-transformer",
            {"sizes.layout": "ntu25", "sizes.dims": 3},
            "The recipe 'skeleton-transformer' builds its model 'skeleton-transformer' for another input than it reads: "
            "sizes.layout is 'ntu25', but the input has 'coco17'; sizes.dims is 3, but the input has 2. Leave sizes.layout "
            "and sizes.dims out: the pose and the settings under [input] determine it.",
        ),
        ("poseconv3d-small", {"sizes.widths": []}, "widths must list the channels of at least one convolution"),
        (
            "poseconv3d-small",
            {"input.merge": "separate"},
            "reads one volume for all persons. Recipes that read one volume per person: moti",
        ),
    ],
)
def test_fit_rejects_invalid_sizes_before_the_run(name, changes, message, store, tmp_path):
    with pytest.raises(UserError, match=re.escape(message)):
        fit(store, find_recipe(name).changed(changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", NAMES)
def test_separate_persons_of_card_matches_model(name, store):
    recipe = find_recipe(name)
    if recipe.product != "heatmaps":
        assert not model_card(recipe.model).separate_persons
        return
    recipe = small(name, **{"input.merge": "separate"})
    dataset = SnippetDataset(store, inputs=recipe.input)
    sizes, batch = model_sizes(recipe, dataset.reader), dataset.batch(range(2))
    assert batch["clip"].ndim == 6
    reads = True
    try:
        model = build_model(recipe.model, num_classes=3, **sizes).eval()
        assert model(**model_inputs(model, batch)).shape == (2, 3)
    except (ValueError, RuntimeError):
        reads = False
    assert model_card(recipe.model).separate_persons == reads
