"""Comparisons: rows by recipe, intervals by drawing anew, costs by counting."""

import csv
import io
import json
import shutil

import numpy as np
import pytest
from picture_fakes import moving_square, write_lowres
from training_fakes import make_store, tiny_recipe

from actionprep.datasets.store import Store
from actionprep.errors import UserError
from actionprep.training.checkpoints import load_checkpoint
from actionprep.training.compare import compare, runs_in
from actionprep.training.fit import fit
from actionprep.training.folds import fit_folds
from actionprep.training.fusion import fuse
from actionprep.training.parts import SplitChoice
from actionprep.training.run import Run
from actionprep.training.test import run_test

SPLIT = SplitChoice(train=("1", "2", "3"), test=("4",))
QUIET = {"tensorboard": False}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Runs of two recipes: one with two seeds, one with folds."""
    folder = tmp_path_factory.mktemp("compare")
    store = make_store(folder / "store", subjects=4, repeats=2)
    for seed in (0, 1):
        run = fit(store, tiny_recipe(epochs=2, seed=seed), folder / f"runs/seed-{seed}", split=SPLIT, **QUIET)
        run_test(run, store, repeats=20)
    fit_folds(store, tiny_recipe(epochs=1, batch=8), folder / "runs/folds", split=SplitChoice(val_share=0.0), **QUIET)
    return folder


@pytest.fixture(scope="module")
def found(place):
    return compare([place / "runs"], repeats=200, seconds=0.01)


def test_seeds_and_folds_of_one_recipe_are_one_row_each(found):
    rows = {row.name: row for row in found.rows}
    assert set(rows) == {"tiny epochs=2 batch=4", "tiny epochs=1 batch=8"}
    several, folds = rows["tiny epochs=2 batch=4"], rows["tiny epochs=1 batch=8"]
    assert (several.seeds, several.folds, several.snippets) == ((0, 1), 1, 6)
    assert (folds.seeds, folds.folds, folds.snippets) == ((0,), 4, 24)


def test_the_figure_of_several_seeds_is_their_mean_and_that_of_folds_is_over_all_snippets(place, found):
    rows = {row.name: row for row in found.rows}
    figures = [
        json.loads((place / f"runs/seed-{seed}/test.json").read_text())["figures"]["macro_f1"] for seed in (0, 1)
    ]
    assert rows["tiny epochs=2 batch=4"].macro_f1.value == pytest.approx(np.mean(figures))
    folds = json.loads((place / "runs/folds/folds.json").read_text())["summary"]
    assert rows["tiny epochs=1 batch=8"].accuracy.value == pytest.approx(folds["accuracy"]["value"])
    assert rows["tiny epochs=1 batch=8"].macro_f1.value == pytest.approx(folds["macro_f1"])


def test_the_best_row_comes_first_and_lies_within_its_interval(found):
    values = [row.accuracy.value for row in found.rows]
    assert values == sorted(values, reverse=True)
    assert all(row.accuracy.low <= row.accuracy.value <= row.accuracy.high for row in found.rows)


def test_costs_are_those_of_the_checkpoint(place, found):
    model = load_checkpoint(place / "runs/seed-0/best.ckpt").model
    for row in found.rows:
        assert row.cost.parameters == sum(values.numel() for values in model.parameters())
        assert row.cost.flops > row.cost.parameters
        assert row.cost.latency_ms > 0
        assert row.cost.clips_per_s > 0
        assert row.train_seconds > 0


def test_a_run_alone_has_the_intervals_of_its_test(place):
    tested = run_test(place / "runs/seed-0", place / "store")
    [row] = compare([place / "runs/seed-0"], measure=False).rows
    for name in ("accuracy", "macro_f1", "map"):
        assert getattr(row, name).as_json() == pytest.approx(tested["intervals"][name], nan_ok=True)


def test_the_table_is_written_as_csv_markdown_json_and_picture(found, tmp_path):
    paths = found.write(tmp_path)
    assert [path.name for path in paths] == ["compare.csv", "compare.md", "compare.json", "compare.png"]
    rows = list(csv.DictReader(io.StringIO(paths[0].read_text())))
    assert float(rows[0]["accuracy"]) == found.rows[0].accuracy.value
    assert rows[0]["name"] == found.rows[0].name
    lines = paths[1].read_text().splitlines()
    assert lines[0].startswith(
        "| recipe | accuracy % | macro F1 % | mAP % | parameters | GFLOPs | training | latency | clips/s |"
    )
    assert len([line for line in lines if line.startswith("|")]) == 2 + len(found.rows)
    assert json.loads(paths[2].read_text())["rows"][0]["accuracy"]["value"] == found.rows[0].accuracy.value
    assert paths[3].read_bytes().startswith(b"\x89PNG")


def test_a_run_that_is_not_tested_says_which_command_tests_it(place, tmp_path):
    run = fit(place / "store", tiny_recipe(epochs=1), tmp_path / "untested", split=SPLIT, **QUIET)
    with pytest.raises(UserError, match=r"is not tested yet.*Run 'actiontrain test .*untested' first"):
        compare([run])


def test_a_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(UserError, match="is no run and holds none"):
        runs_in(tmp_path)


def test_runs_with_other_classes_are_told_not_to_compare(place, tmp_path):
    store = make_store(tmp_path / "store", subjects=4, names=("left", "up"))
    run = fit(store, tiny_recipe(epochs=1), tmp_path / "run", split=SPLIT, **QUIET)
    run_test(run, store, repeats=20)
    found = compare([run, place / "runs/seed-0"], measure=False, repeats=20)
    assert "These runs have different classes: their figures do not compare." in found.notes
    assert found.rows[0].cost is None
    assert found.figure().axes[0].get_xlabel() == "training, s"


def test_what_else_the_store_holds_does_not_matter(place, found, tmp_path):
    shutil.copytree(place, tmp_path / "place")
    assert not [note for note in found.notes if "different" in note or "not the same" in note]
    store = Store(tmp_path / "place/store")
    write_lowres(store, "added", "0", moving_square((1.0, 0.0), seed=1))
    run = fit(store, tiny_recipe(epochs=1), tmp_path / "later", split=SPLIT, **QUIET)
    run_test(run, store, repeats=20)
    both = compare([run, place / "runs/seed-0"], measure=False, repeats=20)
    assert run.facts["store_digest"] != Run(place / "runs/seed-0").facts["store_digest"]
    assert both.notes == ()


def test_runs_on_other_snippets_are_named(place, tmp_path):
    store = make_store(tmp_path / "store", subjects=4)
    run = fit(store, tiny_recipe(epochs=1), tmp_path / "other", split=SPLIT, **QUIET)
    run_test(run, store, repeats=20)
    runs = [run, *(place / f"runs/seed-{seed}" for seed in (0, 1))]
    [note] = compare(runs, measure=False, repeats=20).notes
    assert note == (
        "These runs were tested on different snippets, so their figures do not compare: other | seed-0, seed-1."
    )


def test_fusions_stand_beside_the_runs_that_they_ask(place, tmp_path):
    runs = [place / f"runs/seed-{seed}" for seed in (0, 1)]
    made = fuse(runs, tmp_path / "both", weights="equal")
    alone, both = (compare(one, repeats=50, seconds=0.01).rows[0] for one in ([runs[0]], [tmp_path / "both"]))
    assert both.name == "fusion of tiny + tiny"
    assert both.accuracy.value == pytest.approx(made.tested["figures"]["accuracy"])
    assert both.cost.parameters == 2 * alone.cost.parameters
    assert both.cost.flops == 2 * alone.cost.flops
    assert both.train_seconds > alone.train_seconds
    assert len(compare([*runs, tmp_path], measure=False, repeats=20).rows) == 2
