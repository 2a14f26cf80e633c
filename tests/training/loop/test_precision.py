"""The precision is chosen for the device and recorded in the run."""

import os
import platform
import subprocess
import sys

import pytest
import torch
from torch import nn
from training_fakes import make_store, tiny_recipe

from actionprep.datasets.split_choice import SplitChoice
from actionprep.errors import UserError
from actionprep.training.experiments.folds import fit_folds
from actionprep.training.fit import fit
from actionprep.training.loop import precision
from actionprep.training.loop.precision import (
    _cpu_has_bfloat16,
    autocast_dtype,
    faults_of_layers,
    has_bfloat16,
    layer_fault,
    with_precision,
)
from actionprep.training.recipes import Recipe, differences, find_recipe, recipe_names
from actionprep.training.run import Run
from actionprep.training.sanity_checks import find_learning_rate

CPU = torch.device("cpu")
MODEL = nn.Linear(2, 2)
SPLIT = SplitChoice(train=("1", "2"), test=("3",))


@pytest.mark.parametrize(
    ("about", "has"),
    [
        ("flags\t\t: fpu avx512f avx512_bf16 sse4a\n", True),
        ("processor\t: 0\nflags\t\t: fpu amx_bf16 amx_tile\n", True),
        ("Features\t: fp asimd bf16 i8mm\n", True),
        ("flags\t\t: fpu avx2 avx512f avx512vl\n", False),
        ("model name\t: a bf16 processor\nflags\t\t: fpu\n", False),
    ],
)
def test_bfloat16_support_is_read_from_the_kernel(tmp_path, about, has):
    (tmp_path / "cpuinfo").write_text(about, encoding="utf-8")
    assert _cpu_has_bfloat16(tmp_path / "cpuinfo") is has


def test_what_cannot_be_known_is_not_assumed(tmp_path):
    assert not _cpu_has_bfloat16(tmp_path / "nothing")
    assert not has_bfloat16(torch.device("mps"))


@pytest.mark.parametrize(("capability", "has"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_gpus_have_it_from_ampere_on(monkeypatch, capability, has):
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: capability)
    monkeypatch.setattr("torch.version.hip", None)
    assert has_bfloat16(torch.device("cuda")) is has


@pytest.mark.parametrize(("has", "result"), [(True, ("bf16-mixed", True)), (False, ("32-true", False))])
def test_auto_is_bfloat16_with_its_layout_or_neither(monkeypatch, has, result):
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: has)
    recipe = with_precision(tiny_recipe(precision="auto", channels_last=True), CPU, MODEL)
    assert (recipe.precision, recipe.channels_last) == result


def test_what_was_asked_for_stays(monkeypatch):
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: False)
    recipe = tiny_recipe(precision="bf16-mixed", channels_last=True)
    assert with_precision(recipe, CPU, MODEL) is recipe


def lstm_fails(monkeypatch):
    """Make the trial of an LSTM fail as oneDNN does on a processor without AVX-512, and count the trials."""
    tried = []

    def fault(kind, device, dtype):
        tried.append((kind, device.type, dtype))
        return "could not create a primitive descriptor" if kind == "LSTM" else None

    monkeypatch.setattr(precision, "layer_fault", fault)
    return tried


LSTM_MESSAGE = (
    "precision bf16-mixed does not work here: the cpu device cannot compute LSTM layers in bfloat16, and the model "
    "'track-lstm' has them. PyTorch reports: could not create a primitive descriptor\n"
    "Train a new run with --set precision=32-true, which works on every device, or choose another one with --device."
)


def lstm_recipe(**changes):
    tables = tiny_recipe(epochs=1, **changes).to_tables()
    tables["recipe"]["model"], tables["sizes"] = "track-lstm", {"hidden": 8, "layers": 1}
    return Recipe.from_tables(tables, where="the tests' recipe")


def test_bf16_without_lstm_support_makes_no_run(tmp_path, monkeypatch):
    lstm_fails(monkeypatch)
    store = make_store(tmp_path / "store", subjects=3)
    recipe = lstm_recipe(precision="bf16-mixed")
    with pytest.raises(UserError) as caught:
        fit(store, recipe, tmp_path / "run", split=SPLIT, device="cpu", tensorboard=False)
    assert str(caught.value) == LSTM_MESSAGE
    assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match="--set precision=32-true"):
        find_learning_rate(store, recipe, split=SPLIT, device="cpu")


def test_resume_checks_precision_of_the_machine(tmp_path, monkeypatch):
    store = make_store(tmp_path / "store", subjects=3)
    recipe = lstm_recipe(precision="32-true")
    run = fit(store, recipe, tmp_path / "run", split=SPLIT, device="cpu", tensorboard=False)
    # The same run as if from a machine that computes LSTMs in bfloat16.
    (run.folder / "recipe.toml").write_text(recipe.changed({"precision": "bf16-mixed"}).to_toml(), encoding="utf-8")
    run.change(state={"phase": "validate", "complete": False})
    lstm_fails(monkeypatch)
    with pytest.raises(UserError) as caught:
        fit(store, "auto", run.folder, device="cpu", resume=True)
    assert str(caught.value) == LSTM_MESSAGE


def test_auto_precision_avoids_layers_that_fail(monkeypatch):
    lstm_fails(monkeypatch)
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: True)
    recipe = tiny_recipe(precision="auto")
    assert with_precision(recipe, CPU, MODEL).precision == "bf16-mixed"
    assert with_precision(recipe, CPU, nn.LSTM(2, 2)).precision == "32-true"


def test_each_kind_of_layer_is_tried_once(monkeypatch):
    tried = lstm_fails(monkeypatch)
    model = nn.ModuleList([nn.Linear(1, 1), nn.Linear(2, 2), nn.Conv3d(1, 1, 1), nn.LSTM(1, 1), nn.ReLU()])
    faults = faults_of_layers(model, CPU, torch.bfloat16)
    assert faults == {"LSTM": "could not create a primitive descriptor"}
    assert sorted(tried) == [(kind, "cpu", torch.bfloat16) for kind in ("Conv3d", "LSTM", "Linear")]


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN", "Linear", "Conv1d", "Conv2d", "Conv3d"])
def test_layer_fault_is_what_training_meets(kind):
    layer_fault.cache_clear()
    random = torch.random.get_rng_state()
    fault = layer_fault(kind, CPU, torch.bfloat16)
    assert torch.equal(torch.random.get_rng_state(), random)
    layer = getattr(nn, kind)(*((5, 3, 2) if kind.startswith("Conv") else (5, 3)))
    x = torch.rand(3, 5, *[4] * int(kind[4])) if kind.startswith("Conv") else torch.rand(3, 7, 5)
    problem = None
    try:
        with torch.autocast("cpu", torch.bfloat16):
            output = layer(x)
        (output[0] if isinstance(output, tuple) else output).float().mean().backward()
    except RuntimeError as error:
        problem = str(error)
    assert (fault is None) == (problem is None)
    assert (problem or "").startswith(fault or "")


ON_AVX2 = """
import torch
from actionprep.training.loop.precision import faults_of_layers
model = torch.nn.ModuleList([torch.nn.LSTM(2, 2), torch.nn.Linear(2, 2)])
print(faults_of_layers(model, torch.device("cpu"), torch.bfloat16))
"""


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="PyTorch was built without oneDNN")
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="ONEDNN_MAX_CPU_ISA is for x86 processors")
def test_layer_fault_on_a_processor_with_avx2_only():
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    done = subprocess.run([sys.executable, "-c", ON_AVX2], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("{'LSTM': 'could not create a primitive descriptor for the LSTM ")
    assert "Linear" not in done.stdout


@pytest.mark.parametrize(
    ("name", "device", "dtype"),
    [
        ("32-true", "cpu", None),
        ("bf16-mixed", "cpu", torch.bfloat16),
        ("bf16-mixed", "cuda", torch.bfloat16),
        ("16-mixed", "cpu", torch.bfloat16),
        ("16-mixed", "cuda", torch.float16),
    ],
)
def test_autocast_dtype_of_each_precision(name, device, dtype):
    assert autocast_dtype(name, torch.device(device)) is dtype


@pytest.mark.parametrize("has", [True, False])
def test_resumed_run_keeps_its_precision(tmp_path, monkeypatch, has):
    store = make_store(tmp_path / "store", subjects=3)
    recipe = tiny_recipe(epochs=1, precision="auto", channels_last=True)
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: has)
    run = fit(store, recipe, tmp_path / "run", split=SPLIT, device="cpu", tensorboard=False)
    assert run.recipe.precision == ("bf16-mixed" if has else "32-true")
    # The same on a machine of the other kind.
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: not has)
    assert differences(run.recipe, recipe) == []
    assert fit(store, recipe, run.folder, split=SPLIT, device="cpu", resume=True) == Run(run.folder)


def test_folds_from_another_machine_resume(tmp_path, monkeypatch):
    store = make_store(tmp_path / "store", subjects=3)
    recipe = tiny_recipe(epochs=1, precision="auto")
    split = SplitChoice(val_share=0.0)
    for has in (True, False):
        monkeypatch.setattr(precision, "has_bfloat16", lambda device, has=has: has)
        result = fit_folds(store, recipe, tmp_path / "run", split=split, device="cpu", tensorboard=False, resume=True)
    assert {run.recipe.precision for run in result.runs} == {"bf16-mixed"}


def test_no_recipe_asks_for_bfloat16_where_it_may_be_slower():
    named = {name: find_recipe(name) for name in recipe_names()}
    assert {entry.precision for entry in named.values()} == {"auto", "32-true"}
    convolutions = {name for name in named if name.startswith(("i3d", "poseconv3d"))}
    assert {name for name, entry in named.items() if entry.channels_last} == convolutions
    assert all(named[name].precision == "auto" for name in convolutions)
