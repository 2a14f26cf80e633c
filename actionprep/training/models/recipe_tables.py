"""Tables that recipes of several inputs share (imports no torch)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

SMOOTHED_COSINE: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "loss": MappingProxyType({"label_smoothing": 0.1}),
        "schedule": MappingProxyType({"name": "cosine", "warmup": 0.1}),
    }
)
"""Loss and schedule of what we train from nothing."""
