"""Read files of published weights without executing code that they contain."""

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
from actionprep.errors import SetupError, UserError, name_list
from actionprep.training.models.published.key_maps import State

DAMAGED = (
    RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, TypeError, AssertionError, struct.error,
)  # fmt: skip
"""Errors of torch.load for damaged, truncated or foreign files, in addition to UnpicklingError."""


def read_weights(path: Path) -> Any:
    """Read a checkpoint without executing code that it contains.

    Args:
        path: File, or a folder saved by transformers.

    Returns:
        Content of the file: tensors in plain containers.

    Raises:
        UserError: If the file is missing, damaged, or contains more than tensors and plain values.
        SetupError: If the package safetensors is required but not installed.
    """
    if path.is_dir():
        candidates = [path / name for name in ("model.safetensors", "pytorch_model.bin") if (path / name).is_file()]
        if not candidates:
            raise UserError(
                f"No weights in the folder {path}: expected model.safetensors or pytorch_model.bin. Give the path of the "
                "file."
            )
        path = candidates[0]
    if not path.is_file():
        raise UserError(f"No checkpoint at {path}. Check the path, or download the weights.")
    if path.suffix == ".safetensors":
        try:
            from safetensors import SafetensorError
            from safetensors.torch import load_file
        except ImportError:
            raise SetupError(
                f"Reading {path} requires the package safetensors, which is not installed. Run pip install safetensors (or "
                "install the extra actionprep[hf]), or convert the file to .pt."
            ) from None
        try:
            return load_file(path)
        except SafetensorError as error:
            raise UserError(f"{path} cannot be read as safetensors: {error}. Download it again.") from None
    damage = zip_damage(path)
    if damage is not None:
        raise UserError(f"{path} is damaged: {damage}. Download it again, or restore it from a copy.")
    try:
        # Some trainers, such as VideoMAE's, also save their command line as an argparse.Namespace, which is harmless.
        with torch.serialization.safe_globals([*_numpy_globals(), argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if _foreign_header(path) is not None:
            raise UserError(_unreadable(path, error)) from None
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"{path} contains more than tensors and plain values, or is not a checkpoint ({reason}). It was not opened, "
            "because that could execute code. Ask its author for a file with weights only. If you trust it, load it "
            "yourself and save only its state dict."
        ) from None
    except DAMAGED as error:
        raise UserError(_unreadable(path, error)) from None


def read_error_reason(path: Path, error: Exception) -> str:
    """Describe why torch.load failed; most of its messages make no sense to a user.

    Args:
        path: The file.
        error: The error that torch.load raised.

    Returns:
        The reason, as part of a sentence.
    """
    header = None if isinstance(error, OSError) else _foreign_header(path)
    if header is not None:
        return header
    message = str(error).strip() if isinstance(error, (RuntimeError, OSError)) else ""
    return message.splitlines()[0] if message else "its content is truncated or damaged"


def _unreadable(path: Path, error: Exception) -> str:
    return (
        f"{path} cannot be read as a PyTorch checkpoint: {read_error_reason(path, error)}. Give the path of the weights "
        "file, or download it again; a web page may have been saved instead."
    )


def _foreign_header(path: Path) -> str | None:
    """Describe the first bytes of a file if torch.save did not write them (a zip archive or a pickle), else None."""
    with open(path, "rb") as file:
        first = file.read(20)
    if not first:
        return "it is empty"
    if first.startswith((b"PK", b"\x80")):
        return None
    header = first.decode("ascii", "backslashreplace")
    return f"it begins with {header!r}, but PyTorch files begin with PK or with 0x80 (pickle)"


def _numpy_globals() -> list[Any]:
    """Return the globals of NumPy scalars, which trainers save next to the weights (best loss, learning rate)."""
    import numpy as np

    dtypes = [type(np.dtype(scalar_type)) for scalar_type in (np.float64, np.float32, np.int64, np.int32, np.bool_)]
    scalar = np.float64(0).__reduce__()[0]
    # Files written with NumPy 1 contain the old name of the same function.
    return [scalar, (scalar, "numpy.core.multiarray.scalar"), np.dtype, *dtypes]


def state_of(content: Any, path: Path) -> State:
    """Extract the state dict of a checkpoint and remove the prefixes of wrappers.

    Args:
        content: Content of the file, from `read_weights`.
        path: The file, for error messages.

    Returns:
        Tensors by name.

    Raises:
        UserError: If there are no tensors.
    """
    for name in ("model_state", "model_pos", "state_dict", "module", "model"):
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
    state = {str(k): v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, dict) else {}
    if not state:
        keys = name_list(list(map(str, content))) if isinstance(content, dict) else type(content).__name__
        raise UserError(f"No weights in {path}: expected a dictionary of named tensors, got {keys or 'nothing'}.")
    while (prefix := _wrapper_prefix(state)) is not None:
        state = {key.removeprefix(prefix): tensor for key, tensor in state.items()}
    return state


_WRAPPERS = ("module.", "model.", "_orig_mod.", "net.", "network.")
"""Prefixes that DataParallel, Lightning modules, torch.compile and training scripts put before all keys."""


def _wrapper_prefix(state: State) -> str | None:
    """Return a wrapper's prefix that most keys have; other keys are those of a loss or a metric."""
    for prefix in _WRAPPERS:
        others = [key for key in state if not key.startswith(prefix)]
        if 2 * len(others) >= len(state):
            continue
        # The I3D of the TinyVIRAT study has the prefix everywhere except in its head: its own layout, without a wrapper.
        if prefix == "model." and others and all(key.startswith("logits.") for key in others):
            continue
        return prefix
    return None


def color_order_of(content: Any) -> Literal["RGB", "BGR"] | None:
    """Return the color order of a checkpoint, if it is known.

    Official TimeSformer files contain their configuration; those of Something-Something V2 were trained on BGR frames.
    """
    cfg = content.get("cfg") if isinstance(content, dict) else None
    if not isinstance(cfg, str):
        return None
    data = re.search(r"DATASET:\s*['\"]?(\w+)", cfg)
    if data is None:
        return None
    return "BGR" if data.group(1).lower() == "ssv2" else "RGB"
