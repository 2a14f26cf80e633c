import shutil
import sys

import numpy as np
import pytest
import torch
from metadata_reads import metadata_reads
from training_fakes import (
    MOTIONS,
    InterruptedRunError,
    make_store,
    table_of,
    tiny_recipe,
    write_snippets,
    write_tracks,
)

from actionprep.datasets.split_choice import SplitChoice
from actionprep.datasets.store.zarr_store import Store
from actionprep.errors import SetupError, UserError
from actionprep.training.checkpoints import load_checkpoint, read_safely
from actionprep.training.datasets import SnippetDataset, read_table
from actionprep.training.epoch_test import parse_epochs, run_epoch_tests
from actionprep.training.evaluation.result_files import saved_arrays
from actionprep.training.evaluation.scoring import score
from actionprep.training.fit import fit
from actionprep.training.loop.training_plan import TrainingPlan
from actionprep.training.run import Run
from actionprep.training.test import run_test

SPLIT = SplitChoice(train=("1", "2", "3"), test=("4",))
QUIET = {"tensorboard": False}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return make_store(tmp_path_factory.mktemp("fit") / "store", subjects=4, repeats=2)


@pytest.fixture(scope="module")
def run(store, tmp_path_factory) -> Run:
    recipe = tiny_recipe(epochs=12, batch=3, refit=True, ema=0.8, optimizer__learning_rate=0.005, test_variants=2)
    result = fit(store, recipe, tmp_path_factory.mktemp("fit") / "run", split=SPLIT)
    run_test(result, store, repeats=50)
    return result


def test_fit_opens_each_metadata_file_at_most_twice(store, tmp_path):
    recipe = tiny_recipe(epochs=1, refit=False)
    with metadata_reads(store.url) as reads:
        fit(Store(store.url), recipe, tmp_path / "run", split=SPLIT)
    items = [name for name in reads if name.startswith("tracks/") and name.count("/") == 3]
    assert len(items) == len(store.items("tracks"))
    assert max(reads.values()) <= 2, reads.most_common(3)


def test_it_learns_directions_of_motion(run):
    assert run.tested["metrics"]["accuracy"] == 1.0


def test_the_run_folder_holds_what_the_design_names(run):
    names = {path.name for path in run.folder.iterdir()}
    expected = "recipe.toml run.json split.csv metrics.csv best.ckpt last.ckpt validated.ckpt tensorboard report.html"
    tested = "predictions.npy actuals.npy logits.npy probabilities.npy confusion.npy per_class.csv samples.csv"
    assert names >= {*expected.split(), *tested.split(), "subjects.csv", "test.json"}
    facts = run.facts
    assert facts["state"] == {"phase": "refit", "complete": True}
    assert facts["labels"] == ["left", "right", "up"]
    assert {"store_digest", "seed", "versions", "pipeline", "split"} <= set(facts)
    assert facts["pipeline"]["stages"]["tracks"][0]["settings"]["tracker"] == "lk"


def test_saved_arrays_agree_with_each_other(run):
    arrays = saved_arrays(run)
    assert arrays["probabilities"].shape == (6, 3)
    np.testing.assert_allclose(arrays["probabilities"].sum(axis=1), 1, rtol=1e-5)
    assert np.array_equal(arrays["probabilities"].argmax(axis=1), arrays["predictions"])
    confusion = np.load(run.folder / "confusion.npy")
    assert confusion.sum() == 6
    assert np.trace(confusion) == (arrays["actuals"] == arrays["predictions"]).sum()


def test_the_temperature_comes_from_a_model_that_has_not_seen_val(run):
    result = run.tested["calibration"]
    assert result["from"] == "validated.ckpt on 6 val snippets"
    assert 0.05 <= result["temperature"] <= 20
    assert sum(entry["count"] for entry in result["bins"]) == 6
    calibrated = np.load(run.folder / "calibrated.npy")
    assert np.array_equal(calibrated.argmax(axis=1), np.load(run.folder / "predictions.npy"))
    assert "Calibration" in run.report.read_text()


def test_another_part_is_scored_into_its_own_folder(run, store):
    before = (run.folder / "test.json").read_text()
    result = run_test(run, store, part="val", repeats=20)
    assert result["part"] == "val"
    assert (run.folder / "test.json").read_text() == before
    assert len(np.load(run.folder / "val/predictions.npy")) == 6


def test_val_is_scored_with_the_weights_before_the_refit(run, store):
    result = run_test(run, store, part="val", repeats=20)
    assert (result["checkpoint"], result["trained_on"]) == ("validated.ckpt", False)
    data = SnippetDataset(
        store, read_table(store, run.facts["snippets"]), run.recipe.input, rows=run.facts["split"]["rows"]["val"]
    )
    expected = score(load_checkpoint(run.folder / "validated.ckpt"), data, variants=2)
    np.testing.assert_allclose(np.load(run.folder / "val/logits.npy"), expected.logits, rtol=1e-4, atol=1e-5)
    assert run_test(run, store, part="train", repeats=20)["trained_on"]


def test_both_phases_are_in_the_metrics_and_the_refit_sees_val_too(run):
    rows = run.metrics
    assert [row["phase"] for row in rows] == ["validate"] * 12 + ["refit"] * 12
    assert {"train_loss", "val_loss", "val_accuracy", "val_macro_f1", "learning_rate"} <= set(rows[0])
    assert "val_loss" not in rows[-1]
    assert read_safely(run.folder / "validated.ckpt")["actionprep"]["phase"] == "validate"
    assert read_safely(run.best)["actionprep"]["phase"] == "refit"


def test_testing_twice_gives_the_same_numbers(run, store):
    before = saved_arrays(run)
    run_test(run, store, repeats=50)
    after = saved_arrays(run)
    for name in before:
        assert np.array_equal(before[name], after[name])


def test_the_checkpoint_carries_what_prediction_needs(run):
    checkpoint = load_checkpoint(run.best)
    assert checkpoint.labels == ("left", "right", "up")
    assert checkpoint.views == ("0",)
    assert checkpoint.recipe == run.recipe
    assert not checkpoint.model.training


@pytest.mark.parametrize("killed_at", [2, 7, 11])
def test_resumed_run_equals_an_uninterrupted_run_exactly(store, tmp_path, killed_at, monkeypatch):
    recipe = tiny_recipe(epochs=4, ema=0.9, batch=5, checkpoint_minutes=1e-9, mixup=0.4, sizes__dropout=0.3)
    uninterrupted = fit(store, recipe, tmp_path / "whole", split=SPLIT, **QUIET)

    from actionprep.training.loop.task import ClassifierTask

    step, seen = ClassifierTask.training_step, []

    def killed(self, batch, batch_idx):
        seen.append(batch_idx)
        if len(seen) == killed_at:
            raise InterruptedRunError
        return step(self, batch, batch_idx)

    monkeypatch.setattr(ClassifierTask, "training_step", killed)
    with pytest.raises(InterruptedRunError):
        fit(store, recipe, tmp_path / "cut", split=SPLIT, **QUIET)
    monkeypatch.setattr(ClassifierTask, "training_step", step)
    resumed = fit(store, "auto", tmp_path / "cut", resume=True, **QUIET)

    assert resumed.is_complete
    entry, other = (read_safely(run.last)["state_dict"] for run in (uninterrupted, resumed))
    assert entry.keys() == other.keys()
    assert all(torch.equal(entry[name], other[name]) for name in entry)
    without_time = [[{**row, "seconds": 0} for row in run.metrics] for run in (uninterrupted, resumed)]
    assert without_time[0] == without_time[1]
    assert read_safely(uninterrupted.best)["epoch"] == read_safely(resumed.best)["epoch"]


def test_run_killed_between_phases_resumes_with_the_refit(store, tmp_path, monkeypatch):
    recipe = tiny_recipe(epochs=2, refit=True)
    uninterrupted = fit(store, recipe, tmp_path / "whole", split=SPLIT, **QUIET)

    from actionprep.training import fit as module

    phase, seen = module.train_phase, []

    def killed(*arguments, **options):
        seen.append(arguments[3])
        if arguments[3] == "refit":
            raise InterruptedRunError
        return phase(*arguments, **options)

    monkeypatch.setattr(module, "train_phase", killed)
    with pytest.raises(InterruptedRunError):
        fit(store, recipe, tmp_path / "cut", split=SPLIT, **QUIET)
    monkeypatch.setattr(module, "train_phase", phase)
    resumed = fit(store, recipe, tmp_path / "cut", split=SPLIT, resume=True, **QUIET)
    entry, other = (read_safely(run.best)["state_dict"] for run in (uninterrupted, resumed))
    assert all(torch.equal(entry[name], other[name]) for name in entry)


def test_equal_seeds_give_equal_runs_and_other_seeds_others(store, tmp_path):
    result = [
        fit(store, tiny_recipe(epochs=1, seed=seed), tmp_path / name, split=SPLIT, **QUIET).metrics[-1]["train_loss"]
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    assert result[0] == result[1] != result[2]


def test_patience_ends_a_run_that_no_longer_gets_better(store, tmp_path):
    recipe = tiny_recipe(epochs=30, patience=2, optimizer__learning_rate=1e-9)
    run = fit(store, recipe, tmp_path / "run", split=SPLIT, **QUIET)
    assert len(run.metrics) < 30
    assert run.is_complete


def test_best_epoch_has_the_best_monitored_metric(store, tmp_path):
    run = fit(store, tiny_recipe(epochs=5, monitor="val_loss"), tmp_path / "run", split=SPLIT, **QUIET)
    losses = [row["val_loss"] for row in run.metrics]
    assert read_safely(run.best)["epoch"] == int(np.argmin(losses))
    assert read_safely(run.last)["epoch"] == 4


def test_last_epoch_is_validated_and_the_best_epoch_too(store, tmp_path):
    logged = []
    recipe = tiny_recipe(epochs=5, validate_every=3)
    run = fit(store, recipe, tmp_path / "run", split=SPLIT, log=logged.append, **QUIET)
    validated = {row["epoch"]: row["val_loss"] for row in run.metrics if "val_loss" in row}
    assert list(validated) == [2, 4]
    best = min(validated, key=validated.get)
    assert read_safely(run.best)["epoch"] == best
    assert logged[-1].startswith("Validation: accuracy ")
    assert logged[-1].endswith(f"in epoch {best + 1}, the best of 2 validated epochs by loss.")


def test_short_training_is_validated_once(store, tmp_path):
    run = fit(store, tiny_recipe(epochs=2, validate_every=10), tmp_path / "run", split=SPLIT, **QUIET)
    assert ["val_loss" in row for row in run.metrics] == [False, True]
    assert read_safely(run.best)["epoch"] == 1


def test_accumulated_batches_leave_out_no_sample(store, tmp_path):
    run = fit(store, tiny_recipe(epochs=2, accumulate=3, batch=4), tmp_path / "run", split=SPLIT, **QUIET)
    # 12 or 18 training snippets in batches of 4: the last, smaller group is a step too
    batches = -(-len(run.facts["split"]["rows"]["train"]) // 4)
    assert read_safely(run.last)["global_step"] == 2 * -(-batches // 3)


def test_monitored_nan_ends_a_run_with_its_last_epoch(store, tmp_path, monkeypatch):
    def nothing(label, target, logits, *, multi_label):
        return {"accuracy": 0.5, "macro_f1": 0.5, "map": float("nan")}

    monkeypatch.setattr("actionprep.training.loop.task.evaluate", nothing)
    recipe = tiny_recipe(epochs=9, patience=3, monitor="val_map")
    run = fit(store, recipe, tmp_path / "run", split=SPLIT, **QUIET)
    assert [row["epoch"] for row in run.metrics] == [0, 1, 2]
    assert read_safely(run.best)["epoch"] == 2


@pytest.mark.parametrize("size", [3, 5])
def test_accumulated_batches_train_as_one_large_batch_of_them_does(store, tmp_path, size):
    tables = tiny_recipe(epochs=3, batch=size * 3, optimizer__name="sgd", optimizer__learning_rate=0.1).to_tables()
    tables["recipe"]["model"], tables["sizes"] = "track-lstm", {"hidden": 8, "layers": 1}
    recipe = tiny_recipe().from_tables(tables, where="test")
    rows = len(fit(store, recipe, tmp_path / "whole", split=SPLIT, **QUIET).facts["split"]["rows"]["train"])
    # The last step of an epoch has fewer batches, and the last batch has fewer samples.
    assert rows % (size * 3)
    fit(store, recipe.changed({"batch": size, "accumulate": 3}), tmp_path / "parts", split=SPLIT, **QUIET)
    entry, other = (read_safely(tmp_path / name / "last.ckpt")["state_dict"] for name in ("whole", "parts"))
    for name, values in entry.items():
        torch.testing.assert_close(values, other[name], atol=1e-6, rtol=1e-5)


def test_few_snippets_are_passed_over_until_there_are_enough_steps(store, tmp_path):
    logged = []
    recipe = tiny_recipe(epochs=1, min_steps=11, batch=6)
    run = fit(store, recipe, tmp_path / "run", split=SPLIT, log=logged.append, **QUIET)
    assert (
        f"Training {len(run.metrics)} epochs instead of 1, because there are few snippets and min_steps is 11 (--set "
        "min_steps=0 keeps the epochs of the recipe)"
    ) in logged
    steps = read_safely(run.last)["global_step"]
    assert 11 <= steps < 11 + -(-len(run.facts["split"]["rows"]["train"]) // 6)


def test_several_labels_are_trained_with_a_loss_for_each(tmp_path):
    store = make_store(tmp_path / "store", subjects=4)
    names = [key.recording for key in store.items("tracks")]
    labels = [name.split("_")[1] for name in names]
    target = np.array([[label == "left", label == "right", label != "up"] for label in labels], np.uint8)
    table = table_of(
        names,
        labels,
        [name[1] for name in names],
        seconds=1.2,
        target=target,
        settings={"multi_label": True},
        names=("left", "right", "up"),
    )
    write_snippets(store, table)
    recipe = tiny_recipe(epochs=20, optimizer__learning_rate=0.02, batch=4)
    run = fit(store, recipe, tmp_path / "run", split=SPLIT, **QUIET)
    result = run_test(run, store, repeats=20)
    assert np.load(run.folder / "predictions.npy").shape == (3, 3)
    assert np.load(run.folder / "confusion.npy").shape == (3, 2, 2)
    assert {"samples_f1", "macro_f1", "map", "exact_match"} <= set(result["metrics"])
    assert {"exact_match", "micro_f1", "samples_f1"} <= set(result["intervals"])
    assert set(result["thresholds"]) == {"left", "right", "up"}
    assert result["metrics_at_thresholds"].keys() == (result["metrics"].keys() - {"calibration_error"})
    assert "Thresholds" in run.report.read_text()
    assert result["metrics"]["map"] > 0.8


def test_several_views_give_a_table_of_their_subsets(tmp_path):
    store = make_store(tmp_path / "store", subjects=4, views=("0", "1"))
    run = fit(store, tiny_recipe(epochs=1), tmp_path / "run", split=SPLIT, **QUIET)
    result = run_test(run, store, repeats=20)
    assert [row["views"] for row in result["views"]] == ["0", "1", "0 1"]
    entry, other, both = (row["accuracy"] for row in result["views"])
    gain = (both - max(entry, other)) * 100
    comparison = "as much as" if abs(gain) < 0.05 else f"{abs(gain):.1f} points {'above' if gain > 0 else 'below'}"
    assert f"{comparison} the best single view" in run.report.read_text()


@pytest.mark.parametrize("model", ["view-transformer-maaf", "track-lstm"])
def test_published_track_models_train_on_the_same_input(store, tmp_path, model):
    sizes = {"view-transformer-maaf": {"heads": 2, "layers": 1, "hidden": 8}, "track-lstm": {"hidden": 8, "layers": 1}}
    tables = tiny_recipe(epochs=1).to_tables()
    tables["recipe"]["model"], tables["sizes"] = model, sizes[model]
    recipe = tiny_recipe().from_tables(tables, where="test")
    run = fit(store, recipe, tmp_path / "run", split=SPLIT, **QUIET)
    assert run_test(run, store, repeats=20)["num_samples"] == 6


def test_a_loss_that_is_no_number_stops_and_names_the_batch(store, tmp_path):
    recipe = tiny_recipe(optimizer__learning_rate=1e30, optimizer__name="sgd", schedule__warmup=0.0)
    with pytest.raises(
        UserError, match=r"The loss is NaN or infinite in epoch 1, batch \d, table rows \[.*\]: s\d_"
    ) as caught:
        fit(store, recipe, tmp_path / "run", split=SPLIT, **QUIET)
    assert "Lower optimizer.learning_rate" in str(caught.value)


def test_a_taken_folder_is_not_written_into(store, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"is not empty\. Name another one with --run, or resume the run in it"):
        fit(store, tiny_recipe(), tmp_path, split=SPLIT)


def test_a_changed_store_is_not_gone_on_with(store, tmp_path, run):
    copy = Store(tmp_path / "store", create=True)
    shutil.copytree(store.path, tmp_path / "store", dirs_exist_ok=True)
    folder = tmp_path / "run"
    shutil.copytree(run.folder, folder)
    Run(folder).change(state={"phase": "refit", "complete": False})
    table = table_of(["s1_left_0"], ["left"], ["1"], seconds=1.0)
    write_snippets(copy, table)
    with pytest.raises(UserError, match=r"has changed in the store .* since it started"):
        fit(copy, "auto", folder, resume=True)


def test_classes_in_another_order_are_refused(store, tmp_path, run):
    checkpoint = load_checkpoint(run.best)
    with pytest.raises(UserError, match="has the same classes in another order"):
        checkpoint.check_labels(("right", "left", "up"), where="snippets/default")
    with pytest.raises(UserError, match="has other classes: new down; missing up"):
        checkpoint.check_labels(("left", "right", "down"), where="snippets/default")


def test_an_empty_test_part_is_refused(store, tmp_path):
    run = fit(store, tiny_recipe(epochs=1), tmp_path / "run", split=SplitChoice(test_share=0.0), **QUIET)
    with pytest.raises(UserError, match=r"The split of .* has no test part"):
        run_test(run, store)


def test_a_model_of_another_product_is_refused_before_any_work(store, tmp_path):
    tables = tiny_recipe().to_tables()
    tables["recipe"]["model"], tables["sizes"] = "poseconv3d", {}
    with pytest.raises(UserError, match="The model 'poseconv3d' of the recipe 'tiny' reads heatmaps, not 'tracks'"):
        fit(store, tiny_recipe().from_tables(tables, where="test"), tmp_path / "run", split=SPLIT, **QUIET)


def refuse(model):
    raise UserError("These weights are of another model.")


@pytest.mark.parametrize(
    ("wrong", "weights", "message"),
    [
        ({}, refuse, "of another model"),
        ({"optimizer__freeze": ["backbone", "head"]}, None, r"optimizer\.freeze leaves no parameter to train"),
        ({"optimizer__freeze": ["backbnoe"]}, None, r"optimizer\.freeze names 'backbnoe'"),
    ],
)
def test_a_training_that_cannot_begin_leaves_its_folder_free(store, tmp_path, wrong, weights, message):
    logged = []
    with pytest.raises(UserError, match=message):
        fit(
            store, tiny_recipe(epochs=1, **wrong), tmp_path / "again", split=SPLIT, weights=weights, log=logged.append,
            **QUIET,
        )  # fmt: skip
    assert not (tmp_path / "again").exists()
    assert not any(entry.startswith("Run ") for entry in logged)
    assert fit(store, tiny_recipe(epochs=1), tmp_path / "again", split=SPLIT, **QUIET).is_complete


def test_a_fit_on_one_class_of_several_is_refused(store, tmp_path):
    names = read_table(store, "default").recordings
    split = SplitChoice(
        by="recording", train=tuple(entry for entry in names if entry.endswith("left_0")), val_share=0.0
    )
    with pytest.raises(UserError, match="the train part has only the class 'left'"):
        fit(store, tiny_recipe(epochs=1), tmp_path / "run", split=split, **QUIET)
    assert not (tmp_path / "run").exists()


def test_fit_without_the_wandb_package_makes_no_run(store, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(SetupError, match=r"Weights & Biases requires its package: pip install 'actionprep\[wandb\]'"):
        fit(store, tiny_recipe(epochs=1), tmp_path / "run", split=SPLIT, wandb=True, **QUIET)
    assert not (tmp_path / "run").exists()


def test_fit_resume_accepts_another_number_of_workers(store, tmp_path):
    recipe = tiny_recipe(epochs=2)

    def stop(report):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(store, recipe, tmp_path / "run", split=SPLIT, device="cpu", on_epoch=stop, **QUIET)
    other = recipe.changed({"workers": 3})
    resumed = fit(store, other, tmp_path / "run", split=SPLIT, device="cpu", resume=True, **QUIET)
    assert resumed.is_complete
    whole = fit(store, recipe, tmp_path / "whole", split=SPLIT, device="cpu", **QUIET)
    assert [row["val_loss"] for row in resumed.metrics] == pytest.approx([row["val_loss"] for row in whole.metrics])
    with pytest.raises(UserError, match="epochs is 2, not 3"):
        fit(store, recipe.changed({"epochs": 3}), tmp_path / "run", split=SPLIT, device="cpu", resume=True, **QUIET)


@pytest.mark.parametrize(
    ("changes", "action"),
    [
        ({}, "The recipe does not compensate for it, so rare classes may be missed: --set loss.class_weights=balanced"),
        ({"loss__class_weights": "balanced"}, "The recipe weights classes (loss.class_weights = balanced)"),
        ({"sampler": "balanced"}, "The recipe draws classes equally often (sampler = balanced)"),
    ],
)
def test_training_plan_reports_class_imbalance(tmp_path, changes, action):
    store = Store(tmp_path / "store", create=True)
    labels = ["left"] * 8 + ["right"] * 2
    names = [f"r{number}" for number in range(10)]
    for number, name in enumerate(names):
        write_tracks(store, name, "0", direction=MOTIONS[labels[number]], seed=number)
    write_snippets(store, table_of(names, labels, names, seconds=1.2, names=("left", "right")))
    split = SplitChoice(by="recording", train=tuple(names[:7] + names[8:]), test=("r7",), val_share=0.0)
    plan = TrainingPlan.make(store, tiny_recipe(**changes), snippets="default", split=split, views=None)
    [sentence] = [sentence for sentence in plan.sentences if "imbalanced" in sentence]
    assert sentence.startswith(f"Train is imbalanced: 7 snippets of left, 2 of right. {action}")
    balanced = SplitChoice(by="recording", train=("r0", "r1", "r2", "r8", "r9"), test=("r7",), val_share=0.0)
    even = TrainingPlan.make(store, tiny_recipe(), snippets="default", split=balanced, views=None)
    assert not any("imbalanced" in sentence for sentence in even.sentences)


def test_stop_below_ends_after_the_first_epoch_with_a_lower_loss(store, tmp_path):
    recipe = tiny_recipe(epochs=4, stop_below=1e6, refit=False)
    run = fit(store, recipe, tmp_path / "run", split=SPLIT, **QUIET)
    assert [row["epoch"] for row in run.metrics] == [0]
    assert run.is_complete
    never = fit(store, tiny_recipe(epochs=2, stop_below=1e-9, refit=False), tmp_path / "all", split=SPLIT, **QUIET)
    assert [row["epoch"] for row in never.metrics] == [0, 1]


def test_keep_epochs_keeps_checkpoints_that_can_be_tested(store, tmp_path):
    run = fit(store, tiny_recipe(epochs=3, refit=True, keep_epochs=True), tmp_path / "run", split=SPLIT, **QUIET)
    assert run.kept_epochs == [1, 2, 3]
    rows = run_epoch_tests(run, store, part="val")
    validated = [row["val_accuracy"] for row in run.metrics if row["phase"] == "validate"]
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert [row["accuracy"] for row in rows] == pytest.approx(validated)
    lines = (run.folder / "epochs/val.csv").read_text().splitlines()
    assert lines[0].startswith("epoch,accuracy")
    assert len(lines) == 4
    assert [row["epoch"] for row in run_epoch_tests(run, store, epochs=[3, 1])] == [1, 3]
    with pytest.raises(UserError, match=r"has no checkpoint of epoch 4\. Available epochs: 1 to 3\."):
        run_epoch_tests(run, store, epochs=range(1, 6))


def test_run_epoch_tests_needs_kept_epochs(store, tmp_path):
    run = fit(store, tiny_recipe(epochs=1, refit=False), tmp_path / "run", split=SPLIT, **QUIET)
    assert run.kept_epochs == []
    with pytest.raises(UserError, match=r"no checkpoints of single epochs\. Train with --keep-epochs"):
        run_epoch_tests(run, store)


@pytest.mark.parametrize(
    ("text", "expected"), [("all", [2, 3]), ("7", [7]), ("2-4", [2, 3, 4]), ("10-50:20", [10, 30, 50])]
)
def test_parse_epochs(text, expected):
    assert parse_epochs(text, [2, 3]) == expected


@pytest.mark.parametrize("text", ["", "0", "5-3", "1-", "a", "1-5:", "1,2"])
def test_parse_epochs_refuses_other_forms(text):
    with pytest.raises(UserError, match=r"--epochs expects all, an epoch, or a range such as 10-50 or 10-50:5"):
        parse_epochs(text, [1])


def test_tensorboard_has_the_recipe_as_hyperparameters(store, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = fit(store, tiny_recipe(epochs=1), tmp_path / "run", split=SPLIT)
    events = EventAccumulator(str(run.folder / "tensorboard/validate"))
    events.Reload()
    assert "_hparams_/session_start_info" in events.summary_metadata
    content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    assert b"optimizer.learning_rate" in content


def test_wandb_gets_project_entity_tags_and_recipe(store, tmp_path, monkeypatch):
    import lightning.pytorch as pl

    from actionprep.training.loop import callbacks
    from actionprep.training.run import Run
    from actionprep.training.train_settings import TrainSettings

    given = {}
    monkeypatch.setattr(callbacks, "check_wandb", lambda: None)
    monkeypatch.setattr(pl.loggers, "WandbLogger", lambda **options: given.update(options))
    settings = TrainSettings(wandb=True, wandb_project="gestures", wandb_tags=("a", "b"))
    recipe = tiny_recipe(epochs=3)
    callbacks.loggers(Run(tmp_path / "one"), recipe, "validate", tensorboard=False, wandb=settings.wandb_options)
    assert (given["project"], given["tags"], given["config"]["epochs"]) == ("gestures", ["a", "b"], 3)
    assert "entity" not in given
    assert TrainSettings(wandb=True).wandb_options is True
    assert TrainSettings(wandb_project="x").wandb_options is False
