"""Sweeps: every combination once, no repetition of finished runs, one table."""

import csv
import json
import os
import shutil
import signal

import numpy as np
import pytest
from training_fakes import make_store, tiny_recipe, write_split

from actionprep.datasets.split_choice import SplitChoice
from actionprep.datasets.store.zarr_store import Store
from actionprep.errors import UserError
from actionprep.training.experiments.sweep import plan_sweep, sweep
from actionprep.training.run import Run

SPLIT = SplitChoice(train=("1", "2", "3"), test=("4",))
TINY = tiny_recipe(epochs=1)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("sweep") / "store", subjects=4)


@pytest.fixture
def options():
    return {"split": SPLIT, "device": "cpu", "measure": False, "threads": 1}


def test_sweep_plans_every_combination_once_in_a_separate_folder(store, tmp_path):
    jobs = plan_sweep(
        store, [TINY, TINY.changed({"name": "other"})], tmp_path, grid={"batch": [4, 8, 4], "input.frames": [8]},
        seeds=(0, 1, 1),
    )  # fmt: skip
    assert len(jobs) == len({job.folder for job in jobs}) == 2 * 2 * 2
    assert {(job.recipe.name, job.recipe.batch, job.recipe.seed) for job in jobs} == {
        (name, batch, seed) for name in ("tiny", "other") for batch in (4, 8) for seed in (0, 1)
    }
    assert [job.recipe.seed for job in jobs] == [0] * 4 + [1] * 4
    assert jobs[0].folder.parent.name.startswith("tiny-batch=4-frames=8-")


def test_sweep_plans_folds_as_separate_trainings(store, tmp_path):
    jobs = plan_sweep(store, [TINY], tmp_path, seeds=(0, 1), folds="subject")
    assert [job.fold for job in jobs] == [0, 1, 2, 3] * 2
    assert jobs[3].folder.name == "fold-04"


def test_a_sweep_gives_one_table_and_a_second_call_trains_nothing(store, tmp_path, options, monkeypatch):
    messages = []
    outcome = sweep(store, [TINY], tmp_path / "s", grid={"batch": [4, 8]}, seeds=(0, 1), log=messages.append, **options)
    assert {row.name: row.seeds for row in outcome.comparison.rows} == {"tiny batch=4": (0, 1), "tiny batch=8": (0, 1)}
    assert (tmp_path / "s/compare.md").exists()
    assert messages[0] == "4 trainings, 0 of them already done."
    for at, job in enumerate(outcome.jobs):
        begun, ended = messages[1 + 2 * at : 3 + 2 * at]
        name = job.folder.relative_to(tmp_path / "s")
        assert begun == f"Training {name}"
        assert ended.startswith(f"{at + 1} of 4: {name} ")
    monkeypatch.setattr("actionprep.training.experiments.sweep._work", lambda *_: pytest.fail("trained again"))
    again = sweep(store, [TINY], tmp_path / "s", grid={"batch": [4, 8]}, seeds=(0, 1), log=messages.append, **options)
    assert "4 trainings, 4 of them already done." in messages
    assert again.comparison.rows == outcome.comparison.rows


def test_folds_of_a_sweep_are_one_test_over_all_snippets(store, tmp_path, options):
    outcome = sweep(store, [TINY], tmp_path / "s", folds="subject", **{**options, "split": SplitChoice(val_share=0.0)})
    [row] = outcome.comparison.rows
    assert (row.folds, row.snippets) == (4, 12)


@pytest.fixture(scope="module")
def with_splits(tmp_path_factory):
    store = make_store(tmp_path_factory.mktemp("splits") / "store", subjects=4, repeats=2)
    for name, subject in (("one", 1), ("two", 2), ("three", 3)):
        write_split(store, name, tested=str(subject))
    return store


def test_each_stored_split_is_a_training_and_a_row_gives_their_mean(with_splits, tmp_path, options):
    names = ["one", "two", "three"]
    outcome = sweep(
        with_splits, [TINY], tmp_path / "s", seeds=(0, 1), splits=names, **{**options, "split": SplitChoice()}
    )
    assert outcome.failures == ()
    assert [(job.recipe.seed, job.split, job.folder.name) for job in outcome.jobs] == [
        (seed, name, f"split-{name}") for seed in (0, 1) for name in names
    ]
    tested = {job.split: {row["recording"][:2] for row in samples(job.folder)} for job in outcome.jobs}
    assert tested == {"one": {"s1"}, "two": {"s2"}, "three": {"s3"}}
    [row] = outcome.comparison.rows
    values = [Run(job.folder).tested["metrics"] for job in outcome.jobs]
    assert row.accuracy.value == pytest.approx(np.mean([value["accuracy"] for value in values]))
    assert row.macro_f1.value == pytest.approx(np.mean([value["macro_f1"] for value in values]))
    assert (row.seeds, row.splits, row.folds, row.snippets) == ((0, 1), ("one", "two", "three"), 1, 18)
    assert outcome.comparison.cells()[1][0][-1] == "2 seeds x 3 splits"


def test_sweep_reports_a_damaged_run_and_compares_the_others(store, tmp_path, options):
    made = sweep(store, [TINY], tmp_path / "s", grid={"batch": [4, 8, 12]}, **options)
    (made.jobs[0].folder / "run.json").write_text("{")
    (made.jobs[1].folder / "test.json").write_text("[]")
    outcome = sweep(store, [TINY], tmp_path / "s", grid={"batch": [4, 8, 12]}, **options)
    assert [row.name for row in outcome.comparison.rows] == ["tiny"]
    reasons = {job.folder: reason for job, reason in outcome.failures}
    assert list(reasons) == [job.folder for job in made.jobs[:2]]
    assert "run.json is damaged" in reasons[made.jobs[0].folder]
    assert "Test it again: actiontrain test" in reasons[made.jobs[1].folder]


def samples(folder):
    with open(folder / "samples.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_split_can_be_added_to_a_sweep_later(with_splits, tmp_path, options):
    options = {**options, "split": SplitChoice()}
    sweep(with_splits, [TINY], tmp_path / "s", splits=["one"], **options)
    messages = []
    outcome = sweep(with_splits, [TINY], tmp_path / "s", splits=["one", "two"], log=messages.append, **options)
    assert messages[0] == "2 trainings, 1 of them already done."
    assert outcome.comparison.rows[0].splits == ("one", "two")
    with pytest.raises(UserError, match="splits was stored, now None"):
        sweep(with_splits, [TINY], tmp_path / "s", **options)


def test_fit_rejects_missing_splits_and_splits_with_folds(with_splits, tmp_path):
    with pytest.raises(
        UserError, match=r"No stored split 'thre' in .*Did you mean 'three'\? Stored splits: one, three, two\."
    ):
        plan_sweep(with_splits, [TINY], tmp_path, splits=["one", "thre"])
    with pytest.raises(UserError, match="Folds and stored splits cannot be combined"):
        plan_sweep(with_splits, [TINY], tmp_path, splits=["one"], folds="subject")


def test_interrupted_sweep_resumes_the_interrupted_training(store, tmp_path, options, monkeypatch):
    from actionprep.training.loop.task import ClassifierTask

    step, seen = ClassifierTask.training_step, []

    def killed(self, batch, batch_idx):
        seen.append(batch_idx)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return step(self, batch, batch_idx)

    recipe = tiny_recipe(epochs=3, batch=3, checkpoint_minutes=1e-9)
    with monkeypatch.context() as patch:
        patch.setattr(ClassifierTask, "training_step", killed)
        with pytest.raises(KeyboardInterrupt):
            sweep(store, [recipe], tmp_path / "s", **options)
    outcome = sweep(store, [recipe], tmp_path / "s", **options)
    assert outcome.failures == ()
    assert [row["epoch"] for row in Run(outcome.jobs[0].folder).metrics] == [0, 1, 2]


def test_sweep_reports_failed_combinations_and_trains_others(store, tmp_path, options):
    bad = tiny_recipe(epochs=1, optimizer__learning_rate=1e30, optimizer__name="sgd", name="wild", schedule__warmup=0.0)
    outcome = sweep(store, [bad, TINY], tmp_path / "s", **options)
    [(job, reason)] = outcome.failures
    assert job.recipe.name == "wild"
    assert "The loss is NaN or infinite" in reason
    assert [row.name for row in outcome.comparison.rows] == ["tiny"]


@pytest.mark.slow
def test_sweep_with_two_processes_gives_the_same_runs(store, tmp_path, options):
    entry = sweep(store, [TINY], tmp_path / "one", **options)
    two = sweep(store, [TINY], tmp_path / "two", jobs=2, **options)
    for mine, other in zip(entry.jobs, two.jobs, strict=True):
        rows = [[{**row, "seconds": 0} for row in Run(job.folder).metrics] for job in (mine, other)]
        assert rows[0] == rows[1]


def test_sweep_reports_a_killed_process_with_a_remedy(monkeypatch):
    from concurrent.futures import ProcessPoolExecutor

    from actionprep.training.experiments.sweep import _outcome

    with ProcessPoolExecutor(1) as pool:
        outcome = _outcome(pool.submit(os.kill, pool.submit(os.getpid).result(), signal.SIGKILL))
    assert outcome == "its process was killed, possibly out of memory. Try fewer --jobs"


def test_a_folder_with_a_sweep_over_other_data_is_refused(store, tmp_path, options):
    (tmp_path / "s").mkdir()
    sweep(store, [TINY], tmp_path / "s", **options)
    assert json.loads((tmp_path / "s/sweep.json").read_text())["snippets"] == "default"
    with pytest.raises(UserError, match="contains a sweep over other data: snippets was default, now short"):
        sweep(store, [TINY], tmp_path / "s", snippets="short", **options)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/notes.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty and is not a sweep"):
        sweep(store, [TINY], tmp_path / "other", **options)


@pytest.mark.parametrize("text", ['{"store": "st', "", "[]"])
def test_a_damaged_plan_of_a_sweep_is_named(store, tmp_path, options, text):
    (tmp_path / "s").mkdir()
    (tmp_path / "s/sweep.json").write_text(text)
    with pytest.raises(UserError, match=r"sweep\.json is damaged: .*Choose another folder with --name"):
        sweep(store, [TINY], tmp_path / "s", **options)


def test_sweep_rejects_seeds_in_the_grid_or_changes(store, tmp_path):
    with pytest.raises(UserError, match=r"--grid seed=… has no effect in a sweep, .* Set the seeds there: --seeds 1 2"):
        plan_sweep(store, [TINY], tmp_path, grid={"seed": [1, 2]})
    with pytest.raises(UserError, match="--set seed=… has no effect in a sweep"):
        plan_sweep(store, [TINY], tmp_path, changes={"recipe.seed": 1})


def test_settings_without_values_are_refused(store, tmp_path):
    with pytest.raises(UserError, match=r"No values to try for 'batch'\. Give them as batch=value,value\."):
        plan_sweep(store, [TINY], tmp_path, grid={"batch": []})
    with pytest.raises(UserError, match="at least one recipe and one seed"):
        plan_sweep(store, [], tmp_path)


def test_a_sweep_takes_of_the_studys_changes_what_each_recipe_has(store, tmp_path):
    of_study = {"epochs": 2, "input.points": 64}
    jobs = plan_sweep(store, ["view-transformer", "i3d-small"], tmp_path, of_study=of_study, changes={"batch": 4})
    assert [(job.recipe.epochs, job.recipe.batch) for job in jobs] == [(2, 4), (2, 4)]
    assert jobs[0].recipe.input.points == 64


def test_sweep_resumes_after_its_study_was_moved(store, tmp_path, options):
    study = tmp_path / "before"
    shutil.copytree(store.path, study / "store")
    (study / "actionprep.toml").write_text("", encoding="utf-8")
    sweep(Store(study / "store"), [TINY], study / "runs/s", **options)
    study.rename(tmp_path / "after")
    messages: list[str] = []
    sweep(Store(tmp_path / "after/store"), [TINY], tmp_path / "after/runs/s", log=messages.append, **options)
    assert messages[0].endswith(" of them already done.")
    assert not messages[0].endswith(" 0 of them already done.")
