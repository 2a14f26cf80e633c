"""Choose the number format of a training, and check that the device computes the model's layers in it."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from actionprep.errors import UserError
from actionprep.training.recipes import Recipe

if TYPE_CHECKING:
    import torch
    from torch import nn

_CPU_INFO = Path("/proc/cpuinfo")


def with_precision(recipe: Recipe, device: torch.device, model: nn.Module) -> Recipe:
    """Replace "auto" by bf16-mixed where the device computes bfloat16 fast, else by 32-true, and check any other choice.

    Without instructions for it, bfloat16 is computed in float32 and rounded after every step. Layouts that suit it
    (channels last) cost time there too, so both are left out.

    Args:
        recipe: Settings of the training.
        device: Device that the training runs on.
        model: The model to train; it may be on the meta device.

    Raises:
        UserError: If the recipe asks for a precision in which the device cannot compute a layer of the model.
    """
    import torch

    if recipe.precision == "auto":
        if has_bfloat16(device) and not faults_of_layers(model, device, torch.bfloat16):
            return recipe.changed({"precision": "bf16-mixed"})
        return recipe.changed({"precision": "32-true", "channels_last": False})
    dtype = autocast_dtype(recipe.precision, device)
    faults = {} if dtype is None else faults_of_layers(model, device, dtype)
    if faults:
        raise UserError(
            f"precision {recipe.precision} does not work here: the {device.type} device cannot compute {', '.join(faults)} "
            f"layers in {str(dtype).removeprefix('torch.')}, and the model '{recipe.model}' has them. PyTorch reports: "
            f"{next(iter(faults.values()))}\n"
            "Train a new run with --set precision=32-true, which works on every device, or choose another one with --device."
        )
    return recipe


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """Return the type that mixed precision computes in, None for 32-true; CPUs take bfloat16 for both."""
    import torch

    if precision == "16-mixed" and device.type != "cpu":
        return torch.float16
    return torch.bfloat16 if precision in ("bf16-mixed", "16-mixed") else None


def faults_of_layers(model: nn.Module, device: torch.device, dtype: torch.dtype) -> dict[str, str]:
    """Try each kind of layer that a model has in mixed precision.

    Returns:
        Names of the kinds that the device cannot compute in the given type, with PyTorch's reason.
    """
    from torch import nn

    kinds = (nn.LSTM, nn.GRU, nn.RNN, nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    modules = list(model.modules())
    faults = {
        kind.__name__: layer_fault(kind.__name__, device, dtype)
        for kind in kinds
        if any(isinstance(module, kind) for module in modules)
    }
    return {name: fault for name, fault in faults.items() if fault is not None}


@cache
def layer_fault(kind: str, device: torch.device, dtype: torch.dtype) -> str | None:
    """Compute a tiny layer forward and backward under autocast.

    A trial is the only sure answer: which layers work depends on processor, PyTorch's build and the environment. oneDNN,
    for example, multiplies bfloat16 matrices on every processor, but has LSTMs for it only where there is AVX-512.

    Args:
        kind: Name of a layer in torch.nn.
        device: Device to compute on.
        dtype: Type that autocast computes in.

    Returns:
        The first line of PyTorch's error, or None if the layer works.
    """
    import torch
    from torch import nn

    convolution = kind.startswith("Conv")
    sizes = (8, 8, 3) if convolution else (8, 8)
    shape = (2, 8) + (4,) * int(kind[4]) if convolution else (2, 4, 8)
    # Drawing the weights must not move the random numbers of the training.
    with torch.random.fork_rng(devices=[]):
        layer = getattr(nn, kind)(*sizes).to(device)
    x = torch.ones(shape, device=device)
    try:
        with torch.autocast(device.type, dtype):
            output = layer(x)
        (output[0] if isinstance(output, tuple) else output).float().sum().backward()
    except RuntimeError as error:
        return str(error).partition("\n")[0].partition(". ")[0]
    return None


def has_bfloat16(device: torch.device) -> bool:
    """Return whether a device is known to have instructions for matrix products in bfloat16."""
    if device.type == "cuda":
        import torch

        return torch.version.hip is not None or torch.cuda.get_device_capability(device)[0] >= 8
    return device.type == "cpu" and _cpu_has_bfloat16()


def _cpu_has_bfloat16(cpu_info: Path = _CPU_INFO) -> bool:
    """Read the CPU flags that the kernel reports: avx512_bf16 or amx_bf16 on x86, bf16 on ARM."""
    try:
        text = cpu_info.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return re.search(r"^(flags|Features)\s*:.*\b(avx512_bf16|amx_bf16|bf16)\b", text, re.MULTILINE) is not None
