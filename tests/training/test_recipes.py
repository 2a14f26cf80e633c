import re
import subprocess
import sys

import pytest
from training_fakes import make_store, tiny_recipe

from actionprep.datasets.store.zarr_store import Store
from actionprep.errors import UserError
from actionprep.training.inputs.tracks import TracksInput
from actionprep.training.recipes import (
    Recipe,
    applicable_changes,
    choose_recipe,
    differences,
    find_recipe,
    recipe_names,
)
from actionprep.training.train_settings import TrainSettings


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_reads_back_what_it_prints(name):
    recipe = find_recipe(name)
    for comments in (True, False):
        assert Recipe.from_toml(recipe.to_toml(comments=comments), where="its own text") == recipe
    assert recipe.doc


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_binds_a_model_to_the_product_it_reads(name):
    from actionprep.training.models.registry import model_card

    recipe = find_recipe(name)
    assert model_card(recipe.model).product == recipe.product


def test_settings_change_by_dotted_names():
    recipe = tiny_recipe()
    changed = recipe.changed({"epochs": 7, "input.rotation": 0.4, "loss.class_weights": "balanced", "sizes.width": 8})
    assert (changed.epochs, changed.input.rotation, changed.loss.class_weights) == (7, 0.4, "balanced")
    assert changed.sizes["width"] == 8
    assert isinstance(changed.input, TracksInput)
    assert recipe.epochs == 3


def test_epochs_that_are_asked_for_are_not_raised():
    recipe = find_recipe("view-transformer")
    assert recipe.min_steps > 0
    assert recipe.changed({"epochs": 3}).min_steps == 0
    assert recipe.changed({"epochs": 3, "min_steps": 50}).min_steps == 50
    assert recipe.changed({"batch": 3}).min_steps == recipe.min_steps


def test_a_setting_of_the_recipes_own_table_may_be_named_with_it():
    recipe = find_recipe("view-transformer")
    assert recipe.changed({"recipe.epochs": 3}) == recipe.changed({"epochs": 3})
    small = find_recipe("i3d-small")
    assert small.changed({"recipe.product": "frames"}) == small.changed({"product": "frames"})


@pytest.mark.parametrize("name", ["product", "recipe.product"])
def test_a_product_that_the_model_does_not_read_is_refused_before_its_settings(name):
    with pytest.raises(UserError, match="'i3d-small', which reads frames or lowres, to the product 'tracks'"):
        find_recipe("i3d-small").changed({name: "tracks"})


def test_recipes_of_other_products_differ_by_the_product_and_not_by_each_setting_of_its_input():
    found = differences(find_recipe("view-transformer"), find_recipe("skeleton-tcn"))
    assert "product is tracks, not pose" in found
    assert not [one for one in found if one.startswith("input.")]


def test_the_doc_of_a_changed_recipe_says_which_settings_were_changed():
    preset = find_recipe("skeleton-tcn-motion")
    changed = preset.changed({"sizes.features": ["coordinates"], "seed": 3})
    assert changed.doc == f"{preset.doc} Changed here: sizes.features."
    assert changed.changed({"loss.label_smoothing": 0}).doc.endswith("here: sizes.features, loss.label_smoothing.")
    assert changed.changed({"sizes.features": ["velocities", "slow_velocities"]}).doc == preset.doc
    assert Recipe.from_toml(changed.to_toml(), where="its own text") == changed
    assert preset.changed({"doc": "mine"}).changed({"epochs": 3}).doc == "mine"


def test_none_is_the_word_none_in_toml():
    recipe = tiny_recipe(ema=0.9)
    assert recipe.changed({"ema": "none"}).ema is None
    assert 'ema = "none"' in tiny_recipe().to_toml()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epoch": 3}, r"Unknown setting 'epoch' in changes to the recipe\. Did you mean 'epochs'\?"),
        ({"input.rotatoin": 3}, r"Unknown setting 'rotatoin' in \[input\] of the recipe\. Did you mean 'rotation'\?"),
        ({"optimizer.name": "sgd"}, r"Unknown table 'optimizer' in .*Did you mean 'optimizer'\?"),
        ({"loss.name": "hinge"}, r"Wrong value for 'loss\.name' in changes to the recipe: got 'hinge'"),
        ({"product": "trakcs"}, r"No input 'trakcs'\. Did you mean 'tracks'\?"),
        ({"batch": 0}, r"Wrong value for 'batch'"),
        (
            {"optimizer.name": "sgd", "optimizer.momentum": 0, "optimizer.nesterov": True},
            r"Wrong settings in \[optimizer\] of changes to the recipe: nesterov looks ahead along the momentum",
        ),
    ],
)
def test_wrong_settings_are_named(changes, message):
    with pytest.raises(UserError, match=message):
        tiny_recipe().changed(changes)


@pytest.mark.parametrize(("name", "nearest"), [("view-transfomer", "view-transformer"), ("i3", "i3d")])
def test_an_unknown_recipe_names_the_three_nearest_and_how_to_list_all(name, nearest):
    with pytest.raises(UserError) as caught:
        find_recipe(name)
    said = re.fullmatch(
        rf"No recipe '{name}'\. The nearest are ([^;]+); 'actiontrain recipes' lists all (\d+)\. A recipe of your own is "
        r"named by its file, which ends in \.toml\.",
        str(caught.value),
    )
    assert said[1].startswith(f"{nearest}, ")
    assert said[1].count(", ") == 2
    assert int(said[2]) == len(recipe_names())


def test_of_recipes_that_are_not_near_none_is_named():
    with pytest.raises(
        UserError, match=r"^No recipe 'nope'\. 'actiontrain recipes' lists all \d+\. A recipe of your own"
    ):
        find_recipe("nope")


def test_a_part_of_a_name_is_near():
    with pytest.raises(UserError, match=r"The nearest are skeleton-tcn, skeleton-tcn-motion"):
        find_recipe("tcn")


def test_a_recipe_may_be_a_file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(tiny_recipe(epochs=11).to_toml(), encoding="utf-8")
    assert find_recipe(str(path)).epochs == 11
    with pytest.raises(UserError, match="Cannot read the recipe"):
        find_recipe(str(tmp_path / "other.toml"))


def test_the_recipe_follows_from_what_the_store_holds(tmp_path):
    choice = choose_recipe(make_store(tmp_path / "store", subjects=1))
    assert choice.recipe.name == "view-transformer"
    assert choice.why == "the store holds tracks"


def test_an_empty_store_says_what_to_run(tmp_path):
    with pytest.raises(UserError, match=r"Nothing to train on in .*: it has nothing yet, and recipes read") as caught:
        choose_recipe(Store(tmp_path / "store", create=True))
    assert "Run 'actionprep track' and 'actionprep snippets'" in str(caught.value)


def test_recipes_and_settings_need_no_torch():
    code = (
        "import sys; import actionprep.training; import actionprep.training.recipes as r; import actionprep.training.train_settings as t; r.find_recipe('view-transformer').to_toml(); t.TrainSettings()"
        "; print([m for m in ('torch', 'lightning', 'zarr', 'cv2', 'matplotlib') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_the_package_gives_its_public_names_on_demand():
    from actionprep import training
    from actionprep.training.datasets import SnippetDataset

    assert training.SnippetDataset is SnippetDataset
    assert all(hasattr(training, name) for name in training.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'Snippets'"):
        _ = training.Snippets


def test_the_train_table_has_defaults():
    assert TrainSettings().recipe == "auto"


def test_changes_of_a_study_go_to_the_recipes_that_have_such_settings():
    changes = {"epochs": 3, "input.frames": 16, "input.points": 64, "sizes.read_at": 1}
    kept, others = applicable_changes(find_recipe("i3d-small"), changes)
    assert kept == {"epochs": 3, "input.frames": 16}
    assert others == ["input.points", "sizes.read_at"]
    kept, others = applicable_changes(find_recipe("view-transformer"), changes)
    assert kept == {"epochs": 3, "input.frames": 16, "input.points": 64}
    assert others == ["sizes.read_at"]


def test_a_change_that_no_recipe_knows_is_still_refused():
    recipe = find_recipe("i3d-small")
    kept, others = applicable_changes(recipe, {"input.pionts": 64})
    assert others == []
    with pytest.raises(UserError, match="Unknown setting 'pionts' in \\[input\\]"):
        recipe.changed(kept)
