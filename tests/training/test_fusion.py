"""Late fusion: pooling of trained runs."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from frame_store_fakes import make_frame_store, make_tracks_and_lowres, tiny_pixels
from training_fakes import make_store, tiny_recipe, write_split
from typer.testing import CliRunner

from actionprep.cli.train import app
from actionprep.datasets.split_choice import SplitChoice
from actionprep.datasets.store.zarr_store import Store
from actionprep.errors import UserError
from actionprep.training.evaluation import metrics
from actionprep.training.evaluation.result_files import saved_arrays
from actionprep.training.experiments.compare import compare
from actionprep.training.experiments.folds import fit_folds
from actionprep.training.experiments.sweep import sweep
from actionprep.training.fit import fit
from actionprep.training.fusion import fold_names, fuse, fuse_folds, read_fusion
from actionprep.training.predict import predict, predict_with_built_store
from actionprep.training.run import Run
from actionprep.training.test import run_test

runner = CliRunner()
SPLIT = SplitChoice(train=("1", "2"), val=("3",), test=("4",))


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    """Tracks and small frames of the same recordings."""
    return make_tracks_and_lowres(tmp_path_factory.mktemp("fusion") / "store")


@pytest.fixture(scope="module")
def runs(store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    recipes = {"tracks": tiny_recipe(epochs=6, optimizer__learning_rate=5e-3), "lowres": tiny_pixels(epochs=1)}
    return [fit(store, entry, folder / name, split=SPLIT, tensorboard=False) for name, entry in recipes.items()]


def log_pool(one, other, weight):
    """Return the normalized product of both, each to the power of its weight."""
    product = np.asarray(one, np.float64) ** weight * np.asarray(other, np.float64) ** (1 - weight)
    return product / product.sum(axis=-1, keepdims=True)


def test_fused_probabilities_are_the_weighted_logarithmic_pool(runs, tmp_path):
    made = fuse(runs, tmp_path / "fused", weights=(3, 1))
    together = log_pool(*(saved_arrays(run)["probabilities"] for run in runs), 0.75)
    np.testing.assert_allclose(np.load(made.folder / "probabilities.npy"), together, rtol=1e-5)
    assert made.weights == (0.75, 0.25)
    assert made.tested["num_samples"] == 3
    assert {"test.json", "per_class.csv", "samples.csv", "confusion.npy", "fusion.json"} <= {
        path.name for path in made.folder.iterdir()
    }
    result = read_fusion(made.folder)
    assert [run.folder.name for run in result.runs] == ["tracks", "lowres"]
    assert result.weights == (0.75, 0.25)
    assert result.temperatures == (1, 1)
    assert [row["weight"] for row in made.tested["alone"]] == [0.75, 0.25]


@pytest.mark.parametrize("earlier", [False, True])
def test_fusion_predicts_the_pool_of_its_runs(store, runs, tmp_path, earlier):
    made = fuse(runs, tmp_path / "fused", weights=(3, 1))
    if earlier:
        document = json.loads((made.folder / "fusion.json").read_text())
        assert document.pop("pool") == "log"
        (made.folder / "fusion.json").write_text(json.dumps(document))
    options = {"recordings": ["s4_up_0"], "window_s": 0.6, "stride_s": 0.2, "device": "cpu"}
    [together] = predict(made.folder, store, **options)
    alone = [predict(run, store, **options)[0] for run in runs]
    np.testing.assert_allclose(together.onset, alone[0].onset)
    entry, other = (line.probabilities for line in alone)
    expected = 0.75 * entry + 0.25 * other if earlier else log_pool(entry, other, 0.75)
    np.testing.assert_allclose(together.probabilities, expected, rtol=1e-5)
    assert len(together.frame_times)


def test_predict_passes_videos_to_fused_runs_by_view(store, runs, tmp_path):
    made = fuse(runs, tmp_path / "fused", weights="equal")
    video = tmp_path / "s4_up_0.mp4"
    video.write_bytes(b"")
    asked = []

    def build(checkpoint, videos):
        asked.append((checkpoint.recipe.product, videos))
        return store

    with pytest.raises(ValueError, match="too many values"):  # the store has more recordings than this one
        predict_with_built_store(made.folder, {"0": video}, build, device="cpu")
    assert asked == [("tracks", {"0": video}), ("lowres", {"0": video})]


def test_fusion_names_a_missing_run_and_a_remedy(store, runs, tmp_path):
    moved = tmp_path / "lowres"
    shutil.copytree(runs[1].folder, moved)
    made = fuse([runs[0].folder, moved], tmp_path / "fused", weights="equal")
    shutil.rmtree(moved)
    message = r"The fusion .*fused pools 2 runs, but 1 of them is missing: .*lowres\.\nRestore it, or fuse the"
    with pytest.raises(UserError, match=message):
        predict(made.folder, store)
    with pytest.raises(UserError, match=message):
        compare([made.folder], measure=False)


@pytest.mark.parametrize(
    "text", ["{", '{"runs": ["a"]}', '{"runs": [], "weights": [1], "temperatures": [1], "why": ""}']
)
def test_damaged_fusion_names_the_fuse_command(tmp_path, text):
    (tmp_path / "fusion.json").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"fusion\.json is damaged .*Fuse the runs again: actiontrain fuse RUN RUN"):
        read_fusion(tmp_path)


def test_single_run_commands_reject_a_fusion(runs, tmp_path):
    made = fuse(runs, tmp_path / "fused", weights="equal")
    with pytest.raises(
        UserError, match=r"fused is a fusion of several runs, but this command needs a single run\. Name one of"
    ):
        fuse([runs[0], made.folder], tmp_path / "again", weights="equal")
    done = CliRunner().invoke(app, ["export", str(made.folder)])
    assert done.exit_code == 2
    named = ", ".join(f"{run.folder} (temperature 1, weight 0.5)" for run in runs)
    assert f"is a fusion. Fusions cannot be exported. Export each of its runs, {named}, and pool" in done.stderr
    assert (
        "p = softmax(logits / temperature), or the sigmoid for multi-label models, at least 1e-6; combined, the product of p^weight"
        in done.stderr
    )
    assert f"{made.folder}/fusion.json has all digits" in done.stderr
    live = CliRunner().invoke(app, ["predict", "--live", "0", "--run", str(made.folder)])
    assert live.exit_code == 2
    assert f"--live needs a single run, but {made.folder} is a fusion. Name one of its runs" in live.stderr


def test_a_fusion_has_a_report_with_its_runs_and_weights(runs, tmp_path):
    made = fuse(runs, tmp_path / "fused", weights=(3, 1))
    page = (made.folder / "report.html").read_text(encoding="utf-8")
    for text in (*(run.folder.name for run in runs), "0.750", "0.250", "Confusion", "Classes", "tested on"):
        assert f">{text}<" in page


def test_test_command_shows_the_metrics_of_a_fusion(runs, tmp_path):
    made = fuse(runs, tmp_path / "fused", weights="equal")
    done = CliRunner().invoke(app, ["test", str(made.folder)])
    assert done.exit_code == 0, done.output
    assert "is a fusion. These metrics are from its creation" in " ".join(done.output.split())
    shown = json.loads(CliRunner().invoke(app, ["test", str(made.folder), "--json"]).stdout)
    assert shown["metrics"] == pytest.approx(made.tested["metrics"], nan_ok=True)
    other = CliRunner().invoke(app, ["test", str(made.folder), "--part", "val"])
    assert other.exit_code == 2
    assert "test its runs one by one" in other.output


def test_weights_are_chosen_on_val(runs, tmp_path):
    logged = []
    made = fuse(runs, tmp_path / "fused", log=logged.append)
    assert sum(made.weights) == pytest.approx(1)
    assert made.weights[0] > made.weights[1]
    assert logged[-1] == "Weights: chosen on 3 val snippets"


def test_val_weights_use_probabilities_scaled_by_temperatures(store, runs, tmp_path):
    copies = [Run(shutil.copytree(run.folder, tmp_path / run.folder.name)) for run in runs]
    for run, temperature in zip(copies, (0.25, 4.0), strict=True):
        tested = {**run_test(run, device="cpu", repeats=5)}
        assert tested["calibration"]["temperature"] > 0
        tested["calibration"]["temperature"] = temperature
        run.write_json("test.json", tested)
        run.write_array("calibrated.npy", metrics.softmax(saved_arrays(run)["logits"] / temperature))
    logged = []
    made = fuse(copies, tmp_path / "fused", log=logged.append)
    assert logged[0].endswith("tracks  at temperature 0.25")
    assert read_fusion(made.folder).temperatures == (0.25, 4.0)
    assert [row["temperature"] for row in made.tested["alone"]] == [0.25, 4.0]
    page = (made.folder / "report.html").read_text(encoding="utf-8")
    columns = re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", page[page.index(">Runs<") :])
    assert columns[2:4] == ["temperature", "weight"]
    assert columns[7:9] == ["0.25", f"{made.weights[0]:.3f}"]
    together = log_pool(*(saved_arrays(run)["calibrated"] for run in copies), made.weights[0])
    np.testing.assert_allclose(np.load(made.folder / "probabilities.npy"), together, rtol=1e-4, atol=1e-6)

    options = {"recordings": ["s4_up_0"], "window_s": 0.6, "stride_s": 0.2, "device": "cpu"}
    [together] = predict(made.folder, store, **options)
    alone = [predict(run, store, **options)[0].probabilities for run in runs]
    # One variant per window: its softmax at a temperature is the normalized power of the plain softmax.
    powers = [power ** (1 / temperature) for power, temperature in zip(alone, (0.25, 4.0), strict=True)]
    expected = log_pool(*(power / power.sum(1, keepdims=True) for power in powers), made.weights[0])
    np.testing.assert_allclose(together.probabilities, expected, rtol=1e-3, atol=1e-6)


def test_runs_that_do_not_belong_together_are_refused(store, runs, tmp_path):
    with pytest.raises(UserError, match=r"A fusion needs at least two runs"):
        fuse(runs[:1], tmp_path / "a")
    other = fit(
        store,
        tiny_pixels(epochs=1),
        tmp_path / "other",
        split=SplitChoice(train=("1", "4"), test=("2",)),
        tensorboard=False,
    )
    with pytest.raises(UserError, match=r"cannot be fused, because they have different test parts: give both"):
        fuse([runs[0], other], tmp_path / "b")
    without = [
        fit(store, tiny_pixels(epochs=1, seed=seed), tmp_path / f"no-val-{seed}",
            split=SplitChoice(train=("1", "2"), test=("4",), val_share=0.0), tensorboard=False)
        for seed in (0, 1)
    ]  # fmt: skip
    with pytest.raises(UserError, match=r"these runs have no val part\. Train them with the same one"):
        fuse(without, tmp_path / "c")
    assert fuse(without, tmp_path / "c", weights="equal").weights == (0.5, 0.5)
    with pytest.raises(
        UserError, match="needs one finite number per run, none below 0 and at least one above 0: 2 runs, got 3"
    ):
        fuse(runs, tmp_path / "d", weights=(1, 2, 3))


def test_another_table_of_snippets_is_refused(runs, tmp_path):
    foreign = make_frame_store(tmp_path / "store", subjects=5)
    run = fit(foreign, tiny_pixels(epochs=1), tmp_path / "run", split=SPLIT, tensorboard=False)
    with pytest.raises(UserError, match="different snippets: snippets/default and snippets/default are not the same"):
        fuse([runs[0], run], tmp_path / "fused")


def test_cross_validations_are_fused_fold_by_fold(store, tmp_path):
    folders = []
    for seed in (0, 1):
        folders.append(tmp_path / f"folds-{seed}")
        fit_folds(
            store,
            tiny_pixels(epochs=1, seed=seed),
            folders[-1],
            num_folds=2,
            split=SplitChoice(val_share=0.0),
            tensorboard=False,
        )
    document = fuse_folds(folders, tmp_path / "fused", weights="equal")
    assert document["summary"]["num_samples"] == 12
    assert [row["weights"] for row in document["folds"]] == ["0.500 0.500"] * 2
    assert json.loads((tmp_path / "fused" / "folds.json").read_text())["runs"] == [f"../{one.name}" for one in folders]
    with pytest.raises(UserError, match="these have different folds"):
        fuse_folds([folders[0], tmp_path / "fused" / "fold-01"], tmp_path / "again")


def test_runs_of_sweeps_are_fused_fold_by_fold_too(store, tmp_path):
    made = sweep(
        store, [tiny_pixels(epochs=1)], tmp_path / "sweep", grid={"batch": [2, 3]}, folds="subject", num_folds=2,
        split=SplitChoice(val_share=0.0), measure=False,
    )  # fmt: skip
    seeds = sorted({job.folder.parent for job in made.jobs})
    assert [fold_names(entry) for entry in seeds] == [["fold-01", "fold-02"]] * 2
    document = fuse_folds(seeds, tmp_path / "fused", weights="equal")
    assert document["summary"]["num_samples"] == 12
    assert fold_names(tmp_path / "fused") == ["fold-01", "fold-02"]
    assert fold_names(seeds[0] / "fold-01") == []


@pytest.fixture(scope="module")
def over_splits(tmp_path_factory):
    """Run a sweep over three stored splits, two with the same test snippets. Return the folders of its two seeds."""
    folder = tmp_path_factory.mktemp("splits")
    store = make_store(folder / "store", subjects=4)
    subjects = {"again": "1", "one": "1", "two": "2"}
    for name, subject in subjects.items():
        write_split(store, name, tested=subject)
    recipe = tiny_recipe(epochs=2)
    made = sweep(store, [recipe], folder / "runs/sweep", seeds=(0, 1), splits=list(subjects), measure=False)
    assert made.failures == ()
    return sorted({job.folder.parent for job in made.jobs})


def test_fusion_over_stored_splits_averages_the_metric(over_splits, tmp_path):
    logged = []
    document = fuse_folds(over_splits, tmp_path / "fused", weights="equal", log=logged.append)
    assert [entry for entry in logged if entry.startswith("Split")] == [
        "Split again (1 of 3)", "Split one (2 of 3)", "Split two (3 of 3)",
    ]  # fmt: skip
    assert [(row["split"], row["snippets"]) for row in document["folds"]] == [("again", 3), ("one", 3), ("two", 3)]
    summary = document["summary"]
    assert summary["num_samples"] == 6
    assert "over_folds" not in summary
    for name in ("accuracy", "macro_f1"):
        mean = np.mean([row[name] for row in document["folds"]])
        assert summary["over_splits"][name]["mean"] == pytest.approx(mean)
    [row] = compare([tmp_path / "fused"], measure=False).rows
    assert summary["accuracy"] == pytest.approx(row.accuracy.as_json())
    assert summary["macro_f1"] == pytest.approx(row.macro_f1.value)
    assert row.snippets == 6
    assert json.loads((tmp_path / "fused/folds.json").read_text())["summary"] == summary
    assert (tmp_path / "fused/folds.csv").read_text().startswith("split,snippets,accuracy,")


def test_fusion_over_splits_prints_names_files_and_the_next_step(over_splits, tmp_path):
    words = ["fuse", *map(str, over_splits), "--weights", "equal", "--out", str(tmp_path / "fused")]
    done = runner.invoke(app, words, env={"COLUMNS": "100"})
    assert done.exit_code == 0, done.output
    lines = [line.split() for line in done.output.splitlines()]
    assert {"again", "one", "two"} <= {line[0] for line in lines if line}
    assert "Mean over 3 splits, 6 test snippets" in done.output
    assert "Together" not in done.output
    assert (
        f"Wrote {tmp_path / 'fused/folds.csv'}, folds.json, and report.html in split-again … split-two" in done.output
    )
    compared = " ".join(map(str, [*over_splits, tmp_path / "fused"]))
    assert f"next  actiontrain compare {compared}   compares the fusion with its runs" in done.output
    with pytest.raises(
        UserError, match=r"contains one run per fold or stored split, .*Name one of them, such as .*split-again"
    ):
        Run.open(tmp_path / "fused")


def moved(tmp_path, monkeypatch, store, *, into):
    """Move a study with a store, two runs and their fusion. Return its new folder."""
    study = tmp_path / "before"
    study.mkdir()
    (study / "actionprep.toml").write_text("", encoding="utf-8")
    shutil.copytree(store.path, study / "store")
    own = Store(study / "store")
    made = [
        fit(own, tiny_recipe(epochs=1, seed=seed), study / f"runs/seed-{seed}", split=SPLIT, tensorboard=False)
        for seed in (0, 1)
    ]
    monkeypatch.chdir(study)
    fuse(["runs/seed-0", "runs/seed-1"], into, weights="equal")
    monkeypatch.chdir(tmp_path)
    study.rename(tmp_path / "after")
    assert len(made) == 2
    return tmp_path / "after"


@pytest.mark.parametrize("into", ["runs/fused", "elsewhere/deep/fused"])
def test_moved_study_keeps_its_fusions_and_stores(store, tmp_path, monkeypatch, into):
    study = moved(tmp_path, monkeypatch, store, into=into)
    asked = read_fusion(study / into).runs
    assert [run.folder for run in asked] == [study / "runs/seed-0", study / "runs/seed-1"]
    assert predict(study / into, Store(study / "store"))
    assert run_test(study / "runs/seed-0", repeats=20)["num_samples"] == 3
    [row] = compare([study / into], repeats=20, seconds=0.01).rows
    assert row.cost is not None
    again = fuse([study / "runs/seed-0", study / "runs/seed-1"], study / "runs/again", weights="equal")
    assert [entry["run"] for entry in again.tested["alone"]] == ["../seed-0", "../seed-1"]


def test_fusion_records_runs_outside_its_study_as_absolute_paths(runs, tmp_path):
    study = tmp_path / "study"
    study.mkdir()
    (study / "actionprep.toml").write_text("", encoding="utf-8")
    fuse(runs, study / "fused", weights="equal")
    named = json.loads((study / "fused/fusion.json").read_text())["runs"]
    assert named == [str(run.folder.resolve()) for run in runs]


def test_fusion_names_the_test_command_for_missing_val_files(runs, tmp_path):
    damaged = tmp_path / "damaged"
    shutil.copytree(runs[1].folder, damaged)
    run_test(damaged, repeats=20)
    (damaged / "calibrated.npy").unlink()
    with pytest.raises(UserError, match=r"calibrated\.npy is missing\. Test it again: actiontrain test .*damaged"):
        fuse([runs[0], damaged], tmp_path / "fused")
    assert not (tmp_path / "fused").exists()
    for text in ("{}", "[]", "{"):
        (damaged / "test.json").write_text(text)
        with pytest.raises(UserError, match=r"test\.json is damaged: .* Test it again: actiontrain test .*damaged"):
            fuse([runs[0], damaged], tmp_path / "fused")
    assert run_test(damaged, repeats=20)["num_samples"] == 3
    assert fuse([runs[0], damaged], tmp_path / "fused").tested["num_samples"] == 3


@pytest.mark.parametrize("weights", [(np.nan, 1), (1, np.inf), (1e308, 1e308), (0, 0), (-1, 2), "Equal", "0.5"])
def test_fuse_rejects_invalid_weights_before_writing(runs, tmp_path, weights):
    copies = [Path(shutil.copytree(run.folder, tmp_path / run.folder.name)) for run in runs]
    for copy in copies:
        (copy / "test.json").unlink(missing_ok=True)
    expected = (
        rf"'val', 'equal' or one number per run, got '{weights}'"
        if isinstance(weights, str)
        else r"2 runs, got 2 numbers: "
    )
    with pytest.raises(UserError, match=expected):
        fuse(copies, tmp_path / "fused", weights=weights)
    assert not (tmp_path / "fused").exists()
    assert not any((copy / "test.json").exists() for copy in copies)


def test_the_command_refuses_weights_that_are_no_number(runs, tmp_path):
    names = [str(run.folder) for run in runs]
    done = CliRunner().invoke(app, ["fuse", *names, "--weights", "nan", "1", "--out", str(tmp_path / "fused")])
    assert done.exit_code == 2
    assert "got 2 numbers: nan, 1." in " ".join(done.output.split())
    assert not (tmp_path / "fused").exists()
