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


@pytest.mark.parametrize(
    ("width", "left_out"), [(50, ["product", "input", "source"]), (60, ["input", "source"])], ids=["50", "60"]
)
def test_a_narrow_terminal_cuts_no_number_of_a_model_and_names_the_columns_that_it_leaves_out(width, left_out):
    models = json.loads(runner.invoke(app, ["models", "--json"]).stdout)
    printed = runner.invoke(app, ["models"], env={"COLUMNS": str(width)}).output
    table, _, note = printed.partition("No room at this width for ")
    assert note == f"{', '.join(left_out)}: --json tells them.\n"
    rows = {line.split()[0]: line.split() for line in table.splitlines() if line[1:2].strip()}
    for one in models:
        assert rows[one["name"]][-2:] == [f"{one['parameters']:,}", f"{one['flops'] / 1e9:,.1f}"]
    assert not any(name in table.splitlines()[1] for name in left_out)
    assert max(map(len, table.splitlines())) <= width


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
