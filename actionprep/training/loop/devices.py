"""Resolve device names for PyTorch and Lightning."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from actionprep.errors import SetupError, UserError
from actionprep.json_values import counted

if TYPE_CHECKING:
    import torch


def torch_device(device: str) -> torch.device:
    """Resolve a device name.

    Args:
        device: auto (a GPU if available, else the CPU), cpu, mps, cuda or cuda:N.

    Returns:
        The device.

    Raises:
        UserError: If the name is invalid.
        SetupError: If the device is not available.
    """
    import torch

    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", device):
        raise UserError(f"Unknown device '{device}'. Use auto, cpu, mps, cuda or cuda:N (the N-th GPU, from 0).")
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "auto":
        device = "cuda" if gpus else "cpu"
    resolved = torch.device(device)
    if resolved.type == "cuda" and (resolved.index or 0) >= gpus:
        reason = f"found {counted(gpus, 'CUDA GPU')}, numbered from 0" if gpus else "found no CUDA GPU"
        raise SetupError(
            f"Device {device} is not available: PyTorch {reason}. Use --device {'cuda' if gpus else 'cpu'}"
            + (", or another index." if gpus else ", or install a CUDA build of PyTorch.")
        )
    if resolved.type == "mps" and not torch.backends.mps.is_available():
        raise SetupError("Device mps is not available: PyTorch found no Apple GPU. Use --device cpu.")
    return resolved


def lightning_devices(device: str, devices: int) -> tuple[str, Any]:
    """Return Lightning's accelerator and devices for a device name and a number of processes.

    Raises:
        UserError: If a single GPU is named for several processes.
    """
    resolved, index = torch_device(device), device.partition(":")[2]
    if not index:
        return resolved.type, devices
    if devices > 1:
        raise UserError(
            f"--device {device} names a single GPU, but --devices requests {devices} processes with one GPU each. Remove "
            "the index, or choose GPUs with CUDA_VISIBLE_DEVICES."
        )
    return resolved.type, [int(index)]
