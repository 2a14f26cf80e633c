"""Mid fusion: recipes joined before their heads and trained together."""

import re
import shutil

import numpy as np
import pytest
import torch
from frame_store_fakes import make_tracks_and_lowres, moving_square, tiny_pixels, write_frames
from tiny_models import TINY
from training_fakes import MOTIONS, make_store, tiny_recipe
from typer.testing import CliRunner

from actionprep.datasets.split_choice import SplitChoice
from actionprep.datasets.store.zarr_store import Store
from actionprep.errors import UserError
from actionprep.training.checkpoints import load_checkpoint
from actionprep.training.evaluation.result_files import saved_arrays
from actionprep.training.experiments.sweep import plan_sweep
from actionprep.training.fit import fit
from actionprep.training.inputs.fusion import recipes_of
from actionprep.training.models.fusion import MidFusion
from actionprep.training.models.registry import model_card
from actionprep.training.predict import predict
from actionprep.training.recipes import Recipe, find_recipe, recipe_names
from actionprep.training.run import Run
from actionprep.training.test import run_test

runner = CliRunner()
SPLIT = SplitChoice(train=("1", "2"), val=("3",), test=("4",))


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    """Tracks and small frames of the same recordings."""
    return make_tracks_and_lowres(tmp_path_factory.mktemp("fusion") / "store")


def test_features_of_several_models_are_joined_and_trained(store, tmp_path):
    parts = []
    for name, recipe in (("tracks", tiny_recipe(test_variants=2)), ("lowres", tiny_pixels())):
        parts.append(tmp_path / f"{name}.toml")
        parts[-1].write_text(recipe.to_toml())
    recipe = find_recipe("fusion").changed(
        {
            "input.recipes": [str(part) for part in parts], "epochs": 16, "batch": 3, "refit": False, "test_variants": 2, "ema": "none",
            "optimizer.learning_rate": 5e-3, "sizes.dropout": 0.0, "sizes.part_dropout": 0.0, "loss.label_smoothing": 0.0,
        }
    )  # fmt: skip
    assert recipe.reads == "tracks+lowres"
    split = SplitChoice(train=("1", "2", "3"), test=("4",), val_share=0.0)
    run = fit(store, recipe, tmp_path / "run", split=split, tensorboard=False)
    losses = [row["train_loss"] for row in run.metrics]
    assert np.mean(losses[-4:]) < 0.85 * np.mean(losses[:4])
    assert run_test(run, repeats=20)["num_samples"] == 3
    assert set(run.facts["pipeline"]["stages"]) == {"tracks", "lowres"}
    [line] = predict(run, store, recordings=["s4_up_0"])
    assert line.probabilities.shape == (1, 3)


@pytest.fixture(scope="module")
def joined(store, tmp_path_factory):
    """Return a mid fusion of the recipe files mine.toml and pix.toml in a folder, and its run there."""
    folder = tmp_path_factory.mktemp("joined")
    for name, recipe in (("mine", tiny_recipe()), ("pix", tiny_pixels())):
        (folder / f"{name}.toml").write_text(recipe.to_toml(), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run = fit(store, of_files(), folder / "run", split=SPLIT, tensorboard=False)
    return run


def of_files() -> Recipe:
    return find_recipe("fusion").changed(
        {"input.recipes": ["mine.toml", "pix.toml"], "epochs": 1, "batch": 3, "refit": False, "test_variants": 1}
    )


def points_of_mine(folder, number: int) -> None:
    """Edit mine.toml."""
    (folder / "mine.toml").write_text(tiny_recipe(input__points=number).to_toml(), encoding="utf-8")


def test_a_mid_fusion_holds_the_recipes_that_it_joins(store, joined, tmp_path, monkeypatch):
    before = run_test(joined, repeats=5)["metrics"]
    probabilities = saved_arrays(joined)["probabilities"]
    copy = Run(shutil.copytree(joined.folder, tmp_path / "run"))
    # First there is no recipe of these names, then one with other settings.
    monkeypatch.chdir(tmp_path)
    assert run_test(copy, store, repeats=5)["metrics"] == before
    points_of_mine(tmp_path, 4)
    run_test(copy, store, repeats=5)
    np.testing.assert_array_equal(saved_arrays(copy)["probabilities"], probabilities)
    assert predict(copy, store, recordings=["s4_up_0"])
    assert fit(store, "auto", copy.folder, resume=True).is_complete


def test_mid_fusion_recipe_and_checkpoint_have_equal_parts(joined):
    held = joined.recipe.input.parts
    assert list(held) == ["mine.toml", "pix.toml"]
    assert held["mine.toml"]["recipe"] == {"name": "tiny", "model": "view-transformer", "product": "tracks"}
    assert held["mine.toml"]["input"] == tiny_recipe().to_tables()["input"]
    assert load_checkpoint(joined.best).recipe == joined.recipe
    for comments in (True, False):
        assert Recipe.from_toml(joined.recipe.to_toml(comments=comments), where="its own text") == joined.recipe
    assert '[input.parts."mine.toml".input]' in (joined.folder / "recipe.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [name for name in recipe_names() if name != "fusion"])
def test_every_recipe_reads_back_as_a_part_of_a_fusion(name):
    recipe = find_recipe("fusion").changed({"input.recipes": [name, "i3d-small"]}).self_contained()
    assert Recipe.from_toml(recipe.to_toml(), where="its own text") == recipe
    [entry, _] = recipes_of(recipe.input)
    assert (entry.input, entry.sizes, entry.model) == (
        *(getattr(find_recipe(name), key) for key in ("input", "sizes", "model")),
    )


def test_a_named_fusion_prints_no_parts():
    assert "parts = {  }" in find_recipe("fusion").to_toml()


def test_a_mid_fusion_whose_recipes_changed_is_not_resumed(store, joined, tmp_path, monkeypatch):
    copy = shutil.copytree(joined.folder, tmp_path / "run")
    shutil.copy(joined.folder.parent / "pix.toml", tmp_path)
    monkeypatch.chdir(tmp_path)
    points_of_mine(tmp_path, 8)
    assert fit(store, of_files(), copy, resume=True).is_complete
    points_of_mine(tmp_path, 4)
    with pytest.raises(UserError, match=r"can only be resumed .*: input\.points of mine\.toml is 8, not 4\.\nRemove"):
        fit(store, of_files(), copy, resume=True)
    # As in the command: the recipe of the run, with the changes.
    asked = joined.recipe.changed({"input.recipes": ["mine.toml", "pix.toml"]})
    with pytest.raises(UserError, match=r"input\.points of mine\.toml is 8, not 4"):
        fit(store, asked, copy, resume=True)


def test_mid_fusion_of_an_older_version_opens_by_recipe_names(store, joined, tmp_path, monkeypatch):
    copy = Run(shutil.copytree(joined.folder, tmp_path / "run"))
    text = (copy.folder / "recipe.toml").read_text(encoding="utf-8")
    parts = re.compile(r"# Written when a training begins[^\n]*\n|\[input\.parts\..*?\n\n", re.DOTALL)
    (copy.folder / "recipe.toml").write_text(parts.sub("", text), encoding="utf-8")
    content = torch.load(copy.best, weights_only=True)
    del content["actionprep"]["recipe"]["input"]["parts"]
    torch.save(content, copy.best)
    assert copy.recipe.input.parts == load_checkpoint(copy.best).recipe.input.parts == {}
    monkeypatch.chdir(joined.folder.parent)
    run_test(joined, repeats=5)
    run_test(copy, store, repeats=5)
    np.testing.assert_array_equal(saved_arrays(copy)["probabilities"], saved_arrays(joined)["probabilities"])
    assert fit(store, of_files(), copy.folder, resume=True).is_complete
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"Cannot read the recipe mine\.toml"):
        run_test(copy, store)


def test_a_damaged_part_of_a_fusion_is_named(joined):
    text = joined.recipe.to_toml().replace("points = 8", "pionts = 8")
    with pytest.raises(UserError, match=r"^Unknown setting 'pionts' in .*Did you mean 'points'\?"):
        Recipe.from_toml(text, where="recipe.toml")


def test_sweep_trains_a_mid_fusion_with_an_edited_recipe(store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pix.toml").write_text(tiny_pixels().to_toml(), encoding="utf-8")
    folders = []
    for number in (8, 4, 8):
        points_of_mine(tmp_path, number)
        [job] = plan_sweep(store, [of_files()], tmp_path / "sweep")
        folders.append(job.folder)
    assert folders[0] == folders[2] != folders[1]


def test_mid_fusion_rejects_cutmix_and_trains_with_mixup(store, joined, tmp_path):
    recipe = joined.recipe.changed({"cutmix": 0.5, "mixup_share": 1.0})
    message = r"'fusion' uses CutMix .* samples of 'fusion' have none\. .*: --set cutmix=none mixup=0\.5\."
    with pytest.raises(UserError, match=message):
        fit(store, recipe, tmp_path / "run", split=SPLIT, tensorboard=False)
    assert not (tmp_path / "run").exists()
    instead = recipe.changed({"cutmix": "none", "mixup": 0.5})
    assert fit(store, instead, tmp_path / "run", split=SPLIT, tensorboard=False).is_complete


def test_mid_fusion_names_the_part_with_a_missing_product(joined, tmp_path):
    store = make_store(tmp_path / "store", subjects=4)
    with pytest.raises(UserError) as caught:
        fit(store, "fusion", tmp_path / "run", split=SPLIT)
    assert str(caught.value) == (
        f"This fusion joins 'i3d-small', which reads 'lowres', but the store {store.url} does not contain it. Available "
        "products: snippets, tracks.\nCreate it with 'actionprep build lowres' in the study folder, or name recipes of "
        "available products in input.recipes (actiontrain recipes)."
    )
    # The input of a trained model cannot change.
    with pytest.raises(UserError) as caught:
        predict(joined, store, device="cpu")
    assert str(caught.value).endswith("\nCreate it with 'actionprep build lowres' in the study folder.")


def test_mid_fusion_part_reads_frames_as_the_message_suggests(tmp_path, monkeypatch):
    store = make_store(tmp_path / "store", subjects=4)
    for key in store.items("tracks"):
        write_frames(store, key.recording, key.view, moving_square(MOTIONS[key.recording.split("_")[1]]))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        fit(store, "fusion", tmp_path / "run", split=SPLIT)
    assert str(caught.value).endswith(
        "or save the output of 'actiontrain recipes i3d-small' as a file with product = \"frames\" and without "
        "input.stored, and name that file in input.recipes instead of i3d-small."
    )
    (tmp_path / "pix.toml").write_text(tiny_pixels().to_toml(), encoding="utf-8")
    (tmp_path / "mine.toml").write_text(tiny_recipe().to_toml(), encoding="utf-8")
    with pytest.raises(UserError, match=r'or change pix\.toml to product = "frames" and without input\.stored\.$'):
        fit(store, of_files(), tmp_path / "run", split=SPLIT)
    text = tiny_pixels().to_toml().replace('product = "lowres"', 'product = "frames"')
    (tmp_path / "pix.toml").write_text(re.sub(r"\nstored = \d+", "", text), encoding="utf-8")
    assert fit(store, of_files(), tmp_path / "run", split=SPLIT, tensorboard=False).is_complete


@pytest.mark.parametrize("name", sorted(TINY))
def test_any_model_may_be_a_part_of_a_fusion(name):
    sizes, shape = TINY[name]
    frames = {"model": "i3d-small", "sizes": {"width_multiplier": 0.0625}}
    model = MidFusion(num_classes=3, parts=[{"model": name, "sizes": sizes}, frames]).eval()
    array = {"pose": "keypoints", "tracks": "xy"}.get(model_card(name).product, "clip")
    logits = model(**{f"part0_{array}": torch.rand(shape), "part1_clip": torch.rand(2, 3, 4, 16, 16) * 255})
    assert logits.shape == (2, 3)
    assert bool(torch.isfinite(logits).all())


def test_a_part_must_have_a_head(monkeypatch):
    monkeypatch.setattr("actionprep.training.models.fusion.build_model", lambda name, **sizes: torch.nn.Identity())
    with pytest.raises(UserError, match="'i3d' has no head that mid fusion can replace"):
        MidFusion(num_classes=3, parts=[{"model": "i3d", "sizes": {}}] * 2)
