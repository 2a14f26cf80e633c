"""Recordings of actions into one verified Zarr store, and the store into action classifiers."""

from __future__ import annotations

__version__ = "0.1.0"
