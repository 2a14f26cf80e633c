import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from picture_fakes import make_picture_store, moving_square, tiny_pixels, write_lowres
from tiny_models import TINY
from training_fakes import MOTIONS, make_store, tiny_recipe
from typer.testing import CliRunner

from actionprep.cli.train import app
from actionprep.datasets.store import Store
from actionprep.errors import UserError
from actionprep.training import metrics
from actionprep.training.calibration import fit_temperature, scaled_probabilities
from actionprep.training.compare import compare
from actionprep.training.fit import fit
from actionprep.training.folds import fit_folds
from actionprep.training.fusion import fold_names, fuse, fuse_folds, mixture_weights, read_fusion
from actionprep.training.models.fusion import MidFusion
from actionprep.training.models.registry import model_card
from actionprep.training.parts import SplitChoice
from actionprep.training.predict import predict, predict_videos
from actionprep.training.recipes import find_recipe
from actionprep.training.run import Run
from actionprep.training.sweep import sweep
from actionprep.training.test import run_test
from actionprep.training.tested import saved_arrays

SPLIT = SplitChoice(train=("1", "2"), val=("3",), test=("4",))


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    """Tracks and small frames of the same recordings."""
    store = make_store(tmp_path_factory.mktemp("fusion") / "store", subjects=4)
    for number, key in enumerate(store.items("tracks")):
        label = key.recording.split("_")[1]
        write_lowres(store, key.recording, key.view, moving_square(MOTIONS[label], seed=number))
    return store


@pytest.fixture(scope="module")
def runs(store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    recipes = {"tracks": tiny_recipe(epochs=6, optimizer__learning_rate=5e-3), "lowres": tiny_pixels(epochs=1)}
    return [fit(store, one, folder / name, split=SPLIT, tensorboard=False) for name, one in recipes.items()]


def test_fused_probabilities_are_the_weighted_mean(runs, tmp_path):
    made = fuse(runs, tmp_path / "fused", weights=(3, 1))
    mean = 0.75 * saved_arrays(runs[0])["probabilities"] + 0.25 * saved_arrays(runs[1])["probabilities"]
    np.testing.assert_allclose(np.load(made.folder / "probabilities.npy"), mean, rtol=1e-5)
    assert made.weights == (0.75, 0.25)
    assert made.tested["num_samples"] == 3
    assert {"test.json", "per_class.csv", "samples.csv", "confusion.npy", "fusion.json"} <= {
        path.name for path in made.folder.iterdir()
    }
    found = read_fusion(made.folder)
    assert [run.folder.name for run in found.runs] == ["tracks", "lowres"]
    assert found.weights == (0.75, 0.25)
    assert found.temperatures == (1, 1)
    assert [row["weight"] for row in made.tested["alone"]] == [0.75, 0.25]


def test_a_fusion_predicts_the_weighted_mean_of_its_runs_on_the_same_windows(store, runs, tmp_path):
    made = fuse(runs, tmp_path / "fused", weights=(3, 1))
    options = {"recordings": ["s4_up_0"], "window_s": 0.6, "stride_s": 0.2, "device": "cpu"}
    [together] = predict(made.folder, store, **options)
    alone = [predict(run, store, **options)[0] for run in runs]
    np.testing.assert_allclose(together.onset, alone[0].onset)
    mean = 0.75 * alone[0].probabilities + 0.25 * alone[1].probabilities
    np.testing.assert_allclose(together.probabilities, mean, rtol=1e-6)
    assert len(together.frame_times)


def test_videos_are_handed_to_every_run_of_a_fusion_by_the_views_that_it_looks_at(store, runs, tmp_path):
    made = fuse(runs, tmp_path / "fused", weights="equal")
    video = tmp_path / "s4_up_0.mp4"
    video.write_bytes(b"")
    asked = []

    def build(checkpoint, videos):
        asked.append((checkpoint.recipe.product, videos))
        return store

    with pytest.raises(ValueError, match="too many values"):  # the store holds more than the one recording
        predict_videos(made.folder, {"0": video}, build, device="cpu")
    assert asked == [("tracks", {"0": video}), ("lowres", {"0": video})]


def test_a_fusion_whose_run_has_gone_says_which_and_what_to_do(store, runs, tmp_path):
    moved = tmp_path / "lowres"
    shutil.copytree(runs[1].folder, moved)
    made = fuse([runs[0].folder, moved], tmp_path / "fused", weights="equal")
    shutil.rmtree(moved)
    said = r"The fusion .*fused asks 2 runs, and 1 of them is no longer there: .*lowres\.\nPut it back, or fuse anew"
    with pytest.raises(UserError, match=said):
        predict(made.folder, store)
    with pytest.raises(UserError, match=said):
        compare([made.folder], measure=False)


@pytest.mark.parametrize(
    "text", ["{", '{"runs": ["a"]}', '{"runs": [], "weights": [1], "temperatures": [1], "why": ""}']
)
def test_a_damaged_fusion_says_to_fuse_anew(tmp_path, text):
    (tmp_path / "fusion.json").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"fusion\.json is damaged .*Fuse the runs anew: actiontrain fuse RUN RUN"):
        read_fusion(tmp_path)


def test_what_works_on_one_run_says_that_a_fusion_is_several(runs, tmp_path):
    made = fuse(runs, tmp_path / "fused", weights="equal")
    with pytest.raises(UserError, match=r"fused is a fusion of several runs, and this works on one run\. Name one of"):
        fuse([runs[0], made.folder], tmp_path / "again", weights="equal")
    done = CliRunner().invoke(app, ["export", str(made.folder)])
    assert done.exit_code == 2
    named = ", ".join(str(run.folder) for run in runs)
    assert f"is a fusion, and fusions are not exported: export its runs one by one, {named}, and average" in done.stderr


def test_a_fusion_has_a_report_with_its_runs_and_weights(runs, tmp_path):
    made = fuse(runs, tmp_path / "fused", weights=(3, 1))
    page = (made.folder / "report.html").read_text(encoding="utf-8")
    for text in (*(run.folder.name for run in runs), "0.750", "0.250", "Confusion", "Classes", "tested on"):
        assert f">{text}<" in page


def test_testing_a_fusion_shows_the_figures_that_it_has(runs, tmp_path):
    made = fuse(runs, tmp_path / "fused", weights="equal")
    done = CliRunner().invoke(app, ["test", str(made.folder)])
    assert done.exit_code == 0, done.output
    assert "is a fusion: it was tested when it was made" in " ".join(done.output.split())
    shown = json.loads(CliRunner().invoke(app, ["test", str(made.folder), "--json"]).stdout)
    assert shown["figures"] == pytest.approx(made.tested["figures"], nan_ok=True)
    other = CliRunner().invoke(app, ["test", str(made.folder), "--part", "val"])
    assert other.exit_code == 2
    assert "Test its runs one by one" in other.output


def test_weights_are_chosen_on_val(runs, tmp_path):
    told = []
    made = fuse(runs, tmp_path / "fused", tell=told.append)
    assert sum(made.weights) == pytest.approx(1)
    assert made.weights[0] > made.weights[1]
    assert told[-1] == "Weights: chosen on 3 val snippets"


def test_weights_of_val_are_of_probabilities_scaled_by_the_temperatures_of_the_tests(store, runs, tmp_path):
    copies = [Run(shutil.copytree(run.folder, tmp_path / run.folder.name)) for run in runs]
    for run, temperature in zip(copies, (0.25, 4.0), strict=True):
        tested = {**run_test(run, device="cpu", repeats=5)}
        assert tested["calibration"]["temperature"] > 0
        tested["calibration"]["temperature"] = temperature
        run.write_json("test.json", tested)
        run.write_array("calibrated.npy", metrics.softmax(saved_arrays(run)["logits"] / temperature))
    told = []
    made = fuse(copies, tmp_path / "fused", tell=told.append)
    assert told[0].endswith("tracks  at temperature 0.25")
    assert read_fusion(made.folder).temperatures == (0.25, 4.0)
    assert [row["temperature"] for row in made.tested["alone"]] == [0.25, 4.0]
    page = (made.folder / "report.html").read_text(encoding="utf-8")
    columns = re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", page[page.index(">Runs<") :])
    assert columns[2:4] == ["temperature", "weight"]
    assert columns[7:9] == ["0.25", f"{made.weights[0]:.3f}"]
    scaled = [saved_arrays(run)["calibrated"] for run in copies]
    mean = np.einsum("r,rsc->sc", made.weights, scaled)
    np.testing.assert_allclose(np.load(made.folder / "probabilities.npy"), mean, rtol=1e-5)

    options = {"recordings": ["s4_up_0"], "window_s": 0.6, "stride_s": 0.2, "device": "cpu"}
    [together] = predict(made.folder, store, **options)
    alone = [predict(run, store, **options)[0].probabilities for run in runs]
    # One variant a window: its softmax over a temperature is a power of that without, made to sum to one.
    powers = [one ** (1 / temperature) for one, temperature in zip(alone, (0.25, 4.0), strict=True)]
    mean = np.einsum("r,rwc->wc", made.weights, [one / one.sum(1, keepdims=True) for one in powers])
    np.testing.assert_allclose(together.probabilities, mean, rtol=1e-4)


def test_a_model_that_is_right_but_unsure_gets_its_weight_once_it_is_scaled(store, runs, tmp_path):
    unsure = 0.7 * np.eye(4)[[0, 1, 2, 3] * 5] + 0.3 / 4
    unsure[:2] = unsure[[1, 0]]
    sure = np.eye(4)[[0, 1, 2, 3] * 5] * 0.96 + 0.01
    sure[:6] = sure[[1, 2, 3, 0, 5, 4]]
    actual = np.array([0, 1, 2, 3] * 5)
    logits = [np.log(one)[None] for one in (unsure, sure)]
    scaled = [scaled_probabilities(one, fit_temperature(one, actual), several=False) for one in logits]
    assert mixture_weights(np.stack([unsure, sure]), actual)[0] < mixture_weights(np.stack(scaled), actual)[0]


@settings(deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_no_other_weights_make_the_labels_more_probable(seed, several):
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.ones(3), (2, 12))
    actual = rng.integers(0, 2, (12, 3)) if several else rng.integers(0, 3, 12)
    found = mixture_weights(probabilities, actual, prior=0.0, steps=3000)

    def likelihood(first):
        mean = first * probabilities[0] + (1 - first) * probabilities[1]
        right = np.where(actual, mean, 1 - mean).ravel() if several else mean[np.arange(12), actual]
        return np.log(right).sum()

    if several:
        # Each entry is a sample of its own: the mixture is of what each model gives to the entry.
        right = np.where(actual.astype(bool), probabilities, 1 - probabilities).reshape(2, -1)
        best = max(np.log(w * right[0] + (1 - w) * right[1]).sum() for w in np.linspace(0, 1, 101))
        assert np.log(found @ right).sum() >= best - 1e-2
    else:
        assert likelihood(found[0]) >= max(likelihood(w) for w in np.linspace(0, 1, 101)) - 1e-2


def test_few_val_snippets_do_not_make_one_model_all():
    probabilities = np.array([[[0.9, 0.1]] * 4, [[0.1, 0.9]] * 4])
    assert mixture_weights(probabilities, np.zeros(4, int))[1] > 0.15


def test_runs_that_do_not_belong_together_are_refused(store, runs, tmp_path):
    with pytest.raises(UserError, match=r"A fusion takes two runs or more"):
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
    with pytest.raises(UserError, match="takes one finite number a run, none below 0 and one above: 2 runs, and got 3"):
        fuse(runs, tmp_path / "d", weights=(1, 2, 3))


def test_another_table_of_snippets_is_refused(runs, tmp_path):
    foreign = make_picture_store(tmp_path / "store", subjects=5)
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
    assert [fold_names(one) for one in seeds] == [["fold-01", "fold-02"]] * 2
    document = fuse_folds(seeds, tmp_path / "fused", weights="equal")
    assert document["summary"]["num_samples"] == 12
    assert fold_names(tmp_path / "fused") == ["fold-01", "fold-02"]
    assert fold_names(seeds[0] / "fold-01") == []


def test_features_of_several_models_are_joined_and_trained(store, tmp_path):
    parts = []
    for name, recipe in (("tracks", tiny_recipe(test_variants=2)), ("lowres", tiny_pixels())):
        parts.append(tmp_path / f"{name}.toml")
        parts[-1].write_text(recipe.to_toml())
    recipe = find_recipe("fusion").changed(
        {
            "input.recipes": [str(part) for part in parts], "epochs": 16, "batch": 3, "refit": False, "test_variants": 2, "ema": "none",
            "optimizer.learning_rate": 5e-3, "sizes.dropout": 0.0, "sizes.part_dropout": 0.0, "loss.label_smoothing": 0.0,
        }
    )  # fmt: skip
    assert recipe.reads == "tracks+lowres"
    split = SplitChoice(train=("1", "2", "3"), test=("4",), val_share=0.0)
    run = fit(store, recipe, tmp_path / "run", split=split, tensorboard=False)
    losses = [row["train_loss"] for row in run.metrics]
    assert np.mean(losses[-4:]) < 0.85 * np.mean(losses[:4])
    assert run_test(run, repeats=20)["num_samples"] == 3
    assert set(run.facts["pipeline"]["stages"]) == {"tracks", "lowres"}
    [line] = predict(run, store, recordings=["s4_up_0"])
    assert line.probabilities.shape == (1, 3)


def test_a_fusion_says_which_product_is_missing(tmp_path):
    store = make_store(tmp_path / "store", subjects=4)
    with pytest.raises(UserError, match="This recipe reads 'lowres', and the store"):
        fit(store, "fusion", tmp_path / "run", split=SPLIT)


@pytest.mark.parametrize("name", sorted(TINY))
def test_any_model_may_be_a_part_of_a_fusion(name):
    sizes, shape = TINY[name]
    pictures = {"model": "i3d-small", "sizes": {"width_multiplier": 0.0625}}
    model = MidFusion(num_classes=3, parts=[{"model": name, "sizes": sizes}, pictures]).eval()
    array = {"pose": "keypoints", "tracks": "xy"}.get(model_card(name).product, "clip")
    logits = model(**{f"part0_{array}": torch.rand(shape), "part1_clip": torch.rand(2, 3, 4, 16, 16) * 255})
    assert logits.shape == (2, 3)
    assert bool(torch.isfinite(logits).all())


def test_a_part_must_have_a_head(monkeypatch):
    monkeypatch.setattr("actionprep.training.models.fusion.build_model", lambda name, **sizes: torch.nn.Identity())
    with pytest.raises(UserError, match="'i3d' cannot be a part of a mid fusion, because it has no head"):
        MidFusion(num_classes=3, parts=[{"model": "i3d", "sizes": {}}] * 2)


def moved(tmp_path, monkeypatch, store, *, into):
    """A study with a store, two runs and their fusion, moved elsewhere; its new folder."""
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
def test_a_study_that_is_moved_keeps_its_fusions_and_the_store_of_its_runs(store, tmp_path, monkeypatch, into):
    study = moved(tmp_path, monkeypatch, store, into=into)
    asked = read_fusion(study / into).runs
    assert [run.folder for run in asked] == [study / "runs/seed-0", study / "runs/seed-1"]
    assert predict(study / into, Store(study / "store"))
    assert run_test(study / "runs/seed-0", repeats=20)["num_samples"] == 3
    [row] = compare([study / into], repeats=20, seconds=0.01).rows
    assert row.cost is not None
    again = fuse([study / "runs/seed-0", study / "runs/seed-1"], study / "runs/again", weights="equal")
    assert [one["run"] for one in again.tested["alone"]] == ["../seed-0", "../seed-1"]


def test_what_a_fusion_asks_outside_of_its_study_keeps_its_whole_path(runs, tmp_path):
    study = tmp_path / "study"
    study.mkdir()
    (study / "actionprep.toml").write_text("", encoding="utf-8")
    fuse(runs, study / "fused", weights="equal")
    named = json.loads((study / "fused/fusion.json").read_text())["runs"]
    assert named == [str(run.folder.resolve()) for run in runs]


def test_a_run_without_what_val_weights_average_says_to_test_it_again(runs, tmp_path):
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
def test_weights_that_are_none_are_refused_before_anything_is_written(runs, tmp_path, weights):
    copies = [Path(shutil.copytree(run.folder, tmp_path / run.folder.name)) for run in runs]
    for copy in copies:
        (copy / "test.json").unlink(missing_ok=True)
    expected = (
        rf"'val', 'equal' or one number a run; got '{weights}'"
        if isinstance(weights, str)
        else r"2 runs, and got 2 number\(s\): "
    )
    with pytest.raises(UserError, match=expected):
        fuse(copies, tmp_path / "fused", weights=weights)
    assert not (tmp_path / "fused").exists()
    assert not any((copy / "test.json").exists() for copy in copies)


def test_the_command_refuses_weights_that_are_no_number(runs, tmp_path):
    names = [str(run.folder) for run in runs]
    done = CliRunner().invoke(app, ["fuse", *names, "--weights", "nan", "1", "--out", str(tmp_path / "fused")])
    assert done.exit_code == 2
    assert "and got 2 number(s): nan, 1." in " ".join(done.output.split())
    assert not (tmp_path / "fused").exists()
