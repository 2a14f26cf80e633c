"""`actiontrain models` and `actiontrain recipes` at several terminal widths."""

import json

import pytest
from typer.testing import CliRunner

from actionprep.cli.train import app
from actionprep.training.models.registry import MODELS
from actionprep.training.recipes import find_recipe, recipe_names

runner = CliRunner()


@pytest.mark.parametrize("width", [60, 80, 100, 130])
@pytest.mark.parametrize("command", ["models", "recipes"])
def test_tables_never_cut_words(command, width):
    listed = json.loads(runner.invoke(app, [command, "--json"]).stdout)
    printed = runner.invoke(app, [command], env={"COLUMNS": str(width)}).output
    lines = printed.splitlines()
    assert {line.split()[0] for line in lines if line.startswith(" ") and line[1:2].strip()} == {
        "name",
        *(entry["name"] for entry in listed),
    }
    # Every printed word is a complete word of some cell.
    words = {word for entry in listed for value in entry.values() for word in str(value).split()}
    if command == "models":
        words |= {f"{axis}{size}" for card in MODELS.values() for axis, size in card.input_shape}
        words |= {f"{entry['parameters']:,}" for entry in listed} | {f"{entry['flops'] / 1e9:,.1f}" for entry in listed}
    body = [line for line in lines[2:] if line.startswith(" ")]
    assert {word for line in body for word in line.split()} - words == set()


@pytest.mark.parametrize(
    ("width", "hidden"),
    [(50, ["product", "input", "source"]), (60, ["input", "source"]), (80, ["source"])],
    ids=["50", "60", "80"],
)
def test_models_names_hidden_columns(width, hidden):
    models = json.loads(runner.invoke(app, ["models", "--json"]).stdout)
    printed = runner.invoke(app, ["models"], env={"COLUMNS": str(width)}).output
    table, _, note = printed.partition("Not shown at this width: ")
    assert note.splitlines()[0] == f"{', '.join(hidden)}. Use --json for all columns."
    rows = {line.split()[0]: line.split() for line in table.splitlines() if line[1:2].strip()}
    for model in models:
        assert rows[model["name"]][-2:] == [f"{model['parameters']:,}", f"{model['flops'] / 1e9:,.1f}"]
    assert not any(name in table.splitlines()[1] for name in hidden)
    assert max(map(len, table.splitlines())) <= width


@pytest.mark.parametrize("name", recipe_names())
def test_printed_recipe_is_a_file_for_fit(name, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(runner.invoke(app, ["recipes", name]).stdout, encoding="utf-8")
    assert find_recipe(str(path)) == find_recipe(name)


def test_recipes_lists_first_sentences_and_prints_docs():
    listed = " ".join(runner.invoke(app, ["recipes"], env={"COLUMNS": "400"}).output.split())
    for name in recipe_names():
        first, _, rest = find_recipe(name).doc.partition(". ")
        assert f"{name} {find_recipe(name).product} {first.removesuffix('.')}." in listed
        assert not rest or rest not in listed
    assert "actiontrain recipes NAME" in listed
    assert find_recipe("vivit-1").doc in runner.invoke(app, ["recipes", "vivit-1"]).output
    assert {
        recipe["name"]: recipe["doc"] for recipe in json.loads(runner.invoke(app, ["recipes", "--json"]).stdout)
    } == {name: find_recipe(name).doc for name in recipe_names()}
