"""Choose the number format that a device computes fast: the meaning of `precision = "auto"`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from actionprep.training.recipes import Recipe

if TYPE_CHECKING:
    import torch

_CPU_INFO = Path("/proc/cpuinfo")


def with_precision(recipe: Recipe, device: torch.device) -> Recipe:
    """Replace the precision "auto": bf16-mixed if the device has instructions for it, else 32-true.

    Without such instructions, bfloat16 is emulated in float32. Layouts that suit bfloat16 (channels last) then cost
    time as well, so both are disabled.
    """
    if recipe.precision != "auto":
        return recipe
    if has_bfloat16(device):
        return recipe.changed({"precision": "bf16-mixed"})
    return recipe.changed({"precision": "32-true", "channels_last": False})


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
