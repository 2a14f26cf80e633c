import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from frame_fakes import frame_recipe, make_changing_store
from training_fakes import make_store, tiny_recipe

from actionprep.datasets.split_choice import SplitChoice
from actionprep.datasets.store.zarr_store import Store
from actionprep.training.checkpoints import read_safely
from actionprep.training.fit import fit
from actionprep.training.recipes import Recipe
from actionprep.training.run import Run

SCRIPT = """
import sys
import torch
torch.set_num_threads(1)
from actionprep.training.fit import fit
from actionprep.datasets.split_choice import SplitChoice

if __name__ == "__main__":
    split = SplitChoice(train=("1", "2", "3"), test=("4",))
    fit(sys.argv[1], sys.argv[2], sys.argv[3], split=split, device="cpu", devices=2, tensorboard=False)
"""


def transformer_and_store(folder: Path) -> tuple[Recipe, Store]:
    # Nothing may depend on which samples share a process: no batch statistics, no dropout. And no Adam, which takes
    # full steps for the rounding error of zero gradients (the bias of a key).
    tables = tiny_recipe(epochs=2, refit=True, ema=0.9, batch=4, optimizer__name="sgd").to_tables()
    tables["recipe"]["model"] = "view-transformer-maaf"
    tables["sizes"] = {"heads": 2, "layers": 1, "hidden": 8, "dropout": 0.0}
    return tiny_recipe().from_tables(tables, where="test"), make_store(folder, subjects=4)


def lstm_and_store(folder: Path) -> tuple[Recipe, Store]:
    # Frame labels, which each process counts, and state from windows that may be in another process.
    recipe = frame_recipe(epochs=2, carry=True, ema=0.9, batch=4, optimizer__name="sgd", loss__class_weights="balanced")
    return recipe, make_changing_store(folder, recordings=5)


@pytest.mark.slow
@pytest.mark.parametrize("made", [transformer_and_store, lstm_and_store])
def test_two_processes_give_what_one_gives(tmp_path, made):
    recipe, store = made(tmp_path / "store")
    entry = fit(
        store, recipe, tmp_path / "one", split=SplitChoice(train=("1", "2", "3"), test=("4",)), tensorboard=False
    )
    (tmp_path / "recipe.toml").write_text(recipe.to_toml(), encoding="utf-8")
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, str(tmp_path / "script.py"), str(store.path), str(tmp_path / "recipe.toml")]
    done = subprocess.run(
        [*command, str(tmp_path / "two")],
        env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    two = Run.open(tmp_path / "two")
    assert two.is_complete
    for mine, theirs in zip(entry.metrics, two.metrics, strict=True):
        assert mine["train_loss"] == pytest.approx(theirs["train_loss"], rel=1e-4)
        for name in ("val_loss", "val_frame_accuracy", "val_frame_macro_f1"):
            assert mine.get(name, 0.0) == pytest.approx(theirs.get(name, 0.0), rel=1e-4)
    states = [read_safely(run.best)["state_dict"] for run in (entry, two)]
    for name, values in states[0].items():
        torch.testing.assert_close(values, states[1][name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("device", "devices", "together"), [("cuda", 2, True), ("cuda", 1, False), ("cpu", 2, False)])
def test_gpus_norm_the_whole_batch_together(tmp_path, monkeypatch, device, devices, together):
    asked = {}

    class Asked(Exception):
        pass

    def trainer(**options):
        asked.update(options)
        raise Asked

    monkeypatch.setattr("lightning.pytorch.Trainer", trainer)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    store = make_store(tmp_path / "store", subjects=3)
    split = SplitChoice(train=("1", "2"), test=("3",))
    with pytest.raises(Asked):
        fit(store, tiny_recipe(), tmp_path / "run", split=split, device=device, devices=devices, tensorboard=False)
    assert asked["sync_batchnorm"] is together
    assert asked["devices"] == devices
