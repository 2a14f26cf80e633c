"""Recipes: the registered ones, TOML files, changes, defaults, messages."""

import re
import subprocess
import sys
import tomllib

import pytest
from training_fakes import make_store, tiny_recipe

from actionprep.datasets.store.zarr_store import Store
from actionprep.errors import UserError
from actionprep.training import recipes
from actionprep.training.inputs.tracks import TracksInput
from actionprep.training.recipes import (
    RECIPE_FILES,
    Recipe,
    applicable_changes,
    choose_recipe,
    differences,
    find_recipe,
    recipe_names,
)
from actionprep.training.train_settings import TrainSettings


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_round_trips_through_toml(name):
    recipe = find_recipe(name)
    for comments in (True, False):
        assert Recipe.from_toml(recipe.to_toml(comments=comments), where="its own text") == recipe
    assert recipe.doc


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_names_the_product_of_its_model(name):
    from actionprep.training.models.registry import model_card

    recipe = find_recipe(name)
    assert model_card(recipe.model).product == recipe.product


def test_changed_accepts_dotted_names():
    recipe = tiny_recipe()
    changed = recipe.changed({"epochs": 7, "input.rotation": 0.4, "loss.class_weights": "balanced", "sizes.width": 8})
    assert (changed.epochs, changed.input.rotation, changed.loss.class_weights) == (7, 0.4, "balanced")
    assert changed.sizes["width"] == 8
    assert isinstance(changed.input, TracksInput)
    assert recipe.epochs == 3


def test_changed_epochs_resets_min_steps():
    recipe = find_recipe("view-transformer")
    assert recipe.min_steps > 0
    assert recipe.changed({"epochs": 3}).min_steps == 0
    assert recipe.changed({"epochs": 3, "min_steps": 50}).min_steps == 50
    assert recipe.changed({"batch": 3}).min_steps == recipe.min_steps


def test_changed_accepts_recipe_prefix():
    recipe = find_recipe("view-transformer")
    assert recipe.changed({"recipe.epochs": 3}) == recipe.changed({"epochs": 3})
    small = find_recipe("i3d-small")
    assert small.changed({"recipe.product": "frames"}) == small.changed({"product": "frames"})


@pytest.mark.parametrize("name", ["product", "recipe.product"])
def test_changed_rejects_product_of_another_model(name):
    with pytest.raises(
        UserError, match="The model 'i3d-small' of the recipe 'i3d-small' reads frames or lowres, not 'tracks'"
    ):
        find_recipe("i3d-small").changed({name: "tracks"})


def test_differences_of_products_omit_input_settings():
    texts = differences(find_recipe("view-transformer"), find_recipe("skeleton-tcn"))
    assert "product is tracks, not pose" in texts
    assert not [text for text in texts if text.startswith("input.")]


def test_changed_doc_lists_changed_settings():
    preset = find_recipe("skeleton-tcn-motion")
    changed = preset.changed({"sizes.features": ["coordinates"], "seed": 3})
    assert changed.doc == f"{preset.doc} Changed here: sizes.features."
    assert changed.changed({"loss.label_smoothing": 0}).doc.endswith("here: sizes.features, loss.label_smoothing.")
    assert changed.changed({"sizes.features": ["velocities", "slow_velocities"]}).doc == preset.doc
    assert Recipe.from_toml(changed.to_toml(), where="its own text") == changed
    assert preset.changed({"doc": "mine"}).changed({"epochs": 3}).doc == "mine"


def test_none_is_written_as_text():
    recipe = tiny_recipe(ema=0.9)
    assert recipe.changed({"ema": "none"}).ema is None
    assert 'ema = "none"' in tiny_recipe().to_toml()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epoch": 3}, r"Unknown setting 'epoch' in changes to the recipe\. Did you mean 'epochs'\?"),
        ({"input.rotatoin": 3}, r"Unknown setting 'rotatoin' in \[input\] of the recipe\. Did you mean 'rotation'\?"),
        ({"optimizr.name": "sgd"}, r"Unknown table 'optimizr' in .*Did you mean 'optimizer'\?"),
        ({"loss.name": "hinge"}, r"Wrong value for 'loss\.name' in changes to the recipe: got 'hinge'"),
        ({"product": "trakcs"}, r"No input 'trakcs'\. Did you mean 'tracks'\?"),
        ({"batch": 0}, r"Wrong value for 'batch'"),
        (
            {"optimizer.name": "sgd", "optimizer.momentum": 0, "optimizer.nesterov": True},
            r"Wrong settings in \[optimizer\] of changes to the recipe: nesterov = true needs a momentum above 0",
        ),
    ],
)
def test_changed_rejects_wrong_settings(changes, message):
    with pytest.raises(UserError, match=message):
        tiny_recipe().changed(changes)


@pytest.mark.parametrize(("name", "nearest"), [("view-transfomer", "view-transformer"), ("i3", "i3d")])
def test_unknown_recipe_lists_three_similar_names(name, nearest):
    with pytest.raises(UserError) as caught:
        find_recipe(name)
    match = re.fullmatch(
        rf"No recipe '{name}'\. Similar names: ([^.]+)\. 'actiontrain recipes' lists all (\d+)\. To use your own recipe, "
        r"give the path of its \.toml file\.",
        str(caught.value),
    )
    assert match[1].startswith(f"{nearest}, ")
    assert match[1].count(", ") == 2
    assert int(match[2]) == len(recipe_names())


def test_unknown_recipe_without_similar_names():
    with pytest.raises(
        UserError, match=r"^No recipe 'nope'\. 'actiontrain recipes' lists all \d+\. To use your own recipe"
    ):
        find_recipe("nope")


def test_part_of_a_name_is_similar():
    with pytest.raises(UserError, match=r"Similar names: skeleton-tcn, skeleton-tcn-motion"):
        find_recipe("tcn")


def test_find_recipe_reads_a_file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(tiny_recipe(epochs=11).to_toml(), encoding="utf-8")
    assert find_recipe(str(path)).epochs == 11
    with pytest.raises(UserError, match=r"Cannot read the recipe .*other\.toml: No such file"):
        find_recipe(str(tmp_path / "other.toml"))


def test_recipe_files_are_complete_and_self_contained():
    files = sorted(RECIPE_FILES.glob("*.toml"))
    assert sorted(path.stem for path in files) == recipe_names()
    for path in files:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
        assert {"name", "doc", "model", "product"} <= tables["recipe"].keys()
        assert tables["recipe"]["name"] == path.stem
        assert find_recipe(str(path)) == find_recipe(path.stem)


@pytest.mark.parametrize("name", recipe_names())
def test_schedule_of_every_recipe_fits_its_epochs(name):
    recipe = find_recipe(name)
    assert all(0 < milestone < recipe.epochs for milestone in recipe.schedule.milestones)
    assert bool(recipe.schedule.milestones) == (recipe.schedule.name == "multistep")
    assert recipe.validate_every <= recipe.epochs
    # Refitting trains the full schedule, so patience would have no effect.
    assert not (recipe.refit and recipe.patience)


@pytest.fixture
def restored_recipes():
    """Remove the recipes that a test registers."""
    before = set(recipes.RECIPES)
    yield
    for name in set(recipes.RECIPES) - before:
        del recipes.RECIPES[name]


@pytest.mark.usefixtures("restored_recipes")
def test_register_file_adds_a_recipe(tmp_path):
    path = tmp_path / "my-tracks.toml"
    path.write_text(tiny_recipe(epochs=11, name="my-tracks").to_toml(), encoding="utf-8")
    recipes.register_file(path)
    assert find_recipe("my-tracks").epochs == 11
    with pytest.raises(UserError, match=r"There is already a recipe named 'my-tracks'\. Choose another name\."):
        recipes.register_file(path)


@pytest.mark.usefixtures("restored_recipes")
def test_register_adds_a_recipe():
    recipes.register("mine", "Mine.", model="view-transformer", epochs=3, tables={"loss": {"label_smoothing": 0.2}})
    recipe = find_recipe("mine")
    assert (recipe.name, recipe.doc, recipe.epochs, recipe.loss.label_smoothing) == ("mine", "Mine.", 3, 0.2)


def test_recipe_names_reads_no_recipe_file():
    code = (
        "import sys; opened = []; sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == 'open' "
        "else None); from actionprep.training.recipes import find_recipe, recipe_names; recipe_names(); "
        "listed = sum('recipe_files' in path for path in opened); find_recipe('i3d'); "
        "print(listed, sum('recipe_files' in path for path in opened))"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.split() == ["0", "1"]


def test_choose_recipe_by_available_product(tmp_path):
    choice = choose_recipe(make_store(tmp_path / "store", subjects=1))
    assert choice.recipe.name == "view-transformer"
    assert choice.why == "the store has tracks"


def test_choose_recipe_of_empty_store_raises(tmp_path):
    with pytest.raises(
        UserError, match=r"No product to train on in .*\. Available products: none\. Recipes read tracks, "
    ) as caught:
        choose_recipe(Store(tmp_path / "store", create=True))
    assert "Run 'actionprep track' and 'actionprep snippets'" in str(caught.value)


def test_recipes_and_settings_need_no_torch():
    code = (
        "import sys; import actionprep.training; import actionprep.training.recipes as r; import actionprep.training.train_settings as t; r.find_recipe('view-transformer').to_toml(); t.TrainSettings()"
        "; print([m for m in ('torch', 'lightning', 'zarr', 'cv2', 'matplotlib') if m in sys.modules])"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "[]"


def test_package_loads_public_names_lazily():
    from actionprep import training
    from actionprep.training.datasets import SnippetDataset

    assert training.SnippetDataset is SnippetDataset
    assert all(hasattr(training, name) for name in training.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'Snippets'"):
        _ = training.Snippets


def test_train_settings_have_defaults():
    assert TrainSettings().recipe == "auto"


def test_applicable_changes_skips_other_settings():
    changes = {"epochs": 3, "input.frames": 16, "input.points": 64, "sizes.read_at": 1}
    kept, skipped = applicable_changes(find_recipe("i3d-small"), changes)
    assert kept == {"epochs": 3, "input.frames": 16}
    assert skipped == ["input.points", "sizes.read_at"]
    kept, skipped = applicable_changes(find_recipe("view-transformer"), changes)
    assert kept == {"epochs": 3, "input.frames": 16, "input.points": 64}
    assert skipped == ["sizes.read_at"]


def test_applicable_changes_keeps_unknown_settings():
    recipe = find_recipe("i3d-small")
    kept, skipped = applicable_changes(recipe, {"input.pionts": 64})
    assert skipped == []
    with pytest.raises(UserError, match="Unknown setting 'pionts' in \\[input\\]"):
        recipe.changed(kept)
