"""The number format that a device computes fast in is chosen for it, and kept in the run."""

import pytest
import torch
from training_fakes import make_store, tiny_recipe

from actionprep.training.experiments.folds import fit_folds
from actionprep.training.fit import fit
from actionprep.training.loop import precision
from actionprep.training.loop.precision import _cpu_has_bfloat16, has_bfloat16, with_precision
from actionprep.training.recipes import differences, find_recipe, recipe_names
from actionprep.training.run import Run
from actionprep.training.split_choice import SplitChoice

CPU = torch.device("cpu")
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
def test_the_kernel_says_whether_a_processor_has_instructions_for_bfloat16(tmp_path, about, has):
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
    recipe = with_precision(tiny_recipe(precision="auto", channels_last=True), CPU)
    assert (recipe.precision, recipe.channels_last) == result


def test_what_was_asked_for_stays(monkeypatch):
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: False)
    recipe = tiny_recipe(precision="bf16-mixed", channels_last=True)
    assert with_precision(recipe, CPU) is recipe


@pytest.mark.parametrize("has", [True, False])
def test_a_run_keeps_what_it_was_trained_in_and_goes_on_in_it(tmp_path, monkeypatch, has):
    store = make_store(tmp_path / "store", subjects=3)
    recipe = tiny_recipe(epochs=1, precision="auto", channels_last=True)
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: has)
    run = fit(store, recipe, tmp_path / "run", split=SPLIT, device="cpu", tensorboard=False)
    assert run.recipe.precision == ("bf16-mixed" if has else "32-true")
    # On a machine of the other kind, too.
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: not has)
    assert differences(run.recipe, recipe) == []
    assert fit(store, recipe, run.folder, split=SPLIT, device="cpu", resume=True) == Run(run.folder)


def test_folds_that_were_begun_on_another_machine_go_on(tmp_path, monkeypatch):
    store = make_store(tmp_path / "store", subjects=3)
    recipe = tiny_recipe(epochs=1, precision="auto")
    split = SplitChoice(val_share=0.0)
    for has in (True, False):
        monkeypatch.setattr(precision, "has_bfloat16", lambda device, has=has: has)
        result = fit_folds(store, recipe, tmp_path / "run", split=split, device="cpu", tensorboard=False, resume=True)
    assert {run.recipe.precision for run in result.runs} == {"bf16-mixed"}


def test_no_recipe_asks_for_bfloat16_where_it_may_be_slower():
    named = {name: find_recipe(name) for name in recipe_names()}
    assert {one.precision for one in named.values()} == {"auto", "32-true"}
    convolutions = {name for name in named if name.startswith(("i3d", "poseconv3d"))}
    assert {name for name, one in named.items() if one.channels_last} == convolutions
    assert all(named[name].precision == "auto" for name in convolutions)
