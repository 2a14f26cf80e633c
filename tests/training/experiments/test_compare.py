"""Comparisons: rows per recipe, resampled intervals, counted costs."""

import csv
import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from frame_store_fakes import moving_square, write_lowres
from matplotlib.backends.backend_agg import FigureCanvasAgg
from training_fakes import make_store, tiny_recipe

from actionprep.datasets.split_choice import SplitChoice
from actionprep.datasets.store.zarr_store import Store
from actionprep.errors import UserError
from actionprep.training.checkpoints import load_checkpoint
from actionprep.training.evaluation.bootstrap import Interval
from actionprep.training.experiments.compare import compare, runs_in
from actionprep.training.experiments.comparison import Comparison
from actionprep.training.experiments.folds import fit_folds
from actionprep.training.experiments.grouping import Entry
from actionprep.training.fit import fit
from actionprep.training.fusion import fuse
from actionprep.training.run import Run
from actionprep.training.test import run_test

SPLIT = SplitChoice(train=("1", "2", "3"), test=("4",))
QUIET = {"tensorboard": False}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Runs of two recipes: two seeds of the first, folds of the second."""
    folder = tmp_path_factory.mktemp("compare")
    store = make_store(folder / "store", subjects=4, repeats=2)
    for seed in (0, 1):
        run = fit(store, tiny_recipe(epochs=2, seed=seed), folder / f"runs/seed-{seed}", split=SPLIT, **QUIET)
        run_test(run, store, repeats=20)
    fit_folds(store, tiny_recipe(epochs=1, batch=8), folder / "runs/folds", split=SplitChoice(val_share=0.0), **QUIET)
    return folder


@pytest.fixture(scope="module")
def result(project):
    return compare([project / "runs"], repeats=200, seconds=0.01)


def test_seeds_and_folds_of_one_recipe_are_one_row_each(result):
    rows = {row.name: row for row in result.rows}
    assert set(rows) == {"tiny batch=4 epochs=2", "tiny batch=8 epochs=1"}
    several, folds = rows["tiny batch=4 epochs=2"], rows["tiny batch=8 epochs=1"]
    assert (several.seeds, several.folds, several.snippets) == ((0, 1), 1, 6)
    assert (folds.seeds, folds.folds, folds.snippets) == ((0,), 4, 24)


def test_comparison_averages_seeds_and_pools_snippets_of_folds(project, result):
    rows = {row.name: row for row in result.rows}
    values = [
        json.loads((project / f"runs/seed-{seed}/test.json").read_text())["metrics"]["macro_f1"] for seed in (0, 1)
    ]
    assert rows["tiny batch=4 epochs=2"].macro_f1.value == pytest.approx(np.mean(values))
    folds = json.loads((project / "runs/folds/folds.json").read_text())["summary"]
    assert rows["tiny batch=8 epochs=1"].accuracy.value == pytest.approx(folds["accuracy"]["value"])
    assert rows["tiny batch=8 epochs=1"].macro_f1.value == pytest.approx(folds["macro_f1"])


def test_comparison_names_rows_by_sorted_settings(project, tmp_path):
    for name, changes in (
        ("a", {"refit": True, "min_steps": 9, "val_by": "recording"}),
        ("b", {"epochs": 7, "optimizer.learning_rate": 0.002}),
    ):
        run = Run(copied(project / "runs/seed-0", tmp_path / name))
        (run.folder / "recipe.toml").write_text(run.recipe.changed(changes).to_toml(), encoding="utf-8")
    assert {row.name for row in compare([tmp_path], measure=False, repeats=20).rows} == {
        "tiny epochs=2 min_steps=9 optimizer.learning_rate=0.001 refit=true val_by=recording",
        "tiny epochs=7 optimizer.learning_rate=0.002 refit=false val_by=group",
    }


def test_the_best_row_comes_first_and_lies_within_its_interval(result):
    values = [row.accuracy.value for row in result.rows]
    assert values == sorted(values, reverse=True)
    assert all(row.accuracy.low <= row.accuracy.value <= row.accuracy.high for row in result.rows)


def test_costs_are_those_of_the_checkpoint(project, result):
    model = load_checkpoint(project / "runs/seed-0/best.ckpt").model
    counted = compare([project / "runs"], measure=False, repeats=20)
    for row, alone in zip(result.rows, counted.rows, strict=True):
        assert (alone.cost.parameters, alone.cost.flops) == (row.cost.parameters, row.cost.flops)
        assert (alone.cost.latency_ms, alone.cost.clips_per_s) == (None, None)
        assert row.cost.parameters == sum(values.numel() for values in model.parameters())
        assert row.cost.flops > row.cost.parameters
        assert row.cost.latency_ms > 0
        assert row.cost.clips_per_s > 0
        assert row.train_seconds > 0


def test_a_run_alone_has_the_intervals_of_its_test(project):
    tested = run_test(project / "runs/seed-0", project / "store")
    [row] = compare([project / "runs/seed-0"], measure=False).rows
    for name in ("accuracy", "macro_f1", "map"):
        assert getattr(row, name).as_json() == pytest.approx(tested["intervals"][name], nan_ok=True)


def test_comparison_omits_the_cost_if_snippets_are_missing(project, tmp_path):
    fewer = make_store(tmp_path / "store", subjects=1)
    for store, expected in ((fewer.path, "has 3 snippets, fewer than when"), (tmp_path / "gone", "No store at")):
        run = Run(copied(project / "runs/seed-0", tmp_path / f"run-on-{Path(store).name}"))
        run.change(store=str(store), store_from_here=str(store))
        result = compare([run], measure=False, repeats=20)
        assert result.rows[0].cost is None
        [note] = result.notes
        assert note.startswith("tiny was not counted: ")
        assert expected in note


def test_comparison_is_written_as_csv_markdown_json_and_image(result, tmp_path):
    paths = result.write(tmp_path)
    assert [path.name for path in paths] == ["compare.csv", "compare.md", "compare.json", "compare.png"]
    rows = list(csv.DictReader(io.StringIO(paths[0].read_text())))
    assert float(rows[0]["accuracy"]) == result.rows[0].accuracy.value
    assert rows[0]["name"] == result.rows[0].name
    lines = paths[1].read_text().splitlines()
    assert lines[0].startswith(
        "| recipe | accuracy % | macro F1 % | mAP % | parameters | GFLOPs/pass | passes | training | latency/pass | "
    )
    assert len([line for line in lines if line.startswith("|")]) == 2 + len(result.rows)
    assert json.loads(paths[2].read_text())["rows"][0]["accuracy"]["value"] == result.rows[0].accuracy.value
    assert paths[3].read_bytes().startswith(b"\x89PNG")


def test_missing_metric_is_a_dash_in_text_and_empty_in_csv(result):
    row = replace(result.rows[0], map=Interval(float("nan"), float("nan"), float("nan")))
    without = Comparison((row,), ())
    columns, [cells] = without.cells()
    assert cells[columns.index("mAP %")] == "–"
    assert "nan" not in without.to_markdown()
    [row] = csv.DictReader(io.StringIO(without.to_csv()))
    assert (row["map"], row["map_low"]) == ("", "")


def test_comparison_omits_empty_columns_and_panels(result):
    def without(**nothing):
        rows = (replace(row, cost=replace(row.cost, **nothing) if nothing else None) for row in result.rows)
        return Comparison(tuple(rows), ())

    def labels(one):
        return [panel.get_xlabel().partition("\n")[0] for panel in one.figure().axes]

    columns, rows = without(latency_ms=None, clips_per_s=None).cells()
    assert columns[4:] == ["parameters", "GFLOPs/pass", "passes", "training", "runs"]
    assert {len(row) for row in rows} == {len(columns)}
    assert without().cells()[0][4:] == ["passes", "training", "runs"]
    assert labels(result) == ["latency of one pass on cpu, ms", "GFLOPs of one pass", "parameters, M"]
    assert labels(without(latency_ms=None)) == ["training, s", "GFLOPs of one pass", "parameters, M"]
    assert labels(without()) == ["training, s"]


def test_compare_lists_passes_next_to_the_cost_of_one(project, tmp_path):
    run = fit(project / "store", tiny_recipe(epochs=1, test_variants=3), tmp_path / "three", split=SPLIT, **QUIET)
    run_test(run, repeats=20)
    fuse([project / "runs/seed-0", run], tmp_path / "both", weights="equal")
    result = compare([run, tmp_path / "both"], measure=False, repeats=20)
    rows = {row.name: row for row in result.rows}
    assert (rows["tiny"].passes, rows["fusion of tiny + tiny"].passes) == ((3,), (1, 3))
    assert {row["name"]: row["passes"] for row in csv.DictReader(io.StringIO(result.to_csv()))} == {
        "tiny": "3", "fusion of tiny + tiny": "1 + 3"
    }  # fmt: skip
    assert {row["name"]: row["passes"] for row in result.document()["rows"]} == {
        "tiny": [3], "fusion of tiny + tiny": [1, 3]
    }  # fmt: skip
    assert "| 1 + 3 |" in result.to_markdown()
    assert result.notes[-1].startswith("A test runs several passes per snippet (column 'passes').")


@pytest.mark.parametrize("name", ["short", "tiny batch=16 epochs=40 input.frames=32", "a setting=0.123 " * 20])
@pytest.mark.parametrize("count", [1, 2, 12])
def test_comparison_figure_shows_full_names_inside_its_bounds(result, name, count):
    rows = tuple(replace(result.rows[0], name=f"{at} {name}".strip()) for at in range(count))
    figure = Comparison(rows, ()).figure()
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    [legend] = figure.legends
    assert [" ".join(text.get_text().split()) for text in legend.get_texts()] == [row.name for row in rows]
    box = legend.get_window_extent(canvas.get_renderer())
    assert box.x0 >= 0
    assert box.y0 >= 0
    assert box.x1 <= figure.bbox.width
    assert box.y1 <= figure.axes[0].get_window_extent().y0


@pytest.mark.parametrize("equal", [4, 7, 8, 20])
@pytest.mark.parametrize("times", [1.5, 30, 10**6])
def test_comparison_figure_separates_rows_of_equal_cost(result, equal, times):
    cost = result.rows[0].cost
    far = replace(
        result.rows[0], cost=replace(cost, parameters=int(cost.parameters * times), flops=int(cost.flops * times))
    )
    figure = Comparison((*[result.rows[0]] * equal, far), ()).figure()
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    for panel, true in ((figure.axes[1], cost.flops / 1e9), (figure.axes[2], cost.parameters / 1e6)):
        marks = [bars.lines[0] for bars in panel.containers]
        assert [mark.get_xdata()[0] for mark in marks] == pytest.approx([true] * equal + [true * times], rel=1e-3)
        frame = panel.get_window_extent()
        for mark in marks:
            box = mark.get_window_extent(canvas.get_renderer())
            assert frame.x0 <= box.x0
            assert frame.y0 <= box.y0
            assert box.x1 <= frame.x1
            assert box.y1 <= frame.y1
        points = [mark.get_transform().transform((mark.get_xdata()[0], 0.5))[0] * 72 / figure.dpi for mark in marks]
        position = panel.transData.transform((true, 0.5))[0] * 72 / figure.dpi
        assert np.diff(points[:equal]) == pytest.approx(min(6, 18 / (equal - 1)))
        assert np.mean(points[:equal]) == pytest.approx(position)
        assert panel.get_xlabel().endswith("\n(equal values drawn side by side)")


def test_comparison_of_an_untested_run_names_the_test_command(project, tmp_path):
    run = fit(project / "store", tiny_recipe(epochs=1), tmp_path / "untested", split=SPLIT, **QUIET)
    with pytest.raises(UserError, match=r"has not been tested yet.*run 'actiontrain test .*untested' first"):
        compare([run])


def test_a_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(UserError, match="is not a run and contains none"):
        runs_in(tmp_path)


def test_runs_in_finds_nested_folders_but_none_inside_a_run(project, tmp_path):
    run = project / "runs/seed-0"
    deep = copied(run, tmp_path / "runs/marks/tiny-0a/seed-0/split-one")
    near = copied(run, tmp_path / "runs/alone")
    copied(run, near / "val")
    assert [result.folder for result in runs_in(tmp_path)] == [near, deep]


def test_comparison_follows_links_without_loops(project, tmp_path):
    copied(project / "runs/seed-0", tmp_path / "disk/one")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/linked").symlink_to(tmp_path / "disk", target_is_directory=True)
    (tmp_path / "disk/back").symlink_to(tmp_path / "runs", target_is_directory=True)
    assert [result.folder for result in runs_in(tmp_path / "runs")] == [tmp_path / "runs/linked/one"]


def test_comparison_rejects_runs_with_other_classes(project, tmp_path):
    store = make_store(tmp_path / "store", subjects=4, names=("left", "up"))
    run = fit(store, tiny_recipe(epochs=1), tmp_path / "run", split=SPLIT, **QUIET)
    run_test(run, store, repeats=20)
    result = compare([run, project / "runs/seed-0"], measure=False, repeats=20)
    assert "These runs have different classes, so their metrics are not comparable." in result.notes


def test_what_else_the_store_holds_does_not_matter(project, tmp_path):
    shutil.copytree(project, tmp_path / "place")
    store = Store(tmp_path / "place/store")
    write_lowres(store, "added", "0", moving_square((1.0, 0.0), seed=1))
    run = fit(store, tiny_recipe(epochs=1), tmp_path / "later", split=SPLIT, **QUIET)
    run_test(run, store, repeats=20)
    both = compare([run, project / "runs/seed-0"], measure=False, repeats=20)
    assert run.facts["store_digest"] != Run(project / "runs/seed-0").facts["store_digest"]
    assert both.notes == ()


def test_compare_names_rows_on_another_table_of_snippets(project, tmp_path):
    store = make_store(tmp_path / "store", subjects=4)
    run = fit(store, tiny_recipe(epochs=1), tmp_path / "other", split=SPLIT, **QUIET)
    run_test(run, store, repeats=20)
    runs = [run, *(project / f"runs/seed-{seed}" for seed in (0, 1))]
    [note] = compare(runs, measure=False, repeats=20).notes
    mine, other = (Run(folder).facts["snippets_digest"][:8] for folder in (run.folder, project / "runs/seed-0"))
    assert note == (
        "These rows were tested on different snippets, so their metrics are not comparable: "
        f"tiny epochs=1 on 3 of subject 4 in snippets/default ({mine}) | "
        f"tiny epochs=2 on 6 of subject 4 in snippets/default ({other})."
    )


def test_compare_names_rows_tested_on_other_subjects(project, tmp_path):
    run = fit(
        project / "store", tiny_recipe(epochs=1, name="other"), tmp_path / "other",
        split=SplitChoice(train=("1", "3", "4"), test=("2",), val_share=0.0), **QUIET,
    )  # fmt: skip
    run_test(run, repeats=20)
    two = [run, *(project / f"runs/seed-{seed}" for seed in (0, 1))]
    assert compare(two, measure=False, repeats=20).notes == (
        "These rows were tested on different snippets, so their metrics are not comparable: "
        "other on 6 of subject 2 | tiny on 6 of subject 4.",
    )
    [note] = compare([*two, project / "runs/folds"], measure=False, repeats=20).notes
    assert note.endswith(" | tiny batch=8 epochs=1 on 24 of subject 1, 2, 3, 4.")
    whole = [project / "runs/seed-0", project / "runs/folds"]
    [note] = compare(whole, measure=False, repeats=20).notes
    assert note.endswith(" on 24 of subject 1, 2, 3, 4.")


def test_comparison_reports_seeds_tested_on_other_snippets(project, tmp_path):
    other = fit(
        project / "store", tiny_recipe(epochs=2, seed=2), tmp_path / "other",
        split=SplitChoice(train=("1", "3", "4"), test=("2",)), **QUIET,
    )  # fmt: skip
    run_test(other, repeats=20)
    result = compare([project / "runs/seed-0", other], measure=False, repeats=20)
    assert result.notes == ("The seeds of tiny were not all tested on the same snippets.",)


def test_fusions_stand_beside_the_runs_that_they_ask(project, tmp_path):
    runs = [project / f"runs/seed-{seed}" for seed in (0, 1)]
    made = fuse(runs, tmp_path / "both", weights="equal")
    alone, both = (compare(entry, repeats=50, seconds=0.01).rows[0] for entry in ([runs[0]], [tmp_path / "both"]))
    assert both.name == "fusion of tiny + tiny"
    assert both.accuracy.value == pytest.approx(made.tested["metrics"]["accuracy"])
    assert both.cost.parameters == 2 * alone.cost.parameters
    assert both.cost.flops == 2 * alone.cost.flops
    assert both.train_seconds > alone.train_seconds
    assert len(compare([*runs, tmp_path], measure=False, repeats=20).rows) == 2


def copied(run, target):
    shutil.copytree(run, target)
    return target


def test_a_run_that_is_given_twice_counts_once(project, tmp_path):
    runs = [project / "runs/seed-0", copied(project / "runs/seed-0", tmp_path / "copy"), project / "runs/seed-1"]
    result = compare([*runs, runs[0]], measure=False, repeats=20)
    [row] = result.rows
    assert row.seeds == (0, 1)
    assert row.accuracy == compare([runs[0], runs[2]], measure=False, repeats=20).rows[0].accuracy
    assert result.notes == ("copy has exactly the same answers as seed-0, with the same seed. It counts once.",)


def test_comparison_separates_different_answers_of_a_seed(project, tmp_path):
    other = copied(project / "runs/seed-0", tmp_path / "again")
    np.save(other / "probabilities.npy", np.load(other / "probabilities.npy")[:, ::-1])
    result = compare([project / "runs/seed-0", other, project / "runs/seed-1"], measure=False, repeats=20)
    assert {row.name: row.seeds for row in result.rows} == {"tiny (seed-0)": (0, 1), "tiny (again)": (0,)}
    [note] = result.notes
    assert note.startswith("seed-0, again share a recipe and a seed, but their answers differ")


def add_to_weights(amount):
    def put(model):
        with torch.no_grad():
            next(model.parameters()).fill_(amount)

    return put


def test_comparison_separates_fresh_and_published_weights(project, tmp_path):
    store = project / "store"
    for name, seed, amount in (("fresh", 0, None), ("one", 0, 0.1), ("one-again", 1, 0.1), ("two", 1, 0.2)):
        weights = None if amount is None else add_to_weights(amount)
        run = fit(store, tiny_recipe(epochs=1, seed=seed), tmp_path / name, split=SPLIT, weights=weights, **QUIET)
        run_test(run, repeats=20)
    rows = {frozenset(Path(run).name for run in row.runs): row for row in compare([tmp_path], measure=False).rows}
    assert set(rows) == {frozenset({"fresh"}), frozenset({"one", "one-again"}), frozenset({"two"})}
    digest = Run(tmp_path / "two").facts["weights_digest"]
    assert rows[frozenset({"fresh"})].name == "tiny start=fresh"
    assert rows[frozenset({"two"})].name == f"tiny start=weights-{digest[:8]}"
    assert rows[frozenset({"one", "one-again"})].seeds == (0, 1)


def test_comparison_separates_fusions_with_other_weights(project, tmp_path):
    runs = [project / f"runs/seed-{seed}" for seed in (0, 1)]
    for name, weights in (("val", "val"), ("equal", "equal"), ("halves", (2, 2)), ("given", (3, 1))):
        fuse(runs, tmp_path / name, weights=weights)
    result = compare([tmp_path], measure=False, repeats=20)
    assert {row.name: row.seeds for row in result.rows} == {
        f"fusion of tiny + tiny weights={weights}": (0,) for weights in ("val", "equal", "0.75/0.25")
    }
    assert result.notes == ("halves has exactly the same answers as equal, with the same seed. It counts once.",)


def test_fusions_that_share_a_run_are_no_repetitions(project, tmp_path):
    runs = [project / f"runs/seed-{seed}" for seed in (0, 1)]
    for name, members in (("one", runs), ("two", runs[::-1])):
        fuse(members, tmp_path / name, weights=(3, 1))
    result = compare([tmp_path], measure=False, repeats=20)
    assert {row.name: row.seeds for row in result.rows} == {
        "fusion of tiny + tiny (one)": (0,), "fusion of tiny + tiny (two)": (1,)
    }  # fmt: skip


def test_comparison_separates_a_split_and_a_cross_validation(project, tmp_path):
    run = fit(
        project / "store", tiny_recipe(epochs=1, batch=8), tmp_path / "plain",
        split=SplitChoice(train=("1", "2", "3"), test=("4",), val_share=0.0), **QUIET,
    )  # fmt: skip
    run_test(run, repeats=20)
    rows = {row.name: row for row in compare([run, project / "runs/folds"], measure=False, repeats=20).rows}
    assert set(rows) == {"tiny split=single", "tiny split=4 folds by subject"}
    assert (rows["tiny split=single"].folds, rows["tiny split=single"].snippets) == (1, 6)
    folds = rows["tiny split=4 folds by subject"]
    assert (folds.seeds, folds.folds, folds.snippets) == ((0,), 4, 24)


def test_comparison_detects_folds_of_earlier_runs_by_their_split(project, tmp_path):
    folds = copied(project / "runs/folds", tmp_path / "folds")
    for run in map(Run, folds.glob("fold-*")):
        facts = run.facts
        del facts["split"]["folds"]
        run.change(**facts)
    [row] = compare([folds], measure=False, repeats=20).rows
    assert row.folds == 4
    assert Entry.of(Run(folds / "fold-01")).split_kind == "folds by subject"


def test_compare_leaves_out_and_names_untested_runs(project, tmp_path):
    copied(project / "runs/seed-0", tmp_path / "runs/tested")
    for name in ("one", "two"):
        (copied(project / "runs/seed-1", tmp_path / "runs" / name) / "test.json").unlink()
    result = compare([tmp_path / "runs"], measure=False, repeats=20)
    assert [row.seeds for row in result.rows] == [(0,)]
    one, two = (tmp_path / "runs" / name for name in ("one", "two"))
    assert result.notes == (
        f"Left out because not tested yet: {one}, {two}. Test the first one with 'actiontrain test {one}'.",
    )
    with pytest.raises(UserError, match=r"two has not been tested yet. Only tested runs"):
        compare([tmp_path / "runs/tested", two])
    shutil.rmtree(tmp_path / "runs/tested")
    with pytest.raises(UserError, match=r"one and 1 more have not been tested yet. Only tested runs"):
        compare([tmp_path / "runs"])


def cut(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


DAMAGES = {
    "test.json is cut": ("test.json", cut, r"test\.json is damaged: .*Test it again: actiontrain test .*bad"),
    "test.json is {}": (
        "test.json",
        lambda path: path.write_text("{}"),
        r"test\.json is damaged: the key 'metrics' is missing",
    ),
    "test.json is []": (
        "test.json",
        lambda path: path.write_text("[]"),
        r"test\.json is damaged: it does not contain a table",
    ),
    "run.json is cut": ("run.json", cut, r"run\.json is damaged: .*Train again into another folder"),
    "run.json is {}": (
        "run.json",
        lambda path: path.write_text("{}"),
        r"run\.json is damaged: the key '\w+' is missing",
    ),
    "run.json is []": (
        "run.json",
        lambda path: path.write_text("[]"),
        r"run\.json is damaged: it does not contain a table",
    ),
    **{
        f"run.json has a wrong {name}": (
            "run.json",
            lambda path, wrong=wrong: path.write_text(json.dumps(json.loads(path.read_text()) | wrong)),
            rf"run\.json is damaged: its '{name}' is .* Train again into another folder",
        )
        for name, wrong in {
            "state": {"state": None},
            "seed": {"seed": "one"},
            "snippets": {"snippets": None},
            "labels.0": {"labels": [3, 4]},
            "split.rows.train": {"split": {"rows": {"train": 3}}},
            "train_seconds": {"train_seconds": "long"},
        }.items()
    },
    "recipe.toml is empty": ("recipe.toml", lambda path: path.write_text(""), r"recipe\.toml"),
    "samples.csv is gone": (
        "samples.csv",
        Path.unlink,
        r"samples\.csv is missing\. Test it again: actiontrain test .*bad",
    ),
    "samples.csv is cut": (
        "samples.csv",
        cut,
        r"belong to different tests\. .*: actuals 6, .*recording \d+\. Test it",
    ),
    "probabilities.npy is gone": ("probabilities.npy", Path.unlink, r"probabilities\.npy is missing\. Test it again"),
    "actuals.npy is cut": ("actuals.npy", cut, r"actuals\.npy is damaged: .*Test it again"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_comparison_reports_a_damaged_run_and_uses_the_others(project, tmp_path, name):
    file, damage, message = DAMAGES[name]
    copied(project / "runs/seed-0", tmp_path / "runs/good")
    damage(copied(project / "runs/seed-1", tmp_path / "runs/bad") / file)
    with pytest.raises(UserError, match=message):
        compare([tmp_path / "runs/bad"], measure=False)
    result = compare([tmp_path / "runs"], measure=False, repeats=20)
    assert [row.seeds for row in result.rows] == [(0,)]
    [note] = result.notes
    assert note.startswith("Left out: ")
    assert re.search(message, note)
    assert str(tmp_path / "runs/bad") in note


def test_comparison_names_the_fuse_command_for_missing_files(project, tmp_path):
    fuse([project / f"runs/seed-{seed}" for seed in (0, 1)], tmp_path / "fused", weights="equal")
    (tmp_path / "fused/samples.csv").unlink()
    with pytest.raises(UserError, match=r"samples\.csv is missing\. Fuse its runs again: actiontrain fuse RUN RUN"):
        compare([tmp_path / "fused"])
