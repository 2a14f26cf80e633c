import json

import numpy as np
import pytest
from training_fakes import InterruptedRunError, make_store, tiny_recipe

from actionprep.datasets.split_choice import SplitChoice
from actionprep.datasets.store.zarr_store import Store
from actionprep.training.experiments.folds import fit_folds, over_folds

QUIET = {"tensorboard": False}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return make_store(tmp_path_factory.mktemp("folds") / "store", subjects=4, repeats=2)


def test_leaving_one_subject_out_gives_one_table(store, tmp_path):
    recipe = tiny_recipe(epochs=1)
    result = fit_folds(store, recipe, tmp_path / "folds", by="subject", split=SplitChoice(val_share=0.0), **QUIET)
    assert [row["subject"] for row in result.rows] == ["1", "2", "3", "4"]
    assert result.summary["num_samples"] == 24
    over = result.summary["over_folds"]["accuracy"]
    assert over["mean"] == pytest.approx(np.mean([row["accuracy"] for row in result.rows]))
    assert (tmp_path / "folds" / "folds.csv").read_text().startswith("fold,subject,snippets,accuracy,macro_f1\n")
    assert json.loads((tmp_path / "folds" / "folds.json").read_text())["by"] == "subject"


def test_mean_over_folds_skips_folds_without_the_metric():
    array = {
        "actuals": np.array([0, 1]),
        "predictions": np.array([0, 1]),
        "recording": np.array(["a", "b"]),
        "probabilities": np.eye(2),
    }
    rows = [{"accuracy": 0.5, "macro_f1": value} for value in (0.2, float("nan"), 0.6, None)]
    over = over_folds([array] * 4, rows)["over_folds"]
    assert over["macro_f1"] == {
        "mean": pytest.approx(0.4),
        "std": pytest.approx(np.std([0.2, 0.6], ddof=1)),
        "folds": 2,
    }
    assert over["accuracy"] == {"mean": 0.5, "std": 0.0, "folds": 4}
    none = over_folds([array], [{"accuracy": 0.5, "macro_f1": None}])["over_folds"]["macro_f1"]
    assert none == {"mean": pytest.approx(np.nan, nan_ok=True), "std": pytest.approx(np.nan, nan_ok=True), "folds": 0}


def test_interrupted_folds_resume(store, tmp_path, monkeypatch):
    from actionprep.training import fit as module

    recipe, split = tiny_recipe(epochs=1), SplitChoice(val_share=0.0)
    phase, seen = module.train_phase, []

    def killed(*arguments, **options):
        seen.append(arguments[0].folder.name)
        if len(seen) == 3:
            raise InterruptedRunError
        return phase(*arguments, **options)

    monkeypatch.setattr(module, "train_phase", killed)
    with pytest.raises(InterruptedRunError):
        fit_folds(store, recipe, tmp_path / "folds", split=split, **QUIET)
    result = fit_folds(store, recipe, tmp_path / "folds", split=split, resume=True, **QUIET)
    assert len(result.runs) == 4
    assert seen == ["fold-01", "fold-02", "fold-03", "fold-03", "fold-04"]
