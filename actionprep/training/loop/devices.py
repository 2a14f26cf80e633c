"""Where a training or a test computes: PyTorch's and Lightning's devices by the names that people give them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from actionprep.errors import SetupError, UserError

if TYPE_CHECKING:
    import torch


def torch_device(device: str) -> torch.device:
    """The device of that name; auto is a GPU where there is one.

    Raises UserError for another name, SetupError for a device that is not here.
    """
    import torch

    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", device):
        raise UserError(
            f"A device is auto, cpu, mps, cuda or cuda:N (the N-th GPU from 0), and '{device}' is none of them."
        )
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "auto":
        device = "cuda" if gpus else "cpu"
    found = torch.device(device)
    if found.type == "cuda" and (found.index or 0) >= gpus:
        what = f"finds {gpus} CUDA GPU(s), numbered from 0" if gpus else "finds no CUDA GPU here"
        raise SetupError(
            f"device is {device}, and PyTorch {what}. Use --device {'cuda' if gpus else 'cpu'}"
            + (", or another number." if gpus else ", or install a CUDA build of PyTorch.")
        )
    if found.type == "mps" and not torch.backends.mps.is_available():
        raise SetupError("device is mps, and PyTorch finds no Apple GPU here. Use --device cpu.")
    return found


def lightning_devices(device: str, devices: int) -> tuple[str, Any]:
    """Lightning's names for a device, and for several of its kind."""
    chosen, number = torch_device(device), device.partition(":")[2]
    if not number:
        return chosen.type, devices
    if devices > 1:
        raise UserError(
            f"--device {device} names a single GPU, and --devices asks for {devices} processes, each on one of its own. "
            "Leave the number out, or choose GPUs with CUDA_VISIBLE_DEVICES."
        )
    return chosen.type, [int(number)]
