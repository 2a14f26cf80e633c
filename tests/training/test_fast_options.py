"""Compiled, channels-last and bf16 training: options that change the speed, not the result."""

import functools

import pytest
import torch
from tiny_models import CLASSES, tiny
from training_fakes import make_store, tiny_recipe

from actionprep.datasets.split_choice import SplitChoice
from actionprep.errors import SetupError
from actionprep.training.checkpoints import read_safely
from actionprep.training.fit import fit
from actionprep.training.loop.make_task import channels_last
from actionprep.training.test import run_test

SPLIT = SplitChoice(train=("1", "2", "3"), test=("4",))
QUIET = {"tensorboard": False}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("fast") / "store", subjects=4)


@pytest.mark.filterwarnings("ignore")
def test_a_compiled_training_gives_the_checkpoint_of_a_plain_one(store, tmp_path, monkeypatch):
    # Tracing without code generation, which the model tests cover: names, averages, resuming and testing.
    torch._dynamo.reset()
    compiled = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", functools.partialmethod(compiled, backend="eager"))
    plain = fit(store, tiny_recipe(epochs=1, ema=0.9), tmp_path / "plain", split=SPLIT, **QUIET)
    run = fit(store, tiny_recipe(epochs=1, ema=0.9, compile=True), tmp_path / "compiled", split=SPLIT, **QUIET)
    entry, other = (read_safely(result.best)["state_dict"] for result in (plain, run))
    assert entry.keys() == other.keys()
    for name, values in entry.items():
        torch.testing.assert_close(values, other[name], rtol=1e-4, atol=1e-5)
    assert run_test(run, store, repeats=10)["num_samples"] == 3


def test_compile_option_without_a_compiler_raises_an_error(store, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(SetupError, match=r"requires a C\+\+ compiler .*none was found.* --set compile=false"):
        fit(store, tiny_recipe(compile=True), tmp_path / "run", split=SPLIT, **QUIET)


@pytest.mark.parametrize("name", ["i3d-small", "poseconv3d-small"])
def test_channels_last_changes_the_layout_and_not_the_numbers(name):
    model, x = tiny(name)
    other, _ = tiny(name)
    channels_last(other)
    weights = [w for w in other.parameters() if w.ndim == 5 and w.shape[1] > 1 and w.shape[2:].numel() > 1]
    assert weights
    assert all(w.is_contiguous(memory_format=torch.channels_last_3d) for w in weights)
    for entry in (model, other):
        entry.eval()
        entry(x).flatten(0, -2)[:, :CLASSES].square().sum().backward()
    torch.testing.assert_close(model(x), other(x), rtol=1e-4, atol=1e-5)
    for (key, mine), theirs in zip(model.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-3, atol=1e-4, msg=key)
    other.load_state_dict(model.state_dict())


@pytest.mark.parametrize("changes", [{"precision": "bf16-mixed"}, {"channels_last": True}])
def test_a_training_with_the_option_learns_what_one_without_learns(store, tmp_path, changes):
    recipe = tiny_recipe(epochs=15, batch=3, optimizer__learning_rate=0.01, **changes)
    run = fit(store, recipe, tmp_path / "run", split=SPLIT, **QUIET)
    # One of three is near the border between two classes; the others are clear.
    assert run_test(run, store, repeats=10)["metrics"]["accuracy"] > 0.5
    weights = read_safely(run.best)["state_dict"]
    assert all(values.dtype == torch.float32 for values in weights.values() if values.is_floating_point())
