"""Which number format a device computes fast in: what `precision = "auto"` becomes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from actionprep.training.recipes import Recipe

if TYPE_CHECKING:
    import torch

_CPU_INFO = Path("/proc/cpuinfo")


def with_precision(recipe: Recipe, device: torch.device) -> Recipe:
    """The recipe with "auto" replaced: bf16-mixed where the device has instructions for it, else 32-true.

    Without them bfloat16 is computed in float32 and rounded after every step, and layouts that suit it (channels last)
    cost time too: both are left out then.
    """
    if recipe.precision != "auto":
        return recipe
    if has_bfloat16(device):
        return recipe.changed({"precision": "bf16-mixed"})
    return recipe.changed({"precision": "32-true", "channels_last": False})


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies matrices of bfloat16 with instructions of its own, as far as it can be known."""
    if device.type == "cuda":
        import torch

        return torch.version.hip is not None or torch.cuda.get_device_capability(device)[0] >= 8
    return device.type == "cpu" and _cpu_has_bfloat16()


def _cpu_has_bfloat16(about: Path = _CPU_INFO) -> bool:
    """Looks at what the kernel says of the processor: x86 names avx512_bf16 or amx_bf16, ARM bf16."""
    try:
        text = about.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return re.search(r"^(flags|Features)\s*:.*\b(avx512_bf16|amx_bf16|bf16)\b", text, re.MULTILINE) is not None
