"""`actiontrain models` and `actiontrain recipes` in a terminal of 80 columns."""

import json

import pytest
from typer.testing import CliRunner

from actionprep.cli.train import app
from actionprep.training.recipes import find_recipe, recipe_names

runner = CliRunner()


@pytest.mark.parametrize("what", ["models", "recipes"])
def test_names_are_never_broken(what):
    names = [one["name"] for one in json.loads(runner.invoke(app, [what, "--json"]).stdout)]
    lines = runner.invoke(app, [what], env={"COLUMNS": "80"}).output.splitlines()
    assert {line.split()[0] for line in lines if line.startswith(" ") and line[1:2].strip()} == {"name", *names}


def test_the_list_of_recipes_has_a_sentence_of_each_and_the_whole_text_is_printed_with_one():
    listed = " ".join(runner.invoke(app, ["recipes"], env={"COLUMNS": "400"}).output.split())
    for name in recipe_names():
        first, _, rest = find_recipe(name).doc.partition(". ")
        assert f"{name} {find_recipe(name).product} {first.removesuffix('.')}." in listed
        assert not rest or rest not in listed
    assert "actiontrain recipes NAME" in listed
    assert find_recipe("vivit-1").doc in runner.invoke(app, ["recipes", "vivit-1"]).output
    assert {one["name"]: one["doc"] for one in json.loads(runner.invoke(app, ["recipes", "--json"]).stdout)} == {
        name: find_recipe(name).doc for name in recipe_names()
    }
