"""Reading weight files without executing code, and messages for files that cannot be read."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
from tiny_models import tiny
from weight_fakes import official_timesformer, saved, shuffled

from actionprep.errors import UserError
from actionprep.training.models.published.load import load_checkpoint, published_state


@pytest.mark.parametrize("wrap", ["bare", "model", "state_dict", "module."])
def test_wrappers_of_state_dicts_are_removed(tmp_path: Path, wrap: str):
    state = official_timesformer()
    content = {
        "bare": state,
        "model": {"model": state},
        "state_dict": {"state_dict": state},
        "module.": {f"module.{k}": v for k, v in state.items()},
    }[wrap]
    assert load_checkpoint(tiny("timesformer")[0], saved(tmp_path, content), echo=None).complete


def test_folder_and_safetensors_are_read(tmp_path: Path):
    safetensors = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")
    model, _ = tiny("videomae")
    state = published_state(shuffled(model), family="videomae-transformers")
    safetensors.save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "model.safetensors")
    other, _ = tiny("videomae")
    assert load_checkpoint(other, tmp_path, echo=None).complete
    (tmp_path / "broken.safetensors").write_bytes(b"not this")
    with pytest.raises(UserError, match="cannot be read as safetensors"):
        load_checkpoint(other, tmp_path / "broken.safetensors")


def test_missing_file_and_empty_folder_raise(tmp_path: Path):
    model, _ = tiny("timesformer")
    with pytest.raises(UserError, match=r"No checkpoint at .*nothing\.pyth"):
        load_checkpoint(model, tmp_path / "nothing.pyth")
    with pytest.raises(
        UserError, match=r"No weights in the folder .* expected model\.safetensors or pytorch_model\.bin"
    ):
        load_checkpoint(model, tmp_path)


class Payload:
    """An object that a hostile file could contain."""


def test_file_with_code_is_not_opened(tmp_path: Path):
    path = saved(tmp_path, {"model_state": official_timesformer(), "note": Payload()})
    with pytest.raises(UserError, match="was not opened, because that could execute code"):
        load_checkpoint(tiny("timesformer")[0], path)


def test_argparse_namespace_in_file_is_allowed(tmp_path: Path):
    content = {"model": official_timesformer(), "args": argparse.Namespace(lr=1e-4, output_dir="out", views=[1, 2])}
    assert load_checkpoint(tiny("timesformer")[0], saved(tmp_path, content), echo=None).complete
    content["args"].output_dir = Path("out")
    with pytest.raises(UserError, match="contains more than tensors and plain values"):
        load_checkpoint(tiny("timesformer")[0], saved(tmp_path, content, "other.pyth"), echo=None)


def test_truncated_file_raises(tmp_path: Path):
    path = saved(tmp_path, official_timesformer())
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=r"cannot be read as a PyTorch checkpoint|is not a checkpoint"):
        load_checkpoint(tiny("timesformer")[0], path)


def test_file_without_weights_raises(tmp_path: Path):
    with pytest.raises(UserError, match=r"expected a dictionary of named tensors, got epoch, lr"):
        load_checkpoint(tiny("timesformer")[0], saved(tmp_path, {"epoch": 1, "lr": 0.1}))
