"""`actiontrain sweep` and `actiontrain compare` on a small store."""

import json
from pathlib import Path

import pytest
from training_fakes import make_store, tiny_recipe
from typer.testing import CliRunner

from actionprep.cli.train import app
from actionprep.cli.train.compare import _grid
from actionprep.errors import UserError

runner = CliRunner()
SWEEP = ["sweep", "store", "--recipes", "tiny.toml", "--grid", "batch=4,8", "--seeds", "0", "1", "--no-measure"]


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    make_store(folder / "store", subjects=5)
    (folder / "tiny.toml").write_text(tiny_recipe(epochs=1).to_toml(), encoding="utf-8")
    return folder


@pytest.fixture
def swept(project, monkeypatch):
    monkeypatch.chdir(project)
    done = runner.invoke(app, [*SWEEP, "--threads", "1", "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_sweep_command_prints_its_table_and_resumes(project, swept):
    assert {row["name"] for row in swept["comparison"]["rows"]} == {"tiny batch=4", "tiny batch=8"}
    assert {path.name for path in (project / "runs/sweep").glob("compare.*")} == {
        "compare.csv", "compare.json", "compare.md", "compare.png",
    }  # fmt: skip
    again = runner.invoke(app, [*SWEEP, "--threads", "1"])
    assert again.exit_code == 0, again.output
    assert "4 trainings, 4 of them already done." in again.output
    assert "2 seeds" in again.output


def test_sweep_command_trains_on_the_given_views(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_store(tmp_path / "store", subjects=5, views=("left", "right"))
    (tmp_path / "tiny.toml").write_text(tiny_recipe(epochs=1).to_toml(), encoding="utf-8")
    words = ["sweep", "store", "--recipes", "tiny.toml", "--views", "right", "--threads", "1", "--no-measure", "--json"]
    done = runner.invoke(app, words)
    assert done.exit_code == 0, done.output
    [facts] = Path("runs/sweep").glob("*/seed-0/run.json")
    assert json.loads(facts.read_text())["views"] == ["right"]


def test_runs_are_compared_by_folder_by_name_and_all_of_them(swept, tmp_path):
    words = ["--no-measure", "--out", str(tmp_path / "out"), "--json"]
    for named in (["runs/sweep"], ["sweep"], []):
        done = runner.invoke(app, ["compare", *named, *words])
        assert done.exit_code == 0, done.output
        result = json.loads(done.stdout)
        assert [row["accuracy"] for row in result["rows"]] == [row["accuracy"] for row in swept["comparison"]["rows"]]
    assert (tmp_path / "out/compare.png").exists()


def test_costs_are_printed_with_where_they_were_measured(swept, tmp_path):
    words = ["compare", "sweep", "--device", "cpu", "--out", str(tmp_path / "out")]
    done = runner.invoke(app, words, env={"COLUMNS": "160"})
    assert done.exit_code == 0, done.output
    assert "Latency and clips/s are of one forward pass of the models alone, on cpu" in done.output
    assert "M" in done.output
    assert "do not fit" not in done.output
    done = runner.invoke(app, words, env={"COLUMNS": "60"})
    assert "Columns that do not fit: mAP %, parameters, GFLOPs/pass, passes, training, " in done.output
    assert "compare.csv has all columns." in done.output


def test_a_training_that_fails_ends_with_code_1_and_its_reason(project, swept):
    words = ["--name", "wild", "--set", "optimizer.learning_rate=1e30", "optimizer.name=sgd", "schedule.warmup=0.0"]
    done = runner.invoke(app, ["sweep", "store", "--recipes", "tiny.toml", *words])
    assert done.exit_code == 1
    assert "The loss is NaN or infinite" in done.output


@pytest.mark.parametrize("others", [["--folds", "subject"], ["--split", "one"]])
def test_splits_go_with_no_other_way_to_split(swept, others):
    done = runner.invoke(app, ["sweep", "store", "--recipes", "tiny.toml", "--splits", "one", "two", *others])
    assert done.exit_code == 2
    assert f"{others[0]} and --splits cannot be combined" in done.output


def test_one_stored_split_is_named_with_its_place_when_it_is_missing(swept):
    done = runner.invoke(app, ["sweep", "store", "--recipes", "tiny.toml", "--split", "one", "--name", "by-one"])
    assert done.exit_code != 0
    assert "No stored split 'one' in" in done.output
    assert "Make it with 'actionprep split --name one'." in done.output


def test_a_run_that_is_not_there_is_refused(swept):
    done = runner.invoke(app, ["compare", "nothing"])
    assert done.exit_code == 2
    assert "is not a run and contains none" in done.output


def test_values_of_a_grid_are_read_as_settings_are():
    assert _grid(["epochs=20,40", "optimizer.name=adamw,sgd", "ema=0.9,none"]) == {
        "epochs": [20, 40],
        "optimizer.name": ["adamw", "sgd"],
        "ema": [0.9, "none"],
    }
    assert _grid(["schedule.milestones=[1, 2];[3]"]) == {"schedule.milestones": [[1, 2], [3]]}
    for wrong in ("epochs", "epochs="):
        with pytest.raises(UserError, match="--grid expects name=value,value"):
            _grid([wrong])
