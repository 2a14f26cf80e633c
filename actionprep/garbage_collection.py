"""Thresholds of Python's garbage collector for work that keeps many small objects."""

from __future__ import annotations

import gc

_DEFAULT = gc.get_threshold()


def collect_rarely() -> None:
    """Collect seldom. Plans of large studies keep millions of objects, and each collection would look at all of them."""
    gc.set_threshold(50_000, 20, 20)


def collect_as_usual() -> None:
    """Collect as Python does. While a model trains, tensors in reference cycles would hold memory for long otherwise."""
    gc.freeze()
    gc.set_threshold(*_DEFAULT)
