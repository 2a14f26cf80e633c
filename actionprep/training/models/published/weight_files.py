"""Files of published weights, read without running anything that they bring along."""

from __future__ import annotations

import argparse
import pickle
import re
import struct
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from actionprep.datasets.zip_checksums import zip_damage
from actionprep.errors import SetupError, UserError
from actionprep.training.models.published.key_maps import State

DAMAGED = (
    RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, TypeError, AssertionError, struct.error,
)  # fmt: skip
"""What torch.load raises for a file that is damaged, cut off or of another kind, besides UnpicklingError."""


def read_weights(path: Path) -> Any:
    """What the file holds, without running anything that it brings along."""
    if path.is_dir():
        found = [path / name for name in ("model.safetensors", "pytorch_model.bin") if (path / name).is_file()]
        if not found:
            raise UserError(
                f"The folder {path} holds no weights: neither model.safetensors nor pytorch_model.bin is in it. Name "
                "the file."
            )
        path = found[0]
    if not path.is_file():
        raise UserError(f"There is no checkpoint at {path}. Check the path, or download the weights to it.")
    if path.suffix == ".safetensors":
        try:
            from safetensors import SafetensorError
            from safetensors.torch import load_file
        except ImportError:
            raise SetupError(
                f"{path} is in the safetensors format, and the package safetensors is not installed. Install it with "
                "pip install safetensors (the extra actionprep[hf] brings it), or convert the file to .pt."
            ) from None
        try:
            return load_file(path)
        except SafetensorError as error:
            raise UserError(f"{path} cannot be read as safetensors: {error}. Download it again.") from None
    damage = zip_damage(path)
    if damage is not None:
        raise UserError(f"{path} is damaged: {damage}. Download it again, or restore it from a copy.")
    try:
        # Trainers leave their command line beside the weights, as VideoMAE's does: a name with values, which runs nothing.
        with torch.serialization.safe_globals([*_numpy_numbers(), argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if _foreign_beginning(path) is not None:
            raise UserError(_no_checkpoint(path, error)) from None
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"{path} holds more than tensors and plain values, or is no checkpoint, and is not opened because doing "
            f"so could run code ({reason}). Ask its maker for a file of weights "
            "alone, or save its state dict anew where you trust it."
        ) from None
    except DAMAGED as error:
        raise UserError(_no_checkpoint(path, error)) from None


def why_unreadable(path: Path, error: Exception) -> str:
    """Why torch.load could not read a file, as a part of a sentence; most of its errors mean something to itself alone."""
    beginning = None if isinstance(error, OSError) else _foreign_beginning(path)
    if beginning is not None:
        return beginning
    told = str(error).strip() if isinstance(error, (RuntimeError, OSError)) else ""
    return told.splitlines()[0] if told else "what is in it ends or goes on otherwise than it should"


def _no_checkpoint(path: Path, error: Exception) -> str:
    what = "Name the file of weights itself, or download it again: a page or a note saved in its place is none."
    return f"{path} cannot be read as a PyTorch checkpoint: {why_unreadable(path, error)}. {what}"


def _foreign_beginning(path: Path) -> str | None:
    """What is wrong with how a file begins; None where it begins as torch.save begins: as a zip archive or a pickle."""
    with open(path, "rb") as file:
        first = file.read(20)
    if not first:
        return "it is empty"
    if first.startswith((b"PK", b"\x80")):
        return None
    return (
        f"it begins with {first.decode('ascii', 'backslashreplace')!r}, and PyTorch's files with PK or a pickle's 0x80"
    )


def _numpy_numbers() -> list[Any]:
    """The numpy scalars that trainers leave beside their weights (a best loss, a learning rate); plain data."""
    import numpy as np

    kinds = [type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64, np.int32, np.bool_)]
    scalar = np.float64(0).__reduce__()[0]
    # Files written with numpy 1 name the same function by its former address.
    return [scalar, (scalar, "numpy.core.multiarray.scalar"), np.dtype, *kinds]


def state_of(content: Any, path: Path) -> State:
    """The state dict inside a checkpoint, without the prefixes of wrappers."""
    for name in ("model_state", "model_pos", "state_dict", "module", "model"):
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
    state = {str(k): v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, dict) else {}
    if not state:
        found = ", ".join(map(str, list(content)[:5])) if isinstance(content, dict) else type(content).__name__
        raise UserError(
            f"{path} holds no weights: a dictionary of named tensors was expected, and it holds {found or 'nothing'}."
        )
    for prefix in ("module.", "model.", "_orig_mod."):
        # I3D's own layout has the prefix on all but the head.
        if sum(key.startswith(prefix) for key in state) > len(state) // 2:
            state = {key.removeprefix(prefix): tensor for key, tensor in state.items()}
    return state


def color_order_of(content: Any) -> Literal["RGB", "BGR"] | None:
    """Official TimeSformer files carry their configuration; those of Something-Something V2 saw BGR frames."""
    cfg = content.get("cfg") if isinstance(content, dict) else None
    if not isinstance(cfg, str):
        return None
    data = re.search(r"DATASET:\s*['\"]?(\w+)", cfg)
    if data is None:
        return None
    return "BGR" if data.group(1).lower() == "ssv2" else "RGB"
